"""Two recordings side by side: when their sound came, and how far one lies behind the other."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.artefacts import Models
from engine.delays import delays_heard, delays_ms
from engine.ears import RATE_HZ, Ears, Heard
from engine.live import Engine
from engine.livebench import Stage
from engine.types import DeviceError, EngineConfig, Samples, Stats
from tests.live_run import KEEP, events_until, noise, tiny
from tests.pulse import HEARD_SINK, MIC_SOURCE, STAGE_SINK, stage

__all__ = ["stage", "tiny"]
PIECE = 240
BEGAN_S = 1000.0


def heard(x: Samples, late: np.random.Generator, begin_s: float = BEGAN_S) -> Heard:
    """x in pieces, most of them late."""
    ends = np.arange(PIECE, len(x) + 1, PIECE)
    return Heard(x, ends, begin_s + ends / RATE_HZ + late.exponential(0.004, len(ends)))


def test_pieces_that_come_late_do_not_change_when_the_sound_came(rng: np.random.Generator) -> None:
    mic, own = noise(6.0), np.zeros(4000, np.float32)
    played, came = heard(mic, rng), heard(np.concatenate([own, mic]), rng, BEGAN_S - 0.05)
    true_ms = 1000.0 * (4000 / RATE_HZ - 0.05)
    found = delays_heard(played, came, BEGAN_S + 1.0)
    assert len(found) >= 7
    np.testing.assert_allclose(found, true_ms, atol=0.5)
    assert played.at(BEGAN_S - 5.0) == 0
    assert len(played.since(BEGAN_S + 1.0)) == pytest.approx(5 * RATE_HZ, abs=24)


def test_milliseconds_that_the_server_gives_twice_are_no_delay(rng: np.random.Generator) -> None:
    mic, again = noise(12.0), 6 * RATE_HZ
    played = heard(mic, rng)
    came = heard(np.concatenate([np.zeros(2400, np.float32), mic[:again], mic[again - PIECE :]]), rng)
    came.came_s[came.ends > again + 2400] -= PIECE / RATE_HZ  # more came than time went by
    found = np.array(delays_heard(played, came, BEGAN_S))
    np.testing.assert_allclose(found[:8], 50.0, atol=0.5)
    np.testing.assert_allclose(found[-4:], 50.0, atol=0.5)


def test_two_recordings_tell_the_delay_that_one_of_both_sides_tells(stage: Stage, tiny: Models) -> None:
    right = f"source_name=right master={STAGE_SINK}.monitor remix=no channels=1 channel_map=mono"
    stage.server.load("module-remap-source", f"{right} master_channel_map=front-right")
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny) as engine:
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 1.5 for e in seen))
        with Ears(MIC_SOURCE, "right") as ears:
            began_s = time.monotonic()
            once = delays_ms(stage.record(5.0))
            twice = delays_heard(*ears.stop(), began_s)
    assert len(twice) >= len(once) >= 4
    assert np.median(twice) == pytest.approx(np.median(once), abs=2.0)


def test_nothing_is_heard_of_a_source_that_is_not_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.ears.START_S", 2.0)
    with pytest.raises(DeviceError, match="nothing comes from mic or nobody"):
        Ears(MIC_SOURCE, "nobody").__enter__()
