"""Stand-ins for the listener: a sound in which each word is 0.4 s of its own level, and who reads the levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from engine.answers import Hypothesis
from engine.captions import Heard
from engine.listener import Listener, Pace, Update
from engine.vad import SAMPLE_RATE_HZ, WINDOW

WORD_S, STEP = 0.4, 0.001


def spoken(before_s: Sequence[float]) -> tuple[np.ndarray, list[float]]:
    """A sound with one word after each pause: word k is 0.4 s at level (k + 1) / 1000. And when each begins."""
    parts, starts, at = [], [], 0
    for index, pause_s in enumerate(before_s):
        pause, word = int(pause_s * SAMPLE_RATE_HZ), int(WORD_S * SAMPLE_RATE_HZ)
        parts += [np.zeros(pause), np.full(word, STEP * (index + 2))]
        starts.append((at + pause) / SAMPLE_RATE_HZ)
        at += pause + word
    return np.concatenate(parts).astype(np.float32), starts


class LevelDetector:
    """Hears a voice wherever there is any sound."""

    def __call__(self, window: np.ndarray) -> float:
        assert len(window) == WINDOW
        return 0.9 if np.abs(window).mean() > STEP / 4 else 0.0

    def reset(self) -> None:
        pass


class LevelReader:
    """Reads words off the levels; a word that is not all there is misheard. Checks what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        self.asked += 1
        assert len(samples) <= 29 * SAMPLE_RATE_HZ
        levels = np.round(samples / STEP).astype(int)
        edges = np.flatnonzero(np.diff(levels, prepend=0, append=0))
        words = []
        for start, end in itertools.pairwise(edges):
            if levels[start] and end - start > 0.1 * SAMPLE_RATE_HZ:
                whole = end - start > 0.35 * SAMPLE_RATE_HZ
                text = f"w{levels[start] - 2}" if whole else f"misheard{end - start}"
                words.append(Heard(text, start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, 0.9, (int(levels[start]) - 2,)))
        told = [token for word in words for token in word.tokens]
        assert told[: len(prefix)] == list(prefix), "the forced prefix is not what is said in the sound"
        return Hypothesis(tuple(words[len(prefix) :]), "en")


def listen(
    sound: np.ndarray, pace: Pace, sizes: Sequence[int], start: int = 0, reader: LevelReader | None = None
) -> tuple[list[Update], LevelReader]:
    """All updates for a sound fed in pieces of these sizes, over and over."""
    reader = reader or LevelReader()
    listener = Listener(reader, LevelDetector(), "en", pace, start)
    updates: list[Update] = []
    at = turn = 0
    while at < len(sound):
        listener.feed(sound[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
        while (update := listener.advance()) is not None:
            updates.append(update)
    listener.finish()
    while (update := listener.advance()) is not None:
        updates.append(update)
    return updates, reader
