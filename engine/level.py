"""How loud the voice is: a warning when a microphone clips or is too quiet, and a gentle level control on request."""

from __future__ import annotations

import numpy as np

from engine.hop import HopOutput
from engine.mix import Ramp, db
from engine.types import Samples

SILENCE_PEAK = 1e-4  # -80 dBFS: three steps of 16 bits, which a microphone that is switched off stays below
LOUDEST = 32.0  # 30 dB above full scale; no device gives more in earnest
VOICE_DBFS = -70.0  # RMS of a hop of the voice, below which nobody speaks
VOICE_OVER_BACKGROUND_DB = 3.0
CLIP_PEAK = 0.999
QUIET_DBFS = -48.0  # RMS while somebody speaks; a microphone that is set right is 15 to 30 dB louder
TARGET_DBFS = -24.0
RANGE_DB = 12.0
SPEED_DB_PER_S = 3.0
DEAD_ZONE_DB = 2.0
SMOOTHING_S = 1.5


def voice_db(hop: HopOutput) -> float | None:
    """Level of the voice in a hop in dBFS, None while nobody speaks."""
    speech, background = (float(np.dot(x, x)) / len(x) for x in (hop.speech, hop.background))
    level_db = db(np.sqrt(speech))
    spoken = level_db > VOICE_DBFS and speech > background * 10.0 ** (VOICE_OVER_BACKGROUND_DB / 10.0)
    return level_db if spoken else None


class InputWatch:
    """Hears every hop and says in one line what is wrong with the microphone's level; each fault once a run.

    hop_s: length of a hop.
    """

    CLIPPED_HOPS, CLIPS_WITHIN_S, SPOKEN_S = 5, 10.0, 10.0

    def __init__(self, hop_s: float) -> None:
        self._hop_s = hop_s
        self._clipped = 0.0  # hops that clipped, forgotten slowly
        self._spoken_hops, self._spoken_db = 0, 0.0
        self._told: set[str] = set()

    def add(self, input_peak: float, hop: HopOutput | None) -> None:
        """One hop: the peak of what came in, and what the models made of it."""
        self._clipped = self._clipped * (1.0 - self._hop_s / self.CLIPS_WITHIN_S) + (input_peak >= CLIP_PEAK)
        level_db = voice_db(hop) if hop is not None else None
        if level_db is not None:
            self._spoken_hops += 1
            self._spoken_db += (level_db - self._spoken_db) / min(self._spoken_hops, self.SPOKEN_S / self._hop_s)

    def warning(self) -> str | None:
        """What should be told now."""
        if self._clipped >= self.CLIPPED_HOPS and "clips" not in self._told:
            self._told.add("clips")
            return "the microphone is too loud and clips; turn its level down in the system's sound settings"
        enough = self._spoken_hops * self._hop_s >= self.SPOKEN_S
        if enough and self._spoken_db < QUIET_DBFS and "quiet" not in self._told:
            self._told.add("quiet")
            level = f"{self._spoken_db:.0f} dB"
            return f"your voice is very quiet ({level}); turn the microphone's level up, or come nearer"
        return None


class LevelControl:
    """Brings the voice to TARGET_DBFS, by RANGE_DB at most and slowly; what lies under the voice moves with it.

    In pauses the gain stays where it is, so that no noise is pulled up. `wanted` switches it; off, it goes back to
    one, and sound then passes bit for bit. gain: of the last hop, [hop] while it moves, one number while it rests.
    """

    def __init__(self, hop: int, hop_s: float) -> None:
        self._ramp, self._hop_s = Ramp(1.0, hop), hop_s
        self._voice_db: float | None = None
        self.gain: Samples | np.float32 = np.float32(1.0)
        self.gain_db = 0.0
        self.wanted = False

    def process(self, y: Samples, hop: HopOutput) -> Samples:
        """y [hop] at the caller's rate, made of `hop` -> [hop]."""
        self.next(hop)
        return self.apply(y)

    def next(self, hop: HopOutput | None) -> None:
        """Go on by a hop; None where the models were not asked: then nobody is known to speak."""
        level_db = voice_db(hop) if self.wanted and hop is not None else None
        if level_db is not None:
            before = self._voice_db if self._voice_db is not None else level_db
            self._voice_db = before + self._hop_s / SMOOTHING_S * (level_db - before)
        goal_db = self._goal_db(level_db is not None)
        step_db = SPEED_DB_PER_S * self._hop_s
        self.gain_db += float(np.clip(goal_db - self.gain_db, -step_db, step_db))
        self.gain = self._ramp.next(10.0 ** (self.gain_db / 20.0) if self.gain_db else 1.0)

    def apply(self, x: Samples) -> Samples:
        """Another sound of the last hop [hop] at the same gain; x itself where that is one."""
        return x if self.is_one else (x * self.gain).astype(np.float32)

    @property
    def is_one(self) -> bool:
        """Whether the last hop passed bit for bit."""
        return not isinstance(self.gain, np.ndarray) and self.gain == 1.0

    def _goal_db(self, spoken: bool) -> float:
        if not self.wanted:
            return 0.0
        if not spoken or self._voice_db is None:
            return self.gain_db
        goal_db = float(np.clip(TARGET_DBFS - self._voice_db, -RANGE_DB, RANGE_DB))
        return goal_db if abs(goal_db - self.gain_db) > DEAD_ZONE_DB else self.gain_db
