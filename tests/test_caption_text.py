"""The words in the caption panel: what is final stays, the tail may change, and the reader is left in peace."""

from __future__ import annotations

import time

import numpy as np
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from pytestqt.qtbot import QtBot

from app.caption_text import MOST_PARAGRAPHS, CaptionText
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


def test_letters_that_qt_counts_twice_leave_nothing_behind(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    asked: list[float] = []
    view.asked.connect(asked.append)
    for final, tail in (("", "😀"), ("", "𝄞 rings"), ("𝄞", "rings 😀"), ("rings", "😀😀 out")):
        say(view, final, tail)
    assert (view.final_text, view.tentative_text) == ("𝄞 rings", " 😀😀 out")
    assert view.last_paragraphs(1) == [("𝄞 rings 😀😀 out", 8)]  # in Qt's units
    say(view, "out.", "", at_s=0.2)
    assert view.toPlainText() == "𝄞 rings out."
    cursor = view.textCursor()
    cursor.setPosition(len("xx rings o"))
    view.setTextCursor(cursor)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert asked == [0.2]


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


# Long texts -----------------------------------------------------------------------------------------------------------


def test_what_an_event_costs_does_not_grow_with_what_is_there(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    view.resize(900, 160)
    view.show()
    took_ms: list[float] = []
    for number in range(MOST_PARAGRAPHS + 1000):
        begin = time.thread_time()
        say(view, "people keep talking about things", "of no importance", at_s=10.0 * number)
        took_ms.append(1000.0 * (time.thread_time() - begin))
    assert MOST_PARAGRAPHS <= view.document().blockCount() <= MOST_PARAGRAPHS * 1.05 + 1
    assert float(np.median(took_ms[-1000:])) < 3.0
    assert float(np.median(took_ms[-1000:])) < 4.0 * float(np.median(took_ms[100:1100]))
    assert float(np.percentile(took_ms, 99)) < 12.0


def test_who_reads_further_up_stays_there_when_the_oldest_go(qtbot: QtBot) -> None:
    view = CaptionText(most_paragraphs=40)
    qtbot.addWidget(view)
    view.resize(300, 120)
    view.show()
    for number in range(42):
        say(view, f"paragraph number {number}.", "", at_s=10.0 * number)
    bar = view.verticalScrollBar()
    block = view.document().findBlockByNumber(20)
    bar.setValue(round(view.document().documentLayout().blockBoundingRect(block).top()))
    middle = QPoint(5, view.fontMetrics().height() // 2)  # of the first line in sight
    seen = view.cursorForPosition(middle).block().text()
    for number in range(42, 52):
        say(view, f"paragraph number {number}.", "", at_s=10.0 * number)
    assert view.toPlainText().splitlines()[0] != "paragraph number 0."
    assert view.cursorForPosition(middle).block().text() == seen == "paragraph number 20."


def test_speech_without_a_pause_still_has_paragraphs(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    for number in range(300):
        at_s = 0.5 * number
        end = "." if number % 10 == 9 else ""
        view.show_caption(Caption(at_s, (Word(f"word{end}", at_s, at_s + 0.5),), (), 0.0))
    paragraphs = view.toPlainText().splitlines()
    assert len(paragraphs) > 1
    assert all(paragraph.endswith(".") and len(paragraph) < 700 for paragraph in paragraphs)
    assert " ".join(paragraphs).count("word") == 300


# Reading --------------------------------------------------------------------------------------------------------------


def test_the_way_back_to_the_newest_is_there_when_scrolled_away(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    view.resize(300, 160)
    view.show()
    for number in range(40):
        say(view, f"sentence number {number}.", "", at_s=10.0 * number)
    assert not view.newest.isVisible()
    bar = view.verticalScrollBar()
    bar.setValue(0)
    assert view.newest.isVisible() and not view.follows
    say(view, "One more.", "and", at_s=1000.0)
    assert bar.value() == 0
    qtbot.mouseClick(view.newest, Qt.MouseButton.LeftButton)
    assert bar.value() == bar.maximum() and not view.newest.isVisible()
    view.resize(180, 160)  # lines break elsewhere
    assert bar.value() == bar.maximum()


def test_letters_grow_and_shrink_within_bounds(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    usual = view.font().pointSizeF()
    view.zoom(1)
    assert view.font().pointSizeF() > usual
    view.zoom(100)
    most = view.font().pointSizeF()
    view.zoom(1)
    assert view.font().pointSizeF() == most < 5 * usual
    view.zoom(-100)
    assert usual / 2 < view.font().pointSizeF() < usual
    view.zoom(None)
    assert view.font().pointSizeF() == usual


def test_the_wheel_with_control_changes_the_size_by_whole_notches(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    usual = view.font().pointSizeF()

    def turn(angle: int) -> None:
        at = QPointF(5, 5)
        view.wheelEvent(
            QWheelEvent(
                at, at, QPoint(), QPoint(0, angle), Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.ControlModifier, Qt.ScrollPhase.NoScrollPhase, False,
            )
        )  # fmt: skip

    turn(60)
    assert view.font().pointSizeF() == usual
    turn(60)
    assert view.font().pointSizeF() > usual
    turn(-120)
    assert view.font().pointSizeF() == usual


def test_times_stand_beside_the_text_and_not_in_it(qtbot: QtBot) -> None:
    view = CaptionText(most_paragraphs=3)
    qtbot.addWidget(view)
    view.resize(400, 200)
    view.show()
    bare = view.viewport().x()
    view.show_times(True)
    for number in range(6):
        words = (Word(f"p{number}", 100.0 * number, 100.0 * number + 1.0),)
        view.show_caption(Caption(100.0 * number + 31.0, words, (), 0.0), at_s=6000.0 + 100.0 * number + 31.0)
    view.grab()
    assert view.times.isVisible() and view.viewport().x() > bare
    assert view.toPlainText() == "p3\np4\np5"
    block = view.document().begin()
    began_min = []
    while block.isValid():
        began_min.append(block.userState())
        block = block.next()
    assert began_min == [105, 106, 108]  # minutes since 1970: 6300, 6400 and 6500 s
    view.show_times(False)
    assert view.viewport().x() == bare


def test_the_last_paragraphs_say_how_much_of_them_is_final(qtbot: QtBot) -> None:
    view = CaptionText()
    qtbot.addWidget(view)
    assert view.last_paragraphs(2) == [("", 0)]
    say(view, "One.", "")
    say(view, "", "Two", at_s=10.0)
    assert view.last_paragraphs(3) == [("One.", 4), ("Two", 0)]
    say(view, "Two", "or three", at_s=10.0)
    assert view.last_paragraphs(1) == [("Two or three", 3)]
