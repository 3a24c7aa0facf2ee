"""The tray icon: a closed window that runs on, and its menu."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtGui import QAction
from pytestqt.qtbot import QtBot

from app import tray as tray_module
from app.bridge import RunState
from app.tray import Tray
from tests.stage import WAIT_MS


def action(tray: Tray, text: str) -> QAction:
    return next(found for found in tray.menu.actions() if found.text() == text)


def test_a_closed_window_runs_on_and_comes_back(stages: Any) -> None:
    stage = stages()
    stage.until_on()
    tray = Tray(stage.window, lambda: True)
    tray.set_wanted(True)
    stage.window.close()
    assert not stage.window.isVisible()
    assert stage.bridge.state is RunState.ON and stage.gone == []
    action(tray, "Show").trigger()
    assert stage.window.isVisible()
    tray.set_wanted(False)


def test_quit_closes_for_good(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    tray = Tray(stage.window, lambda: True)
    tray.set_wanted(True)
    stage.window.close()
    action(tray, "Quit").trigger()
    qtbot.waitUntil(lambda: bool(stage.gone), timeout=WAIT_MS)
    assert ("stop", {}) in stage.engine.calls


def test_without_a_tray_closing_quits(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    tray = Tray(stage.window, lambda: False)
    tray.set_wanted(True)
    stage.window.close()
    qtbot.waitUntil(lambda: bool(stage.gone), timeout=WAIT_MS)
    assert not tray.icon.isVisible()


def test_a_tray_that_comes_later_is_found(stages: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray_module, "AGAIN_MS", 10)
    stage = stages()
    there: list[bool] = []
    tray = Tray(stage.window, lambda: bool(there))
    tray.set_wanted(True)
    assert not stage.window.stays
    there.append(True)
    qtbot.waitUntil(lambda: stage.window.stays, timeout=WAIT_MS)
    tray.set_wanted(False)
    assert not stage.window.stays


def test_a_tray_that_goes_gives_the_hidden_window_back(
    stages: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tray_module, "AGAIN_MS", 10)
    stage = stages()
    there = [True]
    tray = Tray(stage.window, lambda: bool(there))
    tray.set_wanted(True)
    stage.window.close()
    assert stage.window.isHidden()
    there.clear()
    qtbot.waitUntil(lambda: not stage.window.isHidden(), timeout=WAIT_MS)
    assert not stage.window.stays


def test_the_menu_switches_and_mutes_and_shows_how_it_is(stages: Any, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    tray = Tray(stage.window, lambda: True)
    tray.refresh()
    assert (tray.on.isChecked(), tray.mute.isChecked()) == (True, False)
    tray.on.trigger()
    qtbot.waitUntil(lambda: stage.engine.state == "bypass", timeout=WAIT_MS)
    tray.mute.trigger()
    qtbot.waitUntil(lambda: ("set", {"muted": True}) in stage.engine.calls, timeout=WAIT_MS)
    tray.refresh()
    assert (tray.on.isChecked(), tray.mute.isChecked()) == (False, True)
    stage.window.column.mute.click()
    tray.refresh()
    assert not tray.mute.isChecked()
