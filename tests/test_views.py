"""The pictures: what they show, how far back, and how fast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF
from pytestqt.qtbot import QtBot

from app.theme import DARK, DIM_STEPS, LIGHT, SWAPPED, background_lut
from app.timeline import BANDS, HISTORY_S, ColumnRing, Spectrum, Timeline, mel, treatment
from app.views import InsideView, SpectrogramView
from engine.types import EngineConfig, Tokens
from tests.fake_engine import HOP, FakeEngine
from tests.stage import REPAINT_MS


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


def test_a_new_run_is_shown_though_the_pictures_were_held_still(inside: InsideView) -> None:
    inside.live.setChecked(True)
    feed(inside, 50)
    assert not inside.live.isChecked()
    assert "paused" not in inside.heard.note.text()
    assert inside.heard.image.image[-50:].any()


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


def test_labels_that_have_no_room_are_left_out(qtbot: QtBot) -> None:
    def labels(height: int) -> list[str]:
        view.resize(400, height)
        view.show()
        (ticks,) = view.plot.getPlotItem().getAxis("left")._tickLevels
        return sorted(text for _, text in ticks)

    view = SpectrogramView("Heard", "", lambda timeline: timeline.heard)
    qtbot.addWidget(view)
    assert labels(260) == ["1 kHz", "2 kHz", "4 kHz"]
    assert labels(70) == ["1 kHz", "4 kHz"]
