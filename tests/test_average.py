"""Averaging: the mean of what was trained, and a refusal where the checkpoints are of different families."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from models.average import averaged, main
from models.checkpoint import Bundle, load_bundle, save_bundle
from models.config import ModelConfig
from models.export_words import load_trained
from models.noise_vq import NoiseVq, VqConfig
from models.train_kinds import save

CONFIG = replace(ModelConfig(), codebook=16, speech_stages=2, background_stages=1, refiner_units=16, front_units=32)


def made(value: float) -> Bundle:
    torch.manual_seed(1)
    bundle = Bundle.new(CONFIG)
    torch.nn.init.constant_(bundle.refiner.slope, value)
    return bundle


def test_the_mean_lies_between_and_what_is_equal_stays(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path, value in zip(paths, (0.25, 0.75), strict=True):
        save_bundle(made(value), path)
    (tmp_path / "full.pt").write_bytes(b"older")
    main(paths, out=tmp_path / "full.npz")
    found = load_bundle(tmp_path / "full.npz")
    assert torch.allclose(found.refiner.slope, torch.full_like(found.refiner.slope, 0.5))
    assert torch.equal(found.refiner.input.weight, load_bundle(paths[0]).refiner.input.weight)
    assert (tmp_path / "before.pt").read_bytes() == b"older"
    assert not (tmp_path / "full.pt").exists()


def test_other_codebooks_are_refused() -> None:
    other = made(0.5)
    with torch.no_grad():
        other.codec.encoder.speech.books(0).fill_(0.5)
    with pytest.raises(ValueError, match="the same one"):
        averaged([made(0.5), other])


def test_a_file_that_is_no_checkpoint_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(typer.Exit):
        main([tmp_path / "a.npz", tmp_path / "a.npz"], out=tmp_path / "c.npz")
    assert "not averaged" in capsys.readouterr().err
    assert not (tmp_path / "c.npz").exists()


def test_quantisers_are_averaged_too_where_their_codes_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(2)
    first = NoiseVq(VqConfig(width=16, latent=8, codes=16, heads=2, sampling="mean", classes=3))
    second, other = copy.deepcopy(first), copy.deepcopy(first)
    with torch.no_grad():
        second.encoder.project.bias += 1.0
        other.codebook.vectors[0] *= -1.0
    for name, model in (("a", first), ("b", second), ("c", other)):
        save(model, tmp_path / f"{name}.pt")
    main([tmp_path / "a.pt", tmp_path / "b.pt"], out=tmp_path / "vq.pt")
    found = load_trained(tmp_path / "vq.pt")
    assert torch.allclose(found.encoder.project.bias, first.encoder.project.bias + 0.5)
    assert torch.equal(found.codebook.vectors, first.codebook.vectors)
    with pytest.raises(typer.Exit):
        main([tmp_path / "a.pt", tmp_path / "c.pt"], out=tmp_path / "vq.pt")
