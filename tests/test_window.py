"""The window, as a person uses it, with a made-up engine."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QSlider, QWidget
from pytestqt.qtbot import QtBot

from app.bridge import RunState
from app.caption_text import CaptionText
from app.column import DEMO_INPUT
from app.controls import METER_FLOOR_DB
from app.known_devices import VIRTUAL_OUTPUT
from app.status_line import StatusLine
from app.theme import ThemeChoice, system_theme
from app.timeline import BANDS
from app.window import Choices
from engine.devices import INPUT, OUTPUT, DeviceInfo
from engine.types import DeviceChange, EngineConfig, Problem
from tests.fake_engine import FakeEngine
from tests.stage import MICROPHONE, OTHER, OWN, SPEAKER, WAIT_MS


def texts(box: QComboBox) -> list[str]:
    return [box.itemText(i) for i in range(box.count())]


# The window -----------------------------------------------------------------------------------------------------------


def test_it_starts_with_the_microphone_into_the_microphone_for_calls(stages: Any) -> None:
    stage = stages()
    stage.until_on()
    assert stage.engine.config.input is None
    assert stage.engine.config.virtual_mic
    assert texts(stage.window.input) == ["Desk microphone (default)", "Desk microphone", "Headset", "Demo recording"]
    assert "Loudspeaker" in texts(stage.window.output)


HOLE = [
    DeviceInfo("hole", "BlackHole 2ch", kind, default=kind == INPUT, is_monitor=kind == INPUT)
    for kind in (INPUT, OUTPUT)
]


def test_where_there_is_a_cable_calls_get_the_sound_through_it(
    stages: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: False)
    stage = stages(devices=[OTHER, *HOLE, SPEAKER])
    stage.until_on()
    window = stage.window
    assert stage.engine.config.virtual_mic and stage.engine.config.output is None
    assert window.output.currentText() == "BlackHole 2ch microphone, for calls"
    assert texts(window.input) == ["System default", "Headset", "Demo recording"]  # though the cable is the default
    window.choose("output", "spk")
    qtbot.waitUntil(lambda: len(stage.made) == 2 and stage.bridge.state is RunState.ON, timeout=WAIT_MS)
    assert "BlackHole 2ch (what it plays)" in texts(window.input)
    window.choose("input", "hole")
    qtbot.waitUntil(lambda: stage.bridge.state is RunState.ON, timeout=WAIT_MS)
    window.choose("output", VIRTUAL_OUTPUT)
    assert window.choices.input is None and not any("plays" in text for text in texts(window.input))
    assert "BlackHole 2ch hears that output" in window.message.text()
    qtbot.waitUntil(lambda: stage.engine.config.virtual_mic and stage.bridge.state is RunState.ON, timeout=WAIT_MS)
    assert stage.engine.config.input is None


def test_a_microphone_that_hears_the_cable_is_not_taken_up_again(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: False)
    stage = stages(devices=[OTHER, *HOLE, SPEAKER], choices=Choices("hole", "spk", settled=True, for_calls=True))
    stage.until_on()
    assert (stage.engine.config.input, stage.engine.config.virtual_mic) == (None, True)
    assert "BlackHole 2ch hears that output" in stage.window.message.text()


@pytest.mark.parametrize(("settled", "says"), [(False, "Choose where the clean sound goes"), (True, "")])
def test_without_a_cable_it_is_asked_where_the_sound_goes_unless_that_is_known(
    stages: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, settled: bool, says: str
) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: False)
    stage = stages(choices=Choices(None, "spk" if settled else None, settled=settled, for_calls=True))
    qtbot.waitUntil(lambda: bool(stage.window.devices.listed), timeout=WAIT_MS)
    assert not any("for calls" in text for text in texts(stage.window.output))
    assert says in stage.window.message.text()
    assert bool(stage.made) == settled
    if settled:
        stage.until_on()
        assert (stage.engine.config.output, stage.engine.config.virtual_mic) == ("spk", False)


def test_without_a_microphone_the_demo_plays_and_says_why(stages: Any) -> None:
    stage = stages(devices=[OWN, SPEAKER])
    stage.until_on()
    assert stage.engine.config.input == DEMO_INPUT
    assert not stage.engine.config.virtual_mic
    assert "No microphone" in stage.window.message.text()


def test_sound_moves_everything(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    window = stage.window
    qtbot.waitUntil(lambda: len(window.captions.text.final_text.split()) >= 3, timeout=WAIT_MS)
    assert window.captions.text.tentative_text.strip()
    assert window.timeline.head > 50
    assert window.status.state.text() == "Cleaning"
    assert window.status.delay.text() == "Delay 64 ms"
    assert "algorithm: 30.0 ms" in window.status.delay.toolTip()
    assert window.status.captions.isVisible()
    picture = window.inside.heard.image.image
    assert picture.shape == (BANDS, 600, 4)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 20


def test_the_switch_is_bypass_and_back(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    qtbot.mouseClick(stage.window.power, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: stage.engine.state == "bypass", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: stage.window.status.state.text() == "Bypass", timeout=WAIT_MS)
    assert not stage.window.power.isChecked()
    qtbot.keyClick(stage.window.power, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: stage.engine.state == "running", timeout=WAIT_MS)
    assert stage.window.power.accessibleName() == "Sottovoce: On"


def test_rest_is_said_and_not_taken_for_a_fault(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    stage.engine.pause()
    stage.engine.extra.append(dataclasses.replace(stage.engine._stats(1.0), state="idle"))
    qtbot.waitUntil(lambda: stage.window.status.state.text() == "Resting", timeout=WAIT_MS)
    assert stage.window.power.isChecked()
    assert "Resting" in stage.window.power.accessibleDescription()


def test_devices_change_in_mid_run_and_our_own_by_a_new_start(stages: Any, qtbot: QtBot) -> None:
    stage = stages(choices=Choices("mic", None))
    stage.until_on()
    window = stage.window
    window.input.setCurrentIndex(window.input.findData("other"))
    window.input.activated.emit(window.input.currentIndex())
    qtbot.waitUntil(lambda: ("set", {"input": "other"}) in stage.engine.calls, timeout=WAIT_MS)
    window.output.setCurrentIndex(window.output.findData("spk"))
    window.output.activated.emit(window.output.currentIndex())
    qtbot.waitUntil(lambda: len(stage.made) == 2, timeout=WAIT_MS)
    stage.until_on()
    assert (stage.engine.config.input, stage.engine.config.output) == ("other", "spk")


def test_what_is_plugged_in_later_is_offered_when_one_looks(stages: Any, qtbot: QtBot) -> None:
    devices = [MICROPHONE, SPEAKER]
    stage = stages(devices=devices)
    stage.until_on()
    assert "Headset" not in texts(stage.window.input)
    devices.append(OTHER)
    stage.window.input.setFocus()
    stage.window.input.looked_at.emit()
    qtbot.waitUntil(lambda: "Headset" in texts(stage.window.input), timeout=WAIT_MS)


def test_a_failure_is_a_calm_line_and_can_be_tried_again(stages: Any, qtbot: QtBot) -> None:
    stage = stages(fail="the microphone is taken; close the other program")
    message = stage.window.message
    qtbot.waitUntil(lambda: "microphone is taken" in message.text(), timeout=WAIT_MS)
    assert message.retry.isVisible()
    assert stage.window.power.accessibleName() == "Sottovoce: Off"
    qtbot.mouseClick(message.retry, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(stage.made) == 2, timeout=WAIT_MS)


def test_a_problem_in_mid_run_is_shown(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    stage.engine.extra.append(Problem(1.0, "the models failed; your voice goes on", "bypass"))
    qtbot.waitUntil(lambda: "The models failed" in stage.window.message.text(), timeout=WAIT_MS)
    assert not stage.window.message.retry.isVisible()
    assert stage.bridge.state is RunState.ON
    stage.engine.extra.append(Problem(2.0, "the microphone is gone; plug it in", "stopped"))
    qtbot.waitUntil(lambda: stage.bridge.state is RunState.OFF, timeout=WAIT_MS)
    assert stage.window.message.retry.isVisible()


def test_it_answers_while_the_engine_is_stalled(stages: Any, qtbot: QtBot) -> None:
    stall = threading.Event()
    stage = stages(stall=stall)
    stage.until_on()
    window = stage.window
    answers_s: list[float] = []
    for step in range(20):
        begin = time.monotonic(), time.thread_time()
        window.background.slider.setValue(-step)
        qtbot.mouseClick(window.power, Qt.MouseButton.LeftButton)
        qtbot.wait(1)
        answers_s.append(time.thread_time() - begin[1])
        assert time.monotonic() - begin[0] < 2.0  # it did not wait; the machine may be busy with other things
    stall.set()
    assert float(np.median(answers_s)) < 0.1


def test_closing_stops_the_engine(stages: Any) -> None:
    stage = stages()
    stage.until_on()
    stage.window.close()
    assert not stage.window.isVisible()
    stage.qtbot.waitUntil(lambda: ("stop", {}) in stage.engine.calls, timeout=WAIT_MS)


def test_everything_has_a_name_and_is_reached_by_keyboard(stages: Any) -> None:
    window = stages().window
    for kind in (QAbstractButton, QComboBox, QSlider, CaptionText):
        for widget in window.findChildren(kind):
            if widget.objectName().startswith("qt_") or not widget.isVisible():
                continue
            assert widget.accessibleName() or getattr(widget, "text", str)(), widget
            assert widget.focusPolicy() != Qt.FocusPolicy.NoFocus, widget


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (960, 560)])
def test_no_label_is_clipped(stages: Any, qtbot: QtBot, size: tuple[int, int]) -> None:
    stage = stages()
    window = stage.window
    window.resize(*size)
    qtbot.waitUntil(lambda: window.status.captions.isVisible(), timeout=WAIT_MS)
    qtbot.wait(50)
    assert (window.width(), window.height()) == size
    for label in window.findChildren(QLabel):
        if label.isVisible() and label.text() and not label.wordWrap():
            assert label.width() >= label.fontMetrics().horizontalAdvance(label.text()) - 1, label.text()
            assert label.height() >= label.fontMetrics().height() - 1, label.text()


@pytest.mark.parametrize("choice", [ThemeChoice.DARK, ThemeChoice.LIGHT])
def test_text_is_readable_in_both_themes(choice: ThemeChoice) -> None:
    theme = system_theme(choice)
    for ink, paper in ((theme.text, theme.panel), (theme.muted, theme.panel), (theme.muted, theme.window),
                       (theme.on_accent, theme.accent), (theme.text, theme.warning_panel)):  # fmt: skip
        assert contrast(ink, paper) >= 4.5, (ink, paper)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_while_a_device_is_waited_for_the_meters_are_empty(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    qtbot.waitUntil(lambda: stage.window.level_in._rms_db > METER_FLOOR_DB, timeout=WAIT_MS)
    stage.engine.pause()
    stage.engine.state = "waiting"
    stage.engine.extra.append(stage.engine._stats(9.0))
    qtbot.waitUntil(lambda: stage.window.level_in._rms_db <= METER_FLOOR_DB, timeout=WAIT_MS)
    assert stage.window.level_out._peak_db <= METER_FLOOR_DB


def test_a_device_that_is_back_is_called_by_its_name(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    stage.window._list_devices([SPEAKER])
    stage.engine.extra.append(DeviceChange(3.0, "back", MICROPHONE.id))
    qtbot.waitUntil(lambda: stage.window.message.text() == f"Back: {MICROPHONE.name}", timeout=WAIT_MS)


def test_a_narrow_status_line_cuts_nothing(qtbot: QtBot) -> None:
    room, status = QWidget(), StatusLine()
    status.setParent(room)  # a window of its own would not be made narrower than its words
    qtbot.addWidget(room)
    status.set_captions(True)
    status.show_run_state(RunState.ON)
    status.show_stats(FakeEngine(EngineConfig())._stats(1.0))
    room.show()
    labels = (status.state, status.delay, status.dropouts, status.load, status.captions, status.provider)
    counts = []
    for width in range(1200, 160, -15):
        status.resize(width, status.sizeHint().height())
        status.layout().activate()
        shown = [label for label in labels if label.isVisible()]
        counts.append(len(shown))
        for label in shown:
            assert label.width() >= label.sizeHint().width(), f"{label.text()} is cut at {width}"
            assert label.geometry().right() < width, f"{label.text()} is outside at {width}"
        edges = sorted((label.geometry().left(), label.geometry().right()) for label in shown)
        assert all(right < left for (_, right), (left, _) in itertools.pairwise(edges)), f"one over another at {width}"
        assert status.state in shown
    assert counts[0] == len(labels)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 3, "it was never narrow"
