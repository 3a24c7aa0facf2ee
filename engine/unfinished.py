"""Recordings that a crash or a kill left open: found at the next start, made whole, and forgotten.

While a recording runs a small note lies among the settings, with its folder and the process that writes it. It goes
when the recording is complete; one that is still there when its process is gone names a recording to repair.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.paths import config_dir
from engine.recorder import CAPTIONS_NAME, OTHERS_NAME, TOKENS_NAME, WAV_NAMES, WavWriter
from engine.soundfiles import partial_path
from engine.tokens import SvtWriter, read_svt
from engine.types import SottovoceError

NOTES = "open-recordings"
SAME_S = 2.0  # a process's beginning is told in whole ticks


@dataclass(frozen=True)
class Repaired:
    """A recording that was made whole. duration_s: of its sound."""

    folder: Path
    duration_s: float


class OpenNote:
    """The note of one recording that runs; without a place for it there is none, and nothing else changes."""

    def __init__(self, folder: Path) -> None:
        pid = os.getpid()
        words = {"folder": str(folder.absolute()), "process": pid, "since_s": psutil.Process(pid).create_time()}
        self._path = config_dir() / NOTES / f"{pid}-{id(self)}.json"
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(words), encoding="utf-8")

    def remove(self) -> None:
        """The recording is complete."""
        _remove(self._path)


def repair_unfinished() -> list[Repaired]:
    """Make whole what earlier runs left open. May take seconds for long recordings."""
    found = []
    for note, folder in _left_open():
        duration_s = repair(folder)
        _remove(note)
        if duration_s > 0.0:
            found.append(Repaired(folder, duration_s))
    return found


def _left_open() -> Iterator[tuple[Path, Path]]:
    """Notes whose process has gone, with the folder that each names."""
    notes = config_dir() / NOTES
    for note in sorted(notes.glob("*.json")):
        try:
            words = json.loads(note.read_text(encoding="utf-8"))
            folder, process, since_s = Path(words["folder"]), int(words["process"]), float(words["since_s"])
        except (OSError, ValueError, KeyError, TypeError):
            _remove(note)  # cut short by the crash itself
            continue
        if not _runs(process, since_s):
            yield note, folder


def _runs(process: int, since_s: float) -> bool:
    """Whether that very process is still there; its number may be another's by now."""
    try:
        found = psutil.Process(process)
        return bool(abs(found.create_time() - since_s) < SAME_S and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def repair(folder: Path) -> float:
    """Bring every file of the recording up to what was written, all of one length -> that length in s.

    What cannot be repaired is left as it is; the sound files can be played even so.
    """
    tracks = [track for name in WAV_NAMES if (track := _reopened(folder / name)) is not None]
    longest_s = max((track.frames / track.sample_rate_hz for track in tracks), default=0.0)
    for track in tracks:
        with contextlib.suppress(SottovoceError):
            track.close(round(longest_s * track.sample_rate_hz))
    if tracks:
        with contextlib.suppress(SottovoceError, OSError):
            _complete_tokens(folder / TOKENS_NAME, round(longest_s * tracks[0].sample_rate_hz))
    if len(tracks) == len(WAV_NAMES) and not longest_s:
        _clear(folder)
    return longest_s


def _reopened(path: Path) -> WavWriter | None:
    try:
        return WavWriter.reopen(path)
    except SottovoceError:
        return None


def _complete_tokens(path: Path, source_samples: int) -> None:
    """Write the token file anew beside itself, with a header that says what is in it."""
    found = read_svt(path)
    if found.header.frames >= 0 or found.lost:
        return
    temp = partial_path(path)
    try:
        writer = SvtWriter(temp, found.header, path)
        writer.write(found.codes_s, found.codes_b)
        if found.words:
            writer.words(found.words)
        writer.close(source_samples)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """A recording in which there is no sound at all leaves nothing."""
    for name in (*WAV_NAMES, TOKENS_NAME, CAPTIONS_NAME, OTHERS_NAME):
        _remove(folder / name)
    with contextlib.suppress(OSError):  # not there, or there is more in it
        folder.rmdir()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
