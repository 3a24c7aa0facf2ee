"""The caption panel: what its buttons and keys do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QGuiApplication, QShortcut
from PySide6.QtWidgets import QAbstractButton, QApplication, QToolButton
from pytestqt.qtbot import QtBot

from app import caption_view
from app.caption_view import CaptionView
from app.remembering import Remembering
from app.settings import Remembered
from app.settings_store import SettingsStore
from app.shortcut_keys import PORTABLE
from app.shortcuts import SHORTCUTS, WINDOW
from app.theme import DARK, LIGHT
from engine.types import OTHERS, SPEECH, Caption, Word

WAIT_MS = 5000


def say(view: CaptionView, final: str, tail: str = "", at_s: float = 0.0, source: str = SPEECH) -> None:
    def words(text: str) -> tuple[Word, ...]:
        return tuple(Word(w, at_s + 0.1 * i, at_s + 0.1 * i + 0.1) for i, w in enumerate(text.split()))

    view.show_caption(Caption(at_s, words(final), words(tail), 0.0, "en", source))


@pytest.fixture
def view(qtbot: QtBot) -> Iterator[CaptionView]:
    made = CaptionView(True, False)
    made.set_theme(DARK)
    qtbot.addWidget(made)
    made.resize(900, 200)
    made.show()
    yield made
    made.close_overlay()


def test_copy_leaves_out_what_may_still_change(view: CaptionView) -> None:
    say(view, "Good morning", "to you")
    view.copy.click()
    assert QGuiApplication.clipboard().text() == "Good morning"
    assert view.note.toolTip() == "Copied"


def test_copy_says_when_the_panel_no_longer_holds_all(view: CaptionView) -> None:
    view.text.most_paragraphs = 3
    for number in range(6):
        say(view, f"p{number}", at_s=10.0 * number)
    view.copy.click()
    assert QGuiApplication.clipboard().text() == "p3\np4\np5"
    assert "newest 3" in view.note.toolTip()
    assert len(view.history) == 6
    view.clear()
    say(view, "new", at_s=100.0)
    view.copy.click()
    assert view.note.toolTip() == "Copied"


def test_clear_can_be_undone_and_what_came_since_is_behind_it(view: CaptionView) -> None:
    say(view, "One.", "perhaps")
    assert view.undo.isHidden()
    view.empty.click()
    assert view.text.toPlainText() == "" and not view.undo.isHidden()
    view.empty.click()  # there is nothing to clear, so nothing is forgotten
    say(view, "Two.", "or", at_s=10.0)
    view.undo.click()
    assert view.text.toPlainText() == "One.\nTwo. or"
    assert view.text.tentative_text == " or"
    assert [word.text for word in view.history.snapshot()] == ["One.", "Two."]
    assert view.undo.isHidden()
    say(view, "or three.", at_s=10.3)
    assert view.text.toPlainText() == "One.\nTwo. or three."


def test_undo_does_not_bring_back_what_nobody_will_finish(view: CaptionView) -> None:
    say(view, "One.")
    view.clear()
    say(view, "Two.", "never", at_s=10.0)
    view.end_run()
    view.undo_clear()
    assert view.text.toPlainText() == "One.\nTwo."


def test_what_was_cleared_goes_for_good_after_a_while(
    view: CaptionView, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(view, "One.")
    view._undo_ends.setInterval(10)
    view.clear()
    qtbot.waitUntil(view.undo.isHidden, timeout=WAIT_MS)
    view.undo_clear()
    assert view.text.toPlainText() == "" and view.history.size_bytes == 0


def test_clearing_again_lets_the_former_go(view: CaptionView) -> None:
    say(view, "One.")
    view.clear()
    say(view, "Two.", at_s=10.0)
    view.clear()
    view.undo_clear()
    assert view.text.toPlainText() == "Two."


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(st.one_of(st.sampled_from(["clear", "undo"]), st.text("ab", min_size=1, max_size=3)), max_size=14)
)
def test_the_panel_and_what_would_be_saved_agree(qapp: QApplication, steps: list[str]) -> None:
    view = CaptionView(True, False)
    for number, step in enumerate(steps):
        if step == "clear":
            view.clear()
        elif step == "undo":
            view.undo_clear()
        else:
            say(view, step, "tail", at_s=10.0 * number)
        kept = [word.text for word in view.history.snapshot()]
        assert view.text.final_text.split() == kept
    view.deleteLater()


def test_another_run_goes_on_in_the_same_history(view: CaptionView) -> None:
    say(view, "One.", "never", at_s=50.0)
    view.end_run()
    assert view.text.toPlainText() == "One."
    say(view, "Two.", at_s=1.0)
    words = list(view.history.snapshot())
    assert [word.text for word in words] == ["One.", "Two."]
    assert words[1].start_s >= words[0].end_s


def test_that_old_words_had_to_go_is_told(view: CaptionView, qtbot: QtBot) -> None:
    view.history._most, view.history._block_words = 4, 2
    with qtbot.waitSignal(view.told, timeout=WAIT_MS) as told:
        for number in range(9):
            say(view, f"w{number}", at_s=10.0 * number)
    assert told.args == [caption_view.LOST]


def test_keys_open_the_search_and_escape_closes_it(view: CaptionView, qtbot: QtBot) -> None:
    say(view, "rain and rain")
    view.activateWindow()
    qtbot.waitUntil(view.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(view.text, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(view.search.line.hasFocus, timeout=WAIT_MS)
    qtbot.keyClicks(view.search.line, "rain")
    assert view.search.count.text() == "1 of 2"
    qtbot.keyClick(view.search.line, Qt.Key.Key_F3)
    assert view.search.count.text() == "2 of 2"
    qtbot.keyClick(view.search.line, Qt.Key.Key_F3, Qt.KeyboardModifier.ShiftModifier)
    assert view.search.count.text() == "1 of 2"
    qtbot.keyClick(view.search.line, Qt.Key.Key_Escape)
    assert view.search.isHidden() and view.text.hasFocus()


def test_a_search_goes_on_after_clear_and_undo(view: CaptionView) -> None:
    say(view, "rain and rain")
    view.search.open_search()
    view.search.line.setText("rain")
    view.clear()
    assert view.search.matches == 0
    view.undo_clear()
    assert view.search.matches == 2


def test_letters_by_keys(view: CaptionView, qtbot: QtBot) -> None:
    view.activateWindow()
    qtbot.waitUntil(view.isActiveWindow, timeout=WAIT_MS)
    usual = view.text.font().pointSizeF()
    control = Qt.KeyboardModifier.ControlModifier
    sizes = []
    for key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus, Qt.Key.Key_0):
        qtbot.keyClick(view.text, key, control)
        sizes.append(view.text.font().pointSizeF())
    assert usual < sizes[0] < sizes[1] and sizes[2] == sizes[0] and sizes[3] == usual


def test_every_button_says_what_it_is_and_has_room_for_it(view: CaptionView, qtbot: QtBot) -> None:
    say(view, "One.")
    view.clear()  # the widest: undo is there
    view.resize(630, 200)  # what the smallest window leaves
    qtbot.wait(10)
    for button in view.findChildren(QToolButton):
        if button.isVisible() and not button.objectName().startswith("qt_"):
            assert button.accessibleName() and button.toolTip(), button.text()
            assert button.width() >= button.fontMetrics().horizontalAdvance(button.text()), button.text()
            assert button.focusPolicy() == Qt.FocusPolicy.StrongFocus


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_what_was_cleared_comes_back_in_the_colours_of_now(view: CaptionView, theme: Any) -> None:
    say(view, "Good", "morning", source=OTHERS)
    say(view, "Good")
    view.clear()
    view.set_theme(theme)
    view.undo_clear()
    cursor = view.text.textCursor()
    cursor.setPosition(view.text.document().characterCount() - 1)
    assert cursor.charFormat().foreground().color().name() == theme.text


def test_nothing_is_laid_out_for_an_overlay_nobody_opened(view: CaptionView) -> None:
    say(view, "One.")
    assert view.overlay is None
    assert len([w for w in QApplication.topLevelWidgets() if w.windowTitle() == "Sottovoce captions"]) == 0


def test_in_the_window_its_words_go_to_the_message_bar_and_no_key_has_two_meanings(stages: Any) -> None:
    window = stages().window
    window.captions.told.emit("the disk is full; make room")
    assert window.message.text() == "The disk is full; make room"
    store = SettingsStore(Remembered(), lambda changes: None)
    Remembering(window, store, lambda: False)
    sequences = [key for keys in map(QShortcut.keys, window.findChildren(QShortcut)) for key in keys]
    sequences += [key for action in window.findChildren(QAction) for key in action.shortcuts()]
    keys = [key.toString(PORTABLE) for key in sequences]
    table = [key for each in SHORTCUTS.values() if each.place == WINDOW for key in each.keys]
    assert sorted(keys) == sorted([*table, "Esc"])
    assert len(set(keys)) == len(keys)
    assert all(button.shortcut().isEmpty() for button in window.findChildren(QAbstractButton))  # these act too late
    store.close()
