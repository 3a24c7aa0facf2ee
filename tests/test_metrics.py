"""The figures themselves: known answers, what they must not notice, and what they must."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.paths import cache_dir
from engine.types import Samples

metrics = pytest.importorskip("models.metrics")

RATE_HZ = 16_000


def voice(seconds: float = 4.0, seed: int = 0) -> Samples:
    """Something speech-like: a gliding harmonic tone in syllables, with consonant-like noise between them."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.7 * time_s)) / RATE_HZ
    tone = sum(np.sin(k * pitch) * math.exp(-(((k * 130 - 700) / 900) ** 2)) for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time_s), 0, None)
    hiss = np.convolve(rng.standard_normal(len(time_s)), [1, -1], "same") * np.clip(-syllables + 0.1, 0, None)
    return (0.05 * tone * syllables + 0.05 * hiss).astype(np.float32)


def noise_at(speech: Samples, snr_db: float, seed: int = 1) -> Samples:
    noise = np.random.default_rng(seed).standard_normal(len(speech))
    return (noise * speech.std() / noise.std() * 10 ** (-snr_db / 20)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.0])
def test_si_sdr_of_added_noise_is_the_snr(snr_db: float) -> None:
    speech = voice()
    assert metrics.si_sdr(speech + noise_at(speech, snr_db), speech) == pytest.approx(snr_db, abs=0.3)


def test_si_sdr_ignores_level_and_sdr_does_not() -> None:
    speech = voice()
    noisy = speech + noise_at(speech, 10.0)
    assert metrics.si_sdr(0.3 * noisy, speech) == pytest.approx(metrics.si_sdr(noisy, speech), abs=1e-3)
    assert metrics.sdr(0.5 * speech, speech) == pytest.approx(6.02, abs=0.01)
    assert math.isnan(metrics.si_sdr(np.zeros_like(speech), speech))


@pytest.mark.parametrize("delay", [0.0, 3.0, 160.0, 384.25, 479.6])
def test_delay_is_found_and_taken_back(delay: float) -> None:
    speech = voice()
    size = 1 << (len(speech) + 2048).bit_length()
    ramp = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * delay)
    late = np.fft.irfft(np.fft.rfft(speech, size) * ramp, size)[: len(speech) + 1600].astype(np.float32)
    late += noise_at(late, 5.0)
    found = metrics.find_delay(late, speech)
    assert found == pytest.approx(delay, abs=0.1)
    straight = metrics.advance(late, delay, len(speech))
    assert metrics.si_sdr(straight, speech) == pytest.approx(5.0, abs=0.7)


def test_a_whole_delay_moves_samples_untouched() -> None:
    speech = voice()
    late = np.concatenate([np.zeros(160, np.float32), speech])
    assert np.array_equal(metrics.advance(late, 160.0, len(speech)), speech)
    assert metrics.fixed_delay([159.98, 160.01, 171.0]) == 160.0
    assert metrics.fixed_delay([160.3, 160.4, 160.5]) == 160.4


def test_pesq_and_estoi_fall_with_the_snr() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    speech = voice()
    assert metrics.pesq_wb(speech, speech) > 4.5
    assert metrics.estoi(speech, speech) == pytest.approx(1.0, abs=1e-3)
    scores = [speech + noise_at(speech, snr_db) for snr_db in (20.0, 5.0, -5.0)]
    pesq = [metrics.pesq_wb(noisy, speech) for noisy in scores]
    estoi = [metrics.estoi(noisy, speech) for noisy in scores]
    assert pesq == sorted(pesq, reverse=True) and pesq[0] > pesq[-1] + 0.15
    assert estoi == sorted(estoi, reverse=True) and estoi[0] > estoi[-1] + 0.1


