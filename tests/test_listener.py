"""The listener: every word once, in order, on one clock, whatever the chunks; silence stays silent.

Most of it runs on stand-ins: a sound in which each word is 0.4 s of its own level, and a recogniser that reads the
levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.answers import Hypothesis
from engine.captions import Heard, join_words
from engine.listener import LIVE, OFFLINE, Listener
from engine.vad import SAMPLE_RATE_HZ
from tests.fake_words import STEP, WORD_S, LevelDetector, LevelReader, listen, spoken

pauses = st.lists(st.sampled_from([0.0, 0.05, 0.2, 0.3, 0.8, 1.5, 3.0]), min_size=1, max_size=60)
paces = {"live": LIVE, "at once": replace(LIVE, sure_s=0.0), "offline": OFFLINE}


@pytest.mark.parametrize("pace", paces)
@settings(max_examples=25, deadline=None)
@given(before_s=pauses, sizes=st.lists(st.sampled_from([1, 320, 1600, 20_000, 300_000]), min_size=1, max_size=3))
def test_every_word_once_in_order_and_in_its_place(pace: str, before_s: list[float], sizes: list[int]) -> None:
    """Final words are the spoken ones, each once, at their times; what is tentative never comes before them."""
    if pace == "offline":
        before_s = [max(pause_s, 0.2) for pause_s in before_s]  # else every place to cut would hurt a word
    if sizes == [1]:
        sizes = [1, 1600]
    sound, starts = spoken(before_s)
    updates, _ = listen(sound, paces[pace], sizes)
    final = [word for update in updates for word in update.final]
    assert [w.text for w in final] == [f"w{i}" for i in range(len(before_s))]
    assert all(abs(w.start_s - s) < 0.05 for w, s in zip(final, starts, strict=True))
    last_s, final_to = 0.0, 0
    for update in updates:
        last_s = max([last_s, *(w.start_s for w in update.final)])
        assert all(w.start_s >= last_s for w in update.tentative)
        assert final_to <= update.final_to <= update.heard_to <= len(sound)
        final_to = update.final_to


class Wavering(LevelReader):
    """Never hears the first word alike, so that no word of a segment is agreed on before its end."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        first, *others = super().transcribe(samples, prefix, language, most_tokens).words
        return Hypothesis((replace(first, text=f"{first.text} {self.asked}"), *others), "en")


def test_a_segment_cut_in_a_pause_after_it_was_looked_at_says_no_word_twice() -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        sound, _ = spoken(random.choice([0.0, 0.05, 0.1, 0.2, 0.3], 35).tolist())
        updates, reader = listen(sound, LIVE, [1600], reader=Wavering())
        words = [word.text.split()[0] for update in updates for word in update.final]
        assert words == list(dict.fromkeys(words))
        assert reader.asked > 10


def test_live_words_are_final_two_looks_after_they_were_said() -> None:
    sound, _ = spoken([0.5, *[0.1] * 30])
    reader, now = LevelReader(), 0
    listener = Listener(reader, LevelDetector(), "en", LIVE)
    waits = []
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        now = at + 1600
        while (update := listener.advance()) is not None:
            waits += [now / SAMPLE_RATE_HZ - word.end_s for word in update.final]
    assert LIVE.step_s is not None
    assert len(waits) > 20
    assert max(waits) < 2 * LIVE.step_s + LIVE.margin_s + WORD_S + 0.2


def test_words_that_no_two_looks_hear_alike_do_not_wait_for_ever() -> None:
    class Unsure(LevelReader):
        """Says every word anew at each look."""

        asked = 0

        def transcribe(
            self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
        ) -> Hypothesis:
            self.asked += 1
            words = super().transcribe(samples, prefix, language, most_tokens).words
            return Hypothesis(tuple(replace(word, text=f"{word.text} {self.asked}") for word in words), "en")

    sound, _ = spoken([0.5, *[0.1] * 30])
    listener, waits = Listener(Unsure(), LevelDetector(), "en", LIVE), list[float]()
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        while (update := listener.advance()) is not None:
            waits += [(at + 1600) / SAMPLE_RATE_HZ - word.end_s for word in update.final]
    assert LIVE.step_s is not None
    assert len(waits) > 10
    assert LIVE.sure_s < max(waits) < LIVE.sure_s + LIVE.step_s + LIVE.margin_s + WORD_S + 0.2


def test_only_a_short_tail_is_asked_about_however_long_the_speech() -> None:
    longest = 0

    class Measuring(LevelReader):
        def transcribe(self, samples: np.ndarray, *rest: object) -> Hypothesis:
            nonlocal longest
            longest = max(longest, len(samples))
            return super().transcribe(samples, *rest)  # type: ignore[arg-type]

    sound, _ = spoken([0.05] * 150)
    listener = Listener(Measuring(), LevelDetector(), "en", LIVE)
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        while listener.advance() is not None:
            pass
        assert listener.fed_to - listener._sound.start < (12 + LIVE.context_s) * SAMPLE_RATE_HZ
    assert 5 * SAMPLE_RATE_HZ < longest <= (10.5 + LIVE.context_s) * SAMPLE_RATE_HZ


