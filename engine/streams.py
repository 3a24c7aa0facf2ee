"""Makes the streams of one live run: with its options, its scenes read beforehand, and warm."""

from __future__ import annotations

import time

import numpy as np

from engine.artefacts import Models
from engine.fill import splice
from engine.meters import HopTimes
from engine.pipeline import LiveStream
from engine.scenes import load_scene
from engine.types import Background, BackgroundMode, Codes, EngineConfig

WARM_UP_HOPS = 8


class Streams:
    """`background` and `level` are what the next stream begins with; `wanted` reads a wish for another background."""

    def __init__(self, config: EngineConfig, models: Models) -> None:
        self.models, self.background, self.level = models, config.background, config.level
        self._config = config
        self._scenes: dict[str, Codes] = {}
        self._keep_scene(self.background)

    def make(self, rate_hz: int) -> LiveStream:
        """A fresh stream at the rate of the devices."""
        c = self._config
        stream = LiveStream(
            self.models,
            rate_hz,
            background=self.background,
            tokens_only=c.tokens_only,
            refiner=c.refiner,
            quantizers=c.quantizers,
            scenes=self._scenes.__getitem__,
        )
        stream.level.wanted = self.level
        return stream

    def warm_up(self, rate_hz: int) -> None:
        """A few hops of noise, loud enough for the limiter, on every way through: the first take longer than others."""
        stream, times = self.make(rate_hz), HopTimes()
        noise = np.random.default_rng(0).standard_normal((WARM_UP_HOPS, stream.hop_native)).astype(np.float32)
        for count, hop in enumerate(noise):
            began = time.perf_counter()
            stream.bypass = count > WARM_UP_HOPS // 2
            splice(stream.process_hop(hop), (-1) ** count * stream.hop_native // 4, rate_hz)
            times.add(1000.0 * (time.perf_counter() - began))
        times.figures()

    def wanted(self, background: Background | str | None, scene: str | None) -> Background | None:
        """What is meant, None for no change, its scene read. Raises UsageError.

        scene: swap the background for it, at the level of the last swap.
        """
        wish = Background.parse(background) if isinstance(background, str) else background
        if scene is not None:
            last = wish or self.background
            gain_db = last.gain_db if last.mode is BackgroundMode.SWAP else 0.0
            wish = Background(BackgroundMode.SWAP, gain_db, scene)
        if wish is not None:
            self._keep_scene(wish)
        return wish

    def _keep_scene(self, background: Background) -> None:
        """Read the scene's file here, so that the sound thread need not."""
        name = background.scene
        if background.mode is BackgroundMode.SWAP and name is not None and name not in self._scenes:
            self._scenes[name] = load_scene(name, codec_id=self.models.info.codec_id)
