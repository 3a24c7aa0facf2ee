"""The torch side: streaming, causality, perfect reconstruction, quantiser, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import Bundle, load_bundle, save_bundle, snapped
from models.codec import Codec
from models.config import ModelConfig, config_from_dict
from models.front import Grouped
from models.quantize import GRID, BandQuantizer, fit
from models.refiner import Refiner

SMALL = replace(ModelConfig(), codebook=16, speech_stages=3, background_stages=2)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A small codec with fitted codebooks and a refiner that is not the identity."""
    torch.manual_seed(0)
    bundle = Bundle.new(SMALL)
    frames = torch.randn(600, SMALL.hop) * torch.rand(600, 1) * 0.1
    for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
        fit(quantizer, frames, iterations=2)
    torch.nn.init.normal_(bundle.refiner.output.weight, std=0.1)
    for module in bundle.codec.encoder.modules():
        if isinstance(module, Grouped):  # zeros would keep the GRUs from hearing anything
            torch.nn.init.normal_(module.weight, std=0.1)
    return bundle


def run(bundle: Bundle, x: Tensor, chunks: list[int]) -> list[Tensor]:
    """The whole system over [1, N] in chunks of so many hops: codes, decoded and refined sound."""
    codec, refiner = bundle.codec, bundle.refiner
    states = [part.initial_state(1) for part in (codec.encoder, codec.decoder, refiner)]
    rows: list[list[Tensor]] = []
    at = 0
    with torch.no_grad():
        for count in chunks:
            part = x[:, at : at + count * SMALL.hop]
            at += count * SMALL.hop
            codes_s, codes_b, states[0] = codec.encoder(part, states[0])
            speech, rest, states[1] = codec.decoder(codes_s, codes_b, torch.ones(2), states[1])
            voice, background, states[2] = refiner(part, speech, rest, states[2])
            rows.append([codes_s, codes_b, speech, rest, voice, background])
    return [torch.cat(parts, dim=1) for parts in zip(*rows, strict=True)]


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [3, 1, 8]])
def test_streamed_equals_whole(bundle: Bundle, chunks: list[int]) -> None:
    x = torch.randn(1, 12 * SMALL.hop) * 0.1
    for whole, streamed in zip(run(bundle, x, [12]), run(bundle, x, chunks), strict=True):
        assert torch.allclose(whole.float(), streamed.float(), atol=1e-5)


def test_future_sound_changes_nothing_past(bundle: Bundle) -> None:
    x = torch.randn(1, 10 * SMALL.hop) * 0.1
    other = x.clone()
    other[:, 6 * SMALL.hop :] = torch.randn(1, 4 * SMALL.hop)
    for a, b in zip(run(bundle, x, [10]), run(bundle, other, [10]), strict=True):
        kept = a.shape[1] * 6 // 10
        assert torch.equal(a[:, :kept], b[:, :kept])
        assert not torch.equal(a[:, kept:], b[:, kept:])


def test_unquantised_streams_add_up_to_the_mixture() -> None:
    codec = Codec(SMALL)
    x = torch.randn(2, 20 * SMALL.hop) * 0.1
    with torch.no_grad():
        speech, background, _ = codec.encoder.project(x, codec.encoder.initial_state(2))
        voice, rest, _ = codec.decoder.synthesise(speech, background, codec.decoder.initial_state(2))
    lag = SMALL.token_lag
    assert torch.allclose((voice + rest)[:, lag:], x[:, :-lag], atol=1e-6)


def test_refined_streams_add_up_to_the_mixture_at_the_declared_lag(bundle: Bundle) -> None:
    x = torch.randn(1, 20 * SMALL.hop) * 0.1
    *_, voice, background = run(bundle, x, [20])
    lag = SMALL.refined_lag
    assert torch.allclose((voice + background)[:, lag:], x[:, :-lag], atol=1e-6)


