"""Sees to it that nothing holds the sound up: threads that go first, a process that goes last, a collector that waits.

    hurry          a thread goes before all that is not sound
    ask_kit        RealtimeKit, which most desktops run, is asked where the system itself refused that
    stand_back     another process (the recogniser's) goes after everything else
    calm, restless the interpreter's own pauses, taken before the sound starts and given back after it

A full collection of cyclic garbage takes 20 to 40 ms in a program of this size, in which no Python thread runs: longer
than what waits for the output. What is there when the sound starts is therefore set aside, so that a later collection
looks at what is new alone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

HURRY_NICE = -11
HURRY_ROUND_ROBIN = 5  # above what is not in real time, below what the sound server itself takes
STAND_BACK_NICE = 10
SWITCH_S = 0.001  # how long one Python thread may hold the others up, while sound runs

KIT = "org.freedesktop.RealtimeKit1"
KIT_S = 2.0

_refused: queue.SimpleQueue[int] = queue.SimpleQueue()  # threads that wait for ask_kit
_kit_fails = False
_lock = threading.Lock()
_calm_runs = 0
_switch_before_s = sys.getswitchinterval()


def hurry(thread: int | None = None) -> None:
    """Let a thread, by its number with the system, or this one go before others where the system allows it.

    Else it is noted for `ask_kit`. Never waits.
    """
    thread = threading.get_native_id() if thread is None else thread
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):  # the right to it is not everybody's
            # what this thread starts (processes) begins as everything else does
            policy = os.SCHED_RR | getattr(os, "SCHED_RESET_ON_FORK", 0)
            os.sched_setscheduler(thread, policy, os.sched_param(HURRY_ROUND_ROBIN))
            return
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, thread, HURRY_NICE)
        except ProcessLookupError:
            pass  # it has ended
        except OSError:
            _refused.put(thread)


def unnamed_threads() -> set[int]:
    """The process's threads that Python did not begin, where the system tells them (Linux)."""
    try:
        every = {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()
    return every - {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


def ask_kit() -> int:
    """Ask RealtimeKit for the threads that were refused -> how many it let go first. May wait; one failure is the last.

    Only the higher priority is asked for: what it grants in real time, it takes with the whole process when a thread
    computes for 200 ms on end.
    """
    global _kit_fails
    granted = 0
    while not _refused.empty():
        thread = _refused.get()
        if _kit_fails or not Path(f"/proc/self/task/{thread}").exists():
            continue
        call = [
            f"{KIT}.MakeThreadHighPriorityWithPID",
            f"uint64:{os.getpid()}",
            f"uint64:{thread}",
            f"int32:{HURRY_NICE}",
        ]
        command = ["dbus-send", "--system", "--print-reply", f"--dest={KIT}", "/org/freedesktop/RealtimeKit1", *call]
        try:
            done = subprocess.run(command, capture_output=True, timeout=KIT_S, check=False)
            _kit_fails = done.returncode != 0
        except (OSError, subprocess.TimeoutExpired):
            _kit_fails = True  # no D-Bus here, or nobody answers
        granted += not _kit_fails
    return granted


def stand_back(pid: int) -> None:
    """Let a process of ours, all of whose threads are still to come, go after everything else.

    Where Linux shares time between sessions first, a process in a session of its own would else have as much of it as
    the sound.
    """
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, pid, STAND_BACK_NICE)
            if os.getsid(pid) != os.getsid(0):
                Path(f"/proc/{pid}/autogroup").write_text(str(STAND_BACK_NICE), encoding="ascii")


def calm() -> None:
    """Before the sound starts: collect once, and set aside what is there. Ended by `restless`; runs may overlap."""
    global _calm_runs, _switch_before_s
    with _lock:
        _calm_runs += 1
        if _calm_runs == 1:
            _switch_before_s = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_S)
            gc.collect()
            gc.freeze()


def restless() -> None:
    """The sound is over: as it was before."""
    global _calm_runs
    with _lock:
        _calm_runs -= 1
        if _calm_runs == 0:
            sys.setswitchinterval(_switch_before_s)
            gc.unfreeze()
