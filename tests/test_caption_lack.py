"""Without Whisper the window says that captions are off, why, and what to do; they come once it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app import models_button
from app.bridge import RunState
from app.caption_lack import OFF
from app.caption_text import WAITING
from app.model_shelf import Presence, SizeRow
from app.noise_view import LISTENING, NO_CAPTIONS, NO_WHISPER
from app.shortcut_keys import keys_of
from engine import types
from engine.sizes import SIZES
from engine.types import EngineConfig, Problem
from tests.fake_shelf import FakeShelf
from tests.stage import WAIT_MS, Stage

LACKING = "Captions need Whisper base, which is not on this machine: get it under Models (Ctrl+Shift+W)."


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeShelf]:
    made = FakeShelf()
    made.rows["base"] = SizeRow(SIZES["base"], Presence.ABSENT)
    monkeypatch.setattr(models_button, "EngineShelf", lambda: made)
    yield made
    made.more.set()


@pytest.fixture
def stage(stages: Any, shelf: FakeShelf) -> Stage:
    """A window whose captions want a Whisper that is not here, as its engine has told it."""
    made: Stage = stages(config=EngineConfig(captions=True))
    made.until_on()
    assert made.window.column.noise.answer.text() == LISTENING
    made.engine.extra.append(Problem(0.0, "no captions: run `sottovoce models get base`", types.NO_WHISPER))
    made.qtbot.waitUntil(lambda: not made.window.captions.switch.isChecked(), timeout=WAIT_MS)
    return made


def test_it_says_what_is_missing_and_where_to_get_it(stage: Stage) -> None:
    window = stage.window
    assert window.captions.switch.text() == "Off"
    assert not window.captions.others.isEnabled()
    assert window.message.text() == LACKING
    assert window.captions.text.placeholderText() == LACKING
    assert window.column.noise.answer.text() == NO_WHISPER
    assert len(stage.made) == 1, "the sound goes on"


def test_it_names_the_keys_that_are_in_force(stages: Any, shelf: FakeShelf, qtbot: QtBot) -> None:
    stage = stages(config=EngineConfig(captions=True))
    stage.until_on()
    for keys, told in (("F9", "under Models (F9)."), ("", "under Models.")):
        keys_of(stage.window).use({"models": keys})
        stage.engine.extra.append(Problem(0.0, "no captions", types.NO_WHISPER))
        qtbot.waitUntil(lambda told=told: stage.window.message.text().endswith(told), timeout=WAIT_MS)


def test_another_engine_without_it_says_the_same(stage: Stage) -> None:
    stage.window.choose("input", "other")
    stage.window.start()
    stage.qtbot.waitUntil(lambda: stage.bridge.state is RunState.STARTING, timeout=WAIT_MS)
    stage.until_on()
    assert not stage.engine.config.captions
    assert stage.window.column.noise.answer.text() == NO_WHISPER


def test_captions_come_by_themselves_once_it_is_fetched(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    window.models.jobs.get("tiny")
    qtbot.waitUntil(lambda: "Whisper tiny is here" in window.message.text(), timeout=WAIT_MS)
    assert not window.captions.switch.isChecked(), "that is not the one"
    window.models.jobs.get("base")
    qtbot.waitUntil(window.captions.switch.isChecked, timeout=WAIT_MS)
    assert window.message.text() == "Whisper base is here and verified; captions use it."
    assert window.captions.text.placeholderText() == WAITING
    qtbot.waitUntil(lambda: stage.engine.config.captions, timeout=WAIT_MS)
    stage.until_on()
    assert window.column.noise.answer.text() == LISTENING


def test_they_come_with_another_size_too(stage: Stage, qtbot: QtBot) -> None:
    stage.window.set_whisper("tiny")
    qtbot.waitUntil(lambda: stage.engine.config.captions and stage.engine.config.whisper == "tiny", timeout=WAIT_MS)
    assert stage.window.captions.switch.isChecked()
    assert not stage.window.message.text()


def test_who_does_without_is_left_alone(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    window.captions.switch.click()  # once more, in vain
    qtbot.waitUntil(lambda: stage.engine.config.captions, timeout=WAIT_MS)
    window.captions.switch.click()
    qtbot.waitUntil(lambda: not stage.engine.config.captions, timeout=WAIT_MS)
    stage.until_on()
    assert window.column.noise.answer.text() == NO_CAPTIONS
    window.models.jobs.get("base")
    qtbot.waitUntil(lambda: "switch captions on" in window.message.text(), timeout=WAIT_MS)
    assert not window.captions.switch.isChecked()


def test_a_recogniser_that_gave_up_leaves_them_off(stages: Any, qtbot: QtBot) -> None:
    stage = stages(config=EngineConfig(captions=True))
    stage.until_on()
    stage.engine.extra.append(Problem(3.0, "the recogniser stopped twice; start captions again", types.NO_CAPTIONS))
    qtbot.waitUntil(lambda: not stage.window.captions.switch.isChecked(), timeout=WAIT_MS)
    assert stage.window.message.text() == "The recogniser stopped twice; start captions again"
    assert stage.window.captions.text.placeholderText() == OFF
    assert stage.window.column.noise.answer.text() == NO_CAPTIONS
    stage.window.captions.switch.click()
    qtbot.waitUntil(lambda: len(stage.made) == 2 and stage.engine.config.captions, timeout=WAIT_MS)
