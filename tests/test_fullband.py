"""Figures of the band above 8 kHz, on sound whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.types import Samples
from models import fullband, metrics
from models.fullband import RATE_HZ, Item, aligned, band, measure


@pytest.fixture(scope="module")
def item() -> Item:
    """A voice that hisses every other half second, in noise."""
    random = np.random.default_rng(3)
    length = 4 * RATE_HZ
    on = (np.arange(length) // (RATE_HZ // 2)) % 2
    voice = (0.1 * random.standard_normal(length) * on).astype(np.float32)
    return Item("hiss", voice, (0.01 * random.standard_normal(length)).astype(np.float32))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "dnsmos", lambda sound: metrics.Dnsmos(1.0, 2.0, 3.0))


def test_a_perfect_output_is_neither_dull_nor_hissing(item: Item) -> None:
    found = measure(item.voice, item)
    assert found["voice_db"] == pytest.approx(0.0, abs=0.1)
    assert found["pauses_db"] < -20.0  # the filter rings into the pauses


def test_the_noisy_input_is_where_the_scale_begins(item: Item) -> None:
    found = measure(item.mixture, item)
    assert found["pauses_db"] == 0.0
    assert found["sdr_gain_db"] == 0.0


def test_a_dull_output_shows(item: Item) -> None:
    dull = item.voice - 0.9 * band(item.voice, fullband.VOICE_BAND_HZ)
    assert measure(dull.astype(np.float32), item)["voice_db"] < -15.0


def test_each_system_is_brought_back_by_its_own_delay(item: Item) -> None:
    def late(sound: Samples) -> Samples:
        return np.concatenate([np.zeros(480, np.float32), sound])[: len(sound)]

    ((_, sound),) = aligned(late, [item])
    assert np.allclose(sound, item.mixture, atol=1e-6)
