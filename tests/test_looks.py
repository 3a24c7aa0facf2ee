"""How it looks: nothing is cut off or lies over anything else at the sizes of screens, and every letter can be read.

Sizes are those of a window in points: 853 x 480 is a screen of 1280 x 720 that shows everything half as large again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QComboBox,
    QLabel,
    QLineEdit,
    QMainWindow,
    QSplitter,
    QStyle,
    QStyleOptionComboBox,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.bridge import RunState
from app.file_window import FileWindow
from app.fitting import fit_to_screen
from app.painted import TickBox
from app.remembering import WELCOME, Remembering
from app.settings_file import load
from app.settings_store import SettingsStore
from app.shortcut_view import show_shortcuts
from app.status_line import StatusLine
from app.theme import DARK, LIGHT, Theme, apply_theme
from app.timeline import Timeline
from app.views import InsideView
from engine.types import EngineConfig, Stats
from tests.fake_shelf import FakeShelf
from tests.stage import RAIN, WAIT_MS, Stage
from tests.test_window import contrast

SIZES = [(1280, 720), (1920, 1080), (853, 440)]
BOTH = pytest.mark.parametrize("theme", [DARK, LIGHT])
LONG = "the microphone HD Pro Webcam C920 is used by another program; close it, or choose another microphone"
LATE = Stats(9.0, "waiting", "tensorrt", 30.0, 1064.0, (("device", 20.0),), 3.1, 4.4, 9.0, 1.12, 1234, 112.4)


def cut_off(window: QWidget) -> list[str]:
    """What of the lettering has no room, or is outside of what holds it."""
    return [f"{type(w).__name__}: {why}" for w in window.findChildren(QWidget) if w.isVisible() for why in _cut(w)]


def _cut(widget: QWidget) -> Iterator[str]:
    text = ""
    if isinstance(widget, QLabel) and widget.text():
        text = widget.text()
        yield from _cut_label(widget)
    elif isinstance(widget, QAbstractButton) and widget.text():
        text = widget.text()
        if widget.width() < widget.fontMetrics().horizontalAdvance(text.replace("&&", "&")):
            yield f"{text} is wider than its button"
        if widget.height() < widget.fontMetrics().height():
            yield f"{text} is higher than its button"
    elif isinstance(widget, QComboBox):
        yield from _cut_box(widget)
    elif not isinstance(widget, QLineEdit):
        return
    holder = widget.parentWidget()
    if holder is not None and not holder.rect().contains(widget.geometry()):
        yield f"{text} is outside of what holds it"


def _cut_label(label: QLabel) -> Iterator[str]:
    text, metrics = label.text(), label.fontMetrics()
    if label.wordWrap():
        if label.height() < label.heightForWidth(label.width()) - 1:
            yield f"{text} has more lines than there is room for"
        return
    if label.contentsRect().width() < metrics.horizontalAdvance(text) - 1:
        yield f"{text} is wider than its label"
    if label.height() < metrics.height() - 1:
        yield f"{text} is higher than its label"
    if "…" in text and not label.toolTip() and not text.endswith(" …"):
        yield f"{text} is shortened, and nothing tells the whole"


def _cut_box(box: QComboBox) -> Iterator[str]:
    option, control = QStyleOptionComboBox(), QStyle.ComplexControl.CC_ComboBox
    box.initStyleOption(option)
    field = box.style().subControlRect(control, option, QStyle.SubControl.SC_ComboBoxEditField, box)
    wide = box.fontMetrics().horizontalAdvance(box.currentText()) > field.width()
    if wide and box.toolTip() != box.currentText():
        yield f"{box.currentText()} is shortened, and nothing tells the whole"


def overlapping(holder: QWidget) -> list[str]:
    """Pairs of visible widgets with the same parent that cover each other."""
    if isinstance(holder, (QAbstractScrollArea, QLineEdit)) and not hasattr(holder, "widget"):
        return []
    children = [w for w in holder.children() if isinstance(w, QWidget) and w.isVisible() and not w.isWindow()]
    found = [pair for child in children for pair in overlapping(child)]
    if isinstance(holder, (QAbstractScrollArea, QMainWindow, QSplitter)):
        return found  # bars and handles lie over what they belong to
    for at, one in enumerate(children):
        for other in children[at + 1 :]:
            common = one.geometry().intersected(other.geometry())
            if common.width() > 1 and common.height() > 1:
                found.append(f"{type(one).__name__} and {type(other).__name__} in {type(holder).__name__}")
    return found


@pytest.fixture
def stage(stages: Any) -> Stage:
    """A window with everything in it that the program's own has."""
    made: Stage = stages()
    Remembering(made.window, SettingsStore(load()[0]), lambda: True)
    made.until_on()
    return made


