"""Ablations of the quantiser inside Whisper: equal trainings, rows that stay, nothing of it left in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from whisper.model import Whisper

from models import ablate_words
from models.ablate_words import FIGURES, VARIANTS, Variant, as_table, measured, recipe_of, run
from models.noise_vq import VqWeights
from models.train_words import Words
from tests.test_train_words import CONFIG, STARTS, pairs, whisper

__all__ = ["whisper"]
STEPS = 3


def test_equal_variants_come_out_equal_and_others_do_not(whisper: Whisper, tmp_path: Path) -> None:
    words, some = Words(whisper, STARTS), (pairs(24), pairs(12))
    found = [
        measured(variant, CONFIG, words, some, STEPS, tmp_path)
        for variant in (
            Variant("one", codes=16),
            Variant("other name", codes=16),
            Variant("less", VqWeights(beta=0.0), codes=16),
            Variant("conv", sampling="conv", codes=16),
        )
    ]
    assert found[0] == found[1]
    assert found[0] not in found[2:]
    assert not list(tmp_path.iterdir())  # nothing of a short training is kept


def test_the_losses_are_those_of_the_table() -> None:
    weights = [(v.weights.alpha > 0, v.weights.beta > 0, v.weights.noise > 0) for v in VARIANTS[:5]]
    assert weights == [(True, True, True), (False,) * 3, (False, False, True), (True, False, True), (False, True, True)]
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)


def test_what_is_done_is_not_done_again(whisper: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = list[str]()

    def measure(variant: Variant, *_: object) -> dict[str, float]:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(variant.name)
        return dict.fromkeys(FIGURES, float(len(trained)))

    monkeypatch.setattr(ablate_words, "measured", measure)
    monkeypatch.setattr(ablate_words, "VARIANTS", VARIANTS[:6])
    words, some = Words(whisper, STARTS), (pairs(4), pairs(4))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, STEPS, CONFIG, words, some)
    first, trained[:] = list(trained), []
    rows = run(tmp_path, STEPS, CONFIG, words, some)
    assert [*first, *trained] == [variant.name for variant in VARIANTS[:6]]
    assert as_table(rows).count("\n") >= 6
    assert recipe_of(CONFIG, some, STEPS) != recipe_of(CONFIG, some, STEPS + 1)


def test_without_pairs_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    assert ablate_words.main(["--out", str(tmp_path / "x")]) == 1
    assert "run python -m models.word_pairs" in capsys.readouterr().err
