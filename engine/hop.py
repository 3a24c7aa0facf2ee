"""The sound path, one hop at a time: encode, decode, refine, mix. Synchronous, no threads, no files.

    hop ─► encoder ─► codes ─► decoder ─► speech, background ─┐
     └──────────────────────────────────────────────► refiner ┴► speech, background ─► correction to the delayed hop

With the refiner the output is the delayed original plus a correction, (g - 1) * background (+ scene), so that a gain of
one gives back the original bit for bit. engine.pipeline does the same at any sample rate: only the correction is
resampled and added to the untouched original, and what lies above the models' band is the original's under a gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import Models, StreamModel
from engine.mix import HighGain, Ramp, RunningLevel
from engine.ring import DelayLine
from engine.scenes import ScenePlayer, load_scene
from engine.types import Background, BackgroundMode, Codes, Samples

SceneSource = Callable[[str], Codes]
DROP = Background(BackgroundMode.DROP)
CODED_BACKGROUND_DB = -3.0  # on validation, ESTOI at 0 dB: .549 as heard, .535 kept in full, .555 with this
SHARPNESS, FAVOUR = 1.5, 4.5
SETTLE_HOPS = 10  # a refiner that rested is heard again after so many


@dataclass(frozen=True)
class HopOutput:
    """One hop at the models' rate; all sounds [hop] and in line with each other, `lag` samples behind the input.

    out: as heard, before the limiter; mixture: the delayed input, bit for bit; speech, background: refined, or decoded
    where there is no refiner, decoded voice and the rest while it rests; scene: what was swapped in, at its level.
    codes_*: [K_s], [K_b] as encoded; codes_b_out: the background tokens that go on (blank when dropped, the scene's
    when swapped).
    base: the part of `out` that is the input itself (1 or 0); correction: out - base * mixture.
    high: [hop] gain of what lies above the models' band, minus base.
    """

    out: Samples
    mixture: Samples
    speech: Samples
    background: Samples
    scene: Samples
    codes_s: Codes
    codes_b: Codes
    codes_b_out: Codes
    correction: Samples
    base: float
    high: Samples


class BackgroundMixer:
    """What is added to the voice: the old background under its gain, and a scene at its level. Changes are ramped.

    coded: the old background is what its tokens say, not the real one. Coding noise masks the voice more than the real
    sound does, so it is played CODED_BACKGROUND_DB lower; a kept background then leaves the voice as clear as it was.
    """

    def __init__(
        self, models: Models, background: Background, scenes: SceneSource | None = None, coded: bool = False
    ) -> None:
        self._models, self._scenes = models, scenes
        self._trim = 10.0 ** (CODED_BACKGROUND_DB / 20.0) if coded else 1.0
        info = models.info
        self._old = RunningLevel(info.hop_samples / info.sample_rate_hz)
        self._playing: ScenePlayer | None = None
        self._leaving: ScenePlayer | None = None
        self.background = background
        self.gain = Ramp(background.linear_gain * self._trim, info.hop_samples)
        self._silence = np.zeros(info.hop_samples, dtype=np.float32)
        self.set(background, at_once=True)

    def set(self, background: Background, at_once: bool = False) -> None:
        """Change what becomes of the background, from the next hop on. Raises UsageError for an unknown scene.

        at_once: a scene may take its time to begin with its first hop; else it begins 160 ms later.
        """
        now = self.background
        same_scene = self._playing is not None and background.scene == now.scene
        if background.mode is not BackgroundMode.SWAP:
            self._leave()
        elif same_scene and self._playing is not None:
            self._playing.level.gain_db = background.gain_db
        else:
            codes = self._find(background.scene or "")
            self._leave()
            self._playing = ScenePlayer(self._models, codes, background.gain_db, at_once)
        self.background = background

    def _find(self, name: str) -> Codes:
        if self._scenes is not None:
            return self._scenes(name)
        return load_scene(name, codec_id=self._models.info.codec_id)

    def _leave(self) -> None:
        self._leaving, self._playing = self._playing or self._leaving, None

    def next(self, old: Samples, codes_b: Codes) -> tuple[Samples | np.float32, Samples, Codes]:
        """Gain on the old background, the scene's hop, and the background tokens that go on."""
        self._old.add(old)
        scene, codes_out = self._silence, self._codes_out(codes_b)
        if self._playing is not None:
            codes_out, sound = self._playing.next()
            scene = self._playing.level.apply(sound, self._old.rms)
        if self._leaving is not None:
            scene = scene + self._leaving.level.apply(self._leaving.next()[1], 0.0, fade_out=True)
            self._leaving = None
        return self.gain.next(self.background.linear_gain * self._trim), scene, codes_out

    def _codes_out(self, codes_b: Codes) -> Codes:
        if self.background.mode is BackgroundMode.DROP:
            return self._models.info.blank_b().astype(np.int16)
        return codes_b


