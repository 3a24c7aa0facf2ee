"""What a live run does under load: gives up what engine.overload says, takes it back, and brings the delay back.

Called by the engine's side thread a few times a second. Rungs: captions, refiner, models.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from engine.fill import CALM_MAX_S
from engine.other_work import OtherWork
from engine.overload import Ladder, Look
from engine.side import Side
from engine.soundloop import SoundLoop
from engine.types import EngineConfig, Event, Problem

CAPTIONS, REFINER, MODELS = "captions", "refiner", "models"
REMEMBERED_LOOKS = 8  # how far back the reserve is remembered, so that it is that from before the load
OFTEN = 2  # so many loads within CALM_MAX_S before this one made the reserve grow: it is needed
GIVEN_UP = {
    CAPTIONS: ("this machine is too busy: captions pause; close other programs", "captions paused"),
    REFINER: ("this machine is too busy: the voice is heard from its tokens alone for now", "refiner paused"),
    MODELS: ("this machine is too busy to clean the sound: your voice goes on unchanged for now", "bypass"),
}
TAKEN_BACK = {
    CAPTIONS: "this machine keeps up again: captions go on",
    REFINER: "this machine keeps up again: the voice is refined again",
    MODELS: "this machine keeps up again: the sound is cleaned again",
}


class Relief:
    """tell: takes events. `given_up` is for Stats."""

    def __init__(
        self, config: EngineConfig, loop: SoundLoop, side: Side, tell: Callable[[Event], None], state: Callable[[], str]
    ) -> None:
        self._loop, self._side, self._tell, self._state = loop, side, tell, state
        rungs = [CAPTIONS] if config.captions else []
        rungs += [REFINER] if config.refiner and not config.tokens_only else []
        self.ladder = Ladder((*rungs, MODELS))
        self._others = OtherWork(lambda: (os.getpid(), *side.pids))
        self._before: tuple[float, float, int, int] | None = None
        self._goals_ms: deque[float] = deque(maxlen=REMEMBERED_LOOKS)
        self._too_much = False  # a rung was given up in this load
        self._grown_s: deque[float] = deque(maxlen=OFTEN)  # when the last loads ended that made the reserve grow

    @property
    def given_up(self) -> tuple[str, ...]:
        return self.ladder.given_up

    def look(self) -> None:
        """See how the sound does, and do what follows from it."""
        loop = self._loop
        now_s, busy_ms, broken = time.monotonic(), loop.busy_ms, loop.broken + loop.fill.near_breaks
        before, self._before = self._before, (now_s, busy_ms, broken, loop.dropouts)
        if before is None or now_s <= before[0]:
            return
        busy = (busy_ms - before[1]) / (1000.0 * (now_s - before[0]))
        if not self.ladder.overloaded:
            self._goals_ms.append(loop.fill.goal_ms)
        seen = Look(now_s, busy, loop.behind_ms, broken - before[2], loop.dropouts - before[3], self._others.look())
        rung, over = self.ladder.look(seen)
        if rung is not None:
            self._change(rung, rung in self.given_up)
            self._too_much = self._too_much or rung in self.given_up
        if over:
            self._load_over(now_s)

    def _load_over(self, now_s: float) -> None:
        """The delay becomes what it was; but where others' work comes again and again the reserve that it made stays,
        as it does for breaks."""
        before_ms = self._goals_ms[0] if self._goals_ms else None
        often = len(self._grown_s) == OFTEN and now_s - self._grown_s[0] < CALM_MAX_S
        if before_ms is None or self._loop.fill.goal_ms > before_ms:
            self._grown_s.append(now_s)
        if self._too_much or not often:
            self.bring_delay_back(before_ms)
        self._goals_ms.clear()
        self._too_much = False

    def _change(self, rung: str, gone: bool) -> None:
        loop = self._loop
        if rung == CAPTIONS:
            self._side.captions_paused = gone
        elif rung == REFINER:
            loop.stream.pipeline.refining = not gone
        else:
            loop.resting = gone
        text, state = GIVEN_UP[rung] if gone else (TAKEN_BACK[rung], self._state())
        self._tell(Problem(loop.time_s, text, state))

    def bring_delay_back(self, goal_ms: float | None = None) -> None:
        """Sound that piled up is left out, the reserve shrinks to goal_ms (None: the least)."""
        loop = self._loop
        loop.do(lambda: loop.fill.resync(goal_ms))
