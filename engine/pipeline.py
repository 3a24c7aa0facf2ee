"""The sound path at any sample rate: what live runs and files both use for one channel.

            ┌─ delay ──────────────────────────────── original ─┐
    block ──┤                                                   ├─ original + correction + high * (original - low) ─►
            └─ to 16 kHz ─► Pipeline ─► correction, low, high ─►┘  (these three brought back to the block's rate)

`LiveStream` has a fixed lag and short filters; `FileStream` has steep ones and gives sound back in line with its input.
Both work in blocks of one hop inside, so the output does not depend on how the input was cut up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.artefacts import Models
from engine.hop import HopOutput, Pipeline
from engine.level import LevelControl
from engine.mix import Limiter, Ramp
from engine.resample import LIVE_DELAY_S, LIVE_RATES_HZ, FileResampler, LiveResampler
from engine.ring import DelayLine, Fifo
from engine.types import ArtefactError, Background, Samples, UsageError

FULL_SCALE_DBFS = 0.0
OnHop = Callable[[HopOutput], None]


def _columns(hop: HopOutput) -> Samples:
    """What has to be brought back to the native rate: [hop, 3] correction, low band of the original, gain above it."""
    return np.stack([hop.correction, hop.mixture, hop.high], axis=1)


def _native(original: Samples, columns: Samples, base: float) -> Samples:
    """The output at the native rate from the original [N] and the three columns [N, 3], all in line."""
    correction, low, high = columns.T
    mixed: Samples = correction + high * (original - low)
    return original + mixed if base else mixed


class LiveStream:
    """One channel, live: as many samples out as in, `lag_native` samples late.

    `process_hop` takes exactly `hop_native` samples and is `lag_hop_native` late; `process` takes any number and is
    later by one hop, because it has to wait for a whole one. `on_hop` hears every hop at the models' rate.

    bypass: the original instead, at the gain that the level control has, so that sounds are compared and not loudness.
    """

    def __init__(self, models: Models, sample_rate_hz: int, on_hop: OnHop | None = None, **options: Any) -> None:
        if sample_rate_hz not in LIVE_RATES_HZ:
            rates = ", ".join(str(r) for r in LIVE_RATES_HZ)
            raise UsageError(f"a live device runs at one of {rates} Hz, not at {sample_rate_hz}; choose another rate")
        self.pipeline = Pipeline(models, **options)
        self.sample_rate_hz, self.on_hop = sample_rate_hz, on_hop
        info = models.info
        self.hop_native = info.hop_samples * sample_rate_hz // info.sample_rate_hz
        self._same_rate = sample_rate_hz == info.sample_rate_hz
        lag_s = self.pipeline.lag / info.sample_rate_hz
        self._filter_s = 0.0 if self._same_rate else LIVE_DELAY_S
        # whole samples in all, so that the original can be delayed to match; the filters take up the fraction
        self.lag_hop_native = math.ceil(round((lag_s + 2 * self._filter_s) * sample_rate_hz, 6))
        if not self._same_rate:
            self._filter_s = (self.lag_hop_native / sample_rate_hz - lag_s) / 2
        self._down = LiveResampler(sample_rate_hz, info.sample_rate_hz, self._filter_s)
        self._up = LiveResampler(info.sample_rate_hz, sample_rate_hz, self._filter_s, channels=3)
        self._original = DelayLine(self.lag_hop_native)
        self._bypass = Ramp(0.0, self.hop_native)
        self.level = LevelControl(self.hop_native, self.hop_native / sample_rate_hz)
        self.limiter = Limiter(sample_rate_hz)
        self._original_limiter = Limiter(sample_rate_hz, FULL_SCALE_DBFS)
        self.bypass = False
        self._in, self._out = Fifo(), Fifo()
        self._out.push(np.zeros(self.hop_native, dtype=np.float32))

    @property
    def lag_native(self) -> int:
        """Samples from the input of `process` to its output."""
        return self.lag_hop_native + self.hop_native

    @property
    def lag_parts_ms(self) -> tuple[tuple[str, float], ...]:
        """Where `lag_native` comes from; resampling is told apart from the algorithm."""
        info = self.pipeline.info
        return (
            ("hop", 1000.0 * info.hop_samples / info.sample_rate_hz),
            ("model lag", 1000.0 * self.pipeline.lag / info.sample_rate_hz),
            ("resampling in", 1000.0 * self._filter_s),
            ("resampling out", 1000.0 * self._filter_s),
        )

    def set_background(self, background: Background) -> None:
        """From the next hop on, ramped. Raises UsageError for an unknown scene."""
        self.pipeline.set_background(background)

    def process_hop(self, x: Samples) -> Samples:
        """x [hop_native] -> [hop_native]. Raises ArtefactError when the models give what is no sound."""
        hop = self.pipeline.step(self._down.process(x))
        if not np.isfinite(hop.out.sum() + hop.high.sum()):
            raise ArtefactError("they gave something that is no sound")
        if self.on_hop is not None:
            self.on_hop(hop)
        original = self._original.process(x)
        y = hop.out if self._same_rate else _native(original, self._up.process(_columns(hop)), hop.base)
        return self._choose(original, self.limiter.process(self.level.process(y, hop)))

    @property
    def lets_original_out(self) -> bool:
        """Whether the last hop ended as the delayed original."""
        return self._bypass.value == 1.0

    def bypass_hop(self, x: Samples) -> Samples:
        """x [hop_native] -> the delayed original [hop_native] as `process_hop` gives it in bypass.

        The models are not touched: for when they rest, or have died.
        """
        self.level.next(None)
        return self._levelled(self._original.process(x))

    def _choose(self, original: Samples, y: Samples) -> Samples:
        """The original in bypass, the output otherwise, and a ramp over a hop between the two."""
        share = self._bypass.next(1.0 if self.bypass else 0.0)
        if isinstance(share, np.ndarray):
            return y + share * (self._levelled(original) - y)
        if share:
            return self._levelled(original)
        self._original_limiter.gain_db = 0.0
        return y

    def _levelled(self, original: Samples) -> Samples:
        """The original as loud as the output would be: bit for bit, where there is no level control."""
        if self.level.is_one and self._original_limiter.gain_db == 0.0:
            return original
        return self._original_limiter.process(self.level.apply(original))

    def process(self, x: Samples) -> Samples:
        """x [N] -> [N], for any N."""
        self._in.push(x)
        while len(self._in) >= self.hop_native:
            self._out.push(self.process_hop(self._in.pop(self.hop_native)))
        return self._out.pop(len(x))

    def flush(self) -> Samples:
        """The last `lag_native` samples: what went in and has not come out yet."""
        return self.process(np.zeros(self.lag_native, dtype=np.float32))


class FileStream:
    """One channel of a file: lag removed. `process` gives back what is ready, `flush` the rest; N in, N out in all."""

    def __init__(self, models: Models, sample_rate_hz: int, on_hop: OnHop | None = None, **options: Any) -> None:
        if sample_rate_hz <= 0:
            raise UsageError(f"a sample rate is above zero, not {sample_rate_hz}")
        self.pipeline = Pipeline(models, **options)
        self.sample_rate_hz, self.on_hop = sample_rate_hz, on_hop
        info = models.info
        self.hop_native = max(1, info.hop_samples * sample_rate_hz // info.sample_rate_hz)
        self._down = FileResampler(sample_rate_hz, info.sample_rate_hz)
        self._up = FileResampler(info.sample_rate_hz, sample_rate_hz, channels=3)
        self._in, self._in16, self._original, self._columns = Fifo(), Fifo(), Fifo(), Fifo(3)
        self._to_skip = self.pipeline.lag
        self._base = 0.0
        self.limiter = Limiter(sample_rate_hz)

    lag_native = 0  # removed
    lag_parts_ms: tuple[tuple[str, float], ...] = ()

    def set_background(self, background: Background) -> None:
        """From the next hop on, ramped. Raises UsageError for an unknown scene."""
        self.pipeline.set_background(background)

    def process(self, x: Samples) -> Samples:
        """x [N] -> what is ready, in line with the input."""
        self._in.push(x)
        self._original.push(x)
        ready = [self._take_block(self._in.pop(self.hop_native)) for _ in range(len(self._in) // self.hop_native)]
        return np.concatenate([*ready, np.zeros(0, dtype=np.float32)])

    def flush(self) -> Samples:
        """All that is still to come; the stream is over then."""
        self._in16.push(self._down.process(self._in.pop(), last=True))
        hop = self.pipeline.info.hop_samples
        steps = -(-(len(self._in16) + self._to_skip + self._owed()) // hop)
        self._in16.push(np.zeros(steps * hop - len(self._in16), dtype=np.float32))
        self._run_hops(last=True)
        missing = len(self._original) - len(self._columns)
        self._columns.push(np.zeros((max(0, missing), 3), dtype=np.float32))
        return self._mix_ready()

    def _owed(self) -> int:
        """Samples fed at the models' rate whose output has not come yet, once the start is skipped."""
        return self.pipeline.lag - self._to_skip

    def _take_block(self, block: Samples) -> Samples:
        self._in16.push(self._down.process(block))
        self._run_hops()
        return self._mix_ready()

    def _run_hops(self, last: bool = False) -> None:
        hop_samples = self.pipeline.info.hop_samples
        rows = [np.zeros((0, 3), dtype=np.float32)]
        while len(self._in16) >= hop_samples:
            hop = self.pipeline.step(self._in16.pop(hop_samples))
            self._base = hop.base
            if self.on_hop is not None:
                self.on_hop(hop)
            skip = min(self._to_skip, hop_samples)
            self._to_skip -= skip
            rows.append(_columns(hop)[skip:])
        together = np.concatenate(rows)
        if len(together) or last:
            self._columns.push(self._up.process(together, last=last))

    def _mix_ready(self) -> Samples:
        n = min(len(self._original), len(self._columns))
        return self.limiter.process(_native(self._original.pop(n), self._columns.pop(n), self._base))


def Stream(
    models: Models, sample_rate_hz: int, *, live: bool, on_hop: OnHop | None = None, **options: Any
) -> LiveStream | FileStream:
    """A LiveStream or a FileStream. options: background, tokens_only, refiner, quantizers, scenes (see Pipeline)."""
    kind = LiveStream if live else FileStream
    return kind(models, sample_rate_hz, on_hop, **options)


__all__ = ["FileStream", "HopOutput", "LiveStream", "Pipeline", "Stream"]
