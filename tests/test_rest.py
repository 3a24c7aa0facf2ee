"""At rest little is done, and what is told of it is what was there: hops in order, not a sample lost."""

from __future__ import annotations

import numpy as np
import pytest

from engine.ports import MemoryInput
from engine.rest import REST_HOPS, REST_PUMP_HOPS, Rest
from engine.ring import Ring
from engine.types import Samples

HOP, LAG, RATE_HZ = 960, 1000, 48_000


class Device(MemoryInput):
    """Has `silent` frames of silence, and sound behind them or not."""

    tells_silence = True

    def __init__(self) -> None:
        super().__init__(np.zeros(0, np.float32), RATE_HZ)
        self.silent, self.sound = 0, False

    def pass_silence(self) -> tuple[int, bool]:
        frames, self.silent = self.silent, 0
        return frames, self.sound


class Case:
    def __init__(self) -> None:
        self.ring, self.told, self.device = Ring(RATE_HZ), list[tuple[Samples, float]](), Device()
        self.rest = Rest(HOP, LAG, self.ring, lambda x, peak: self.told.append((x, peak)))

    def passes(self, silent: int, sound: bool = False, may_rest: bool = True, muted: bool = False) -> bool:
        self.device.silent, self.device.sound = silent, sound
        return self.rest.passes_over(self.device, lambda: may_rest, muted)


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.fixture
def resting(case: Case) -> Case:
    assert case.rest.take(np.zeros(HOP, np.float32), False)
    case.told.clear()
    return case


def hop(level: float) -> Samples:
    return np.full(HOP, level, np.float32)


def test_silence_is_rested_through_and_sound_is_not(case: Case) -> None:
    assert not case.rest.take(hop(0.1), False)
    assert not case.rest.on and not case.told
    assert case.rest.take(hop(5e-5), False)
    assert case.rest.on
    assert case.told[0][1] == pytest.approx(5e-5)
    assert case.told[0][0][0] == pytest.approx(5e-5)


def test_muted_any_sound_is_silence_but_what_is_no_sound_is_not(case: Case) -> None:
    assert case.rest.take(hop(0.5), True)
    assert not case.told[0][0].any() and case.told[0][1] == 0.5
    assert not case.rest.take(hop(float("nan")), True)
    assert not case.rest.take(hop(1e6), True)


def test_the_end_gives_the_last_of_the_silence_for_what_delays_the_original(case: Case) -> None:
    for level in (1e-5, 2e-5, 3e-5):
        case.rest.take(hop(level), False)
    assert [float(x[0]) for x in case.rest.end()] == pytest.approx([2e-5, 3e-5])
    assert not case.rest.on


def test_the_output_is_looked_at_always_in_sound_and_seldom_at_rest(case: Case) -> None:
    assert all(case.rest.is_output_due() for _ in range(5))
    due = []
    for _ in range(2 * REST_PUMP_HOPS):
        case.rest.take(hop(0.0), False)
        due.append(case.rest.is_output_due())
    assert [at for at, is_due in enumerate(due) if is_due] == [0, REST_PUMP_HOPS]
    case.rest.end()
    assert case.rest.is_output_due()


def test_nothing_is_passed_over_before_the_rest_has_begun(case: Case) -> None:
    assert not case.passes(HOP)
    assert case.device.silent == HOP


def test_silence_left_with_the_device_is_told_in_whole_hops_some_at_once(resting: Case) -> None:
    for _ in range(REST_HOPS - 1):
        assert resting.passes(HOP + 1)
    assert not resting.told and resting.rest.untold == (REST_HOPS - 1) * (HOP + 1)
    assert resting.passes(HOP + 1)
    assert len(resting.told) == REST_HOPS and resting.rest.untold == REST_HOPS


def test_what_is_no_whole_hop_comes_before_the_sound_that_follows(resting: Case) -> None:
    assert not resting.passes(2 * HOP + 7, sound=True)
    assert len(resting.told) == 2 and resting.rest.untold == 0
    assert resting.ring.fill == 7 and not resting.ring.read(7).any()


def test_what_waits_in_the_ring_goes_by_with_the_silence_unless_it_is_sound(resting: Case) -> None:
    resting.ring.write(np.full(9, 0.1, np.float32))
    assert not resting.passes(HOP)
    assert resting.ring.fill == 9 and resting.device.silent == HOP
    resting.ring.clear()
    resting.ring.write(np.zeros(9, np.float32))
    assert resting.passes(HOP)
    assert resting.ring.fill == 0 and resting.rest.untold == HOP + 9


@pytest.mark.parametrize("how", [{"muted": True}, {"may_rest": False}])
def test_silence_is_not_left_there_when_more_than_a_rest_is_wanted(resting: Case, how: dict[str, bool]) -> None:
    resting.passes(REST_HOPS * HOP + 5)  # told, all but a little
    assert not resting.passes(HOP, **how)
    assert resting.ring.fill == 5 and resting.rest.untold == 0 and resting.device.silent == HOP


def test_a_device_that_goes_takes_nothing_with_it(resting: Case) -> None:
    assert resting.passes(HOP + 3)
    assert resting.rest.moved
    assert not resting.rest.passes_over(None, lambda: True, False)
    assert len(resting.told) == 1 and resting.ring.fill == 3 and not resting.rest.moved