def test_figures_of_silence_are_left_out() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    silence = np.zeros(RATE_HZ, dtype=np.float32)
    assert math.isnan(metrics.pesq_wb(silence, voice(1.0)))
    assert math.isnan(metrics.estoi(voice(0.2), voice(0.2)))
    assert metrics.level_db(silence) == -math.inf
    interval = metrics.bootstrap([1.0, math.nan, 3.0])
    assert (interval.mean, interval.count) == (2.0, 2)


def test_bootstrap_interval_covers_and_narrows() -> None:
    draws = np.random.default_rng(3).normal(5.0, 2.0, 400)
    few, many = metrics.bootstrap(draws[:25].tolist()), metrics.bootstrap(draws.tolist())
    assert many.low < 5.0 < many.high
    assert many.high - many.low == pytest.approx(4 * 2.0 / math.sqrt(400), rel=0.25)
    assert few.high - few.low > 2 * (many.high - many.low)
    assert metrics.bootstrap(draws.tolist()) == many


def test_code_use_and_bit_rate() -> None:
    codes = np.array([[0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, 1, 1, 0, 0]])
    even, constant, half = metrics.code_use(codes, [4, 1024, 2])
    assert (even.entropy_bits, even.used) == (2.0, 1.0)
    assert (constant.entropy_bits, constant.used) == (0.0, 1 / 1024)
    assert half.entropy_bits == 1.0
    assert metrics.kbps([1024] * 8, 50.0) == 4.0


def test_word_errors_after_normalising() -> None:
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper")
    assert metrics.word_errors("Please, hold ON!", "please hold on").errors == 0
    counts = metrics.word_errors("please hold the the line", "please hold on the line")
    assert (counts.errors, counts.words) == (1, 5)
    assert metrics.word_errors("", "two words") == metrics.WordErrors(2, 2)


def test_errors_are_counted_in_the_part_of_the_text_where_they_are() -> None:
    pytest.importorskip("jiwer")
    said = [
        f"{first}{second}"
        for first in ("sand", "moon", "rain", "fire", "wood")
        for second in ("stone", "light", "bow", "man", "land")
    ]
    heard = ["before", *said[:3], "other", *said[4:12], *said[13:], "after", "all"]
    parts = metrics.word_errors_in_parts(" ".join(heard), " ".join(said))
    assert [(part.errors, part.words) for part in parts] == [(2, 10), (1, 10), (2, 5)]
    assert metrics.word_errors(" ".join(heard), " ".join(said)) == metrics.WordErrors(5, 25)
    assert metrics.word_errors_in_parts("too much", "") == [metrics.WordErrors(2, 0)]


def test_an_error_rate_is_that_of_all_words_and_lies_in_its_interval() -> None:
    random = np.random.default_rng(1)
    files = [metrics.WordErrors(int(random.binomial(10, 0.2)), 10) for _ in range(200)]
    rate = metrics.word_error_rate(files)
    assert rate.words == 2000
    assert rate.percent == pytest.approx(100 * sum(file.errors for file in files) / 2000)
    assert rate.low < rate.percent < rate.high
    assert 2 < rate.high - rate.low < 6  # a binomial's is 3.5
    assert metrics.word_error_rate(files[:1]).low == metrics.word_error_rate(files[:1]).high


@pytest.mark.skipif(not (cache_dir() / "peers" / "dnsmos").is_dir(), reason="DNSMOS has not been fetched")
@pytest.mark.parametrize(
    ("seconds", "sig", "bak", "ovrl"), [(3.0, 2.889449, 1.706737, 1.613151), (12.5, 2.983677, 1.781514, 1.633475)]
)
def test_dnsmos_is_that_of_speechmos(seconds: float, sig: float, bak: float, ovrl: float) -> None:
    """The figures are those that speechmos 0.0.1.1 itself gave for this sound, short and long."""
    speech = voice(seconds)
    ours = metrics.dnsmos(np.clip(speech + noise_at(speech, 5.0), -1, 1))
    assert (ours.sig, ours.bak, ours.ovrl) == pytest.approx((sig, bak, ovrl), abs=2e-3)
