"""Words through the quantiser: the decoder reads what codes become, whatever frames come from, and only meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.answers import Hypothesis
from engine.captions import Heard
from engine.types import SottovoceError
from models import evaluate_adapter, evaluate_words
from models.evaluate_adapter import quantised, through, with_adapter
from models.evaluate_words import markdown
from models.noise_vq import NoiseVq, VqConfig
from models.shards import RATE_HZ
from models.testset import Mixture

WIDTH = 16


class Decoder:
    """Says whether the frames it reads are the encoder's own, which are all ones."""

    window = None

    def _features(self, samples: np.ndarray, trailing_s: float) -> Tensor:
        return torch.ones(1, round(len(samples) / RATE_HZ * 50 + trailing_s * 50), WIDTH)

    def encode(self, samples: np.ndarray, trailing_s: float) -> None: ...

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        own = bool((self._features(samples, 0.5) == 1.0).all())
        return Hypothesis((Heard("own" if own else "codes", 0.5, 0.9, 0.9, (1,)),)[len(prefix) :], "en")


class Loud:
    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).max() > 0.01 else 0.0

    def reset(self) -> None: ...


@pytest.fixture
def model() -> NoiseVq:
    torch.manual_seed(1)
    return NoiseVq(VqConfig(width=WIDTH, latent=4, codes=8, heads=2, classes=3)).eval()


def test_what_is_quantised_has_the_frames_places_and_hangs_on_codes_alone(model: NoiseVq) -> None:
    frames = torch.randn(1, 31, WIDTH)
    made = quantised(model, frames)
    assert made.shape == frames.shape
    model.codebook.vectors.zero_()
    model.codebook.vectors[:, 0] = 1.0  # every code alike: nothing of the sound is left
    first, second = quantised(model, frames), quantised(model, torch.randn(1, 31, WIDTH))
    torch.testing.assert_close(first, second)


def test_frames_are_quantised_only_within(model: NoiseVq) -> None:
    decoder, sound = Decoder(), np.zeros(RATE_HZ, np.float32)
    with through(model, decoder):
        assert not (decoder._features(sound, 0.5) == 1.0).all()
    assert (decoder._features(sound, 0.5) == 1.0).all()


def test_every_way_is_heard_through_the_quantiser(
    model: NoiseVq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_adapter, "load_trained", lambda path: model)
    monkeypatch.setattr(evaluate_adapter, "has_bridge", lambda: False)
    monkeypatch.setattr("models.evaluate_tokens.SileroVad", Loud)
    monkeypatch.setattr(evaluate_adapter, "taps_of", lambda noisy: {"noisy, enhanced": 0.5 * noisy})
    sound = np.full(RATE_HZ, 0.2, np.float32)
    found = with_adapter([Mixture("one", sound, sound, 0 * sound, 0.0, "pub", "codes")], Decoder())
    rows = {name: row for name, row in found.items() if isinstance(row, dict)}
    assert set(rows) == {"clean", "noisy", "noisy, enhanced"}
    assert all(row["word_errors_percent"] == 0.0 for row in rows.values())
    assert "noisy, enhanced" in markdown({"adapter": found})


def test_without_a_trained_quantiser_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    assert "adapter" in evaluate_words.PARTS
    with pytest.raises(SottovoceError, match=r"models\.train_words"):
        with_adapter([], Decoder())
