"""Why the sound broke: what each hop waited for, kept until the next, and a line about each that came too late.

    the hop before written ─► due ─► there ─► taken ─► computed ─► written
                               input    woke     computed    write

By it one can tell whether the device came late, the system ran others, or something held Python.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

from engine.thread_clock import Moment, ThreadClock, steal_s

KEPT = 20
DUE_HOPS = 100  # the earliest of so many hops, and of as many before them, tells when one is due
SMOOTHING = 0.05
LATE_S = 0.004  # a hop that was so late may be to blame for the one after it
NOTHING_MS = 1.0  # shorter than that, nothing was late
PERIOD_S = 60.0


class Cause(StrEnum):
    """Whose fault a break was."""

    INPUT = "the input came late"
    MACHINE = "the system ran other programs"
    LOCK = "another thread kept Python to itself"
    HELD = "the sound thread was held up"  # where it is not told by whom
    COLLECTOR = "Python's collector ran"
    COMPUTE = "the hop took long to compute"
    WRITE = "the output was slow to take it"
    OUTPUT = "the output wanted more than was due"
    TOLD_IN = "the input told of a break"
    TOLD_OUT = "the output told of a break"
    REOPENED = "the device was opened again, to keep more in hand"


class Parts(NamedTuple):
    """What a hop waited for, in ms. before: the hops before it; woke: the thread, though it was there.

    woke_not_run, not_run: of woke and of computed, while the system ran others; cpu: of computed, on a processor;
    usual_cpu, usual_idle: as most hops have it, idle being neither; in_hand: what waited for the output after the hop
    before; elapsed: since then. usual_input: the most that is usual, which is much where a device gives several hops at
    once. Of elapsed, main_not_run: while the main thread was ready to run and others ran;
    collector: while Python's ran. complete: whether not_run is known.
    """

    input: float = 0.0
    usual_input: float = 0.0
    before: float = 0.0
    woke: float = 0.0
    woke_not_run: float = 0.0
    computed: float = 0.0
    cpu: float = 0.0
    not_run: float = 0.0
    usual_cpu: float = 0.0
    usual_idle: float = 0.0
    write: float = 0.0
    in_hand: float = 0.0
    elapsed: float = 0.0
    main_not_run: float = 0.0
    collector: float = 0.0
    switches: int = 0
    faults: int = 0
    complete: bool = True

    @property
    def waits_for_others(self) -> bool:
        """Whether most of its time went by before the hop before it was written."""
        computed = self.computed - self.usual_cpu - self.usual_idle
        return self.before > max(self.input - self.usual_input, self.woke, computed, self.write)

    def __str__(self) -> str:
        return (
            f"input {self.input:.1f} ms late (usually up to {self.usual_input:.1f}), hops before {self.before:.1f},"
            f" woke {self.woke:.1f} (not run {self.woke_not_run:.1f}), computed {self.computed:.1f} (processor"
            f" {self.cpu:.1f}, usually {self.usual_cpu:.1f}; not run {self.not_run:.1f}), write {self.write:.1f},"
            f" main thread not run {self.main_not_run:.1f}, collector {self.collector:.1f}; {self.in_hand:.1f} ms in"
            f" hand, {self.elapsed:.1f} ms since the hop before, put aside {self.switches} times,"
            f" {self.faults} pages from disk"
        )


def cause_of(parts: Parts, steal_ms: float = 0.0) -> Cause:
    """The one that took most of the time; steal_ms: what the machine's host took meanwhile.

    Who waits for Python while the main thread, or the whole machine, is not run, waits for those who are.
    """
    idle = parts.computed - parts.cpu - parts.not_run - parts.usual_idle
    held = parts.woke - parts.woke_not_run + max(0.0, idle)
    stolen = min(steal_ms + parts.main_not_run, held)
    took = {
        Cause.INPUT: parts.input - parts.usual_input,
        Cause.MACHINE: parts.woke_not_run + parts.not_run + stolen,
        Cause.LOCK if parts.complete else Cause.HELD: held - stolen,
        Cause.COMPUTE: parts.cpu - parts.usual_cpu,
        Cause.WRITE: parts.write,
    }
    cause = max(took, key=lambda name: took[name])
    if took[cause] < NOTHING_MS:
        return Cause.OUTPUT
    of_python = cause in (Cause.LOCK, Cause.HELD, Cause.COMPUTE)
    return Cause.COLLECTOR if of_python and parts.collector > took[cause] / 2 else cause


class _Break(NamedTuple):
    number: int
    time_s: float
    parts: Parts
    told: Cause | None


class DropoutWatch:
    """Follows each hop of a sound loop. lines: the newest breaks, oldest first; closest: the hop of the last whole
    minute after which least was left for the output, "" before.

    Everything is the sound thread's but look, which another calls a few times a second and at the end: it asks the
    system what the sound thread need not wait for.
    """

    def __init__(self, rate_hz: int, clock: ThreadClock | None = None) -> None:
        self._rate_hz = rate_hz
        self._clock = clock if clock is not None else ThreadClock()
        self._before = self._taken = self._computed = Moment(0.0, 0.0)
        self._written_s = self._absent_s = self._due_s = 0.0
        self._first_s = self._first_before_s = float("inf")  # when the first sample came, as late hops have it
        self._hops = self._in_hand = 0
        self._usual_input_s = self._usual_cpu_s = self._usual_idle_s = 0.0
        self._collecting_s: float | None = None  # since when the collector runs
        self._collected_s = 0.0
        self._culprit: Parts | None = None
        self._count = 0
        self._untold: deque[_Break] = deque(maxlen=KEPT)
        self._least: tuple[int, float, Parts] | None = None
        self._period_end_s = PERIOD_S
        self.closest = ""
        self._looking = threading.Lock()
        self._steals_s = deque([steal_s()] * 2, maxlen=2)
        self._lines: deque[str] = deque(maxlen=KEPT)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def look(self) -> None:
        """Make lines of the breaks since the last look."""
        with self._looking:
            now_s = steal_s()
            stolen_ms = 1000.0 * (now_s - self._steals_s[0])  # a hold-up may have begun before the last look
            self._steals_s.append(now_s)
            while self._untold:
                told = self._untold.popleft()
                cause = told.told or cause_of(told.parts, stolen_ms)
                self._lines.append(
                    f"{told.number} at {told.time_s:.1f} s: {cause}. {told.parts}, steal {stolen_ms:.0f}"
                )

    # The sound thread's -----------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """By the thread that is watched, as long as it runs."""
        gc.callbacks.append(self._see_collector)
        try:
            with self._clock:
                yield
        finally:
            gc.callbacks.remove(self._see_collector)

    def _see_collector(self, phase: str, _: dict[str, Any]) -> None:
        """In whatever thread it runs, no other does until it ends; but another may before this is told of the end."""
        if phase == "start":
            self._collecting_s = self._clock.now_s()
        else:
            self._collected_s, self._collecting_s = self._collector_s(), None

    def _collector_s(self) -> float:
        """How long it has run since the last hop was written."""
        began_s = self._collecting_s
        if began_s is None:
            return self._collected_s
        return self._collected_s + self._clock.now_s() - max(began_s, self._written_s)

    def forget(self) -> None:
        """The sound stood still, or begins anew: when hops are due is to be seen again."""
        self._first_s = self._first_before_s = float("inf")
        self._hops = self._in_hand = 0
        self._written_s = self._absent_s = 0.0
        self._culprit = None

    def begin_period(self, time_s: float) -> None:
        """What came closest until now is not told any more."""
        self._least, self.closest, self._period_end_s = None, "", time_s + PERIOD_S

    def absent(self, at_s: float) -> None:
        """The next hop was not there by then, on time.perf_counter's clock."""
        self._absent_s = at_s

    def take(self, end: int) -> None:
        """A hop that ends with this sample begins to be worked on."""
        self._taken = self._clock.now()
        self._before = self._computed if self._written_s else self._taken
        self._computed = self._taken
        if self._hops == DUE_HOPS:
            self._hops, self._first_before_s, self._first_s = 0, self._first_s, float("inf")
        self._hops += 1
        self._first_s = min(self._first_s, self._taken.at_s - end / self._rate_hz)
        self._due_s = min(self._first_s, self._first_before_s) + end / self._rate_hz

    def computed(self) -> None:
        """The models are done with it."""
        self._computed = self._clock.now()

    def left(self, waiting: int, time_s: float) -> None:
        """So many samples still wait for the output now that a hop is ready to be given to it."""
        if time_s >= self._period_end_s:
            self._period_end_s, least, self._least = time_s + PERIOD_S, self._least, None
            self.closest = self._as_line(*least) if least is not None else ""
        if self._written_s and (self._least is None or waiting < self._least[0]):
            self._least = (waiting, time_s, self._parts())

    def written(self, in_hand: int) -> None:
        """The output was given it; so many samples wait there now."""
        now_s = self._clock.now_s()
        usual_s = 2.0 * self._usual_input_s + self._usual_cpu_s + self._usual_idle_s
        if now_s - self._due_s - usual_s > LATE_S:
            parts = self._parts()
            self._culprit = self._culprit if parts.waits_for_others else parts
        else:
            self._culprit = None
        since_s, there_s = self._waiting_s()
        cpu_s, idle_s = self._computing_s()
        self._written_s, self._in_hand, self._collected_s = now_s, in_hand, 0.0
        self._usual_input_s = _smoothed(self._usual_input_s, there_s - since_s)
        self._usual_cpu_s = _smoothed(self._usual_cpu_s, cpu_s)
        self._usual_idle_s = _smoothed(self._usual_idle_s, idle_s)

    def broke(self, time_s: float, told: Cause | None = None) -> None:
        """A listener heard a break, and this hop is the first since; told: its cause, where somebody tells."""
        self._count += 1
        parts = self._parts()
        if told is None and parts.elapsed < parts.in_hand:
            told = Cause.OUTPUT  # the hop was there in time
        elif self._culprit is not None and parts.waits_for_others:
            parts = self._culprit
        self._untold.append(_Break(self._count, time_s, parts, told))

    def _as_line(self, waiting: int, time_s: float, parts: Parts) -> str:
        left_ms = 1000.0 * waiting / self._rate_hz
        return f"{left_ms:.1f} ms left at {time_s:.1f} s: {cause_of(parts)}. {parts}"

    def _waiting_s(self) -> tuple[float, float]:
        """Since when only the input was waited for, and until when."""
        since_s = max(self._due_s, self._written_s)
        return since_s, max(since_s, min(self._absent_s, self._taken.at_s))

    def _computing_s(self) -> tuple[float, float]:
        """On a processor, and idle: neither there nor ready to run."""
        taken, computed = self._taken, self._computed
        cpu_s = computed.cpu_s - taken.cpu_s
        return cpu_s, max(0.0, computed.at_s - taken.at_s - cpu_s - (computed.not_run_s - taken.not_run_s))

    def _parts(self) -> Parts:
        """As far as this hop has come."""
        now_s = self._clock.now_s()
        before, taken, computed = self._before, self._taken, self._computed
        since_s, there_s = self._waiting_s()
        woke_s = max(0.0, taken.at_s - there_s)
        cpu_s, _ = self._computing_s()
        begun = self._written_s > 0.0
        return Parts(
            input=1000.0 * (there_s - since_s),
            usual_input=2000.0 * self._usual_input_s,  # where it rises and falls evenly its most is twice its mean
            before=1000.0 * max(0.0, self._written_s - self._due_s),
            woke=1000.0 * woke_s,
            woke_not_run=1000.0 * min(woke_s, taken.not_run_s - before.not_run_s),
            computed=1000.0 * (computed.at_s - taken.at_s),
            cpu=1000.0 * cpu_s,
            not_run=1000.0 * (computed.not_run_s - taken.not_run_s),
            usual_cpu=1000.0 * self._usual_cpu_s,
            usual_idle=1000.0 * self._usual_idle_s,
            write=1000.0 * (now_s - computed.at_s),
            in_hand=1000.0 * self._in_hand / self._rate_hz,
            elapsed=1000.0 * (now_s - self._written_s) if begun else 0.0,
            main_not_run=1000.0 * (computed.main_not_run_s - before.main_not_run_s),
            collector=1000.0 * self._collector_s(),
            switches=computed.switches - before.switches,
            faults=computed.faults - before.faults,
            complete=self._clock.complete,
        )


def _smoothed(usual: float, value: float) -> float:
    """One more value; what is far beyond the usual is learned slowly."""
    return usual + SMOOTHING * (min(value, 2.0 * usual + NOTHING_MS / 1000.0) - usual)
