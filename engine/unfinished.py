"""Recordings that a crash or a kill left open: found at the next start, made whole, and forgotten.

While a recording runs a small note with its folder lies among the settings, and beside it a file that the process keeps
locked; the system takes such a lock back whatever ends the process. The note goes when the recording is complete; one
that is still there when its lock is free names a recording to repair. It stays while that cannot be done, as its disk
may come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.paths import config_dir
from engine.recorder import CAPTIONS_NAME, OTHERS_NAME, TOKENS_NAME, WAV_NAMES, WavWriter, recorded_files
from engine.soundfiles import partial_path
from engine.token_reader import read_svt
from engine.token_writer import SvtWriter
from engine.types import SottovoceError

if TYPE_CHECKING:
    from filelock import FileLock

NOTES = "open-recordings"


@dataclass(frozen=True)
class Repaired:
    """A recording that was made whole. duration_s: of its sound."""

    folder: Path
    duration_s: float


class OpenNote:
    """The note of one recording that runs; without a place for it there is none, and nothing else changes."""

    def __init__(self, folder: Path) -> None:
        words = {"folder": str(folder.absolute()), "host": platform.node()}
        self._path = config_dir() / NOTES / f"{uuid.uuid4().hex}.json"
        self._lock = _lock_of(self._path)
        with contextlib.suppress(OSError, NotImplementedError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()  # first: a note that is not locked is of one that was left open
            self._path.write_text(json.dumps(words), encoding="utf-8")

    def remove(self) -> None:
        """The recording is complete."""
        _remove(self._path)

    def let_go(self) -> None:
        """Nothing more is written here; what is not complete may be repaired by others."""
        _unlock(self._lock)


def repair_unfinished() -> list[Repaired]:
    """Make whole what earlier runs left open. May take seconds for long recordings."""
    found = []
    for note, folder in _left_open():
        duration_s = repair(folder)
        if duration_s is None:
            continue
        _remove(note)
        if duration_s > 0.0:
            found.append(Repaired(folder, duration_s))
    return found


def _left_open() -> Iterator[tuple[Path, Path]]:
    """Notes that no process holds, with the folder that each names; each is locked until the next is asked for."""
    notes = config_dir() / NOTES
    for note in sorted(notes.glob("*.json")):
        lock = _lock_of(note)
        try:
            lock.acquire()
        except (OSError, NotImplementedError):
            continue
        try:
            words = json.loads(note.read_text(encoding="utf-8"))
            folder, host = Path(words["folder"]), str(words["host"])
        except (OSError, ValueError, KeyError, TypeError):
            _remove(note)  # cut short by the crash itself
        else:
            if host == platform.node():  # of another one that shares these settings, no lock need be seen here
                yield note, folder
        finally:
            _unlock(lock)


def _lock_of(note: Path) -> FileLock:
    """Not held yet. Whoever asks for it waits for nobody; one thread may take it and another give it back."""
    from filelock import FileLock  # late: a live run starts without

    return FileLock(note.with_suffix(".lock"), timeout=0, thread_local=False)


def _unlock(lock: FileLock) -> None:
    lock.release()
    _remove(Path(lock.lock_file))  # no other note ever has its name


def repair(folder: Path) -> float | None:
    """Bring every file of the recording up to what was written, all of one length -> that length in s.

    What is damaged is left as it is; the sound files can be played even so. None: it is not to be had now, or may not
    be written to, or there is no room.
    """
    if not folder.is_dir() or not all(os.access(path, os.W_OK) for path in recorded_files(folder)):
        return None
    tracks = [track for name in WAV_NAMES if (track := _reopened(folder / name)) is not None]
    longest_s = max((track.frames / track.sample_rate_hz for track in tracks), default=0.0)
    closed = [_closed(track, longest_s) for track in tracks]
    if tracks:
        with contextlib.suppress(SottovoceError, OSError):
            _complete_tokens(folder / TOKENS_NAME, round(longest_s * tracks[0].sample_rate_hz))
    if len(tracks) == len(WAV_NAMES) and not longest_s:
        _clear(folder)
    return longest_s if all(closed) else None


def _closed(track: WavWriter, duration_s: float) -> bool:
    """Whether it could be given that length."""
    try:
        track.close(round(duration_s * track.sample_rate_hz))
    except SottovoceError:
        return False
    return True


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
        for channel, codes in enumerate(found.channels):
            writer.write(*codes, channel)
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