def fitted(window: QWidget, size: tuple[int, int], qtbot: QtBot) -> None:
    window.resize(*size)
    qtbot.wait(50)  # what was laid out may ask for another layout
    assert (window.width(), window.height()) == size
    assert not cut_off(window)
    assert not overlapping(window)


# The main window ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_window_fits_as_it_opens(stage: Stage, qtbot: QtBot, size: tuple[int, int]) -> None:
    stage.window.message.say(WELCOME.format(microphone="Sottovoce"), offer_retry=False)
    fitted(stage.window, size, qtbot)


@pytest.mark.parametrize("size", SIZES)
def test_the_window_fits_with_everything_on(stage: Stage, qtbot: QtBot, size: tuple[int, int]) -> None:
    window = stage.window
    window.message.say(LONG, offer_retry=True)
    window.desk.recovered.say([SimpleNamespace(folder=Path.home() / "Music/2026-11-21 14.05.33", duration_s=754.0)])  # type: ignore[list-item]
    qtbot.waitUntil(lambda: bool(window.captions.text.final_text), timeout=WAIT_MS)
    window.desk.bar.record.click()
    window.captions.clear()
    window.captions.search.open_search()
    window.captions.search.line.setText("the")
    stage.engine.pause()
    stage.engine.extra.append(LATE)
    qtbot.waitUntil(lambda: window.status.state.text() == "Waiting for a device", timeout=WAIT_MS)
    fitted(window, size, qtbot)
    assert window.captions.undo.isVisible()


def test_the_window_can_be_as_small_as_a_small_screen(stage: Stage, qtbot: QtBot) -> None:
    stage.window.message.say(LONG, offer_retry=True)
    stage.window.captions.search.open_search()
    qtbot.wait(50)
    least = stage.window.minimumSizeHint()
    assert least.width() <= 853
    assert least.height() <= 440


def test_a_window_is_no_larger_than_its_screen(qtbot: QtBot) -> None:
    large, small = QWidget(), QWidget()
    for window, side in ((large, 9000), (small, 300)):
        qtbot.addWidget(window)
        window.resize(side, side)
        fit_to_screen(window)
    room = large.screen().availableSize()
    assert large.width() <= room.width()
    assert large.height() < room.height()
    assert large.windowState() & Qt.WindowState.WindowMaximized
    assert (small.width(), small.height()) == (300, 300)
    assert not small.windowState() & Qt.WindowState.WindowMaximized


@pytest.mark.parametrize(("height", "count"), [(500, 4), (270, 4), (200, 3), (150, 2), (100, 1)])
def test_pictures_give_way_from_below(qtbot: QtBot, height: int, count: int) -> None:
    inside = InsideView(Timeline())
    qtbot.addWidget(inside)
    inside.set_theme(DARK)
    inside.resize(700, height)
    inside.show()
    qtbot.wait(50)
    assert [view.isVisible() for view in inside.views] == [at < count for at in range(4)]
    axes = [view.plot.getPlotItem().getAxis("bottom").isVisible() for view in inside.views[:count]]
    assert axes == [False] * (count - 1) + [True]
    heights = [view.plot.getPlotItem().vb.height() for view in inside.views[:count]]
    assert min(heights) >= 20.0
    assert max(heights[:2]) - min(heights[:2]) <= 2.0


def test_pictures_that_give_way_may_make_room_for_themselves(qtbot: QtBot) -> None:
    inside = InsideView(Timeline())
    qtbot.addWidget(inside)
    inside.resize(700, 500)
    inside.show()

    class Enlarging(QObject):
        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.Hide:
                inside.resize(700, 500)
            return False

    enlarging = Enlarging()
    inside.background.installEventFilter(enlarging)
    inside.resize(700, 200)
    inside.background.removeEventFilter(enlarging)
    assert inside.height() == 500
    assert all(view.isVisible() for view in inside.views)
    axes = [view.plot.getPlotItem().getAxis("bottom").isVisible() for view in inside.views]
    assert axes == [False, False, False, True]


