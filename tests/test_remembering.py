"""The window remembers: what a person changes is there at the next start, and what is set is applied at once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from app import commands_settings, console, desktop
from app.bridge import RunState
from app.caption_text import ZOOM_STEP
from app.column import DEMO_INPUT
from app.known_devices import VIRTUAL_OUTPUT
from app.remembering import Remembering, first_choices
from app.settings import Microphone, Remembered, Settings, preset
from app.settings_file import load, write
from app.settings_store import SettingsStore
from app.settings_use import window_config
from app.theme import DARK, LIGHT
from engine.devices import OUTPUT, DeviceInfo
from engine.types import Background, Provider
from engine.virtual_mic import makes_its_own
from tests.stage import MICROPHONE, OTHER, OWN, SPEAKER, WAIT_MS, Stage, to_front

pytestmark = pytest.mark.skipif(not makes_its_own(), reason="the first output is another where there is no virtual one")


class Run:
    """One run of the window with the settings of the file."""

    def __init__(self, stages: Any, tray: bool = False, **fake: Any) -> None:
        self.remembered, self.line = load()
        settings = self.remembered.settings
        self.stage: Stage = stages(choices=first_choices(settings), config=window_config(settings, None), **fake)
        self.window = self.stage.window
        self.store = SettingsStore(self.remembered)
        self.kept = Remembering(self.window, self.store, lambda: tray)

    def close(self) -> Settings:
        self.window.stays = False
        self.window.close()
        return load()[0].settings


@pytest.fixture(autouse=True)
def own_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def runs(stages: Any) -> Iterator[Any]:
    made: list[Run] = []

    def one(**options: Any) -> Run:
        made.append(Run(stages, **options))
        made[-1].stage.until_on()
        return made[-1]

    yield one
    for run in made:
        run.window.stays = False
        run.store.close()


def test_the_last_state_is_there_at_the_next_start(runs: Any) -> None:
    first = runs()
    first.window.choose("input", "other")
    first.window.choose("output", "spk")
    first.window.set_background(Background.parse("swap:rain@-6"))
    first.window.column.level.click()
    first.window.captions.switch.click()
    first.window.captions.others.setChecked(True)
    first.close()
    second = runs()
    config = second.stage.engine.config
    assert (config.input, config.output, config.virtual_mic) == ("other", "spk", False)
    assert (str(config.background), config.level, config.captions) == ("swap:rain@-6", True, False)
    assert config.also is not None
    assert second.window.column.level.isChecked()
    assert second.window.background.place.currentData() == "rain"
    assert not second.window.captions.switch.isChecked()


def test_a_first_start_chooses_as_ever_and_keeps_only_that_it_was_the_first(runs: Any) -> None:
    run = runs()
    assert run.stage.engine.config.virtual_mic
    run.close()
    assert load()[0].settings.model_fields_set == {"welcome"}


def test_devices_that_are_gone_fall_back_calmly_and_stay_remembered(runs: Any) -> None:
    write({("input",): "usb-headset", ("output",): "usb-headset-out", ("virtual_microphone",): False})
    run = runs()
    config = run.stage.engine.config
    assert (config.input, config.virtual_mic) == (None, True)
    assert "is not there" in run.window.message.text()
    assert run.close().input == "usb-headset"


def test_where_it_takes_a_cable_the_switch_for_calls_is_there_once_one_is(
    runs: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: False)
    devices = [MICROPHONE, SPEAKER]
    write({("output",): "spk"})
    run = runs(devices=devices)
    assert (run.stage.engine.config.output, run.stage.engine.config.virtual_mic) == ("spk", False)
    run.kept.open_dialog()
    dialog = run.kept.dialog
    switch, sentence = dialog.controls["virtual_microphone"].widget, dialog.sentences["virtual_microphone"]
    assert not switch.isEnabled() and "BlackHole" in sentence.text()
    devices.append(DeviceInfo("hole", "BlackHole 2ch", OUTPUT, default=False))
    run.window.bridge.refresh_devices()
    qtbot.waitUntil(switch.isEnabled, timeout=WAIT_MS)
    assert "BlackHole" not in sentence.text() and not dialog.controls["output"].widget.isEnabled()
    run.close()
    second = runs(devices=devices)
    assert second.stage.engine.config.virtual_mic
    qtbot.waitUntil(lambda: "Choose BlackHole 2ch as the microphone" in second.window.message.text(), timeout=WAIT_MS)


def test_the_loudspeaker_is_taken_again_only_where_it_was_chosen(runs: Any) -> None:
    write({("virtual_microphone",): False})
    config = runs().stage.engine.config
    assert (config.output, config.virtual_mic) == (None, False)
    assert first_choices(Settings()).settled is False


def test_the_demo_is_not_remembered(runs: Any) -> None:
    run = runs()
    run.window.choose("input", "other")
    run.window.choose("input", DEMO_INPUT)
    assert run.close().input == "other"


def test_a_microphone_brings_back_what_was_used_with_it(runs: Any, qtbot: QtBot) -> None:
    run = runs()
    qtbot.waitUntil(lambda: bool(run.window.devices.ids("input")), timeout=WAIT_MS)
    run.window.set_background(Background.parse("-20"))  # with the default one, which is "mic"
    run.window.choose("input", "other")
    run.window.set_background(Background.parse("keep"))
    run.window.set_level(True)
    run.window.choose("input", "mic")
    assert (str(run.window.config.background), run.window.config.level) == ("-20", False)
    run.window.choose("input", "other")
    assert (str(run.window.config.background), run.window.config.level) == ("keep", True)
    run.close()
    kept = load()[0].microphones
    assert kept["other"] == Microphone(background="keep", level=True)
    assert kept["mic"].background == "-20"


def test_a_microphones_own_sound_holds_at_the_start(runs: Any) -> None:
    write({("microphones", "mic", "background"): "-7", ("microphones", "mic", "level"): True})
    run = runs()
    run.stage.qtbot.waitUntil(lambda: run.stage.engine.background == "-7", timeout=WAIT_MS)
    assert run.window.column.level.isChecked()


def test_settings_are_applied_at_once_and_without_a_new_start(runs: Any, qtbot: QtBot) -> None:
    run = runs()
    before = len(run.stage.made)
    size = run.window.captions.text.font().pointSizeF()
    run.store.set(background="-9", level=True, theme="light", caption_scale=2.0)
    assert str(run.window.config.background) == "-9"
    assert run.window.column.level.isChecked()
    assert run.window.status._theme is LIGHT
    assert run.window.captions.text.font().pointSizeF() == pytest.approx(2 * size)
    qtbot.waitUntil(lambda: run.stage.engine.background == "-9", timeout=WAIT_MS)
    run.store.set(theme="dark")
    assert run.window.status._theme is DARK
    assert len(run.stage.made) == before


def test_letters_and_the_recordings_folder_are_remembered_as_they_are_changed_in_the_window(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs()
    run.window.captions.text.zoom(2)
    assert run.store.settings.caption_scale == pytest.approx(ZOOM_STEP**2, abs=1e-3)
    run.store.set(recording_folder=str(tmp_path / "a"))
    assert run.window.desk.bar.base == tmp_path / "a"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "b"))
    run.window.desk.bar.change.click()
    assert run.window.desk.bar.base == tmp_path / "b"
    run.window.captions.text.zoom(None)
    run.close()
    kept = load()[0].settings
    assert (kept.caption_scale, kept.recording_folder) == (1.0, str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("change", "part", "value"),
    [
        ({"caption_language": "de"}, "language", "de"),
        ({"caption_language": "auto"}, "language", None),
        ({"provider": "cpu"}, "provider", "cpu"),
        ({"captions": False}, "captions", False),
        ({"caption_others": True}, "also", "speakers"),
        ({"virtual_microphone": False, "output": "spk"}, "output", "spk"),
    ],
)
def test_what_needs_a_new_engine_gets_one(
    runs: Any, qtbot: QtBot, change: dict[str, Any], part: str, value: object
) -> None:
    run = runs()
    run.store.set(**change)
    qtbot.waitUntil(lambda: getattr(run.stage.engine.config, part) == value, timeout=WAIT_MS)
    run.stage.until_on()


def test_a_reset_of_everything_starts_one_engine(runs: Any, qtbot: QtBot) -> None:
    write({("caption_language",): "de", ("caption_others",): True, ("provider",): "cpu", ("input",): "other"})
    write({("virtual_microphone",): False, ("output",): "spk"})
    stall = threading.Event()
    run = runs(stall=stall)
    run.store.reset()
    stall.set()
    run.stage.until_on()
    config = run.stage.engine.config
    assert len(run.stage.made) == 2
    assert (config.language, config.also, config.provider, config.input) == ("en", None, "auto", None)
    assert config.virtual_mic


def test_another_language_leaves_what_a_flag_said_alone(runs: Any, qtbot: QtBot) -> None:
    write({("provider",): "cuda"})
    run = runs()
    run.window.config = dataclasses.replace(run.window.config, provider=Provider.CPU)  # gui --provider cpu
    run.store.set(caption_language="de")
    qtbot.waitUntil(lambda: run.stage.engine.config.language == "de", timeout=WAIT_MS)
    assert run.stage.engine.config.provider is Provider.CPU
    run.store.set(provider="tensorrt")
    qtbot.waitUntil(lambda: run.stage.engine.config.provider is Provider.TENSORRT, timeout=WAIT_MS)


def test_a_language_for_captions_that_are_off_waits_for_them(runs: Any) -> None:
    write({("captions",): False})
    run = runs()
    run.store.set(caption_language="de")
    assert run.stage.bridge.state is RunState.ON
    assert run.window.config.language == "de"


def test_a_preset_sets_all_three(runs: Any) -> None:
    run = runs()
    run.store.set(**preset(run.remembered, "Stream").model_dump())
    assert (str(run.window.config.background), run.window.config.level, run.window.config.captions) == (
        "-18",
        True,
        True,
    )
    run.store.set(**preset(run.remembered, "Keep the room").model_dump())
    assert (run.store.settings.background, run.store.settings.level) == ("keep", False)
    settings = run.close()
    assert (settings.background, settings.level, settings.captions) == ("keep", False, False)


def test_missing_captions_are_not_taken_for_a_persons_wish(runs: Any) -> None:
    run = runs()
    run.window.bridge.no_captions.emit("the words are not here")
    run.window.set_level(True)
    settings = run.close()
    assert settings.captions and settings.level


def test_a_place_that_is_no_longer_shipped_does_not_keep_it_from_starting(runs: Any) -> None:
    write({("background",): "swap:atlantis"})
    run = runs()
    assert "atlantis" in run.window.message.text()
    assert run.stage.engine.background == "drop"


def test_autostart_is_written_and_what_the_desktop_did_holds(runs: Any) -> None:
    run = runs()
    run.store.set(autostart=True)
    assert desktop.autostarts()
    run.close()
    desktop.autostart_path().unlink()
    again = runs()
    assert not again.store.settings.autostart


def test_autostart_that_cannot_be_is_said_and_stays_off(runs: Any) -> None:
    desktop.autostart_path().parent.mkdir(parents=True)
    desktop.autostart_path().write_text("[Desktop Entry]\nName=Mine\n")
    run = runs()
    run.store.set(autostart=True)
    assert not run.store.settings.autostart
    assert "was not written by Sottovoce" in run.window.message.text()


def test_a_full_disk_is_said_in_the_window(stages: Any, qtbot: QtBot) -> None:
    from engine.types import SottovoceError

    def full(changes: object) -> None:
        raise SottovoceError("the settings could not be saved (no room)")

    stage = stages()
    stage.until_on()
    store = SettingsStore(Remembered(), full)
    Remembering(stage.window, store, lambda: False)
    stage.window.set_background(Background.parse("keep"))
    qtbot.waitUntil(lambda: "could not be saved" in stage.window.message.text(), timeout=WAIT_MS)
    assert str(stage.window.config.background) == "keep"
    store.close()


def test_minimised_and_behind_the_tray(runs: Any) -> None:
    write({("start_minimised",): True})
    run = runs()
    run.window.hide()
    run.kept.show_window()
    assert run.window.isMinimized()
    assert run.window.bridge._hidden
    write({("keep_in_tray",): True})
    hidden = runs(tray=True)
    hidden.window.hide()
    hidden.kept.show_window()
    assert not hidden.window.isVisible()
    assert dataclasses.asdict(hidden.window.choices)["output"] == VIRTUAL_OUTPUT


def test_the_devices_of_the_tests_are_what_they_seem() -> None:
    assert [d.id for d in (MICROPHONE, OTHER, OWN, SPEAKER)] == ["mic", "other", "sottovoce", "spk"]


def test_what_is_reset_is_not_written_back_as_if_a_person_had_chosen_it(runs: Any) -> None:
    write({("captions",): False, ("level",): True, ("virtual_microphone",): False, ("output",): "spk"})
    run = runs()
    run.store.reset()
    settings = run.store.settings
    assert not settings.model_fields_set & {"captions", "level", "virtual_microphone", "background"}
    run.close()
    assert not load()[0].settings.model_fields_set & {"captions", "level", "virtual_microphone", "background"}


def test_what_is_set_while_no_window_is_open_holds_at_the_next_start(runs: Any) -> None:
    first = runs()
    first.window.set_background(Background.parse("-20"))
    first.close()
    assert commands_settings.settings("set", "background", "keep", False) == console.DONE
    assert str(runs().window.config.background) == "keep"


def test_the_first_start_tells_how_calls_get_the_clean_sound_and_the_next_does_not(runs: Any, qtbot: QtBot) -> None:
    first = runs()
    qtbot.waitUntil(lambda: "microphone in your calls" in first.window.message.text(), timeout=WAIT_MS)
    first.close()
    assert not load()[0].settings.welcome
    assert runs().window.message.text() == ""


def test_ctrl_q_quits_also_where_closing_only_hides(runs: Any, qtbot: QtBot) -> None:
    run = runs(tray=True)
    run.store.set(keep_in_tray=True)
    assert run.window.stays
    to_front(run.window, qtbot)
    qtbot.keyClick(run.window, Qt.Key.Key_Q, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: bool(run.stage.gone), timeout=WAIT_MS)
