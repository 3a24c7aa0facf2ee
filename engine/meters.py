"""What the engine shows of itself, made from its last hops by whoever asks, so that the sound thread need not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.hop import HopOutput
from engine.mix import db
from engine.types import Levels, Samples, Tokens

SHOWN_HOPS = 50
TIMED_HOPS = 3000


class LiveHop(NamedTuple):
    """One hop as the sound thread leaves it. input, output: [hop_native].

    heard: [hop] of the input at the models' rate; models: what they made of it, None while they are out of service.
    time_s: at its end, on the engine's clock.
    limiter_db: what the limiter takes away now. lost: stands for sound that was skipped. asleep: the models rested,
    because there was nothing to hear or nobody to hear it.
    """

    time_s: float
    input: Samples
    output: Samples
    heard: Samples
    models: HopOutput | None
    limiter_db: float
    input_peak: float
    lost: bool = False
    asleep: bool = False


def _rms_db(parts: Sequence[Samples]) -> float:
    power = float(np.mean(np.square(np.concatenate(parts), dtype=np.float64))) if parts else 0.0
    return db(np.sqrt(power))


def levels_of(hops: Sequence[LiveHop]) -> Levels:
    """Meters over some hops, at least one."""
    told = [h.models for h in hops if h.models is not None]
    return Levels(
        time_s=hops[-1].time_s,
        input_peak_db=db(max(h.input_peak for h in hops)),
        input_rms_db=_rms_db([h.input for h in hops]),
        output_peak_db=db(max(float(np.abs(h.output).max()) for h in hops)),
        output_rms_db=_rms_db([h.output for h in hops]),
        speech_rms_db=_rms_db([m.speech for m in told]),
        background_rms_db=_rms_db([m.background for m in told]),
        limiter_db=min(h.limiter_db for h in hops),
    )


def tokens_of(hops: Sequence[LiveHop], background: str) -> Tokens | None:
    """Codes and sound of some hops; None when the models saw none of them."""
    told = [h.models for h in hops if h.models is not None]
    if not told:
        return None
    return Tokens(
        time_s=hops[-1].time_s,
        codes_s=np.stack([m.codes_s for m in told], axis=1),
        codes_b=np.stack([m.codes_b if background == "drop" else m.codes_b_out for m in told], axis=1),
        mixture=np.concatenate([m.mixture for m in told]),
        output=np.concatenate([m.out for m in told]),
        background=background,
    )


class HopTimes:
    """How long hops took to compute, over the last minute; the longest since `clear`. One writer takes no lock."""

    def __init__(self) -> None:
        self._ms = np.zeros(TIMED_HOPS)
        self._count = 0
        self._max_ms = 0.0

    def add(self, ms: float) -> None:
        self._ms[self._count % TIMED_HOPS] = ms
        self._count += 1
        self._max_ms = max(self._max_ms, ms)

    def clear(self) -> None:
        self._count, self._max_ms = 0, 0.0

    def figures(self) -> tuple[float, float, float, float]:
        """Median, 99th percentile, maximum and mean, in ms; zeros before the first hop."""
        times = self._ms[: min(self._count, TIMED_HOPS)].copy()
        if not len(times):
            return 0.0, 0.0, 0.0, 0.0
        return float(np.median(times)), float(np.percentile(times, 99)), self._max_ms, float(times.mean())
