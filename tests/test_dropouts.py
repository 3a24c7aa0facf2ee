"""A break is explained by what really held the sound up, and what is kept of it does not grow."""

from __future__ import annotations

import ctypes
import gc
import time

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.dropouts import KEPT, PERIOD_S, Cause, DropoutWatch, Parts, cause_of
from engine.pipeline import LiveStream
from engine.ports import PacedPort, Wake
from engine.ring import Ring
from engine.soundloop import SoundLoop
from engine.thread_clock import Moment, ThreadClock, steal_s
from engine.types import Provider
from tests import tiny_models

RATE_HZ, HOP = 48_000, 960
HOP_S = HOP / RATE_HZ
HELD_S = 0.25


class Clock(ThreadClock):
    """Time goes on by what happens in it. run: on a processor; wait: ready, while others run; idle: neither."""

    def __init__(self) -> None:
        super().__init__()
        self.complete = True
        self.at_s = self.cpu_s = self.waited_s = self.main_waited_s = 100.0

    def run(self, seconds: float) -> None:
        self.at_s += seconds
        self.cpu_s += seconds

    def wait(self, seconds: float) -> None:
        self.at_s += seconds
        self.waited_s += seconds

    def idle(self, seconds: float) -> None:
        self.at_s += seconds

    def now_s(self) -> float:  # type: ignore[override]
        return self.at_s

    def now(self) -> Moment:
        return Moment(self.at_s, self.cpu_s, self.waited_s, self.main_waited_s)


class Case:
    """Hops that come when they are due, take 5 ms, and leave 12 ms in hand; until something is held up."""

    RESERVE = round(0.012 * RATE_HZ)

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = DropoutWatch(RATE_HZ, self.clock)
        self.count, self._begin_s = 0, self.clock.at_s
        for _ in range(300):
            self.until_due()
            self.hop()

    def until_due(self) -> None:
        """Look every millisecond until the next hop is there."""
        due_s = self._begin_s + (self.count + 1) * HOP_S
        while self.clock.at_s < due_s - 1e-9:
            self.watch.absent(self.clock.at_s)
            self.clock.idle(min(0.001, due_s - self.clock.at_s))

    def take(self) -> None:
        self.count += 1
        self.watch.take(self.count * HOP)

    def written(self) -> None:
        self.watch.written(HOP + self.RESERVE)

    def hop(self) -> None:
        self.take()
        self.clock.run(0.005)
        self.watch.computed()
        self.written()

    @property
    def line(self) -> str:
        """What is told of a break that was heard just now."""
        self.watch.broke(12.5)
        self.watch.look()
        return self.watch.lines[-1]


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_slow_hop(case: Case) -> None:
    case.until_due()
    case.take()
    case.clock.run(0.040)
    case.watch.computed()
    line = case.line
    assert line.startswith(f"1 at 12.5 s: {Cause.COMPUTE}. ")
    assert "computed 40.0 (processor 40.0, usually 5.0;" in line


def test_late_input(case: Case) -> None:
    case.until_due()
    for _ in range(40):
        case.watch.absent(case.clock.at_s)
        case.clock.idle(0.001)
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    assert case.line.startswith(f"1 at 12.5 s: {Cause.INPUT}. input 39.0 ms late")


def test_a_device_that_gives_two_hops_at_once_is_not_late(case: Case) -> None:
    """As far as it always does so; what else holds a hop up is still seen."""
    for _ in range(100):
        case.until_due()
        case.clock.idle(HOP_S)
        case.watch.absent(case.clock.at_s)
        case.hop()
        case.hop()
    case.until_due()
    case.clock.idle(HOP_S)
    case.watch.absent(case.clock.at_s)
    case.take()
    case.clock.run(0.005)
    case.clock.idle(0.018)
    case.watch.computed()
    assert case.line.startswith(f"1 at 12.5 s: {Cause.LOCK}. ")


@pytest.mark.parametrize("where", ["woke", "computed"])
@pytest.mark.parametrize(("how", "cause"), [("idle", Cause.LOCK), ("wait", Cause.MACHINE)])
def test_a_thread_that_was_held_up(case: Case, where: str, how: str, cause: Cause) -> None:
    case.until_due()
    if where == "woke":
        getattr(case.clock, how)(0.040)
    case.take()
    case.clock.run(0.005)
    if where == "computed":
        getattr(case.clock, how)(0.040)
    case.watch.computed()
    assert case.line.startswith(f"1 at 12.5 s: {cause}. ")


