"""The newest sound, what of it is being spoken, with what is known of its words, and what was said before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.captions import Heard
from engine.types import Samples
from engine.vad import SAMPLE_RATE_HZ, WINDOW

VOICE_ON, VOICE_OFF = 0.5, 0.35  # probabilities at which the voice begins and is still there
POST_ROLL_S = 0.3  # kept after the voice ended
LONGEST_WORD_S = 1.0  # what is longer has a stretch without a word in it
CONTEXT_PAUSE_S = 3.0  # what was said before a longer pause says nothing of what comes
CONTEXT_PRE_ROLL_S = 0.2


class Sound:
    """The newest samples at 16 kHz, by their position: from `start`, where older ones are forgotten, to `end`."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._samples = np.zeros(0, dtype=np.float32)

    @property
    def end(self) -> int:
        return self.start + len(self._samples)

    def add(self, samples: Samples) -> None:
        """The next ones [N]."""
        self._samples = np.concatenate([self._samples, samples])

    def between(self, start: int, end: int) -> Samples:
        """Those from one position to another, neither before `start`; fewer where `end` is beyond the last."""
        assert self.start <= start, "this sound was forgotten"
        return self._samples[start - self.start : end - self.start]

    def forget(self, before: int) -> None:
        """Nothing before this position will be asked for."""
        if before > self.start:
            self._samples = self._samples[before - self.start :]
            self.start = before


@dataclass
class Segment:
    """Sound being spoken now: from `start`, voiced up to `voiced_to`, last asked about at `asked_to`."""

    start: int
    voiced_to: int
    asked_to: int
    voiced: int = 0
    voiced_from: int = 0
    chances: list[float] = field(default_factory=list)  # one per window since the first, for the quietest place
    first_window: int = 0
    held: list[Heard] = field(default_factory=list)  # final words whose sound is still in the segment
    tail: tuple[Heard, ...] = ()  # tentative words after those
    read: tuple[Heard, ...] = ()  # likewise, of the newest answer that had any
    language: str | None = None
    guessed: str | None = None  # in which language the last answer about all of it was, sure or not
    any_final: bool = False
    alone: bool = False  # to be heard without what was said before

    @property
    def held_to(self) -> int:
        """Where the last final word ends; the start where there is none, or it ends before that."""
        return max(self.start, int(self.held[-1].end_s * SAMPLE_RATE_HZ)) if self.held else self.start

    def chances_in(self, start: int, end: int) -> list[float]:
        """Those of the windows between two places."""
        first, last = ((place - self.first_window) // WINDOW for place in (start, end))
        return self.chances[max(first, 0) : max(last, 0)]

    def passed_over(self, words: Sequence[Heard], end: int, longest_s: float) -> tuple[int, int] | None:
        """How many words come before the first stretch voiced for longest_s that has none, and where it begins.

        words: those after the held ones, up to `end`.
        """
        # where nothing is held, from the voice on; but what was trimmed has its words
        at = self.held_to if self.held else max(self.voiced_from, self.start)
        for count, word in enumerate([*words, None]):
            until = end if word is None else int(max(word.start_s, word.end_s - LONGEST_WORD_S) * SAMPLE_RATE_HZ)
            voiced = sum(chance >= VOICE_ON for chance in self.chances_in(at, until))
            if voiced * WINDOW / SAMPLE_RATE_HZ >= longest_s:
                return count, at
            if word is not None:
                at = int(min(word.end_s, word.start_s + LONGEST_WORD_S) * SAMPLE_RATE_HZ)
        return None


class Context:
    """The words that were said last, up to longest_s before what is heard with them; none where that is 0."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._words: list[Heard] = []

    def add(self, words: Sequence[Heard]) -> None:
        """Words that were said since, in order."""
        together = [*self._words, *words]
        newest_s = together[-1].end_s if together else 0.0
        self._words = [word for word in together if word.end_s >= newest_s - self._longest_s]

    def of(self, start: int, kept_from: int) -> tuple[int, list[Heard]]:
        """Where the sound begins that is heard with a segment that begins at `start`, and the words in it before that.

        kept_from: there is no sound before this. No longer pause than CONTEXT_PAUSE_S lies between the words.
        """
        if not self._longest_s:
            return start, []
        next_s, first = start / SAMPLE_RATE_HZ, len(self._words)
        earliest_s = max(next_s - self._longest_s, kept_from / SAMPLE_RATE_HZ)
        for place in range(len(self._words) - 1, -1, -1):
            word = self._words[place]
            if word.start_s < earliest_s or next_s - word.end_s > CONTEXT_PAUSE_S:
                break
            first, next_s = place, word.start_s
        words = self._words[first:]
        if not words:
            return start, words
        begin_s = max(words[0].start_s - CONTEXT_PRE_ROLL_S, earliest_s)
        if first:
            begin_s = max(begin_s, min(self._words[first - 1].end_s, words[0].start_s))
        return min(max(int(begin_s * SAMPLE_RATE_HZ), kept_from), start), words
