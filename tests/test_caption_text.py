"""The caption panel: what is final stays, the tail may change."""

from __future__ import annotations

from pytestqt.qtbot import QtBot

from app.caption_text import CaptionText
from app.theme import LIGHT
from engine.types import Caption, Word


def say(view: CaptionText, final: str, tentative: str, at_s: float = 0.0) -> None:
    def words(text: str) -> tuple[Word, ...]:
        return tuple(Word(w, at_s + 0.1 * i, at_s + 0.1 * i + 0.1) for i, w in enumerate(text.split()))

    view.show_caption(Caption(at_s, words(final), words(tentative), 0.0))


def test_final_words_stay_and_the_tail_is_replaced(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    shown = ""
    for final, tail in (
        ("", "Gud"),
        ("", "Good mourning"),
        ("Good", "morning to"),
        ("morning to", "you"),
        ("you.", ""),
    ):
        say(view, final, tail)
        assert view.final_text.startswith(shown)
        shown = view.final_text
    assert view.toPlainText() == "Good morning to you."


def test_tentative_words_are_lighter(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    view.set_theme(LIGHT)
    say(view, "Good", "morning")
    colours = []
    for position in (1, view.document().characterCount() - 1):
        cursor = view.textCursor()
        cursor.setPosition(position)
        colours.append(cursor.charFormat().foreground().color().name())
    assert colours == [LIGHT.text, LIGHT.muted]


def test_a_pause_begins_a_paragraph_even_for_the_tail(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    say(view, "One.", "")
    say(view, "", "Two", at_s=10.0)
    assert view.toPlainText() == "One.\nTwo"
    say(view, "Two.", "", at_s=10.0)
    assert view.toPlainText() == "One.\nTwo."


def test_a_reader_who_scrolled_back_is_left_there(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    view.resize(300, 120)
    view.show()
    for i in range(60):
        say(view, f"sentence number {i}.", "", at_s=10.0 * i)
    bar = view.verticalScrollBar()
    assert bar.value() == bar.maximum() > 0
    bar.setValue(10)
    say(view, "One more.", "and", at_s=1000.0)
    assert bar.value() == 10
