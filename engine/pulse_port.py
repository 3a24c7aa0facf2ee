"""Sources and sinks of a Pulse server (PulseAudio, PipeWire) as ports, without anything between the server and us.

    source ─► server ─► libpulse's thread ─► pump ─► ring        PulseInput
    ring ─► pump ─► server's queue ─► sink                       PulseOutput

What `pump` finds in an output's ring goes to the server at once, which plays on whatever Python does: what waits for
the device waits there.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from engine.device_port import HELD_MIN, DevicePort
from engine.devices import DeviceInfo
from engine.libpulse import PulseStream
from engine.ports import Wake
from engine.priority import hurry
from engine.ring import Ring
from engine.types import DeviceError, Samples

REST_MS = 20.0


class PulsePort(DevicePort):
    """One stream. Of `held` a third is moved at once, which makes the device's own delay."""

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        super().__init__(device, sample_rate_hz, block_ms, held)
        self._at_once = self.block * held // HELD_MIN
        self._stream: PulseStream | None = None
        self._ring = Ring(1)
        self._device_ms = 1000.0 * self._at_once / sample_rate_hz
        self._resting = False

    @property
    def latency_ms(self) -> float:
        """What the device held back when this was last asked."""
        stream = self._stream
        if stream is not None:
            with stream:
                latency_s = stream.latency_s
            self._device_ms = 1000.0 * latency_s if latency_s is not None else self._device_ms
        return max(self._device_ms, 1000.0 * self.block / self.sample_rate_hz)

    @property
    def alive(self) -> bool:
        stream = self._stream
        if stream is None:
            return False
        with stream:
            return stream.alive

    def start(self, ring: Ring, wake: Wake) -> None:
        """Open and run; raises DeviceError when the device cannot be had. The bell is not rung: see `rings`."""
        try:
            stream = self._opened(ring)
        except DeviceError as error:
            raise DeviceError(f"{self.info.name} cannot be opened ({error}); see: sottovoce devices") from error
        if stream.thread is not None:
            hurry(stream.thread)
        self._ring, self._stream = ring, stream

    @abstractmethod
    def _opened(self, ring: Ring) -> PulseStream:
        """The stream; raises DeviceError with the reason alone."""

    def rest(self, resting: bool) -> None:
        """At rest the device moves more at once, and so wakes everybody less often."""
        if resting != self._resting and self._stream is not None:
            self._resting = resting
            at_rest = round(REST_MS * self.sample_rate_hz / 1000.0)
            with self._stream as stream:
                stream.move_at_once(max(at_rest, self._at_once) if resting else self._at_once)

    def stop(self) -> None:
        """What an output has not played is lost; what an input gave waits for another `pump`."""
        if self._stream is not None:
            self._stream.close()


class PulseInput(PulsePort):
    """A source. xruns: holes in what it gave, and times that nobody took what it gave."""

    tells_silence = True

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        super().__init__(device, sample_rate_hz, block_ms, held)
        self._taken = self._broken = 0
        self._left = Ring(1)  # what came last, once it is stopped

    @property
    def xruns(self) -> int:
        return self._broken

    @property
    def blocks(self) -> int:
        return (self._taken + self.pending) // self.block

    @property
    def begun(self) -> bool:
        return self.blocks > 0

    @property
    def pending(self) -> int:
        stream = self._stream
        if stream is None:
            return 0
        with stream:
            return stream.readable + self._left.fill

    def _opened(self, ring: Ring) -> PulseStream:
        return PulseStream(self.device, self.sample_rate_hz, True, self._at_once, 0)

    def stop(self) -> None:
        if self._stream is not None:
            with self._stream as stream:
                self._left = Ring(max(1, self._ring.capacity))
                self._take(stream, self._left)
        super().stop()

    def pump(self) -> None:
        if self._stream is not None:
            with self._stream as stream:
                self._taken += self._ring.write(self._left.read(self._left.fill))
                self._take(stream, self._ring)

    def pass_silence(self) -> tuple[int, bool]:
        if self._stream is None or self._left.fill:
            return 0, True
        with self._stream as stream:
            frames, sound_follows = stream.skip_silence()
        self._taken += frames
        return frames, sound_follows

    def _take(self, stream: PulseStream, ring: Ring) -> None:
        """Into the ring; of more than it can hold, what is newest."""
        count = stream.readable
        if count:
            too_many = max(0, count - ring.capacity)
            self._broken += bool(too_many) + stream.read(ring.write, too_many)
            self._taken += count if ring is self._ring else too_many


class PulseOutput(PulsePort):
    """A sink. Breaks are told as underruns of its ring.

    Of `held` all but a block is kept in hand, for the server's own threads may come late; and of a sink that moves more
    than a block at once, as wireless ones do, what is beyond. That belongs to the device and does not count as pending.
    After it ran dry the server may lose the first milliseconds of what comes next: let it be silence.
    """

    xruns = 0

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        super().__init__(device, sample_rate_hz, block_ms, held)
        self._room = self._in_hand = self._given = 0
        # How much it had been given when it began to play, at first what it was opened with; None: it is dry.
        self._began: int | None = 0

    @property
    def latency_ms(self) -> float:
        return super().latency_ms + 1000.0 * self._in_hand / self.sample_rate_hz

    @property
    def idle(self) -> bool:
        """Whether it has nothing to play, and so need not move."""
        return not self._waiting

    @property
    def blocks(self) -> int:
        return (self._given - self._waiting) // self.block

    @property
    def begun(self) -> bool:
        """Whether it plays what it is given: it was given a little silence to show that."""
        return self.blocks > 0

    @property
    def pending(self) -> int:
        return max(0, self._waiting - self._in_hand)

    @property
    def _waiting(self) -> int:
        """Frames that the server has not played yet."""
        stream = self._stream
        if stream is None:
            return 0
        with stream:
            return self._queued(stream)

    def _queued(self, stream: PulseStream) -> int:
        """What the server has not asked for anew; less than it takes at once may be left over when it runs dry."""
        dry = not stream.alive or self._began is None or stream.underflow > self._began
        return 0 if dry else self._room - stream.writable

    def _opened(self, ring: Ring) -> PulseStream:
        room = ring.capacity + self._at_once + self.held * self.block
        stream = PulseStream(self.device, self.sample_rate_hz, False, self._at_once, room)
        with stream:
            self._room, at_once, _ = stream.sizes
            self._in_hand = (self.held - 1) * self.block + max(0, at_once - self._at_once)
            self._give(stream, np.zeros(self.block + self._in_hand, dtype=np.float32))
        return stream

    def pump(self) -> None:
        stream, ring = self._stream, self._ring
        if stream is None:
            return
        with stream:
            self._see_dry(stream, ring)
            count = min(ring.fill, stream.writable)
            if not count:
                return
            if not self._began:
                self._began = self._given
                self._give(stream, np.zeros(max(0, self._in_hand - self._queued(stream)), dtype=np.float32))
            self._give(stream, ring.read(count)[:, 0])

    def _see_dry(self, stream: PulseStream, ring: Ring) -> None:
        """What was given since it ran dry plays already; PipeWire keeps back what is less than it takes at once."""
        played = stream.underflow
        if self._began is not None and played > self._began:
            of_ring = self._began > 0  # what it was opened with may end
            ring.underruns += of_ring
            plays = of_ring and self._given - played >= stream.sizes[1]
            self._began = played if plays else None

    def _give(self, stream: PulseStream, x: Samples) -> None:
        if len(x):
            stream.write(x)
            self._given += len(x)
