"""After a load the delay is what it was; where loads come again and again, the reserve they made stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine import relief
from engine.fill import CALM_MAX_S, GROW_MS, NEAR_PAUSE_S, RESERVE_MS, FillControl
from engine.overload import OTHERS_BUSY, PROVEN_S
from engine.relief import GIVEN_UP, MODELS, OFTEN, Relief
from engine.types import EngineConfig, Problem

LOOK_S = 0.25


class Run:
    """Relief in a run of which nothing is real but the reserve. `spend` lets so many seconds go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.others, self.told = 0.0, 0.0, list[Problem]()
        monkeypatch.setattr(relief.time, "monotonic", lambda: self.now_s)
        self.loop: Any = SimpleNamespace(
            fill=FillControl(48000, 960, 240),
            busy_ms=0.0,
            broken=0,
            dropouts=0,
            behind_ms=0.0,
            time_s=0.0,
            resting=False,
        )
        self.loop.do = lambda what: what()
        side: Any = SimpleNamespace(pids=(None,), captions_paused=False)
        config = EngineConfig(captions=False, refiner=False)
        self.relief = Relief(config, self.loop, side, self.told.append, lambda: "live")  # type: ignore[arg-type]
        self.relief._others = SimpleNamespace(look=lambda: self.others)  # type: ignore[assignment]

    def spend(self, seconds: float, busy: float = 0.2, others: float = 0.0) -> None:
        self.others = others
        for _ in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            self.loop.busy_ms += 1000.0 * busy * LOOK_S
            self.relief.look()

    def load(self, busy: float = 0.2) -> None:
        """Ten seconds of others' work, in which two hops came late: nearly too late, where the reserve is the least."""
        self.spend(3.0, busy, others=1.0)
        self.late()
        self.spend(7.0, busy, others=1.0)

    def late(self) -> None:
        fill = self.loop.fill
        late = fill.goal - round(48 * RESERVE_MS)
        for waiting in (late, *[fill.goal] * round(50 * NEAR_PAUSE_S + 1), late):
            fill.next(waiting)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run(monkeypatch)
    made.spend(5.0)
    return made


def test_when_the_load_is_over_the_delay_is_what_it_was(run: Run) -> None:
    before = run.loop.fill.goal_ms
    run.load()
    assert run.loop.fill.goal_ms == before + GROW_MS
    run.spend(2.0)
    assert run.loop.fill.goal_ms == before


def test_where_loads_come_again_and_again_the_reserve_that_they_made_stays(run: Run) -> None:
    before = run.loop.fill.goal_ms
    for grown in [0.0] * OFTEN + [GROW_MS] * 2:
        run.load()
        run.spend(20.0)
        assert run.loop.fill.goal_ms == before + grown
    before += GROW_MS
    run.spend(CALM_MAX_S)
    run.load()
    run.spend(2.0)  # that one came alone again
    assert run.loop.fill.goal_ms == before


def test_loads_that_the_reserve_was_enough_for_do_not_count(run: Run) -> None:
    before = run.loop.fill.goal_ms
    for _ in range(5):
        run.spend(5.0, others=1.0)
        run.spend(1.5 * PROVEN_S)
    run.load()
    run.spend(2.0)
    assert run.loop.fill.goal_ms == before


def test_what_was_given_up_for_a_load_brings_the_delay_back_however_often(run: Run) -> None:
    before = run.loop.fill.goal_ms
    for _ in range(2):
        run.load(busy=1.0)
        assert run.loop.resting
        run.spend(2.0)
        assert run.loop.fill.goal_ms == before
        run.spend(20.0)
        assert not run.loop.resting
    assert run.told[0].text == GIVEN_UP[MODELS][0]


def test_work_of_others_that_leaves_enough_is_no_load(run: Run) -> None:
    run.late()
    grown = run.loop.fill.goal_ms
    run.spend(20.0, others=0.9 * OTHERS_BUSY)
    assert run.loop.fill.goal_ms == grown
