"""The settings dialog, as a person uses it: by mouse, by keyboard, with large type, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QAbstractButton, QApplication, QCheckBox, QComboBox, QDoubleSpinBox, QLabel, QLineEdit
from pytestqt.qtbot import QtBot

from app.record_bar import short
from app.remembering import Remembering
from app.settings import ROWS, Remembered, Settings
from app.settings_dialog import SettingsDialog
from app.settings_store import SettingsStore
from app.settings_use import default_folder
from app.tray import NO_TRAY
from tests.stage import WAIT_MS, Stage


class Opened:
    """A window with its dialog open; nothing is written anywhere."""

    def __init__(self, stage: Stage, qtbot: QtBot, settings: Settings) -> None:
        self.stage, self.window = stage, stage.window
        self.store = SettingsStore(Remembered(settings), lambda changes: None)
        self.kept = Remembering(stage.window, self.store, lambda: False)
        stage.until_on()
        self.kept.button.click()
        assert self.kept.dialog is not None
        self.dialog: SettingsDialog = self.kept.dialog
        qtbot.waitUntil(self.dialog.isVisible, timeout=WAIT_MS)


@pytest.fixture
def opened(stages: Any, qtbot: QtBot) -> Iterator[Any]:
    made: list[Opened] = []

    def one(**values: Any) -> Opened:
        made.append(Opened(stages(), qtbot, Settings(**values)))
        return made[-1]

    yield one
    for each in made:
        each.store.close()


def test_every_row_of_the_table_is_there_with_its_value(opened: Any) -> None:
    dialog = opened(theme="dark", caption_scale=1.5, level=True, recording_folder="/tapes").dialog
    assert list(dialog.controls) == list(ROWS)
    assert dialog.controls["theme"].focus.currentData() == "dark"
    assert dialog.controls["caption_scale"].focus.value() == 1.5
    assert dialog.controls["level"].focus.isChecked()
    assert dialog.controls["recording_folder"].focus.text() == "/tapes"
    shown = [label.text() for label in dialog.findChildren(QLabel)]
    assert ROWS["caption_others"].sentence in shown
    assert NO_TRAY in shown and not dialog.controls["keep_in_tray"].widget.isEnabled()


def test_it_opens_by_the_keyboard(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    store = SettingsStore(Remembered(), lambda changes: None)
    kept = Remembering(stage.window, store, lambda: False)
    stage.window.activateWindow()
    qtbot.waitUntil(stage.window.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(stage.window, Qt.Key.Key_Comma, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: kept.dialog is not None and kept.dialog.isVisible(), timeout=WAIT_MS)
    assert kept.dialog is not None
    qtbot.keyClick(kept.dialog, Qt.Key.Key_Escape)
    assert not kept.dialog.isVisible()
    store.close()


def test_everything_has_a_name_and_is_reached_by_keyboard(opened: Any) -> None:
    dialog = opened().dialog
    seen = 0
    for kind in (QAbstractButton, QComboBox, QLineEdit, QDoubleSpinBox, QCheckBox):
        for widget in dialog.findChildren(kind):
            if widget.objectName().startswith("qt_") or not widget.isVisible():
                continue
            seen += 1
            assert widget.accessibleName() or getattr(widget, "text", str)(), widget
            assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus, widget
    assert seen > 2 * len(ROWS)
    for name, control in dialog.controls.items():
        assert control.focus.accessibleName(), name
        assert control.focus.accessibleDescription(), name
    names = [reset.accessibleName() for reset in dialog.resets.values()]
    assert len(set(names)) == len(ROWS)


def test_a_choice_holds_at_once_and_resets(opened: Any, qtbot: QtBot) -> None:
    one = opened()
    dialog, window = one.dialog, one.window
    assert not dialog.resets["level"].isEnabled()
    dialog.controls["level"].focus.click()
    assert one.store.settings.level and window.config.level
    assert dialog.resets["level"].isEnabled()
    dialog.resets["level"].click()
    assert not one.store.settings.level and not window.config.level
    assert not dialog.controls["level"].focus.isChecked()
    dialog.controls["background"].focus.setValue(-15)
    assert str(window.config.background) == "-15"
    assert window.background.slider.value() == -15
    dialog.controls["caption_scale"].focus.setValue(2.0)
    assert one.store.settings.caption_scale == 2.0
    dialog.reset_all.click()
    assert one.store.settings == Settings()
    assert str(window.config.background) == "drop"


def test_devices_are_offered_and_the_output_waits_for_its_turn(opened: Any, qtbot: QtBot) -> None:
    one = opened()
    box, output = one.dialog.controls["input"].focus, one.dialog.controls["output"].focus
    qtbot.waitUntil(lambda: box.findData("other") >= 0, timeout=WAIT_MS)
    assert [box.itemData(i) for i in range(box.count())] == ["", "mic", "other"]
    box.setCurrentIndex(box.findData("other"))
    box.activated.emit(box.currentIndex())
    assert (one.store.settings.input, one.window.choices.input) == ("other", "other")
    assert not output.isEnabled()
    one.dialog.controls["virtual_microphone"].focus.click()
    assert output.isEnabled()
    output.setCurrentIndex(output.findData("spk"))
    output.activated.emit(output.currentIndex())
    assert (one.store.settings.output, one.window.choices.output) == ("spk", "spk")


def test_what_the_window_changes_is_seen_in_the_dialog(opened: Any) -> None:
    one = opened()
    one.window.column.level.click()
    one.window.captions.switch.click()
    one.window.background.slider.setValue(-30)
    assert one.dialog.controls["level"].focus.isChecked()
    assert not one.dialog.controls["captions"].focus.isChecked()
    assert one.dialog.controls["background"].focus.value() == -30


def test_presets_by_the_menu(opened: Any, qtbot: QtBot) -> None:
    one = opened(background="-33")
    dialog = one.dialog
    qtbot.keyClicks(dialog.name, "Desk & chair")
    qtbot.keyClick(dialog.name, Qt.Key.Key_Return)
    assert dialog.isVisible() and dialog.name.text() == ""
    entries = {action.text(): action for action in dialog.menu.actions()}
    assert list(entries)[:4] == ["Call", "Stream", "Keep the room", "Desk && chair"]
    entries["Keep the room"].trigger()
    assert str(one.window.config.background) == "keep"
    entries["Desk && chair"].trigger()
    assert str(one.window.config.background) == "-33"
    dialog.forget_menu.actions()[0].trigger()
    assert [action.text() for action in dialog.menu.actions()] == ["Call", "Stream", "Keep the room"]
    qtbot.keyClicks(dialog.name, "call")
    dialog.save.click()
    assert "comes with Sottovoce" in dialog.line.text() and dialog.name.text() == "call"


def test_what_may_not_be_is_said_and_the_control_goes_back(opened: Any) -> None:
    one = opened(recording_folder="/tapes")
    line = one.dialog.controls["recording_folder"].focus
    line.setText("a\tb")
    line.editingFinished.emit()
    assert one.dialog.line.isVisible() and one.dialog.line.text().startswith("Recordings is one line")
    assert line.text() == "/tapes"
    one.dialog.controls["level"].focus.click()
    assert not one.dialog.line.isVisible()


def test_a_folder_that_is_being_typed_is_left_alone(opened: Any, qtbot: QtBot) -> None:
    one = opened(recording_folder="/tapes")
    line = one.dialog.controls["recording_folder"].focus
    line.selectAll()
    qtbot.keyClicks(line, "/reels")
    one.window.bridge.devices.emit([])  # a microphone was plugged in
    assert line.text() == "/reels"
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert one.store.settings.recording_folder == "/reels"
    qtbot.keyClicks(line, "/more")
    one.store.set(recording_folder="/boxes")
    assert line.text() == "/boxes"
    one.store.set(recording_folder="")
    assert line.text() == "" and line.placeholderText() == short(default_folder())


@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_no_label_is_clipped_at_either_size_of_type(opened: Any, qtbot: QtBot, factor: float) -> None:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    usual = QFont(app.font())
    large = QFont(usual)
    large.setPointSizeF(factor * max(10.0, usual.pointSizeF()))
    app.setFont(large)
    try:
        dialog = opened().dialog
        qtbot.wait(50)
        for label in dialog.findChildren(QLabel):
            if label.isVisible() and label.text() and not label.wordWrap():
                assert label.width() >= label.fontMetrics().horizontalAdvance(label.text()) - 1, label.text()
        assert dialog.area.horizontalScrollBar().maximum() == 0
    finally:
        app.setFont(usual)


def test_it_goes_with_the_window(opened: Any) -> None:
    one = opened()
    one.window.close()
    assert not one.dialog.isVisible()
