"""Sound devices that can be told to fail: what engine.devices needs of sounddevice and of the sound server's list.

Each stream calls its callback from a thread of its own, as PortAudio does, at the pace of the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.pulse import PulseDevice

RATE_HZ = 48_000
MIC, SPEAKER = "fake_mic", "fake_speaker"


class PortAudioError(Exception):
    """As sounddevice raises it."""


class Faults:
    """What is wrong now; each is set by a test and holds until it is cleared.

    present: ids of the devices that are plugged in; refuse: opening fails; stalled: no callback comes;
    pace: blocks come so many times as fast; frames: each block has so many (None: as asked);
    broken: one sample of each block is this; status: the device tells of breaks.
    """

    def __init__(self) -> None:
        self.present = {MIC, SPEAKER}
        self.clear()

    def clear(self) -> None:
        self.present |= {MIC, SPEAKER}
        self.refuse = self.stalled = self.status = False
        self.pace = 1.0
        self.frames: int | None = None
        self.broken: float | None = None


class FakeStream:
    """One direction. `latency`, `active`, `start` and `close` as in sounddevice."""

    kind, id = "input", MIC

    def __init__(
        self, faults: Faults, callback: Callable[..., None], blocksize: int, samplerate: int, **_: Any
    ) -> None:
        if faults.refuse or self.id not in faults.present:
            raise PortAudioError("Error opening stream: Invalid sample rate [PaErrorCode -9997]")
        self._faults, self._callback = faults, callback
        self._block, self._rate_hz = blocksize, samplerate
        self.latency, self.active = 0.015, False
        self._halt = threading.Event()
        self._random = np.random.default_rng(5)
        self._thread = threading.Thread(target=self._run, name=f"fake {self.id}", daemon=True)

    def start(self) -> None:
        self.active = True
        self._thread.start()

    def close(self, ignore_errors: bool = True) -> None:
        self._halt.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.active = False

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._halt.is_set():
            faults = self._faults
            if self.id not in faults.present:
                self.active = False
                return
            frames = self._block if faults.frames is None else faults.frames
            if not faults.stalled:
                self._callback(self._data(frames, faults.broken), frames, None, faults.status)
            due_s += max(frames, self._block // 4) / self._rate_hz / faults.pace
            self._halt.wait(max(0.0, due_s - time.monotonic()))

    def _data(self, frames: int, broken: float | None) -> np.ndarray:
        data = (0.05 * self._random.standard_normal((frames, 1))).astype(np.float32)
        if broken is not None and frames:
            data[frames // 2] = broken
        return data


class FakeOutputStream(FakeStream):
    """What is played is checked, and forgotten."""

    kind, id = "output", SPEAKER
    insane = 0

    def _data(self, frames: int, broken: float | None) -> np.ndarray:
        return np.zeros((frames, 1), dtype=np.float32)


class FakeSound:
    """Stands for the module sounddevice. heard: peaks of the blocks played, newest last; insane: those no numbers."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.faults = Faults()
        self.heard: list[float] = []
        self.insane = 0

    def InputStream(self, callback: Callable[..., None], **options: Any) -> FakeStream:
        return FakeStream(self.faults, callback, **options)

    def OutputStream(self, callback: Callable[..., None], **options: Any) -> FakeStream:
        def listened(data: np.ndarray, *rest: Any) -> None:
            callback(data, *rest)
            if len(data):
                peak = float(np.abs(data).max())
                self.insane += not np.isfinite(peak)
                self.heard.append(peak)

        return FakeOutputStream(self.faults, listened, **options)

    def query_devices(self) -> list[dict[str, str]]:
        return [{"name": "pulse"}]

    def list_devices(self) -> list[PulseDevice]:
        """What the sound server would tell."""
        both = [
            PulseDevice(MIC, "Mic", "input", True, RATE_HZ, 1),
            PulseDevice(SPEAKER, "Amp", "output", True, RATE_HZ, 1),
        ]
        return [device for device in both if device.name in self.faults.present]
