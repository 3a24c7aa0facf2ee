"""What was said before a segment is heard with it: which words, which sound, and what is then believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.answers import Hypothesis
from engine.captions import Heard
from engine.listener import LIVE, POST_ROLL_S, PRE_ROLL_S, Listener
from engine.segment import CONTEXT_PAUSE_S, CONTEXT_PRE_ROLL_S, Context, Segment
from engine.vad import SAMPLE_RATE_HZ
from tests.fake_words import WORD_S, LevelDetector, LevelReader, listen, spoken


class Noting(LevelReader):
    """Keeps what it was asked: seconds of sound, and the prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = list[tuple[float, list[int]]]()

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        self.notes.append((len(samples) / SAMPLE_RATE_HZ, list(prefix)))
        return super().transcribe(samples, prefix, language, most_tokens)


def test_what_was_said_before_is_heard_with_the_words_after_it_and_told_once() -> None:
    sound, starts = spoken([0.5, 1.0, 1.0, CONTEXT_PAUSE_S + 1.0, 1.0])
    updates, reader = listen(sound, replace(LIVE, step_s=None), [1600], reader=(noting := Noting()))
    assert [word.text for update in updates for word in update.final] == [f"w{number}" for number in range(5)]
    assert [prefix for _, prefix in noting.notes] == [[], [0], [0, 1], [], [3]]
    ends_s = [start_s + WORD_S for start_s in starts]
    assert noting.notes[2][0] == pytest.approx(ends_s[2] - starts[0] + CONTEXT_PRE_ROLL_S + POST_ROLL_S, abs=0.05)
    assert reader.asked == 5


def test_no_more_than_the_last_words_is_heard_again() -> None:
    sound, _ = spoken([1.0] * 30)
    _, noting = listen(sound, replace(LIVE, step_s=None), [1600], reader=Noting())
    assert isinstance(noting, Noting)
    spoken_s = WORD_S + PRE_ROLL_S + POST_ROLL_S
    assert max(seconds for seconds, _ in noting.notes) <= LIVE.context_s + spoken_s + 0.1
    assert len(noting.notes[-1][1]) == int((LIVE.context_s - CONTEXT_PRE_ROLL_S) / (1.0 + WORD_S))
    _, without = listen(sound, replace(LIVE, step_s=None, context_s=0.0), [1600], reader=Noting())
    assert isinstance(without, Noting)
    assert all(prefix == [] for _, prefix in without.notes)


def test_what_is_kept_to_be_heard_again_is_not_asked_for_by_who_comes_after() -> None:
    assert LIVE.step_s is not None
    sound, starts = spoken([0.5, 1.0, 1.0])
    updates, _ = listen(sound, LIVE, [1600])
    assert len(starts) == sum(len(update.final) for update in updates)
    late = round((PRE_ROLL_S + LIVE.step_s) * SAMPLE_RATE_HZ)
    assert all(update.final_to > update.heard_to - late for update in updates if update.final)


class Skipping(LevelReader):
    """With words before them, it leaves out the first four of the segment's."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        return replace(answer, words=answer.words[4:]) if prefix else answer


def test_what_is_left_out_for_what_was_said_before_is_heard_by_itself() -> None:
    sound, starts = spoken([0.5, 1.0, *[0.05] * 7])
    updates, reader = listen(sound, replace(LIVE, step_s=None), [1600], reader=Skipping())
    final = [word for update in updates for word in update.final]
    assert [word.text for word in final] == [f"w{number}" for number in range(9)]
    assert all(abs(word.start_s - start_s) < 0.05 for word, start_s in zip(final, starts, strict=True))
    assert reader.asked == 3


class Inventing(LevelReader):
    """Hears thanks in whatever is said last, and knows by itself that nobody speaks there."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        thanks = tuple(replace(word, text="Thank you.") if word.text == "w2" else word for word in answer.words)
        return replace(answer, words=thanks, no_speech=0.0 if prefix else 0.9, logprob=-0.5)


def test_words_that_may_be_made_up_are_believed_only_when_they_are_heard_by_themselves() -> None:
    sound, _ = spoken([0.5, 1.0, 1.0])
    updates, reader = listen(sound, replace(LIVE, step_s=None), [1600], reader=Inventing())
    assert [word.text for update in updates for word in update.final] == ["w0", "w1"]
    assert reader.asked == 4