def test_a_narrow_status_line_keeps_what_warns_and_tells_the_rest(qtbot: QtBot) -> None:
    room, line = QWidget(), StatusLine()
    line.setParent(room)
    qtbot.addWidget(room)
    line.set_captions(True)
    line.show_run_state(RunState.ON)
    line.resize(1200, 34)
    room.show()
    fine = dataclasses.replace(LATE, state="running", load=0.2, dropouts=0, caption_lag_s=0.5)
    line.show_stats(fine)
    assert all(label.isVisible() for label in (line.delay, line.captions, line.dropouts, line.load, line.provider))
    line.resize(360, 34)
    line.show_stats(dataclasses.replace(fine, dropouts=7))
    assert line.dropouts.isVisible()
    assert not line.load.isVisible()
    assert "Load 20 %" in line.state.toolTip()
    line.resize(1200, 34)
    assert line.load.isVisible()
    assert "Load" not in line.state.toolTip()


# Dialogs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(720, 660), (720, 440)])
def test_the_settings_fit(stage: Stage, qtbot: QtBot, size: tuple[int, int]) -> None:
    remembering = stage.window.findChild(Remembering)
    assert isinstance(remembering, Remembering)
    remembering.open_dialog()
    dialog = remembering.dialog
    assert dialog is not None
    dialog.say(LONG)
    fitted(dialog, size, qtbot)


def test_the_shortcuts_fit(stage: Stage, qtbot: QtBot) -> None:
    fitted(show_shortcuts(stage.window), (560, 440), qtbot)


@pytest.mark.parametrize("size", [(820, 640), (820, 440)])
def test_the_models_fit(stages: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.setattr("app.models_button.EngineShelf", FakeShelf)
    models = stages().window.models
    models.button.click()
    dialog = models.dialog
    qtbot.waitUntil(lambda: bool(dialog.cards) and models.jobs.job is None, timeout=WAIT_MS)
    dialog.say(LONG, "warning")
    fitted(dialog, size, qtbot)


@pytest.mark.parametrize("size", [(860, 520), (720, 400)])
def test_the_sound_files_fit(qtbot: QtBot, tmp_path: Path, size: tuple[int, int]) -> None:
    window = FileWindow(lambda: [RAIN], lambda: None, EngineConfig)
    window.set_theme(DARK)
    window.show()
    try:
        fitted(window, size, qtbot)
        window.take([tmp_path / "a long name of a recording, made on the second day.flac", tmp_path])
        window.set_folder(tmp_path)
        fitted(window, size, qtbot)
        bars = {window.progress(row).height() for row in range(window.table.rowCount())}
        assert len(bars) == 1
    finally:
        window.end()
        window.deleteLater()


# Colours --------------------------------------------------------------------------------------------------------------


@BOTH
def test_letters_stand_out_from_what_is_behind_them(theme: Theme) -> None:
    papers = (theme.window, theme.panel, theme.raised, theme.warning_panel)
    for ink in (theme.text, theme.muted, theme.accent, theme.warning):
        assert min(contrast(ink, paper) for paper in papers) >= 4.5, ink
    assert contrast(theme.on_accent, theme.accent) >= 4.5
    assert min(contrast(theme.faint, paper) for paper in (theme.window, theme.panel)) >= 3.0  # what cannot be used


@BOTH
def test_a_ticked_box_has_a_tick(qtbot: QtBot, qapp: Any, theme: Theme) -> None:
    apply_theme(qapp, theme)
    box = TickBox()
    qtbot.addWidget(box)
    box.show()

    def shades() -> set[str]:
        picture = box.grab().toImage()
        return {QColor(picture.pixel(x, y)).name() for x in range(picture.width()) for y in range(picture.height())}

    assert theme.accent not in shades()
    box.setChecked(True)
    assert theme.accent in shades()
    assert any(contrast(shade, theme.on_accent) < 1.5 for shade in shades() if contrast(shade, theme.accent) > 3)
