"""Resampling: streamed equals whole, the declared delay is the real one, and nothing folds back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.resample import LIVE_DELAY_S, LIVE_RATES_HZ, FileResampler, LiveResampler
from engine.types import UsageError

PAIRS = [pair for rate in LIVE_RATES_HZ for pair in ((rate, 16000), (16000, rate))]


def _pieces(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    return np.split(x, np.sort(rng.integers(0, len(x), 40)))


@pytest.mark.parametrize(("in_hz", "out_hz"), PAIRS)
@pytest.mark.parametrize("channels", [None, 3])
def test_live_streamed_equals_whole(in_hz: int, out_hz: int, channels: int | None, rng: np.random.Generator) -> None:
    n = in_hz // 5
    x = rng.standard_normal((n,) if channels is None else (n, channels)).astype(np.float32)
    whole = LiveResampler(in_hz, out_hz, channels=channels).process(x)
    stream = LiveResampler(in_hz, out_hz, channels=channels)
    parts = np.concatenate([stream.process(part) for part in _pieces(x, rng)])
    assert len(whole) == math.ceil(n * out_hz / in_hz)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize(("in_hz", "out_hz"), [p for p in PAIRS if p[0] != p[1]])
@pytest.mark.parametrize("delay_s", [LIVE_DELAY_S, 0.00373])
def test_live_delay_is_the_declared_one(in_hz: int, out_hz: int, delay_s: float) -> None:
    resampler = LiveResampler(in_hz, out_hz, delay_s)
    t = np.arange(in_hz // 4) / in_hz
    y = resampler.process(np.sin(2 * np.pi * 700 * t).astype(np.float32))
    expected = np.sin(2 * np.pi * 700 * (np.arange(len(y)) / out_hz - delay_s))
    settled = slice(math.ceil(3 * delay_s * out_hz), None)
    assert np.abs(y - expected)[settled].max() < 2e-3
    assert resampler.delay_samples == pytest.approx(delay_s * out_hz)
    assert resampler.delay_s <= 0.005


@pytest.mark.parametrize(("in_hz", "out_hz"), [(48000, 16000), (44100, 16000), (96000, 16000)])
def test_live_lets_nothing_fold_back(in_hz: int, out_hz: int) -> None:
    t = np.arange(in_hz // 2) / in_hz
    for hz, low_db, high_db in ((6900, -0.5, 0.1), (8600, -200, -45), (10000, -200, -55)):
        y = LiveResampler(in_hz, out_hz).process(np.sin(2 * np.pi * hz * t).astype(np.float32))
        level = 20 * np.log10(np.sqrt(2) * y[500:-500].std() + 1e-12)
        assert low_db < level < high_db, hz


def test_live_passes_a_constant_exactly_enough() -> None:
    y = LiveResampler(16000, 44100).process(np.ones(3000, np.float32))
    np.testing.assert_allclose(y[500:], 1.0, atol=1e-6)


def test_same_rate_is_bit_exact(rng: np.random.Generator) -> None:
    x = rng.standard_normal(500).astype(np.float32)
    assert LiveResampler(48000, 48000).process(x) is x
    assert FileResampler(48000, 48000).process(x) is x
    assert LiveResampler(48000, 48000).delay_samples == 0


@pytest.mark.parametrize("in_hz", [8000, 11025, 44100, 48000, 192000])
def test_file_resampler_is_in_line_and_complete(in_hz: int, rng: np.random.Generator) -> None:
    t = np.arange(in_hz) / in_hz
    x = np.sin(2 * np.pi * 500 * t).astype(np.float32)
    stream = FileResampler(in_hz, 16000)
    parts = [stream.process(part) for part in _pieces(x, rng)]
    y = np.concatenate([*parts, stream.process(x[:0], last=True)])
    assert abs(len(y) - 16000) <= 1
    expected = np.sin(2 * np.pi * 500 * np.arange(len(y)) / 16000)
    assert np.abs(y - expected)[1600:-1600].max() < 1e-3
    whole = FileResampler(in_hz, 16000).process(x, last=True)
    np.testing.assert_allclose(y, whole, atol=1e-6)


def test_file_resampler_takes_channels(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4800, 2)).astype(np.float32)
    y = FileResampler(48000, 16000, channels=2).process(x, last=True)
    assert y.shape == (1600, 2)
    left = FileResampler(48000, 16000).process(x[:, 0], last=True)
    np.testing.assert_allclose(y[:, 0], left, atol=1e-6)


@pytest.mark.parametrize(("in_hz", "out_hz"), [(0, 16000), (16000, 0)])
def test_a_rate_is_above_zero(in_hz: int, out_hz: int) -> None:
    with pytest.raises(UsageError, match="above zero"):
        LiveResampler(in_hz, out_hz)
