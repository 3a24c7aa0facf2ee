"""Fresh mixtures for training, drawn anew each time: voices, backgrounds, rooms, microphones, levels.

The loudest talker is the voice; other talkers, 4 to 18 dB below, belong to the background.
A reverberant voice's target keeps the room's first 50 ms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from engine.mix import active_rms
from models.shards import Clip

Array = NDArray[Any]  # float32 where it leaves this module
RATE_HZ = 16_000
EARLY_ROOM_S = 0.05


@dataclass(frozen=True)
class MixConfig:
    """What is drawn. Probabilities of one clip; levels and ratios in dB, uniform."""

    seconds: float = 4.0
    snr_db: tuple[float, float] = (-7.0, 22.0)
    level_db: tuple[float, float] = (
        -42.0,
        -14.0,
    )  # RMS of the mixture's voice, or of the noise where there is no voice
    babble: float = 0.22
    babble_snr_db: tuple[float, float] = (4.0, 18.0)
    two_noises: float = 0.3
    synthetic_noise: float = 0.12
    clean: float = 0.05
    no_voice: float = 0.08
    room: float = 0.3
    microphone: float = 0.5
    speed: tuple[float, float] = (0.88, 1.13)


class Mixer:
    """Draws (mixture, voice) pairs from lists of clips; every talker and every class is as likely as any other."""

    def __init__(self, speech: Sequence[Clip], background: Sequence[Clip], config: MixConfig, seed: int) -> None:
        self.config = config
        self.random = np.random.default_rng(seed)
        self.length = round(config.seconds * RATE_HZ)
        self.talkers: dict[str, list[Clip]] = defaultdict(list)
        self.classes: dict[str, list[Clip]] = defaultdict(list)
        for clip in speech:
            self.talkers[clip.speaker].append(clip)
        for clip in background:
            self.classes[clip.class_name].append(clip)
        minutes = {k: sum(len(c.samples) for c in v) / RATE_HZ / 60 for k, v in self.talkers.items()}
        self.names = list(minutes)
        # a talker with much to say is heard more often, but far from in proportion
        weight = np.sqrt(np.minimum(np.array(list(minutes.values())), 60.0) + 0.05)
        self.weight = weight / weight.sum()

    def batch(self, count: int) -> tuple[Array, Array]:
        """Mixtures and voices, [count, N] each."""
        pairs = [self.draw() for _ in range(count)]
        return np.stack([m for m, _ in pairs]), np.stack([v for _, v in pairs])

    def draw(self) -> tuple[Array, Array]:
        """One mixture and the voice in it, [N] each."""
        c, random = self.config, self.random
        voice, reverberant = self._voice()
        kind = random.random()
        if kind < c.no_voice:
            voice, reverberant = np.zeros_like(voice), np.zeros_like(voice)
        noise = self._babble() if (babble := random.random() < c.babble) else self._noise()
        if c.no_voice <= kind < c.no_voice + c.clean:
            noise = noise * 1e-3
        snr = random.uniform(*(c.babble_snr_db if babble else c.snr_db))
        noise = noise * (_gain_to(noise, active_rms(reverberant), -snr) if kind >= c.no_voice else 1.0)
        mixture = reverberant + noise
        level = 10 ** (random.uniform(*c.level_db) / 20) / max(
            active_rms(voice if kind >= c.no_voice else mixture), 1e-6
        )
        level = min(level, 0.99 / max(float(np.abs(mixture).max()), 1e-6))
        return (mixture * level).astype(np.float32), (voice * level).astype(np.float32)

    def _voice(self) -> tuple[Array, Array]:
        """The voice as it should come out, and as it reaches the microphone."""
        talker = self.random.choice(len(self.names), p=self.weight)
        dry = self._utterances(self.talkers[self.names[talker]], self.length)
        if self.random.random() < self.config.microphone:
            dry = coloured(dry, self.random)
        if self.random.random() >= self.config.room:
            return dry, dry
        response = room_response(self.random)
        early = response[: round(EARLY_ROOM_S * RATE_HZ)]
        return fftconvolve(dry, early)[: self.length], fftconvolve(dry, response)[: self.length]

    def _utterances(self, clips: list[Clip], length: int) -> Array:
        """Clips of one talker in a row with pauses, at one random speed, each at its own level."""
        speed = self.random.uniform(*self.config.speed)
        out = np.zeros(length, np.float32)
        at = int(self.random.integers(0, RATE_HZ // 2))
        while at < length:
            clip = clips[self.random.integers(len(clips))].samples
            need = int((length - at) * speed) + 2
            start = int(self.random.integers(0, max(1, len(clip) - need))) if len(clip) > need else 0
            piece = np.asarray(clip[start : start + need], np.float32) / 32768.0
            piece = played(piece, speed)[: length - at]
            rms = active_rms(piece)
            if rms > 1e-4:
                out[at : at + len(piece)] = piece * (0.06 / rms * 10 ** (self.random.uniform(-2, 2) / 20))
            at += len(piece) + int(self.random.integers(RATE_HZ // 20, RATE_HZ * 6 // 10))
        return out

    def _noise(self) -> Array:
        c = self.config
        first = self._synthetic() if self.random.random() < c.synthetic_noise else self._recorded()
        if self.random.random() < c.two_noises:
            second = self._recorded()
            first = first + second * _gain_to(second, _rms(first), self.random.uniform(-12, 6))
        return coloured(first, self.random) if self.random.random() < c.microphone else first

    def _recorded(self) -> Array:
        """One class, one file of it, a stretch of it; short events are scattered over time."""
        names = list(self.classes)
        clips = self.classes[names[self.random.integers(len(names))]]
        out = np.zeros(self.length, np.float32)
        at = 0
        while at < self.length:
            clip = clips[self.random.integers(len(clips))].samples
            start = int(self.random.integers(0, max(1, len(clip) - self.length)))
            piece = np.asarray(clip[start : start + self.length - at], np.float32) / 32768.0
            piece = piece * (0.05 / max(_rms(piece), 1e-4))
            out[at : at + len(piece)] = piece
            at += max(len(piece), 1) + (int(self.random.integers(0, RATE_HZ)) if len(clip) < 2 * RATE_HZ else 0)
        return out

    def _babble(self) -> Array:
        out = np.zeros(self.length, np.float32)
        for _ in range(int(self.random.integers(1, 9))):
            talker = self.names[self.random.choice(len(self.names), p=self.weight)]
            out += self._utterances(self.talkers[talker], self.length) * self.random.uniform(0.4, 1.0)
        if self.random.random() < 0.5:
            out = fftconvolve(out, room_response(self.random))[: self.length].astype(np.float32)
        return out

    def _synthetic(self) -> Array:
        """Coloured noise, or mains hum with harmonics over it."""
        slope = self.random.uniform(0.0, 2.2)
        spectrum = np.fft.rfft(self.random.standard_normal(self.length))
        frequency = np.maximum(np.fft.rfftfreq(self.length, 1 / RATE_HZ), 40.0)
        out = np.fft.irfft(spectrum * frequency ** (-slope / 2), self.length)
        out = out / _rms(out) * 0.05
        if self.random.random() < 0.5:
            time = np.arange(self.length) / RATE_HZ
            base = self.random.choice([50.0, 60.0, self.random.uniform(30, 400)])
            for harmonic in range(1, int(self.random.integers(3, 16))):
                level = self.random.uniform(0, 0.06) / harmonic ** self.random.uniform(0.3, 1.2)
                out = out + level * np.sin(2 * np.pi * base * harmonic * time + self.random.uniform(0, 6.28))
        return out.astype(np.float32)


def coloured(x: Array, random: np.random.Generator) -> Array:
    """A microphone: smooth random equaliser within +-8 dB and, at times, a lower band limit."""
    spectrum = np.fft.rfft(x)
    grid = np.linspace(0, 1, 9)
    curve = np.interp(np.sqrt(np.linspace(0, 1, len(spectrum))), grid, random.uniform(-8, 8, 9))
    if random.random() < 0.12:
        limit = random.uniform(3_400, 7_500) / (RATE_HZ / 2)
        curve = curve - 60 * (np.linspace(0, 1, len(spectrum)) > limit)
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(x)).astype(np.float32)


def room_response(random: np.random.Generator) -> Array:
    """Impulse response: direct sound, a few early echoes, a decaying tail that loses its treble."""
    decay_s = random.uniform(0.15, 0.8)
    length = round(decay_s * RATE_HZ)
    time = np.arange(length) / RATE_HZ
    tail = random.standard_normal(length) * 10 ** (-3 * time / decay_s)
    tail = lfilter([1 - (pole := random.uniform(0.1, 0.7))], [1, -pole], tail)
    tail[: round(0.004 * RATE_HZ)] = 0
    for _ in range(int(random.integers(3, 9))):
        tail[int(random.integers(16, 640))] += random.uniform(-1, 1) * 2
    direct_db = random.uniform(0, 14)  # direct to reverberant
    response = tail * (10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2)))
    response[0] = 1.0
    return response.astype(np.float32)


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x)))) if len(x) else 0.0


def _gain_to(x: Array, reference: float, db: float) -> float:
    """Factor that brings `x` to `db` relative to `reference`."""
    return reference * 10 ** (db / 20) / max(_rms(x), 1e-6)


def played(x: Array, speed: float) -> Array:
    """Play faster or slower by linear interpolation: pitch and tempo together, a new talker for the networks."""
    if len(x) < 2:
        return x
    at = np.arange(0, len(x) - 1, speed)
    return np.interp(at, np.arange(len(x)), x).astype(np.float32)
