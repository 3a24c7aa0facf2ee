"""The reserve before the output stays short and long enough, and changes to it cannot be heard."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fill import CALM_S, FADE_MS, GROW_MS, NEAR_PAUSE_S, NEWEST, SPLICE_MAX_MS, FillControl, Level, splice

RATE_HZ, HOP, BLOCK = 48000, 960, 240


def settle(control: FillControl, waiting: int, hops: int) -> int:
    """The fill after some hops during which nothing but the control changes it."""
    for _ in range(hops):
        shift = control.next(waiting)
        control.applied(shift)
        waiting -= shift
    return waiting


def test_too_much_is_taken_out_and_too_little_made_up() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    tolerance = 0.002 * RATE_HZ
    assert abs(settle(control, 9600, 600) - control.goal) <= tolerance
    assert abs(settle(control, 0, 600) - control.goal) <= tolerance


def test_a_long_delay_is_taken_out_within_a_second() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    assert settle(control, 12000, 50) - control.goal <= 0.031 * RATE_HZ


def test_what_is_right_is_left_alone() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    assert settle(control, control.goal, 1000) == control.goal
    assert control.corrections == 0


def test_drifting_clocks_are_held_together() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    waiting, fills = float(control.goal), []
    for _ in range(6000):  # two minutes at 500 parts per million
        shift = control.next(round(waiting))
        control.applied(shift)
        waiting += 0.0005 * HOP - shift
        fills.append(waiting)
    assert min(fills) > 0
    assert max(fills) < control.goal + 0.01 * RATE_HZ


def test_a_break_asks_for_more_reserve_up_to_a_limit() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    first = control.goal
    for _ in range(100):
        control.ran_dry()
        assert first < control.goal <= first + 0.04 * RATE_HZ + 1


def test_a_resync_takes_what_grew_out_at_once() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    first = control.goal
    for _ in range(6):
        control.ran_dry()
    grown = control.goal
    waiting = settle(control, grown, 500)
    control.resync()
    assert control.goal == first
    assert settle(control, waiting, 30) <= first + 0.003 * RATE_HZ
    control.ran_dry()
    control.resync(1000.0)  # never more than it is
    assert control.goal <= grown


def test_hops_that_come_late_now_and_then_live_on_the_reserve() -> None:
    control, random = FillControl(RATE_HZ, HOP, BLOCK), np.random.default_rng(3)
    late = np.where(random.random(3000) < 0.1, random.uniform(0.0, 0.011 * RATE_HZ, 3000), 0.0)
    for by in late:
        control.applied(control.next(control.goal - round(by)))
    assert (control.corrections, control.near_breaks) == (0, 0)


def test_what_devices_take_in_whole_blocks_is_no_reason_to_correct() -> None:
    control, random = FillControl(RATE_HZ, HOP, BLOCK), np.random.default_rng(4)
    for blocks in random.choice([-1, 0, 1], 3000, p=[0.25, 0.5, 0.25]):
        control.applied(control.next(control.goal + BLOCK * int(blocks)))
    assert control.corrections <= 2


@pytest.mark.parametrize("block_ms", [2.5, 5.0, 10.0, 20.0, 40.0])
def test_blocks_of_any_length_are_played_without_a_break(block_ms: float) -> None:
    block, random = round(block_ms * RATE_HZ / 1000), np.random.default_rng(5)
    control = FillControl(RATE_HZ, HOP, block)
    seen = (HOP * np.arange(3000) + np.minimum(random.exponential(100, 3000), 400)).astype(int)
    written, waits = control.goal, []
    for at in (seen // block * block).tolist():
        waits.append(written - at)
        shift = control.next(waits[-1])
        control.applied(shift)
        written += HOP - shift
    assert control.near_breaks <= 1
    assert min(waits) >= 0
    assert max(waits) < control.goal + block + HOP
    assert control.corrections < 30


def test_what_suddenly_is_missing_is_made_up_at_once() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    waiting = settle(control, control.goal, 500) - round(0.012 * RATE_HZ)
    assert settle(control, waiting, 6) >= control.goal - 0.005 * RATE_HZ


def nearly_break(control: FillControl) -> None:
    """A hop comes so late that less than a block is left, as the one after it."""
    for _ in range(2):
        control.next(BLOCK - 1)


def test_a_hop_that_was_nearly_too_late_changes_nothing_by_itself() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    first = control.goal
    for seen in (1, 2, 3):
        settle(control, first, round((CALM_S + 1) * 50))
        nearly_break(control)
        assert (control.near_breaks, control.breaks) == (seen, 0)
        assert control.goal == first


@pytest.mark.parametrize("apart_s", [2 * NEAR_PAUSE_S, CALM_S / 2])
def test_the_second_hop_that_was_nearly_too_late_asks_for_more_reserve_before_one_is(apart_s: float) -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    first = control.goal
    nearly_break(control)
    settle(control, first, round(apart_s * 50))
    nearly_break(control)
    assert (control.near_breaks, control.breaks) == (2, 0)
    assert control.goal_ms == pytest.approx(first * 1000 / RATE_HZ + GROW_MS, abs=0.1)
    settle(control, control.goal, round((CALM_S + 1) * 50))
    assert control.goal == first


def test_a_hop_that_was_nearly_too_late_before_a_resync_says_nothing_after_it() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    nearly_break(control)
    settle(control, control.goal, 100)
    control.resync()
    goal = control.goal
    nearly_break(control)
    assert control.goal == goal


def test_after_a_calm_time_the_reserve_shrinks_again_and_later_after_every_break() -> None:
    first = FillControl(RATE_HZ, HOP, BLOCK).goal
    for breaks in (1, 2):
        control = FillControl(RATE_HZ, HOP, BLOCK)
        for _ in range(breaks):
            control.ran_dry()
        grown = control.goal
        settle(control, grown, round(CALM_S * 50) * 2**breaks - 1)
        assert control.goal == grown
        settle(control, grown, 2)
        assert first <= control.goal < grown


def a_run(every_s: float, stall_ms: float, minutes: float) -> list[tuple[float, int]]:
    """A device that takes nothing for a while, now and then: at the end of each minute the goal in ms, and breaks."""
    control = FillControl(RATE_HZ, HOP, BLOCK)
    waiting, told = control.goal, []
    for hop in range(1, round(minutes * 3000) + 1):
        stalled = hop % round(every_s * 50) == 0
        seen = waiting - round(stall_ms * RATE_HZ / 1000) * stalled
        if seen < 0:
            control.ran_dry()
            waiting, seen = waiting - seen, 0  # what came too late is there all the same
        shift = control.next(seen)
        control.applied(shift)
        waiting -= shift
        if hop % 3000 == 0:
            told.append((control.goal_ms, control.breaks))
    return told


def test_breaks_that_come_seldom_do_not_hold_the_delay() -> None:
    told = a_run(every_s=300, stall_ms=60, minutes=120)
    assert told[4][1] == 1
    assert all(goal_ms <= told[0][0] + GROW_MS for goal_ms, _ in told)
    assert [goal_ms for goal_ms, _ in told[118:]] == pytest.approx([told[0][0]] + [told[0][0] + GROW_MS])


def test_breaks_that_come_often_make_a_reserve_in_which_most_are_not_heard() -> None:
    told = a_run(every_s=60, stall_ms=30, minutes=120)
    assert told[-1][1] < 120 / 20
    assert told[-1][0] >= told[0][0] + 2 * GROW_MS


def test_after_the_last_of_many_breaks_the_delay_is_soon_what_it_was() -> None:
    control = FillControl(RATE_HZ, HOP, BLOCK)
    first = control.goal
    for _ in range(20):
        control.ran_dry()
    settle(control, control.goal, 12 * 60 * 50)
    assert control.goal == first


@pytest.mark.parametrize("shift", [1, 37, 384, -1, -37, -384])
@pytest.mark.parametrize("pitch_hz", [90.0, 210.0, 1000.0])
def test_a_splice_has_its_length_its_ends_and_no_click(shift: int, pitch_hz: float) -> None:
    x = np.sin(2 * np.pi * pitch_hz * np.arange(HOP) / RATE_HZ).astype(np.float32)
    y, taken = splice(x, shift, RATE_HZ)
    assert len(y) == HOP - taken
    assert abs(shift) / 2 - 1 <= abs(taken) <= abs(shift)
    assert np.sign(taken) == np.sign(shift)
    assert (y[0], y[-1]) == (x[0], x[-1])
    # the fade adds at most the difference of two samples over its length to the steepest step
    assert np.abs(np.diff(y)).max() <= np.abs(np.diff(x)).max() + 2.0 / (FADE_MS * RATE_HZ / 1000.0)


def test_the_largest_splice_fits_a_hop() -> None:
    x = np.ones(HOP, dtype=np.float32)
    largest = round(SPLICE_MAX_MS * RATE_HZ / 1000.0)
    y, taken = splice(x, largest, RATE_HZ)
    assert taken > 0
    np.testing.assert_allclose(y, 1.0)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(-300, 300)), max_size=120), st.integers(NEWEST, 12))
def test_the_level_is_that_of_the_last_numbers_after_all_that_was_taken_from_them(
    steps: list[tuple[int, int]], window: int
) -> None:
    level, plain = Level(window), deque[int](maxlen=window)
    for number, by in steps:
        level.add(number)
        plain.append(number)
        if by > 200:  # now and then sound is taken out
            level.lower(by)
            plain = deque((n - by for n in plain), maxlen=window)
        if by < -280:
            level.forget_old()
            plain = deque(list(plain)[-NEWEST:], maxlen=window)
        assert (level.count, level.newest) == (len(plain), list(plain)[-NEWEST:])
        assert level.mean == pytest.approx(sum(plain) / len(plain))
