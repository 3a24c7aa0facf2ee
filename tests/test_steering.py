"""`sottovoce ctl` reaches the window: what is asked is done and shown, and what cannot be changes nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app import console, gui
from app.steering import Steering
from engine.control import Answer, ControlServer, Request, ask, runtime_folder
from engine.types import SottovoceError
from tests.stage import WAIT_MS, Stage


class Steered:
    """A stage whose window answers; `say` asks over the socket, as another program would."""

    def __init__(self, stage: Stage, qtbot: QtBot) -> None:
        self.stage, self.qtbot = stage, qtbot
        server = ControlServer()
        server.open()
        Steering(stage.window, server)
        stage.until_on()

    def say(self, do: str, value: str | None = None) -> Answer:
        got: list[Answer] = []
        asking = threading.Thread(target=lambda: got.append(ask(Request(do, value))))
        asking.start()
        self.qtbot.waitUntil(lambda: bool(got), timeout=WAIT_MS)
        asking.join()
        return got[0]

    def last_set(self, key: str) -> Any:
        return next((c[key] for name, c in reversed(self.stage.engine.calls) if name == "set" and key in c), None)


class Reader:
    """A program that follows the window; `look` takes what has come, without waiting."""

    def __init__(self) -> None:
        self.captions: list[bool] = []
        self.finals: list[str] = []
        self.tail: list[str] = []
        self._data = b""
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.line.connect(str(runtime_folder() / "control"))
        self.line.sendall(b'{"do": "follow"}\n')
        self.line.setblocking(False)

    def look(self) -> None:
        with contextlib.suppress(OSError):
            self._data += self.line.recv(65536)
        *whole, self._data = self._data.split(b"\n")
        for told in map(json.loads, whole):
            self.captions += [told["captions"]] if told.get("event") == "state" else []
            self.tail = [word["text"] for word in told.get("tentative", self.tail)]
            self.finals += [word["text"] for word in told.get("final", [])]


@pytest.fixture
def steered(stages: Any, qtbot: QtBot) -> Steered:
    return Steered(stages(), qtbot)


@pytest.mark.parametrize(
    ("do", "value", "wanted"),
    [("background", "-12", "-12"), ("background", "keep", "keep"), ("scene", "rain", "swap:rain")],
)
def test_the_background_changes_in_the_window_and_in_the_engine(
    steered: Steered, qtbot: QtBot, do: str, value: str, wanted: str
) -> None:
    assert steered.say(do, value).ok
    qtbot.waitUntil(lambda: steered.stage.engine.background == wanted, timeout=WAIT_MS)
    assert str(steered.stage.window.background.background()) == wanted


def test_bypass_and_mute_are_seen_and_can_be_undone_by_hand(steered: Steered, qtbot: QtBot) -> None:
    window = steered.stage.window
    assert steered.say("bypass", "on").ok
    qtbot.waitUntil(lambda: steered.stage.engine.state == "bypass", timeout=WAIT_MS)
    assert not window.power.isChecked()
    assert steered.say("bypass", "off").ok and steered.say("mute", "on").ok
    qtbot.waitUntil(lambda: steered.last_set("muted") is True, timeout=WAIT_MS)
    assert window.power.accessibleName() == "Sottovoce: Muted"
    window.column.mute.click()
    qtbot.waitUntil(lambda: steered.last_set("muted") is False, timeout=WAIT_MS)
    assert window.power.accessibleName() == "Sottovoce: On"


def test_devices_and_resync(steered: Steered, qtbot: QtBot) -> None:
    assert steered.say("input", "other").ok
    assert steered.stage.window.input.currentData() == "other"
    assert steered.say("resync").ok
    qtbot.waitUntil(lambda: ("resync", {}) in steered.stage.engine.calls, timeout=WAIT_MS)


@pytest.mark.parametrize(
    ("do", "value", "why"),
    [("input", "sottovoce", "no input"), ("output", "none", "no output"), ("scene", "moon", "rain")],
)
def test_what_cannot_be_is_said_and_changes_nothing(steered: Steered, do: str, value: str, why: str) -> None:
    before, config = steered.stage.window.choices, steered.stage.window.config
    answer = steered.say(do, value)
    assert not answer.ok and why in answer.said
    assert (steered.stage.window.choices, steered.stage.window.config) == (before, config)


def test_status_tells_how_the_run_is_doing(steered: Steered, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: "delay_ms" in steered.say("status").status, timeout=WAIT_MS)
    status = steered.say("status").status
    assert (status["state"], status["background"], status["delay_ms"]) == ("running", "drop", 64.0)
    assert status["repaint_ms"] >= 0.0


def test_captions_are_followed_while_they_are_on(steered: Steered, qtbot: QtBot) -> None:
    told = Reader()
    steered.stage.window.bridge.frame.connect(told.look)
    qtbot.waitUntil(lambda: len(told.finals) >= 3, timeout=WAIT_MS)
    assert told.captions == [True]
    steered.stage.engine.pause()
    steered.stage.window.start()  # a tail that the former engine left is not there for ever
    qtbot.waitUntil(lambda: told.tail == [], timeout=WAIT_MS)
    assert told.finals[:3] == ["quiet", "please", "the"]
    steered.stage.window.captions.switch.click()
    qtbot.waitUntil(lambda: told.captions == [True, False], timeout=WAIT_MS)
    steered.stage.window.captions.switch.click()
    qtbot.waitUntil(lambda: told.captions == [True, False, True], timeout=WAIT_MS)
    told.line.close()


def test_a_mute_outlives_a_new_start(steered: Steered, qtbot: QtBot) -> None:
    assert steered.say("mute", "on").ok
    steered.stage.window.start()
    qtbot.waitUntil(lambda: len(steered.stage.made) == 2, timeout=WAIT_MS)
    assert steered.stage.engine.config.muted  # from its first hop on


def test_a_second_window_brings_the_first_to_the_front(
    steered: Steered, qtbot: QtBot, capsys: pytest.CaptureFixture[str]
) -> None:
    steered.stage.window.showMinimized()
    done: list[int] = []
    second = threading.Thread(target=lambda: done.append(gui._show_the_other()))
    second.start()
    qtbot.waitUntil(lambda: bool(done), timeout=WAIT_MS)
    second.join()
    assert done == [console.DONE] and not steered.stage.window.isMinimized()
    assert "open already" in capsys.readouterr().err


def test_nobody_is_reached_after_the_window_has_gone(steered: Steered, qtbot: QtBot) -> None:
    steered.stage.window.close()
    qtbot.waitUntil(lambda: bool(steered.stage.gone), timeout=WAIT_MS)
    with pytest.raises(SottovoceError, match="not running"):
        ask(Request("status"))
