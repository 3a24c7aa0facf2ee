"""What the settings mean for `live` and for the window: a flag always wins, and nothing records unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cli
from app.commands_live import LiveRequest, load_ahead
from app.settings import Microphone, Remembered, Settings
from app.settings_file import settings_path, write
from app.settings_use import LiveFlags, planned_folder, recording_folder, window_config
from engine.types import Background, Provider, UsageError

ROOT = Path(__file__).resolve().parent.parent
PLAIN = LiveRequest(None, None, False, "drop", False, False, None, "en", None, None, "auto")
CHOSEN = Settings(
    virtual_microphone=False,
    output="none",
    background="-12",
    level=True,
    captions=True,
    caption_language="auto",
    caption_others=True,
    recording_folder="/somewhere",
    provider="cpu",
)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[LiveRequest]:
    """What `sottovoce live` was asked to do, in place of doing it."""
    asked: list[LiveRequest] = []
    monkeypatch.setattr("app.commands_live.live_run", lambda request, control: asked.append(request) or 0)
    monkeypatch.setattr("app.commands_live.load_ahead", lambda provider: None)
    return asked


def test_without_settings_live_is_as_plain_as_ever(ran: list[LiveRequest]) -> None:
    assert cli.run(["live"]) == 0
    assert ran == [PLAIN]


def test_what_was_chosen_holds_where_no_flag_says_otherwise(ran: list[LiveRequest]) -> None:
    write({(name,): getattr(CHOSEN, name) for name in CHOSEN.model_fields_set})
    assert cli.run(["live"]) == 0
    assert ran == [LiveRequest(None, "none", False, "-12", True, True, "speakers", None, None, None, "cpu")]


def test_what_only_writes_or_reads_files_is_not_loaded_before_the_first_sound() -> None:
    write({("level",): True, ("provider",): "cpu"})
    code = (
        "import sys, app.commands_live\n"
        "from app.settings_use import LiveFlags\n"
        "assert LiveFlags().request().level\n"
        "import engine.live\n"
        "print(*{'tomlkit', 'filelock', 'av', 'pysubs2', 'torch', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("text", "flag", "likely"),
    [
        ("", None, Provider.AUTO),
        ('provider = "cpu"', None, Provider.CPU),
        ('provider = "cpu"', "cuda", Provider.CUDA),
        ('provider = "fast"', None, Provider.AUTO),
        ("provider = [1]", None, Provider.AUTO),
        ("provider = ", None, Provider.AUTO),
    ],
)
def test_the_networks_are_begun_with_where_the_settings_want_them(
    text: str, flag: str | None, likely: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Provider] = []
    monkeypatch.setattr("engine.artefacts.load_ahead", begun.append)
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().write_text(text)
    load_ahead(flag)
    assert begun == [likely]


def test_flags_beat_settings(ran: list[LiveRequest]) -> None:
    write({(name,): getattr(CHOSEN, name) for name in CHOSEN.model_fields_set})
    flags = "--input a --output b --background keep --no-level --captions --also none --language de --provider auto"
    assert cli.run(["live", *flags.split()]) == 0
    assert cli.run(["live", "--virtual-mic", "--no-captions"]) == 0
    assert ran[0] == LiveRequest("a", "b", False, "keep", False, True, None, "de", None, None, "auto")
    assert ran[1] == LiveRequest(None, None, True, "-12", True, False, None, None, None, None, "cpu")


def test_the_microphone_for_calls_gives_way_to_flags() -> None:
    chosen = Remembered(Settings(virtual_microphone=True, output="none"))
    assert (LiveFlags().request(chosen).virtual_mic, LiveFlags().request(chosen).output_id) == (True, None)
    assert LiveFlags(output_id="spk").request(chosen).virtual_mic is False
    refused = LiveFlags(virtual_mic=False).request(chosen)
    assert (refused.virtual_mic, refused.output_id) == (False, "none")


booleans = {name: st.booleans() for name, info in Settings.model_fields.items() if info.annotation is bool}


@given(st.builds(Settings, recording_folder=st.just("/rec"), **booleans))
def test_no_setting_ever_starts_a_recording(settings: Settings) -> None:
    assert LiveFlags().request(Remembered(settings)).record is None
    assert window_config(settings, None).record_dir is None


def test_no_recordings_folder_is_used_twice(tmp_path: Path) -> None:
    while True:  # until both are asked for in one second
        first = planned_folder(tmp_path)
        first.mkdir()
        second = planned_folder(tmp_path)
        if second.name.startswith(first.name):
            break
    assert second.name == f"{first.name} (2)"
    assert planned_folder(tmp_path / ("x" * 300)).parent.name == "x" * 300  # whoever makes it will be told


def test_recording_goes_where_the_settings_or_the_flag_say() -> None:
    record = LiveFlags(recording=True).request(Remembered(CHOSEN)).record
    assert record is not None and record.parent == Path("/somewhere")
    assert LiveFlags(record=Path("here")).request(Remembered(CHOSEN)).record == Path("here")
    assert recording_folder(Settings()).name == "Sottovoce"
    assert recording_folder(Settings(recording_folder="~/r")) == Path.home() / "r"
    assert recording_folder(Settings(recording_folder="r")) == Path.home() / "r"  # wherever the program was started
    assert recording_folder(Settings(recording_folder="~nobody-of-that-name/r")).name == "Sottovoce"
    with pytest.raises(UsageError, match="give one of them"):
        LiveFlags(record=Path("here"), recording=True).request(Remembered())


def test_a_remembered_device_that_is_gone_is_the_default_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    there = [SimpleNamespace(id="mic", kind="input"), SimpleNamespace(id="spk", kind="output")]
    monkeypatch.setattr("engine.devices.list_devices", lambda: there)
    chosen = Remembered(Settings(input="gone", virtual_microphone=False, output="spk"))
    request = LiveFlags().request(chosen)
    assert (request.input_id, request.output_id) == (None, "spk")
    assert "input gone of the settings is not there" in capsys.readouterr().err


def test_a_microphone_brings_what_was_used_with_it() -> None:
    remembered = Remembered(CHOSEN, {"mic": Microphone(background="keep", level=False)})
    request = LiveFlags(input_id="mic").request(remembered)
    assert (request.background, request.level) == ("keep", False)
    assert LiveFlags(input_id="mic", background="-3").request(remembered).background == "-3"
    assert LiveFlags(input_id="other").request(remembered).background == "-12"


def test_the_windows_engine_is_as_the_settings_say() -> None:
    config = window_config(CHOSEN, None)
    assert (config.background, config.level, config.captions) == (Background.parse("-12"), True, True)
    assert (config.language, config.also, config.provider) == (None, "speakers", Provider.CPU)
    given_ones = window_config(CHOSEN, Provider.CUDA, captions=False)
    assert (given_ones.provider, given_ones.captions) == (Provider.CUDA, False)


def test_a_broken_file_is_told_and_live_goes_on(ran: list[LiveRequest], own_settings: Path, capsys: Any) -> None:
    (own_settings / "settings.toml").write_text('level = true\ntheme = "pink"\n')
    assert cli.run(["live"]) == 0
    assert ran[0].level
    assert "wrong in theme" in capsys.readouterr().err
