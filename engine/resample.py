"""From one sample rate to another, as a stream: short for live use, steep for files.

LiveResampler  windowed-sinc polyphase filter, a few milliseconds of delay, a whole number of blocks in and out
FileResampler  soxr at HQ; its output is in line with its input, held back by up to some tens of milliseconds

Both give the same samples however the input is cut up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import soxr

from engine.types import Samples, UsageError

LIVE_RATES_HZ = (8000, 16000, 22050, 32000, 44100, 48000, 88200, 96000)
LIVE_DELAY_S = 0.0025
# The filter's gain is one half here, as a part of the lower rate's Nyquist frequency. At 2.5 ms the transition is about
# 1 kHz wide, so that at 16 kHz all is passed to 7 kHz and nothing folds back from above 8 kHz.
CUTOFF = 0.9375
KAISER_BETA = 6.5  # side lobes at -68 dB
BLOCK = 32  # outputs of each phase in one product


def _prototype(t_s: np.ndarray, half_s: float, cutoff_hz: float) -> np.ndarray:
    """Low-pass impulse response at times t_s from its centre, zero beyond half_s on either side."""
    inside = np.clip(1.0 - (t_s / half_s) ** 2, 0.0, None)
    window = np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return np.where(np.abs(t_s) <= half_s, window * np.sinc(2.0 * cutoff_hz * t_s), 0.0)


class LiveResampler:
    """Streams [N] or [N, C] from in_hz to out_hz with a delay of `delay_s` exactly, which may fall between samples.

    After n samples in, ceil(n * out_hz / in_hz) samples have come out.
    """

    def __init__(self, in_hz: int, out_hz: int, delay_s: float = LIVE_DELAY_S, channels: int | None = None) -> None:
        for rate in (in_hz, out_hz):
            if rate <= 0:
                raise UsageError(f"a sample rate is above zero, not {rate}")
        common = math.gcd(in_hz, out_hz)
        self._up, self._down = out_hz // common, in_hz // common
        self.in_hz, self.out_hz, self.delay_s = in_hz, out_hz, delay_s if in_hz != out_hz else 0.0
        self._identity = in_hz == out_hz
        self._taps = math.floor(2.0 * delay_s * in_hz) + 1
        self._phases = self._design() if not self._identity else np.zeros((1, 1), np.float32)
        self._block = self._design_block()
        self._channels = channels
        self.reset()

    def _design(self) -> Samples:
        """One filter per output phase, [up, taps], newest sample last; each has a gain of exactly one at 0 Hz."""
        phase = np.arange(self._up)[:, None] / (self._up * self.in_hz)
        age_s = phase + np.arange(self._taps)[None, ::-1] / self.in_hz
        h = _prototype(age_s - self.delay_s, self.delay_s, CUTOFF * min(self.in_hz, self.out_hz) / 2.0)
        normed: Samples = (h / h.sum(axis=1, keepdims=True)).astype(np.float32)
        return normed

    @property
    def delay_samples(self) -> float:
        """Delay in samples of the output rate; may be a fraction."""
        return self.delay_s * self.out_hz

    def reset(self) -> None:
        shape = (self._taps - 1,) if self._channels is None else (self._taps - 1, self._channels)
        self._tail: Samples = np.zeros(shape, dtype=np.float32)
        self._next = 0  # position of the next output, in steps of 1 / (in_hz * up), from the first sample not yet seen

    def process(self, x: Samples) -> Samples:
        """x [N] or [N, C] at in_hz -> what can be told at out_hz so far."""
        if self._identity:
            return x
        count = max(0, -((self._next - len(x) * self._up) // self._down))
        begin = self._next
        self._next += self._down * count - len(x) * self._up
        data = np.concatenate([self._tail, x])
        self._tail = data[len(data) - (self._taps - 1) :].copy()
        if count == 0:
            return data[:0]
        if self._block is not None:
            return self._in_blocks(data, self._block, *divmod(begin, self._up), count)
        position = begin + self._down * np.arange(count)
        return self._filter(data, position // self._up, position % self._up)

    def _filter(self, data: Samples, index: np.ndarray, phase: np.ndarray) -> Samples:
        """Output i is filter `phase[i]` over the taps samples of data that end at `index[i] + taps - 1`."""
        windows = np.lib.stride_tricks.sliding_window_view(data, self._taps, axis=0)
        y: Samples
        if data.ndim == 1:
            y = np.einsum("nt,nt->n", windows[index], self._phases[phase])
        else:
            y = np.einsum("nct,nt->nc", windows[index], self._phases[phase])
        return np.ascontiguousarray(y)

    def _design_block(self) -> Samples | None:
        """The filters of BLOCK outputs of each phase side by side, [inputs, outputs]; None where phases take turns.

        Neighbouring windows overlap, and a product with overlapping rows is none that BLAS takes; one matrix for many
        outputs, mostly zeros, takes less than half the time.
        """
        if self._identity or min(self._up, self._down) > 1:
            return None
        position = self._down * np.arange(BLOCK * self._up)
        first = position // self._up
        block: Samples = np.zeros((first[-1] + self._taps, len(position)), dtype=np.float32)
        for output, start in enumerate(first):
            block[start : start + self._taps, output] = self._phases[position[output] % self._up]
        return block

    def _in_blocks(self, data: Samples, block: Samples, first: int, skip: int, count: int) -> Samples:
        """`count` outputs after the first `skip` of those that begin with the window at data[first]."""
        inputs, outputs = block.shape
        step, blocks = BLOCK * self._down, -(-(skip + count) // outputs)
        columns = data[None] if data.ndim == 1 else data.T
        windows = np.zeros((len(columns), blocks, inputs), dtype=np.float32)
        for number in range(blocks):  # half as long as a strided view takes to be made and copied
            seen = columns[:, first + number * step : first + number * step + inputs]
            windows[:, number, : seen.shape[1]] = seen
        every: Samples = (windows.reshape(-1, inputs) @ block).reshape(len(columns), -1)
        y = every[:, skip : skip + count]
        return y[0] if data.ndim == 1 else y.T


class FileResampler:
    """Streams [N, C] (or [N] when channels is None) through soxr at HQ; delay already removed.

    In all, round(N * out_hz / in_hz) samples come out, the last with `last=True`.
    """

    def __init__(self, in_hz: int, out_hz: int, channels: int | None = None) -> None:
        self._flat = channels is None
        self._stream: Any = None
        if in_hz != out_hz:
            self._stream = soxr.ResampleStream(in_hz, out_hz, channels or 1, dtype="float32", quality="HQ")

    def process(self, x: Samples, last: bool = False) -> Samples:
        """Feed x; returns what is ready, all of it when this is the last."""
        if self._stream is None:
            return x
        y: Samples = self._stream.resample_chunk(np.ascontiguousarray(x, dtype=np.float32), last=last)
        return y.reshape(-1) if self._flat else y
