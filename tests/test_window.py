"""The window, as a person uses it: with a made-up engine, and once with the real one and the shipped recording."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QSlider
from pytestqt.qtbot import QtBot

from app import gui
from app.bridge import Bridge, RunState
from app.caption_view import CaptionText
from app.controls import DROP_STEP, KEEP_STEP, BackgroundControl
from app.theme import DARK, DIM_STEPS, LIGHT, SWAPPED, ThemeChoice, background_lut, system_theme
from app.timeline import BANDS, HISTORY_S, ColumnRing, Spectrum, Timeline, mel, treatment
from app.views import InsideView
from app.window import DEMO_INPUT, Choices, MainWindow
from engine.types import Background, Caption, EngineConfig, Problem, Tokens, Word
from tests.fake_engine import HOP, FakeEngine

WAIT_MS = 5000
REPAINT_MS = 12.0
MICROPHONE = SimpleNamespace(
    id="mic", name="Desk microphone", kind="input", default=True, is_monitor=False, is_own=False
)
OTHER = SimpleNamespace(id="other", name="Headset", kind="input", default=False, is_monitor=False, is_own=False)
OWN = SimpleNamespace(id="sottovoce", name="Sottovoce", kind="input", default=False, is_monitor=False, is_own=True)
SPEAKER = SimpleNamespace(id="spk", name="Loudspeaker", kind="output", default=True, is_monitor=False, is_own=False)
RAIN = SimpleNamespace(name="rain", title="steady rain")


class Stage:
    """A window on made-up engines."""

    def __init__(self, qtbot: QtBot, devices: list[Any], choices: Choices, config: EngineConfig, **fake: Any) -> None:
        self.qtbot, self.made = qtbot, list[FakeEngine]()

        def make(config: EngineConfig) -> FakeEngine:
            self.made.append(FakeEngine(config, **fake))
            return self.made[-1]

        self.bridge = Bridge(make, lambda: devices, lambda: [RAIN])
        self.window = MainWindow(self.bridge, config, choices, ThemeChoice.DARK)
        self.window.show()
        self.window.begin()

    @property
    def engine(self) -> FakeEngine:
        return self.made[-1]

    def until_on(self) -> None:
        self.qtbot.waitUntil(lambda: self.bridge.state is RunState.ON, timeout=WAIT_MS)

    def close(self) -> None:
        with self.qtbot.waitSignal(self.window.closed, timeout=WAIT_MS):
            self.window.close()
        self.window.deleteLater()


@pytest.fixture
def stages(qtbot: QtBot) -> Iterator[Any]:
    """Makes stages and closes them."""
    made: list[Stage] = []

    def one(
        devices: list[Any] | None = None,
        choices: Choices | None = None,
        config: EngineConfig | None = None,
        **fake: Any,
    ) -> Stage:
        known = [MICROPHONE, OTHER, OWN, SPEAKER] if devices is None else devices
        made.append(Stage(qtbot, known, choices or Choices(), config or EngineConfig(captions=True), **fake))
        return made[-1]

    yield one
    for stage in made:
        stage.close()


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


# The background control -----------------------------------------------------------------------------------------------


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


# Captions -------------------------------------------------------------------------------------------------------------


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


# Pictures -------------------------------------------------------------------------------------------------------------


def test_columns_keep_their_numbers_and_holes_are_filled() -> None:
    ring = ColumnRing(10, 1, -1, np.int16)
    ring.put(0, np.arange(4)[:, None])
    ring.put(6, np.arange(6, 14)[:, None])
    assert (ring.head, ring.tail) == (14, 4)
    assert ring.view(14, 12)[:, 0].tolist() == [-1, -1, -1, -1, 6, 7, 8, 9, 10, 11, 12, 13]
    ring.put(100, np.arange(100, 130)[:, None])
    assert ring.view(131, 4)[:, 0].tolist() == [127, 128, 129, -1]


@pytest.mark.parametrize("hz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_bright_where_its_frequency_is(hz: float) -> None:
    t = np.arange(HOP * 50) / 16_000
    picture = Spectrum(16_000, HOP).process((0.01 * np.sin(2 * math.pi * hz * t)).astype(np.float32))
    brightest = int(picture[10:].astype(int).sum(axis=0).argmax())
    expected = float(mel(hz)) / float(mel(8000.0)) * (BANDS + 1) - 1
    assert abs(brightest - expected) <= 1.5


def test_spectra_are_the_same_however_the_sound_is_cut(rng: np.random.Generator) -> None:
    sound = rng.normal(0, 0.1, HOP * 20).astype(np.float32)
    whole = Spectrum(16_000, HOP).process(sound)
    cut = Spectrum(16_000, HOP)
    parts = [cut.process(sound[i * HOP : j * HOP]) for i, j in ((0, 1), (1, 7), (7, 20))]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize(
    ("background", "step"),
    [("keep", 0), ("-3", 1), ("-60", DIM_STEPS), ("drop", DIM_STEPS), ("swap:rain@-6", SWAPPED)],
)
def test_background_tokens_show_what_becomes_of_them(background: str, step: int) -> None:
    assert treatment(background) == step


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_dropped_tokens_are_visibly_dimmer_and_swapped_ones_of_another_colour(theme: Any) -> None:
    table = background_lut(theme)[:, :3].astype(float).reshape(-1, 257, 3)
    kept, dropped, swapped = table[0, :256], table[DIM_STEPS, :256], table[SWAPPED, :256]
    assert np.ptp(dropped, axis=1).mean() < 0.25 * np.ptp(kept, axis=1).mean()
    assert dropped.std(axis=0).mean() < 0.5 * kept.std(axis=0).mean()
    assert (kept[:, 0] - kept[:, 2]).mean() > 30  # warm
    assert (swapped[:, 2] - swapped[:, 1]).mean() > 30  # violet


@pytest.fixture
def inside(qtbot: QtBot) -> InsideView:
    """Views with 20 s of sound."""
    view = InsideView(Timeline())
    qtbot.addWidget(view)
    view.resize(960, 500)
    view.set_theme(DARK)
    view.show()
    feed(view, 1000)
    return view


def feed(view: InsideView, hops: int, engine: FakeEngine | None = None) -> None:
    for event in (engine or FakeEngine(EngineConfig())).hops(hops):
        if isinstance(event, Tokens):
            view.timeline.add(event)
    view.refresh()


def test_pointing_at_a_token_tells_its_code_and_time(inside: InsideView, qtbot: QtBot) -> None:
    view, column, row = inside.voice, 700, 5
    assert inside.timeline.voice is not None
    code = int(inside.timeline.voice.view(column + 1, 1)[0, row])
    seconds = (column + 0.5 - inside.timeline.head) * inside.timeline.hop_s
    box = view.plot.getPlotItem().vb
    scene = box.mapViewToScene(QPointF(seconds, 36 - row - 0.5))
    qtbot.mouseMove(view.plot.viewport(), QPoint(0, 0))
    view.plot.scene().sigMouseMoved.emit(scene)
    assert view.readout.text() == f"0:14.00   quantizer {row + 1}   code {code}"
    assert all(each.pointer.isVisible() for each in inside.views)


def test_pause_holds_the_pictures_and_the_wheel_goes_back(inside: InsideView) -> None:
    engine = FakeEngine(EngineConfig())
    engine.hops(1000)
    before = inside.heard.image.image.copy()
    inside.live.setChecked(True)
    feed(inside, 100, engine)
    assert np.array_equal(inside.heard.image.image, before)
    inside.heard.plot.wheeled.emit(120)
    assert not np.array_equal(inside.heard.image.image, before)
    assert "paused at 0:19.00" in inside.heard.note.text()
    inside.heard.plot.wheeled.emit(-1200)
    assert not inside.live.isChecked()


def test_a_new_run_begins_with_an_empty_picture(inside: InsideView) -> None:
    feed(inside, 50)
    assert inside.timeline.head == 50
    assert not inside.timeline.heard.view(50, 600)[:550].any()


def test_a_hidden_view_does_not_paint(inside: InsideView) -> None:
    inside.hide()
    done = len(inside.refresh_ms)
    engine = FakeEngine(EngineConfig())
    engine.hops(1000)
    feed(inside, 10, engine)
    assert len(inside.refresh_ms) == done


def test_five_minutes_are_kept_in_fixed_memory() -> None:
    timeline = Timeline()
    engine = FakeEngine(EngineConfig())
    for _ in range(8):
        for event in engine.hops(2500):
            if isinstance(event, Tokens):
                timeline.add(event)
    assert timeline.head == 20_000
    assert timeline.head - timeline.tail == round(HISTORY_S / timeline.hop_s)


@pytest.mark.parametrize("size", [(960, 500), (1580, 780)])
def test_a_frame_is_painted_in_time(inside: InsideView, qtbot: QtBot, size: tuple[int, int]) -> None:
    inside.resize(*size)
    engine = FakeEngine(EngineConfig())
    engine.hops(1000)
    for _ in range(40):
        feed(inside, 2, engine)
        qtbot.wait(1)
    assert inside.repaint_ms() < REPAINT_MS


# The whole ------------------------------------------------------------------------------------------------------------


def test_a_large_picture_is_saved_small_and_keeps_its_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = np.full((720, 1280), 0xFF191D20, dtype=np.uint32)
    pixels[100:500, 200:1200] = rng.integers(0xFF000000, 0xFFFFFFFF, (400, 1000), dtype=np.uint32)
    picture = QImage(pixels.tobytes(), 1280, 720, QImage.Format.Format_RGB32)
    path = tmp_path / "window.png"
    assert gui.save_picture(picture, path)
    assert path.stat().st_size < 600_000
    assert QImage(str(path)).pixelColor(5, 5).name() == "#191d20"
    assert not gui.save_picture(picture, tmp_path / "missing" / "window.png")


def test_without_a_screen_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(gui.SottovoceError, match="no screen"):
        gui.run_gui()


@pytest.mark.slow
def test_the_real_thing_plays_saves_a_picture_and_quits(
    tmp_path: Path, qapp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "window.png"
    assert gui.run_gui(demo=True, quit_after_s=8.0, screenshot=path, captions=False) == 0
    picture = QImage(str(path))
    assert picture.width() >= 1280
    colours = {picture.pixel(x, y) for x in range(600, 1200, 7) for y in range(60, 480, 7)}
    assert len(colours) > 50


def test_unattended_without_sound_it_fails(qapp: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gui, "make_engine", lambda config: FakeEngine(config, fail="no models here; install again"))
    assert gui.run_gui(demo=True, quit_after_s=1.0) == 1
    assert "o models here; install again" in capsys.readouterr().err
