"""Places to put a voice in: banks of background tokens in assets/scenes, one .svt file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.artefacts import Models
from engine.mix import SceneLevel
from engine.paths import assets_dir as default_assets_dir
from engine.tokens import SvtReader, read_svt
from engine.types import Codes, Samples, TokenFileError, UsageError

PREROLL_HOPS = 25


@dataclass(frozen=True)
class SceneInfo:
    """A scene that can be swapped to: `name` as in swap:NAME, `title` for people."""

    name: str
    title: str
    duration_s: float
    codec_id: str
    path: Path


def list_scenes(assets_dir: str | Path | None = None) -> list[SceneInfo]:
    """All scenes, by name. A damaged file is left out."""
    folder = (Path(assets_dir) if assets_dir is not None else default_assets_dir()) / "scenes"
    scenes = []
    for path in sorted(folder.glob("*.svt")):
        try:
            reader = SvtReader(path)
        except TokenFileError:
            continue
        title = reader.header.title or path.stem.replace("_", " ")
        scenes.append(SceneInfo(path.stem, title, reader.duration_s, reader.header.codec_id, path))
    return scenes


def load_scene(name: str, assets_dir: str | Path | None = None, codec_id: str | None = None) -> Codes:
    """Background codes [K, T] of a scene, T > 0.

    Raises UsageError when there is no such scene, TokenFileError when it was made by another codec than `codec_id`.
    """
    scenes = {s.name: s for s in list_scenes(assets_dir)}
    if name not in scenes:
        raise UsageError(f"there is no scene {name!r}; choose one of: {', '.join(scenes) or 'none are installed'}")
    scene = scenes[name]
    if codec_id is not None and scene.codec_id != codec_id:
        raise TokenFileError(
            f"scene {name} was made by codec {scene.codec_id[:12]}, not {codec_id[:12]}; make it again"
        )
    codes = read_svt(scene.path).codes_b
    if codes.shape[1] == 0:
        raise TokenFileError(f"scene {name} is empty; make it again")
    return codes


class ScenePlayer:
    """A scene's tokens, looped through a decoder of their own, at the level of the background they replace."""

    def __init__(self, models: Models, codes: Codes, gain_db: float) -> None:
        info = models.info
        self._decoder = models.decoder.clone()
        self._codes = codes.astype(np.int64)
        self._blank = info.blank_s()
        self._gains = np.array([0.0, 1.0], dtype=np.float32)
        self._at = 0
        self.level = SceneLevel(info.hop_samples, info.hop_samples / info.sample_rate_hz, gain_db)
        for _ in range(PREROLL_HOPS):  # so that its level is known, and its decoder filled, when it is first heard
            self.level.hear(self.next()[1])

    def next(self) -> tuple[Codes, Samples]:
        """The next frame [K] and its sound [hop], as it was recorded."""
        codes = self._codes[:, self._at]
        self._at = (self._at + 1) % self._codes.shape[1]
        decoded = self._decoder.step(codes_s=self._blank, codes_b=codes, gains=self._gains)
        return codes.astype(np.int16), decoded["background"].reshape(-1)
