"""Warnings about the microphone's level, and the level control: slow, bounded, off bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.level import RANGE_DB, TARGET_DBFS, InputWatch, LevelControl
from engine.mix import db
from engine.pipeline import LiveStream
from engine.types import Background, Provider
from tests import tiny_models

HOP, HOP_S = 960, 0.02


def hop(voice_dbfs: float | None, background_dbfs: float = -80.0) -> Any:
    """What the models made of a hop with a voice and a background at these levels."""
    noise = np.random.default_rng(0).standard_normal(320).astype(np.float32)
    noise /= np.sqrt(np.mean(noise**2))
    speech = noise * (10 ** (voice_dbfs / 20) if voice_dbfs is not None else 0.0)
    return SimpleNamespace(speech=speech.astype(np.float32), background=noise * 10 ** (background_dbfs / 20))


def watched(hops: int, peak: float, voice_dbfs: float | None, background_dbfs: float = -80.0) -> list[str]:
    watch, told = InputWatch(HOP_S), []
    for _ in range(hops):
        watch.add(peak, hop(voice_dbfs, background_dbfs))
        told += [text] if (text := watch.warning()) is not None else []
    return told


def test_clipping_is_told_once() -> None:
    told = watched(500, 1.0, -15.0)
    assert len(told) == 1 and "clips" in told[0]


def test_a_quiet_voice_is_told_once_and_after_a_while() -> None:
    told = watched(1000, 0.01, -55.0)
    assert len(told) == 1 and "quiet (-55 dB)" in told[0]
    assert watched(300, 0.01, -55.0) == []


@pytest.mark.parametrize(("voice_dbfs", "background_dbfs"), [(-30.0, -80.0), (None, -50.0), (-60.0, -55.0)])
def test_nothing_is_told_of_a_good_voice_nor_of_noise(voice_dbfs: float | None, background_dbfs: float) -> None:
    assert watched(2000, 0.3, voice_dbfs, background_dbfs) == []


def controlled(level: LevelControl, voice_dbfs: float | None, seconds: float) -> list[float]:
    """Gain in dB after every hop."""
    gains = []
    for _ in range(round(seconds / HOP_S)):
        level.process(np.ones(HOP, np.float32), hop(voice_dbfs))
        gains.append(level.gain_db)
    return gains


@pytest.mark.parametrize(("voice_dbfs", "gain_db"), [(-30.0, 6.0), (-18.0, -6.0), (-60.0, RANGE_DB), (-24.5, 0.0)])
def test_the_voice_comes_to_the_target_slowly_and_within_bounds(voice_dbfs: float, gain_db: float) -> None:
    level = LevelControl(HOP, HOP_S)
    level.wanted = True
    gains = controlled(level, voice_dbfs, 10.0)
    assert gains[-1] == pytest.approx(gain_db, abs=2.1)
    assert np.abs(np.diff([0.0, *gains])).max() <= 3.0 * HOP_S + 1e-9


def test_in_a_pause_nothing_is_pulled_up() -> None:
    level = LevelControl(HOP, HOP_S)
    level.wanted = True
    spoken = controlled(level, -32.0, 5.0)[-1]
    assert controlled(level, None, 20.0)[-1] == spoken


def test_the_gain_moves_without_a_step() -> None:
    level = LevelControl(HOP, HOP_S)
    level.wanted = True
    out = np.concatenate([level.process(np.ones(HOP, np.float32), hop(-40.0)) for _ in range(200)])
    assert np.abs(np.diff(out)).max() < 2e-4 * out.max()


def test_switched_off_it_goes_back_and_sound_passes_bit_for_bit(tmp_path: Path) -> None:
    models: Models = load_models(Provider.CPU, tiny_models.build(tmp_path))
    stream = LiveStream(models, 48_000, background=Background.parse("keep"))
    x = (0.01 * np.random.default_rng(0).standard_normal(48_000 * 12)).astype(np.float32)
    stream.level.wanted = True
    loud = stream.process(x)
    assert db(float(np.sqrt(np.mean(loud[-48_000:] ** 2)))) > db(0.01) + 3.0
    assert db(float(np.sqrt(np.mean(loud[-48_000:] ** 2)))) < TARGET_DBFS + 6.0
    stream.level.wanted = False
    stream.process(x)
    y = stream.process(x)
    lag = stream.lag_native
    np.testing.assert_array_equal(y[lag:], x[: len(x) - lag])
