"""The ladder of what is given up under load: its order, its way back, and that it does not swing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.overload import BAD_LOOKS, CALM_LOOKS, PAUSE_MAX_S, PAUSE_S, PROVEN_S, Ladder, Look

STEP_S = 0.25
RUNGS = ("captions", "refiner", "models")


class Run:
    """A ladder and its clock."""

    def __init__(self, rungs: tuple[str, ...] = RUNGS) -> None:
        self.ladder, self.now_s = Ladder(rungs), 0.0
        self.changes: list[tuple[str, int]] = []
        self.overs = 0

    def see(
        self, seconds: float, busy: float = 0.2, behind_ms: float = 0.0, broken: int = 0, others: float = 0.0
    ) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            rung, over = self.ladder.look(Look(self.now_s, busy, behind_ms, broken, others=others))
            self.overs += over
            if rung is not None:
                self.changes.append((rung, self.ladder.level))


def test_one_break_alone_gives_nothing_up() -> None:
    run = Run()
    run.see(STEP_S, busy=0.9, broken=1)
    run.see(60.0)
    assert not run.changes
    assert run.overs == 0


def test_when_other_programs_are_done_the_delay_comes_back_though_nothing_was_given_up() -> None:
    run = Run()
    run.see(30.0, others=0.9)
    assert run.overs == 0
    run.see(CALM_LOOKS * STEP_S)
    assert run.overs == 1
    assert not run.changes


def test_rungs_are_given_up_in_order_and_come_back_in_the_other() -> None:
    run = Run()
    run.see(30.0, busy=1.0)
    assert run.changes == [("captions", 1), ("refiner", 2), ("models", 3)]
    assert run.ladder.given_up == RUNGS
    run.see(3 * PAUSE_S + 1.0)
    assert run.changes[3:] == [("models", 2), ("refiner", 1), ("captions", 0)]
    assert run.overs == 1


def test_what_helps_is_enough() -> None:
    run = Run()
    run.see(BAD_LOOKS * STEP_S, behind_ms=200.0)
    run.see(PAUSE_S - 1.0)
    assert run.ladder.given_up == ("captions",)


def test_a_try_that_fails_makes_the_next_one_later_and_a_long_calm_forgets_it() -> None:
    run = Run(("models",))
    pauses = []
    for _ in range(8):
        run.see(1.0, busy=1.0)
        assert run.ladder.level == 1
        gone_s = run.now_s
        while run.ladder.level:
            run.see(STEP_S)
        pauses.append(run.now_s - gone_s)
    assert all(later >= earlier - 2 * STEP_S for earlier, later in pairwise(pauses))
    assert pauses[-1] > 20 * pauses[0]
    assert pauses[-1] <= PAUSE_MAX_S + 1.0
    run.see(PROVEN_S + 1.0)
    run.see(1.0, busy=1.0)
    run.see(PAUSE_S + 1.0)
    assert run.ladder.level == 0


def test_the_load_is_over_once_it_has_been_calm_and_is_told_once() -> None:
    run = Run(())
    run.see(10.0, broken=1)  # with little to do: a device's fault
    assert run.overs == 0
    run.see((CALM_LOOKS + 1) * STEP_S)
    assert run.overs == 1
    run.see(10.0)
    assert run.overs == 1
    assert not run.changes
    run.see(1.0, broken=1)
    run.see((CALM_LOOKS + 1) * STEP_S)
    assert run.overs == 1  # it came back soon: this time it must be calm for longer
    run.see(CALM_LOOKS * STEP_S)
    assert run.overs == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 500), st.integers(0, 3)), max_size=300))
def test_it_moves_one_rung_at_a_time_and_every_change_is_told(seen: list[tuple[int, int, int]]) -> None:
    ladder, level = Ladder(RUNGS), 0
    for count, (busy_percent, behind_ms, broken) in enumerate(seen):
        rung, _ = ladder.look(Look(count * STEP_S, busy_percent / 100.0, behind_ms, broken))
        assert ladder.level - level in (-1, 0, 1)
        assert (rung is not None) == (ladder.level != level)
        assert rung is None or rung == RUNGS[max(level, ladder.level) - 1]
        level = ladder.level
        assert 0 <= level <= len(RUNGS)
