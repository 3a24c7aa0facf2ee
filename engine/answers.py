"""What the recogniser is asked about a segment, and what of its answer is believed.

Knows neither torch nor Whisper: whoever writes words down from sound is asked through a small protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Protocol

import numpy as np

from engine.captions import (
    MAX_COMPRESSION,
    Heard,
    compression_ratio,
    join_words,
    normalised,
    sounds_invented,
    token_cap,
    without_echo,
    without_loops,
    without_second_round,
    without_squeezed,
)
from engine.segment import POST_ROLL_S, VOICE_OFF, Context, Segment, Sound
from engine.types import Samples
from engine.vad import SAMPLE_RATE_HZ, WINDOW

SILENCE_DB = -60.0  # a segment quieter than this is not asked about
LATE_S = 0.5  # a word that begins this long after the last voice was not spoken
SURE_LANGUAGE, SURE_AFTER_S = 0.6, 2.0
PASSED_OVER_S = 2.0  # voiced without a word: the recogniser left something out
LEFT_OUT_S = 1.0  # the same, where it heard what came before, too: then it likes to leave out how a segment begins
AGAIN_S = 0.5  # so far behind a word's end, by its time, the same word is its end


@dataclass(frozen=True)
class Hypothesis:
    """The recogniser's answer: words after the prefix, times in seconds from the first sample it was given."""

    words: tuple[Heard, ...]
    language: str
    language_probability: float = 1.0
    no_speech: float = 0.0
    logprob: float = 0.0


class Decoder(Protocol):
    """A recogniser of one piece of sound. `prefix` are tokens that it must begin with."""

    def transcribe(
        self, samples: Samples, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis: ...


class Answers:
    """Words about segments of a sound, nonsense taken out, each heard with what was said up to context_s before it.

    language: None until one is sure; asked_from: told where the sound begins that the decoder is asked about next.
    """

    def __init__(
        self,
        decoder: Decoder,
        sound: Sound,
        language: str | None,
        context_s: float,
        asked_from: Callable[[int], object] = lambda place: None,
    ) -> None:
        self._decoder, self._sound, self._asked_from = decoder, sound, asked_from
        self._context_s = context_s
        self.language = language
        self.context = Context(context_s)

    def about(self, segment: Segment, end: int) -> list[Heard]:
        """The recogniser's words after those that are final, on the one clock, nonsense taken out.

        Heard with what was said before, which tells what is likely; but by itself where something is left out so, where
        that is only said again, or where the first words may be made up: only then does Whisper tell whether somebody
        speaks.
        """
        end = min(end, self._sound.end)
        sound = self._sound.between(segment.start, end)
        power = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
        if power < 10.0 ** (SILENCE_DB / 10.0):
            return []
        if segment.alone or self.language is None:  # else a guess would be made of what was said before, too
            return self._heard(segment, segment.start, end, [])
        start, before = self.context.of(segment.start, self._sound.start)
        words = self._heard(segment, start, end, before)
        if not before:
            return words
        new = without_echo([*before, *segment.held], words)
        told = bool(new or segment.held) and segment.passed_over(new, end, LEFT_OUT_S) is None
        if told and len(new) == len(words):
            return words
        alone = self._heard(segment, segment.start, end, [])
        if len(alone) <= len(new):
            return new
        segment.alone = True
        return alone

    def _heard(self, segment: Segment, start: int, end: int, before: Sequence[Heard]) -> list[Heard]:
        """An answer about the sound from start to end, in which these words come before the segment's own."""
        prefix = [token for word in [*before, *segment.held] for token in word.tokens]
        cap = token_cap(_seconds(end - start), segment.language)
        self._asked_from(start)
        sound = self._sound.between(start, end)
        answer = self._decoder.transcribe(sound, prefix, segment.language, cap - len(prefix))
        self._learn_language(segment, answer)
        return self._believed(segment, answer, start, end)

    def _learn_language(self, segment: Segment, answer: Hypothesis) -> None:
        segment.guessed = answer.language
        told = segment.language is not None  # then the decoder is as sure of it as we were
        sure = not told and answer.language_probability >= SURE_LANGUAGE
        if self.language is None and sure and _seconds(segment.voiced) >= SURE_AFTER_S:
            self.language = answer.language
            self.context = Context(self._context_s)  # what was said before was written down by a guess
        if segment.language is None and (self.language or segment.any_final):
            segment.language = answer.language

    def _believed(self, segment: Segment, answer: Hypothesis, start: int, end: int) -> list[Heard]:
        base_s, first_s = _seconds(start), _seconds(segment.start)
        voiced_s = _seconds(segment.voiced_to)
        earliest_s = _seconds(segment.voiced_from) - POST_ROLL_S / 2  # attention puts the first word too early
        words = []
        for word in answer.words:
            end_s = base_s + word.end_s
            if start < segment.start and end_s < first_s - POST_ROLL_S:  # the end of what was said before
                continue
            start_s = min(max(base_s + word.start_s, earliest_s), end_s)
            words.append(replace(word, start_s=start_s, end_s=min(end_s, _seconds(end))))
        words = without_second_round([*segment.held, *words])[len(segment.held) :]
        words = list(takewhile(lambda word: word.start_s <= voiced_s + LATE_S, words))
        words = without_loops([*segment.held, *without_squeezed(words)])[len(segment.held) :]
        words = without_echo(segment.held, words)
        if not segment.any_final:
            no_speech = answer.no_speech if start == segment.start else 1.0  # else it is not about the segment
            if sounds_invented(words, no_speech, answer.logprob, _seconds(segment.voiced)):
                return []
        elif compression_ratio(join_words([*segment.held, *words])) > MAX_COMPRESSION:
            return []
        return words

    def filled(self, segment: Segment, words: list[Heard], end: int) -> list[Heard]:
        """The words with those that the recogniser passed over, where somebody spoke and it wrote nothing.

        It likes to end after a sentence though another follows, and to leave out what was said before. Asked from there
        on, it is believed when it says more, and not just the last words again.
        """
        if not words and not segment.held:  # no word at all: then there is nothing that was passed over
            return words
        found = segment.passed_over(words, end, PASSED_OVER_S)
        if found is None or (found[0] and found[1] <= segment.start):
            return words
        count, place = found
        rest = replace(segment, start=place, voiced_from=place, held=[], tail=(), any_final=False, alone=True)
        rest.voiced = sum(chance >= VOICE_OFF for chance in rest.chances_in(place, end)) * WINDOW
        again = self._not_twice([*segment.held, *words[:count]], self.about(rest, end), _seconds(place))
        if len(again) <= len(words) - count:
            return words
        return [*words[:count], *self.filled(rest, again, end)]

    @staticmethod
    def _not_twice(before: Sequence[Heard], again: list[Heard], place_s: float) -> list[Heard]:
        """What was asked again from place_s on, without words that it begins with and that were there before.

        All of them when it says nothing else; else the last word alone is heard again, by its end, and some before it.
        """
        said, heard = ([normalised(word.text) for word in words] for words in (before, again))
        if said[-len(heard) :] == heard:
            return []
        for count in range(min(len(said), len(heard)), 0, -1):
            if said[-count:] == heard[:count] and again[count - 1].start_s <= place_s + AGAIN_S:
                return again[count:]
        return again


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ
