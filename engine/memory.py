"""Memory that was freed, given back to the system, where the C library would keep it for later (glibc)."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress

TIDY_S = 20.0


def return_free_memory() -> None:
    """Give back what is free now."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Tidying:
    """Gives free memory back now and then, for work whose pieces are never of one size and leave holes behind."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + TIDY_S

    def look(self) -> bool:
        """To be called in pauses; does something every TIDY_S at the most, and says so."""
        due = time.monotonic() >= self._next_s
        if due:
            return_free_memory()
            self._next_s = time.monotonic() + TIDY_S
        return due
