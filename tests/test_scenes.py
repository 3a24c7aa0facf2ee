"""Scenes: found by name, refused when they do not fit, and those that ship fit the models that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.artefacts import load_models
from engine.scenes import list_scenes, load_scene, scene_sound
from engine.token_writer import SvtWriter
from engine.tokens import SvtHeader
from engine.types import Provider, TokenFileError, UsageError


def _scene(folder: Path, name: str, frames: int, title: str = "") -> np.ndarray:
    (folder / "scenes").mkdir(exist_ok=True)
    header = SvtHeader("c0dec", 16000, 320, (), (64, 1024), 0, 2, 1, title=title)
    codes = np.stack([np.arange(frames) % 64, np.arange(frames)])
    with SvtWriter(folder / "scenes" / f"{name}.svt", header) as writer:
        writer.write(codes[:0], codes)
    return codes


def test_scenes_are_found_and_read_by_name(tmp_path: Path) -> None:
    assert list_scenes(tmp_path) == []
    codes = _scene(tmp_path, "quiet_room", 120, "A quiet room")
    _scene(tmp_path, "bare", 50)
    (tmp_path / "scenes" / "broken.svt").write_text("no scene")
    found = {scene.name: scene for scene in list_scenes(tmp_path)}
    assert sorted(found) == ["bare", "quiet_room"]
    assert found["quiet_room"].title == "A quiet room"
    assert found["quiet_room"].duration_s == pytest.approx(2.4)
    assert np.array_equal(load_scene("quiet_room", tmp_path, "c0dec"), codes)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    _scene(tmp_path, "empty", 0)
    _scene(tmp_path, "room", 9)
    with pytest.raises(UsageError, match=r"no scene 'sea'; choose one of: empty, room"):
        load_scene("sea", tmp_path)
    with pytest.raises(TokenFileError, match="made by codec c0dec, not other"):
        load_scene("room", tmp_path, "other")
    with pytest.raises(TokenFileError, match="is empty"):
        load_scene("empty", tmp_path)


def test_the_scenes_that_ship_fit_the_models_that_ship() -> None:
    info = load_models(Provider.CPU).info
    scenes = list_scenes()
    assert len(scenes) >= 4
    for scene in scenes:
        codes = load_scene(scene.name, codec_id=info.codec_id)
        assert codes.shape[0] == len(info.sizes_b)
        assert scene.path.stat().st_size < 200_000
        assert scene.title
        assert scene.duration_s > 1


def test_a_scene_can_be_heard_by_itself() -> None:
    models = load_models(Provider.CPU)
    heard = {scene.name: scene_sound(models, scene.name, 1.0) for scene in list_scenes()}
    assert len(heard) >= 6
    for sound in heard.values():
        assert len(sound) == models.info.sample_rate_hz
        assert 0.01 < float(np.sqrt(np.square(sound).mean())) < 0.06
        assert np.abs(sound).max() <= 1.0
    with pytest.raises(UsageError, match="no scene 'atlantis'"):
        scene_sound(models, "atlantis", 1.0)
