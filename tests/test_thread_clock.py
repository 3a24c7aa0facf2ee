"""A thread learns how long it ran, and how long it was ready to and did not."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest

from engine.thread_clock import ThreadClock, steal_s

linux = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that counts")


@linux
def test_a_thread_knows_how_long_it_ran_and_did_not_run() -> None:
    with ThreadClock() as clock:
        before = clock.now()
        while time.thread_time() - before.cpu_s < 0.05:
            pass
        after = clock.now()
    assert after.cpu_s - before.cpu_s == pytest.approx(0.05, abs=0.02)
    assert 0.0 <= after.not_run_s - before.not_run_s <= after.at_s - before.at_s
    assert clock.now().not_run_s == 0.0  # closed


@linux
def test_of_two_threads_on_one_processor_each_waits_for_the_other() -> None:
    told: list[float] = []

    def burn() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with ThreadClock() as clock:
            before = clock.now()
            data = np.random.default_rng(0).standard_normal(200_000)
            while time.thread_time() - before.cpu_s < 0.2:
                np.sort(data)  # without the interpreter
            told.append(clock.now().not_run_s - before.not_run_s)

    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(told) > 0.05


@linux
def test_the_main_threads_waiting_is_told_to_another_thread() -> None:
    told: list[float] = []

    def ask() -> None:
        with ThreadClock() as clock:
            told.append(clock.now().main_not_run_s)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    with ThreadClock() as clock:
        assert 0.0 <= told[0] <= clock.now().not_run_s


def test_what_the_host_takes_never_becomes_less() -> None:
    before = steal_s()
    assert 0.0 <= before <= steal_s()


def test_closed_it_tells_what_every_system_tells() -> None:
    clock = ThreadClock()
    assert not clock.complete
    before = clock.now()
    time.sleep(0.002)
    after = clock.now()
    assert after.at_s > before.at_s and after.cpu_s >= before.cpu_s
    assert (after.not_run_s, after.main_not_run_s, after.switches) == (0.0, 0.0, 0)
