"""The settings of a running window: at once in memory, seldom and elsewhere in the file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app import settings_file
from app.settings import Microphone, Preset, Remembered, Settings
from app.settings_file import Changes, settings_path
from app.settings_store import SettingsStore
from engine.types import SottovoceError, UsageError
from tests.stage import WAIT_MS


class Disk:
    """Takes writes; `full` refuses them."""

    def __init__(self) -> None:
        self.full = False
        self.writes: list[Changes] = []
        self.threads: set[int] = set()

    def write(self, changes: Changes) -> None:
        self.threads.add(threading.get_ident())
        if self.full:
            raise SottovoceError("no room")
        self.writes.append(changes)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def store(disk: Disk, qtbot: QtBot) -> Iterator[SettingsStore]:
    made = SettingsStore(Remembered(), disk.write)
    yield made
    made.close()


def test_a_slider_writes_once_and_off_the_gui_thread(store: SettingsStore, disk: Disk, qtbot: QtBot) -> None:
    heard: list[str] = []
    store.changed.connect(heard.append)
    for db in range(-60, 0):
        store.set(background=str(db))
    assert (store.settings.background, len(heard)) == ("-1", 60)
    qtbot.waitUntil(lambda: bool(disk.writes), timeout=WAIT_MS)
    assert disk.writes == [{("background",): "-1"}]
    assert threading.get_ident() not in disk.threads


def test_what_is_not_written_yet_is_written_at_the_end(store: SettingsStore, disk: Disk) -> None:
    store.set(theme="dark")
    store.close()
    assert disk.writes == [{("theme",): "dark"}]
    store.close()


def test_what_does_not_change_is_neither_told_nor_written(store: SettingsStore, disk: Disk) -> None:
    store.set(theme="dark")
    heard: list[str] = []
    store.changed.connect(heard.append)
    store.set(theme="dark")
    assert heard == []
    store.set(level=False)  # as it came, and now chosen: that is worth a write
    store.close()
    assert (heard, disk.writes) == ([], [{("theme",): "dark", ("level",): False}])


def test_a_wrong_value_leaves_all_as_it_was(store: SettingsStore, disk: Disk) -> None:
    with pytest.raises(UsageError, match="theme is system, dark or light"):
        store.set(level=True, theme="pink")
    assert store.settings == Settings()
    store.close()
    assert disk.writes == []


def test_a_full_disk_is_told_once_and_nothing_is_lost(store: SettingsStore, disk: Disk, qtbot: QtBot) -> None:
    told: list[str] = []
    store.failed.connect(told.append)
    disk.full = True
    store.set(theme="dark")
    qtbot.waitUntil(lambda: bool(told), timeout=WAIT_MS)
    assert store.settings.theme == "dark"
    assert "no room" in told[0]
    disk.full = False
    store.set(level=True)
    qtbot.waitUntil(lambda: bool(disk.writes), timeout=WAIT_MS)
    assert disk.writes == [{("theme",): "dark", ("level",): True}]
    assert len(told) == 1


def test_presets_and_microphones_reach_the_file(qtbot: QtBot) -> None:
    store = SettingsStore(Remembered())
    mine = Preset(background="-3", level=True, captions=False)
    assert store.save_preset(" My  desk ", mine) == "My desk"
    store.save_preset("Gone", mine)
    store.delete_preset("Gone")
    store.save_preset("Again", mine)
    store.delete_preset("Again")
    store.save_preset("Again", mine)
    store.remember_microphone("mic.1", Microphone(background="keep", level=False))
    for name in ("Call", "Nobody"):
        with pytest.raises(UsageError):
            store.delete_preset(name)
    with pytest.raises(UsageError):
        store.save_preset("Stream", mine)
    store.close()
    remembered, line = settings_file.load()
    assert line == ""
    assert remembered == store.remembered
    assert set(remembered.own_presets) == {"My desk", "Again"}


def test_reset_tells_what_changes_back(store: SettingsStore, disk: Disk) -> None:
    store.set(theme="dark", level=True)
    heard: list[Any] = []
    store.changed.connect(heard.append)
    store.reset("theme")
    assert (heard, store.settings) == (["theme"], Settings(level=True))
    store.reset()
    assert (heard, store.settings.model_fields_set) == (["theme", "level"], set())


def test_what_another_process_writes_is_taken_up(qtbot: QtBot) -> None:
    settings_file.write({("level",): True})
    store = SettingsStore(settings_file.load()[0])
    store.follow()
    heard: list[str] = []
    store.changed.connect(heard.append)
    settings_file.write({("theme",): "dark", ("presets", "Desk", "background"): "keep"})
    qtbot.waitUntil(lambda: store.settings.theme == "dark", timeout=WAIT_MS)
    settings_file.write({("level",): None})
    qtbot.waitUntil(lambda: not store.settings.level, timeout=WAIT_MS)
    assert heard == ["theme", "level"]
    store.close()


def test_what_is_chosen_here_and_not_written_yet_wins(store: SettingsStore, disk: Disk, qtbot: QtBot) -> None:
    store.follow()
    disk.full = True  # it stays to be written
    store.set(theme="light")
    settings_file.write({("theme",): "dark", ("level",): True})
    store._begin_read()
    qtbot.waitUntil(lambda: store.settings.level, timeout=WAIT_MS)
    assert store.settings.theme == "light"


def test_a_file_that_goes_away_changes_nothing(store: SettingsStore, qtbot: QtBot) -> None:
    settings_file.write({("theme",): "dark"})
    store.follow()
    store._begin_read()
    qtbot.waitUntil(lambda: store.settings.theme == "dark", timeout=WAIT_MS)
    settings_path().unlink()
    store._begin_read()
    assert store.settings.theme == "dark"


def test_a_folder_that_is_made_by_the_first_write_is_followed(
    qtbot: QtBot, own_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CONFIG", str(own_settings / "new" / "folder"))
    store = SettingsStore(settings_file.load()[0])
    store.follow()
    store.set(level=True)
    qtbot.waitUntil(lambda: settings_path().exists(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: bool(store._watcher and store._watcher.directories()), timeout=WAIT_MS)
    settings_file.write({("theme",): "dark"})
    qtbot.waitUntil(lambda: store.settings.theme == "dark", timeout=WAIT_MS)
    store.close()
