"""A sound device through PortAudio, as a port. Its callback is rtmixer's, in C, so that Python cannot hold it up.

    device ─► C callback ─► ring in C ─► pump ─► ring        an input
    ring ─► pump ─► ring in C ─► C callback ─► device        an output

Measured over a null sink beside two threads that hold the interpreter: 143 gaps in 20 s with a callback in Python (22
where threads take turns every half millisecond), none in C.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from engine.device_port import HELD_MIN, DevicePort
from engine.devices import INPUT, DeviceInfo, close_stream, frames_in, has_ended, open_stream, sample_ring
from engine.ports import Wake
from engine.priority import hurry
from engine.ring import Ring

STRETCH_S = 1.0  # device and clock are compared over so long: the two drift


class PortAudioPort(DevicePort):
    """What PortAudio calls the device. xruns: breaks that the device told of, and those that show in its pace."""

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        super().__init__(device, sample_rate_hz, block_ms, held)
        self._block_s = self.block / sample_rate_hz
        self._stream: Any = None
        self._buffer: Any = None
        self._action: Any = None
        self._ring: Ring | None = None
        self._channels = 1
        self._threads: set[int] = set()
        self._broken = self._filling = 0
        self._pace = _Pace(self._block_s, self._block_s)

    @property
    def latency_ms(self) -> float:
        stream = self._stream  # another thread may take it away meanwhile
        return 1000.0 * float(stream.latency) if stream is not None else 0.0

    @property
    def alive(self) -> bool:
        stream = self._stream
        return stream is not None and bool(stream.active)

    @property
    def blocks(self) -> int:
        """How many the device has moved."""
        stream = self._stream
        # rtmixer shows these of a stream at rest only; each is one word, written by one thread
        return int(stream._state.stats.blocks) if stream is not None else 0

    @property
    def xruns(self) -> int:
        return self._broken + _told(self._stream)

    @property
    def begun(self) -> bool:
        """Whether blocks move at the device's own pace."""
        return self.blocks > self._filling

    @property
    def pending(self) -> int:
        """Frames between device and ring."""
        buffer = self._buffer
        return frames_in(buffer) if buffer is not None else 0

    def start(self, ring: Ring, wake: Wake) -> None:
        """Open and run; raises DeviceError when the device cannot be had. The bell is not rung: see `rings`."""

        def begin(stream: Any) -> None:
            self._channels = int(stream.channels)
            self._buffer = sample_ring(self._channels, ring.capacity)
            if self.info.kind == INPUT:
                self._action = stream.record_ringbuffer(self._buffer)
            else:  # it fills its buffer at once when it starts, and may then take its time
                # PortAudio keeps a block more than it tells
                self._filling = math.ceil(float(stream.latency) / self._block_s) + 2
                self._pace = _Pace(self._block_s, float(stream.latency) + self._block_s)

        self._ring = ring
        self._stream, self._threads = open_stream(
            self.info, self.sample_rate_hz, self.block, self.held * self._block_s, begin
        )

    def stop(self) -> None:
        """What an output has not played is lost; what an input gave waits for another `pump`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._broken += _told(stream)
            close_stream(stream)
            if self.info.kind != INPUT:
                self._buffer = None

    def pump(self) -> None:
        """Move what can be moved between ring and device. To be called for each hop at the least."""
        stream, buffer, ring = self._stream, self._buffer, self._ring
        if buffer is None or ring is None:
            return
        if self.info.kind == INPUT:
            self._collect(stream, buffer, ring)
        elif stream is not None:
            self._deliver(stream, buffer, ring)
            if self._action is None:  # nothing is played, and the next look may be long after this one
                self._pace.forget()
            elif self.begun and self._pace.has_broken(self.blocks, _told(stream)):
                self._broken += 1
        if self._threads and stream is not None and self.begun:
            while self._threads:  # not before: while it waits for its first block PortAudio may take all it can get
                hurry(self._threads.pop())

    def rest(self, resting: bool) -> None:
        """Its blocks come as they were asked for when it was opened."""

    def _collect(self, stream: Any, buffer: Any, ring: Ring) -> None:
        count = frames_in(buffer)
        if count:
            sound = np.empty((count, self._channels), dtype=np.float32)
            buffer.readinto(sound)
            ring.write(sound if self._channels == 1 else sound[:, :1])
        if stream is not None and has_ended(stream, self._action):  # it had run over
            self._broken += 1
            self._action = stream.record_ringbuffer(buffer)

    def _deliver(self, stream: Any, buffer: Any, ring: Ring) -> None:
        count = min(ring.fill, len(buffer) - frames_in(buffer))
        if count:
            sound = ring.read(count)
            buffer.write(sound if self._channels == 1 else np.repeat(sound, self._channels, axis=1))
        if self._action is not None and has_ended(stream, self._action):  # it had run dry, and then it ends
            self._action = None
            ring.underruns += 1
        if self._action is None and frames_in(buffer):
            self._action = stream.play_ringbuffer(buffer)


def _told(stream: Any) -> int:
    """Breaks that the sound system told of."""
    stats = stream._state.stats if stream is not None else None
    return int(stats.input_overflows + stats.output_underflows) if stats is not None else 0


class _Pace:
    """Sees an output break that nobody told of, as Pulse's plugin does at times: it is behind for good afterwards.

    How far it is ahead of the clock goes up and down with its blocks, at most by what it has in hand; the highest of
    one stretch is held against that of the one before. in_hand_s: how long it plays on without being given more.
    """

    def __init__(self, block_s: float, in_hand_s: float) -> None:
        self._block_s, self._in_hand_s = block_s, in_hand_s
        self._begin_s: float | None
        self.forget()
        self._ends_s = 0.0
        self._blocks = 0
        self._told = (0, 0)  # when the stretch before began, and this one

    def forget(self) -> None:
        """Begin anew with the next question."""
        self._begin_s = None
        self._highest_s = self._before_s = float("-inf")

    def has_broken(self, blocks: int, told: int) -> bool:
        """Asked every few milliseconds; once for each break. told: breaks that are known."""
        now_s = time.monotonic()
        if self._begin_s is None:
            self._begin_s, self._ends_s, self._told = now_s, now_s + STRETCH_S, (told, told)
        if blocks == self._blocks:  # a stretch does not end before it is seen how long nothing moved
            return False
        self._blocks = blocks
        self._highest_s = max(self._highest_s, blocks * self._block_s - (now_s - self._begin_s))
        if now_s < self._ends_s:
            return False
        broken = self._before_s - self._highest_s > self._in_hand_s and told == self._told[0]
        self._before_s, self._highest_s = self._highest_s, float("-inf")
        self._ends_s, self._told = now_s + STRETCH_S, (self._told[1], told)
        return broken
