"""The window of sound files: what is dropped is listed, worked off one by one, told, stopped, and compared by ear."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.batch import Batch, Item, ItemState, Wishes
from app.file_window import BESIDE, FileWindow, words_of
from app.theme import DARK
from engine.paths import assets_dir
from engine.types import DeviceError, EngineConfig, Provider
from tests.stage import RAIN, WAIT_MS, to_front

SLOW_MS = 60_000  # a process of Python's own with the models in it, on a busy machine
# Stands for engine.file_worker: works on a file as its name says, and writes its job down as the result.
WORKER = """
import json, os, sys, time
job = json.loads(sys.argv[1])
name = os.path.basename(job["source"])
def tell(**m): print(json.dumps(m), flush=True)
def done(stopped, warnings=()):
    open(job["target"], "w").write(json.dumps(job))
    tell(outcome={"sound_s": 5.0, "stopped": stopped, "warnings": list(warnings), "real_time_factor": 0.2})
    sys.exit(0)
tell(part=0.25)
if "bad" in name:
    tell(failed=job["source"] + " is not a sound file that can be read; convert it to WAV first"); sys.exit(1)
if "dies" in name:
    open(os.path.join(os.path.dirname(job["target"]), f".dies.{os.getpid()}.part.wav"), "w").close()
    os._exit(3)
if "long" in name:
    os.read(0, 1)
    done(True)
done(False, [name + " ends early"] if "cut" in name else [])
"""

CONFIG = EngineConfig(provider=Provider.CPU, language="de", whisper="small")


class FakePlayer:
    """What the window hears with."""

    def __init__(self, original: Path, result: Path, output: str | None) -> None:
        self.pair, self.output = (original, result), output
        self.duration_s, self.position_s = 5.0, 1.0
        self.failure: str | None = None
        self.playing = self.result = self.closed = False

    def play(self) -> None:
        self.playing = True

    def pause(self) -> None:
        self.playing = False

    def seek(self, at_s: float) -> None:
        self.position_s = at_s

    def listen_to(self, result: bool) -> None:
        self.result = result

    def close(self) -> None:
        self.closed = True


@dataclasses.dataclass
class Files:
    window: FileWindow
    players: list[FakePlayer]


@pytest.fixture
def files(qtbot: QtBot) -> Iterator[Callable[..., Files]]:
    made: list[Files] = []

    def one(command: tuple[str, ...] = (sys.executable, "-c", WORKER)) -> Files:
        players: list[FakePlayer] = []

        def open_player(*pair: Any) -> FakePlayer:
            if "mute" in pair[0].name:
                raise DeviceError("no sound output was found; plug one in")
            players.append(FakePlayer(*pair))
            return players[-1]

        window = FileWindow(lambda: [RAIN], lambda: "spk", lambda: CONFIG, Batch(command), open_player)
        window.set_theme(DARK)
        window.show()
        made.append(Files(window, players))
        return made[-1]

    yield one
    for each in made:
        each.window.end()
        each.window.deleteLater()


def put(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


def drop(widget: QWidget, paths: list[Path]) -> bool:
    """Let files fall on a widget -> whether it took them."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPointF(9, 9).toPoint(), Qt.DropAction.CopyAction, data, buttons, keys)
    QApplication.sendEvent(widget, enter)
    if not enter.isAccepted():
        return False
    QApplication.sendEvent(widget, QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, buttons, keys))
    return True


def states(window: FileWindow) -> list[ItemState]:
    return [item.state for item in window.batch.items]


def said(window: FileWindow) -> list[str]:
    return [window.table.item(row, 2).text() for row in range(window.table.rowCount())]