def test_an_open_gain_gives_the_voice_back_whole() -> None:
    refiner = Refiner(SMALL)
    with torch.no_grad():  # the gain wide open, nothing of the decoded voice, no second opinion
        refiner.offset.copy_(torch.tensor([[60.0], [-60.0], [-60.0]]).expand_as(refiner.offset))
    x = torch.randn(1, 20 * SMALL.hop) * 0.1
    with torch.no_grad():
        voice, background, _ = refiner(x, x, x, refiner.initial_state(1))
    assert torch.allclose(voice[:, SMALL.refined_lag :], x[:, : -SMALL.refined_lag], atol=1e-5)
    assert float(background[:, SMALL.refined_lag :].abs().max()) < 1e-5


def test_the_refiner_starts_by_following_the_tokens() -> None:
    refiner = Refiner(SMALL)
    voice, noise = torch.randn(2, 1, 40 * SMALL.hop) * 0.1
    with torch.no_grad():
        heard, _, _ = refiner(voice + noise, voice, noise * 1e-3, refiner.initial_state(1))
        muted, _, _ = refiner(voice + noise, voice * 1e-3, noise, refiner.initial_state(1))
    assert float(muted[:, 640:].square().mean() / heard[:, 640:].square().mean()) < 1e-3


def test_quantiser_gives_silence_for_code_zero_and_less_error_for_more_stages(bundle: Bundle) -> None:
    quantizer = bundle.codec.encoder.speech
    frames = torch.randn(200, SMALL.hop) * 0.05
    codes = quantizer.encode(frames)
    assert codes.shape == (200, SMALL.bands * (1 + SMALL.speech_stages))
    errors = []
    for kept in range(SMALL.speech_stages + 1):
        part = codes.clone()
        part[:, SMALL.bands * (1 + kept) :] = -1
        errors.append(float((quantizer.decode(part) - frames).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    blank = codes.clone()
    blank[:, : SMALL.bands] = 0
    assert float(quantizer.decode(blank).abs().max()) == 0.0


def test_gain_codes_are_within_half_a_step(bundle: Bundle) -> None:
    quantizer = bundle.codec.encoder.speech
    rms = 10 ** (torch.linspace(-80, -1, 200) / 20)
    back = quantizer.gain_table[quantizer.gain_codes(rms)]
    assert float((20 * torch.log10(back / rms)).abs().max()) <= SMALL.gain_step_db / 2 + 1e-3
    assert int(quantizer.gain_codes(torch.zeros(1))) == 0


def test_background_keeps_its_energy(bundle: Bundle) -> None:
    quantizer: BandQuantizer = bundle.codec.encoder.background
    frames = torch.randn(300, SMALL.hop) * 0.05
    decoded = quantizer.decode(quantizer.encode(frames))
    for original, coded in zip(quantizer.split(frames), quantizer.split(decoded), strict=True):
        assert abs(10 * float(torch.log10(coded.square().mean() / original.square().mean()))) < 0.6


def test_checkpoint_round_trip(bundle: Bundle, tmp_path: Path) -> None:
    bundle.snap()
    bundle.step = 7
    save_bundle(bundle, tmp_path / "small.npz")
    again = load_bundle(tmp_path / "small.npz")
    assert again.step == 7
    assert again.config == SMALL
    for name, tensor in bundle.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    book = again.codec.encoder.speech.books(0)
    assert torch.equal(book * GRID, (book * GRID).round())


def test_snapping_twice_changes_nothing() -> None:
    weights = torch.randn(256, 96) * torch.logspace(-4, 1, 256)[:, None]
    once = snapped(weights)
    assert torch.equal(snapped(once), once)
    assert torch.equal(once.half().float(), once)  # so that a checkpoint in half precision holds it
    assert float(((once - weights) / weights.abs().amax(1, keepdim=True)).abs().max()) < 1 / 120


def test_checkpoint_of_other_networks_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "refiner.slope"}
    np.savez(tmp_path / "cut.npz", **kept)
    with pytest.raises(ValueError, match=r"refiner\.slope"):
        load_bundle(tmp_path / "cut.npz")


@pytest.mark.parametrize(("key", "value"), [("hops", 3), ("hop", "320"), ("overlap", 1.5)])
def test_settings_are_checked(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        config_from_dict({**ModelConfig().to_dict(), key: value})
