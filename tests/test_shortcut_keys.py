"""Keys in the window: they act at once, may be changed while it runs, and leave typing alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QShortcut
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.remembering import Remembering
from app.settings import Remembered
from app.settings_file import load, write
from app.settings_store import SettingsStore
from app.shortcut_keys import keys_of
from app.shortcuts import SHORTCUTS
from engine.types import Caption, Word
from tests.stage import WAIT_MS, Stage

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
NONE = Qt.KeyboardModifier.NoModifier


class Kept:
    """A window that is in front, with its settings; they are written nowhere."""

    def __init__(self, stage: Stage, changes: dict[str, str]) -> None:
        self.stage, self.window = stage, stage.window
        self.store = SettingsStore(Remembered(shortcuts=changes), lambda changes: None)
        self.remembering = Remembering(stage.window, self.store, lambda: False)
        stage.until_on()
        in_front(stage.qtbot, stage.window)

    @property
    def muted(self) -> bool:
        return self.window.column.mute.isChecked()


def in_front(qtbot: QtBot, window: QWidget) -> None:
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT_MS)


@pytest.fixture
def kept(stages: Any) -> Iterator[Any]:
    made: list[Kept] = []

    def one(**changes: str) -> Kept:
        made.append(Kept(stages(), changes))
        return made[-1]

    yield one
    for each in made:
        each.store.close()


def test_keys_act_at_once_and_with_every_press(kept: Any, qtbot: QtBot) -> None:
    one = kept()
    for wanted in (True, False, True):
        qtbot.keyClick(one.window, Qt.Key.Key_M, CTRL)
        assert one.muted is wanted
    qtbot.keyClick(one.window, Qt.Key.Key_P, CTRL)
    assert one.window.inside.live.isChecked()
    qtbot.keyClick(one.window, Qt.Key.Key_L, CTRL)
    assert one.window.config.level


def test_changed_while_it_runs_the_new_keys_act_and_the_old_do_nothing(kept: Any, qtbot: QtBot) -> None:
    one = kept()
    one.store.set_shortcut("mute", "F9")
    qtbot.keyClick(one.window, Qt.Key.Key_M, CTRL)
    assert not one.muted
    qtbot.keyClick(one.window, Qt.Key.Key_F9)
    assert one.muted
    one.store.set_shortcut("mute", "")
    qtbot.keyClick(one.window, Qt.Key.Key_F9)
    assert one.muted
    one.store.set_shortcut("record", "F8")
    one.store.set_shortcut("mute", "Ctrl+R")
    qtbot.keyClick(one.window, Qt.Key.Key_R, CTRL)
    assert not one.muted and not one.window.desk.bar.record.isChecked()
    one.store.reset_shortcuts()
    qtbot.keyClick(one.window, Qt.Key.Key_M, CTRL)
    assert one.muted


def test_what_another_process_writes_holds_at_once(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    store = SettingsStore(load()[0])
    Remembering(stage.window, store, lambda: False)
    store.follow()
    write({("shortcuts", "mute"): "F9"})
    qtbot.waitUntil(lambda: "(F9)" in stage.window.column.mute.toolTip(), timeout=WAIT_MS)
    write({("shortcuts", "mute"): None})
    qtbot.waitUntil(lambda: "(Ctrl+M)" in stage.window.column.mute.toolTip(), timeout=WAIT_MS)
    store.close()


def test_tooltips_and_what_a_screen_reader_says_follow(kept: Any) -> None:
    one = kept(mute="F9", find_next="F4")
    column, captions = one.window.column, one.window.captions
    assert column.mute.toolTip() == "Send silence instead of your voice (F9)"
    assert captions.search.forth.toolTip() == "The next match (Enter, F4)"
    assert captions.search.back.toolTip() == "The match before (Shift+Enter, Shift+F3)"
    one.store.set_shortcut("mute", "")
    assert column.mute.toolTip() == "Send silence instead of your voice"
    one.store.set_shortcut("mute", "Ctrl+Shift+M; F7")
    assert column.mute.toolTip() == "Send silence instead of your voice (Ctrl+Shift+M or F7)"
    said = QAccessible.queryAccessibleInterface(column.mute).text(QAccessible.Text.Description)
    assert "Ctrl+Shift+M or F7" in said
    assert column.power.accessibleDescription().endswith("(Ctrl+B)")
    one.store.set_shortcut("power", "F6")
    assert column.power.accessibleDescription().endswith("(F6)")
    for name in ("open_files", "find_next"):
        one.store.set_shortcut(name, "")
    assert one.window.desk.bar.files.toolTip() == "Clean sound files: choose them, or drop them on this window"
    assert captions.search.forth.toolTip() == "The next match (Enter)"
    one.store.set_shortcut("overlay", "Ctrl+Shift+K")
    assert "others (Ctrl+Shift+K). Right-click" in captions.overlay_button.toolTip()
    one.store.set_shortcut("record", "F12")
    assert one.window.desk.bar.record.toolTip() == "Record (F12)"


def test_a_menu_shows_the_keys_and_they_work_while_it_is_closed(kept: Any, qtbot: QtBot) -> None:
    one = kept(smaller_text="Ctrl+Shift+S")
    actions = {action.text(): action for action in one.window.captions.more.menu().actions()}
    assert actions["Smaller text"].shortcut().toString() == "Ctrl+Shift+S"
    qtbot.keyClick(one.window, Qt.Key.Key_S, CTRL | SHIFT)
    smaller = one.store.settings.caption_scale
    assert smaller < 1.0
    qtbot.keyClick(one.window, Qt.Key.Key_Minus, CTRL)
    assert one.store.settings.caption_scale == smaller
    qtbot.keyClick(one.window, Qt.Key.Key_Equal, CTRL)
    assert one.store.settings.caption_scale == pytest.approx(1.0, abs=0.01)


def test_typing_and_editing_in_the_search_stay_there(kept: Any, qtbot: QtBot) -> None:
    one = kept(mute="M", level="Shift+L", find="F", resync="7")
    bar = one.window.captions.search
    qtbot.keyClick(one.window, Qt.Key.Key_M)
    assert one.muted
    qtbot.keyClick(one.window, Qt.Key.Key_F)
    assert bar.isVisible() and bar.line.hasFocus()
    for letter, modifiers in ((Qt.Key.Key_M, NONE), (Qt.Key.Key_F, NONE), (Qt.Key.Key_L, SHIFT), (Qt.Key.Key_7, NONE)):
        qtbot.keyClick(bar.line, letter, modifiers)
    assert bar.line.text().lower() == "mfl7"
    assert one.muted and not one.window.config.level
    qtbot.keyClick(bar.line, Qt.Key.Key_A, CTRL)
    assert bar.line.selectedText().lower() == "mfl7"
    qtbot.keyClick(bar.line, Qt.Key.Key_M, CTRL)  # no longer mute, and no letter
    assert one.muted and bar.line.text().lower() == "mfl7"
    qtbot.keyClick(bar.line, Qt.Key.Key_Escape)
    assert not bar.isVisible()


def test_undo_is_the_lines_while_one_types_and_the_panels_else(kept: Any, qtbot: QtBot) -> None:
    one = kept()
    captions = one.window.captions
    captions.show_caption(Caption(0.0, (Word("Hello", 0.0, 0.5),), (), 0.0))
    captions.clear()
    captions.search.open_search()
    qtbot.keyClicks(captions.search.line, "abc")
    qtbot.keyClick(captions.search.line, Qt.Key.Key_Z, CTRL)
    assert captions.search.line.text() != "abc" and captions.text.toPlainText() == ""
    captions.search.close_search()
    qtbot.keyClick(captions.text, Qt.Key.Key_Z, CTRL)
    assert captions.text.toPlainText() == "Hello"


def test_windows_that_are_opened_later_have_the_keys_of_now(kept: Any, qtbot: QtBot) -> None:
    one = kept(overlay="F8", larger_text="F6", play="Ctrl+P")
    qtbot.keyClick(one.window, Qt.Key.Key_F8)
    overlay = one.window.captions.overlay
    assert overlay is not None and overlay.isVisible()
    in_front(qtbot, overlay)
    qtbot.keyClick(overlay, Qt.Key.Key_F6)
    assert overlay.look.zoom == 1
    one.store.set_shortcut("overlay", "F7")
    qtbot.keyClick(overlay, Qt.Key.Key_F8)
    assert overlay.isVisible()
    qtbot.keyClick(overlay, Qt.Key.Key_F7)
    assert not overlay.isVisible() and not one.window.captions.overlay_button.isChecked()
    files = one.window.desk.show_files()
    assert files.listening.play.toolTip().startswith("Play or pause (Ctrl+P). ")
    one.store.set_shortcut("play", None)
    assert files.listening.play.toolTip().startswith("Play or pause (P). ")
    assert files.listening.which.toolTip() == "From the original to the result and back (A)"


def test_what_is_held_down_acts_once_but_for_steps(kept: Any) -> None:
    one = kept()
    repeats = {s.key().toString(): s.autoRepeat() for s in one.window.findChildren(QShortcut)}
    assert not repeats["Ctrl+M"] and not repeats["Ctrl+R"] and repeats["F3"]


def test_every_shortcut_of_the_table_is_bound_somewhere(kept: Any) -> None:
    one = kept()
    files = one.window.desk.show_files()
    one.store.set_shortcut("compare", "F5")
    assert keys_of(one.window).now["compare"] == ("F5",)
    bound = {s.key().toString() for window in (one.window, files) for s in window.findChildren(QShortcut)}
    bound |= {action.shortcut().toString() for action in one.window.captions.actions()}
    assert bound == {keys.keys[0] for keys in SHORTCUTS.values()} - {"A"} | {"F5", "Esc"}
