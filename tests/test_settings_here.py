"""A place or a language that is not here is refused where it is chosen, and keeps no sound from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import cli
from app.settings import Remembered, Settings
from app.settings_file import load, settings_path, write
from app.settings_use import LiveFlags, window_config


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("background", "swap:moon", "there is no place 'moon'; choose one of: cafe, fire,"),
        ("caption_language", "xx", "Whisper knows no language 'xx'"),
    ],
)
def test_what_is_not_here_cannot_be_chosen(
    name: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["settings", "set", name, value]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not settings_path().exists()
    assert cli.run(["settings", "set", "background", "swap:sea@-6"]) == 0
    assert cli.run(["settings", "set", "caption_language", "de"]) == 0


def test_what_is_not_here_any_more_keeps_no_sound_from_starting(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(background="swap:moon@-6", caption_language="xx", captions=True)
    assert window_config(settings, None).language is None  # the window sees to the place itself
    request = LiveFlags().request(Remembered(settings))
    assert (request.background, request.language) == ("drop", None)
    err = capsys.readouterr().err
    assert "the place of swap:moon@-6 in the settings is not here; the background is dropped" in err
    assert "it is told from the sound" in err
    assert LiveFlags(background="swap:moon").request(Remembered(settings)).background == "swap:moon"  # that is told


def test_a_folder_is_meant_from_where_the_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, kept in (("recordings", str(tmp_path / "recordings")), ("~/r", "~/r"), ("", "")):
        assert cli.run(["settings", "set", "recording_folder", given]) == 0
        assert load()[0].settings.recording_folder == kept


@pytest.mark.parametrize("name", ["caption-language", "Caption_Language"])
def test_a_name_that_is_written_in_another_way_in_the_file_is_told(name: str) -> None:
    write({("level",): True})
    settings_path().write_text(f'{name} = "de"\nlevel = true\n')
    remembered, line = load()
    assert remembered.settings == Settings(level=True)
    assert line == f"{name} in {settings_path()} is not read; a file calls it caption_language"
    settings_path().write_text("a_setting_to_come = 1\n")
    assert load()[1] == ""
