"""What keeps the sound from being held up: garbage set aside, switches made short, a process that goes last."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest

from engine.priority import STAND_BACK_NICE, SWITCH_S, calm, hurry, restless, stand_back

unix = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no such priorities")


def test_what_is_there_is_set_aside_while_any_run_lasts() -> None:
    switch_s, aside = sys.getswitchinterval(), gc.get_freeze_count()
    calm()
    calm()
    try:
        assert gc.get_freeze_count() > aside + 1000
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
        restless()
        assert gc.get_freeze_count() > aside + 1000  # the other run goes on
    finally:
        restless()
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == switch_s


@unix
def test_a_process_that_stands_back_does_so_with_what_it_starts() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input(); import os; print(os.getpriority(os.PRIO_PROCESS, 0))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stand_back(child.pid)
    out, _ = child.communicate("\n")
    assert int(out) == STAND_BACK_NICE
    stand_back(child.pid)  # it is gone by now: nothing to do


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no such classes")
def test_a_thread_hurries_or_stays_as_it_is_and_its_processes_do_not_hurry() -> None:
    ask, seen = "import os; print(os.sched_getscheduler(0))", list[int]()

    def run() -> None:
        hurry()
        seen.append(os.sched_getscheduler(threading.get_native_id()) & ~os.SCHED_RESET_ON_FORK)
        seen.append(int(subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True).stdout))

    thread = threading.Thread(target=run)
    before = os.sched_getscheduler(0)
    thread.start()
    thread.join()
    assert seen[0] in (os.SCHED_RR, before)
    assert seen[1] == before
    assert os.sched_getscheduler(0) == before
