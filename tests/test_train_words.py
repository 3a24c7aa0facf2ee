"""Training the quantiser inside Whisper: batches, losses, resuming, and that Whisper itself is left as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from engine.types import SottovoceError
from models.noise_vq import VqConfig, VqWeights
from models.train_words import (
    IGNORED,
    KIND_TOKENS,
    Batch,
    Losses,
    Training,
    Words,
    losses,
    stretch_of,
)
from models.training import WARMUP_STEPS, rate_at
from models.word_pairs import Heard

WIDTH, VOCABULARY, END = 16, 40, 39
STARTS = {"en": [1, 2, 3], "ru": [1, 4, 3]}
CONFIG = VqConfig(width=WIDTH, latent=8, codes=16, heads=2, sampling="mean", classes=3)


@pytest.fixture
def whisper() -> Whisper:
    """Of random weights; its own constructor leaves the positions as they lie in memory."""
    torch.manual_seed(5)
    model = Whisper(ModelDimensions(8, 60, WIDTH, 2, 1, VOCABULARY, 32, WIDTH, 2, 1)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.1)
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=0.5)
    return model


def hash_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def pairs(count: int = 24) -> list[Heard]:
    """Each of four sentences, of four frames a sound, in each of three noises, at lengths of their own."""
    random = np.random.default_rng(1)
    sounds = random.standard_normal((6, WIDTH))
    said = [sounds[random.integers(6, size=5 + n)].repeat(4, axis=0) for n in range(4)]
    noises = random.standard_normal((3, WIDTH))
    found = []
    for number in range(count):
        words, kind = number % 4, number % 3
        clean = said[words].astype(np.float16)
        noisy = (said[words] + 0.4 * noises[kind]).astype(np.float16)
        tokens = np.array([10 + words, 20 + words, END][: 3 if words else 2] + ([] if words else [END]), np.int32)
        found.append(Heard(clean, noisy, tokens, kind, 5.0, "ru" if words == 3 else "en"))
    return found


def test_a_batch_is_filled_up_and_only_words_count(whisper: Whisper) -> None:
    some = pairs(4)
    batch = Words(whisper, STARTS).batch(some)
    assert batch.clean.shape == batch.noisy.shape == (4, 32, WIDTH)
    assert batch.there.sum(1).tolist() == [20, 24, 28, 32]
    assert not batch.noisy[0, 20:].any()
    for row, pair in enumerate(some):
        told = [token for token in batch.targets[row].tolist() if token != IGNORED]
        assert told == pair.tokens.tolist()
        given = batch.tokens[row, : len(STARTS["en"])].tolist()
        assert given == STARTS[pair.language]
    assert batch.targets[0, :2].tolist() == [IGNORED, IGNORED]


def test_every_loss_moves_the_quantiser_and_none_moves_whisper(whisper: Whisper, tmp_path: Path) -> None:
    before = hash_of(whisper)
    training = Training(CONFIG, Words(whisper, STARTS), pairs(), pairs(6), tmp_path)
    first = training.model.encoder.project.weight.clone()
    for _ in range(5):
        training.one_step(1.0)
    assert not torch.equal(training.model.encoder.project.weight, first)
    assert hash_of(whisper) == before
    assert not any(parameter.requires_grad for parameter in whisper.parameters())


def test_the_sum_has_the_weights_of_the_paper() -> None:
    found = Losses(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0), torch.tensor(8.0), 0.5)
    assert found.total(VqWeights(), told=0.75).item() == pytest.approx(1.0 + 1.0 + 2.0 + 0.25 * 8.0)


def test_a_handful_of_pairs_is_learned(whisper: Whisper, tmp_path: Path) -> None:
    torch.manual_seed(2)
    some = pairs(12)
    training = Training(CONFIG, Words(whisper, STARTS), some, some, tmp_path)
    before = training.judge()
    for _ in range(150):
        training.one_step(1.0)
    after = training.judge()
    assert after["words"] < before["words"] - 0.5  # as far as so random a decoder can be led
    assert after["beta"] < 0.8 * before["beta"]
    assert after["codes"] > 0.2


def test_a_run_goes_on_from_where_it_was(whisper: Whisper, tmp_path: Path) -> None:
    training = Training(CONFIG, Words(whisper, STARTS), pairs(), pairs(6), tmp_path)
    training.one_step(1.0)
    training.report(1.0)
    again = Training(CONFIG, Words(whisper, STARTS), pairs(), pairs(6), tmp_path)
    assert again.resume()
    assert again.step == 1
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    other = Training(VqConfig(width=WIDTH, latent=4, codes=8, heads=2, classes=3), again.words, [], [], tmp_path)
    with pytest.raises(SottovoceError, match="--fresh"):
        other.resume()


def test_nothing_saved_is_nothing_to_go_on_from(whisper: Whisper, tmp_path: Path) -> None:
    assert not Training(CONFIG, Words(whisper, STARTS), pairs(), pairs(6), tmp_path).resume()


def test_the_rate_rises_and_falls() -> None:
    assert rate_at(0, 0.0) == pytest.approx(1 / WARMUP_STEPS)
    assert rate_at(1000, 0.0) == pytest.approx(1.0)
    assert rate_at(1000, 1.0) == pytest.approx(0.02)


def test_frames_that_are_not_there_do_not_count(whisper: Whisper, tmp_path: Path) -> None:
    words = Words(whisper, STARTS)
    training = Training(CONFIG, words, pairs(), pairs(6), tmp_path)
    training.model.eval()
    batch = words.batch(pairs(2))
    noisy = batch.noisy.clone()
    noisy[~batch.there] = 5.0
    other = Batch(batch.clean, noisy, batch.there, batch.tokens, batch.targets, batch.kinds)
    with torch.no_grad():
        one, two = losses(training.model, words, batch), losses(training.model, words, other)
    assert float(one.beta) == float(two.beta)
    assert float(one.words) == float(two.words)


def test_the_kind_is_told_from_two_seconds_that_are_there() -> None:
    there = torch.zeros(3, 2 * KIND_TOKENS, dtype=torch.bool)
    for row, count in enumerate((2 * KIND_TOKENS, KIND_TOKENS + 5, 7)):
        there[row, :count] = True
    last = stretch_of(there, None)
    assert last.sum(1).tolist() == [KIND_TOKENS, KIND_TOKENS, 7]
    assert last[0, -1]
    assert not last[1, KIND_TOKENS + 5 :].any()
    drawn = [stretch_of(there, np.random.default_rng(seed)) for seed in range(20)]
    assert all(mask.sum(1).tolist() == [KIND_TOKENS, KIND_TOKENS, 7] for mask in drawn)
    assert len({int(mask[0].int().argmax()) for mask in drawn}) > 5
    assert all(not (mask & ~there).any() for mask in drawn)
