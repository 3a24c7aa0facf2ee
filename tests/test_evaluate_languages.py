"""Captions of other languages: whose voices are heard, what is counted; and with less background under them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.listener import LIVE, OFFLINE
from engine.types import LEFT_FOR_RECOGNISER_DB, SottovoceError, Word
from models import evaluate_floor, evaluate_languages
from models.evaluate_floor import FLOORS_DB, floors
from models.evaluate_languages import in_noise, languages, talkers_of
from models.evaluate_words import markdown
from models.shards import RATE_HZ, Clip
from models.word_pairs import NOISES, Pair, PairMaker

NOISE_CLIPS = [Clip(np.full(RATE_HZ * 3, 500, np.int16), "", name, "x", "") for name in NOISES]


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Clip]]:
    random = np.random.default_rng(0)

    def clip(source: str, speaker: str, text: str) -> Clip:
        return Clip((3000 * random.standard_normal(RATE_HZ)).astype(np.int16), speaker, "", source, text)

    spoken = {
        "validation": [clip("fillets-ng-data-nl/a", "nl/big", "een"), clip("hedgewars-data/a", "h/1", "")],
        "train": [clip("fillets-ng-data-cs/a", "cs/1", "jedna"), clip("festvox-ru/a", "ru/1", "odin")],
    }
    monkeypatch.setattr(evaluate_languages, "load", lambda split, kind: spoken[split])
    return spoken


def test_languages_are_heard_of_validation_voices_where_there_are_any(
    voices: dict[str, list[Clip]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [clip.speaker for clip in talkers_of("nl")] == ["nl/big"]
    assert [clip.speaker for clip in talkers_of("cs")] == ["cs/1"]
    with pytest.raises(SottovoceError, match=r"models\.data"):
        talkers_of("el")
    monkeypatch.setattr(evaluate_languages, "PAIRS", 4)
    monkeypatch.setattr(evaluate_languages, "taps_of", lambda sound: {"noisy, enhanced": sound})
    heard: list[str] = []

    def live(sound: np.ndarray, pace: object, decoder: object, language: str) -> tuple[list[Word], list[float]]:
        heard.append(language)
        return [Word("jedna", 0.0, 1.0)], [0.5]

    monkeypatch.setattr(evaluate_languages, "heard_live", live)
    found = languages(NOISE_CLIPS, None, lambda samples, language="en": "een" if language == "nl" else "")
    assert heard == ["cs"] * 16 + ["ru"] * 16 + ["nl"] * 16
    assert found["nl, noisy, plain Whisper"]["word_errors_percent"] < 100.0
    assert found["ru, clean, live"]["word_errors_percent"] == 100.0
    assert "| nl, noisy, file" in markdown({"languages": found})


def test_pairs_are_of_the_levels_that_are_asked_for_and_the_same_each_time(voices: dict[str, list[Clip]]) -> None:
    maker = PairMaker(voices["train"], NOISE_CLIPS)
    drawn = [list(in_noise(maker, "ru", 12, (-5.0, 0.0))) for _ in range(2)]
    assert [pair.snr_db for pair in drawn[0]] == [pair.snr_db for pair in drawn[1]]
    assert all(-5.0 <= pair.snr_db <= 0.0 and pair.text.startswith("odin") for pair in drawn[0])
    assert len(drawn[0]) == 12


def test_each_level_of_the_background_is_heard_and_held_against_the_one_that_is_shipped(
    voices: dict[str, list[Clip]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recogniser that needs a tenth of the background, and live hears nothing at all."""
    sound = np.ones(RATE_HZ, np.float32)
    pairs = [Pair(sound, sound, "odin dva tri", "ru", "rain", 0.0)] * 4
    monkeypatch.setattr(evaluate_floor, "PAIRS", {"ru": 4})
    monkeypatch.setattr(evaluate_floor, "in_noise", lambda *_: iter(pairs))
    monkeypatch.setattr(evaluate_floor, "load", lambda split, kind: voices[split])
    asked: list[tuple[object, float]] = []

    def alone(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(sound), np.ones_like(sound)

    def heard(sound: np.ndarray, pace: object, decoder: object, language: str) -> tuple[list[Word], list[float]]:
        asked.append((pace, float(sound[0])))
        said = ["odin", "dva", "tri"] * 4 if sound[0] > 0.1 and pace is OFFLINE else []
        return [Word(word, 0.0, 1.0) for word in said], [0.0]

    monkeypatch.setattr(evaluate_floor, "parted", alone)
    monkeypatch.setattr(evaluate_floor, "heard_live", heard)
    found = floors(NOISE_CLIPS, None)
    gains = [10 ** (floor_db / 20) for floor_db in FLOORS_DB]
    assert [gain for pace, gain in asked if pace is LIVE] == pytest.approx(gains)
    assert found["ru, -6 dB, whole"]["over_-10.5 dB"] == 0.0
    assert found["ru, -inf dB, whole"]["word_errors_percent"] == 100.0
    assert found["ru, -inf dB, whole"]["over_-10.5 dB"] == 100.0
    assert found["ru, -inf dB, live"]["over_-10.5 dB"] == 0.0
    assert f"| ru, {LEFT_FOR_RECOGNISER_DB:g} dB, live | 100" in markdown({"floor": found})
