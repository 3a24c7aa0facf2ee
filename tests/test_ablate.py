"""Equal, short trainings: what makes them equal, and the calibration that follows a training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from models import ablate, calibrate
from models.ablate import Variant, some_talkers, train, without
from models.calibrate import Setting, apply
from models.checkpoint import Bundle
from models.config import ModelConfig
from models.shards import Clip
from models.train import refine

Capture = pytest.CaptureFixture[str]
CONFIG = replace(ModelConfig(), codebook=16, speech_stages=2, background_stages=1, refiner_units=32)


@pytest.fixture
def batches() -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [0.1 * torch.randn(4, 2, 16_000, generator=random) for _ in range(2)]


def weights(bundle: Bundle) -> Tensor:
    return torch.cat([p.detach().flatten() for p in bundle.refiner.parameters()])


def test_the_same_variant_learns_the_same(batches: list[Tensor]) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        bundle = Bundle.new(CONFIG)
        train(bundle, Variant("all"), batches, steps=2)
        found.append(weights(bundle))
    assert torch.equal(*found)


def test_an_untrained_variant_is_left_alone_and_a_larger_one_is_larger(batches: list[Tensor]) -> None:
    bundle = Bundle.new(CONFIG)
    train(bundle, Variant("none", trained=False), batches, steps=2)
    assert not bundle.refiner.output.weight.any()
    train(bundle, Variant("large", units=48, trained=False), batches, steps=2)
    assert bundle.refiner.input.out_features == 48


def test_nothing_of_the_decoded_voice_comes_through_when_it_is_not_to_be_blended_in(batches: list[Tensor]) -> None:
    bundle = Bundle.new(CONFIG)
    train(bundle, Variant("own sound alone", blends=False), batches, steps=2)
    silence = torch.zeros(1, 8_000)
    with torch.no_grad():
        voice, _ = refine(bundle, silence, 0.1 * torch.randn(1, 8_000), silence)
    assert voice.abs().max() < 1e-6


def test_a_variant_that_does_not_ask_has_a_silent_opinion(batches: list[Tensor]) -> None:
    bundle = Bundle.new(CONFIG)
    torch.nn.init.normal_(bundle.refiner.opinion.decode.weight)
    train(bundle, Variant("alone", asks=False), batches, steps=2)
    assert not bundle.refiner.opinion.decode.weight.any()
    assert float(bundle.refiner.offset[2].detach().max()) < -29.0  # nothing but the weight decay has reached it


def test_signals_are_taken_away_by_their_place(batches: list[Tensor]) -> None:
    left = without(2, 3)(batches[0])
    assert torch.equal(left[:2], batches[0][:2])
    assert not left[2:].any()


def test_a_share_of_the_talkers_is_always_the_same(tmp_path: Path) -> None:
    clips = [
        Clip(np.zeros(10, np.int16), source="s", speaker=f"s/{n % 8}", class_name="", transcript="") for n in range(32)
    ]
    kept = some_talkers(clips, 0.25)
    assert len({clip.speaker for clip in kept}) == 2
    assert len(kept) == 8
    assert kept == some_talkers(clips, 0.25)


def test_every_variant_has_a_name_of_its_own() -> None:
    assert len({v.name for v in ablate.VARIANTS}) == len(ablate.VARIANTS)


def test_a_setting_moves_gain_and_share_as_it_says() -> None:
    torch.manual_seed(4)
    bundle = Bundle.new(CONFIG)
    torch.nn.init.normal_(bundle.refiner.output.weight, std=0.1)
    power, gru = torch.randn(1, 5, 6, 257), torch.zeros(2, 1, 32)
    changed = copy.deepcopy(bundle.refiner)
    apply(changed, Setting(scale=0.5, gain_shift=0.25, share_shift=1.0, trust_scale=2.0, trust_shift=-0.5))
    with torch.no_grad():
        old, new = (r.mask(power, gru)[0] for r in (bundle.refiner, changed))
    (gain, share, trust), (new_gain, new_share, new_trust) = old.unbind(2), new.unbind(2)
    assert torch.allclose(new_gain.logit(), 0.5 * gain.logit() + 0.25, atol=1e-3)
    assert torch.allclose(new_share.logit(), share.logit() + 1.0, atol=1e-3)
    assert torch.allclose(new_trust.logit(), 2.0 * trust.logit() - 0.5, atol=1e-3)


def test_the_first_setting_changes_nothing() -> None:
    bundle = Bundle.new(CONFIG)
    before = weights(bundle)
    apply(bundle.refiner, calibrate.SETTINGS[0])
    assert torch.equal(weights(bundle), before)


def test_noise_that_is_left_is_told_in_decibels(batches: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.new(CONFIG)
    monkeypatch.setattr(calibrate, "refine", lambda _, mixture, *__: (0.1 * mixture, None))
    steady = torch.ones(4, 2, 16_000)
    assert calibrate.noise_left_db(bundle, steady) == pytest.approx(-20.0, abs=0.01)


def test_what_lets_noise_alone_through_is_worth_less(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"gain_db": 5.0, "pesq": 2.0, "estoi": 0.5, "ovrl": 2.0}
    monkeypatch.setattr(calibrate, "scores", lambda *_: figures)
    found = []
    for left in (-60.0, -40.0, -35.0):
        monkeypatch.setattr(calibrate, "noise_left_db", lambda *_, left=left: left)
        found.append(calibrate.measured(Bundle.new(CONFIG), {"noise": torch.zeros(1)}, torch.zeros(1))[0])
    assert found == pytest.approx([7.5, 7.5, 6.5])


@pytest.mark.parametrize("module", [calibrate, ablate])
def test_without_sound_it_says_what_to_do(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    options = {calibrate: ["--checkpoint"], ablate: ["--out"]}[module]
    assert module.main([*options, str(tmp_path / "x")]) == 1
    assert "run python -m models.data" in capsys.readouterr().err


def test_rows_of_another_recipe_are_not_taken(tmp_path: Path) -> None:
    bundle = Bundle.new(CONFIG)
    recipes = [ablate.recipe_of(bundle, *counts) for counts in ((10, 1), (20, 1), (10, 2))]
    assert len(set(recipes)) == 3
    rows = [{"variant": f"v{n}", "recipe": recipe, "noise estoi": "0.5"} for n, recipe in enumerate(recipes)]
    ablate.keep(tmp_path / "a.csv", rows)
    assert ablate.read(tmp_path / "a.csv", recipes[1]) == {"v1": rows[1]}
    assert ablate.read(tmp_path / "none.csv", recipes[1]) == {}


@pytest.mark.parametrize("options", [["--steps", "5"], ["--batches", "0"]])
def test_too_little_is_refused(options: list[str], tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        ablate.main(["--out", str(tmp_path), *options])
    assert "or more" in capsys.readouterr().err
