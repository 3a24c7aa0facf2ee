"""The desktop's menu and login: entries that desktops take, from odd folders too, and nobody else's file touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cli, desktop
from engine.types import SottovoceError

VALIDATOR = shutil.which(desktop.VALIDATOR)
pytestmark = pytest.mark.skipif(not desktop.HAS_ENTRIES, reason="this system has no desktop entries")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def python_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: bool) -> Path:
    """As if this ran from an environment there."""
    folder.mkdir(parents=True)
    for name in ("python", "sottovoce") if script else ("python",):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def read_exec(line: str) -> list[str]:
    """The arguments of an Exec line as a desktop reads them: the string's escapes, then quotes, then field codes."""
    text = line.replace("\\\\", "\0").replace("\0", "\\")
    arguments, word, inside, signs = [], "", False, iter(text)
    for sign in signs:
        if sign == "\\" and inside:
            word += next(signs)
        elif sign == '"':
            inside = not inside
        elif sign == " " and not inside:
            arguments.append(word)
            word = ""
        else:
            word += sign
    return [part.replace("%%", "%") for part in (*arguments, word)]


def key(path: Path, name: str) -> str:
    return next(line.partition("=")[2] for line in path.read_text().splitlines() if line.startswith(f"{name}="))


@given(st.lists(st.text(st.characters(exclude_categories=("C", "Z"))).map(lambda t: f"{t} x"), min_size=1, max_size=3))
def test_every_argument_comes_through_the_exec_line(arguments: list[str]) -> None:
    assert read_exec(" ".join(map(desktop.quoted, arguments))) == arguments


def test_installed_and_removed_again(capsys: Any, folders: Path) -> None:
    assert cli.run(["gui", "--install-desktop-entry"]) == 0
    assert cli.run(["gui", "--install-desktop-entry"]) == 0
    assert desktop.icon_path().read_text().lstrip().startswith("<")
    assert key(desktop.entry_path(), "Icon") == "sottovoce"
    assert cli.run(["gui", "--remove-desktop-entry"]) == 0
    assert not desktop.entry_path().exists() and not desktop.icon_path().exists()
    assert cli.run(["gui", "--remove-desktop-entry"]) == 0
    assert "no entry to remove" in capsys.readouterr().err
    assert cli.run(["gui", "--remove-desktop-entry", "--install-desktop-entry"]) == 2


def test_it_starts_the_program_of_this_environment(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = python_in(folders / 'my "odd" $folder 100%', monkeypatch, script=True)
    path = desktop.install_entry()
    assert read_exec(key(path, "Exec")) == [str(folder / "sottovoce"), "gui"]
    assert "Path=" not in path.read_text()


def test_a_checkout_that_is_not_installed_is_run_where_it_lies(
    folders: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    folder = python_in(folders / "plain", monkeypatch, script=False)
    path = desktop.install_entry()
    assert read_exec(key(path, "Exec")) == [str(folder / "python"), "-m", "app", "gui"]
    assert key(path, "Path") == str(checkout)


@pytest.mark.parametrize("name", ["two\nlines", "a=b"])
def test_a_folder_that_cannot_stand_in_an_entry_is_said(
    name: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_in(folders / name, monkeypatch, script=True)
    with pytest.raises(SottovoceError, match="cannot stand in a desktop entry"):
        desktop.install_entry()
    assert not desktop.entry_path().exists()


@pytest.mark.skipif(VALIDATOR is None, reason="desktop-file-validate is not installed")
def test_desktops_have_nothing_against_it(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_in(folders / "my $folder 100%", monkeypatch, script=True)
    desktop.autostart(True)
    for path in (desktop.install_entry(), desktop.autostart_path()):
        done = subprocess.run([str(VALIDATOR), str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_what_somebody_else_wrote_stays(capsys: Any) -> None:
    for path in (desktop.entry_path(), desktop.autostart_path()):
        path.parent.mkdir(parents=True)
        path.write_text("[Desktop Entry]\nName=Mine\n")
    assert cli.run(["gui", "--install-desktop-entry"]) == 1
    assert cli.run(["gui", "--remove-desktop-entry"]) == 1
    assert cli.run(["settings", "set", "autostart", "on"]) == 1
    assert cli.run(["settings", "reset"]) == 0
    assert capsys.readouterr().err.count("was not written by Sottovoce") == 3
    for path in (desktop.entry_path(), desktop.autostart_path()):
        assert "Mine" in path.read_text()


def test_a_folder_that_cannot_be_written_is_one_sentence(folders: Path) -> None:
    (folders / "data").write_text("no folder")
    with pytest.raises(SottovoceError, match="cannot be read"):
        desktop.install_entry()


def test_a_relative_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert desktop.entry_path() == Path.home() / ".local/share/applications/sottovoce.desktop"
