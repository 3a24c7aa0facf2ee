"""How much of this machine other programs use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import psutil


class OtherWork:
    """own: gives the process ids that are ours, at every look (None among them is none).

    Time that other programs get runs the sound late though it computes no longer than else, so it is told apart.
    """

    def __init__(self, own: Callable[[], Iterable[int | None]]) -> None:
        self._own = own
        self._before: tuple[float, float, frozenset[int]] | None = None

    def look(self) -> float:
        """The part of all cores' time that they used since the last look, 0 to 1; 0 where that cannot be told."""
        before = self._before
        try:
            self._before = _spent_s({pid for pid in self._own() if pid is not None})
        except (OSError, psutil.Error):  # the system does not let everybody see it
            self._before = None
        if before is None or self._before is None or before[2] != self._before[2]:
            return 0.0
        whole_s, theirs_s = (now - then for now, then in zip(self._before[:2], before[:2], strict=True))
        return min(max(theirs_s / whole_s, 0.0), 1.0) if whole_s > 0.0 else 0.0


def _spent_s(pids: Iterable[int]) -> tuple[float, float, frozenset[int]]:
    """Seconds of all cores since the machine began, those of them that others than `pids` used, and which are there."""
    times = psutil.cpu_times()
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    guests_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted among the users', too
    whole_s = sum(times) - guests_s
    own_s, there = 0.0, set[int]()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            spent = psutil.Process(pid).cpu_times()
            own_s += spent.user + spent.system
            there.add(pid)
    return whole_s, whole_s - idle_s - own_s, frozenset(there)
