"""Boxes to choose from: what is chosen can be seen, and devices that come and go are told."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.boxes import DeviceBox, QuietComboBox
from app.column import ControlColumn
from app.known_devices import KnownDevices
from app.theme import DARK, LIGHT, apply_theme
from engine.devices import INPUT, DeviceInfo
from engine.types import Background

DESK, HEADSET = ("Desk microphone", "desk"), ("Headset", "alsa_input.usb-7f")


def offered(box: QuietComboBox) -> list[str]:
    return [box.itemText(i) for i in range(box.count())]


def test_the_entry_that_is_chosen_stands_out_in_the_open_list(qtbot: QtBot, qapp: QApplication) -> None:
    for theme in (DARK, LIGHT):
        apply_theme(qapp, theme)
        box = QuietComboBox()
        qtbot.addWidget(box)
        box.addItems(["Where I am", "A busy café", "Steady rain"])
        box.setCurrentIndex(1)
        box.show()
        box.showPopup()
        view = box.view()
        qtbot.waitUntil(view.isVisible)
        row = view.visualRect(view.currentIndex())
        picture = view.viewport().grab().toImage()
        assert picture.pixelColor(row.topLeft() + QPoint(3, 3)) == QColor(theme.accent)
        box.hidePopup()


def test_names_that_are_longer_than_the_box_can_be_read_in_its_list(qtbot: QtBot) -> None:
    box = DeviceBox("Microphone")
    qtbot.addWidget(box)
    name = "USB condenser microphone with a long name, digital mono"
    box.show_choices([(name, "a")], "a")
    box.resize(120, box.height())
    box.show()
    box.showPopup()
    qtbot.waitUntil(box.view().isVisible)
    assert box.view().width() > box.view().fontMetrics().horizontalAdvance(name)
    box.hidePopup()


def test_a_device_that_comes_while_the_list_is_open_is_there(qtbot: QtBot) -> None:
    box = DeviceBox("Microphone")
    qtbot.addWidget(box)
    box.show_choices([DESK], "desk")
    box.show()
    with qtbot.waitSignal(box.looked_at):
        box.showPopup()
    qtbot.waitUntil(box.view().isVisible)
    before = box.view().height()
    box.show_choices([HEADSET, DESK], "desk")
    assert box.view().isVisible() and box.view().height() > before
    assert offered(box) == ["Headset", "Desk microphone"]
    assert box.view().currentIndex().row() == 1  # still what was pointed at
    qtbot.keyClick(box.view(), Qt.Key.Key_Up)
    with qtbot.waitSignal(box.chosen) as chosen:
        qtbot.keyClick(box.view(), Qt.Key.Key_Return)
    assert chosen.args == [HEADSET[1]]


def test_a_device_that_has_gone_keeps_its_name(qtbot: QtBot) -> None:
    box = DeviceBox("Microphone")
    qtbot.addWidget(box)
    box.show_choices([DESK, HEADSET], HEADSET[1])
    box.show_choices([DESK], HEADSET[1])
    assert box.currentText() == "Headset (gone)"
    box.show_choices([DESK, HEADSET], HEADSET[1])
    assert offered(box) == ["Desk microphone", "Headset"]
    box.show_choices([DESK, ("Headset (gone)", HEADSET[1])], "desk")  # as another box has it
    box.show_choices([DESK], HEADSET[1])
    assert box.currentText() == "Headset (gone)"
    box.show_choices([DESK], "never seen")
    assert box.currentText() == "never seen (gone)"


def test_two_devices_of_one_name_are_told_apart(qtbot: QtBot) -> None:
    known = KnownDevices()
    known.take(
        [DeviceInfo(id, name, INPUT, False) for id, name in (("a", "USB audio"), ("b", "USB audio"), ("c", "Desk"))]
    )
    column = ControlColumn(Background())
    qtbot.addWidget(column)
    column.show_devices(known, None, None)
    assert offered(column.input)[1:4] == ["USB audio, a", "USB audio, b", "Desk"]
