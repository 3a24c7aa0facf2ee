"""The residue of noises never taught: what is counted, and that a plain quantiser is fitted to what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.types import SottovoceError
from models import separability
from models.noise_vq import NoiseVq, VqConfig
from models.separability import PLAIN, SHIPPED, Plain, Shipped, Told, as_table, figures, silhouette, told, unseen
from models.shards import RATE_HZ
from models.testset import Mixture

WIDTH, LATENT = 24, 6


def frames(seed: int, count: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def test_heaps_that_lie_apart_score_one_and_one_heap_scores_nothing() -> None:
    random = np.random.default_rng(1)
    near = random.standard_normal((40, 3))
    kinds = ["a"] * 20 + ["b"] * 20
    apart = near + np.where(np.arange(40) < 20, 0.0, 1000.0)[:, None]
    assert silhouette(apart, kinds) > 0.99
    assert abs(silhouette(near, kinds)) < 0.05
    assert silhouette(apart, ["a", "b"] * 20) < 0.0


def test_the_silhouette_is_rousseeuws() -> None:
    points = np.array([[0.0], [1.0], [4.0], [6.0]])
    a = np.array([1.0, 1.0, 2.0, 2.0])
    b = np.array([5.0, 4.0, 3.5, 5.5])
    assert silhouette(points, ["x", "x", "y", "y"]) == pytest.approx(np.mean((b - a) / np.maximum(a, b)))


@pytest.mark.parametrize("kinds", [["a", "a", "a"], ["a", "a", "b"]])
def test_a_silhouette_wants_two_kinds_of_two(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="two kinds"):
        silhouette(np.eye(3), kinds)


def test_a_plain_quantiser_describes_what_it_was_fitted_to_better_than_another_does() -> None:
    own = frames(1, 400)
    plain, other = (Plain([part[:200], part[200:]], codes=32, latent=LATENT) for part in (own, frames(2, 400)))
    codes, residue = plain(own[:101])
    assert codes.shape == (50,)
    assert residue.shape == (50, LATENT)
    assert len(set(codes.tolist())) > 10
    assert np.square(residue).mean() < 0.9 * np.square(other(own[:101])[1]).mean()


def test_a_plain_quantiser_needs_more_frames_than_codes() -> None:
    with pytest.raises(SottovoceError, match=r"models\.word_pairs"):
        Plain([frames(1, 20)], codes=32, latent=LATENT)


def test_equal_frames_have_equal_tokens() -> None:
    model = NoiseVq(VqConfig(width=WIDTH, latent=LATENT, codes=16, heads=2, classes=3))
    x = frames(3)
    assert told(Shipped(model), x, x).equal == 1.0
    assert told(Shipped(model), x, frames(4)).equal < 0.9


def test_figures_are_told_for_all_and_for_each_snr() -> None:
    kinds, snrs_db = ["a", "a", "b", "b"] * 2, [0.0] * 4 + [10.0] * 4
    rows = [Told(np.array([float(kind == "b"), i * 0.01]), 0.25) for i, kind in enumerate(kinds)]
    found = figures(rows, kinds, snrs_db)
    assert list(found) == ["all", "0 dB", "10 dB"]
    assert found["0 dB"] == {"silhouette": pytest.approx(0.985, abs=0.01), "equal tokens": 25.0}
    assert "equal tokens" not in figures([Told(row.residue, np.nan) for row in rows], kinds, snrs_db)["all"]


class Encoder:
    def frames(self, sound: np.ndarray) -> np.ndarray:
        return sound[: 20 * WIDTH].reshape(20, WIDTH)


def test_both_quantisers_hear_the_same_mixtures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NoiseVq(VqConfig(width=WIDTH, latent=LATENT, codes=16, heads=2, classes=3))
    torch.manual_seed(0)
    monkeypatch.setattr(separability, "load_shipped", lambda path: model)
    monkeypatch.setattr(separability, "plain_like", lambda shipped: Plain([frames(1)], codes=16, latent=LATENT))
    random = np.random.default_rng(5)
    mixtures = []
    for kind in ("train", "pub"):
        for number in range(4):
            voice = random.standard_normal(RATE_HZ).astype(np.float32)
            noisy = voice + 0.5 * random.standard_normal(RATE_HZ).astype(np.float32)
            mixtures.append(Mixture(f"{kind}{number}", noisy, voice, noisy - voice, 5.0, kind, ""))
    found = unseen(mixtures, Encoder(), tmp_path)
    assert found["kinds"] == ["pub", "train"]
    assert set(found[SHIPPED]["5 dB"]) == set(found[PLAIN]["all"]) == {"silhouette", "equal tokens"}
    assert (tmp_path / "unseen.png").stat().st_size > 1000
    assert f"| {found[SHIPPED]['all']['silhouette']} |" in as_table(found)
