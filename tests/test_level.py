"""Warnings about the microphone's level, and the level control: slow, bounded, off bit for bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.level import DEAD_ZONE_DB, RANGE_DB, TARGET_DBFS, InputWatch, LevelControl
from engine.mix import db
from engine.pipeline import LiveStream
from engine.soundloop import SoundLoop
from engine.types import Background, Provider
from tests import tiny_models

HOP, HOP_S, RATE_HZ = 960, 0.02, 48_000
TONE_HZ, SETTLED_S = 100.0, 7.0


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


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


def test_switched_off_it_goes_back_and_sound_passes_bit_for_bit(tiny: Models) -> None:
    stream = LiveStream(tiny, 48_000, background=Background.parse("keep"))
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


# Bypass: sounds are compared, and not loudness ------------------------------------------------------------------------


def tone(peak: float, seconds: float, begin_s: float = 0.0) -> np.ndarray:
    times_s = begin_s + np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (peak * np.sin(2 * np.pi * TONE_HZ * times_s)).astype(np.float32)


def loudness_db(x: np.ndarray) -> float:
    return db(float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))))


def levelled(tiny: Models, background: str, peak: float) -> LiveStream:
    """A stream whose level control has had the time to settle on a voice of one pitch."""
    stream = LiveStream(tiny, RATE_HZ, background=Background.parse(background))
    stream.level.wanted = True
    stream.process(tone(peak, SETTLED_S))
    return stream


@pytest.mark.parametrize(("background", "most_db"), [("keep", 0.1), ("drop", 2.7)])
@pytest.mark.parametrize(("peak", "gain_db"), [(0.01, RANGE_DB), (0.5, -RANGE_DB)])
def test_bypass_plays_the_original_as_loud_as_what_it_is_compared_with(
    tiny: Models, background: str, most_db: float, peak: float, gain_db: float
) -> None:
    """The made-up models take 2.5 dB from the voice, so that much may differ where the rest is dropped."""
    stream, heard = levelled(tiny, background, peak), []
    assert stream.level.gain_db == pytest.approx(gain_db, abs=DEAD_ZONE_DB)
    for second, bypass in enumerate((False, True, False)):
        stream.bypass = bypass
        heard.append(stream.process(tone(peak, 1.0, SETTLED_S + second)))
    before, within, after = (loudness_db(x[RATE_HZ // 5 :]) for x in heard)
    assert within == pytest.approx(before, abs=most_db)
    assert after == pytest.approx(before, abs=0.01)
    assert within == pytest.approx(loudness_db(tone(peak, 1.0)) + stream.level.gain_db, abs=0.1)
    steps = np.abs(np.diff(np.concatenate(heard)))
    assert steps.max() < 1.05 * steps[RATE_HZ : 2 * RATE_HZ].max()


def test_models_that_rest_or_have_died_leave_the_loudness_as_it_was(tiny: Models) -> None:
    """As when the machine is overloaded: bypass first, and then nothing but the original."""
    stream = levelled(tiny, "keep", 0.01)
    stream.bypass = True
    x = tone(0.01, 2.0, SETTLED_S).reshape(-1, HOP)
    y = np.concatenate([(stream.process_hop if n < 30 or n >= 60 else stream.bypass_hop)(x[n]) for n in range(len(x))])
    steps = np.abs(np.diff(y))
    assert loudness_db(y[30 * HOP : 60 * HOP]) == pytest.approx(loudness_db(y[: 30 * HOP]), abs=0.1)
    assert steps.max() < 1.01 * steps[: 20 * HOP].max()
    stream.level.wanted = False  # it goes back to one without the models, too
    quieter = np.concatenate([stream.bypass_hop(hop) for hop in tone(0.01, 5.0, SETTLED_S + 2.0).reshape(-1, HOP)])
    assert np.abs(np.diff(quieter)).max() < 1.01 * steps[: 20 * HOP].max()
    assert loudness_db(quieter[-RATE_HZ // 5 :]) == pytest.approx(loudness_db(tone(0.01, 1.0)), abs=0.01)


def test_fresh_models_go_on_as_loud_as_before(tiny: Models) -> None:
    stream = levelled(tiny, "keep", 0.01)
    loop = SoundLoop(stream, 240, lambda hop: None, lambda why: None)
    loop.revive(LiveStream(tiny, RATE_HZ, background=Background.parse("keep")))
    y = np.concatenate([loop.stream.process_hop(hop) for hop in tone(0.01, 1.0).reshape(-1, HOP)])
    assert loudness_db(y[-RATE_HZ // 2 :]) > loudness_db(tone(0.01, 1.0)) + RANGE_DB - DEAD_ZONE_DB - 0.1


def test_a_shout_into_a_raised_original_stays_within_full_scale_and_leaves_no_trace(tiny: Models) -> None:
    stream = levelled(tiny, "keep", 0.01)
    stream.bypass = True
    shout = stream.process(tone(0.9, 0.5))
    assert 0.9 < np.abs(shout).max() <= 1.0
    stream.bypass = stream.level.wanted = False
    stream.process(tone(0.9, 6.0))
    stream.bypass = True
    x = tone(0.9, 1.0)
    y = np.concatenate([stream.process(x), stream.flush()])
    lag = stream.lag_native
    np.testing.assert_array_equal(y[lag + 2 * HOP : lag + len(x)], x[2 * HOP :])
