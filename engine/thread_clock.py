"""What the system counts about the thread that asks: how long it ran, and how long it might have run and did not.

Asked for every hop, so it costs some microseconds, and never gives the interpreter away: another thread would take it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

LINE_BYTES = 96


class Moment(NamedTuple):
    """at_s: on time.perf_counter's clock; cpu_s: on a processor until then; not_run_s: ready to run, while others ran.

    main_not_run_s: the same of the program's main thread, which may have the interpreter meanwhile. switches: times
    that it was put aside for another thread; faults: pages that it had to wait for the disk for.
    """

    at_s: float
    cpu_s: float
    not_run_s: float = 0.0
    main_not_run_s: float = 0.0
    switches: int = 0
    faults: int = 0


class ThreadClock:
    """Open while its thread runs (`with`), by that thread. complete: whether all of a Moment is told (Linux)."""

    def __init__(self) -> None:
        self.complete = False
        self._line = ctypes.create_string_buffer(LINE_BYTES)
        self._files: tuple[int, ...] = ()
        self._read: Any = None
        self._usage: Any = None

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):  # a kernel that does not count it
                import resource  # not on Windows

                self._usage = partial(resource.getrusage, resource.RUSAGE_THREAD)
                # unlike os.pread it keeps the interpreter
                self._read = ctypes.PyDLL(None).pread
                self._read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
                self._read.restype = ctypes.c_ssize_t
                for thread in (threading.get_native_id(), os.getpid()):
                    path = f"/proc/self/task/{thread}/schedstat"
                    self._files = (*self._files, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self.complete = self._not_run_s(self._files[1]) > 0.0  # it is 0 where it is not counted
        return self

    def __exit__(self, *failure: object) -> None:
        files, self._files, self.complete = self._files, (), False
        for file in files:
            os.close(file)

    @staticmethod
    def now_s() -> float:
        """The clock alone."""
        return time.perf_counter()

    def now(self) -> Moment:
        at_s, cpu_s = time.perf_counter(), time.thread_time()
        if not self.complete:
            return Moment(at_s, cpu_s)
        usage = self._usage()
        own, main = self._files
        return Moment(at_s, cpu_s, self._not_run_s(own), self._not_run_s(main), usage.ru_nivcsw, usage.ru_majflt)

    def _not_run_s(self, file: int) -> float:
        count = self._read(file, self._line, LINE_BYTES, 0)
        return 1e-9 * int(self._line.raw[:count].split()[1]) if count > 0 else 0.0


def steal_s() -> float:
    """Time that the machine wanted to run and its host did not let it, over all processors; 0 where nobody tells."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as stat:
            words = stat.readline().split()
        return int(words[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
