"""The table of settings, and the command that lists, gets, sets and resets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from app import cli, desktop
from app.settings import PRESETS, ROWS, SCALE_MAX, SCALE_MIN, Settings, changed, checked, row, shown
from app.settings_file import load, settings_path
from app.shortcuts import SHORTCUTS
from engine.sizes import ALIASES, SIZES
from engine.types import UsageError

ids = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=40)
backgrounds = (
    st.sampled_from(["keep", "drop", "swap:rain", "swap:sea@-6"])
    | st.integers(-60, 0).map(str)
    | st.floats(-60, 0, allow_subnormal=False).map(lambda db: f"{db:g}")
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "input": ids,
    "output": ids,
    "background": backgrounds,
    "caption_language": st.sampled_from(["auto", "en", "de", "yue"]),
    "caption_scale": st.floats(SCALE_MIN, SCALE_MAX),
    "theme": st.sampled_from(["system", "dark", "light"]),
    "recording_folder": st.sampled_from(["", "/rec", "~/rec", "~nobody/rec"]),
    "provider": st.sampled_from(["auto", "cpu", "cuda", "tensorrt"]),
    "whisper": st.sampled_from(sorted(SIZES)),
}
one_setting = st.sampled_from(sorted(ROWS)).flatmap(
    lambda name: st.tuples(st.just(name), VALUES.get(name, st.booleans()))
)
often = runs(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def own_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts at login lies elsewhere, too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["settings", *arguments]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_every_setting_has_words_for_a_person() -> None:
    for known in ROWS.values():
        assert known.sentence.endswith(".")
        assert known.label and known.group and known.allowed
        assert checked(known.name, known.default) == known.default
    assert {known.kind for known in ROWS.values()} <= {
        "bool", "number", "choice", "language", "background", "input", "output", "folder",
    }  # fmt: skip


@often
@given(pair=one_setting)
def test_every_setting_goes_through_a_command_line_and_back(pair: tuple[str, Any], capsys: Any) -> None:
    name, value = pair
    value = checked(name, value)
    text = shown(value)
    assert checked(name, text) == value
    said(capsys, "set", name, *(["--", text] if text.startswith("--") else [text]))
    assert said(capsys, "get", name) == text
    assert getattr(load()[0].settings, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("caption_scale", "9"),
        ("caption_scale", "nan"),
        ("caption_scale", "large"),
        ("theme", "pink"),
        ("level", "perhaps"),
        ("background", "louder"),
        ("background", "3"),
        ("background", "swap:"),
        ("caption_language", "english"),
        ("input", "a\nb"),
        ("provider", "abacus"),
    ],
)
def test_what_may_not_be_is_one_sentence_and_changes_nothing(name: str, value: str, capsys: Any) -> None:
    assert cli.run(["settings", "set", name, value]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and name in err and ROWS[name].allowed in err
    assert not settings_path().exists()


def test_a_name_that_is_nearly_right_is_helped_on() -> None:
    with pytest.raises(UsageError, match="did you mean theme"):
        row("teme")
    assert row("caption-scale").name == "caption_scale"


@pytest.mark.parametrize("arguments", [["get"], ["set", "theme"], ["path", "theme"], ["get", "theme", "dark"]])
def test_wrong_use_says_what_is_taken(arguments: list[str], capsys: Any) -> None:
    assert cli.run(["settings", *arguments]) == 2
    assert f"settings {arguments[0]} takes" in capsys.readouterr().err


def test_the_list_tells_value_range_and_sentence(capsys: Any) -> None:
    said(capsys, "set", "caption-scale", "1.5")
    listed = {entry["name"]: entry for entry in json.loads(said(capsys, "list", "--json"))}
    assert list(listed) == [*ROWS, *(f"shortcut.{name}" for name in SHORTCUTS)]
    assert listed["caption_scale"] | {"value": 1.5, "chosen": True, "maximum": 3.0} == listed["caption_scale"]
    assert not listed["theme"]["chosen"]
    assert listed["theme"]["choices"] == ["system", "dark", "light"]
    text = said(capsys)
    assert "caption_scale" in text and ROWS["caption_scale"].sentence in text
    assert said(capsys, "path") == str(settings_path())
    assert json.loads(said(capsys, "path", "--json")) == {"path": str(settings_path())}
    assert json.loads(said(capsys, "get", "caption-scale", "--json")) == listed["caption_scale"]


def test_reset_brings_one_or_all_back(capsys: Any) -> None:
    for name, value in (("theme", "dark"), ("level", "on"), ("background", "-12")):
        said(capsys, "set", name, value)
    said(capsys, "reset", "theme")
    assert load()[0].settings == Settings(level=True, background="-12")
    said(capsys, "set", "shortcut.mute", "F9")
    said(capsys, "reset")
    assert load()[0].settings.model_fields_set == set()
    assert load()[0].shortcuts == {}


def test_what_is_changed_is_told_as_json_where_that_is_wanted(capsys: Any) -> None:
    assert json.loads(said(capsys, "set", "theme", "dark", "--json"))["value"] == "dark"
    assert json.loads(said(capsys, "set", "shortcut.mute", "F9", "--json"))["value"] == "F9"
    assert json.loads(said(capsys, "get", "shortcut.mute", "--json"))["chosen"]
    assert not json.loads(said(capsys, "reset", "shortcut.mute", "--json"))["chosen"]
    listed = {entry["name"]: entry for entry in json.loads(said(capsys, "preset", "Call", "--json"))}
    assert list(listed) == [*ROWS, *(f"shortcut.{name}" for name in SHORTCUTS)]
    assert listed["background"]["chosen"] and listed["theme"]["value"] == "dark"


def test_presets_are_taken_kept_and_forgotten(capsys: Any) -> None:
    said(capsys, "preset", "keep the room")
    assert said(capsys, "get", "background") == "keep"
    said(capsys, "set", "background", "-18")
    said(capsys, "save-preset", "My  desk")
    assert "My desk: background -18, level off, captions off" in said(capsys, "preset")
    said(capsys, "preset", "Stream")
    said(capsys, "preset", "My desk")
    assert load()[0].settings == Settings(background="-18", level=False, captions=False)
    said(capsys, "save-preset", "my DESK")
    assert list(load()[0].own_presets) == ["My desk"]  # the same one, as it was written first
    said(capsys, "preset", " keep  the ROOM ")
    said(capsys, "delete-preset", "MY desk")
    assert list(json.loads(said(capsys, "preset", "--json"))) == list(PRESETS)
    for arguments in (["preset", "My desk"], ["save-preset", "call"], ["delete-preset", "Call"], ["save-preset", " "]):
        assert cli.run(["settings", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_autostart_writes_the_entry_and_takes_it_away(capsys: Any) -> None:
    said(capsys, "set", "autostart", "on")
    assert desktop.autostarts()
    said(capsys, "reset", "autostart")
    assert not desktop.autostarts()


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SOTTOVOCE_CONFIG", str(tmp_path / "file"))
    assert cli.run(["settings", "set", "theme", "dark"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@given(one_setting, one_setting)
def test_changes_leave_the_rest_alone(first: tuple[str, Any], second: tuple[str, Any]) -> None:
    before = changed(Settings(), {first[0]: first[1]})
    after = changed(before, {second[0]: second[1]})
    assert after.model_fields_set == {first[0], second[0]}
    if first[0] != second[0]:
        assert getattr(after, first[0]) == getattr(before, first[0])


def test_every_size_of_whisper_can_be_chosen_by_either_name() -> None:
    assert set(row("whisper").choices) == set(SIZES)
    assert all(checked("whisper", name) == size for name, size in ALIASES.items())
