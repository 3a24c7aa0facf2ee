"""What is kept of the captions: all that was final, in order, on one clock, whatever is cleared and brought back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.caption_history import History
from engine.captions import Spoken
from engine.types import OTHERS, SPEECH, Caption, Word

texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9)
# subnormals: ONNX Runtime may have switched them off for this thread by now
times = st.floats(0.0, 1e6, allow_subnormal=False)
words = st.builds(Word, texts, times, times, st.floats(0.0, 1.0, allow_subnormal=False))
captions = st.builds(
    Caption,
    time_s=times,
    final=st.lists(words, max_size=9).map(tuple),
    tentative=st.lists(words, max_size=3).map(tuple),
    lag_s=st.just(0.5),
    language=st.sampled_from([None, "en"]),
    source=st.sampled_from([SPEECH, OTHERS]),
)


def spoken(caption: Caption) -> list[Spoken]:
    return [Spoken(w.text, w.start_s, w.end_s, w.probability, caption.source) for w in caption.final]


def say(history: History, text: str, start_s: float, at_s: float) -> Caption:
    return history.add(Caption(start_s + 1.0, (Word(text, start_s, start_s + 0.5),), (), 0.5, "en"), at_s)


@settings(deadline=None)
@given(st.lists(captions, max_size=30))
def test_what_is_kept_is_what_was_final_in_order(events: list[Caption]) -> None:
    history = History(block_words=7)
    for event in events:
        assert history.add(event, event.time_s) == event  # the first run is on its own clock
    assert list(history.snapshot()) == [word for event in events for word in spoken(event)]
    assert len(history) == sum(len(event.final) for event in events)
    assert history.lost == 0


@settings(deadline=None)
@given(st.lists(st.one_of(captions, st.sampled_from(["clear", "undo", "forget"])), max_size=40))
def test_undo_brings_back_all_that_the_last_clear_took(steps: list[Caption | str]) -> None:
    history = History(block_words=5)
    kept: list[Spoken] = []
    aside: list[Spoken] | None = None
    for step in steps:
        if isinstance(step, Caption):
            history.add(step, step.time_s)
            kept = kept + spoken(step)
        elif step == "clear":
            history.clear()
            if kept:
                kept, aside = [], kept
        elif step == "undo":
            history.undo_clear()
            kept, aside = [*(aside or []), *kept], None
        else:
            history.forget_cleared()
            aside = None
        assert list(history.snapshot()) == kept


@settings(deadline=None)
@given(st.lists(st.tuples(times, times), min_size=2, max_size=12))
def test_times_of_later_runs_never_lie_before_those_of_earlier_ones(runs: list[tuple[float, float]]) -> None:
    """Whatever the clock on the wall does."""
    history = History()
    shown = []
    for start_s, at_s in runs:
        shown.append(say(history, "word", start_s, at_s).final[0])
        history.end_run()
    assert shown == [Word(w.text, w.start_s, w.end_s, w.probability) for w in list(history.snapshot())]
    for first, second in itertools.pairwise(shown):
        assert first.end_s <= second.start_s


def test_another_run_goes_on_where_the_wall_clock_is() -> None:
    history = History()
    say(history, "one", 10.0, at_s=1000.0)  # this run's 0 was at 989
    history.end_run()
    caption = say(history, "two", 2.0, at_s=1092.0)  # this one's at 1089
    assert caption.final[0].start_s == pytest.approx(102.0)
    assert caption.time_s == pytest.approx(103.0)


def test_a_snapshot_stays_as_it_was() -> None:
    history = History(block_words=3)
    for number in range(4):
        say(history, str(number), float(number), float(number))
    before = history.snapshot()
    say(history, "later", 9.0, 9.0)
    history.clear()
    assert [word.text for word in before] == ["0", "1", "2", "3"]


def test_the_oldest_go_only_beyond_the_bound_and_are_counted() -> None:
    history = History(most_words=40, block_words=10)
    for number in range(95):
        say(history, str(number), float(number), float(number))
        assert len(history) + history.lost == number + 1
        assert min(number + 1, 31) <= len(history) <= 40
    assert [word.text for word in history.snapshot()] == [str(n) for n in range(history.lost, 95)]


def test_a_day_of_speech_is_kept_whole_in_little_memory() -> None:
    """24 h at 200 words a minute, without a pause."""
    history = History()
    day = 24 * 60 * 200
    final = tuple(Word("whatever", 0.3 * k, 0.3 * k + 0.25, 0.9) for k in range(100))
    for _ in range(day // 100):
        history.add(Caption(30.0, final, (), 0.5, "en"), 30.0)
    assert len(history) == day and history.lost == 0
    assert history.size_bytes < 16e6


def test_letters_that_no_file_takes_do_not_stop_it() -> None:
    history = History()
    say(history, "a\ud800b", 0.0, 0.0)
    assert [word.text for word in history.snapshot()] == ["a?b"]
