"""What other programs use of the machine: theirs is told, ours is not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest

from engine.other_work import OtherWork

Times = namedtuple("Times", "user system idle iowait guest")
OURS = 7


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine whose clocks stand where the test puts them; `ours`: seconds that process OURS has used."""
    state = SimpleNamespace(times=Times(100.0, 10.0, 1000.0, 5.0, 50.0), ours=20.0)

    def process(pid: int) -> SimpleNamespace:
        if pid != OURS:
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=state.ours, system=0.0))

    monkeypatch.setattr("psutil.cpu_times", lambda: state.times)
    monkeypatch.setattr("psutil.Process", process)
    return state


def test_what_others_used_is_told_and_neither_ours_nor_idle_nor_guests_twice(machine: SimpleNamespace) -> None:
    others = OtherWork(lambda: (OURS, None))
    assert others.look() == 0.0
    machine.times, machine.ours = Times(102.0, 11.0, 1004.0, 6.0, 52.0), 20.5
    assert others.look() == pytest.approx(2.5 / 8.0)
    assert others.look() == 0.0  # no time has passed


def test_a_process_of_ours_that_comes_or_ends_is_no_work_of_others(machine: SimpleNamespace) -> None:
    pids: list[int | None] = [8]
    others = OtherWork(lambda: pids)
    others.look()
    pids.append(OURS)
    machine.times = Times(110.0, 10.0, 1000.0, 5.0, 50.0)
    assert others.look() == 0.0
    machine.times = Times(111.0, 10.0, 1000.0, 5.0, 50.0)
    assert others.look() == 1.0  # 8 has ended long ago, and the rest goes on
    pids.remove(OURS)
    machine.times = Times(112.0, 10.0, 1000.0, 5.0, 50.0)
    assert others.look() == 0.0


def test_what_may_not_be_seen_is_no_work(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    others = OtherWork(lambda: (OURS,))
    others.look()

    def hidden() -> Times:
        raise PermissionError(13, "hidden")

    monkeypatch.setattr("psutil.cpu_times", hidden)
    assert others.look() == 0.0
    assert others.look() == 0.0


def test_a_busy_process_is_seen_by_those_that_do_not_own_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        try:
            theirs, ours = OtherWork(lambda: ()), OtherWork(lambda: (burner.pid,))
            theirs.look(), ours.look()
            time.sleep(1.0)
            assert theirs.look() - ours.look() > 0.1 / psutil.cpu_count()
        finally:
            burner.kill()
