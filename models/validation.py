"""Mixtures for choosing checkpoints, drawn anew from the validation shards, always the same ones for the same shards.

Their voices and noise files are in no training shard, and none of them is in the public test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from engine.types import SottovoceError
from models.shards import RATE_HZ, Clip, Samples, load, to_float
from models.testset import Mixture, active_level_db, level_db

SEED = 7
COUNT = 60
SNRS_DB = (-5, 0, 5, 10, 15)
SECONDS = (4.0, 6.0)
PAUSE = round(0.3 * RATE_HZ)
BABBLE_EVERY = 6  # each sixth mixture has other voices in place of noise
LEVELS_DB = (-32.0, -20.0)
PEAK = 0.95


def mixtures(count: int = COUNT) -> Iterator[Mixture]:
    """`count` mixtures: SNRs and noise classes in turn, talkers in turn. Raises SottovoceError without shards."""
    talkers, noises = _by(load("validation", "speech"), "speaker"), _by(load("validation", "background"), "class_name")
    noises.pop("events", None)
    if len(talkers) < 3 or not noises:
        raise SottovoceError("there are no validation shards yet; run python -m models.data --minimal")
    random = np.random.default_rng(SEED)
    names, classes = sorted(talkers), sorted(noises)
    for number in range(count):
        who = names[number % len(names)]
        length = round(float(random.uniform(*SECONDS)) * RATE_HZ)
        speech, text = _speak(talkers[who], length, random)
        snr = SNRS_DB[number % len(SNRS_DB)]
        if number % BABBLE_EVERY == BABBLE_EVERY - 1:
            kind, snr = "babble", max(0, snr)
            others = [name for name in names if name != who]
            noise = sum((_speak(talkers[name], length, random)[0] for name in others[:3]), np.zeros(length, np.float32))
        else:
            kind = classes[number % len(classes)]
            noise = _stretch(noises[kind], length, random)
        level = float(random.uniform(*LEVELS_DB))
        yield _mix(f"{number:02d}-{kind}{snr:+03d}", speech, noise, float(snr), kind, text, level)


def _by(clips: Sequence[Clip], field: str) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[getattr(clip, field)].append(clip)
    return groups


def _speak(clips: Sequence[Clip], length: int, random: np.random.Generator) -> tuple[Samples, str]:
    """Clips of one talker, one after the other with pauses, cut at `length`; the text is empty when one was cut."""
    track = np.zeros(length, np.float32)
    texts: list[str] = []
    at = 0
    while at < length:
        clip = clips[int(random.integers(len(clips)))]
        piece = to_float(clip.samples[: length - at])
        track[at : at + len(piece)] = piece
        texts.append(clip.transcript)
        whole = len(piece) == len(clip.samples)
        at += len(clip.samples) + PAUSE
    return track, " ".join(texts) if whole and all(texts) else ""


def _stretch(clips: Sequence[Clip], length: int, random: np.random.Generator) -> Samples:
    """A stretch of one noise clip; one that is too short is repeated."""
    clip = clips[int(random.integers(len(clips)))]
    samples = to_float(clip.samples)
    start = int(random.integers(max(1, len(samples) - length + 1)))
    return np.resize(samples[start:], length) if len(samples) - start < length else samples[start : start + length]


def _mix(name: str, speech: Samples, noise: Samples, snr_db: float, kind: str, text: str, level: float) -> Mixture:
    speech = speech * np.float32(10 ** ((level - active_level_db(speech)) / 20))
    noise = noise * np.float32(10 ** ((level - snr_db - level_db(noise)) / 20))
    peak = float(np.abs(speech + noise).max())
    scale = np.float32(min(1.0, PEAK / peak))
    speech, noise = speech * scale, noise * scale
    return Mixture(name, speech + noise, speech, noise, snr_db, kind, text)
