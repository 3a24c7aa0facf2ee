"""Each place in what is shown belongs to the last word that began before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.word_times import WordTimes


@given(st.lists(st.lists(st.integers(1, 9), max_size=8), max_size=6), st.integers(0, 6))
def test_a_place_tells_the_word_that_is_there(paragraphs: list[list[int]], forgotten: int) -> None:
    times, truth, clock = WordTimes(), dict[tuple[int, int], int](), 0
    for paragraph, lengths in enumerate(paragraphs):
        place = 0
        for length in lengths:
            times.add(paragraph, place, float(clock))
            truth |= {(paragraph, place + inside): clock for inside in range(length)}
            place, clock = place + length, clock + 1
    times.forget_before(forgotten)
    for (paragraph, place), start in truth.items():
        assert times.at(paragraph, place) == (None if paragraph < forgotten else float(start))


def test_before_the_first_word_there_is_none() -> None:
    times = WordTimes()
    times.add(0, 5, 1.0)
    assert times.at(0, 4) is None
    assert times.at(0, 50) == 1.0
    assert times.at(1, 0) is None
