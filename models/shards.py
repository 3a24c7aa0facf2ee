"""Shards: 16 kHz mono int16 sound in one memory-mapped array per package, kind and split, with a manifest beside it.

    NAME.npy    int16 [N], all clips one after the other
    NAME.json   package, version, licence, hashes; a row per clip: path, speaker, class, transcript, offset, length

The manifest is written last, so a shard whose manifest is there is whole. Every clip passes the denylist here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from engine.paths import cache_dir
from models.denylist import Denylist
from models.fetch import sha256_of
from models.readers import CLASS_RULES, NAMED_BY_RULE
from models.sources import Item, Kind, Source, Split

RATE_HZ = 16000
RECIPE = 1  # raised when the making of shards changes, so that old ones are made again
FRAME = 320
MIN_SPEECH_S = 0.3
MIN_BACKGROUND_S = 2.5
MIN_EVENT_S = 0.2
MIN_SOURCE_HZ = 16000  # speech; a lower rate has lost too much of it
MIN_BACKGROUND_HZ = 22050
MIN_SCARCE_HZ = 11025  # classes of which there is little else; most of their sound lies below 5 kHz
SCARCE = ("traffic", "crowd", "machine")
SPLITS: tuple[Split, ...] = ("train", "validation")
KINDS: tuple[Kind, ...] = ("speech", "background")
VALIDATION_ONE_IN = 10

Int16 = NDArray[np.int16]
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One clip of a shard; offset and length in samples, sha256 of the file it was read from."""

    path: str
    speaker: str
    class_name: str
    transcript: str
    offset: int
    length: int
    source_sha256: str


@dataclass(frozen=True)
class Clip:
    """One piece of sound for mixing. `samples` is int16 [N] at 16 kHz, a view into the memory-mapped shard."""

    samples: Int16
    speaker: str
    class_name: str
    source: str
    transcript: str


@dataclass
class Tally:
    """What became of a package's files."""

    kept: int = 0
    denied: int = 0
    unusable: int = 0
    repeated: int = 0


def shard_folder() -> Path:
    """Where the shards lie; made when asked for the first time."""
    folder = cache_dir() / "data" / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load(split: Split, kind: Kind, folder: Path | None = None) -> list[Clip]:
    """Every clip of that split and kind that has been made so far, in a fixed order."""
    clips: list[Clip] = []
    for manifest in sorted((folder or shard_folder()).glob(f"{split}-{kind}-*.json")):
        table = json.loads(manifest.read_text(encoding="utf-8"))
        sound = np.load(manifest.with_suffix(".npy"), mmap_mode="r")
        for row in table["clips"]:
            cut = sound[row["offset"] : row["offset"] + row["length"]]
            source = f"{table['source']}/{row['path']}"
            clips.append(Clip(cut, row["speaker"], row["class_name"], source, row["transcript"]))
    return clips


def manifests(folder: Path) -> list[Path]:
    """The manifests of all whole shards."""
    return sorted(file for file in folder.glob("*-*.json") if file.name.split("-")[0] in ("train", "validation"))


def decode(file: Path, min_rate_hz: int = 8000) -> Int16 | None:
    """A sound file as 16 kHz mono int16, or None when it cannot be read or its rate is too low."""
    try:
        sound, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return None
    if rate_hz < min_rate_hz or not len(sound) or not np.isfinite(sound).all():
        return None
    return to_int16(sound.mean(axis=1), rate_hz)


def to_int16(mono: NDArray[np.float32], rate_hz: int) -> Int16:
    """Resample float samples to 16 kHz and round them to int16, with the overshoot of the filter clamped."""
    if rate_hz != RATE_HZ:
        mono = soxr.resample(mono, rate_hz, RATE_HZ)
    whole: Int16 = np.clip(np.rint(mono * 32767.0), -32768, 32767).astype(np.int16)
    return whole


def to_float(sound: Int16) -> Samples:
    """int16 as float32 in [-1, 1)."""
    return np.multiply(sound, np.float32(1 / 32768), dtype=np.float32)


def trim(sound: Int16, floor_db: float = 45.0, keep_s: float = 0.1) -> Int16:
    """Cut silence off both ends: frames more than `floor_db` below the loudest one, less a margin of `keep_s`."""
    frames = len(sound) // FRAME
    if frames < 3:
        return sound
    level = np.square(sound[: frames * FRAME].astype(np.float32)).reshape(frames, FRAME).mean(axis=1)
    loud = np.flatnonzero(level > max(float(level.max()) * 10 ** (-floor_db / 10), 1.0))
    if not len(loud):
        return sound[:0]
    margin = round(keep_s * RATE_HZ)
    return sound[max(0, int(loud[0]) * FRAME - margin) : (int(loud[-1]) + 1) * FRAME + margin]


