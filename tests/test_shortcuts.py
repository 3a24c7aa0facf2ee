"""The table of shortcuts: what keys may be, what the settings' file makes of them, and the command line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from app import cli
from app.settings_file import load, settings_path, write
from app.shortcut_keys import PORTABLE, sequences
from app.shortcuts import (
    MODIFIERS,
    NAMED,
    SHORTCUTS,
    TOOLKIT,
    TOOLKIT_KEYS,
    changed,
    checked,
    in_force,
    parsed,
    shortcut,
    understood,
)
from engine.types import UsageError

often = runs(max_examples=200, deadline=None)
plain_keys = st.sampled_from(["A", "z", "7", "+", "-", ",", ";", "=", "?", "[", "\\", "é", *NAMED])
combinations = st.tuples(st.lists(st.sampled_from(MODIFIERS), unique=True), plain_keys).map(
    lambda pair: "+".join((*pair[0], pair[1]))
)
texts = st.text(max_size=20) | combinations | st.sampled_from([*TOOLKIT, "", "Ctrl+R", "Ctrl++; Ctrl+="])


def put(text: str) -> Path:
    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    return path


@often
@given(st.lists(combinations, min_size=1, max_size=3))
def test_keys_are_written_as_qt_writes_them(keys: list[str]) -> None:
    found = parsed("; ".join(keys))
    assert [each.toString(PORTABLE) for each in sequences(found)] == list(found)
    assert parsed("; ".join(found)) == found
    assert parsed("; ".join(keys).lower()) == found


@pytest.mark.parametrize("name", [*TOOLKIT_KEYS, *sorted(TOOLKIT)])
def test_qt_knows_the_keys_that_stay_with_the_toolkit_and_nothing_takes_them(name: str) -> None:
    assert [each.toString(PORTABLE) for each in sequences((name,))] == [name]
    with pytest.raises(UsageError, match="always does the same"):
        checked("mute", name, {})
    if name in TOOLKIT_KEYS:
        with pytest.raises(UsageError, match="always does the same"):
            checked("mute", f"Ctrl+Shift+{name}", {})


def test_as_it_comes_no_keys_have_two_meanings_and_all_may_be() -> None:
    for name, known in SHORTCUTS.items():
        assert known.keys and checked(name, known.text, {}) == known.text
        assert known.sentence[0].isupper() and not known.sentence.endswith(".")


@pytest.mark.parametrize(
    "text", ["Hyper+M", "Ctrl+", "Ctrl", "Ctrl+Shift", "M+Ctrl", "Ctrl+MM", "Ctrl+K, Ctrl+C", "\0"]
)
def test_what_names_no_keys_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="names no keys; write them as"):
        checked("mute", text, {})


def test_keys_that_another_has_are_refused_until_it_gives_them_up() -> None:
    with pytest.raises(UsageError, match=r"Ctrl\+R is taken by Record; choose other keys"):
        checked("mute", "ctrl+r", {})
    assert checked("mute", "ctrl+r", {"record": ""}) == "Ctrl+R"
    with pytest.raises(UsageError, match="taken by Mute"):
        changed({"record": "", "mute": "Ctrl+R"}, "record", "Ctrl+R")
    with pytest.raises(UsageError, match="taken by Larger text"):
        checked("mute", "F9; Ctrl+=", {})
    assert checked("compare", "Ctrl+R", {}) == "Ctrl+R"  # another window


def test_what_is_as_it_came_is_no_change() -> None:
    changes = changed({}, "mute", "F9")
    assert changes == {"mute": "F9"} and in_force(changes)["mute"] == ("F9",)
    assert changed(changes, "mute", "shift+ctrl+m") == {"mute": "Ctrl+Shift+M"}
    assert changed(changes, "mute", "CTRL+M") == {}
    assert changed(changes, "level", "") == {"mute": "F9", "level": ""}


@often
@given(st.dictionaries(st.sampled_from(["mute", "record", "level", "find", "play", "larger_text", "no"]), texts))
def test_whatever_a_file_says_what_is_left_is_sound(rows: dict[str, str]) -> None:
    changes, wrong = understood(rows)
    assert set(changes) | set(wrong) <= set(rows) and not set(changes) & set(wrong)
    for name, text in changes.items():
        assert checked(name, text, changes) == text != SHORTCUTS[name].text
    assert understood(changes) == (changes, [])


def test_two_that_swapped_are_both_right() -> None:
    assert understood({"mute": "Ctrl+R", "record": "Ctrl+M"}) == ({"mute": "Ctrl+R", "record": "Ctrl+M"}, [])
    assert understood({"mute": "Ctrl+R", "record": 3}) == ({}, ["record", "mute"])


def test_the_file_holds_only_what_differs_and_wrong_entries_are_told_and_kept_aside() -> None:
    text = '# mine\ntheme = "dark"\n\n[shortcuts]\nmute = "f9"  # near\nlevel = ""\nfind = "Ctrl+C"\nrecord = 7\n'
    path = put(text + 'save_captions = "Ctrl+O"\nmutee = "F8"\nresync = "Hyper+X"\n')
    remembered, line = load()
    assert remembered.shortcuts == {"mute": "F9", "level": ""}
    assert remembered.settings.theme == "dark"
    for name in ("find", "record", "mutee", "resync", "save_captions"):
        assert f"shortcuts.{name}" in line
    assert "kept as settings.toml.bad-" in line
    assert tomllib.loads(path.read_text())["shortcuts"] == {"mute": "f9", "level": ""}
    assert "# near" in path.read_text()
    assert load() == (remembered, "")
    write({("shortcuts", "mute"): None, ("shortcuts", "level"): None})
    assert "shortcuts" not in tomllib.loads(path.read_text())


@pytest.mark.parametrize("text", ["shortcuts = 3\n", "[[shortcuts]]\nmute = 'F9'\n", "[shortcuts]\nmute = ['F9']\n"])
def test_a_table_that_is_none_costs_only_itself(text: str) -> None:
    put('theme = "dark"\n' + text if text.startswith("s") else text)
    remembered, line = load()
    assert remembered.shortcuts == {} and "wrong in shortcuts" in line


def test_broken_lines_leave_the_others(own_settings: Path) -> None:
    put('[shortcuts]\nmute = "F9"\nlevel = "F8\nrecord = "F7"\n')
    assert load()[0].shortcuts == {"mute": "F9", "record": "F7"}


def test_the_command_line_gets_sets_resets_and_lists(capsys: Any) -> None:
    def said(*arguments: str) -> str:
        assert cli.run(["settings", *arguments]) == 0
        return capsys.readouterr().out.strip()

    assert said("get", "shortcut.mute") == "Ctrl+M"
    said("set", "shortcut.mute", "shift+f9")
    assert said("get", "shortcut.mute") == "Shift+F9"
    said("set", "shortcut.save-captions", "")
    assert load()[0].shortcuts == {"mute": "Shift+F9", "save_captions": ""}
    listed = {entry["name"]: entry for entry in json.loads(said("list", "--json"))}
    mute = listed["shortcut.mute"]
    assert (mute["value"], mute["default"], mute["chosen"]) == ("Shift+F9", "Ctrl+M", True)
    assert "shortcut.find_next" in said() and "Go to the next match" in said()
    said("reset", "shortcut.mute")
    said("set", "shortcut.save_captions", "Ctrl+S")
    assert load()[0].shortcuts == {}
    assert settings_path().read_text().strip() == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set", "shortcut.mute", "Ctrl+R"], "Ctrl+R is taken by Record"),
        (["set", "shortcut.mute", "Ctrl+C"], "always does the same"),
        (["set", "shortcut.mute", "loud"], "names no keys"),
        (["get", "shortcut.muet"], "did you mean shortcut.mute?"),
        (["set", "shortcut.mute"], "takes NAME and VALUE"),
    ],
)
def test_the_command_line_says_what_may_not_be(arguments: list[str], sentence: str, capsys: Any) -> None:
    assert cli.run(["settings", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not settings_path().exists()


def test_names_are_found_with_and_without_their_prefix() -> None:
    assert shortcut("shortcut.open-files") is shortcut("open_files") is SHORTCUTS["open_files"]
    with pytest.raises(UsageError, match="sottovoce settings list"):
        shortcut("zzz")
