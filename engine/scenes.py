"""Places to put a voice in: banks of background tokens in assets/scenes, one .svt file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import Models
from engine.mix import SceneLevel
from engine.paths import assets_dir as default_assets_dir
from engine.token_reader import SvtReader, read_svt
from engine.types import Codes, Samples, TokenFileError, UsageError

PROBES = 24  # frames that tell a scene's level
PROBES_PER_HOP = 3
PREVIEW_RMS = 0.05  # -26 dBFS


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


def find_scene(name: str, assets_dir: str | Path | None = None) -> SceneInfo:
    """The scene of that name; raises UsageError when there is none."""
    scenes = {s.name: s for s in list_scenes(assets_dir)}
    if name not in scenes:
        raise UsageError(f"there is no scene {name!r}; choose one of: {', '.join(scenes) or 'none are installed'}")
    return scenes[name]


def load_scene(name: str, assets_dir: str | Path | None = None, codec_id: str | None = None) -> Codes:
    """Background codes [K, T] of a scene, T > 0.

    Raises UsageError when there is no such scene, TokenFileError when it was made by another codec than `codec_id`.
    """
    scene = find_scene(name, assets_dir)
    if codec_id is not None and scene.codec_id != codec_id:
        raise TokenFileError(
            f"scene {name} was made by codec {scene.codec_id[:12]}, not {codec_id[:12]}; make it again"
        )
    codes = read_svt(scene.path).codes_b
    if codes.shape[1] == 0:
        raise TokenFileError(f"scene {name} is empty; make it again")
    return codes


def scene_sound(models: Models, name: str, seconds: float) -> Samples:
    """The beginning of a scene by itself, at PREVIEW_RMS: [N] at the models' rate. Raises as `load_scene` does."""
    player = ScenePlayer(models, load_scene(name, codec_id=models.info.codec_id), 0.0)
    hops = max(1, round(seconds * models.info.frame_rate_hz))
    sound = np.concatenate([player.next()[1] for _ in range(hops)])
    rms = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    scaled: Samples = sound * np.float32(min(PREVIEW_RMS / max(rms, 1e-9), 1.0 / max(float(np.abs(sound).max()), 1e-9)))
    return scaled


class ScenePlayer:
    """A scene's tokens, looped through a decoder of their own, at the level of the background they replace.

    Its own level has to be known before it is heard: frames from all over the scene are decoded for that. `at_once`
    does so here; else a few at each `next`, so that no hop takes long, and the scene begins 160 ms later.
    """

    def __init__(self, models: Models, codes: Codes, gain_db: float, at_once: bool = True) -> None:
        info = models.info
        self._decoder = models.decoder.clone()
        self._codes = codes.astype(np.int64)
        self._blank_s, self._blank_b = info.blank_s(), info.blank_b()
        self._gains = np.array([0.0, 1.0], dtype=np.float32)
        self._silence = np.zeros(info.hop_samples, dtype=np.float32)
        self._at = 0
        length = self._codes.shape[1]
        self._probes = [int(i) for i in np.linspace(0, length, min(PROBES, length), endpoint=False)]
        hop_s = info.hop_samples / info.sample_rate_hz
        self.level = SceneLevel(info.hop_samples, hop_s, gain_db, window_s=length * hop_s)
        if at_once:
            self._probe(len(self._probes))

    def next(self) -> tuple[Codes, Samples]:
        """The next frame [K] and its sound [hop] as it was recorded; blank and silent while the level is sought."""
        if self._probes:
            self._probe(PROBES_PER_HOP)
            return self._blank_b.astype(np.int16), self._silence
        codes = self._codes[:, self._at]
        self._at = (self._at + 1) % self._codes.shape[1]
        sound = self._decode(codes)
        self.level.hear(sound)
        return codes.astype(np.int16), sound

    def _decode(self, codes: NDArray[np.int64]) -> Samples:
        decoded = self._decoder.step(codes_s=self._blank_s, codes_b=codes, gains=self._gains)
        sound: Samples = decoded["background"].reshape(-1)
        return sound

    def _probe(self, count: int) -> None:
        for at in self._probes[:count]:
            self.level.hear(self._decode(self._codes[:, at]))
        del self._probes[:count]
        if not self._probes:
            self._decoder.reset()
