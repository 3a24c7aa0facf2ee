"""What the rooms of the engine say to each other: settings, events and failures.

Nothing here imports another module of the project. Units are in the names; a plain count is in samples.

    SottovoceError            one line that says what to do next; exit status 1
    ├── UsageError            the request itself cannot be met; exit status 2
    ├── ArtefactError         a model file is missing, damaged or of another version
    ├── DeviceError           a sound device is missing, taken or gone
    ├── AudioFileError        a sound file cannot be read or written
    ├── TokenFileError        an .svt file cannot be read
    └── Stopped               a person asked to stop it
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Codes = NDArray[np.int16]  # [K, T] or [K]; -1 where a quantizer was left out

BACKGROUND_DB_MIN = -60.0
BACKGROUND_DB_MAX = 0.0


class SottovoceError(Exception):
    """A failure of the world around us; its text is one line that says what to do next."""


class UsageError(SottovoceError):
    """The request cannot be met as it was put (unknown scene, gain out of range)."""


class ArtefactError(SottovoceError):
    """A model file is missing, damaged, or made for another version."""


class WhisperMissing(ArtefactError):
    """Whisper's weights are not on this machine; they can be fetched."""


class DeviceError(SottovoceError):
    """A sound device is missing, taken, or gone."""


class AudioFileError(SottovoceError):
    """A sound file cannot be read or written."""


class TokenFileError(SottovoceError):
    """An .svt file cannot be read at all."""


class Stopped(SottovoceError):
    """A person asked to stop what was under way; what is there of it is kept."""


class BackgroundMode(StrEnum):
    """What becomes of the background stream."""

    KEEP = "keep"
    GAIN = "gain"
    DROP = "drop"
    SWAP = "swap"


@dataclass(frozen=True)
class Background:
    """What becomes of the background: kept, turned by `gain_db`, dropped, or swapped for `scene` at `gain_db`."""

    mode: BackgroundMode = BackgroundMode.DROP
    gain_db: float = 0.0
    scene: str | None = None

    @classmethod
    def parse(cls, text: str) -> Background:
        """Read `keep | drop | DB | swap:SCENE[@DB]`; raises UsageError. Whether there is such a scene is not asked."""
        word = text.strip()
        if word in ("keep", "drop"):
            return cls(BackgroundMode(word))
        if word.startswith("swap:"):
            scene, _, level = word.removeprefix("swap:").partition("@")
            if not scene:
                raise UsageError("swap needs a place: write --background swap:SCENE, for example swap:rain")
            return cls(BackgroundMode.SWAP, _parse_db(level) if level else 0.0, scene)
        return cls(BackgroundMode.GAIN, _parse_db(word))

    @property
    def linear_gain(self) -> float:
        """Factor on the old background in the output (0 for drop and swap)."""
        if self.mode is BackgroundMode.KEEP:
            return 1.0
        return 10.0 ** (self.gain_db / 20.0) if self.mode is BackgroundMode.GAIN else 0.0

    def __str__(self) -> str:
        if self.mode is BackgroundMode.GAIN:
            return f"{self.gain_db:g}"
        if self.mode is BackgroundMode.SWAP:
            return f"swap:{self.scene}" + (f"@{self.gain_db:g}" if self.gain_db else "")
        return self.mode.value