def make(
    source: Source,
    items: Iterable[Item],
    denied: Denylist,
    seen: set[str],
    folder: Path,
    progress: Callable[[], None] = lambda: None,
) -> Tally:
    """Write the shards of one source and return what became of its files; `seen` holds hashes of files had already.

    A file whose bytes were had from another package is left out, so one recording never lies in two splits.
    """
    tally = Tally()
    groups: dict[tuple[Split, Kind], _Writer] = {}
    music_left = source.music_minutes * 60 * RATE_HZ
    for item in items:
        progress()
        if denied.clip(source.package.name, item.path, item.kind, item.speaker, item.class_name):
            tally.denied += 1
            continue
        digest = sha256_of(item.file)
        if digest in seen:
            tally.repeated += 1
            continue
        if item.class_name == "music" and music_left <= 0:
            continue
        sound = usable(item)
        if sound is None:
            tally.unusable += 1
            continue
        seen.add(digest)
        music_left -= len(sound) if item.class_name == "music" else 0
        split = item.split or split_of(digest)
        groups.setdefault((split, item.kind), _Writer()).add(item, sound, digest)
        tally.kept += 1
    for split, kind in itertools.product(SPLITS, KINDS):
        stem = folder / f"{split}-{kind}-{source.name}"
        if writer := groups.get((split, kind)):
            writer.finish(stem, source, denied, split, kind)
        else:  # made by an older recipe
            _with(stem, ".json").unlink(missing_ok=True)
            _with(stem, ".npy").unlink(missing_ok=True)
    mark_done(source, denied, folder, tally)
    return tally


def usable(item: Item) -> Int16 | None:
    """The item's sound, or None when it is too short, too dull, silent or clipped through and through."""
    speech = item.kind == "speech"
    least_hz = MIN_SOURCE_HZ if speech else MIN_SCARCE_HZ if item.class_name in SCARCE else MIN_BACKGROUND_HZ
    sound = decode(item.file, least_hz)
    if sound is None:
        return None
    sound = trim(sound) if speech or item.class_name == "events" else sound
    least_s = MIN_SPEECH_S if speech else MIN_EVENT_S if item.class_name == "events" else MIN_BACKGROUND_S
    if len(sound) < least_s * RATE_HZ or np.abs(sound.astype(np.int32)).max() < 100:
        return None
    clipped = float(np.mean(np.abs(sound.astype(np.int32)) >= 32700))
    return None if clipped > 0.01 else sound


def split_of(digest: str) -> Split:
    """One file in ten goes to validation, by its own hash: the same file in two packages lands on one side."""
    return "validation" if int(digest[:8], 16) % VALIDATION_ONE_IN == 0 else "train"


def fingerprint(source: Source, denied: Denylist) -> str:
    """What a source's shards depend on; another value means that they are made again."""
    parts = [
        str(RECIPE),
        denied.sha256,
        source.reader,
        json.dumps(source.options, sort_keys=True),
        str(source.music_minutes),
    ]
    parts += [f"{p.name}={p.sha256}" for p in (source.package, *source.companions)]
    if source.reader in NAMED_BY_RULE:
        parts += [f"{pattern}={name}" for pattern, name in CLASS_RULES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_done(source: Source, denied: Denylist, folder: Path) -> bool:
    """True when this source's shards are there and were made by this recipe."""
    mark = folder / f"done-{source.name}.json"
    return mark.is_file() and json.loads(mark.read_text())["fingerprint"] == fingerprint(source, denied)


def mark_done(source: Source, denied: Denylist, folder: Path, tally: Tally) -> None:
    """Remember that a source is finished, also when nothing of it was kept."""
    table = {"fingerprint": fingerprint(source, denied), **asdict(tally)}
    write_beside(folder / f"done-{source.name}.json", json.dumps(table).encode())


def write_beside(place: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that a break leaves the old one or the new one."""
    beside = place.with_name(place.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, place)


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


class _Writer:
    """Gathers the clips of one shard in memory (a package at a time is at most a few hundred MB)."""

    def __init__(self) -> None:
        self.parts: list[Int16] = []
        self.rows: list[Row] = []
        self.length = 0

    def add(self, item: Item, sound: Int16, digest: str) -> None:
        row = Row(item.path, item.speaker, item.class_name, item.transcript, self.length, len(sound), digest)
        self.rows.append(row)
        self.parts.append(sound)
        self.length += len(sound)

    def finish(self, stem: Path, source: Source, denied: Denylist, split: Split, kind: Kind) -> None:
        """Write sound first and manifest last; `stem` is the shard's path without a suffix."""
        sound_file, manifest = _with(stem, ".npy"), _with(stem, ".json")
        manifest.unlink(missing_ok=True)
        beside = _with(stem, ".part.npy")
        np.save(beside, np.concatenate(self.parts))
        os.replace(beside, sound_file)
        table = {
            "source": source.name,
            "package": source.package.name,
            "version": source.package.version,
            "package_sha256": source.package.sha256,
            "licence": source.package.licence,
            "split": split,
            "kind": kind,
            "sample_rate_hz": RATE_HZ,
            "minutes": round(self.length / RATE_HZ / 60, 2),
            "denylist_sha256": denied.sha256,
            "sha256": sha256_of(sound_file),
            "clips": [asdict(row) for row in self.rows],
        }
        write_beside(manifest, json.dumps(table, ensure_ascii=False).encode())
