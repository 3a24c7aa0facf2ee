"""The README's pictures: taken from the windows as they are, small, and recorded."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtGui import QImage

from app import pictures
from models import screens
from models.manifest import load
from tests.fake_engine import FakeEngine


def test_the_window_is_taken_at_work_and_its_settings(
    qapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made: list[FakeEngine] = []

    def make(config: Any) -> FakeEngine:
        made.append(FakeEngine(config))
        return made[-1]

    monkeypatch.setattr("app.gui.make_engine", make)
    monkeypatch.setattr("engine.weights.find_weights", lambda: None)
    monkeypatch.setattr(pictures, "BEGUN_S", 0.2)
    monkeypatch.setattr(pictures, "CHANGED_S", 0.2)
    paths = pictures.take(tmp_path, ("window", "settings"))
    assert [path.name for path in paths] == ["window.png", "settings.png"]
    assert "sottovoce models get base" in capsys.readouterr().err
    assert not made[0].config.captions
    assert made[0].background == pictures.AFTER
    window = QImage(str(paths[0]))
    assert (window.width(), window.height()) == (1280, 720)
    assert window.colorCount() <= pictures.COLOURS


def test_an_engine_that_fails_is_told(qapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("app.gui.make_engine", lambda config: FakeEngine(config, fail="no models here; install again"))
    monkeypatch.setattr("engine.weights.find_weights", lambda: None)
    assert pictures.main([str(tmp_path), "window"]) == 1
    assert "no models here; install again" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nowhere"], [".", "moon"]])
def test_what_to_name_is_told(arguments: list[str], capsys: Any) -> None:
    assert pictures.main(arguments) == 2
    assert "window, files, settings" in capsys.readouterr().err


def test_pictures_are_put_beside_the_manifest_and_recorded(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    taken = tmp_path / "window.png"
    taken.write_bytes(b"picture")
    screens.put_away([taken], assets / "manifest.toml")
    assert (assets / "window.png").read_bytes() == b"picture"
    row = load(assets / "manifest.toml")[0]
    assert (row["kind"], row["file"], row["command"]) == ("picture", "window.png", screens.COMMAND)
    taken.write_bytes(bytes(screens.MOST_BYTES + 1))
    with pytest.raises(ValueError, match="more than"):
        screens.put_away([taken], assets / "manifest.toml")
    assert (assets / "window.png").read_bytes() == b"picture"
    assert tomllib.loads((assets / "manifest.toml").read_text(encoding="utf8"))
