"""The two ends of a live run, one protocol for all: a port fills a ring in real time, or empties one.

`engine.port_choice` has the ports that are sound devices. Here are the others: a recording played as if it were a
microphone, samples in memory, and outputs that keep or forget what they are given. Their threads wait, copy and count.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.priority import hurry
from engine.resample import LIVE_RATES_HZ, FileResampler
from engine.ring import Ring
from engine.soundfiles import SoundReader
from engine.types import Samples, UsageError

FALLBACK_RATE_HZ = 48000
NO_OUTPUT = "none"


class Wake:
    """A bell from a sound callback to one waiting thread: neither side ever waits for a lock that the other holds.

    rung_s: when it rang last, on time.perf_counter's clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.rung_s = 0.0

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # rung by two at once
            if self._lock.locked():
                self.rung_s = time.perf_counter()
                self._lock.release()

    def wait(self, timeout_s: float) -> bool:
        """Whether it rang; a ring from before the call counts."""
        return self._lock.acquire(timeout=timeout_s)


class Port(Protocol):
    """One end. Only `start` may raise (DeviceError); what happens later shows in `alive`, `ended` and `xruns`.

    device: its id; latency_ms: what the device itself holds back; xruns: breaks that the sound system told of;
    blocks: how many have moved, begun: and do so steadily; idle: it has nothing to do and need not move; ended: an
    input with nothing more to give;
    rings: whether the bell is rung for every block; pending: frames between device and ring, which `pump` moves;
    rest: nothing but silence is moved from now on, or no longer. It may be told again.
    tells_silence: whether it tells digital silence from sound; pass_silence: then, by whoever pumps, leave out the
    silence that waits; how many frames that was, and whether sound waits behind it.
    """

    device: str
    sample_rate_hz: int
    rings: bool
    tells_silence: bool

    @property
    def xruns(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def begun(self) -> bool: ...
    @property
    def idle(self) -> bool: ...
    @property
    def pending(self) -> int: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def alive(self) -> bool: ...
    @property
    def ended(self) -> bool: ...

    def start(self, ring: Ring, wake: Wake) -> None: ...
    def stop(self) -> None: ...
    def pump(self) -> None: ...
    def rest(self, resting: bool) -> None: ...
    def pass_silence(self) -> tuple[int, bool]: ...


class PacedPort:
    """A port driven by a thread that moves one block whenever the clock says so, catching up when it was held up."""

    rings, pending, idle, tells_silence = True, 0, False, False

    def __init__(self, device: str, sample_rate_hz: int, block_ms: float) -> None:
        self.device, self.sample_rate_hz = device, sample_rate_hz
        self.block = max(1, round(sample_rate_hz * block_ms / 1000.0))
        self.xruns, self.blocks = 0, 0
        self.ended = False
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def latency_ms(self) -> float:
        return 1000.0 * self.block / self.sample_rate_hz

    @property
    def alive(self) -> bool:
        return self._thread is not None and (self._thread.is_alive() or self.ended)

    @property
    def begun(self) -> bool:
        return self.blocks > 0

    def pump(self) -> None:
        """Its own thread does it."""

    def rest(self, resting: bool) -> None:
        """Its thread costs next to nothing."""

    def pass_silence(self) -> tuple[int, bool]:
        """Its thread puts everything into the ring."""
        return 0, True

    def start(self, ring: Ring, wake: Wake) -> None:
        self._halt.clear()
        self._thread = threading.Thread(
            target=self._run, args=(ring, wake), name=f"sottovoce {self.device}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._halt.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, ring: Ring, wake: Wake) -> None:
        hurry()
        begin, moved = time.monotonic(), 0
        while not self._halt.is_set() and self._move(ring):
            self.blocks += 1
            moved += 1
            wake.ring()
            self._halt.wait(max(0.0, begin + moved * self.block / self.sample_rate_hz - time.monotonic()))
        wake.ring()

    def _move(self, ring: Ring) -> bool:
        """One block between the port and the ring; False at the end."""
        raise NotImplementedError


class SourceInput(PacedPort):
    """Mono sound from an iterator of arrays [n], played in real time and then over. `played` counts its samples."""

    def __init__(self, device: str, sample_rate_hz: int, sound: Iterator[Samples], block_ms: float = 5.0) -> None:
        super().__init__(device, sample_rate_hz, block_ms)
        self._sound = sound
        self._waiting: Samples = np.zeros(0, dtype=np.float32)

    def _move(self, ring: Ring) -> bool:
        while len(self._waiting) < self.block:
            more = next(self._sound, None)
            if more is None:
                break
            self._waiting = np.concatenate([self._waiting, more])
        out, self._waiting = self._waiting[: self.block], self._waiting[self.block :]
        ring.write(out)
        self.ended = not len(self._waiting) and len(out) < self.block
        return not self.ended


class MemoryInput(SourceInput):
    """An array [N] or [N, C] as a microphone."""

    def __init__(self, samples: Samples, sample_rate_hz: int, block_ms: float = 5.0) -> None:
        if sample_rate_hz not in LIVE_RATES_HZ:
            raise UsageError(f"live sound runs at one of {', '.join(map(str, LIVE_RATES_HZ))} Hz, not {sample_rate_hz}")
        mono = samples if samples.ndim == 1 else samples.mean(axis=1)
        super().__init__("memory", sample_rate_hz, iter([mono.astype(np.float32)]), block_ms)


class FileInput(SourceInput):
    """A recording as a microphone; its channels are mixed. Raises AudioFileError when it cannot be read."""

    def __init__(self, path: str | Path, block_ms: float = 5.0) -> None:
        self.path = Path(path)
        reader = SoundReader(self.path)
        rate_hz = reader.sample_rate_hz if reader.sample_rate_hz in LIVE_RATES_HZ else FALLBACK_RATE_HZ
        self.duration_s = reader.duration_s
        sound = _mono(reader)
        if rate_hz != reader.sample_rate_hz:
            sound = _resampled(sound, reader.sample_rate_hz, rate_hz)
        super().__init__(str(path), rate_hz, sound, block_ms)


def _mono(reader: SoundReader) -> Iterator[Samples]:
    """The sound in blocks [n]."""
    try:
        for block in reader.blocks():
            yield block.mean(axis=1)
    finally:
        reader.close()


def _resampled(sound: Iterator[Samples], in_hz: int, out_hz: int) -> Iterator[Samples]:
    resampler = FileResampler(in_hz, out_hz)
    for block in sound:
        yield resampler.process(block)
    yield resampler.process(np.zeros(0, dtype=np.float32), last=True)


class DiscardOutput(PacedPort):
    """An output where there is no device: takes the sound in real time and forgets it."""

    def __init__(self, sample_rate_hz: int, block_ms: float = 5.0) -> None:
        super().__init__(NO_OUTPUT, sample_rate_hz, block_ms)
        self._block: Samples = np.zeros((self.block, 1), dtype=np.float32)

    def _move(self, ring: Ring) -> bool:
        ring.read_into(self._block)
        return True


class MemoryOutput(DiscardOutput):
    """An output that keeps what it is given, for tests."""

    def __init__(self, sample_rate_hz: int, block_ms: float = 5.0) -> None:
        super().__init__(sample_rate_hz, block_ms)
        self.device = "memory"
        self._kept: list[Samples] = []

    def _move(self, ring: Ring) -> bool:
        super()._move(ring)
        self._kept.append(self._block[:, 0].copy())
        return True

    @property
    def samples(self) -> Samples:
        """[N], all so far."""
        return np.concatenate([np.zeros(0, dtype=np.float32), *self._kept])
