"""Recording from the window, files let fall on it, and what an earlier run left behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import platformdirs
import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from app.bridge import RunState
from app.desk import Desk, RecoveredBar
from app.file_window import FileWindow
from app.record_bar import short
from app.settings_use import default_folder
from app.window import Choices
from engine.ports import NO_OUTPUT
from engine.types import Problem, Provider, RecordingChange
from engine.unfinished import Repaired
from tests.stage import WAIT_MS, Stage, to_front
from tests.test_file_window import drop, put


@pytest.fixture
def recording(stages: Callable[..., Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A window that runs and records into a folder of the test's."""
    monkeypatch.setattr("app.record_bar.default_folder", lambda: tmp_path / "Sottovoce")
    stage = stages(choices=Choices("mic", None))
    stage.until_on()
    return stage


def folders(stage: Stage) -> list[str]:
    return [told["folder"] for engine in stage.made for name, told in engine.calls if name == "record"]


def ctrl(stage: Stage, key: Qt.Key) -> None:
    to_front(stage.window, stage.qtbot)
    stage.qtbot.keyClick(stage.window, key, Qt.KeyboardModifier.ControlModifier)


def test_a_key_begins_and_ends_a_recording(recording: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    bar = recording.window.desk.bar
    assert bar.notice.whole().startswith(f"Records into {tmp_path}/Sottovoce: ")
    kept = "microphone, what is sent, voice, background, tokens, captions"
    assert bar.notice.whole().endswith(f": {kept}")
    ctrl(recording, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: bar.time.isVisible() and bar.time.text() == "0:01", timeout=WAIT_MS)
    [folder] = folders(recording)
    assert Path(folder).parent == tmp_path / "Sottovoce"
    assert bar.record.accessibleName() == "Stop recording" and bar.record.isChecked()
    assert bar.notice.whole().startswith(f"Recording into {folder}: ")
    assert not bar.change.isVisible()
    ctrl(recording, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: bar.notice.whole() == f"Saved 0:02 in {folder}", timeout=WAIT_MS)
    assert ("end_recording", {}) in recording.engine.calls
    opened: list[Path] = []
    bar._open_folder = opened.append
    assert bar.show_folder.isVisible() and not bar.time.isVisible()
    bar.show_folder.click()
    assert opened == [Path(folder)]


def test_only_captions_that_are_on_are_promised(recording: Stage, qtbot: QtBot) -> None:
    window = recording.window
    window.captions.switch.click()
    assert window.desk.bar.notice.whole().endswith("background, tokens")
    recording.until_on()
    window.captions.switch.click()
    assert window.desk.bar.notice.whole().endswith("background, tokens, captions")


def test_what_cannot_be_recorded_is_told_and_the_sound_goes_on(recording: Stage, qtbot: QtBot) -> None:
    window = recording.window
    recording.engine.refuse_record = "the disk is full; record elsewhere"
    window.desk.bar.record.click()
    qtbot.waitUntil(lambda: "disk is full" in window.message.text(), timeout=WAIT_MS)
    assert window.desk.bar.record.accessibleName() == "Record"
    assert recording.engine.state == "running"


def test_a_disk_that_fills_is_told_and_the_sound_goes_on(recording: Stage, qtbot: QtBot) -> None:
    window, engine = recording.window, recording.engine
    window.desk.bar.record.click()
    qtbot.waitUntil(lambda: window.desk.bar.time.text() == "0:01", timeout=WAIT_MS)
    engine.extra += [
        Problem(1.0, "the recording stopped: input.wav cannot be written; make room or record elsewhere", "running"),
        RecordingChange(1.0, engine.recorded, 0.0, 1.0),
    ]
    qtbot.waitUntil(lambda: "make room" in window.message.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: window.desk.bar.notice.whole().startswith("Saved 0:01 in"), timeout=WAIT_MS)
    assert window.desk.bar.record.accessibleName() == "Record" and not window.message.retry.isVisible()
    assert recording.bridge.state is RunState.ON


def test_a_recording_that_fails_at_its_first_sound_is_over(recording: Stage, qtbot: QtBot) -> None:
    """Its beginning is never told."""
    bar, engine = recording.window.desk.bar, recording.engine
    engine.pause()
    bar.record.click()
    qtbot.waitUntil(lambda: bool(engine.recorded), timeout=WAIT_MS)
    engine.extra = [RecordingChange(1.0, engine.recorded, 0.0, 0.0)]
    qtbot.waitUntil(lambda: bar.record.accessibleName() == "Record", timeout=WAIT_MS)


def test_a_recording_goes_on_in_another_part_when_the_sound_begins_anew(recording: Stage, qtbot: QtBot) -> None:
    window = recording.window
    window.desk.bar.record.click()
    qtbot.waitUntil(lambda: len(folders(recording)) == 1, timeout=WAIT_MS)
    window.choose("output", "spk")
    qtbot.waitUntil(lambda: len(folders(recording)) == 2, timeout=WAIT_MS)
    first, second = folders(recording)
    assert second == f"{first} part 2"
    qtbot.waitUntil(lambda: window.desk.bar.notice.whole().startswith(f"Recording into {second}"), timeout=WAIT_MS)
    window.bridge.stop()
    qtbot.waitUntil(lambda: not window.desk.bar.record.isEnabled(), timeout=WAIT_MS)
    assert window.desk.bar.record.accessibleName() == "Record"


def test_where_recordings_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_music_path", lambda: tmp_path / "Music")
    monkeypatch.setattr(platformdirs, "user_documents_path", lambda: tmp_path / "Papers")
    assert default_folder() == tmp_path / "Music" / "Sottovoce"
    (tmp_path / "Papers").mkdir()
    assert default_folder() == tmp_path / "Papers" / "Sottovoce"
    (tmp_path / "Music").mkdir()
    assert default_folder() == tmp_path / "Music" / "Sottovoce"
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert short(tmp_path / "Music" / "a") == "~/Music/a"
    assert short(Path("/elsewhere")) == "/elsewhere"


def test_files_let_fall_on_the_window_are_listed_and_the_run_is_left_alone(
    stages: Callable[..., Stage], qtbot: QtBot, tmp_path: Path
) -> None:
    stage = stages()
    stage.until_on()
    window = stage.window
    before = [name for name, _ in stage.engine.calls]
    assert not drop(window, [])
    assert drop(window, put(tmp_path, "a.wav"))
    files = window.desk.files
    assert files is not None and files.isVisible()
    assert [item.source for item in files.batch.items] == [tmp_path / "a.wav"]
    assert files.background.place.findData("rain") > 0
    assert [name for name, _ in stage.engine.calls] == before
    assert files.listening._output() is None  # never into a call


def test_files_are_cleaned_as_the_window_is_now(stages: Callable[..., Stage], tmp_path: Path) -> None:
    stage = stages()
    stage.until_on()
    window = stage.window
    files = window.desk.show_files()
    files.batch._command = (str(tmp_path / "nothing"),)
    files.close()
    window.scenes = [*window.scenes, SimpleNamespace(name="sea", title="the sea")]
    window.config = dataclasses.replace(window.config, provider=Provider.CPU)
    assert window.desk.show_files() is files
    assert files.background.place.findData("sea") > 0
    assert files.background.place.itemText(0) == "As it was"
    window.config = dataclasses.replace(window.config, provider=Provider.CUDA)
    files.take(put(tmp_path, "a.wav"))
    files.start.click()
    assert files.batch.items[0].job is not None and files.batch.items[0].job.provider == "cuda"


def test_a_key_asks_for_files(stages: Callable[..., Stage], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stages(choices=Choices("mic", "spk"))
    stage.until_on()
    asked: list[FileWindow] = []
    monkeypatch.setattr(FileWindow, "ask_for_files", lambda window: asked.append(window))
    ctrl(stage, Qt.Key.Key_O)
    qtbot.waitUntil(lambda: bool(asked), timeout=WAIT_MS)
    assert asked == [stage.window.desk.files]


@pytest.mark.parametrize(("output", "where"), [("spk", "spk"), (NO_OUTPUT, None)])
def test_both_sounds_are_compared_where_the_sound_goes(
    stages: Callable[..., Stage], output: str, where: str | None
) -> None:
    window = stages(choices=Choices("mic", output)).window
    window.choices = Choices("mic", output)
    assert window.desk.listening_output() == where


def test_what_a_crash_left_is_told_in_one_line_with_its_folder(qtbot: QtBot, tmp_path: Path) -> None:
    opened: list[Path] = []
    bar = RecoveredBar(opened.append)
    qtbot.addWidget(bar)
    bar.say([])
    assert bar.isHidden()
    bar.say([Repaired(tmp_path / "r" / "1", 75.0)])
    assert bar.label.text() == f"A recording was cut off and has been completed: 1:15 in {tmp_path / 'r' / '1'}"
    bar.open.click()
    bar.say([Repaired(tmp_path / "r" / "1", 75.0), Repaired(tmp_path / "r" / "2", 5.0)])
    assert bar.label.text().startswith("2 recordings were cut off")
    bar.open.click()
    assert opened == [tmp_path / "r" / "1", tmp_path / "r"]
    bar.dismiss.click()
    assert bar.isHidden()


def test_the_window_looks_for_it_without_waiting(
    stages: Callable[..., Stage], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repair() -> list[Repaired]:
        time.sleep(0.3)  # a long recording
        return [Repaired(tmp_path, 12.0)]

    monkeypatch.setattr("engine.unfinished.repair_unfinished", repair)
    began = time.monotonic()
    window: Any = stages().window
    assert window.desk.recovered.isHidden() or time.monotonic() - began > 0.3
    qtbot.waitUntil(window.desk.recovered.isVisible, timeout=WAIT_MS)
    assert isinstance(window.desk, Desk)
