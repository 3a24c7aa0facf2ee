"""Keeps the sound that waits for the output short, and long enough.

What waits is read just before each hop is added. Its lowest value over a few seconds is the reserve that was really
there: more than needed is delay for nothing and is taken out, less is made up, a few milliseconds at a time and where
the sound is most like itself, so that it is not heard. The same holds two devices together whose clocks differ.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.types import Samples

WINDOW_S = 8.0
HASTE_MS = 30.0  # so much too much is taken out at once and not after a window
# Beyond one block of the output. Measured with captions on two cores: hops come up to 8 ms late when nothing else runs,
# up to 25 ms beside other work.
RESERVE_MS = 7.0
GROW_MS, GROW_MAX_MS = 5.0, 40.0  # after a break, up to so much
NEAR_MS, NEAR_PAUSE_S = 2.0, 1.0  # less than this left beyond a block was nearly a break; told once in a while
# Without a break for so long, the reserve shrinks; every break doubles it. Breaks further apart than the longest do not
# hold the reserve: a rare one is less of a nuisance than delay that does not come back.
CALM_S, CALM_MAX_S = 60.0, 240.0
NEXT_STEP = 0.25  # of that time until the next step, where nothing was nearly a break
SPLICE_MAX_MS, FADE_MS = 8.0, 4.0
TOLERANCE_MS = 1.5
NEWEST = 3
RESYNC_HOPS = 10  # after `look_soon` so many hops are enough to see what is too much


class Lowest:
    """The lowest of the last `window` numbers, and of the NEWEST ones; the window may grow.

    Whatever is higher than a newer number will never be the lowest again, so few are kept: a hop does not look at all.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.count = 0  # numbers since then
        self._lowered = 0
        self._kept: deque[tuple[int, int]] = deque()  # (place, number), both rising
        self._last: deque[int] = deque(maxlen=NEWEST)

    def add(self, number: int) -> None:
        number += self._lowered
        while self._kept and self._kept[-1][1] >= number:
            self._kept.pop()
        self._kept.append((self.count, number))
        self._last.append(number)
        self.count += 1
        if self._kept[0][0] < self.count - self.window:
            self._kept.popleft()

    def lower(self, by: int) -> None:
        """Take so much from every number until now."""
        self._lowered += by

    @property
    def all(self) -> int:
        return self._kept[0][1] - self._lowered

    @property
    def newest(self) -> int:
        return min(self._last) - self._lowered


class FillControl:
    """Says by how many samples a hop should be made shorter (above zero) or longer (below).

    `breaks` tells how often the output ran dry after it had begun to play.
    """

    def __init__(self, sample_rate_hz: int, hop: int, block: int) -> None:
        self._per_ms = sample_rate_hz / 1000.0
        self._base_ms = block / self._per_ms + RESERVE_MS
        self.goal_ms = self._base_ms
        self._hop_s = hop / sample_rate_hz
        self._window = max(1, round(WINDOW_S / self._hop_s))
        self._lows = Lowest(self._window)
        self._near = block + round(NEAR_MS * self._per_ms)
        self._calm_s, self._calm_needed_s = 0.0, CALM_S
        self._since_near_s = 0.0
        self.breaks = self.near_breaks = 0
        self.corrections = 0

    @property
    def goal(self) -> int:
        """Samples that should wait at the least."""
        return round(self.goal_ms * self._per_ms)

    def ran_dry(self) -> None:
        """The output had nothing to play: more reserve from now on."""
        self.breaks += 1
        self._calm_needed_s = min(2 * self._calm_needed_s, CALM_MAX_S)
        self._grow(GROW_MS)
        self._lows.clear()

    def resync(self, goal_ms: float | None = None) -> None:
        """What made the reserve grow is over: back to goal_ms (None: the least), and at once."""
        self.goal_ms = self._base_ms if goal_ms is None else max(self._base_ms, min(goal_ms, self.goal_ms))
        self._calm_s, self._calm_needed_s = 0.0, CALM_S
        self.look_soon()

    def look_soon(self) -> None:
        """See within RESYNC_HOPS what is too much."""
        self._lows = Lowest(RESYNC_HOPS)

    def _grow(self, by_ms: float) -> None:
        self._calm_s = self._since_near_s = 0.0
        self.goal_ms = min(self.goal_ms + by_ms, self._base_ms + GROW_MAX_MS)

    def next(self, waiting: int) -> int:
        """waiting: samples in the output ring now. Returns samples to take out of this hop; negative: to add."""
        self._relax()
        self._learn(waiting)
        self._lows.add(waiting)
        if self._lows.count < NEWEST:
            return 0
        surplus, recent = self._lows.all - self.goal, self._lows.newest - self.goal
        hasty = recent > HASTE_MS * self._per_ms
        settled = self._lows.count >= self._lows.window
        shift = 0
        if hasty or (settled and surplus > TOLERANCE_MS * self._per_ms):
            shift = recent if hasty else surplus
        elif recent < -TOLERANCE_MS * self._per_ms:
            shift = recent
        elif settled and self._lows.window == RESYNC_HOPS:
            self._lows.window = self._window
        limit = round(SPLICE_MAX_MS * self._per_ms)
        return max(-limit, min(shift, limit))

    def applied(self, shift: int) -> None:
        """A hop was made shorter by so many samples: what was seen before is read as if it had been so all along."""
        if shift:
            self.corrections += 1
            self._lows.lower(shift)

    def _learn(self, waiting: int) -> None:
        """A hop so late that the next block would have found nothing: more reserve before it is heard."""
        self._since_near_s += self._hop_s
        if waiting < self._near and self._since_near_s >= NEAR_PAUSE_S:
            self.near_breaks += 1
            self._grow(GROW_MS)

    def _relax(self) -> None:
        self._calm_s += self._hop_s
        if self._calm_s >= self._calm_needed_s and self.goal_ms > self._base_ms:
            self._calm_s -= NEXT_STEP * self._calm_needed_s
            self.goal_ms = max(self._base_ms, self.goal_ms - GROW_MS)
            if self.goal_ms == self._base_ms:
                self._calm_needed_s = CALM_S


def splice(x: Samples, shift: int, sample_rate_hz: int) -> tuple[Samples, int]:
    """x [N] made shorter by about `shift` samples (longer where negative), and the number it really became shorter by.

    Ends are left as they are, so the neighbours still fit. The cut is where the sound repeats itself best.
    """
    fade = round(FADE_MS * sample_rate_hz / 1000.0)
    size = min(abs(shift), len(x) - fade)
    if size < 1 or len(x) < fade + 2:
        return x, 0
    size = _likest(x, size, fade)
    rise = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    early, late = x[:fade], x[size : size + fade]
    if shift > 0:
        return np.concatenate([early + rise * (late - early), x[size + fade :]]), size
    return np.concatenate([x[:size], late + rise * (early - late), x[fade:]]), -size


def _likest(x: Samples, size: int, fade: int) -> int:
    """The distance from half of `size` to `size` at which the sound is most like itself; `size` in silence."""
    first = max(1, size // 2)
    windows = np.lib.stride_tricks.sliding_window_view(x[first : size + fade], fade)
    energy = np.sqrt(np.square(windows).sum(axis=1) + 1e-9)
    likeness = windows @ x[:fade] / energy
    best = int(np.argmax(likeness))
    return first + best if likeness[best] > 0.0 else size
