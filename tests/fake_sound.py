"""Sound devices that can be told to fail: what the engine needs of sounddevice, rtmixer and the sound server's list.

Each stream moves its blocks from a thread of its own, as PortAudio does, at the pace of the clock.
"""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

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


class FakeRing:
    """The ring in C that a stream's callback fills or empties: one channel."""

    def __init__(self, frames: int) -> None:
        self._frames, self._sound, self._lock = frames, np.zeros(0, np.float32), threading.Lock()

    @property
    def sound(self) -> np.ndarray:
        """What waits now."""
        return self._sound

    @property
    def _ptr(self) -> SimpleNamespace:
        return SimpleNamespace(writeIndex=len(self._sound), readIndex=0, bigMask=-1)

    def __len__(self) -> int:
        return self._frames

    def write(self, x: np.ndarray) -> int:
        with self._lock:
            taken = x.reshape(-1)[: self._frames - len(self._sound)]
            self._sound = np.concatenate([self._sound, taken])
        return len(taken)

    def readinto(self, out: np.ndarray) -> int:
        with self._lock:
            n = min(len(out), len(self._sound))
            out.reshape(-1)[:n], self._sound = self._sound[:n], self._sound[n:]
        return n


class FakeStream:
    """One direction; what engine.portaudio_port takes from an rtmixer stream."""

    kind, id = "input", MIC

    def __init__(self, sound: FakeSound, blocksize: int, samplerate: int, channels: int, **_: Any) -> None:
        faults = sound.faults
        if faults.refuse or self.id not in faults.present:
            raise PortAudioError("Error opening stream: Invalid sample rate [PaErrorCode -9997]")
        self._sound, self._faults = sound, faults
        self._block, self._rate_hz, self.channels = blocksize, samplerate, channels
        self.latency, self.active = 0.015, False
        self.actions: set[FakeRing] = set()
        self._state = SimpleNamespace(stats=SimpleNamespace(blocks=0, input_overflows=0, output_underflows=0))
        self._result_q = SimpleNamespace(_ptr=SimpleNamespace(writeIndex=1, readIndex=0))  # look at `actions`
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

    def _begin(self, ring: FakeRing) -> FakeRing:
        self.actions = {ring}
        return ring

    record_ringbuffer = play_ringbuffer = _begin

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._halt.is_set():
            faults = self._faults
            if self.id not in faults.present:
                self.active = False
                return
            frames = self._block if faults.frames is None else faults.frames
            if not faults.stalled:
                self._state.stats.blocks += 1
                self._state.stats.input_overflows += faults.status and self.kind == "input"
                self._state.stats.output_underflows += faults.status and self.kind == "output"
                for ring in set(self.actions):
                    self.actions = {ring} if self._move(ring, frames) else set()
            due_s += max(frames, self._block // 4) / self._rate_hz / faults.pace
            self._halt.wait(max(0.0, due_s - time.monotonic()))

    def _move(self, ring: FakeRing, frames: int) -> bool:
        """One block; False when the ring has run over or dry, which ends the action."""
        data = (0.05 * self._random.standard_normal(frames)).astype(np.float32)
        if self._faults.broken is not None and frames:
            data[frames // 2] = self._faults.broken
        return ring.write(data) == frames


class FakeOutputStream(FakeStream):
    """What is played is checked, and forgotten."""

    kind, id = "output", SPEAKER

    def _move(self, ring: FakeRing, frames: int) -> bool:
        data = np.zeros(frames, dtype=np.float32)
        count = ring.readinto(data)
        if frames:
            peak = float(np.abs(data).max())
            self._sound.insane += not np.isfinite(peak)
            self._sound.heard.append(peak)
        return count == frames


def plugged_in(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    """In place of every real device, for one test."""
    fake = FakeSound()
    for name in ("_sounddevice", "_rtmixer"):
        monkeypatch.setattr(f"engine.devices.{name}", lambda: fake)
    monkeypatch.setattr("engine.devices.on_pulse", lambda: True)
    monkeypatch.setattr("engine.libpulse.usable", lambda: False)
    monkeypatch.setattr("engine.pulse.list_if_available", fake.list_devices)
    return fake


class FakeSound:
    """Stands for the modules sounddevice and rtmixer.

    heard: peaks of the blocks played, newest last; insane: those that are no numbers.
    """

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.faults = Faults()
        self.heard: list[float] = []
        self.insane = 0

    def Recorder(self, **options: Any) -> FakeStream:
        return FakeStream(self, **options)

    def Mixer(self, **options: Any) -> FakeStream:
        return FakeOutputStream(self, **options)

    def RingBuffer(self, _element_size: int, frames: int) -> FakeRing:
        return FakeRing(frames)

    def query_devices(self) -> list[dict[str, str]]:
        return [{"name": "pulse"}]

    def list_devices(self) -> list[PulseDevice]:
        """What the sound server would tell."""
        both = [
            PulseDevice(MIC, "Mic", "input", True, RATE_HZ, 1),
            PulseDevice(SPEAKER, "Amp", "output", True, RATE_HZ, 1),
        ]
        return [device for device in both if device.name in self.faults.present]
