"""The view of the noise around: what it says, where its point is, and that it is quiet where nothing is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PySide6.QtGui import QColor
from pytestqt.qtbot import QtBot

from app.noise_view import LISTENING, NO_CAPTIONS, TRAIL, UNKNOWN_THEN, NoisePlane, NoiseView
from app.theme import DARK, LIGHT
from app.timeline import HISTORY_S, Timeline
from engine.types import EngineConfig, Residue

CLOUDS = {
    "rain": SimpleNamespace(mean=(-2.0, 0.0), covariance=((0.2, 0.0), (0.0, 0.2))),
    "clean": SimpleNamespace(mean=(2.0, 1.0), covariance=((0.2, 0.1), (0.1, 0.3))),
}


def event(kind: str, point: tuple[float, float], confidence: float = 0.87, time_s: float = 1.0) -> Residue:
    return Residue(time_s, kind, confidence, (-3.0,) * 25, (1,) * 25, point)


@pytest.fixture
def view(qtbot: QtBot) -> NoiseView:
    made = NoiseView(captions=True)
    qtbot.addWidget(made)
    made.resize(264, 180)
    made.set_theme(DARK)
    made.plane.set_clouds(CLOUDS)
    made.show()
    return made


def bright(plane: NoisePlane) -> tuple[float, float]:
    """Where the live point is painted, in parts of the widget: the mean of the brightest pixels above the strip."""
    picture = plane.grab().toImage()
    wanted = QColor(DARK.text).lightness() - 12
    found = [
        (x, y)
        for x in range(4, picture.width() - 4)  # not the corners, where the parent is seen
        for y in range(4, round(0.75 * picture.height()))
        if picture.pixelColor(x, y).lightness() >= wanted
    ]
    x, y = np.mean(found, axis=0)
    return float(x) / picture.width(), float(y) / picture.height()


def test_it_says_the_kind_and_how_sure_it_is(view: NoiseView) -> None:
    assert view.answer.text() == LISTENING
    view.show_residue(event("rain", (0.0, 0.0)))
    assert view.answer.text() == "Rain 87 %"
    assert view.plane.accessibleDescription() == "Rain 87 %"
    view.show_residue(event("clean", (0.0, 0.0), 0.31))
    assert view.answer.text() == "Quiet? 31 %"


def test_the_point_is_where_the_residue_lies(view: NoiseView) -> None:
    view.show_residue(event("rain", (-2.0, 0.0)))
    left, low = bright(view.plane)
    view.plane.clear()
    view.show_residue(event("clean", (2.0, 1.0)))
    right, high = bright(view.plane)
    assert left < 0.4 < 0.6 < right
    assert high < low
    view.plane.clear()
    view.show_residue(event("clean", (900.0, 0.5)))  # far outside: held at the edge
    assert bright(view.plane)[0] > 0.9


def test_only_the_latest_points_and_seconds_are_kept(view: NoiseView) -> None:
    for number in range(50):
        view.show_residue(event("rain", (0.0, 0.0), time_s=number))
    assert len(view.plane.points) == TRAIL
    assert len(view.plane.energies_db) == 300


def test_after_a_gap_the_line_begins_anew(view: NoiseView) -> None:
    view.show_residue(event("rain", (0.0, 0.0), time_s=1.0))
    view.show_residue(event("rain", (0.0, 0.0), time_s=9.0))
    assert len(view.plane.energies_db) == 25


def test_what_is_old_is_forgotten(view: NoiseView, qtbot: QtBot) -> None:
    view._forget.setInterval(50)
    view.show_residue(event("rain", (0.0, 0.0)))
    qtbot.waitUntil(lambda: view.answer.text() == LISTENING)
    assert not view.plane.points


def test_without_captions_it_says_what_to_do_and_forgets(view: NoiseView) -> None:
    view.show_residue(event("rain", (0.0, 0.0)))
    view.set_captions(False)
    view.show_residue(event("rain", (0.0, 0.0)))  # the engine's last words
    assert view.answer.text() == NO_CAPTIONS
    assert not view.plane.points


def replayed(view: NoiseView, timeline: Timeline) -> None:
    """Rain for ten seconds, nothing for ten, then quiet for ten."""
    view.timeline = timeline
    for second in [*range(1, 11), *range(21, 31)]:
        kind, point = ("rain", (-2.0, 0.0)) if second <= 10 else ("clean", (2.0, 1.0))
        view.show_residue(Residue(float(second), kind, 0.87, (float(-second),) * 25, (1,) * 25, point))
    timeline.treated.put(1500, np.zeros((1, 1), np.uint8))  # the pictures are so far


def test_it_shows_what_was_around_then_and_goes_back_to_now(view: NoiseView) -> None:
    replayed(view, Timeline())
    view.show_time(9.5)
    assert view.answer.text() == "Rain 87 %"
    assert bright(view.plane)[0] < 0.4
    assert view.plane.energies_db[-1] == -9.0 and len(view.plane.energies_db) == 9 * 25
    view.show_time(17.0)
    assert view.answer.text() == UNKNOWN_THEN and not view.plane.points
    view.show_time(22.5)
    assert view.answer.text() == "Quiet 87 %" and len(view.plane.points) == 2
    view.show_time(None)
    assert view.answer.text() == "Quiet 87 %" and view.plane.energies_db[-1] == -30.0


def test_while_it_is_held_still_only_what_was_told_late_is_added(view: NoiseView, qtbot: QtBot) -> None:
    view._forget.setInterval(20)
    replayed(view, Timeline())
    view.show_time(30.5)
    view.show_residue(event("rain", (-2.0, 0.0), time_s=30.4))
    assert view.answer.text() == "Rain 87 %"
    view.show_residue(event("clean", (2.0, 1.0), time_s=31.4))
    view.set_captions(False)  # they were turned off meanwhile
    qtbot.wait(60)
    assert view.answer.text() == "Rain 87 %" and view.plane.points[-1] == (-2.0, 0.0)
    view.show_time(None)
    assert view.answer.text() == NO_CAPTIONS and not view.plane.points


def test_what_was_told_is_kept_for_five_minutes_of_one_run() -> None:
    timeline = Timeline()
    for second in range(1000):
        timeline.add_noise(event("rain", (0.0, 0.0), time_s=float(second)))
    assert len(timeline.noise) == HISTORY_S + 1
    assert [told.time_s for told in timeline.noise_until(900.5, 3)] == [898.0, 899.0, 900.0]
    timeline.clear()
    assert not timeline.noise_until(900.5, 3)


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_it_paints_with_nothing_and_with_one_cloud(qtbot: QtBot, theme: Any) -> None:
    plane = NoisePlane()
    qtbot.addWidget(plane)
    plane.resize(200, 40)
    plane.set_theme(theme)
    plane.grab()
    plane.set_clouds({"rain": SimpleNamespace(mean=(0.0, 0.0), covariance=((0.0, 0.0), (0.0, 0.0)))})
    plane.show_residue(event("rain", (0.0, 0.0)))
    plane.grab()


def test_the_window_shows_it_where_the_kinds_are_known(stages: Any, qtbot: QtBot) -> None:
    stage = stages(config=EngineConfig(captions=True), clouds=CLOUDS)
    stage.until_on()
    noise = stage.window.column.noise
    qtbot.waitUntil(noise.isVisible)
    stage.engine.extra.append(event("rain", (-2.0, 0.0)))
    qtbot.waitUntil(lambda: noise.answer.text() == "Rain 87 %")


def test_the_window_shows_the_noise_of_the_pictures_that_are_held_still(stages: Any, qtbot: QtBot) -> None:
    stage = stages(config=EngineConfig(captions=True), clouds=CLOUDS)
    stage.until_on()
    noise, inside = stage.window.column.noise, stage.window.inside
    now_s = stage.engine.now_s
    stage.engine.extra.append(event("rain", (-2.0, 0.0), time_s=now_s))
    qtbot.waitUntil(lambda: noise.answer.text() == "Rain 87 %")
    qtbot.waitUntil(lambda: inside.timeline.head * inside.timeline.hop_s > now_s + 0.5)
    inside.live.setChecked(True)
    stage.engine.extra.append(event("clean", (2.0, 1.0), time_s=now_s + 20.0))
    qtbot.waitUntil(lambda: len(inside.timeline.noise) == 2)
    assert noise.answer.text() == "Rain 87 %"
    inside.show_moment(now_s - 0.1)
    assert noise.answer.text() == UNKNOWN_THEN
    inside.live.setChecked(False)
    assert noise.answer.text() == "Rain 87 %"


def test_the_window_hides_it_where_they_are_not(stages: Any) -> None:
    stage = stages()
    stage.until_on()
    assert not stage.window.column.noise.isVisible()