def _parse_db(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(
            f"background is keep, drop, a gain in dB from -60 to 0, or swap:SCENE[@DB]; not {text!r}"
        ) from None
    if not math.isfinite(value) or not BACKGROUND_DB_MIN <= value <= BACKGROUND_DB_MAX:
        raise UsageError(f"the background's gain goes from -60 to 0 dB; {text} is outside")
    return value


class Provider(StrEnum):
    """Where ONNX Runtime computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class CaptionTap(StrEnum):
    """Which signal the recogniser hears; of tokens, not their sound but they themselves, where there is a bridge."""

    RAW = "raw"
    ENHANCED = "enhanced"
    TOKENS = "tokens"


DEFAULT_WHISPER = "base"  # the size that captions use unless told; the residue's graph was trained on its frames
LEFT_FOR_RECOGNISER_DB = -10.5  # gain of the background under enhanced sound: Whisper hears better with some of it left


@dataclass(frozen=True)
class EngineConfig:
    """All that a live run needs to know. Device ids are those of `engine.devices.list_devices`; None is the default.

    level: bring the voice to a steady level. residue: tell which noise there is while captions run. also: a second
    sound to caption, never mixed with the first: a device's id, or "speakers" for what they play. whisper: the size of
    Whisper that captions use (engine.sizes); the residue is told with DEFAULT_WHISPER alone. record_title: what
    recorded tokens call themselves. adapter: captions come through the quantiser inside Whisper, with DEFAULT_WHISPER.
    """

    input: str | None = None
    output: str | None = None
    background: Background = Background()
    tokens_only: bool = False
    refiner: bool = True
    quantizers: int | None = None
    provider: Provider = Provider.AUTO
    captions: bool = False
    language: str | None = "en"
    tap: CaptionTap = CaptionTap.ENHANCED
    whisper: str = DEFAULT_WHISPER
    adapter: bool = False
    record_dir: str | None = None
    record_title: str = ""
    virtual_mic: bool = False
    also: str | None = None
    level: bool = False
    residue: bool = False
    muted: bool = False
    block_ms: float = 5.0


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels:
    """Meters, latest value wins. Peaks and RMS in dBFS over the last report; spectra in dB, one row per hop.

    time_s is on the engine's one clock: samples of input consumed at 16 kHz, over the rate.
    """

    time_s: float
    input_peak_db: float
    input_rms_db: float
    output_peak_db: float
    output_rms_db: float
    speech_rms_db: float
    background_rms_db: float
    limiter_db: float


@dataclass(frozen=True)
class Tokens:
    """Codes of one or more hops, with the sound they belong to, for pictures. Latest wins where the reader is slow.

    codes_s, codes_b: [K, T]; mixture, output: [T * hop] at 16 kHz (mixture delayed to match output). codes_b are the
    scene's while one plays, else what was heard, even where it is dropped.
    """

    time_s: float
    codes_s: Codes
    codes_b: Codes
    mixture: Samples
    output: Samples
    background: str


RESIDUE_STEP_S = 0.04


@dataclass(frozen=True)
class Residue:
    """What the recogniser's quantiser leaves over of the sound up to time_s: the kind of noise, and how sure that is.

    About one a second, none in silence. energy_db: of the residue, a value every RESIDUE_STEP_S of what was new; codes:
    the quantiser's, as many; point: among the kinds' clouds (engine.residue).
    """

    time_s: float
    noise_class: str
    confidence: float
    energy_db: tuple[float, ...]
    codes: tuple[int, ...]
    point: tuple[float, float]


@dataclass(frozen=True)
class Word:
    """One recognised word and when it was spoken."""

    text: str
    start_s: float
    end_s: float
    probability: float = 1.0


SPEECH, OTHERS = "speech", "others"  # sources of captions: the microphone, the second sound
LOUDSPEAKERS = "speakers"  # as a second sound, instead of a device's id: whatever is played on the default output


@dataclass(frozen=True)
class Caption:
    """Words that became final since the last event, and the tail that may still change. Ordered, none lost.

    source: SPEECH for the microphone, OTHERS for the second sound; each has final words and a tail of its own.

    final: never changes later. tentative: replaces the whole former tail. lag_s: newest sound to this event.
    """

    time_s: float
    final: tuple[Word, ...]
    tentative: tuple[Word, ...]
    lag_s: float
    language: str | None = None
    source: str = SPEECH


@dataclass(frozen=True)
class Stats:
    """How the engine is doing. Latest value wins."""

    time_s: float
    state: str  # "running", "idle", "bypass", "muted", "waiting" (for a device), "stopped"
    provider: str
    algorithmic_latency_ms: float
    delay_ms: float  # device block + resampling + algorithm + rings, as configured and seen now
    delay_parts_ms: tuple[tuple[str, float], ...]
    hop_ms_median: float
    hop_ms_p99: float
    hop_ms_max: float
    load: float  # compute time over audio time
    dropouts: int
    caption_lag_s: float
    given_up: tuple[str, ...] = ()  # under load: "captions", "refiner", "models"
    dropouts_why: tuple[str, ...] = ()  # a line about each of the newest ones, oldest first
    closest: str = ""  # about the hop of the last whole minute that came nearest to one


@dataclass(frozen=True)
class DeviceChange:
    """A device came, went, or was switched to."""

    time_s: float
    what: str
    device: str


@dataclass(frozen=True)
class RecordingChange:
    """A recording began, or ended. begun_s: where its first sample lies on the engine's clock.

    duration_s: what is in it now that it has ended, None while it goes on.
    """

    time_s: float
    folder: str
    begun_s: float
    duration_s: float | None = None


NO_CAPTIONS, NO_WHISPER = "no captions", "no whisper"  # as a Problem's state: what is spoken is not captioned any more


@dataclass(frozen=True)
class Problem:
    """Something failed; `state` is what the engine does now instead. `text` is one line that says what to do.

    NO_WHISPER: there are no captions because the weights that they need were never fetched.
    """

    time_s: float
    text: str
    state: str


Event = Levels | Tokens | Residue | Caption | Stats | DeviceChange | RecordingChange | Problem
