"""Free memory goes back to the system now and then, never at every look."""

from __future__ import annotations

import pytest

from engine import memory


def test_it_is_tidied_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, tidied = [100.0], list[float]()
    monkeypatch.setattr(memory.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(memory, "return_free_memory", lambda: tidied.append(now_s[0]))
    tidying = memory.Tidying()
    for second in range(100, 100 + 3 * round(memory.TIDY_S) + 1):
        now_s[0] = float(second)
        tidying.look()
        tidying.look()
    assert tidied == [100.0 + memory.TIDY_S * turn for turn in (1, 2, 3)]


def test_where_the_c_library_cannot_do_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.return_free_memory()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.return_free_memory()
