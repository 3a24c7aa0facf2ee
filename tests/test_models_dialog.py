"""The models in the window, with a made-up shelf: get, pause, resume, cancel, import, remove, use, and failures."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QPushButton
from pytestqt.qtbot import QtBot

from app import model_words as words
from app import models_button
from app.model_card import SizeCard
from app.model_jobs import Doing, Job
from app.model_shelf import EngineShelf, Presence
from app.models_dialog import ModelsDialog
from engine.sizes import SIZES
from engine.types import EngineConfig, Provider, Residue
from tests.fake_shelf import MB, FakeShelf
from tests.file_server import FileServer
from tests.stage import WAIT_MS, Stage


class Room:
    """A window whose models are made up, with the dialog open."""

    def __init__(self, stage: Stage, shelf: FakeShelf, qtbot: QtBot) -> None:
        self.stage, self.window, self.shelf, self.qtbot = stage, stage.window, shelf, qtbot
        self.window.models.button.click()
        dialog = self.window.models.dialog
        assert dialog is not None
        self.dialog: ModelsDialog = dialog
        self.jobs = dialog.jobs
        self.until(lambda: bool(dialog.cards))
        self.rest()

    def until(self, true: Any) -> None:
        self.qtbot.waitUntil(true, timeout=WAIT_MS)

    def rest(self) -> None:
        """Wait until nothing is under way."""
        self.until(lambda: self.jobs.job is None)

    def card(self, name: str) -> SizeCard:
        return self.dialog.cards[name]

    def click(self, button: QPushButton) -> None:
        self.until(lambda: button.isVisible() and button.height() > 0)  # it has its place
        assert button.isEnabled(), f"{button.text()} cannot be pressed"
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def begin(self, name: str, to_mb: int) -> SizeCard:
        """Begin a download that waits there."""
        self.shelf.goes_to = to_mb
        card = self.card(name)
        self.click(card.get_button)
        self.until(lambda: self.jobs.job is not None and self.jobs.job.done == to_mb * MB)
        return card


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeShelf]:
    made = FakeShelf()
    monkeypatch.setattr(models_button, "EngineShelf", lambda: made)
    yield made
    made.more.set()


@pytest.fixture
def room(stages: Any, shelf: FakeShelf, qtbot: QtBot) -> Room:
    stage = stages()
    stage.until_on()
    return Room(stage, shelf, qtbot)


def shown(card: SizeCard) -> list[str]:
    return [b.text() for b in card.findChildren(QPushButton) if b.isVisibleTo(card)]


# What is shown --------------------------------------------------------------------------------------------------------


def test_before_a_person_asks_nothing_is_looked_at(stages: Any, shelf: FakeShelf) -> None:
    stage = stages()
    stage.until_on()
    assert shelf.looks == 0
    assert stage.window.models.dialog is None
    assert stage.window.models.button.isVisible()


def test_it_opens_by_keyboard_and_closes_with_escape(stages: Any, shelf: FakeShelf, qtbot: QtBot) -> None:
    stage = stages()
    stage.until_on()
    stage.window.activateWindow()
    qtbot.waitUntil(stage.window.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(stage.window, Qt.Key.Key_W, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: stage.window.models.dialog is not None, timeout=WAIT_MS)
    dialog = stage.window.models.dialog
    assert dialog.isVisible()
    assert not stage.window.column.mute.isChecked(), "Ctrl+M is another key"
    qtbot.waitUntil(lambda: dialog.jobs.job is None and bool(dialog.cards), timeout=WAIT_MS)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()


def test_it_tells_what_is_here_and_what_each_size_needs(room: Room) -> None:
    assert room.dialog.use_line.text() == "Captions use Whisper base."
    base = room.card("base")
    assert base.state.text() == "Here: openai-whisper's, 145 MB, sha256 ed3a0b6bed3a… checked, MIT"
    assert base.mark.isVisible()
    assert "484 MB on disk" in room.card("small").facts.text()
    assert "about 3 times slower than base" in room.card("small").facts.text()
    assert "too slow for live captions" in room.card("medium").facts.text()
    assert "English alone" in room.card("tiny.en").facts.text()
    assert "They run on the CPU: cuda needs an NVIDIA GPU" in room.dialog.machine.text()
    assert "Codec codec0123456789a" in room.dialog.machine.text()
    assert room.shelf.asked == [], "nothing is fetched unasked"


def test_every_button_is_named_and_reached_by_keyboard(room: Room, qtbot: QtBot) -> None:
    buttons = [b for b in room.dialog.findChildren(QAbstractButton) if b.isVisible()]
    assert all(b.accessibleName() and b.focusPolicy() & Qt.FocusPolicy.TabFocus for b in buttons)
    names = [b.accessibleName() for b in buttons]
    assert len(set(names)) == len(names)
    room.dialog.activateWindow()
    room.card("tiny").get_button.setFocus()
    reached = []
    for _ in range(len(buttons) + 3):
        focused = room.dialog.focusWidget()
        reached.append(focused.accessibleName() if focused else "")
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    enabled = [b.accessibleName() for b in buttons if b.isEnabled()]
    assert set(enabled) <= set(reached)
    assert reached[: len(enabled)][-2:] == [room.dialog.import_button.accessibleName(), "Close"]


def test_by_keyboard_one_stays_with_the_size_one_is_at(room: Room, qtbot: QtBot) -> None:
    room.dialog.activateWindow()
    qtbot.waitUntil(room.dialog.isActiveWindow, timeout=WAIT_MS)
    card = room.card("small")
    room.shelf.goes_to = 100
    card.get_button.setFocus()

    def press() -> str:
        """Space on what has the focus; what has it when all is at rest, or waits."""
        qtbot.keyClick(room.dialog.focusWidget(), Qt.Key.Key_Space)
        room.until(lambda: (job := room.jobs.job) is None or (job.done == 100 * MB and not job.stopping))
        return str(room.dialog.focusWidget().accessibleName())

    assert press() == "Pause Whisper small"
    assert press() == "Resume Whisper small"
    card.cancel_button.setFocus()
    assert press() == "Get Whisper small"
    room.shelf.more.set()
    press()
    room.rest()
    assert room.dialog.focusWidget() is card.use_button
    card.remove_button.setFocus()
    assert press() == "Keep Whisper small"
    assert press() == "Remove Whisper small"


# Get ------------------------------------------------------------------------------------------------------------------


def test_a_download_shows_how_far_it_is_and_ends_verified(room: Room) -> None:
    card = room.begin("small", 121)
    assert card.state.text().startswith("121 MB of 484 MB")
    assert card.bar.value() == 250
    assert shown(card) == ["Pause", "Cancel"]
    assert not room.card("medium").get_button.isEnabled(), "one at a time"
    assert room.window.models.button.text() == "Whisper 25 %"
    assert room.window.models.button.toolTip().startswith("small: 121 MB of 484 MB")
    room.shelf.more.set()
    room.rest()
    assert card.state.text().endswith("checked, MIT")
    assert shown(card) == ["Use", "Remove"]
    assert "small is here and verified" in room.dialog.line.text()
    assert room.window.models.button.text() == "Models"


def test_pause_keeps_what_is_there_and_resume_goes_on_from_it(room: Room) -> None:
    card = room.begin("small", 100)
    room.click(card.pause_button)
    room.rest()
    assert card.state.text() == "Paused: 100 MB of 484 MB are here"
    assert shown(card) == ["Resume", "Cancel"]
    room.shelf.more.set()
    room.click(card.get_button)
    room.rest()
    assert card.row.presence is Presence.HERE
    assert room.shelf.asked == [("get", "small"), ("get", "small")]


@pytest.mark.parametrize("paused", [False, True])
def test_cancel_leaves_nothing(room: Room, paused: bool) -> None:
    card = room.begin("small", 100)
    if paused:
        room.click(card.pause_button)
        room.rest()
    room.click(card.cancel_button)
    room.rest()
    assert card.state.text() == "Not on this machine"
    assert ("discard", "small") in room.shelf.asked
    assert "removed" in room.dialog.line.text()


@pytest.mark.parametrize(
    "sentence",
    [
        "the download of Whisper small is damaged and was removed; try again",
        "the disk that holds /cache is full; make room there and go on",
        "example.org cannot be reached (no route); check the network, or import a file",
        "/cache may not be written (Permission denied); change its permissions and go on",
        "/cache/small.pt.part has gone while it was written; try again",
    ],
)
def test_a_failure_is_one_sentence_and_it_can_be_tried_again(room: Room, sentence: str) -> None:
    room.shelf.fail = sentence
    room.click(room.card("small").get_button)
    room.rest()
    assert room.dialog.line.text() == sentence[:1].upper() + sentence[1:]
    assert room.dialog.line.property("tone") == "warning"
    assert shown(room.card("small")) == ["Get"]
    room.shelf.fail = ""
    room.click(room.card("small").get_button)
    assert room.dialog.line.text() == ""
    room.rest()
    assert room.card("small").row.presence is Presence.HERE


def test_a_download_outlives_the_dialog_and_is_told_in_the_window(room: Room) -> None:
    room.begin("small", 100)
    room.click(room.dialog.close_button)
    assert room.window.models.button.text() == "Whisper 21 %"
    assert "384" not in room.window.message.text()
    room.shelf.more.set()
    room.rest()
    assert "small is here and verified" in room.window.message.text()
    room.shelf.fail = "the disk is full; make room"
    room.jobs.get("medium")
    room.rest()
    assert room.window.message.text() == "The disk is full; make room"


def test_the_windows_end_stops_a_download_and_keeps_what_is_there(room: Room) -> None:
    room.begin("small", 100)
    room.stage.close()
    room.until(lambda: room.shelf.rows["small"].presence is Presence.UNFINISHED)
    assert room.shelf.rows["small"].done_bytes == 100 * MB
    assert not room.dialog.isVisible()


# Import and remove ----------------------------------------------------------------------------------------------------


def test_an_imported_file_is_marked_as_unverified(room: Room, tmp_path: Path) -> None:
    picker = room.dialog.ask_for_file()
    picker.fileSelected.emit(str(tmp_path / "mine.pt"))
    picker.reject()
    room.rest()
    card = room.card("small")
    assert "unverified" in card.state.text() and "mine.pt, imported" in card.state.text()
    assert card.state.property("tone") == "warning"
    assert "MIT" not in card.state.text()


def test_a_damaged_file_is_told(room: Room, tmp_path: Path) -> None:
    room.shelf.fail = "mine.pt is damaged, or no Whisper model that can be used; import another file"
    room.jobs.import_file(tmp_path / "mine.pt")
    room.rest()
    assert "damaged" in room.dialog.line.text()


def test_nothing_is_removed_without_a_second_word(room: Room) -> None:
    room.jobs.get("small")
    room.rest()
    card = room.card("small")
    room.click(card.remove_button)
    assert "Remove /cache/small.pt (484 MB)?" in card.state.text()
    room.click(card.keep_button)
    assert shown(card) == ["Use", "Remove"]
    room.click(card.remove_button)
    room.click(card.really_button)
    room.rest()
    assert shown(card) == ["Get"]
    assert not room.card("base").remove_button.isEnabled(), "captions use it"


# Use ------------------------------------------------------------------------------------------------------------------


def test_the_size_chosen_is_what_captions_start_with_next(room: Room, qtbot: QtBot) -> None:
    room.jobs.get("small")
    room.rest()
    room.click(room.card("small").use_button)
    assert room.window.config.whisper == "small"
    assert "Captions will use Whisper small; switch captions off and on" in room.dialog.line.text()
    assert words.ONLY_BASE in room.dialog.use_line.text()
    assert room.card("small").mark.isVisible() and not room.card("base").mark.isVisible()
    assert room.card("base").remove_button.isEnabled()
    assert len(room.stage.made) == 1, "the running engine goes on"
    room.window.captions.switch.click()
    room.window.captions.switch.click()
    room.until(lambda: room.stage.made[-1].config.whisper == "small")
    room.stage.until_on()
    assert room.stage.engine.config.whisper == "small"
    assert room.window.column.noise.answer.text() == "Only with Whisper base"
    room.stage.engine.extra.append(Residue(1.0, "rain", 0.9, (0.0,), (1,), (0.0, 0.0)))
    qtbot.wait(100)
    assert room.window.column.noise.answer.text() == "Only with Whisper base"


def test_a_size_that_is_chosen_and_missing_is_told(stages: Any, shelf: FakeShelf, qtbot: QtBot) -> None:
    stage = stages(config=EngineConfig(captions=True, whisper="medium"))
    stage.until_on()
    room = Room(stage, shelf, qtbot)
    assert "medium, which is not here yet" in room.dialog.use_line.text()
    room.click(room.card("medium").get_button)
    room.rest()
    assert room.dialog.line.text() == "Whisper medium is here and verified; captions use it."
    assert stage.window.column.noise.answer.text() == "Only with Whisper base"


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (41, "41 s"), (100, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_progress_in_words() -> None:
    job = Job(Doing.GET, "small", "downloading small.pt", 120 * MB, 484 * MB, 3.25 * MB)
    assert words.progress(job) == "120 MB of 484 MB · 3.2 MB/s · 2 min left"
    assert words.progress(Job(Doing.GET, "base", "connecting")) == "Connecting …"
    part = Job(Doing.GET, "base", "fetching part 1 of 2", 10 * MB, 133 * MB)
    assert words.progress(part) == "Fetching part 1 of 2: 10 MB of 133 MB"


# The real shelf -------------------------------------------------------------------------------------------------------


def test_the_engines_shelf_tells_what_is_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import weights

    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    tiny = weights.official_path("tiny")
    tiny.parent.mkdir(parents=True)
    tiny.write_bytes(b"damaged")
    weights.official_path("small").with_name("small.pt.part").write_bytes(b"x" * 1000)
    inventory = EngineShelf().look(Provider.CPU)
    presences = {row.size.name: row.presence for row in inventory.sizes}
    assert presences.pop("tiny") is Presence.DAMAGED
    assert presences.pop("small") is Presence.UNFINISHED
    assert set(presences.values()) == {Presence.ABSENT}
    assert {row.name for row in inventory.networks} - {"bridge"} == {"encoder", "decoder", "refiner", "residue"}
    assert all(row.sha256 and row.license and not row.problem and row.size_bytes for row in inventory.networks)
    assert (inventory.provider, inventory.why) == ("cpu", "it was asked for")
    assert len(inventory.codec_id) > 16
    EngineShelf().remove("tiny")
    assert not tiny.exists()
    EngineShelf().discard("small")
    assert set(SIZES) == {row.size.name for row in inventory.sizes}


def test_a_download_over_a_bad_line_through_the_real_shelf(
    stages: Any, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after each 300 kB, paused where the other side is silent, gone on with: all bytes, once, and verified."""
    from engine import fetch, weights

    data = os.urandom(2_000_000)
    server, sha256 = FileServer(data), hashlib.sha256(data).hexdigest()
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    monkeypatch.setattr(fetch, "RETRY_S", 0.01)
    monkeypatch.setattr(weights, "official_models", lambda: {"tiny": f"{server.address}/{sha256}/tiny.pt"})
    server.cut, server.hold, server.hold_at = 300_000, threading.Event(), 200_000
    try:
        stage = stages()
        stage.until_on()
        room = Room(stage, FakeShelf(), qtbot)
        card = room.card("tiny")
        assert list(room.dialog.cards) == ["tiny"]
        room.click(card.get_button)
        room.until(lambda: room.jobs.job is not None and room.jobs.job.done == 200_000)
        room.click(card.pause_button)
        server.hold.set()
        room.rest()
        assert card.row.presence is Presence.UNFINISHED
        there = card.row.done_bytes
        assert 200_000 <= there <= 300_000
        asked = len(server.asked)
        room.click(card.get_button)
        room.rest()
        assert server.asked[asked] == f"bytes={there}-"
        assert weights.require_weights("tiny").path.read_bytes() == data
        assert card.row.presence is Presence.HERE and card.row.verified
        room.click(card.remove_button)
        room.click(card.really_button)
        room.rest()
        server.cut, server.data = 0, bytes(len(data))
        room.click(card.get_button)
        room.rest()
        assert "damaged and was removed; try again" in room.dialog.line.text()
        assert card.row.presence is Presence.ABSENT
    finally:
        server.close()
