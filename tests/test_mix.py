"""Gains without clicks, levels that are right, and a limiter that is not there until it is needed."""

from __future__ import annotations

import numpy as np
import pytest

from engine.mix import HighGain, Limiter, Ramp, RunningLevel, SceneLevel, db

HOP, HOP_S = 320, 0.02
LIMIT = 10 ** (-1 / 20)


def test_ramp_rests_exactly_and_moves_in_a_line() -> None:
    ramp = Ramp(1.0, HOP)
    assert ramp.next(1.0) == np.float32(1.0)
    moving = ramp.next(0.25)
    assert moving[-1] == np.float32(0.25)
    np.testing.assert_allclose(np.diff(moving), -0.75 / HOP, atol=1e-6)
    assert ramp.next(0.25) == np.float32(0.25)


def test_high_gain_holds_each_half_after_a_short_ramp() -> None:
    curve = HighGain(HOP, start=0.0)
    first = curve.next(np.array([1.0, 0.5], np.float32))
    assert first[HOP // 2 - 1] == 1.0
    assert first[-1] == 0.5
    assert np.abs(np.diff(np.concatenate([[0.0], first]))).max() < 0.02
    assert (curve.next(np.array([0.5, 0.5], np.float32)) == np.float32(0.5)).all()


def test_running_level_forgets_after_its_window() -> None:
    level = RunningLevel(HOP_S, window_s=0.1)
    assert level.rms == 0.0
    for gain in (1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1):
        level.add(np.full(HOP, gain, np.float32))
    assert level.rms == pytest.approx(0.1)


@pytest.mark.parametrize("gain_db", [0.0, -12.0])
def test_scene_takes_the_level_of_what_it_replaces(gain_db: float, rng: np.random.Generator) -> None:
    scene, old_rms = SceneLevel(HOP, HOP_S, gain_db), 0.02
    hops = (0.3 * rng.standard_normal((300, HOP))).astype(np.float32)
    for hop in hops:
        scene.hear(hop)
    played = [scene.apply(hop, old_rms) for hop in hops]
    rms = float(np.sqrt(np.mean(np.square(np.concatenate(played[150:])))))
    assert db(rms) == pytest.approx(db(old_rms) + gain_db, abs=0.5)
    assert abs(played[0][0]) < 0.01  # fades in
    last = scene.apply(np.full(HOP, 0.3, np.float32), old_rms, fade_out=True)
    assert last[-1] == 0.0


def test_silence_has_no_level_to_follow() -> None:
    scene = SceneLevel(HOP, HOP_S, 0.0)
    assert not scene.apply(np.zeros(HOP, np.float32), 0.5).any()
    scene.hear(np.full(HOP, 1e-12, np.float32))
    assert np.isfinite(scene.apply(np.full(HOP, 1e-12, np.float32), 0.5)).all()


def test_limiter_passes_what_needs_nothing_bit_for_bit(rng: np.random.Generator) -> None:
    limiter = Limiter(48000)
    x = np.clip(rng.standard_normal(48000) * 0.5, -LIMIT, LIMIT).astype(np.float32)
    assert limiter.process(x) is x
    assert limiter.gain_db == 0.0


@pytest.mark.parametrize("rate", [8000, 48000])
def test_limiter_holds_every_peak_and_lets_go(rate: int, rng: np.random.Generator) -> None:
    limiter = Limiter(rate)
    loud = (3.0 * rng.standard_normal(rate)).astype(np.float32)
    y = limiter.process(loud)
    assert np.abs(y).max() <= np.float32(LIMIT)
    assert np.abs(y).max() > 0.99 * LIMIT
    assert limiter.gain_db < -5.0
    quiet = np.full(rate, 0.1, np.float32)
    released = limiter.process(quiet)
    assert released[0] < 0.1
    assert np.all(np.diff(released) >= 0)
    assert limiter.gain_db == 0.0
    assert limiter.process(quiet) is quiet


def test_limiter_does_not_care_about_chunks(rng: np.random.Generator) -> None:
    x = (0.9 * rng.standard_normal(9000)).astype(np.float32)
    whole = Limiter(16000).process(x)
    limiter = Limiter(16000)
    parts = np.concatenate([limiter.process(part) for part in np.split(x, [1, 77, 300, 301, 5000])])
    np.testing.assert_allclose(parts, whole, atol=1e-6)
