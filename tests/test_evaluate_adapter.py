"""Words with and without the quantiser: every way of hearing is asked of both decoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.answers import Hypothesis
from engine.captions import Heard
from models import evaluate_adapter, evaluate_words
from models.evaluate_adapter import WITH, WITHOUT, adapted
from models.evaluate_words import markdown
from models.shards import RATE_HZ
from models.testset import Mixture


class Decoder:
    """Says one word always."""

    window = None

    def __init__(self, word: str) -> None:
        self.word = word

    def encode(self, samples: np.ndarray, trailing_s: float) -> None: ...

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        return Hypothesis((Heard(self.word, 0.5, 0.9, 0.9, (1,)),)[len(prefix) :], "en")


class Loud:
    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).max() > 0.01 else 0.0

    def reset(self) -> None: ...


def test_every_way_is_heard_with_and_without_the_quantiser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "adapter" in evaluate_words.PARTS
    monkeypatch.setattr(evaluate_adapter, "has_bridge", lambda: False)
    monkeypatch.setattr("models.evaluate_tokens.SileroVad", Loud)
    monkeypatch.setattr(evaluate_adapter, "taps_of", lambda noisy: {"noisy, enhanced": 0.5 * noisy})
    sound = np.full(RATE_HZ, 0.2, np.float32)
    mixture = Mixture("one", sound, sound, 0 * sound, 0.0, "pub", "own")
    found = adapted([mixture], Decoder("own"), Decoder("codes"))
    rows = {name: row["word_errors_percent"] for name, row in found.items() if isinstance(row, dict)}
    ways = ("clean", "noisy", "noisy, enhanced")
    assert rows == {f"{way}, {how}": wrong for how, wrong in ((WITHOUT, 0.0), (WITH, 100.0)) for way in ways}
    assert "noisy, enhanced, with adapter" in markdown({"adapter": found})
