"""The quantiser inside Whisper as captions run it: what training had, from the shipped graph and the user's Whisper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from engine import residue
from engine.adapter import Adapter
from engine.recognizer import Recognizer
from engine.types import ArtefactError, Samples, SottovoceError, UsageError
from engine.whisper_blocks import ending
from engine.whisper_decoder import WhisperDecoder
from models.export_words import decoder_of, snap, write
from models.grown_decoder import GrownDecoder
from models.manifest import update_row
from models.noise_vq import NoiseVq, VqConfig
from models.train_kinds import KindTraining
from models.train_words import Training, Words
from models.vq_start import Seen, before_last, fit, nearest, spherical_means
from models.word_pairs import KINDS, Heard
from tests.test_train_words import STARTS, WIDTH, hash_of

CONFIG = VqConfig(width=WIDTH, latent=8, codes=16, heads=2, sampling="mean", classes=len(KINDS), rank=2)


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    """Of random weights and ten seconds; two blocks, so that one comes before the last."""
    torch.manual_seed(5)
    model = Whisper(ModelDimensions(80, 500, WIDTH, 2, 2, 40, 32, WIDTH, 2, 1)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.1)
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def sounds() -> list[Samples]:
    random = np.random.default_rng(3)
    return [0.1 * random.standard_normal(16_000 + 960 * n).astype(np.float32) for n in range(6)]


@pytest.fixture(scope="module")
def looked(whisper: Whisper, sounds: list[Samples]) -> list[Seen]:
    """What was heard of the sounds, clean and at half the level."""
    decoder = WhisperDecoder(whisper, int8=False)
    said = np.array([10, 20, 39], np.int32)
    found = []
    for sound in sounds:
        clean, noisy = (decoder.frames(gain * sound).astype(np.float16) for gain in (1.0, 0.5))
        found.append(Seen(Heard(clean, noisy, said, 0, 5.0, "en"), before_last(decoder, sound)))
    return found


@pytest.fixture(scope="module")
def model(whisper: Whisper, looked: list[Seen]) -> NoiseVq:
    """Fitted, and as it is shipped; what is added to Whisper's block is not nothing."""
    torch.manual_seed(1)
    made = NoiseVq(CONFIG).eval()
    fit(made, Words(whisper, STARTS), looked)
    with torch.no_grad():
        for weight in decoder_of(made).own.parameters():
            weight += 0.05 * torch.randn_like(weight)
    snap(made)
    return made


