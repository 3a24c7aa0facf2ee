"""Keeps the sound that waits for the output short, and long enough.

What waits is read just before each hop is added. Devices take whole blocks, so that one reading says little; the mean
of a few seconds is the level, and it is held: too much is delay for nothing and is taken out, too little is made up, a
few milliseconds at a time and where the sound is most like itself, so that it is not heard. The same holds two devices
together whose clocks differ. A hop that comes late lives on the reserve, which is there for it, and changes nothing;
only a break asks for more, and hops that were nearly one: once is chance, twice is not.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from engine.types import Samples

LEVEL_S = 4.0
# A hop may come so late, and is there in time. Measured with captions on two cores: hops come up to 10 ms late when
# nothing else runs, up to 25 ms beside other work.
RESERVE_MS = 16.5
GROW_MS, GROW_MAX_MS = 5.0, 40.0  # after a break, up to so much
# Less than a block, or than this, left was nearly a break (of a block longer than a hop, less than that); those of one
# pause count as one. Wider than a step of the reserve, so that none jumps over it.
NEAR_MS, NEAR_PAUSE_S = 7.0, 1.0
# Calm for so long, the reserve shrinks; every break doubles it. Breaks further apart than the longest do not hold the
# reserve: a rare one is less of a nuisance than delay that does not come back. A hop that was nearly a break asks for
# more only where another had been less than the first of these before.
CALM_S, CALM_MAX_S = 60.0, 240.0
NEXT_STEP = 0.25  # of that time until the next step, where nothing was nearly a break
SPLICE_MAX_MS, FADE_MS = 8.0, 4.0
TOLERANCE_MS = 1.5
NEWEST = 3
FAR_ABOVE_MS, FAR_BELOW_MS = 30.0, 10.0  # the newest ones all so far off: what was before says nothing any more


class Level:
    """The mean of the last `window` numbers, and the NEWEST ones."""

    def __init__(self, window: int) -> None:
        self._kept: deque[int] = deque(maxlen=window)
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._sum = self._lowered = 0

    def forget_old(self) -> None:
        """Forget all but the newest."""
        newest = self.newest
        self.clear()
        for number in newest:
            self.add(number)

    def add(self, number: int) -> None:
        number += self._lowered
        if len(self._kept) == self._kept.maxlen:
            self._sum -= self._kept[0]
        self._kept.append(number)
        self._sum += number

    def lower(self, by: int) -> None:
        """Take so much from every number until now."""
        self._lowered += by

    @property
    def count(self) -> int:
        return len(self._kept)

    @property
    def mean(self) -> float:
        return self._sum / len(self._kept) - self._lowered

    @property
    def newest(self) -> list[int]:
        return [self._kept[at] - self._lowered for at in range(-min(NEWEST, len(self._kept)), 0)]


class Calm:
    """How long nothing broke or nearly did, and how long that must last before the reserve shrinks."""

    def __init__(self) -> None:
        self._time_s = 0.0
        self.forget()

    def forget(self) -> None:
        """What was learned is over."""
        self._needed_s = CALM_S
        self._since_s, self._rough_s = self._time_s, -math.inf

    def go_on(self, by_s: float) -> None:
        self._time_s += by_s

    @property
    def enough(self) -> bool:
        return self._time_s - self._since_s >= self._needed_s

    def shrunk(self) -> None:
        """The reserve took one step back: the next comes sooner."""
        self._since_s += NEXT_STEP * self._needed_s

    def broke(self) -> None:
        self._needed_s = min(2 * self._needed_s, CALM_MAX_S)
        self._since_s = self._rough_s = self._time_s

    def nearly_broke(self) -> tuple[bool, bool]:
        """Whether that is one more, and whether another had been not long before."""
        ago_s = self._time_s - self._rough_s
        if ago_s < NEAR_PAUSE_S:
            return False, False
        self._since_s = self._rough_s = self._time_s
        return True, ago_s < CALM_S


class FillControl:
    """Says by how many samples a hop should be made shorter (above zero) or longer (below).

    `breaks` tells how often the output ran dry after it had begun to play.
    """

    def __init__(self, sample_rate_hz: int, hop: int, block: int) -> None:
        self._per_ms = sample_rate_hz / 1000.0
        self._base_ms = block / 2 / self._per_ms + RESERVE_MS  # half a block is in the device, on average
        self.goal_ms = self._base_ms
        self._hop_s = hop / sample_rate_hz
        self._block = block
        self._near = min(max(block, round(NEAR_MS * self._per_ms)), hop)
        self._level = Level(max(NEWEST, round(LEVEL_S / self._hop_s)))
        self._calm = Calm()
        self.breaks = self.near_breaks = 0
        self.corrections = 0

    @property
    def goal(self) -> int:
        """Samples that should wait when a hop is added."""
        return round(self.goal_ms * self._per_ms)

    def ran_dry(self) -> None:
        """The output had nothing to play: more reserve from now on."""
        self.breaks += 1
        self._calm.broke()
        self._grow()
        self._level.clear()

    def resync(self, goal_ms: float | None = None) -> None:
        """What made the reserve grow is over: back to goal_ms (None: the least), and at once."""
        self.goal_ms = self._base_ms if goal_ms is None else max(self._base_ms, min(goal_ms, self.goal_ms))
        self._calm.forget()
        self.look_soon()

    def look_soon(self) -> None:
        """What was seen until now says nothing any more."""
        self._level.clear()

    def _grow(self) -> None:
        self.goal_ms = min(self.goal_ms + GROW_MS, self._base_ms + GROW_MAX_MS)

    def next(self, waiting: int) -> int:
        """waiting: samples in the output ring now. Returns samples to take out of this hop; negative: to add."""
        self._learn(waiting)
        self._relax()
        level = self._level
        level.add(waiting)
        if level.count < NEWEST:
            return 0
        goal, newest = self.goal, level.newest
        if min(newest) > goal + FAR_ABOVE_MS * self._per_ms or max(newest) < goal - FAR_BELOW_MS * self._per_ms:
            level.forget_old()
        away = level.mean - goal
        # each number is off by up to a block; the fewer they are, the less is known
        if abs(away) <= TOLERANCE_MS * self._per_ms + self._block / math.sqrt(level.count):
            return 0
        limit = round(SPLICE_MAX_MS * self._per_ms)
        return max(-limit, min(round(away), limit))

    def applied(self, shift: int) -> None:
        """A hop was made shorter by so many samples: what was seen before is read as if it had been so all along."""
        if shift:
            self.corrections += 1
            self._level.lower(shift)

    def _learn(self, waiting: int) -> None:
        """Hops so late that the next block would have found nothing: more reserve before it is heard."""
        self._calm.go_on(self._hop_s)
        if waiting >= self._near:
            return
        new, again = self._calm.nearly_broke()
        self.near_breaks += new
        if again:
            self._grow()

    def _relax(self) -> None:
        if not self._calm.enough:
            return
        if self.goal_ms > self._base_ms:
            self._calm.shrunk()
            self.goal_ms = max(self._base_ms, self.goal_ms - GROW_MS)
        else:
            self._calm.forget()  # the least again, and calm: what breaks taught is over


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
