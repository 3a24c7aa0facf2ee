"""The recogniser's figures: what is counted, on which clock, and that a stream is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.answers import Hypothesis
from engine.captions import Heard as HeardWord
from engine.listener import LIVE
from engine.residue import Reading
from engine.types import SottovoceError, Word
from models import evaluate, evaluate_words
from models.evaluate_words import (
    ENHANCED,
    PAUSE_S,
    covered,
    kinds,
    markdown,
    more_than,
    nobody_speaks,
    sounding_of,
    stream_of,
    streaming,
)
from models.metrics import WordErrors
from models.shards import RATE_HZ, Clip
from models.testset import Mixture
from models.word_pairs import KIND_OF, KINDS, Pair


def pair(kind: str, told: str, snr_db: float, equal: float = 1.0) -> Pair:
    """Sounds that carry what the reader below will say of them: the kind as their level."""
    noisy = np.full(3 * RATE_HZ, 0.01 * (1 + KINDS.index(KIND_OF[told])), np.float32)
    clean = noisy.copy()
    clean[: round(len(clean) * (1 - equal))] += 0.5
    return Pair(clean, noisy, "words", "en", kind, snr_db)


class Reader:
    kinds = KINDS

    def read(self, frames: np.ndarray) -> Reading:
        chances = np.eye(len(KINDS))[round(float(frames[-1, 0]) * 100) - 1]
        return Reading(frames[::2, 0], np.zeros(len(frames) // 2), chances, (0.0, 0.0))


class Encoder:
    def frames(self, sound: np.ndarray) -> np.ndarray:
        return sound[::320, None]


def test_kinds_are_counted_and_clean_is_told_from_noisy() -> None:
    pairs = [
        pair("rain", "rain", 3.0, 0.5),
        pair("rain", "music", 12.0),
        pair("wind", "clean", 17.0),
        pair("clean", "clean", np.inf),
        pair("rain", "rain", -np.inf),
        pair("unknown", "rain", 3.0),
    ]
    found = kinds(pairs, Reader(), Encoder())  # type: ignore[arg-type]
    assert found["all"]["pairs"] == 6
    assert found["without unknown"]["kind"] == 60.0
    assert found["without unknown"]["clean or not"] == 80.0
    assert found["by_snr"]["0 to 5 dB"]["equal tokens"] == pytest.approx(50.0, abs=1.0)
    sure = found["by_snr"]["10 to 15 dB"].pop("said to be sure")
    assert sure == pytest.approx(100.0, abs=0.1)
    assert found["by_snr"]["10 to 15 dB"] == {"kind": 0.0, "clean or not": 100.0, "equal tokens": 100.0, "pairs": 1}
    assert found["by_snr"]["no voice"]["kind"] == 100.0
    del found["by_kind"]["weather"]["said to be sure"]
    assert found["by_kind"]["weather"] == {"kind": 50.0, "clean or not": 75.0, "equal tokens": 83.1, "pairs": 4}
    assert set(found["by_kind"]) == {"weather", "clean"}
    assert "| no voice" in markdown({"kinds": found}).replace("noisy, no voice", "no voice")


def mixture(text: str, seconds: float) -> Mixture:
    sound = np.full(round(seconds * RATE_HZ), 0.1, np.float32)
    return Mixture(text, sound, 0.5 * sound, 0.5 * sound, 0.0, "rain", text)


def test_a_stream_holds_every_utterance_and_its_words() -> None:
    sound, text = stream_of([mixture("one two", 1.0), mixture("three", 2.0)], "speech")
    assert text == "one two three"
    assert len(sound) == round((3.0 + 2 * evaluate_words.PAUSE_S) * RATE_HZ)
    assert np.count_nonzero(sound == np.float32(0.05)) == 3 * RATE_HZ


class Detector:
    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).max() > 0.01 else 0.0

    def reset(self) -> None:
        pass


class Decoder:
    """Hears a word for each whole half second of sound."""

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        voiced = int((np.abs(samples) > 0.01).sum() / RATE_HZ * 2)
        words = [HeardWord(f" w{n}", 0.4 + n / 2, 0.4 + (n + 1) / 2, 0.9, (n,)) for n in range(voiced)]
        return Hypothesis(tuple(words[len(prefix) :]), "en")


def test_words_that_come_live_are_final_after_they_were_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_words, "SileroVad", Detector)
    sound = np.concatenate([np.zeros(RATE_HZ), np.full(3 * RATE_HZ, 0.1), np.zeros(2 * RATE_HZ)]).astype(np.float32)
    words, delays_s = evaluate_words.heard_live(sound, LIVE, Decoder())
    assert len(words) == len(delays_s) == 6
    assert all(0.0 < delay_s < 3.0 for delay_s in delays_s)


def test_words_that_nothing_was_written_about_are_not_covered() -> None:
    spoken, sounds = [Word(f"w{n}", n, n + 1.0) for n in range(4)], np.ones(250, np.bool_)
    assert covered(spoken, spoken, sounds) == 100.0
    assert covered(spoken, [], sounds) == 0.0
    part = [Word("x", 0.0, 1.0), Word("y", 2.5, 3.0)]
    assert covered(spoken, part, sounds) == pytest.approx(100 * (1.3 + 1.1) / 4, abs=1)
    sounds[100:] = False  # the voice ends after two seconds
    assert covered(spoken, part, sounds) == pytest.approx(100 * 1.3 / 2, abs=1)


def test_the_voice_sounds_where_it_is_within_reach_of_its_own_loudest() -> None:
    loud, quiet = np.zeros(RATE_HZ, np.float32), np.zeros(RATE_HZ, np.float32)
    loud[: RATE_HZ // 2], quiet[RATE_HZ // 2 :] = 0.5, 0.005
    items = [Mixture("", voice, voice, 0 * voice, 0.0, "pub", "words") for voice in (loud, quiet)]
    sounds = sounding_of(items)
    assert len(sounds) == round((2 + 2 * PAUSE_S) * 50) + 1
    assert np.flatnonzero(sounds).tolist() == [*range(25), *range(135, 160)]


def test_a_stream_is_heard_live_and_offline_and_the_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = np.ones(RATE_HZ, np.float32)
    said = Mixture("1", voice, voice, voice, 0.0, "rain", "red green blue grey")

    def live(sound: np.ndarray, pace: object, decoder: object) -> tuple[list[Word], list[float]]:
        told = "red green" if pace is LIVE else "red green blue"
        return [Word(word, 0.0, 1.0) for word in told.split()], [1.0, 2.0]

    monkeypatch.setattr(evaluate_words, "heard_live", live)
    monkeypatch.setattr(evaluate_words, "taps_of", lambda sound: {"noisy": sound, ENHANCED: sound})
    found = streaming([said], None, lambda sound: "red")
    assert found["clean, plain Whisper"]["word_errors_percent"] == 75.0
    for title in ("clean", "clean, enhanced", "noisy", ENHANCED):
        row = found[f"{title}, live"]
        assert (row["word_errors_percent"], row["over_offline"], row["final_s_median"]) == (50.0, 25.0, 1.5)
        assert found[f"{title}, offline"]["word_errors_percent"] == 25.0
    assert "over_offline" in markdown({"streaming": found})


def test_how_much_more_is_wrong_is_resampled_together() -> None:
    one, other = ([WordErrors(errors, 10) for errors in row] for row in ((3, 1) * 20, (2, 0) * 20))
    assert more_than(one, other) == {"over_offline": 10.0, "over_offline_interval": [10.0, 10.0]}
    assert more_than(other, one)["over_offline"] == -10.0


def test_noise_without_a_voice_fills_its_time_and_every_kind_comes_and_silence() -> None:
    clips = [Clip(np.full(RATE_HZ * 30, 1000, np.int16), "", name, "x", "") for name in ("rain", "wind")]
    pieces = list(nobody_speaks(clips, 90.0))
    assert sum(map(len, pieces)) == 90 * RATE_HZ
    assert [bool(piece.any()) for piece in pieces] == [True, True, False, True, True]
    levels_db = [20 * np.log10(np.sqrt(np.square(piece).mean())) for piece in pieces if piece.any()]
    assert all(-45.1 < level_db < -19.9 for level_db in levels_db)
    assert len(set(np.round(levels_db, 1))) == len(levels_db)


def test_what_was_measured_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recognizer.json").write_text(json.dumps({"streaming": {"utterances": 1}}), encoding="utf-8")

    def measure(parts: object, out: object) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "silence", {"seconds": 600, "words": 0, "text": ""}
        raise SottovoceError("there are no training windows yet")

    monkeypatch.setattr(evaluate_words, "measure", measure)
    assert evaluate.main(["recognizer", "--out", str(tmp_path), "--parts", "silence,unseen"]) == 1
    assert set(json.loads((tmp_path / "recognizer.json").read_text(encoding="utf-8"))) == {"streaming", "silence"}
    assert "600 s without a voice: 0 words" in (tmp_path / "recognizer.md").read_text(encoding="utf-8")


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_words, "whisper_decoder", lambda: None)
    monkeypatch.setattr(evaluate_words, "load", lambda split, kind: [])
    with pytest.raises(SottovoceError, match=r"models\.data"):
        list(evaluate_words.measure(["kinds"], Path()))
