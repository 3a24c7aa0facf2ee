"""The refiner's second opinion: streamed equals whole, on time, and its ancestor's weights land where they belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from models import ancestors
from models.config import ModelConfig
from models.dtln import FEATURES, UNITS, Dtln, piece_window
from models.refiner import Refiner
from models.train_opinion import opinion_loss, opinion_of, trust_alone
from models.transforms import dft_basis

Array = NDArray[np.float32]
CONFIG = ModelConfig()
BINS = CONFIG.frame // 2 + 1


@pytest.fixture
def network() -> Dtln:
    torch.manual_seed(3)
    network = Dtln(CONFIG)
    torch.nn.init.normal_(network.decode.weight, std=0.05)
    return network


def whole(network: Dtln, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(x, *dft_basis(CONFIG.frame), network.initial_state(len(x)))[0]


def test_hop_by_hop_is_the_same_as_all_at_once(network: Dtln) -> None:
    x = torch.randn(2, 12 * CONFIG.hop) * 0.1
    state, parts = network.initial_state(2), []
    with torch.no_grad():
        for part in x.split(CONFIG.hop, dim=1):
            voice, state = network(part, *dft_basis(CONFIG.frame), state)
            parts.append(voice)
    assert torch.allclose(torch.cat(parts, dim=1), whole(network, x), atol=1e-6)


def test_what_is_not_heard_yet_changes_nothing(network: Dtln) -> None:
    x = torch.randn(1, 12 * CONFIG.hop) * 0.1
    other = x.clone()
    other[:, 8 * CONFIG.hop :] = 0.5
    kept = slice(0, 8 * CONFIG.hop)
    assert torch.equal(whole(network, x)[:, kept], whole(network, other)[:, kept])


def test_frames_that_are_the_sound_itself_give_it_back_after_the_decoders_lag(network: Dtln) -> None:
    """With open masks, and a learned transform that is the DFT, nothing is left but the windows."""
    x = torch.randn(1, 12 * CONFIG.hop) * 0.1
    frame = CONFIG.frame
    with torch.no_grad():
        for mask in (network.first_mask, network.second_mask):
            mask.weight.zero_()
            mask.bias.fill_(60.0)
        # 256 features cannot hold a frame of noise: let them hold the newest 400 samples' even half, which x then is
        spectrum_to_sound = torch.linalg.pinv(torch.cat(dft_basis(frame), dim=1))[:, frame - network.span :]
        even = torch.zeros(FEATURES, network.span)
        even[torch.arange(network.span // 2), torch.arange(0, network.span, 2)] = 1.0
        network.encode.weight.copy_(even @ spectrum_to_sound.T)
        network.decode.weight.copy_(even.T)
    x[:, 1::2] = 0.0
    lag = CONFIG.token_lag
    assert torch.allclose(whole(network, x)[:, lag:], x[:, :-lag], atol=1e-4)


def test_pieces_add_up_to_the_whole() -> None:
    window = piece_window(CONFIG.token_lag + CONFIG.step, CONFIG.step)
    padded = torch.nn.functional.pad(window, (0, -len(window) % CONFIG.step))
    assert torch.allclose(padded.unflatten(0, (-1, CONFIG.step)).sum(0), torch.ones(CONFIG.step), atol=1e-6)
    assert float(window.min()) > 0.0


def published(folder: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Two graphs with the names and shapes of DTLN's, random weights inside, written to `folder`."""
    random = np.random.default_rng(5)

    def some(*shape: int) -> Array:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    first = {"dense_2/kernel:0": some(UNITS, BINS), "dense_2/bias:0": some(BINS)}
    resource = "/ReadVariableOp/resource:0"
    second = {
        "model_2/dense_3/Tensordot/Reshape_1:0": some(UNITS, FEATURES),
        f"model_2/dense_3/BiasAdd{resource}": some(FEATURES),
        f"model_2/instant_layer_normalization_1/mul{resource}": some(FEATURES),
        f"model_2/instant_layer_normalization_1/add_1{resource}": some(FEATURES),
        "conv1d_2/kernel:0": some(FEATURES, CONFIG.frame, 1),
        "conv1d_3/kernel:0": some(CONFIG.frame, FEATURES, 1),
    }
    for layer, (inputs, features) in enumerate(((BINS, FEATURES), (UNITS, UNITS))):
        first[f"lstm_{4 + layer}_W"] = some(1, 4 * UNITS, inputs)
        first[f"lstm_{4 + layer}_R"] = some(1, 4 * UNITS, UNITS)
        first[f"lstm_{4 + layer}_B"] = some(1, 8 * UNITS)
        second[f"model_2/lstm_{6 + layer}/MatMul{resource}"] = some(features, 4 * UNITS)
        second[f"model_2/lstm_{6 + layer}/MatMul_1{resource}"] = some(UNITS, 4 * UNITS)
        second[f"model_2/lstm_{6 + layer}/BiasAdd{resource}"] = some(4 * UNITS)
    for number, weights in enumerate((first, second), start=1):
        tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph([], "part", [], [], tensors)
        onnx.save(helper.make_model(graph), str(folder / f"model_{number}.onnx"))
    return first, second


def sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float32)


def recurrent(rows: Array, weight_in: Array, weight_back: Array, bias: Array, order: str) -> Array:
    """An LSTM over [T, N] with weights [N, 4 * units] whose gates come in `order`."""
    hidden = cell = np.zeros(UNITS, np.float32)
    outputs = []
    for row in rows:
        gates = dict(zip(order, np.split(row @ weight_in + hidden @ weight_back + bias, 4), strict=True))
        cell = sigmoid(gates["f"]) * cell + sigmoid(gates["i"]) * np.tanh(gates["c"])
        hidden = sigmoid(gates["o"]) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs)


def as_published(frames: Array, first: dict[str, Array], second: dict[str, Array]) -> Array:
    """What DTLN as it was published makes of frames [T, 512], before they are added up."""
    spectrum = np.fft.rfft(frames)
    hidden = np.abs(spectrum).astype(np.float32)
    for layer in range(2):
        bias = first[f"lstm_{4 + layer}_B"][0]
        weights = first[f"lstm_{4 + layer}_W"][0].T, first[f"lstm_{4 + layer}_R"][0].T
        hidden = recurrent(hidden, *weights, bias[: 4 * UNITS] + bias[4 * UNITS :], "iofc")
    mask = sigmoid(hidden @ first["dense_2/kernel:0"] + first["dense_2/bias:0"])
    given = {name.split("/ReadVariableOp")[0].removeprefix("model_2/"): value for name, value in second.items()}
    features = np.fft.irfft(spectrum * mask) @ given["conv1d_2/kernel:0"][:, :, 0].T
    centred = features - features.mean(1, keepdims=True)
    hidden = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + 1e-7)
    hidden = hidden * given["instant_layer_normalization_1/mul"] + given["instant_layer_normalization_1/add_1"]
    for layer in range(2):
        name = f"lstm_{6 + layer}"
        parts = given[f"{name}/MatMul"], given[f"{name}/MatMul_1"], given[f"{name}/BiasAdd"]
        hidden = recurrent(hidden.astype(np.float32), *parts, "ifco")
    mask = sigmoid(hidden @ given["dense_3/Tensordot/Reshape_1:0"] + given["dense_3/BiasAdd"])
    return np.asarray((features * mask) @ given["conv1d_3/kernel:0"][:, :, 0].T, np.float32)


def test_with_its_ancestors_weights_it_hears_as_that_does(
    network: Dtln, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = published(tmp_path)
    monkeypatch.setattr(ancestors, "fetch", lambda *_: tmp_path)
    ancestors.load_opinion(network)
    x = torch.randn(1, CONFIG.hop) * 0.1
    with torch.no_grad():
        _, state = network(x, *dft_basis(CONFIG.frame), network.initial_state(1))
    silence = np.zeros(CONFIG.frame - CONFIG.step, np.float32)
    heard = np.concatenate([silence, x[0].numpy()])
    frames = np.stack([heard[: CONFIG.frame], heard[CONFIG.step : CONFIG.step + CONFIG.frame]])
    expected = 4 * as_published(frames, *theirs)[:, -network.span :] * network.window.numpy()
    found = state["pieces"][0, -2:, : network.span].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_training_alone_changes_nothing_but_the_opinion() -> None:
    torch.manual_seed(1)
    refiner = Refiner(CONFIG)
    torch.nn.init.normal_(refiner.opinion.decode.weight, std=0.05)
    voice = torch.randn(2, 10 * CONFIG.hop) * 0.1
    mixture = voice + torch.randn(2, 10 * CONFIG.hop) * 0.1
    before = opinion_loss(refiner, mixture, voice).item()
    optimizer = torch.optim.SGD(refiner.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        opinion_loss(refiner, mixture, voice).backward()
        optimizer.step()
    assert all(p.grad is None for name, p in refiner.named_parameters() if not name.startswith("opinion."))
    assert opinion_loss(refiner, mixture, voice).item() < before
    assert opinion_of(refiner, mixture).shape == mixture.shape


def test_learning_trust_changes_nothing_but_trust() -> None:
    torch.manual_seed(2)
    refiner = Refiner(replace(CONFIG, refiner_units=16))
    torch.nn.init.normal_(refiner.opinion.decode.weight, std=0.05)
    before = {name: parameter.detach().clone() for name, parameter in refiner.named_parameters()}
    optimizer = torch.optim.AdamW(trust_alone(refiner), lr=0.1, weight_decay=0.0)
    voice, noise = torch.randn(2, 2, 10 * CONFIG.hop) * 0.1
    for _ in range(2):
        optimizer.zero_grad()
        heard, _, _ = refiner(voice + noise, voice, noise, refiner.initial_state(2))
        heard.square().mean().backward()
        optimizer.step()
    changed = {name for name, parameter in refiner.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"output.weight", "offset"}
    bins = CONFIG.frame // 2 + 1
    assert torch.equal(refiner.output.weight[: 2 * bins], before["output.weight"][: 2 * bins])
    assert torch.equal(refiner.offset[:2], before["offset"][:2])
