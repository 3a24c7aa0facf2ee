"""Two devices whose clocks differ: three hours of it simulated, and a while of it in real time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

from engine.artefacts import Models
from engine.fill import LEVEL_S, TOLERANCE_MS, FillControl, splice
from engine.live import Engine
from engine.ports import PacedPort, Wake
from engine.ring import Ring
from engine.types import EngineConfig
from tests.live_run import DROP, noise, tiny
from tests.pulse import RATE_HZ

__all__ = ["tiny"]

HOP, BLOCK = RATE_HZ // 50, RATE_HZ // 200
HOURS = 3.0
PPM, REAL_S, LITTLE_S = 500.0, 28.0, 0.002
NEAR_GOAL_MS = TOLERANCE_MS + 2.5  # what waits changes by whole blocks, and drifts by 2 ms in LEVEL_S
LATE_MS, LATEST_MS = 4.0, 12.0  # of a hop: exponential with this mean, up to that


@dataclass(frozen=True)
class Held:
    """What a run was like. delays_ms: of each hop, from its first sample to when that is heard."""

    control: FillControl
    delays_ms: np.ndarray
    taken_ms: float  # more was taken out than made up


def held_together(ppm: float, hours: float) -> Held:
    """An output that is faster than the input by so much, and hops that come late by chance."""
    control, random = FillControl(RATE_HZ, HOP, BLOCK), np.random.default_rng(1)
    late_s = np.minimum(random.exponential(LATE_MS, round(hours * 3600 * 50)), LATEST_MS) / 1000.0
    seen_s = 0.02 * np.arange(len(late_s)) + late_s
    played = (seen_s * RATE_HZ * (1.0 + 1e-6 * ppm)).astype(np.int64) // BLOCK * BLOCK
    sound = noise(0.02)
    written, waits = control.goal, []
    for at in played.tolist():
        waiting = written - at
        if waiting < 0:
            control.ran_dry()
            written, waiting = at, 0
        waits.append(waiting)
        shift = control.next(waiting)
        if shift:
            _, shift = splice(sound, shift, RATE_HZ)
            control.applied(shift)
        written += HOP - shift
    taken = control.goal + HOP * len(waits) - written
    return Held(control, 1000.0 * (np.array(waits) + HOP) / RATE_HZ, 1000.0 * taken / RATE_HZ)


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [200.0, -200.0])
def test_three_hours_of_clocks_that_differ_break_nothing_and_the_delay_stays(ppm: float) -> None:
    held = held_together(ppm, HOURS)
    drifted_ms = 1e-3 * ppm * HOURS * 3600.0
    assert held.taken_ms == pytest.approx(-drifted_ms, abs=20.0)
    assert held.control.breaks == 0
    delays_ms = held.delays_ms[60 * 50 :]
    minutes_ms = np.median(delays_ms[: len(delays_ms) // 3000 * 3000].reshape(-1, 3000), axis=1)
    assert np.ptp(minutes_ms) < 8.0
    assert delays_ms.min() > 20.0
    assert delays_ms.max() < 60.0


def test_without_control_three_minutes_are_enough_to_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FillControl, "next", lambda self, waiting: 0)
    assert held_together(200.0, 0.05).control.breaks > 0
    assert np.ptp(held_together(-200.0, 0.05).delays_ms) > 30.0


# In real time ---------------------------------------------------------------------------------------------------------


class World:
    """Real time, but for what other programs took from us: between two looks it does not go beyond a limit."""

    def __init__(self) -> None:
        self.now_s, self._left_out_s = 0.0, time.perf_counter()

    def look(self, limit_s: float) -> float:
        """Seconds since the beginning, `limit_s` at the most; never less than before."""
        real_s = time.perf_counter()
        self.now_s = max(self.now_s, min(real_s - self._left_out_s, limit_s))
        self._left_out_s = real_s - self.now_s
        return self.now_s


class Device(PacedPort):
    """A device in C as Python sees it: what it has moved is what its clock says, seen whenever it is pumped.

    pace: so many times as fast as it should be.
    """

    rings, begun, alive = False, True, True

    def __init__(self, device: str, world: World, pace: float) -> None:
        super().__init__(device, RATE_HZ, 5.0)
        self._world, self._block_s, self._ring = world, BLOCK / RATE_HZ / pace, Ring(1)
        self._sound = noise(BLOCK / RATE_HZ)[:, None]

    def start(self, ring: Ring, wake: Wake) -> None:
        self._ring = ring

    def stop(self) -> None: ...

    def _limit_s(self) -> float:
        """How far the time may go in one look."""
        raise NotImplementedError

    def pump(self) -> None:
        now_s = self._world.look(self._limit_s())
        while (self.blocks + 1) * self._block_s <= now_s:
            self.blocks += 1
            self._move(self._ring)


class Input(Device):
    def _limit_s(self) -> float:
        """When the next hop is there, and a little more."""
        missing = max(0, HOP - self._ring.fill) // BLOCK
        return (self.blocks + missing) * self._block_s + LITTLE_S

    def _move(self, ring: Ring) -> bool:
        return ring.write(self._sound) > 0


class Output(Device):
    def _limit_s(self) -> float:
        """What working on a hop takes."""
        return self._world.now_s + LITTLE_S

    def _move(self, ring: Ring) -> bool:
        return ring.read_into(self._sound) > 0


class Run:
    """The real engine between two such devices. waits: before each hop, in samples; taken: out of all hops."""

    def __init__(self, tiny: Models, ppm: float) -> None:
        self.world = World()
        self.input = Input("in", self.world, 1.0 - 5e-7 * ppm)
        self.output = Output("out", self.world, 1.0 + 5e-7 * ppm)
        self.engine = Engine(EngineConfig(background=DROP), tiny, self.input, self.output)
        self.engine.start()
        assert self.engine._loop is not None
        self.loop, self.fill = self.engine._loop, self.engine._loop.fill
        self.waits, self.taken = list[int](), 0
        self._next, self._applied = self.fill.next, self.fill.applied
        self.fill.next, self.fill.applied = self._see, self._count  # type: ignore[method-assign]

    def _see(self, waiting: int) -> int:
        self.waits.append(waiting)
        return self._next(waiting)

    def _count(self, shift: int) -> None:
        self.taken += shift
        self._applied(shift)

    def end(self) -> None:
        """Stop, and see that the clocks really differed by enough to matter."""
        self.engine.stop()
        assert self.loop.skipped == 0
        assert abs(self.input.blocks - self.output.blocks) * BLOCK >= 0.01 * RATE_HZ

    @property
    def surplus_ms(self) -> float:
        """What waited in the last seconds beyond the goal."""
        return 1000.0 * (float(np.mean(self.waits[-round(LEVEL_S * 50) :])) - self.fill.goal) / RATE_HZ


@pytest.mark.slow
def test_half_a_minute_of_real_clocks_that_differ(tiny: Models) -> None:
    held = {ppm: Run(tiny, ppm) for ppm in (PPM, -PPM)}
    loose = {ppm: Run(tiny, ppm) for ppm in (PPM, -PPM)}
    for run in loose.values():
        run.fill.next = lambda waiting, run=run: run.waits.append(waiting) or 0  # type: ignore[method-assign, misc]
    runs, deadline_s = [*held.values(), *loose.values()], time.monotonic() + 5 * REAL_S
    while min(run.world.now_s for run in runs) < REAL_S:
        assert time.monotonic() < deadline_s, "the machine is far too busy"
        time.sleep(0.1)
    for run in runs:
        run.end()
    for run in held.values():
        assert (run.loop.dropouts, run.fill.breaks) == (0, 0), run.loop.drops.lines
        assert -NEAR_GOAL_MS < run.surplus_ms < NEAR_GOAL_MS
        assert run.taken != 0
    assert loose[PPM].surplus_ms < -NEAR_GOAL_MS
    assert loose[-PPM].surplus_ms > NEAR_GOAL_MS
