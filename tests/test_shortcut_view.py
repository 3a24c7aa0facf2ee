"""The section of the settings where shortcuts are changed, and the list of them, as a person uses both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.remembering import Remembering
from app.settings_dialog import SettingsDialog
from app.settings_file import load
from app.settings_store import SettingsStore
from app.shortcut_view import ShortcutList
from app.shortcuts import SHORTCUTS
from tests.stage import WAIT_MS, Stage

CTRL = Qt.KeyboardModifier.ControlModifier


class Opened:
    """A window with its dialog open, and the settings of the file."""

    def __init__(self, stage: Stage, qtbot: QtBot) -> None:
        self.window, self.qtbot = stage.window, qtbot
        self.store = SettingsStore(load()[0])
        self.kept = Remembering(stage.window, self.store, lambda: False)
        stage.until_on()
        self.kept.open_dialog()
        assert self.kept.dialog is not None
        self.dialog: SettingsDialog = self.kept.dialog
        qtbot.waitUntil(self.dialog.isVisible, timeout=WAIT_MS)
        self.section = self.dialog.shortcuts

    def press(self, name: str, key: Qt.Key, modifiers: Qt.KeyboardModifier = CTRL) -> None:
        self.dialog.activateWindow()
        edit = self.section.edits[name]
        edit.setFocus()
        self.qtbot.keyClick(edit, key, modifiers)

    def shown(self, name: str) -> str:
        return self.section.edits[name].keySequence().toString()

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def opened(stages: Any, qtbot: QtBot) -> Iterator[Any]:
    made: list[Opened] = []

    def one() -> Opened:
        made.append(Opened(stages(), qtbot))
        return made[-1]

    yield one
    for each in made:
        each.close()


def test_keys_that_are_pressed_hold_at_once_and_are_read_back(opened: Any) -> None:
    first = opened()
    assert first.shown("mute") == "Ctrl+M" and not first.section.resets["mute"].isEnabled()
    first.press("mute", Qt.Key.Key_K)
    assert first.shown("mute") == "Ctrl+K"
    assert first.window.column.mute.toolTip().endswith("(Ctrl+K)")
    assert not first.window.column.mute.isChecked()
    first.section.offs["level"].click()
    assert first.shown("level") == "" and not first.section.offs["level"].isEnabled()
    first.close()
    assert load()[0].shortcuts == {"mute": "Ctrl+K", "level": ""}
    second = opened()
    assert second.shown("mute") == "Ctrl+K" and second.shown("level") == ""
    assert second.window.column.level.toolTip() == "Bring your voice to a steady level"
    second.section.resets["mute"].click()
    assert second.shown("mute") == "Ctrl+M" and not second.section.resets["mute"].isEnabled()
    assert second.section.reset_all.isEnabled()
    second.section.reset_all.click()
    assert second.shown("level") == "Ctrl+L" and not second.section.reset_all.isEnabled()
    second.close()
    assert load()[0].shortcuts == {}


def test_keys_that_are_taken_are_refused_in_one_sentence(opened: Any) -> None:
    one = opened()
    one.press("mute", Qt.Key.Key_R)
    assert one.dialog.line.isVisible()
    assert one.dialog.line.text() == "Ctrl+R is taken by Record; choose other keys, or change those first"
    assert one.shown("mute") == "Ctrl+M" and not one.window.desk.bar.record.isChecked()
    one.press("mute", Qt.Key.Key_C)
    assert one.dialog.line.text().startswith("Ctrl+C always does the same")
    one.press("mute", Qt.Key.Key_Return, Qt.KeyboardModifier.NoModifier)
    assert one.dialog.line.text().startswith("Return always does the same") and one.dialog.isVisible()
    assert one.store.remembered.shortcuts == {}
    one.press("mute", Qt.Key.Key_K)
    assert not one.dialog.line.isVisible()
    one.press("record", Qt.Key.Key_M)
    one.section.resets["mute"].click()
    assert one.dialog.line.text().startswith("Ctrl+M is taken by Record") and one.shown("mute") == "Ctrl+K"


def test_a_modifier_alone_changes_nothing(opened: Any, qtbot: QtBot) -> None:
    one = opened()
    one.press("mute", Qt.Key.Key_Control, Qt.KeyboardModifier.NoModifier)
    one.section.edits["level"].setFocus()
    qtbot.waitUntil(lambda: one.shown("mute") == "Ctrl+M", timeout=WAIT_MS)
    assert one.store.remembered.shortcuts == {} and not one.dialog.line.isVisible()


def test_the_keyboard_goes_through_the_fields_and_out_of_the_dialog(opened: Any, qtbot: QtBot) -> None:
    one = opened()
    one.dialog.activateWindow()
    qtbot.waitUntil(one.dialog.isActiveWindow, timeout=WAIT_MS)
    one.section.edits["mute"].setFocus()
    qtbot.keyClick(one.section.edits["mute"], Qt.Key.Key_Tab)
    assert one.section.offs["mute"].hasFocus()
    one.section.edits["mute"].setFocus()
    qtbot.keyClick(one.section.edits["mute"], Qt.Key.Key_Escape)
    assert not one.dialog.isVisible() and one.store.remembered.shortcuts == {}


def test_every_row_is_there_with_a_name_of_its_own(opened: Any) -> None:
    section = opened().section
    assert list(section.edits) == list(SHORTCUTS)
    names = [edit.accessibleName() for edit in section.edits.values()]
    names += [button.accessibleName() for button in (*section.offs.values(), *section.resets.values())]
    assert len(set(names)) == 3 * len(SHORTCUTS)
    assert section.sentences["larger_text"].text() == "Write captions larger; also Ctrl+="
    assert "(sound files)" in section.sentences["play"].text()


def listed(window: Any) -> ShortcutList:
    found = window.findChild(ShortcutList)
    assert isinstance(found, ShortcutList) and found.isVisible()
    return found


def test_one_key_lists_all_as_they_are_now(opened: Any, qtbot: QtBot) -> None:
    one = opened()
    one.dialog.close()
    one.store.set_shortcut("mute", "F9")
    one.store.set_shortcut("level", "")
    one.window.activateWindow()
    qtbot.waitUntil(one.window.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(one.window, Qt.Key.Key_F1)
    shown = listed(one.window)
    sentences = {sentence: keys for _, keys, sentence in shown.rows()}
    assert sentences["Send silence instead of your voice"] == "F9"
    assert "Bring your voice to a steady level" not in sentences
    assert sentences["Write captions larger"] == "Ctrl++ or Ctrl+="
    texts = {label.text() for label in shown.area.widget().findChildren(QLabel)}
    assert {"F9", "Send silence instead of your voice", "Esc"} <= texts
    one.store.set_shortcut("mute", "F10")
    assert "F10" in {label.text() for label in shown.area.widget().findChildren(QLabel)}
    qtbot.keyClick(shown, Qt.Key.Key_Escape)
    assert not shown.isVisible()
    one.store.set_shortcut("mute", "F11")  # nobody listens any more
    one.window.activateWindow()
    qtbot.waitUntil(lambda: one.window.findChild(ShortcutList) is None, timeout=WAIT_MS)
    qtbot.waitUntil(one.window.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(one.window, Qt.Key.Key_F1)
    assert ("Shortcuts", "F11", "Send silence instead of your voice") in listed(one.window).rows()