def test_nobody_is_asked_about_silence(rng: np.random.Generator) -> None:
    for level in (0.0, STEP / 10):
        noise = (level * rng.standard_normal(20 * SAMPLE_RATE_HZ)).astype(np.float32)
        updates, reader = listen(noise, LIVE, [1600])
        assert (updates, reader.asked) == ([], 0)


def test_the_clock_goes_on_over_a_gap() -> None:
    sound, _ = spoken([0.5])
    listener = Listener(LevelReader(), LevelDetector(), "en", LIVE)
    listener.feed(sound)
    listener.gap(7 * SAMPLE_RATE_HZ)
    listener.feed(sound)
    listener.finish()
    words = []
    while (update := listener.advance()) is not None:
        words += update.final
    assert [round(w.start_s, 2) for w in words] == [0.5, 0.5 + len(sound) / SAMPLE_RATE_HZ + 7.0]


def test_a_listener_that_starts_later_keeps_the_same_clock() -> None:
    sound, _ = spoken([0.5, 0.1])
    updates, _ = listen(sound, LIVE, [1600], start=100 * SAMPLE_RATE_HZ)
    assert [round(w.start_s, 1) for u in updates for w in u.final] == [100.5, 101.0]


# Answers that leave something out -------------------------------------------------------------------------------------


class Forgetful(LevelReader):
    """Asked about more than nine words, it tells three and leaves out all that follow, or six of them."""

    def __init__(self, left_out: int) -> None:
        super().__init__()
        self.left_out = left_out

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        words = super().transcribe(samples, prefix, language, most_tokens).words
        kept = (*words[:3], *words[3 + self.left_out :]) if len(words) > 9 else words
        return Hypothesis(kept, "en")


