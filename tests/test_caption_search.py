"""Searching the captions: all matches and only those, while words come and the oldest go."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.caption_search import Finder, Place, SearchBar
from app.caption_text import CaptionText
from app.theme import LIGHT
from engine.types import Caption, Word

WAIT_MS = 5000
letters = st.text(alphabet="abA (.\n ß", max_size=12).map(lambda text: text.replace("\n", "\t"))
lines = st.lists(letters, max_size=8)
needles = st.text(alphabet="abA (.ß", min_size=1, max_size=3)


def slowly(needle: str, text: str) -> list[tuple[int, int]]:
    """Every match, from left to right, none within another: found by trying each place."""
    words = needle.split()
    found, at = [], 0
    while words and at < len(text):
        end = _end_of_match(words, text, at)
        if end is not None:
            found.append((at, end))
        at = end or at + 1
    return found


def _end_of_match(words: list[str], text: str, at: int) -> int | None:
    for number, word in enumerate(words):
        if number:
            space = re.match(r"\s+", text[at:])
            if space is None:
                return None
            at += space.end()
        if text[at : at + len(word)].lower() != word.lower():
            return None
        at += len(word)
    return at


def everything(finder: Finder, count: int) -> list[list[tuple[int, int]]]:
    return [list(finder.in_paragraph(number)) for number in range(count)]


@settings(deadline=None)
@given(needles, lines)
def test_it_finds_all_and_only_what_matches(needle: str, text: list[str]) -> None:
    finder = Finder()
    finder.look_for(needle, text)
    assert everything(finder, len(text)) == [slowly(needle, line) for line in text]
    assert finder.total == sum(len(slowly(needle, line)) for line in text)


@settings(deadline=None)
@given(needles, lines, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), lines), max_size=6))
def test_it_stays_right_as_paragraphs_come_and_go(
    needle: str, text: list[str], changes: list[tuple[int, int, list[str]]]
) -> None:
    finder = Finder()
    finder.look_for(needle, text)
    for gone, first, new in changes:
        gone = min(gone, len(text))
        first = min(first, len(text) - gone)
        text = text[gone:][:first] + new
        finder.update(gone, first, new)
        whole = Finder()
        whole.look_for(needle, text)
        assert everything(finder, len(text)) == everything(whole, len(text))
        assert finder.total == whole.total


@settings(deadline=None)
@given(needles, lines)
def test_next_and_before_go_round_through_every_match(needle: str, text: list[str]) -> None:
    finder = Finder()
    finder.look_for(needle, text)
    every = [Place(n, span) for n, line in enumerate(text) for span in slowly(needle, line)]
    place = finder.after(0, 0)
    for number, expected in enumerate(every, 1):
        assert place == expected
        assert finder.number(place) == number
        place = finder.after(place.paragraph, place.span[1])
    assert place == (every[0] if every else None)
    place = finder.before(0, 0)
    for expected in reversed(every):
        assert place == expected
        place = finder.before(place.paragraph, place.span[0])


# In the window --------------------------------------------------------------------------------------------------------


def words(text: str, at_s: float) -> tuple[Word, ...]:
    return tuple(Word(word, at_s + 0.1 * i, at_s + 0.1 * i + 0.1) for i, word in enumerate(text.split()))


def say(text: CaptionText, final: str, at_s: float, tail: str = "") -> None:
    text.show_caption(Caption(at_s, words(final, at_s), words(tail, at_s + 1.0), 0.0))


def searched(qtbot: QtBot, most: int = 3000) -> tuple[CaptionText, SearchBar]:
    text = CaptionText(most_paragraphs=most)
    bar = SearchBar(text)
    for widget in (text, bar):
        widget.setParent(None)
        qtbot.addWidget(widget)
    text.resize(400, 300)
    text.set_theme(LIGHT)
    bar.set_theme(LIGHT)
    text.show()
    return text, bar


def marked(text: CaptionText) -> list[str]:
    return [mark.cursor.selectedText() for mark in text.extraSelections()]


def test_matches_are_marked_and_counted_while_words_come(qtbot: QtBot) -> None:
    text, bar = searched(qtbot)
    say(text, "The kettle sings.", 0.0)
    bar.open_search()
    bar.line.setText("kettle")
    assert (bar.matches, bar.count.text(), marked(text)) == (1, "1 of 1", ["kettle"])
    say(text, "A second Kettle", 10.0, tail="and a kettle")
    assert bar.matches == 3
    qtbot.waitUntil(lambda: marked(text) == ["kettle", "Kettle", "kettle"], timeout=WAIT_MS)
    say(text, "and no more", 11.0)
    assert bar.matches == 2  # the tail said another thing in the end
    qtbot.waitUntil(lambda: bar.count.text() == "1 of 2", timeout=WAIT_MS)
    assert marked(text) == ["kettle", "Kettle"]


def test_letters_that_qt_counts_twice_do_not_shift_what_is_marked(qtbot: QtBot) -> None:
    text, bar = searched(qtbot)
    say(text, "😀 rain 😀😀 rain 😀", 0.0)
    bar.open_search()
    bar.line.setText("rain")
    assert (marked(text), bar.count.text()) == (["rain", "rain"], "1 of 2")
    bar.go()
    assert bar.count.text() == "2 of 2"
    bar.line.setText("😀")
    assert marked(text) == ["😀"] * 4
    bar.go()
    assert text.textCursor().selectedText() == "😀"


def test_keys_go_through_the_matches_and_close(qtbot: QtBot) -> None:
    text, bar = searched(qtbot)
    for number in range(3):
        say(text, f"rain on day {number}", 10.0 * number)
    bar.open_search()
    qtbot.keyClicks(bar.line, "rain")
    told = [bar.count.text()]
    for modifier in (
        Qt.KeyboardModifier.NoModifier,
        Qt.KeyboardModifier.NoModifier,
        Qt.KeyboardModifier.NoModifier,
        Qt.KeyboardModifier.ShiftModifier,
    ):
        qtbot.keyClick(bar.line, Qt.Key.Key_Return, modifier)
        told.append(bar.count.text())
    assert told == ["1 of 3", "2 of 3", "3 of 3", "1 of 3", "3 of 3"]
    assert text.textCursor().selectedText() == "rain"
    bar.line.setText("snow")
    assert (bar.count.text(), marked(text)) == ("none", [])
    bar.close_search()
    assert bar.isHidden() and marked(text) == []


def test_it_stays_right_when_the_oldest_paragraphs_go(qtbot: QtBot) -> None:
    text, bar = searched(qtbot, most=4)
    bar.open_search()
    bar.line.setText("drop")
    for number in range(12):
        say(text, f"drop {number} drop", 10.0 * number)
        assert bar.matches == len(re.findall("drop", text.toPlainText()))
    qtbot.waitUntil(lambda: marked(text) == ["drop"] * 8, timeout=WAIT_MS)


def test_only_what_is_in_sight_is_marked_but_all_is_counted(qtbot: QtBot) -> None:
    text, bar = searched(qtbot)
    for number in range(300):
        say(text, f"drop {number}", 10.0 * number)
    bar.open_search()
    bar.line.setText("drop")
    assert bar.matches == 300
    qtbot.waitUntil(lambda: 0 < len(text.extraSelections()) < 40, timeout=WAIT_MS)
