"""Sees to it that nothing holds the sound up: threads that go first, a process that goes last, a collector that waits.

    hurry          a thread goes before all that is not sound
    ask_kit        RealtimeKit, which most desktops run, is asked where the system itself refused that
    stand_back     another process (the recogniser's) goes after everything else
    calm, restless the interpreter's own pauses, taken before the sound starts and given back after it; and the main
                   thread goes before other programs meanwhile

A full collection of cyclic garbage takes 20 to 40 ms in a program of this size, in which no Python thread runs: longer
than what waits for the output. What is there when the sound starts is therefore set aside, so that a later collection
looks at what is new alone.

A thread that has the interpreter while another program is given the processor holds the sound up for as long, however
urgent the sound's own thread is. So all of ours that run Python while there is sound go before what is not sound; the
main thread, which paints, a step behind the sound.
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

HURRY_NICE, MAIN_NICE = -11, -10
HURRY_ROUND_ROBIN = 5  # above what is not in real time, below what the sound server itself takes
STAND_BACK_NICE = 10
SWITCH_S = 0.001  # how long one Python thread may hold the others up, while sound runs

KIT = "org.freedesktop.RealtimeKit1"
KIT_S = 2.0

_refused: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()  # threads that wait for ask_kit, and for what
_kit_fails = False
_lock = threading.Lock()
_calm_runs = 0
_switch_before_s = sys.getswitchinterval()
_main_hurries = False


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
    _go_before(thread, HURRY_NICE)


def _go_before(thread: int, nice: int) -> None:
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        except ProcessLookupError:
            pass  # it has ended
        except OSError:
            _refused.put((thread, nice))


def _hurry_main() -> None:
    """Before other programs, unless a person wants it otherwise; what it starts begins as everything else does."""
    global _main_hurries
    thread = threading.main_thread().native_id
    if sys.platform != "linux" or thread is None:  # elsewhere a thread's number would be taken for a process's
        return
    if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK or os.getpriority(os.PRIO_PROCESS, thread):
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    _go_before(thread, MAIN_NICE)
    _main_hurries = True


def _calm_main() -> None:
    global _main_hurries
    thread = threading.main_thread().native_id
    if _main_hurries and thread is not None:
        os.setpriority(os.PRIO_PROCESS, thread, 0)  # to step back is never refused
        with contextlib.suppress(OSError):  # this is, to most; it does no harm there
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    _main_hurries = False


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
        thread, nice = _refused.get()
        if _kit_fails or not Path(f"/proc/self/task/{thread}").exists():
            continue
        call = [
            f"{KIT}.MakeThreadHighPriorityWithPID",
            f"uint64:{os.getpid()}",
            f"uint64:{thread}",
            f"int32:{nice}",
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
            _hurry_main()


def restless() -> None:
    """The sound is over: as it was before."""
    global _calm_runs
    with _lock:
        _calm_runs -= 1
        if _calm_runs == 0:
            sys.setswitchinterval(_switch_before_s)
            gc.unfreeze()
            _calm_main()