def test_what_is_dropped_is_worked_off_and_every_fault_is_told_in_its_row(
    files: Callable[..., Files], qtbot: QtBot, tmp_path: Path
) -> None:
    window = files().window
    assert window.empty.isVisible() and not window.start.isEnabled()
    assert drop(window, put(tmp_path, "a.wav", "bad.pdf", "cut.flac", "dies.ogg", "z.m4a"))
    assert states(window) == [ItemState.WAITING] * 5
    assert said(window) == ["Waiting"] * 5
    qtbot.mouseClick(window.start, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(window.batch.finished, timeout=SLOW_MS):
        pass
    done = ItemState.DONE
    assert states(window) == [done, ItemState.FAILED, done, ItemState.FAILED, done]
    assert said(window) == [
        "a.sottovoce.wav",
        "bad.pdf is not a sound file that can be read; convert it to WAV first",
        "cut.sottovoce.wav — cut.flac ends early",
        "The work on it ended unexpectedly; try it again",
        "z.sottovoce.wav",
    ]
    assert [window.progress(row).value() for row in range(5)] == [1000, 250, 1000, 250, 1000]
    assert not list(tmp_path.glob(".*"))
    window.clear.click()
    assert window.table.rowCount() == 0


def test_only_files_are_taken_and_none_twice(files: Callable[..., Files], tmp_path: Path) -> None:
    window = files().window
    paths = put(tmp_path, "a.wav")
    assert not drop(window, [])
    assert drop(window, [tmp_path, *paths, *paths])
    assert [item.source.name for item in window.batch.items] == ["a.wav"]
    assert "is a folder" in window.message.text()
    window.take(paths)
    assert len(window.batch.items) == 1


def test_what_is_chosen_reaches_the_work(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    window = files().window
    (tmp_path / "to").mkdir()
    window.background.place.setCurrentIndex(window.background.place.findData("rain"))
    window.background.place.activated.emit(1)
    window.background.slider.setValue(-6)
    window.stems.click()
    window.captions.click()
    window.set_folder(tmp_path / "to")
    expected = Wishes("swap:rain@-6", True, True, tmp_path / "to", "cpu", "de", "small")
    assert window.batch.wishes == expected
    window.take(put(tmp_path, "a.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: states(window) == [ItemState.DONE], timeout=SLOW_MS)
    job = json.loads((tmp_path / "to" / "a.sottovoce.wav").read_text())
    assert (job["background"], job["stems"], job["captions"], job["provider"]) == ("swap:rain@-6", True, True, "cpu")
    assert (job["language"], job["whisper"]) == ("de", "small")
    window.beside.click()
    assert window.where.text() == BESIDE and window.batch.wishes.folder is None


def test_progress_and_stop(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    window = files().window
    window.take(put(tmp_path, "long.wav", "later.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: window.progress(0).value() == 250, timeout=SLOW_MS)
    qtbot.waitUntil(lambda: said(window)[0].endswith("left"), timeout=WAIT_MS)
    assert said(window)[1] == "Waiting"
    window.stop.click()
    assert said(window) == ["Stopping …", "Not begun"]
    qtbot.waitUntil(lambda: states(window) == [ItemState.STOPPED] * 2, timeout=SLOW_MS)
    assert said(window)[0] == "Stopped; long.sottovoce.wav holds the first 0:05.0"
    assert not window.batch.running


def test_what_is_added_later_takes_its_turn(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    window = files().window
    first, second = put(tmp_path, "long.wav", "b.wav")
    window.take([first])
    window.start.click()
    qtbot.waitUntil(lambda: window.progress(0).value() == 250, timeout=SLOW_MS)
    window.take([second])
    assert states(window) == [ItemState.WORKING, ItemState.WAITING]
    window.batch.cancel(window.batch.items[0])
    qtbot.waitUntil(lambda: states(window) == [ItemState.STOPPED, ItemState.DONE], timeout=SLOW_MS)


def test_what_cannot_be_looked_at_does_not_hold_up_the_others(
    files: Callable[..., Files], qtbot: QtBot, tmp_path: Path
) -> None:
    batch = files().window.batch
    batch.add([tmp_path / ("a" * 300) / "a.wav", *put(tmp_path, "b.wav")])
    batch.start()
    qtbot.waitUntil(lambda: not batch.running, timeout=SLOW_MS)
    assert [item.state for item in batch.items] == [ItemState.FAILED, ItemState.DONE]
    assert "cannot be written to (File name too long); choose another folder" in batch.items[0].text


def test_the_end_of_the_program_keeps_what_was_done(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    window = files().window
    window.take(put(tmp_path, "long.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: window.progress(0).value() == 250, timeout=SLOW_MS)
    window.end()
    assert (tmp_path / "long.sottovoce.wav").exists()


def test_a_program_that_cannot_be_started_is_told(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    window = files((str(tmp_path / "nothing"),)).window
    window.take(put(tmp_path, "a.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: states(window) == [ItemState.FAILED], timeout=WAIT_MS)
    assert "could not be begun" in said(window)[0]


def test_both_sounds_are_compared_on_the_output_chosen(
    files: Callable[..., Files], qtbot: QtBot, tmp_path: Path
) -> None:
    made = files()
    window, listening = made.window, made.window.listening
    window.take(put(tmp_path, "a.wav", "bad.wav"))
    assert not listening.play.isEnabled()
    window.start.click()
    qtbot.waitUntil(lambda: states(window) == [ItemState.DONE, ItemState.FAILED], timeout=SLOW_MS)
    to_front(window, qtbot)
    qtbot.keyClick(window, Qt.Key.Key_P)
    qtbot.waitUntil(lambda: listening.play.text() == "Pause", timeout=WAIT_MS)
    [player] = made.players
    assert player.pair == (tmp_path / "a.wav", tmp_path / "a.sottovoce.wav") and player.output == "spk"
    assert listening.time.text() == "0:01 / 0:05"
    for result in (True, False):
        window.table.setFocus()
        qtbot.keyClick(window.table, Qt.Key.Key_A)
        assert player.result is result
        assert listening.which.text() == ("Hearing the result" if result else "Hearing the original")
    listening.place.setValue(40)
    assert player.position_s == 4.0
    qtbot.keyClick(window, Qt.Key.Key_P)
    qtbot.waitUntil(lambda: listening.play.text() == "Play", timeout=WAIT_MS)
    player.failure = "the output has gone; choose another"
    qtbot.waitUntil(lambda: "output has gone" in window.message.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: player.closed, timeout=WAIT_MS)
    window.table.selectRow(1)
    assert not listening.play.isEnabled()


def test_what_is_heard_goes_on_while_other_files_are_finished(
    files: Callable[..., Files], qtbot: QtBot, tmp_path: Path
) -> None:
    made = files()
    window, listening = made.window, made.window.listening
    window.take(put(tmp_path, "a.wav", "long.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: window.progress(1).value() == 250, timeout=SLOW_MS)
    listening.play.click()
    qtbot.waitUntil(lambda: listening.play.text() == "Pause", timeout=WAIT_MS)
    window.take(put(tmp_path, "b.wav"))
    window.stop.click()
    qtbot.waitUntil(lambda: states(window)[:2] == [ItemState.DONE, ItemState.STOPPED], timeout=SLOW_MS)
    [player] = made.players
    assert player.playing and listening.play.text() == "Pause"
    listening.play.click()
    assert not player.playing
    listening.play.click()
    window.table.selectRow(1)
    listening.play.click()
    qtbot.waitUntil(lambda: len(made.players) == 2 and player.closed, timeout=WAIT_MS)
    assert made.players[1].pair[0] == tmp_path / "long.wav"
    window.clear.click()
    qtbot.waitUntil(lambda: made.players[1].closed, timeout=WAIT_MS)


def test_files_that_come_and_go_leave_what_was_chosen_and_is_heard(
    files: Callable[..., Files], qtbot: QtBot, tmp_path: Path
) -> None:
    made = files()
    window, listening = made.window, made.window.listening
    window.take(put(tmp_path, "bad.wav", "a.wav", "b.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: not window.batch.running, timeout=SLOW_MS)
    window.table.selectRow(1)
    listening.play.click()
    qtbot.waitUntil(lambda: listening.play.text() == "Pause", timeout=WAIT_MS)
    listening.play.click()
    window.take(put(tmp_path, "c.wav", "d.wav"))
    assert [row.row() for row in window.table.selectionModel().selectedRows()] == [1]
    window.batch.items.pop(0)
    window.take([])
    assert [row.row() for row in window.table.selectionModel().selectedRows()] == [0]
    listening.play.click()
    [player] = made.players
    assert player.pair[0] == tmp_path / "a.wav" and player.playing and not player.closed
    window.clear.click()
    assert [item.source.name for item in window.batch.items] == ["c.wav", "d.wav"] and window.table.rowCount() == 2
    assert not window.table.selectionModel().selectedRows() and not listening.play.isEnabled()


def test_a_player_that_comes_late_or_not_at_all(files: Callable[..., Files], qtbot: QtBot, tmp_path: Path) -> None:
    made = files()
    window = made.window
    window.take(put(tmp_path, "mute.wav", "b.wav"))
    window.start.click()
    qtbot.waitUntil(lambda: states(window) == [ItemState.DONE] * 2, timeout=SLOW_MS)
    window.table.selectRow(0)
    window.listening.play.click()
    qtbot.waitUntil(lambda: "plug one in" in window.message.text(), timeout=WAIT_MS)
    window.table.selectRow(1)
    window.listening.play.click()
    window.close()  # before the player is there
    qtbot.waitUntil(lambda: bool(made.players) and made.players[0].closed, timeout=WAIT_MS)
    assert not any(thread.name == "sottovoce player" for thread in threading.enumerate())


def test_everything_has_a_name_and_nothing_is_clipped(files: Callable[..., Files], tmp_path: Path) -> None:
    window = files().window
    window.resize(window.minimumSize())
    window.take(put(tmp_path, "a.wav"))
    for widget in window.findChildren(QAbstractButton):
        if widget.isVisible() and not widget.objectName().startswith("qt_"):
            assert widget.accessibleName() or widget.text(), widget
            assert widget.focusPolicy() != Qt.FocusPolicy.NoFocus or widget.parent() is window.table, widget
            assert widget.width() >= widget.fontMetrics().horizontalAdvance(widget.text()), widget.text()
    for label in window.findChildren(QLabel):
        if label.isVisible() and not label.wordWrap():
            assert label.width() >= label.fontMetrics().horizontalAdvance(label.text()) - 1, label.text()


def test_words_of_every_state() -> None:
    item = Item(Path("/a/b.wav"), ItemState.STOPPED)
    assert words_of(item) == "Stopped; nothing kept"
    assert words_of(dataclasses.replace(item, state=ItemState.WORKING)) == "Begun"


def test_a_real_file_from_beginning_to_end(qtbot: QtBot, tmp_path: Path) -> None:
    """Through the very process that is used, the time left told on the way."""
    x, rate_hz = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", frames=8 * 48_000)
    soundfile.write(tmp_path / "a.wav", x, rate_hz)
    window = FileWindow(lambda: [SimpleNamespace(name="rain", title="rain")], lambda: None, lambda: CONFIG)
    try:
        window.take([tmp_path / "a.wav"])
        window.start.click()
        seen: set[int] = set()
        window.batch.changed.connect(lambda item: seen.add(round(100 * item.part)))
        qtbot.waitUntil(lambda: states(window) == [ItemState.DONE], timeout=SLOW_MS)
        assert len(seen) > 3
        y, _ = soundfile.read(tmp_path / "a.sottovoce.wav", dtype="float32")
        assert y.shape == x.shape and np.square(y).mean() < np.square(x).mean()
    finally:
        window.end()
        window.deleteLater()
