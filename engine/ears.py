"""Sources of a Pulse server recorded side by side, each as any program records it, and when their sound came.

Two recordings share no first sample, so each piece is stamped with the machine's clock as it arrives. That is done in a
process of its own, where nothing that the measured program does can hold it up.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from engine.types import DeviceError, Samples

RATE_HZ = 48000
LATENCY_MS = 20  # what a program asks for that records a call
NEAR_S = 1.0
START_S = 10.0
STAMP = struct.Struct("<qd")  # frames that had come, seconds
NO_TOOL = "parec cannot be run; install it: sudo apt install pulseaudio-utils"


@dataclass(frozen=True)
class Heard:
    """One recording: sound [N] at RATE_HZ; ends [P]: how many samples had come with each piece of it, and came_s [P]:
    when, on time.monotonic's clock.

    A piece may be late and is never early, so the promptest piece within NEAR_S tells when a sample came. A longer
    memory would be wrong once the server gives a few milliseconds twice, as it does when a player begins anew.
    """

    sound: Samples
    ends: np.ndarray[Any, np.dtype[np.int64]]
    came_s: np.ndarray[Any, np.dtype[np.float64]]

    def time_s(self, index: int) -> float:
        """When the sample there came."""
        far_s = np.abs(self.ends - index) / RATE_HZ
        return self._first_s(far_s) + index / RATE_HZ

    def at(self, time_s: float) -> int:
        """The sample that came then; the first or the last where none did."""
        index = round((time_s - self._first_s(np.abs(self.came_s - time_s))) * RATE_HZ)
        return min(max(0, index), len(self.sound))

    def since(self, time_s: float) -> Samples:
        """What came from then on [n]."""
        return self.sound[self.at(time_s) :]

    def _first_s(self, far_s: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        """When the first sample came, as the pieces near by have it."""
        near = far_s <= max(NEAR_S, far_s.min())
        return float((self.came_s[near] - self.ends[near] / RATE_HZ).min())


class Ears:
    """Records sources, by name, while it is held; `stop` gives what each heard.

    Raises DeviceError when nothing comes from one of them.
    """

    def __init__(self, *sources: str) -> None:
        self._sources = sources

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self._folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sottovoce-ears-")))
            command = [sys.executable, "-m", "engine.ears", str(self._folder), *self._sources]
            root = Path(__file__).resolve().parent.parent
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root)
            undo.callback(self._end)
            self._wait()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._undo.close()

    def stop(self) -> list[Heard]:
        """End the recordings -> one for each source."""
        self._end()
        return [_read(self._folder, number) for number in range(len(self._sources))]

    def _wait(self) -> None:
        files = [self._folder / f"{number}.times" for number in range(len(self._sources))]
        until = time.monotonic() + START_S
        while not all(path.exists() and path.stat().st_size for path in files):
            if self._process.poll() is not None:
                raise DeviceError(NO_TOOL)
            if time.monotonic() > until:
                raise DeviceError(f"nothing comes from {' or '.join(self._sources)}; see: sottovoce devices")
            time.sleep(0.01)

    def _end(self) -> None:
        """May be called twice. The process ends when nobody holds its standard input any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=START_S)


def _read(folder: Path, number: int) -> Heard:
    stamps = np.fromfile(folder / f"{number}.times", dtype=[("end", "<i8"), ("came_s", "<f8")])
    sound = np.fromfile(folder / f"{number}.f32", dtype="<f4")
    return Heard(sound, stamps["end"], stamps["came_s"])


# The process ----------------------------------------------------------------------------------------------------------


def _record(folder: Path, sources: list[str]) -> None:
    """Until standard input ends."""
    options = ["--raw", "--format=float32le", f"--rate={RATE_HZ}", "--channels=1", f"--latency-msec={LATENCY_MS}"]
    with contextlib.ExitStack() as at_end:
        waiting = at_end.enter_context(selectors.DefaultSelector())
        waiting.register(sys.stdin, selectors.EVENT_READ)
        for number, source in enumerate(sources):
            tool = subprocess.Popen(["parec", "-d", source, *options], stdout=subprocess.PIPE)
            at_end.callback(tool.wait)
            at_end.callback(tool.terminate)
            assert tool.stdout is not None
            waiting.register(tool.stdout, selectors.EVENT_READ, _Writer(folder, number, at_end))
        while True:
            for key, _ in waiting.select():
                came_s = time.monotonic()
                if key.data is None:
                    return
                if not key.data.write(os.read(key.fd, 1 << 16), came_s):  # the source has gone
                    waiting.unregister(key.fileobj)


class _Writer:
    def __init__(self, folder: Path, number: int, at_end: contextlib.ExitStack) -> None:
        self._bytes = 0
        self._sound = at_end.enter_context((folder / f"{number}.f32").open("wb"))
        self._times = at_end.enter_context((folder / f"{number}.times").open("wb", buffering=0))

    def write(self, piece: bytes, came_s: float) -> bool:
        """Whether there was anything."""
        self._bytes += len(piece)
        self._sound.write(piece)
        if piece:
            self._times.write(STAMP.pack(self._bytes // 4, came_s))
        return bool(piece)


if __name__ == "__main__":
    _record(Path(sys.argv[1]), sys.argv[2:])