class Repeating(LevelReader):
    """Says the words that it is made to begin with once more before what is said."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        if not (prefix and answer.words):
            return answer
        at_s, step_s = answer.words[0].start_s, 0.08
        echo = [Heard(f"w{t}", at_s + n * step_s, at_s + (n + 1) * step_s, 0.9, (t,)) for n, t in enumerate(prefix)]
        over_s = echo[-1].end_s
        words = [replace(w, start_s=max(w.start_s, over_s), end_s=max(w.end_s, over_s + 0.1)) for w in answer.words]
        return replace(answer, words=(*echo, *words))


def test_what_was_said_before_is_not_told_again() -> None:
    sound, _ = spoken([0.5, 0.1, 0.1, 1.0, 0.1, 0.1])
    updates, _ = listen(sound, replace(LIVE, step_s=None), [1600], reader=Repeating())
    assert [word.text for update in updates for word in update.final] == [f"w{number}" for number in range(6)]


class Guessing(Noting):
    """Is sure of the language from four seconds on, and guesses another before."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        long = len(samples) >= 4 * SAMPLE_RATE_HZ
        return replace(answer, language=language or ("en" if long else "cy"), language_probability=0.9 if long else 0.3)


def test_words_of_a_guessed_language_are_not_forced_on_what_comes_after() -> None:
    sound, _ = spoken([0.5, 1.0, 1.0, *[0.05] * 9, 1.0, 1.0])
    listener = Listener(reader := Guessing(), LevelDetector(), None, replace(LIVE, step_s=None))
    listener.feed(sound)
    listener.finish()
    while listener.advance() is not None:
        pass
    assert listener.language == "en"
    assert [prefix for _, prefix in reader.notes] == [[], [], [], [*range(2, 12)], [*range(2, 13)]]


class Misled(LevelReader):
    """Takes the first three looks for another language, unsure; sure of a language that it is told, as Whisper is."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        guess, chance = ("nn", 0.3) if self.asked <= 3 else ("en", 0.95)
        return replace(answer, language=language or guess, language_probability=1.0 if language else chance)


@pytest.mark.parametrize("pause_s", [1.5, 0.1], ids=["of two phrases", "of speech without a pause"])
def test_a_guess_does_not_become_sure_by_being_told_to_the_recogniser(pause_s: float) -> None:
    sound, _ = spoken([0.5, *[0.1] * 11, pause_s, *[0.1] * 22])
    listener = Listener(Misled(), LevelDetector(), None, LIVE)
    languages = []
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        languages += [update.language for update in iter(listener.advance, None)]
    assert languages[0] is None
    assert list(dict.fromkeys(languages)) == [None, "en"]


def test_final_words_say_their_language_though_it_was_a_guess() -> None:
    sound, _ = spoken([0.5])
    listener = Listener(Guessing(), LevelDetector(), None, replace(LIVE, step_s=None))
    listener.feed(sound)
    listener.finish()
    updates = list(iter(listener.advance, None))
    assert [(update.language, update.guessed) for update in updates if update.final] == [(None, "cy")]
    assert listener.language is None


class AtTheEnd(Noting):
    """Puts the last word at the very end of the sound, as an alignment may."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        end_s = len(samples) / SAMPLE_RATE_HZ
        return replace(answer, words=(*answer.words[:-1], replace(answer.words[-1], start_s=end_s - 0.04, end_s=end_s)))


def test_without_context_no_word_is_forced_whose_sound_is_not_there() -> None:
    sound, _ = spoken([0.5, 0.56, 0.56, 0.56])
    updates, reader = listen(sound, replace(LIVE, step_s=None, context_s=0.0), [512], reader=AtTheEnd())
    assert isinstance(reader, Noting)
    assert [word.text for update in updates for word in update.final] == ["w0", "w1", "w2", "w3"]
    assert all(prefix == [] for _, prefix in reader.notes)


def test_what_is_heard_again_begins_where_there_is_sound() -> None:
    """Seconds and back again may be a sample less."""
    for start in range(10 * SAMPLE_RATE_HZ, 40 * SAMPLE_RATE_HZ, 509):
        context, kept_from = Context(10.0), start - 10 * SAMPLE_RATE_HZ
        first_s = kept_from / SAMPLE_RATE_HZ + CONTEXT_PRE_ROLL_S / 2
        context.add([Heard(f"w{at}", first_s + 2 * at, first_s + 2 * at + 1.9) for at in range(5)])
        begin, words = context.of(start, kept_from)
        assert (begin, len(words)) == (kept_from, 5)


def test_the_place_after_the_final_words_is_in_the_segment() -> None:
    assert Segment(16_000, 32_000, 16_000, held=[Heard("late", 0.5, 0.9)]).held_to == 16_000
