"""The controls of the column."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.controls import DROP_STEP, KEEP_STEP, BackgroundControl
from engine.types import Background
from tests.stage import RAIN


@pytest.mark.parametrize("text", ["drop", "keep", "-12", "swap:rain", "swap:rain@-6"])
def test_the_control_shows_and_gives_every_background(qtbot: QtBot, text: str) -> None:
    control = BackgroundControl(Background.parse(text))
    qtbot.addWidget(control)
    control.set_places([RAIN])
    assert str(control.background()) == text


def test_a_place_comes_at_the_old_level_and_goes_back_to_the_old_setting(qtbot: QtBot) -> None:
    control = BackgroundControl(Background.parse("drop"))
    qtbot.addWidget(control)
    control.set_places([RAIN])
    wanted: list[str] = []
    control.changed.connect(lambda background: wanted.append(str(background)))
    for index in (1, 0):
        control.place.setCurrentIndex(index)
        control.place.activated.emit(index)
    assert wanted == ["swap:rain", "drop"]


def test_the_slider_goes_by_keyboard_from_drop_to_keep(qtbot: QtBot) -> None:
    control = BackgroundControl(Background.parse("drop"))
    qtbot.addWidget(control)
    control.show()
    qtbot.keyClick(control.slider, Qt.Key.Key_End)
    assert control.slider.value() == KEEP_STEP
    qtbot.keyClick(control.slider, Qt.Key.Key_Left)
    assert str(control.background()) == "-1"
    assert control.value.text() == "−1 dB"
    qtbot.keyClick(control.slider, Qt.Key.Key_Home)
    assert control.slider.value() == DROP_STEP
    assert control.value.text() == "Drop"


def test_a_place_can_be_heard_without_being_chosen(qtbot: QtBot) -> None:
    deaf, control = (BackgroundControl(Background.parse("drop"), hears) for hears in (False, True))
    qtbot.addWidget(deaf)
    qtbot.addWidget(control)
    deaf.set_places([RAIN])
    assert deaf.hear.isHidden() and control.hear.isHidden()
    control.set_places([RAIN])
    assert not control.hear.isHidden()
    with qtbot.waitSignal(control.place_asked) as asked:
        control.hear.menu().actions()[0].trigger()
    assert asked.args == ["rain"]
    assert str(control.background()) == "drop"
