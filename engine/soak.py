"""Hours of a live run in minutes: the real sound loop between two simulated devices, as fast as the machine goes.

    input clock ─► ring ─► SoundLoop ─► ring ─► output clock, a little slower

Nothing waits for the time to pass. Hops come late by chance, as they do on a real machine, and now and then by so much
that the output breaks. What must not happen over hours: memory that grows, delay that drifts, breaks that become more.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from engine.artefacts import Models
from engine.meters import levels_of, tokens_of
from engine.pipeline import LiveStream
from engine.ports import Wake
from engine.ring import Ring
from engine.soundloop import SoundLoop
from engine.types import Background, Samples, SottovoceError

RATE_HZ = 48000
BLOCK_MS = 5.0
DRIFT_PPM = 80.0  # input against output; consumer devices differ by up to so much
LATE_MS = 4.0  # a hop's lateness: exponential, with this mean
STALL_EVERY_S, STALL_MS = 300.0, 60.0
SOUND_S = 20.0


class _Clocked:
    """A device that moves a block whenever the simulation says so; for engine.ports.Port."""

    rings, begun, idle, tells_silence, pending = True, True, False, False, 0

    def __init__(self, device: str) -> None:
        self.device, self.sample_rate_hz = device, RATE_HZ
        self.xruns, self.blocks = 0, 0
        self.latency_ms, self.alive, self.ended = BLOCK_MS, True, False

    def start(self, ring: Ring, wake: Wake) -> None: ...
    def stop(self) -> None: ...
    def pump(self) -> None: ...
    def rest(self, resting: bool) -> None: ...

    def pass_silence(self) -> tuple[int, bool]:
        return 0, True


class Soak:
    """One simulated run. `minute` goes on by a simulated minute and gives the figures at its end."""

    def __init__(self, models: Models, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._block = round(BLOCK_MS * RATE_HZ / 1000.0)
        stream = LiveStream(models, RATE_HZ, background=Background.parse("-12"))
        self.loop = SoundLoop(stream, self._block, lambda hop: None, lambda why: None)
        self._in, self._out = _Clocked("in"), _Clocked("out")
        self.loop.input, self.loop.output = self._in, self._out
        self._sound = _voice_like(SOUND_S, self._random)
        self._taken: Samples = np.zeros((self._block, 1), dtype=np.float32)
        self._now_s = self._out_s = 0.0
        self._late_until_s, self._stall_s = 0.0, STALL_EVERY_S
        self._written = 0
        self._process = psutil.Process()

    def minute(self) -> dict[str, float]:
        """Delay in ms as it is from input to output now; memory in MB. Raises SottovoceError when the models failed."""
        delays: list[float] = []
        for _ in range(round(60_000.0 / BLOCK_MS)):
            try:
                self._tick()
            except SottovoceError as error:
                raise SottovoceError(f"the sound models failed ({error}); run: sottovoce doctor") from error
            if self.loop.recent:
                delays.append(self.delay_ms)
                self._show()
        gc.collect()
        return {
            "minute": round(self._now_s / 60.0),
            "rss_mb": self._process.memory_info().rss / 1e6,
            "objects": float(len(gc.get_objects())),
            "delay_ms": float(np.median(delays)),
            "reserve_ms": self.loop.fill.goal_ms,
            "dropouts": float(self.loop.dropouts),
            "skipped_ms": 1000.0 * self.loop.skipped / RATE_HZ,
        }

    @property
    def delay_ms(self) -> float:
        """From a sample that comes in now to when it will be heard."""
        loop = self.loop
        return 1000.0 * (loop.input_ring.fill + loop.output_ring.fill + loop.stream.lag_hop_native) / RATE_HZ

    def _tick(self) -> None:
        """One block of the input, what the output took meanwhile, and hops, where they are not late."""
        loop = self.loop
        at = self._written % (len(self._sound) - self._block)
        loop.input_ring.write(self._sound[at : at + self._block])
        self._in.blocks += 1
        self._written += self._block
        self._now_s += BLOCK_MS / 1000.0
        while self._out_s * (1.0 + DRIFT_PPM * 1e-6) < self._now_s:
            loop.output_ring.read_into(self._taken)
            self._out.blocks += 1
            self._out_s += BLOCK_MS / 1000.0
        if loop.input_ring.fill >= loop.hop and self._late_until_s <= self._now_s:
            loop.work_off()
            self._late_until_s = self._now_s + self._lateness_s()

    def _lateness_s(self) -> float:
        """How much later than it might the next hop comes."""
        if self._now_s >= self._stall_s:
            self._stall_s += STALL_EVERY_S
            return (STALL_MS + BLOCK_MS) / 1000.0
        hop_s = self.loop.hop / RATE_HZ
        return hop_s - BLOCK_MS / 1000.0 + min(self._random.exponential(LATE_MS), 3.0 * LATE_MS) / 1000.0

    def _show(self) -> None:
        """What a window would ask for."""
        hops = [self.loop.recent.popleft() for _ in range(len(self.loop.recent))]
        levels_of(hops)
        tokens_of(hops, "-12")


def _voice_like(seconds: float, random: np.random.Generator) -> Samples:
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 140 * k * times_s) / k for k in range(1, 20)) * (np.sin(3 * np.pi * times_s) > 0)
    return (0.05 * buzz + 0.02 * random.standard_normal(len(times_s))).astype(np.float32)


def measure_soak(models: Models, minutes: float, progress: Callable[[float], None]) -> dict[str, Any]:
    """So many simulated minutes, at least two -> figures. drift_hops: from the first minutes' delay to the last ones'.

    So many minutes are looked at there as are between two stalls, and half of all at most: a stall asks for more
    reserve, for a while. Who stops it gets the figures of the minutes until then. One more minute goes before.
    growth: from the first to the last; per hour: the slope of a line through all minutes.
    """
    soak = Soak(models)
    soak.minute()  # what is allocated first is no growth, and the reserve is still sought
    began_s = time.perf_counter()
    rows = minutes_of(soak.minute, max(2, round(minutes)), progress)
    count = len(rows)
    wall_s = time.perf_counter() - began_s
    first, last = rows[0], rows[-1]
    hop_ms = 1000.0 * soak.loop.hop / RATE_HZ
    delays_ms = [row["delay_ms"] for row in rows]
    span = max(1, min(round(STALL_EVERY_S / 60.0), count // 2))
    delay_first_ms, delay_last_ms = (float(np.median(part)) for part in (delays_ms[:span], delays_ms[-span:]))
    return {
        "minutes": count,
        "times_real_time": 60.0 * count / wall_s,
        "rss_mb_first": first["rss_mb"],
        "rss_mb_last": last["rss_mb"],
        "growth_mb": last["rss_mb"] - first["rss_mb"],
        "growth_mb_per_hour": per_hour([60.0 * row["minute"] for row in rows], [row["rss_mb"] for row in rows]),
        "objects_growth": last["objects"] - first["objects"],
        "delay_ms_first": delay_first_ms,
        "delay_ms_last": delay_last_ms,
        "delay_ms_min": min(delays_ms),
        "delay_ms_max": max(delays_ms),
        "drift_hops": (delay_last_ms - delay_first_ms) / hop_ms,
        "clock_drift_ppm": DRIFT_PPM,
        "splices": soak.loop.fill.corrections,
        "stalls": int(60 * (count + 1) // STALL_EVERY_S),
        "dropouts": int(last["dropouts"]),
        "skipped_ms": last["skipped_ms"],
    }


def minutes_of(
    minute: Callable[[], dict[str, float]], count: int, progress: Callable[[float], None]
) -> list[dict[str, float]]:
    """Figures of so many minutes, or of as many as there were, two or more, until somebody stopped it."""
    rows = list[dict[str, float]]()
    try:
        for number in range(count):
            rows.append(minute())
            progress((number + 1) / count)
    except KeyboardInterrupt:
        if len(rows) < 2:
            raise
    return rows


def per_hour(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a straight line through two values or more."""
    return 3600.0 * float(np.polyfit(np.array(times_s) - times_s[0], values, 1)[0])
