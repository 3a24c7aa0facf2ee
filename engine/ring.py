"""Buffers of samples: the ring between a sound callback and a worker, a plain delay, and a queue for one thread.

`Ring` is single producer, single consumer and takes no lock: the producer alone moves `_written`, the consumer alone
moves `_read`, both only ever grow, and assigning an int is one step under the interpreter. Nothing is allocated by
`write` and `read_into`, so both may be called from an audio callback.
"""

from __future__ import annotations

import numpy as np

from engine.types import Samples


class Ring:
    """A fixed number of frames between one writer and one reader.

    Overruns and underruns count frames: what did not fit and was left out, what was asked for and was not there.
    """

    def __init__(self, capacity: int, channels: int = 1) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring needs room: capacity {capacity}, channels {channels}")
        self._data: Samples = np.zeros((capacity, channels), dtype=np.float32)
        self._written = 0  # producer only
        self._read = 0  # consumer only
        self.overruns = 0  # producer only
        self.underruns = 0  # consumer only

    @property
    def capacity(self) -> int:
        return len(self._data)

    @property
    def channels(self) -> int:
        return int(self._data.shape[1])

    @property
    def fill(self) -> int:
        """Frames that can be read now."""
        return self._written - self._read

    @property
    def space(self) -> int:
        """Frames that can be written now."""
        return self.capacity - self.fill

    def write(self, x: Samples) -> int:
        """Take as much of x [N, C] (or [N] when there is one channel) as fits; returns the frames taken."""
        if x.ndim == 1:
            x = x[:, None]
        capacity = len(self._data)
        n = min(len(x), capacity - (self._written - self._read))
        start = self._written % capacity
        head = min(n, capacity - start)
        self._data[start : start + head] = x[:head]
        if n > head:
            self._data[: n - head] = x[head:n]
        self._written += n  # last: the reader sees only what is complete
        self.overruns += len(x) - n
        return n

    def read_into(self, out: Samples) -> int:
        """Fill out [N, C]; what is not there becomes zeros and counts as underrun. Returns how many were there."""
        capacity = len(self._data)
        n = min(len(out), self._written - self._read)
        start = self._read % capacity
        head = min(n, capacity - start)
        out[:head] = self._data[start : start + head]
        if n > head:
            out[head:n] = self._data[: n - head]
        if len(out) > n:
            out[n:] = 0.0
        self._read += n
        self.underruns += len(out) - n
        return n

    def read(self, n: int) -> Samples:
        """The next n frames as a new [n, C]; zeros, counted as underrun, where they run out (see `fill`)."""
        out = np.empty((n, self.channels), dtype=np.float32)
        self.read_into(out)
        return out

    def skip(self, n: int) -> int:
        """Forget up to n frames without reading them (consumer); returns how many."""
        n = min(n, self.fill)
        self._read += n
        return n

    def clear(self) -> int:
        """Forget all that is waiting (consumer); returns how many frames that was."""
        return self.skip(self.fill)


class DelayLine:
    """Gives back what it was given, `delay` frames later and bit for bit; zeros first."""

    def __init__(self, delay: int, channels: int | None = None) -> None:
        shape = (delay,) if channels is None else (delay, channels)
        self._held: Samples = np.zeros(shape, dtype=np.float32)

    @property
    def delay(self) -> int:
        return len(self._held)

    def process(self, x: Samples) -> Samples:
        """x [N] or [N, C] -> the same shape, delayed."""
        if self.delay == 0:
            return x
        both = np.concatenate([self._held, x])
        self._held = both[len(x) :].copy()
        return both[: len(x)]

    def reset(self) -> None:
        self._held[:] = 0.0


class Fifo:
    """An unbounded queue of samples [N] or [N, C] for one thread; memory follows what is waiting."""

    def __init__(self, channels: int | None = None) -> None:
        self._empty: Samples = np.zeros((0,) if channels is None else (0, channels), dtype=np.float32)
        self._data = self._empty

    def __len__(self) -> int:
        return len(self._data)

    def push(self, x: Samples) -> None:
        self._data = np.concatenate([self._data, x]) if len(self._data) else x.astype(np.float32, copy=True)

    def pop(self, n: int | None = None) -> Samples:
        """The oldest n samples (all when None); fewer when fewer are waiting."""
        out, self._data = (self._data, self._empty) if n is None else (self._data[:n], self._data[n:])
        return out
