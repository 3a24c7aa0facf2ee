"""Broken inputs, many of them: what each may take in time, and all together in memory.

SOTTOVOCE_FUZZ=100000 draws that many inputs of each kind instead of a few.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from engine.memory import return_free_memory
from engine.types import SottovoceError

FEW = 150
SLOWEST_S = 5.0  # for one input
MOST_MEMORY_MB = 400.0  # more than before, at any moment while the inputs of a kind are read
SAMPLED_S = 0.002
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, -(2**70), 1.5, float("nan"), float("inf"), "", "x", "9" * 5000, [], [[]],
    {}, [1, "a"], [2**40] * 3, "\x00", "é\u2028",
)  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, taken out, put in or doubled, or the end cut off."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 1:
            del out[at : at + draw.choice((1, 4, 64))]
        elif kind == 2:
            out[at:at] = draw.randbytes(draw.choice((1, 4, 64)))
        elif kind == 3:
            out[at:at] = out[at : at + draw.choice((4, 64))]
        else:
            del out[at:]
    return bytes(out)


class PeakMemory:
    """The most that this process holds between `with` and its end beyond what it held at first: `grown_mb`.

    Linux forgets the peak of a process on request. Elsewhere memory is looked at every SAMPLED_S.
    """

    def __init__(self, sampled: bool = False) -> None:
        self.grown_mb = 0.0
        self._sampled, self._peak = sampled, 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        return_free_memory()  # what earlier tests have left would hide as much
        self._before = _held_bytes()
        self._sampled = self._sampled or not _forget_peak()
        if self._sampled:
            self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._sampled:
            self._halt.set()
            self._thread.join()
        self.grown_mb = ((self._peak if self._sampled else _peak_bytes()) - self._before) / 1e6

    def _sample(self) -> None:
        while not self._halt.wait(SAMPLED_S):
            self._peak = max(self._peak, _held_bytes())


def _held_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    """The highest since it was last forgotten; Linux alone tells it so."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> bool:
    """Whether the peak is what is held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _peak_bytes() < _held_bytes() + 16e6
    except (OSError, StopIteration):
        return False


def draws(few: int = FEW) -> Iterator[random.Random]:
    """One draw for each input. Whoever takes too long with one, or holds too much memory at any time, fails."""
    count = int(os.environ.get("SOTTOVOCE_FUZZ", few))
    with PeakMemory() as memory:
        for seed in range(count):
            began = time.monotonic()
            yield random.Random(seed)
            took_s = time.monotonic() - began
            assert took_s < SLOWEST_S, f"input {seed} took {took_s:.1f} s"
    assert memory.grown_mb < MOST_MEMORY_MB, f"{memory.grown_mb:.0f} MB more were held"
    if "SOTTOVOCE_FUZZ" in os.environ:
        print(f"\n{count} inputs, {memory.grown_mb:.0f} MB more at most")


def run(one: Callable[[random.Random], object], few: int = FEW) -> None:
    """Each input is taken or refused in one line, in time; memory stays where it was."""
    for draw in draws(few):
        try:
            one(draw)
        except SottovoceError as refusal:
            said = str(refusal)
        else:
            said = "taken"
        assert said and "\n" not in said, said
