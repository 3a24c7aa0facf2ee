"""What is given up when the machine cannot keep up, in which order, and when it is taken back.

    captions ─► refiner ─► models      one rung at a time: less is heard, never later
    captions ◄─ refiner ◄─ models      when all is calm, after a pause that grows with every try that failed

Pure logic: the engine asks it a few times a second and does what it says.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LOOKS, BAD_LOOKS = 4, 2  # so many bad looks among the last so many, and one more rung is given up
BUSY = 0.85  # part of the time that the sound thread computes; beyond it a hop is about to come late
BEHIND_MS = 60.0
CALM_LOOKS = 4  # so many good looks in a row, and the load is over; twice as many each time it soon comes back
PAUSE_S, PAUSE_MAX_S = 5.0, 160.0  # before a rung is taken back
PROVEN_S = 30.0  # what was taken back and held for so long was no mistake
CALM_LOOKS_MAX = 240
BROKEN_BUSY = 0.5  # a break is the machine's fault when it was so busy; else a device's
OTHERS_BUSY = 0.6  # part of the machine that other programs use; beyond it hops come late, and the reserve may grow


@dataclass(frozen=True)
class Look:
    """The sound since the last look. busy: part of the time spent on hops; behind_ms: input that waits for its turn.

    broken: how often hops came too late, or nearly, or were left out; breaks: how often a listener heard a break,
    whatever it came from. others: part of the machine that other programs use.
    """

    time_s: float
    busy: float
    behind_ms: float
    broken: int
    breaks: int = 0
    others: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether less should be done."""
        return self.busy >= BUSY or self.behind_ms >= BEHIND_MS or (self.broken > 0 and self.busy >= BROKEN_BUSY)

    @property
    def rough(self) -> bool:
        """Whether the delay may have grown."""
        return self.bad or self.broken > 0 or self.breaks > 0 or self.others >= OTHERS_BUSY


class Ladder:
    """rungs: what can be given up, first to last. `given_up` is what is given up now, in that order.

    overloaded: from the first rough looks until it has been calm for a while.
    """

    def __init__(self, rungs: tuple[str, ...]) -> None:
        self.rungs = rungs
        self.level = 0
        self.overloaded = False
        self._bad: deque[bool] = deque(maxlen=LOOKS)
        self._rough: deque[bool] = deque(maxlen=LOOKS)
        self._good_looks, self._calm_looks, self._over_s = 0, CALM_LOOKS, float("-inf")
        self._pause_s = PAUSE_S
        self._calm_since_s = self._changed_s = 0.0
        self._back_s: float | None = None

    @property
    def too_busy(self) -> bool:
        """Whether it is this machine that does too much, and no device that is at fault."""
        return self.level > 0 or any(self._bad)

    @property
    def given_up(self) -> tuple[str, ...]:
        return self.rungs[: self.level]

    def look(self, seen: Look) -> tuple[str | None, bool]:
        """The rung that this look gives up or takes back, None for neither; and whether the load is just over."""
        over = self._is_over(seen)
        self._bad.append(seen.bad)
        if seen.bad:
            self._calm_since_s = seen.time_s
        bad = sum(self._bad) >= BAD_LOOKS
        return (self._give_up if bad else self._take_back)(seen.time_s), over

    def _is_over(self, seen: Look) -> bool:
        self._rough.append(seen.rough)
        self._good_looks = 0 if seen.rough else self._good_looks + 1
        if sum(self._rough) >= BAD_LOOKS and not self.overloaded:
            self.overloaded = True
            soon = seen.time_s - self._over_s < PROVEN_S
            self._calm_looks = min(2 * self._calm_looks, CALM_LOOKS_MAX) if soon else CALM_LOOKS
        if not self.overloaded or self._good_looks < self._calm_looks:
            return False
        self.overloaded, self._over_s = False, seen.time_s
        return True

    def _give_up(self, time_s: float) -> str | None:
        if self.level == len(self.rungs):
            return None
        if self._back_s is not None and time_s - self._back_s < PROVEN_S:  # taken back too early
            self._pause_s = min(2.0 * self._pause_s, PAUSE_MAX_S)
        self._back_s = None
        self._bad.clear()  # what this rung brings is seen by the next looks
        self.level += 1
        self._changed_s = time_s
        return self.rungs[self.level - 1]

    def _take_back(self, time_s: float) -> str | None:
        if self._back_s is not None and time_s - self._back_s >= PROVEN_S:
            self._back_s, self._pause_s = None, PAUSE_S
        if not self.level or time_s - max(self._calm_since_s, self._changed_s) < self._pause_s:
            return None
        self.level -= 1
        self._back_s = self._changed_s = time_s
        return self.rungs[self.level]
