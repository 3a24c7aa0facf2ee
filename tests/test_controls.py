"""The controls of the column."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.controls import DROP_STEP, KEEP_STEP, BackgroundControl, GroundSlider
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


def test_a_place_that_is_remembered_gets_its_title_when_the_places_are_known(qtbot: QtBot) -> None:
    control = BackgroundControl(Background.parse("swap:rain"))
    qtbot.addWidget(control)
    control.set_places([RAIN])
    assert "steady rain" in control.sentence.text()


@pytest.mark.parametrize("step", [DROP_STEP, KEEP_STEP])
def test_the_whole_knob_is_seen_at_the_ends(qtbot: QtBot, step: int) -> None:
    slider = GroundSlider()
    qtbot.addWidget(slider)
    slider.setValue(step)
    slider.resize(260, 30)
    slider.show()
    slider.setFocus()
    picture = slider.grab().toImage()
    for x in (0, picture.width() - 1):
        assert len({picture.pixel(x, y) for y in range(picture.height())}) == 1
