"""The window from its start to its exit status, once with the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtGui import QImage

from app import gui
from app.settings_file import write
from engine.types import EngineConfig, Provider
from tests.fake_engine import FakeEngine


def test_a_large_picture_is_saved_small_and_keeps_its_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = np.full((720, 1280), 0xFF191D20, dtype=np.uint32)
    pixels[100:500, 200:1200] = rng.integers(0xFF000000, 0xFFFFFFFF, (400, 1000), dtype=np.uint32)
    picture = QImage(pixels.tobytes(), 1280, 720, QImage.Format.Format_RGB32)
    path = tmp_path / "window.png"
    assert gui.save_picture(picture, path)
    assert path.stat().st_size < 600_000
    assert QImage(str(path)).pixelColor(5, 5).name() == "#191d20"
    assert not gui.save_picture(picture, tmp_path / "missing" / "window.png")


def test_without_a_screen_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(gui.SottovoceError, match="no screen"):
        gui.run_gui()


@pytest.mark.slow
def test_the_real_thing_plays_saves_a_picture_and_quits(
    tmp_path: Path, qapp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "window.png"
    assert gui.run_gui(demo=True, quit_after_s=8.0, screenshot=path, captions=False) == 0
    picture = QImage(str(path))
    assert picture.width() >= 1280
    colours = {picture.pixel(x, y) for x in range(600, 1200, 7) for y in range(60, 480, 7)}
    assert len(colours) > 50


def test_unattended_without_sound_it_fails(qapp: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gui, "make_engine", lambda config: FakeEngine(config, fail="no models here; install again"))
    assert gui.run_gui(demo=True, quit_after_s=1.0) == 1
    assert "o models here; install again" in capsys.readouterr().err


def test_the_settings_hold_where_no_flag_says_otherwise(qapp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[EngineConfig] = []

    def made(config: EngineConfig) -> FakeEngine:
        configs.append(config)
        return FakeEngine(config)

    monkeypatch.setattr(gui, "make_engine", made)
    write({("provider",): "cuda", ("background",): "-12", ("captions",): False, ("keep_in_tray",): True})
    assert gui.run_gui(demo=True, quit_after_s=4.0) == 0
    assert gui.run_gui(demo=True, quit_after_s=4.0, provider=Provider.CPU, captions=True) == 0
    told = [(c.provider, str(c.background), c.captions, c.record_dir) for c in configs]
    assert told == [(Provider.CUDA, "-12", False, None), (Provider.CPU, "-12", True, None)]


def test_a_broken_settings_file_is_told_in_the_window(
    qapp: Any, monkeypatch: pytest.MonkeyPatch, own_settings: Path
) -> None:
    monkeypatch.setattr(gui, "make_engine", lambda config: FakeEngine(config, fail="no models"))
    (own_settings / "settings.toml").write_text("level = perhaps")
    seen: list[str] = []
    monkeypatch.setattr("app.message_bar.MessageBar.say", lambda self, text, offer_retry: seen.append(text))
    assert gui.run_gui(demo=True, quit_after_s=1.0) == 1
    assert "the settings file was not well formed" in seen[0]
    assert len(list(own_settings.glob("settings.toml.bad-*"))) == 1
