"""Pairs of clean and noisy words: whole utterances, the right noise at the right level, blocks that come back alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.mix import active_rms
from engine.residue import QUIET_DB, WINDOW_S
from engine.types import SottovoceError
from models import word_pairs
from models.shards import Clip
from models.word_pairs import (
    AS_LIVE,
    BABBLE,
    BLOCK_PAIRS,
    CLEAN,
    KIND_OF,
    KINDS,
    NOISES,
    SOUNDS,
    TO_LEARN,
    Extent,
    PairMaker,
    make_block,
    pairs_of,
    read_blocks,
    windows_of,
)

RATE_HZ = 16_000
WIDTH = 4


def clip(source: str, speaker: str, text: str, class_name: str = "", seconds: float = 1.2, seed: int = 0) -> Clip:
    sound = 3000 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    return Clip(sound.astype(np.int16), speaker, class_name, source, text)


def maker_of(extent: Extent) -> PairMaker:
    speech = [clip("voice-a/x.wav", f"a/{n % 3}", f"words {n}", seed=n) for n in range(9)]
    speech += [clip("festvox-ru/x.wav", "ru/nsh", f"slova {n}", seed=20 + n) for n in range(3)]
    speech += [clip("hedgewars-data/x.ogg", "h/1", "", seed=30), clip("tuxpaint-stamps-default/x.ogg", "t/1", "frog")]
    noises = [clip("noises", "", "", name, 3.0, seed=40 + n) for n, name in enumerate(NOISES)]
    return PairMaker(speech, noises, extent=extent)


@pytest.fixture
def maker() -> PairMaker:
    return maker_of(AS_LIVE)


class Whisper:
    """Stands for the frozen one: one frame for 20 ms, with the level of the sound in it."""

    def frames(self, sound: np.ndarray) -> np.ndarray:
        count = -(-len(sound) // 320)
        return np.full((count, WIDTH), np.abs(sound).mean(), np.float16)

    def tokens(self, text: str, language: str) -> list[int]:
        return [len(text), len(language), 99]


def test_pairs_are_whole_utterances_of_a_talker_whose_words_are_known(maker: PairMaker) -> None:
    random = np.random.default_rng(1)
    pairs = [pair for pair in (maker.draw(random) for _ in range(70)) if pair.text]
    for pair in pairs:
        assert pair.clean.shape == pair.noisy.shape
        assert pair.clean.dtype == pair.noisy.dtype == np.float32
        assert np.abs(pair.noisy).max() <= 1.0
        words = pair.text.split()
        assert set(words[::2]) == ({"words"} if pair.language == "en" else {"slova"})
        assert len(pair.clean) / RATE_HZ >= 0.5 + len(words) / 2 * 1.2
    assert {pair.language for pair in pairs} == {"en", "ru"}
    assert {pair.noise for pair in pairs} == set(SOUNDS)


def test_what_is_learnt_from_is_as_long_as_whisper_hears_and_ends_with_silence_or_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word_pairs, "ROOM_SHARE", 0.0)
    monkeypatch.setattr(word_pairs, "MICROPHONE_SHARE", 0.0)
    maker, random = maker_of(TO_LEARN), np.random.default_rng(5)
    pairs = [pair for pair in (maker.draw(random) for _ in range(120)) if pair.text]
    lengths_s = np.array([len(pair.clean) / RATE_HZ for pair in pairs])
    assert lengths_s.min() < 4.0
    assert 24.0 < lengths_s.max() <= 30.0
    silent_s = np.array([np.argmax(np.abs(pair.clean[::-1]) > 1e-5) / RATE_HZ for pair in pairs])
    assert 0.1 < np.mean(silent_s < 0.05) < 0.4
    assert np.mean(silent_s > 0.4) > 0.5


def test_noise_alone_comes_too_with_nothing_to_write(maker: PairMaker) -> None:
    random = np.random.default_rng(4)
    alone = [pair for pair in (maker.draw(random) for _ in range(80)) if not pair.text]
    assert alone
    for pair in alone:
        assert not pair.clean.any()
        assert pair.snr_db == -np.inf
        assert pair.noisy.any() == (pair.noise != CLEAN)
        assert np.abs(pair.noisy).max() <= 1.0


def test_noise_is_as_loud_as_it_says_and_clean_pairs_have_none(
    maker: PairMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_pairs, "ROOM_SHARE", 0.0)
    random = np.random.default_rng(2)
    for pair in (maker.draw(random) for _ in range(60)):
        noise = pair.noisy - pair.clean
        if pair.noise == CLEAN:
            assert not noise.any()
            assert pair.snr_db == (np.inf if pair.text else -np.inf)
        elif pair.text:
            level_db = 20 * np.log10(active_rms(pair.clean) / np.sqrt(np.square(noise).mean()))
            assert level_db == pytest.approx(pair.snr_db, abs=0.1)


def test_babble_is_of_other_talkers(maker: PairMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    real = word_pairs._stretch

    def stretch(clips: list[Clip], length: int, random: np.random.Generator) -> np.ndarray:
        seen.append({each.speaker for each in clips})
        return real(clips, length, random)

    monkeypatch.setattr(word_pairs, "_stretch", stretch)
    noise = maker._noise(BABBLE, "a/1", RATE_HZ, np.random.default_rng(3))
    assert noise.shape == (RATE_HZ,)
    assert all("a/1" not in speakers and "h/1" in speakers for speakers in seen)


def test_a_block_comes_back_as_it_was_made_and_is_the_same_each_time(
    maker: PairMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    place = word_pairs.folder("train")
    place.mkdir(parents=True)
    block = make_block(pairs_of(maker, 3), Whisper())
    assert make_block(pairs_of(maker, 3), Whisper()) == block
    assert make_block(pairs_of(maker, 4), Whisper()) != block
    (place / "0003.npz").write_bytes(block)
    back = list(read_blocks("train"))
    random = np.random.default_rng([7, 3])
    drawn = [maker.draw(random) for _ in range(BLOCK_PAIRS)]
    assert len(back) == BLOCK_PAIRS
    for heard, pair in zip(back, drawn, strict=True):
        np.testing.assert_array_equal(heard.noisy, Whisper().frames(pair.noisy))
        np.testing.assert_array_equal(heard.clean, Whisper().frames(pair.clean))
        assert heard.tokens.tolist() == [len(pair.text), len(pair.language), 99]
        assert (KINDS[heard.kind], heard.language) == (KIND_OF[pair.noise], pair.language)


@pytest.mark.parametrize("varied", [False, True])
def test_windows_are_as_long_as_a_live_look_and_hold_the_noise_they_name(
    maker: PairMaker, varied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_pairs, "ROOM_SHARE", 0.0)
    maker.varied = varied
    windows = windows_of(maker, 1)
    assert {window.noise for window in windows} == set(SOUNDS)
    for window in windows:
        assert window.clean.shape == window.noisy.shape
        assert 0 < len(window.noisy) <= round(WINDOW_S * RATE_HZ)
        assert window.noisy.dtype == np.float32
        if window.noise == CLEAN:
            assert np.array_equal(window.noisy, window.clean)
        else:
            assert np.square(window.noisy).mean() > 10 ** (QUIET_DB / 10)
    again = windows_of(maker, 1)
    assert all(np.array_equal(a.noisy, b.noisy) for a, b in zip(windows, again, strict=True))


def test_a_varied_noise_is_no_piece_of_its_recording(maker: PairMaker) -> None:
    random = np.random.default_rng(6)
    whole = maker._noises["rain"][0].samples.astype(np.float64)

    def likeness(noise: np.ndarray) -> float:
        """The highest correlation with any piece of the recording."""
        piece = noise[:4000].astype(np.float64)
        size = len(whole) + len(piece)
        along = np.fft.irfft(np.fft.rfft(whole, size) * np.fft.rfft(piece, size).conj(), size)
        return float(np.abs(along).max() / np.sqrt((piece**2).sum() * (whole**2).mean() * len(piece)))

    assert likeness(maker._recorded("rain", RATE_HZ, random)) > 0.9
    maker.varied = True
    assert max(likeness(maker._recorded("rain", RATE_HZ, random)) for _ in range(5)) < 0.5


def test_blocks_that_are_there_are_left_alone(
    maker: PairMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    monkeypatch.setattr(word_pairs, "load", lambda split, kind: [])
    wanted: list[tuple[bool, Extent]] = []

    def making(speech: object, background: object, varied: bool, extent: Extent) -> PairMaker:
        wanted.append((varied, extent))
        return maker

    monkeypatch.setattr(word_pairs, "PairMaker", making)
    monkeypatch.setattr(word_pairs, "FrozenWhisper", lambda int8: Whisper())
    place = word_pairs.folder("validation")
    place.mkdir(parents=True)
    (place / "0000.npz").write_bytes(b"mine")
    word_pairs.run("validation", 2)
    assert sorted(path.name for path in place.iterdir()) == ["0000.npz", "0001.npz"]
    assert (place / "0000.npz").read_bytes() == b"mine"
    word_pairs.run("train", 0, windows=True)
    assert wanted == [(False, TO_LEARN), (True, AS_LIVE)]


def test_without_sound_it_is_said_what_to_do() -> None:
    with pytest.raises(SottovoceError, match=r"models\.data"):
        PairMaker([], [])