def test_what_the_machines_host_took_is_no_lock(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dropouts.steal_s", lambda: steal_s() + 0.030)
    case.until_due()
    case.clock.idle(0.040)
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    line = case.line
    assert Cause.MACHINE in line and float(line.rpartition(" ")[2]) >= 30


def test_a_main_thread_that_has_python_and_is_not_run_is_the_systems_fault(case: Case) -> None:
    case.until_due()
    case.clock.idle(0.040)
    case.clock.main_waited_s += 0.035
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    line = case.line
    assert line.startswith(f"1 at 12.5 s: {Cause.MACHINE}. ") and "main thread not run 35.0" in line


def test_an_output_that_holds_the_write_up(case: Case) -> None:
    case.until_due()
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    case.clock.idle(0.040)
    assert case.line.startswith(f"1 at 12.5 s: {Cause.WRITE}. ")


def test_an_output_that_wants_more_than_is_due(case: Case) -> None:
    case.until_due()
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    assert case.line.startswith(f"1 at 12.5 s: {Cause.OUTPUT}. ")


def test_the_hop_before_is_blamed_where_it_was_that_one(case: Case) -> None:
    """One hop is so slow that the next begins too late; that one takes the usual time."""
    case.until_due()
    case.take()
    case.clock.run(0.045)
    case.watch.computed()
    case.watch.written(0)  # it made it, with nothing left
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    line = case.line
    assert line.startswith(f"1 at 12.5 s: {Cause.COMPUTE}. ")
    assert "processor 45.0" in line


def test_what_somebody_tells_is_believed(case: Case) -> None:
    case.watch.broke(3.0, Cause.TOLD_IN)
    case.watch.look()
    assert case.watch.lines[0].startswith(f"1 at 3.0 s: {Cause.TOLD_IN}. ")


def test_where_the_system_does_not_tell_nobody_is_blamed(case: Case) -> None:
    held = Parts(woke=40.0, elapsed=60.0, complete=False)
    assert cause_of(held) is Cause.HELD


@pytest.mark.parametrize("parts", [Parts(woke=40.0), Parts(computed=45.0, cpu=45.0, usual_cpu=5.0)])
def test_the_collector_is_seen_in_what_it_holds_up(parts: Parts) -> None:
    assert cause_of(parts._replace(collector=30.0)) is Cause.COLLECTOR
    assert cause_of(parts._replace(collector=2.0)) is not Cause.COLLECTOR


def test_the_newest_are_kept(case: Case) -> None:
    for number in range(3 * KEPT):
        case.watch.broke(float(number))
        if number % 7 == 0:
            case.watch.look()
    case.watch.look()
    assert len(case.watch.lines) == KEPT
    assert case.watch.lines[-1].startswith(f"{3 * KEPT} at {3 * KEPT - 1}.0 s")


def test_what_stood_still_is_not_late(case: Case) -> None:
    case.clock.idle(30.0)
    case.watch.forget()
    case.take()
    case.clock.run(0.005)
    case.watch.computed()
    case.written()
    case.clock.idle(0.015)
    case.take()
    assert "input 0.0 ms late (usually up to 0.0), hops before 0.0, woke 0.0" in case.line


def test_the_closest_of_each_minute_is_told(case: Case) -> None:
    for second, waiting in ((1.0, 500), (2.0, 96), (3.0, 400)):
        case.watch.left(waiting, second)
    assert case.watch.closest == ""
    case.watch.left(450, PERIOD_S)
    assert case.watch.closest.startswith("2.0 ms left at 2.0 s: ")
    case.watch.left(450, 2 * PERIOD_S)
    assert case.watch.closest.startswith(f"9.4 ms left at {PERIOD_S:.1f} s: ")
    case.watch.begin_period(130.0)
    assert case.watch.closest == ""
    case.watch.left(480, 189.0)
    assert case.watch.closest == ""
    case.watch.left(480, 190.0)
    assert case.watch.closest.startswith("10.0 ms left at 189.0 s: ")


# With real time and a real thread -------------------------------------------------------------------------------------


class Device(PacedPort):
    """A device in C as Python sees it: what it has moved is what the clock says, seen whenever it is pumped.

    late_s: from now on all comes so much later.
    """

    rings = False

    def __init__(self, kind: str) -> None:
        super().__init__(kind, RATE_HZ, 5.0)
        self._kind, self._moved, self.late_s, self._begin_s = kind, 0, 0.0, 0.0
        self._ring = Ring(1)

    def start(self, ring: Ring, wake: Wake) -> None:
        self._ring, self._begin_s = ring, time.perf_counter()

    def stop(self) -> None: ...

    @property
    def begun(self) -> bool:
        return True

    def pump(self) -> None:
        passed_s = time.perf_counter() - self._begin_s - self.late_s
        blocks = int(passed_s * RATE_HZ) // self.block
        count = max(0, blocks * self.block - self._moved)
        self._moved += count
        if self._kind == "output":
            self._ring.read(count)
        else:
            self._ring.write(np.full(count, 0.1, np.float32))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def loop(tiny: Models) -> SoundLoop:
    loop = SoundLoop(
        LiveStream(tiny, RATE_HZ), round(0.005 * RATE_HZ), lambda hop: None, lambda text: pytest.fail(text)
    )
    loop.output, loop.input = Device("output"), Device("input")
    loop.start()
    loop.output.start(loop.output_ring, loop.wake)
    loop.input.start(loop.input_ring, loop.wake)
    time.sleep(0.5)
    return loop


def lines_after(loop: SoundLoop, begin: int) -> list[str]:
    """What is told of the breaks since there were so many."""
    deadline = time.monotonic() + 10.0
    while loop.drops.lines[begin:] == () and time.monotonic() < deadline:
        time.sleep(0.1)
        loop.drops.look()
    loop.stop()
    assert len(loop.drops.lines) == loop.dropouts
    return list(loop.drops.lines[begin:])


def test_live_an_input_that_stops_for_a_moment(loop: SoundLoop) -> None:
    before = loop.dropouts
    assert isinstance(loop.input, Device)
    loop.input.late_s = HELD_S
    assert any(Cause.INPUT in line for line in lines_after(loop, before))


def test_live_a_thread_that_keeps_python_to_itself(loop: SoundLoop) -> None:
    before = loop.dropouts
    ctypes.PyDLL(None).usleep(round(1e6 * HELD_S))  # unlike time.sleep it gives nothing back
    lines = lines_after(loop, before)
    assert any((Cause.LOCK if loop_tells_waits() else Cause.HELD) in line for line in lines)


def test_live_a_collection_of_garbage(loop: SoundLoop) -> None:
    before = loop.dropouts

    def long_one(phase: str, _: object) -> None:
        if phase == "stop":
            ctypes.PyDLL(None).usleep(round(1e6 * HELD_S))

    gc.callbacks.insert(0, long_one)  # before the watch's own
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(long_one)
    assert any(Cause.COLLECTOR in line for line in lines_after(loop, before))


def loop_tells_waits() -> bool:
    with ThreadClock() as clock:
        return clock.complete
