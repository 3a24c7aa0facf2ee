"""Gains that move without a click, the level of a scene, and the limiter. All per hop, all at the caller's rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.types import Samples

LIMIT_DBFS = -1.0
ACTIVE_FRAME = 320
ACTIVE_DB = 35.0
RELEASE_DB_PER_S = 80.0
LEVEL_WINDOW_S = 3.0
SCENE_GAIN_MAX = 1000.0  # +60 dB: a nearly silent moment of a scene must not be blown up without end
HIGH_RAMP_PART = 4  # the gain above 8 kHz moves within a quarter of a hop


def db(x: float) -> float:
    """A linear amplitude in dB, -120 for silence."""
    return 20.0 * float(np.log10(max(x, 1e-6)))


def active_rms(x: NDArray[np.floating]) -> float:
    """RMS of sound [N] at 16 kHz over its 20 ms within ACTIVE_DB of the loudest: the level of speech while it lasts."""
    power = frame_powers(x)
    return active_level(power if len(power) else np.array([np.mean(np.square(x)) if len(x) else 0.0]))


def frame_powers(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean power of each whole 20 ms of sound [N] at 16 kHz."""
    frames = x[: len(x) // ACTIVE_FRAME * ACTIVE_FRAME].reshape(-1, ACTIVE_FRAME)
    return np.mean(np.square(frames), axis=1) if len(frames) else np.zeros(0, dtype=np.float32)


def active_level(power: NDArray[np.floating]) -> float:
    """`active_rms` of sound of which these are the `frame_powers`, at least one."""
    active = is_active(power)
    return float(np.sqrt(power[active].mean())) if active.any() else 0.0


def is_active(power: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of these `frame_powers`, at least one, are within ACTIVE_DB of the loudest."""
    active: NDArray[np.bool_] = power > power.max() * 10 ** (-ACTIVE_DB / 10)
    return active


class Ramp:
    """A gain that goes to its target in a straight line over one hop; a constant target gives that very number."""

    def __init__(self, value: float, hop: int) -> None:
        self._value = value
        self._steps = np.arange(1, hop + 1, dtype=np.float32) / np.float32(hop)

    @property
    def value(self) -> float:
        """Where the gain stands at the end of the last hop."""
        return self._value

    def next(self, target: float) -> Samples | np.float32:
        """The next hop's gain: [hop] while it moves, one number while it rests."""
        start, self._value = self._value, target
        if start == target:
            return np.float32(target)
        return np.float32(start) + np.float32(target - start) * self._steps


class HighGain:
    """The two gains per hop of the sound above the model's band, as one smooth curve [hop]."""

    def __init__(self, hop: int, start: float = 1.0) -> None:
        self._value = np.float32(start)
        self._half = hop // 2
        ramp = max(1, hop // HIGH_RAMP_PART)
        self._shape = np.minimum(np.arange(1, self._half + 1, dtype=np.float32) / np.float32(ramp), np.float32(1.0))

    def next(self, gains: Samples) -> Samples:
        """gains [2], one per half hop -> [hop], moving at the start of each half."""
        halves = []
        for target in gains.astype(np.float32):
            halves.append(self._value + (target - self._value) * self._shape)
            self._value = target
        return np.concatenate(halves)


class RunningLevel:
    """Power over the last `window_s`, from whole hops; over what there is at the beginning."""

    def __init__(self, hop_s: float, window_s: float = LEVEL_WINDOW_S) -> None:
        self._powers = np.zeros(max(1, round(window_s / hop_s)), dtype=np.float64)
        self._count = 0

    def add(self, x: Samples) -> None:
        self._powers[self._count % len(self._powers)] = float(np.mean(np.square(x, dtype=np.float64)))
        self._count += 1

    @property
    def rms(self) -> float:
        """0.0 before the first hop."""
        seen = min(self._count, len(self._powers))
        return float(np.sqrt(self._powers[:seen].mean())) if seen else 0.0


class SceneLevel:
    """Gives a scene the level of the old background over the last 3 s, plus `gain_db`, without a jump."""

    def __init__(self, hop: int, hop_s: float, gain_db: float, window_s: float = LEVEL_WINDOW_S) -> None:
        self.gain_db = gain_db
        self._scene = RunningLevel(hop_s, window_s)
        self._ramp = Ramp(0.0, hop)

    def hear(self, scene: Samples) -> None:
        """Learn the scene's own level from a hop of it, played or not."""
        self._scene.add(scene)

    def apply(self, scene: Samples, old_rms: float, fade_out: bool = False) -> Samples:
        """One hop [hop] of the scene at the level it should have now; `fade_out` takes it to silence over this hop."""
        own = self._scene.rms
        wanted = old_rms * 10.0 ** (self.gain_db / 20.0) / own if own > 0.0 and not fade_out else 0.0
        scaled: Samples = scene * self._ramp.next(min(wanted, SCENE_GAIN_MAX))
        return scaled


class Limiter:
    """Holds peaks at -1 dBFS: down at once, up again at 80 dB/s. What needs no limiting passes bit for bit."""

    def __init__(self, sample_rate_hz: int, limit_dbfs: float = LIMIT_DBFS) -> None:
        self._limit = np.float32(10.0 ** (limit_dbfs / 20.0))
        self._rise_db = RELEASE_DB_PER_S / sample_rate_hz
        self.gain_db = 0.0

    def process(self, x: Samples) -> Samples:
        """x [N] -> [N] with no sample beyond the limit."""
        if len(x) == 0 or (self.gain_db == 0.0 and float(np.abs(x).max()) <= self._limit):
            return x
        wanted = np.minimum(0.0, 20.0 * np.log10(self._limit / np.maximum(np.abs(x), 1e-9).astype(np.float64)))
        # the gain is the lowest of all earlier wishes, each risen since then: a running minimum on a slope
        rise = self._rise_db * np.arange(1, len(x) + 1)
        lowest = np.minimum(np.minimum.accumulate(wanted - rise), self.gain_db)
        gain_db = np.minimum(lowest + rise, 0.0)
        self.gain_db = float(gain_db[-1])
        limited = (x * 10.0 ** (gain_db / 20.0)).astype(np.float32)
        clipped: Samples = np.clip(limited, -self._limit, self._limit)  # rounding may have gone one step beyond
        return clipped
