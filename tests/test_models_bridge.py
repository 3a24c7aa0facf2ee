"""The bridge from voice tokens into Whisper: streamed equals whole, the future is not heard, the graph says so too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from whisper.audio import log_mel_spectrogram

from engine.artefacts import Session
from engine.token_words import OWN, TokenBridge
from engine.types import ArtefactError, SottovoceError
from models import export_bridge
from models.bridge import PLACES, Bridge, BridgeConfig, trained_size
from models.checkpoint import Bundle
from models.config import ModelConfig
from models.export import codec_id
from models.export_bridge import load_shipped, snap, write
from models.token_pairs import TokenPair

CODEC = ModelConfig(codebook=32)
CONFIG = BridgeConfig(width=16, inner=24, hidden=40, kernel=3, dilations=(1, 2), lookahead=3, own=2, rank=3)
FRAMES = 60


def filled(bundle: Bundle) -> Bundle:
    """Codebooks that say something."""
    generator = torch.Generator().manual_seed(1)
    for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
        for band in range(bundle.config.bands):
            book = quantizer.books(band)
            book.copy_(torch.randn(book.shape, generator=generator))
        quantizer.snap()
    return bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return filled(Bundle.new(CODEC))


def as_trained(config: BridgeConfig, bundle: Bundle, seed: int, by: float = 0.05) -> Bridge:
    """A bridge no two weights of which are the same, as after a training."""
    torch.manual_seed(seed)
    made = Bridge(config, CODEC).eval()
    made.take_books(bundle.codec.encoder.speech)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(by * torch.randn(weight.shape))
    snap(made)
    return made


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Bridge:
    return as_trained(CONFIG, bundle, seed=0)


def some_codes(count: int = FRAMES, seed: int = 2) -> torch.Tensor:
    """[T, K of all stages] as the codec gives them."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, CODEC.gain_levels, (count, CODEC.bands))
    shapes = random.integers(0, CODEC.codebook, (count, CODEC.bands * CODEC.speech_stages))
    return torch.from_numpy(np.concatenate([levels, shapes], axis=1))


def pair(seed: int, count: int = FRAMES) -> TokenPair:
    frames = np.random.default_rng(seed).standard_normal((count, CONFIG.width)).astype(np.float16)
    codes = some_codes(count, seed).numpy().astype(np.int16)
    return TokenPair(codes, frames, frames, np.array([5, 39], np.int32), "en", 5.0)


@torch.no_grad()
def test_streamed_equals_whole_however_it_is_cut(model: Bridge) -> None:
    codes = some_codes()[None, :, : CONFIG.rows(CODEC)]
    whole = model.whole(codes)[0]
    after = model.blank().expand(1, CONFIG.lookahead, -1)
    stream = torch.cat([codes, after], dim=1)
    for sizes in ([1], [2, 5], [63]):
        state, parts, at = model.initial_state(1), [], 0
        while at < stream.shape[1]:
            size = sizes[len(parts) % len(sizes)]
            frames, state = model(stream[:, at : at + size], state)
            parts.append(frames[0])
            at += size
        streamed = torch.cat(parts)[CONFIG.lookahead :]
        torch.testing.assert_close(streamed, whole, atol=5e-4, rtol=0.0)  # a logarithm is in between


@torch.no_grad()
def test_a_frame_hears_as_far_ahead_as_it_says_and_no_further(model: Bridge) -> None:
    codes = some_codes()[None, :, : CONFIG.rows(CODEC)]
    other, at = codes.clone(), 30
    other[:, at:] = some_codes(seed=9)[None, at:, : CONFIG.rows(CODEC)]
    changed = (model.whole(codes) - model.whole(other)).abs().amax(2)[0] > 1e-6
    assert int(changed.int().argmax()) == at - CONFIG.lookahead
    assert not changed[: at - CONFIG.lookahead].any()


@torch.no_grad()
def test_what_is_told_is_the_mel_of_the_sound_that_tokens_spell() -> None:
    """As Whisper makes it of that sound, two frames a token, each ending with what the token completes."""
    bundle = filled(Bundle.new(CODEC))
    config = replace(CONFIG, stages=CODEC.speech_stages)
    model = Bridge(config, CODEC)
    model.take_books(bundle.codec.encoder.speech)
    codes = some_codes()[None]
    told, _ = model.features(codes, model.initial_state(1))
    assert told.shape == (1, FRAMES, CODEC.bands + 160)
    spelled = bundle.codec.encoder.speech.decode(codes[0])[None]
    state = bundle.codec.decoder.initial_state(1)
    sound = bundle.codec.decoder.synthesise(spelled, torch.zeros_like(spelled), state)[0][0]
    mel = log_mel_spectrogram(torch.nn.functional.pad(sound, (40, 0)))  # a frame of it ends where one of ours does
    loudest = float(mel.max()) * 4.0 - 4.0
    ours = told[0, :, CODEC.bands :].reshape(2 * FRAMES, 80) * 2.0 - 4.0
    theirs = mel.T[: 2 * FRAMES] * 4.0 - 4.0
    heard = theirs > loudest - 6.0  # what is far below the loudest is told by neither
    torch.testing.assert_close(ours[2:-2][heard[2:-2]], theirs[2:-2][heard[2:-2]], atol=0.05, rtol=0.0)
    silent, _ = model.features(model.blank().expand(1, 3, -1), model.initial_state(1))
    torch.testing.assert_close(silent, torch.full_like(silent, -2.0))


