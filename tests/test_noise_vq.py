"""The quantiser inside Whisper: shapes, padding, codes that follow, gradients that pass, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.noise_vq import (
    NoiseVq,
    Sampling,
    VqConfig,
    VqWeights,
    alpha_loss,
    beta_loss,
    downsampled,
    noise_weight,
)

CONFIG = VqConfig(width=32, latent=8, codes=16, heads=2, classes=3)
SAMPLINGS: tuple[Sampling, ...] = ("mean", "conv", "transformer")


def batch(frames: int = 21, said: int = 15) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of two windows, and that the second is shorter."""
    there = torch.ones(2, frames, dtype=torch.bool)
    there[1, said:] = False
    return torch.randn(2, frames, CONFIG.width), there


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frames_come_back_in_number_and_tokens_are_half_as_many(sampling: Sampling) -> None:
    torch.manual_seed(1)
    model, (x, there) = NoiseVq(replace(CONFIG, sampling=sampling)), batch()
    decoded, quantised, logits = model(x, there)
    assert decoded.shape == x.shape
    assert quantised.indices.shape == (2, 11)
    assert logits.shape == (2, CONFIG.classes)
    torch.testing.assert_close(quantised.z.norm(dim=2), torch.ones(2, 11))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_is_not_there_has_the_padding_code_and_changes_nothing(sampling: Sampling) -> None:
    torch.manual_seed(1)
    model, (x, there) = NoiseVq(replace(CONFIG, sampling=sampling)).eval(), batch()
    other = x.clone()
    other[1, 15:] = 7.0
    with torch.no_grad():
        decoded, quantised, logits = model(x, there)
        again, _, other_logits = model(other, there)
    assert (quantised.indices[1, 8:] == CONFIG.codes).all()
    assert not quantised.residue[1, 8:].any()
    assert torch.equal(decoded, again)
    assert torch.equal(logits, other_logits)


def test_a_pair_of_frames_is_there_when_one_of_them_is() -> None:
    there = torch.tensor([[True, True, True, False, False]])
    assert downsampled(there).tolist() == [[True, True, False]]


def test_codes_and_residue_add_up_and_are_looked_up_again() -> None:
    torch.manual_seed(1)
    model, (x, there) = NoiseVq(CONFIG).eval(), batch()
    with torch.no_grad():
        quantised = model.quantise(x, there)
        looked_up = model.codebook.decode(quantised.indices)
    said = downsampled(there)
    torch.testing.assert_close((quantised.codes + quantised.residue)[said], quantised.z[said])
    torch.testing.assert_close(looked_up, quantised.codes)


def test_a_codebook_follows_what_it_stands_for_and_uses_all_its_codes() -> None:
    torch.manual_seed(1)
    book, there = NoiseVq(CONFIG).codebook.train(), torch.ones(1, 400, dtype=torch.bool)
    groups = torch.nn.functional.normalize(torch.randn(8, CONFIG.latent), dim=1)

    def z() -> torch.Tensor:
        near = groups[torch.randint(8, (400,))] + 0.02 * torch.randn(400, CONFIG.latent)
        return torch.nn.functional.normalize(near, dim=1)[None]

    before = book(z(), there).residue.square().sum(2).mean()
    for _ in range(60):
        book(z(), there)
    after = book.eval()(z(), there)
    assert after.residue.square().sum(2).mean() < 0.05 * before
    torch.testing.assert_close(book.vectors.norm(dim=1), torch.ones(CONFIG.codes))
    assert (book.uses > 0).all()


def test_codes_stand_still_where_nothing_is_learned() -> None:
    model, (x, there) = NoiseVq(CONFIG).eval(), batch()
    before = model.codebook.vectors.clone()
    model.quantise(x, there)
    assert torch.equal(model.codebook.vectors, before)


def test_gradients_of_words_and_of_noise_reach_the_latent_encoder() -> None:
    model, (x, there) = NoiseVq(CONFIG), batch()
    weight = model.encoder.project.weight
    for part in (0, 2):
        model.zero_grad()
        model(x, there)[part].square().sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_the_classifier_is_given_less_weight_as_it_learns() -> None:
    weights = VqWeights(noise=2.0)
    assert [noise_weight(weights, accuracy) for accuracy in (0.0, 0.75, 1.0)] == [2.0, 0.5, 0.0]


def test_one_batch_is_learned_by_heart() -> None:
    """Noise is added in a plane of its own: codes forget it, the residue tells it, and frames come back clean."""
    torch.manual_seed(3)
    model = NoiseVq(replace(CONFIG, codes=12, sampling="mean")).train()
    there = torch.ones(6, 20, dtype=torch.bool)
    words = torch.randn(8, CONFIG.width)
    clean = words[torch.randint(8, (6, 10))].repeat_interleave(2, dim=1)
    kinds = torch.tensor([0, 1, 2, 0, 1, 2])
    noisy = clean + 0.5 * torch.randn(3, CONFIG.width)[kinds][:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for _ in range(500):
        decoded, quantised, logits = model(noisy, there)
        target = model.encoder(clean, there)
        loss = 0.5 * alpha_loss(target, quantised, downsampled(there))
        loss = loss + 0.5 * beta_loss(clean, decoded, there) / CONFIG.width
        loss = loss + 0.05 * torch.nn.functional.cross_entropy(logits, kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        decoded, quantised, logits = model(noisy, there)
    assert beta_loss(clean, decoded, there) < 0.1 * beta_loss(clean, torch.zeros_like(clean), there)
    assert (logits.argmax(1) == kinds).all()
