"""The settings' file: round trips, broken and newer files, several writers, a disk that is full."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from app import settings_file
from app.settings import Microphone, Preset, Settings, checked
from app.settings_file import Changes, load, settings_path, write
from engine.types import SottovoceError
from tests.fuzzing import mutated, run
from tests.test_settings import backgrounds, ids, one_setting

often = runs(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
microphones = st.dictionaries(
    ids.filter(bool), st.builds(Microphone, background=backgrounds, level=st.booleans()), max_size=3
)
presets = st.dictionaries(
    ids.filter(lambda name: len(name) > 8),
    st.builds(Preset, background=backgrounds, level=st.booleans(), captions=st.booleans()),
    max_size=3,
)


def put(text: str | bytes) -> Path:
    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def spares() -> list[Path]:
    return sorted(settings_path().parent.glob("settings.toml.bad-*"))


@often
@given(st.lists(one_setting, max_size=12), microphones, presets)
def test_everything_goes_through_the_file_and_back(
    pairs: list[tuple[str, Any]], used: dict[str, Microphone], named: dict[str, Preset]
) -> None:
    settings_path().unlink(missing_ok=True)
    values = {name: checked(name, value) for name, value in pairs}
    for name, value in values.items():
        write({(name,): value})
    tables: Changes = {}
    for table, entries in (("microphones", used), ("presets", named)):
        for key, entry in entries.items():  # type: ignore[attr-defined]
            tables |= {(table, key, part): value for part, value in entry.model_dump().items()}
    write(tables)
    remembered, line = load()
    assert line == ""
    assert remembered.settings == Settings(**values)
    assert remembered.settings.model_fields_set == set(values)
    assert (remembered.microphones, remembered.own_presets) == (used, named)
    write({("presets", name): None for name in named} | {(name,): None for name in values})
    assert load()[0].own_presets == {}
    assert load()[0].settings.model_fields_set == set()


def test_without_a_file_everything_is_as_it_came() -> None:
    remembered, line = load()
    assert (remembered.settings, line) == (Settings(), "")
    assert not settings_path().exists()


def test_comments_and_a_newer_versions_keys_stay() -> None:
    text = '# mine\ntheme = "dark"  # at night\nholograms = 3\n\n[presets.Desk]\nbackground = "keep"\nlevel = true\n'
    path = put(text + 'captions = false\nsmell = "roses"\n\n[later]\nx = [1, 2]\n')
    write({("theme",): "light", ("level",): True, ("presets", "Other", "background"): "drop"})
    after = path.read_text()
    assert "# mine" in after and "# at night" in after
    values = tomllib.loads(after)
    assert (values["theme"], values["level"], values["holograms"]) == ("light", True, 3)
    assert (values["presets"]["Desk"]["smell"], values["later"]) == ("roses", {"x": [1, 2]})
    assert spares() == []


def test_one_wrong_value_costs_only_itself() -> None:
    text = '# mine\ntheme = "pink"\nlevel = true\nbackground = -12\n[presets.Bad]\nlevel = true\n[later]\nx = 1\n'
    path = put(text)
    remembered, line = load()
    assert remembered.settings == Settings(level=True, background="-12")
    assert "theme" in line and "presets.Bad" in line and line.count(".bad-") == 1
    assert [spare.read_text() for spare in spares()] == [text]
    assert "# mine" in path.read_text() and tomllib.loads(path.read_text())["later"] == {"x": 1}
    assert load()[1] == ""


def test_a_torn_file_is_kept_aside_and_what_is_right_in_it_is_used() -> None:
    text = 'theme = "dark"\nlevel = tr\nholograms = 3\n[microphones."a b"]\nbackground = "keep"\nlevel = true\n[pres'
    path = put(text)
    remembered, line = load()
    assert remembered.settings == Settings(theme="dark")
    assert remembered.microphones == {"a b": Microphone(background="keep", level=True)}
    assert "not well formed" in line and spares()[0].name in line
    assert spares()[0].read_text() == text
    assert tomllib.loads(path.read_text())["holograms"] == 3


def test_an_older_broken_file_is_never_overwritten() -> None:
    for number in range(3):
        put(f"{number} = = broken")
        load()
    assert sorted(spare.read_text()[0] for spare in spares()) == ["0", "1", "2"]


def test_a_write_sets_a_broken_file_right_first() -> None:
    put('theme = "dark"\n]]')
    write({("level",): True})
    assert load()[0].settings == Settings(theme="dark", level=True)
    assert len(spares()) == 1


WHOLE = """# mine
theme = "light"
level = true
background = "swap:rain@-6"
caption_scale = 1.5