def test_the_shipped_shape_has_the_size_it_may_have() -> None:
    model = Bridge(BridgeConfig(), ModelConfig())
    assert trained_size(model) - trained_size(model.own) < 600_000
    assert trained_size(model.own) < 1_000_000


@pytest.fixture(scope="module")
def graph(model: Bridge, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "bridge.onnx"
    write(model, bundle, [pair(1), pair(2, 17)], path)
    return path


@torch.no_grad()
def test_the_graph_says_what_torch_says(graph: Path, model: Bridge, bundle: Bundle) -> None:
    bridge = TokenBridge(graph)
    assert (bridge.rows, bridge.lookahead, bridge.width) == (CONFIG.rows(CODEC), 3, 16)
    assert bridge.codec_id == codec_id(bundle)
    assert bridge.blank.tolist() == model.blank().tolist()
    np.testing.assert_allclose(bridge.places, model.places(torch.arange(PLACES)).numpy(), atol=1e-4)
    assert set(bridge.own) == {name for name, _ in model.own.named_parameters()}
    for name, weight in model.own.named_parameters():
        np.testing.assert_array_equal(bridge.own[name], weight.numpy(), err_msg=name)
    codes = some_codes(seed=4)[:, : bridge.rows]
    frames, state = bridge.run(codes[:41].numpy(), bridge.first_state())
    rest, _ = bridge.run(codes[41:].numpy(), state)
    here, _ = model(codes[None], model.initial_state(1))
    np.testing.assert_allclose(np.concatenate([frames, rest]), here[0].numpy(), atol=1e-3)


def test_a_graph_that_says_something_else_is_not_written(
    model: Bridge, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_bridge, "TOLERANCE", 0.0)
    with pytest.raises(SottovoceError, match="not exported"):
        write(model, bundle, [pair(1)], tmp_path / "bridge.onnx")


def test_a_bridge_that_was_never_trained_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing is added to any block yet, and training could not go on from such a graph."""
    fresh = Bridge(CONFIG, CODEC).eval()
    fresh.take_books(bundle.codec.encoder.speech)
    with pytest.raises(SottovoceError, match="train the bridge first"):
        write(fresh, bundle, [pair(1)], tmp_path / "bridge.onnx")


@torch.no_grad()
def test_training_goes_on_from_the_graph(graph: Path, model: Bridge) -> None:
    again = load_shipped(graph).eval()
    assert again.config == CONFIG
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-6, rtol=0.0)


def test_large_weights_are_stored_in_eight_bits(bundle: Bundle, tmp_path: Path) -> None:
    """At the shipped shape: what is not in eight bits is small."""
    model = as_trained(BridgeConfig(), bundle, seed=0, by=0.1)
    wide = np.zeros((20, 512), np.float16)
    path, codes = tmp_path / "bridge.onnx", some_codes(20).numpy().astype(np.int16)
    write(model, bundle, [TokenPair(codes, wide, wide, np.array([1]), "en", 5.0)], path)
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer]
    eight = sum(values.nbytes for values in stored if values.dtype == np.int8)
    assert eight > 0.9 * (trained_size(model) - 4 * 11 * 256)
    assert sum(values.nbytes for values in stored) < 2_350_000


def test_what_is_no_bridge_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="missing"):
        TokenBridge(tmp_path / "none.onnx")
    other = onnx.load(str(graph))
    for entry in other.metadata_props:
        entry.value = "residue" if entry.key == "role" else entry.value
    onnx.save(other, str(tmp_path / "other.onnx"))
    with pytest.raises(ArtefactError, match="no bridge"):
        TokenBridge(tmp_path / "other.onnx")
    assert Session(tmp_path / "other.onnx").metadata["role"] == "residue"
    without = onnx.load(str(graph))
    for output in [output for output in without.graph.output if output.name.startswith(OWN)]:
        without.graph.output.remove(output)
    onnx.save(without, str(tmp_path / "without.onnx"))
    with pytest.raises(ArtefactError, match="no blocks of its own"):
        TokenBridge(tmp_path / "without.onnx")
    with pytest.raises(SottovoceError, match="not of these networks"):
        load_shipped(tmp_path / "none.onnx")
