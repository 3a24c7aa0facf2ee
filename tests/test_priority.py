"""What keeps the sound from being held up: garbage set aside, switches made short, a process that goes last."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.priority import MAIN_NICE, STAND_BACK_NICE, SWITCH_S, ask_kit, calm, hurry, restless, stand_back

unix = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no such priorities")
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priorities of their own")
NICE_IN_A_RUN = """
import os
from engine.priority import calm, restless
seen = [os.getpriority(os.PRIO_PROCESS, 0)]
calm()
seen.append(os.getpriority(os.PRIO_PROCESS, 0))
restless()
seen.append(os.getpriority(os.PRIO_PROCESS, 0))
print(*seen)
"""


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


def main_nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0)


@linux
def test_the_main_thread_goes_before_other_programs_while_any_run_lasts() -> None:
    if main_nice():
        pytest.skip("somebody gave the tests another priority")
    ask = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    calm()
    calm()
    try:
        allowed = main_nice() != 0
        assert main_nice() == (MAIN_NICE if allowed else 0)
        assert int(subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True).stdout) == 0
        restless()
        assert main_nice() == (MAIN_NICE if allowed else 0)
    finally:
        restless()
    assert main_nice() == 0


@linux
def test_a_priority_that_a_person_chose_stays() -> None:
    done = subprocess.run(
        ["nice", "-n", "3", sys.executable, "-c", NICE_IN_A_RUN], capture_output=True, check=True, text=True
    )
    assert len(set(done.stdout.split())) == 1 and done.stdout.split()[0] != str(MAIN_NICE)


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
    before = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    thread.start()
    thread.join()
    assert seen[0] in (os.SCHED_RR, before)
    assert seen[1] == before
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == before


def refuse(*_: object) -> None:
    raise PermissionError


@contextmanager
def in_vain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A thread that has asked for what the system refuses: its number, as long as it lives."""
    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.delattr(os, "sched_setscheduler", raising=False)
    asked, over = threading.Event(), threading.Event()

    def run() -> None:
        hurry()
        asked.set()
        over.wait()

    thread = threading.Thread(target=run)
    thread.start()
    asked.wait()
    try:
        assert thread.native_id is not None
        yield thread.native_id
    finally:
        over.set()
        thread.join()


@unix
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RealtimeKit is Linux's")
@pytest.mark.parametrize(("status", "granted"), [(0, 1), (1, 0)], ids=["granted", "refused"])
def test_where_the_system_refuses_the_kit_is_asked_and_only_once_in_vain(
    status: int, granted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is replaced by a program that writes down what it was asked."""
    program = tmp_path / "dbus-send"
    program.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("engine.priority._kit_fails", False)
    ask_kit()
    with in_vain(monkeypatch) as first:
        assert ask_kit() == granted
    with in_vain(monkeypatch):
        assert ask_kit() == granted
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1 + granted
    assert f"uint64:{os.getpid()} uint64:{first} int32:-11" in asked[0]


@unix
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RealtimeKit is Linux's")
def test_without_a_bus_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("engine.priority._kit_fails", False)
    with in_vain(monkeypatch):
        assert ask_kit() == 0