[microphones."a b"]
background = "keep"
level = true

[presets.Desk]
background = -12
level = false
captions = true

[shortcuts]
mute = "Ctrl+Shift+M"
"""


def test_no_file_is_so_broken_that_it_stops_us() -> None:
    def one(draw: random.Random) -> None:
        put(mutated(WHOLE.encode(), draw) if draw.random() < 0.9 else draw.randbytes(draw.randrange(200)))
        load()
        write({("theme",): "dark"})
        assert load()[0].settings.theme == "dark"
        told = load()[1]
        assert told == "" or " is not read; a file calls it " in told  # one letter is a capital now: that stays
        for spare in spares():
            spare.unlink()

    run(one, few=60)


@pytest.mark.parametrize(
    "text",
    [
        "microphones = 3\n",
        "presets = [1]\n",
        "[theme]\nx = 1\n",
        "[[level]]\n",
        'theme = ["dark"]\n',
        "input = 1979-01-01\n",
    ],
)
def test_tables_in_the_wrong_place_are_wrong_values(text: str) -> None:
    put(text + ("" if "[" in text.splitlines()[0][0] else 'provider = "cpu"\n'))
    assert load()[1]
    write({("presets", "Desk", "background"): "keep", ("theme",): "dark"})
    assert load()[0].settings.theme == "dark"


def test_a_full_disk_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put('theme = "dark"\n')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SottovoceError, match="No space left on device"):
        write({("theme",): "light"})
    assert path.read_text() == 'theme = "dark"\n'
    put("= broken\nlevel = true\n")
    remembered, line = load()
    assert remembered.settings == Settings(level=True)
    assert "cannot be set right" in line and "No space left" in line
    assert spares() == []  # a window that follows the file would add one at every look
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".settings")] == []


def test_a_folder_in_the_files_place_is_said(own_settings: Path) -> None:
    settings_path().mkdir(parents=True)
    assert "cannot be read" in load()[1]
    with pytest.raises(SottovoceError, match="could not be saved"):
        write({("theme",): "light"})


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text('theme = "dark"\n')
    real.chmod(0o640)
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().symlink_to(real)
    write({("theme",): "light"})
    assert settings_path().is_symlink()
    assert real.read_text() == 'theme = "light"\n'
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_lock_that_is_held_is_waited_for_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    put("")
    monkeypatch.setattr(settings_file, "LOCK_WAIT_S", 0.05)
    with settings_file._lock(settings_path()), pytest.raises(SottovoceError, match="another Sottovoce is writing"):
        write({("theme",): "light"})


def test_several_processes_lose_nothing(checkout: Path, own_settings: Path) -> None:
    code = (
        "import sys; from app.settings_file import write, load\n"
        "for n in range(15):\n"
        "    write({('microphones', f'{sys.argv[1]}-{n}', 'background'): 'keep',\n"
        "           ('microphones', f'{sys.argv[1]}-{n}', 'level'): True})\n"
        "    assert load()[1] == ''\n"
    )
    command = [sys.executable, "-c", code]
    writers = [subprocess.Popen([*command, name], cwd=checkout, stderr=subprocess.PIPE, text=True) for name in "abc"]
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    remembered, line = load()
    assert (len(remembered.microphones), line) == (45, "")