@pytest.fixture(scope="module")
def folder(model: NoiseVq, looked: list[Seen], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("assets")
    write(model, [one.pair for one in looked], place / "residue.onnx")
    row = {"name": "residue", "file": "residue.onnx", "kind": "model", "license": "MIT"}
    update_row(manifest=place / "manifest.toml", **row)
    return place


@pytest.fixture
def adapter(folder: Path, whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    monkeypatch.setattr(residue, "assets_dir", lambda: folder)
    return Adapter(whisper.encoder, "base")


@torch.no_grad()
def test_the_graph_and_a_whisper_give_what_training_had(adapter: Adapter, model: NoiseVq, looked: list[Seen]) -> None:
    for one in looked:
        frames = torch.from_numpy(one.pair.noisy.astype(np.float32))[None]
        for count in (frames.shape[1], frames.shape[1] - 1, 1):  # also where the last code stands for one frame
            wanted = model(frames[:, :count], torch.ones(1, count, dtype=torch.bool))[0]
            torch.testing.assert_close(adapter(frames[:, :count]), wanted, rtol=1e-3, atol=1e-3)


def test_words_hang_on_the_codes_and_on_where_they_are(adapter: Adapter, looked: list[Seen]) -> None:
    frames = torch.from_numpy(looked[0].pair.clean.astype(np.float32))[None]
    made = adapter(frames)
    assert torch.equal(made, adapter(frames + 1e-5 * torch.randn_like(frames)))  # the same codes
    assert not torch.allclose(made[0, :2], adapter(frames[:, :2].repeat(1, 10, 1))[0, -2:], atol=1e-3)


def test_the_decoder_reads_what_the_adapter_makes(adapter: Adapter, whisper: Whisper, sounds: list[Samples]) -> None:
    before = hash_of(whisper)
    plain, through = WhisperDecoder(whisper, int8=False), WhisperDecoder(whisper, int8=False, adapter=adapter)
    frames = plain._features(sounds[0], 0.5)
    torch.testing.assert_close(through._features(sounds[0], 0.5), adapter(frames))
    assert not torch.allclose(through._features(sounds[0], 0.5), frames, atol=1e-3)
    assert hash_of(whisper) == before


def test_another_whisper_or_no_graph_is_told(
    adapter: Adapter, whisper: Whisper, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtefactError, match="base alone, not with small"):
        Adapter(whisper.encoder, "small")
    wider = Whisper(ModelDimensions(80, 500, 2 * WIDTH, 2, 1, 40, 32, 2 * WIDTH, 2, 1)).eval()
    with pytest.raises(ArtefactError, match="another Whisper"):
        Adapter(wider.encoder, "base")
    with pytest.raises(UsageError, match="leave --adapter out"):
        Recognizer("en", model="small", adapter=True)
    (tmp_path / "manifest.toml").write_text("artefact = []\n")
    monkeypatch.setattr(residue, "assets_dir", lambda: tmp_path)
    with pytest.raises(ArtefactError, match="leave --adapter out"):
        Adapter(whisper.encoder, "base")


def test_a_decoder_without_whispers_block_or_with_its_own_is_told(tmp_path: Path, looked: list[Seen]) -> None:
    codes, there = torch.zeros(1, 2, CONFIG.latent), torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(SottovoceError, match="given none"):
        GrownDecoder(CONFIG)(codes, there)
    with pytest.raises(SottovoceError, match=r"--fresh"):
        write(NoiseVq(replace(CONFIG, rank=0)), [one.pair for one in looked], tmp_path / "residue.onnx")


def test_a_fitted_start_is_nearer_than_chance(whisper: Whisper, looked: list[Seen]) -> None:
    def distance(model: NoiseVq) -> float:
        frames = [torch.from_numpy(one.pair.clean.astype(np.float32))[None] for one in looked]
        made = [model(x, torch.ones(x.shape[:2], dtype=torch.bool))[0] for x in frames]
        return sum(float((x - y).square().mean()) for x, y in zip(frames, made, strict=True))

    torch.manual_seed(2)
    fitted, drawn = NoiseVq(CONFIG).eval(), NoiseVq(CONFIG).eval()
    words = Words(whisper, STARTS)
    fit(fitted, words, looked)
    decoder_of(drawn).own.take(ending(whisper.encoder))
    decoder_of(drawn).grow(ending(whisper.encoder))
    with torch.no_grad():
        assert distance(fitted) < 0.7 * distance(drawn)


def test_codes_by_k_means_lie_where_vectors_are() -> None:
    torch.manual_seed(0)
    middles = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    z = torch.nn.functional.normalize(middles.repeat(50, 1) + 0.01 * torch.randn(200, 8), dim=1)
    codes = spherical_means(z, 12, seed=0)
    assert codes.shape == (12, 8)
    assert float((z * codes[nearest(z, codes)]).sum(1).min()) > 0.99


def test_kinds_are_learned_without_moving_a_code(whisper: Whisper, looked: list[Seen], tmp_path: Path) -> None:
    config, pairs = replace(CONFIG, latent=12, aside=4), [one.pair for one in looked]
    training = Training(config, Words(whisper, STARTS), pairs, pairs, tmp_path)
    model = training.model
    fit(model, training.words, looked)
    codes = model.codebook.vectors.clone()
    training.one_step(1.0)
    assert not torch.equal(model.codebook.vectors, codes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    KindTraining(model, pairs, np.random.default_rng(0)).one_step(1.0)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith(("encoder.leave.", "classifier.")) for name in moved)


def test_what_is_left_aside_is_in_the_residue_and_in_no_code(
    whisper: Whisper, looked: list[Seen], tmp_path: Path
) -> None:
    torch.manual_seed(4)
    model = NoiseVq(replace(CONFIG, latent=12, aside=4)).eval()
    fit(model, Words(whisper, STARTS), looked)
    frames = torch.from_numpy(looked[0].pair.noisy.astype(np.float32))[None, :31]
    there = torch.ones(1, 31, dtype=torch.bool)
    with torch.no_grad():
        first = model.quantise(frames, there)
        for weight in model.encoder.leave.parameters():
            weight.mul_(3.0)
        second = model.quantise(frames, there)
    assert first.residue.shape == (1, 16, 12)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.residue[..., :8], second.residue[..., :8])
    assert not torch.allclose(first.residue[..., 8:], second.residue[..., 8:])