@pytest.mark.parametrize("left_out", [6, 100], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("pace", ["live", "offline"])
def test_what_the_recogniser_passed_over_is_asked_about_by_itself(pace: str, left_out: int) -> None:
    sound, starts = spoken([0.5, *[0.1] * 11])
    slow = replace(paces[pace], step_s=None)  # all in one answer
    updates, reader = listen(sound, slow, [1600], reader=Forgetful(left_out))
    final = [word for update in updates for word in update.final]
    assert [word.text for word in final] == [f"w{number}" for number in range(12)]
    assert all(abs(word.start_s - start_s) < 0.05 for word, start_s in zip(final, starts, strict=True))
    assert reader.asked == 2


class Silent(LevelReader):
    """Knows the first three words and no others."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        words = super().transcribe(samples, prefix, language, most_tokens).words
        return Hypothesis(tuple(word for word in words if word.text in ("w0", "w1", "w2")), "en")


def test_where_it_says_no_more_of_what_it_passed_over_it_is_not_asked_again() -> None:
    sound, _ = spoken([0.5, *[0.1] * 13])
    updates, reader = listen(sound, OFFLINE, [1600], reader=Silent())
    assert [word.text for update in updates for word in update.final] == ["w0", "w1", "w2"]
    assert reader.asked == 2


class Fading(LevelReader):
    """Reads the first look's words, and from then on none."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        return answer if self.asked == 1 else replace(answer, words=())


@pytest.mark.parametrize(("words", "kept"), [(4, ["w0"]), (2, [])], ids=["of a phrase", "of a cough"])
def test_what_was_read_stays_where_later_answers_have_no_word(words: int, kept: list[str]) -> None:
    sound, _ = spoken([0.5, *[0.25] * (words - 1)])
    updates, reader = listen(np.pad(sound, (0, SAMPLE_RATE_HZ)), LIVE, [1600], reader=Fading())
    assert all(update.tentative for update in updates[:-1])
    assert [word.text for update in updates for word in update.final] == kept
    assert reader.asked >= 2


class Late(LevelReader):
    """Has no word for the first three times it is asked."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        answer = super().transcribe(samples, prefix, language, most_tokens)
        return answer if self.asked > 3 else replace(answer, words=())


def test_an_answer_without_a_word_is_not_the_last() -> None:
    """Three looks, the third of which is about all there is: it is asked once more at the end."""
    sound, _ = spoken([0.5, *[0.12] * 4])
    updates, reader = listen(np.pad(sound, (0, SAMPLE_RATE_HZ)), replace(LIVE, pause_s=0.6), [1600], reader=Late())
    assert reader.asked == 4
    assert [word.text for update in updates for word in update.final] == [f"w{number}" for number in range(5)]


def test_what_was_read_behind_a_cut_is_not_said_before_and_after_it() -> None:
    class Fitful(LevelReader):
        """Every other time it has no word."""

        def transcribe(
            self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
        ) -> Hypothesis:
            answer = super().transcribe(samples, prefix, language, most_tokens)
            return answer if self.asked % 2 else replace(answer, words=())

    sound, _ = spoken([0.5, *[0.1] * 60])
    updates, reader = listen(sound, replace(LIVE, sure_s=20.0, context_s=0.0), [1600], reader=Fitful())
    words = [word.text for update in updates for word in update.final]
    assert words == list(dict.fromkeys(words))
    assert len(words) > 20
    assert reader.asked > 10


# Answers that say more than was spoken --------------------------------------------------------------------------------


class Loud:
    """Hears a voice wherever it is loud."""

    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).mean() > 0.05 else 0.0

    def reset(self) -> None: ...


class Echoing:
    """Hears "Good morning" from half a second on, and says it a second time, which takes so long."""

    def __init__(self, second_s: float) -> None:
        self.second_s = second_s

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        length_s = len(samples) / SAMPLE_RATE_HZ
        heard = [Heard("Good", 0.3, 0.6, 0.9, (1,)), Heard("morning", 0.6, 0.9, 0.9, (2,))]
        if length_s > 1.0:
            middle_s = length_s - 0.3
            heard += [
                Heard("Good", 0.9, middle_s, 0.9, (1,)),
                Heard("morning", middle_s, middle_s + self.second_s, 0.9, (2,)),
            ]
        return Hypothesis(tuple(heard[len(prefix) :]), "en")


@pytest.mark.parametrize(
    ("second_s", "told"), [(0.02, "Good morning"), (0.3, "Good morning Good morning")], ids=["in no time", "spoken"]
)
@pytest.mark.parametrize("voice_s", [1.2, 3.0])
def test_a_short_phrase_after_a_pause_is_told_as_often_as_it_was_said(
    second_s: float, told: str, voice_s: float
) -> None:
    sound = np.zeros(round((voice_s + 3.0) * SAMPLE_RATE_HZ), np.float32)
    sound[SAMPLE_RATE_HZ : round((1.0 + voice_s) * SAMPLE_RATE_HZ)] = 0.1
    listener = Listener(Echoing(second_s), Loud(), "en")
    words = []
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        while (update := listener.advance()) is not None:
            words += update.final
    assert join_words(words) == told


class Counting(Loud):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, window: np.ndarray) -> float:
        self.asked += 1
        return super().__call__(window)


def test_in_long_silence_nobody_is_asked_for_a_voice_and_the_next_one_is_heard() -> None:
    detector = Counting()
    listener = Listener(Echoing(0.3), detector, "en")
    words = []
    voice = np.full(2 * SAMPLE_RATE_HZ, 0.1, np.float32)
    for piece in (voice, np.zeros(60 * SAMPLE_RATE_HZ, np.float32), voice, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)):
        listener.feed(piece)
        while (update := listener.advance()) is not None:
            words += update.final
    assert detector.asked * 512 < 12 * SAMPLE_RATE_HZ
    assert sum(word.text.strip().startswith("Good") for word in words) >= 2
    assert max(word.end_s for word in words) > 62.0


@pytest.mark.parametrize("pace", paces)
@pytest.mark.parametrize("at_once_s", [0.1, 6.0, 15.0])
def test_long_speech_without_a_rest_is_cut_where_it_is_heard_and_nothing_before(pace: str, at_once_s: float) -> None:
    """However long it has gone on, and however much comes at once then, as after a time of no answers."""
    count = 110 if pace == "offline" else 240  # more numbers in one answer look like a loop
    sound, starts = spoken([0.5, *[0.1] * (count - 1)])
    sizes = [*[1600] * 900, *[int(at_once_s * SAMPLE_RATE_HZ)] * 2, *[1600] * 400]
    updates, _ = listen(sound, paces[pace], sizes)
    final = [word for update in updates for word in update.final]
    assert [word.text for word in final] == [f"w{number}" for number in range(count)]
    assert all(abs(word.start_s - start_s) < 0.05 for word, start_s in zip(final, starts, strict=True))


class Hasty(LevelReader):
    """Asked about all, it ends after two words, and says that the second one ended sooner than it did."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        words = super().transcribe(samples, prefix, language, most_tokens).words
        if self.asked > 1:
            return Hypothesis((replace(words[0], text="w1"), *words[1:]), "en")  # half of it, and all that follow
        return Hypothesis((words[0], replace(words[1], end_s=words[1].end_s - 0.2)), "en")


def test_a_word_whose_end_is_heard_again_is_not_said_twice() -> None:
    sound, _ = spoken([0.5, *[0.1] * 11])
    updates, reader = listen(sound, OFFLINE, [1600], reader=Hasty())
    assert [word.text for update in updates for word in update.final] == [f"w{number}" for number in range(12)]
    assert reader.asked == 2
