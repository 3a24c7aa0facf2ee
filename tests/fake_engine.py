"""An engine for tests of the window: the methods of engine.live.Engine, events made up but well formed."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from engine.types import (
    AudioFileError,
    Caption,
    DeviceError,
    EngineConfig,
    Event,
    Levels,
    RecordingChange,
    Stats,
    Tokens,
    Word,
)

HOP, RATE_HZ = 320, 16_000
ROWS_S, ROWS_B = 36, 20
TEXT = ("quiet", "please", "the", "kettle", "is", "singing", "and", "the", "street", "below", "never", "sleeps")


class FakeEngine:
    """Plays a made-up voice in made-up noise in real time; remembers what it was asked to do.

    stall: set and stop wait for it to be set. fail: start raises DeviceError with this text.
    """

    def __init__(self, config: EngineConfig, fail: str = "", stall: threading.Event | None = None) -> None:
        self.config, self.fail, self.stall = config, fail, stall
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.background = str(config.background)
        self.state = "running"
        self.recorded = self.refuse_record = ""
        self.extra: list[Event] = []
        self._begin: float | None = None
        self._hops = 0
        self._words = 0
        self._rng = np.random.default_rng(7)

    def start(self) -> None:
        self.calls.append(("start", {}))
        if self.fail:
            raise DeviceError(self.fail)
        self._begin = time.monotonic()

    def set(self, **changes: Any) -> None:
        if self.stall is not None:
            self.stall.wait()
        self.calls.append(("set", changes))
        if "background" in changes:
            self.background = str(changes["background"])
        if "bypass" in changes:
            self.state = "bypass" if changes["bypass"] else "running"

    @property
    def now_s(self) -> float:
        return self._hops * HOP / RATE_HZ

    def resync(self) -> None:
        self.calls.append(("resync", {}))

    def record(self, folder: str) -> None:
        self.calls.append(("record", {"folder": folder}))
        if self.refuse_record:
            raise AudioFileError(self.refuse_record)
        self.recorded = folder
        self.extra.append(RecordingChange(self.now_s, folder, self.now_s))

    def end_recording(self) -> None:
        self.calls.append(("end_recording", {}))
        self.extra.append(RecordingChange(self.now_s, self.recorded, 0.0, 2.0))

    def stop(self, drain_s: float = 0.0) -> None:
        if self.stall is not None:
            self.stall.wait()
        self.calls.append(("stop", {}))
        self._begin = None

    def pause(self) -> None:
        """No events but those in `extra`."""
        self._begin = None

    def poll(self) -> list[Event]:
        events, self.extra = self.extra, []
        if self._begin is None:
            return events
        due = int((time.monotonic() - self._begin) * RATE_HZ / HOP) - self._hops
        return events + self.hops(due) if due > 0 else events

    def hops(self, count: int) -> list[Event]:
        """The events of the next `count` hops."""
        t = (self._hops * HOP + np.arange(count * HOP)) / RATE_HZ
        self._hops += count
        now_s = self._hops * HOP / RATE_HZ
        syllables = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1) * (np.sin(2 * np.pi * 0.23 * t) > -0.5)
        pitch = 120 * t + 4 * np.sin(2 * np.pi * 0.7 * t)
        voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 25)) * syllables * 0.1
        noise = self._rng.normal(0, 0.03, len(t))
        heard, sent = (voice + noise).astype(np.float32), (voice + 0.05 * noise).astype(np.float32)
        codes_s = self._rng.integers(0, 1024, (ROWS_S, count), dtype=np.int16)
        codes_b = self._rng.integers(0, 1024, (ROWS_B, count), dtype=np.int16)
        loud = (63 * syllables.reshape(count, HOP).mean(axis=1)).astype(np.int16)
        codes_s[:4] = loud
        rms_db = 20 * float(np.log10(np.sqrt(np.mean(heard**2)) + 1e-6))
        return [
            Levels(now_s, rms_db + 12, rms_db, rms_db + 10, rms_db - 2, rms_db - 2, rms_db - 8, 0.0),
            Tokens(now_s, codes_s, codes_b, heard, sent, self.background),
            self._stats(now_s),
            *self._captions(now_s),
        ]

    def _stats(self, now_s: float) -> Stats:
        parts = (("device", 20.0), ("resampling", 4.0), ("algorithm", 30.0), ("rings", 10.0))
        return Stats(now_s, self.state, "cpu", 30.0, 64.0, parts, 3.1, 4.4, 9.0, 0.16, 0, 1.2)

    def _captions(self, now_s: float) -> list[Event]:
        if not self.config.captions or now_s < 0.4 * (self._words + 3):
            return []
        final = self._word(self._words)
        tail = tuple(self._word(self._words + k) for k in (1, 2))
        self._words += 1
        return [Caption(now_s, (final,), tail, 1.2)]

    def _word(self, number: int) -> Word:
        return Word(TEXT[number % len(TEXT)], 0.4 * number, 0.4 * number + 0.35)