class Pipeline:
    """One hop in, one hop out, at the models' rate; the limiter is the caller's.

    tokens_only: nothing but decoded tokens is heard. refiner=False: decoded tokens, and the original's band above
    theirs where there is one. quantizers: stages kept of each stream. scenes: name -> codes, else those in assets.
    refining: may be set at any time; while it is False the refiner rests, the decoded voice is heard in its place, and
    the lag stays as it is.
    """

    def __init__(
        self,
        models: Models,
        background: Background = DROP,
        tokens_only: bool = False,
        refiner: bool = True,
        quantizers: int | None = None,
        scenes: SceneSource | None = None,
    ) -> None:
        self.info = models.info
        self.tokens_only, self.refined = tokens_only, refiner and not tokens_only
        self._encoder, self._decoder = models.encoder.clone(), models.decoder.clone()
        self._refiner = models.refiner.clone() if self.refined else None
        self._rows = self.info.kept_rows(quantizers)
        self._mixer = BackgroundMixer(models, background, scenes, coded=not self.refined)
        self._ones = np.ones(2, dtype=np.float32)
        self._delay = DelayLine(self.lag)
        self.refining = True
        self._rested_hops = 0
        self._refined_share = Ramp(1.0, self.info.hop_samples)
        self._voice_delay = DelayLine(self.lag - self.info.lag_tokens)
        self._high, self._high_share = HighGain(self.info.hop_samples, 0.0), HighShare()

    @property
    def lag(self) -> int:
        """Samples by which the output is behind the input, beyond the hop itself."""
        return self.info.lag_refined if self.refined else self.info.lag_tokens

    @property
    def algorithmic_latency_ms(self) -> float:
        return self.info.algorithmic_latency_ms(self.refined)

    @property
    def background(self) -> Background:
        return self._mixer.background

    def set_background(self, background: Background) -> None:
        """From the next hop on; the change is ramped over that hop. Raises UsageError for an unknown scene."""
        self._mixer.set(background)

    def step(self, hop: Samples) -> HopOutput:
        """hop f32 [hop_samples] -> HopOutput. Raises ValueError for any other length."""
        if hop.shape != (self.info.hop_samples,):
            raise ValueError(f"a hop has {self.info.hop_samples} samples, not {hop.shape}")
        row = hop[None, :]
        codes = self._encoder.step(hop=row)
        codes_s, codes_b = (self._keep(codes[name]) for name in ("codes_s", "codes_b"))
        decoded = self._decoder.step(codes_s=codes_s, codes_b=codes_b, gains=self._ones)
        mixture = self._delay.process(hop)
        speech, background = decoded["speech"].reshape(-1), decoded["background"].reshape(-1)
        if self._refiner is not None:
            speech, background = self._refine(self._refiner, row, decoded, mixture)
        return self._mix(mixture, speech, background, self._high_share.next(speech, background), codes_s, codes_b)

    def _refine(
        self, refiner: StreamModel, row: Samples, decoded: dict[str, Samples], mixture: Samples
    ) -> tuple[Samples, Samples]:
        """Speech and background [hop]: the refiner's, or while it rests the decoded voice and what is left beside it.

        Between the two there is a ramp over a hop.
        """
        plain = self._voice_delay.process(decoded["speech"].reshape(-1))
        self._rested_hops = max(0, self._rested_hops - 1) if self.refining else SETTLE_HOPS
        share = self._refined_share.next(0.0 if self._rested_hops else 1.0)
        if not self.refining and np.isscalar(share):
            return plain, mixture - plain
        refined = refiner.step(mixture=row, speech=decoded["speech"], background=decoded["background"])
        speech, background = refined["refined_speech"].reshape(-1), refined["refined_background"].reshape(-1)
        if np.isscalar(share) and share == 1.0:
            return speech, background
        rest = mixture - plain
        speech = (plain + share * (speech - plain)).astype(np.float32)
        background = (rest + share * (background - rest)).astype(np.float32)
        return speech, background

    def _keep(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._rows < len(codes):
            codes = codes.copy()
            codes[self._rows :] = -1
        return codes

    def _mix(
        self,
        mixture: Samples,
        speech: Samples,
        background: Samples,
        high_gain: Samples,
        codes_s: NDArray[np.int64],
        codes_b: NDArray[np.int64],
    ) -> HopOutput:
        codes_b16 = codes_b.astype(np.int16)
        gain, scene, codes_out = self._mixer.next(background, codes_b16)
        base = 1.0 if self.refined else 0.0
        correction = (gain - np.float32(1.0)) * background if self.refined else speech + gain * background
        correction = correction + scene
        return HopOutput(
            out=mixture + correction if self.refined else correction,
            mixture=mixture,
            speech=speech,
            background=background,
            scene=scene,
            codes_s=codes_s.astype(np.int16),
            codes_b=codes_b16,
            codes_b_out=codes_out,
            correction=correction,
            base=base,
            high=self._high_curve(gain, high_gain, base),
        )

    def _high_curve(self, gain: Samples | np.float32, high_gain: Samples, base: float) -> Samples:
        """Gain above the band, minus base: g + (1 - g) * high_gain, which is exactly one where g is."""
        curve = self._high.next(high_gain)
        if self.tokens_only:
            return np.zeros_like(curve)
        one = np.float32(1.0)
        return (one - gain) * (curve - one) + np.float32(1.0 - base)


class HighShare:
    """How much of the highest sounds that the models hear is voice: the gain of what lies above them.

    The share of power, weighted towards the top of the band by a second difference, its odds sharpened and raised so
    that a voice that is hardly above its background is let through. Chosen on validation (`models.fullband`): the share
    itself took 2 dB more of the voice; the mean gain of the highest bins left 30 dB more of the hiss in pauses.
    """

    def __init__(self) -> None:
        self._past = (np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.float32))

    def next(self, speech: Samples, background: Samples) -> Samples:
        """Both [hop], in line -> [2], one for each half hop, in 0..1."""
        voice, rest = (self._powers(past, sound) for past, sound in zip(self._past, (speech, background), strict=True))
        self._past = (speech[-2:], background[-2:])
        odds = FAVOUR * (voice / (rest + 1e-12)) ** SHARPNESS
        share: Samples = (odds / (1.0 + odds)).astype(np.float32)
        return share

    @staticmethod
    def _powers(past: Samples, sound: Samples) -> Samples:
        """Power of the second difference in each half of the sound; products of vectors, for a hop is short."""
        slope = np.concatenate([past, sound])
        slope = slope[1:] - slope[:-1]
        high = slope[1:] - slope[:-1]
        half = len(sound) // 2
        first, second = high[:half], high[half:]
        return np.array([first @ first / len(first), second @ second / len(second)])
