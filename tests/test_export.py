"""The exporter's gate: what is written computes what torch computes, and what does not is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import typer
from onnx import TensorProto, helper, numpy_helper

from engine.artefacts import load_onnx
from engine.paths import assets_dir
from models.checkpoint import Bundle, load_bundle, load_shipped, save_bundle
from models.export import OPSET, codec_id, main, pack, write_parts
from models.feed import through_tokens
from models.losses import si_sdr_db
from models.parity import ParityError, check_parity, real_sound
from models.train import refine
from models.transforms import dft_basis, lapped_basis

ASSETS = assets_dir()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    bundle = load_shipped()
    bundle.snap()
    return bundle


def test_shipped_graphs_compute_what_torch_computes(bundle: Bundle) -> None:
    """500 hops of real sound, hop by hop in ONNX Runtime with carried state, against one whole-file pass in torch."""
    paths = {role: ASSETS / f"{role}.onnx" for role in ("encoder", "decoder", "refiner")}
    report = check_parity(bundle, paths)
    assert max(report.decoder, report.refiner) <= 1e-4
    assert report.lag == bundle.config.refined_lag
    assert load_onnx(paths["decoder"]).metadata["codec_id"] == codec_id(bundle)


def test_the_gate_refuses_other_weights(bundle: Bundle, tmp_path: Path) -> None:
    other = load_shipped()
    other.snap()
    with torch.no_grad():
        other.refiner.offset.add_(0.05)
    paths = write_parts(other, tmp_path)
    with pytest.raises(ParityError, match="full scale"):
        check_parity(bundle, paths)


def test_a_refused_export_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ParityError("planted")

    monkeypatch.setattr("models.export.check_parity", refuse)
    shutil.copy(ASSETS / "decoder.onnx", tmp_path)
    save_bundle(load_shipped(), tmp_path / "checkpoint.npz")
    before = sorted((p.name, p.stat().st_size) for p in tmp_path.iterdir())
    with pytest.raises(typer.Exit):
        main(checkpoint=tmp_path / "checkpoint.npz", out=tmp_path)
    assert sorted((p.name, p.stat().st_size) for p in tmp_path.iterdir()) == before


def test_the_shipped_graphs_hold_all_that_was_trained(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "small.npz")
    main(checkpoint=tmp_path / "small.npz", out=tmp_path)
    again = load_shipped(tmp_path)
    assert (again.step, again.ancestors, again.data) == (bundle.step, bundle.ancestors, bundle.data)
    kept = load_bundle(tmp_path / "small.npz").tensors()
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, kept[name]), name


def test_digital_silence_breaks_nothing() -> None:
    """A muted microphone for 20 s, then sound: no state may have become a NaN."""
    encoder = load_onnx(ASSETS / "encoder.onnx")
    silence, noise = np.zeros((1, 320), np.float32), 0.05 * np.random.default_rng(0).standard_normal((1, 320))
    for _ in range(1000):
        encoder.step(hop=silence)
    hops = [encoder.step(hop=noise.astype(np.float32)) for _ in range(10)]
    assert all(np.isfinite(value).all() for value in encoder._feeds.values())
    assert len({tuple(hop["codes_b"].reshape(-1)) for hop in hops}) > 1


def test_the_refiner_leans_on_the_tokens(bundle: Bundle) -> None:
    """With the tokens of another stretch of sound, what it gives is 3 dB further from the voice, or more."""
    x = torch.from_numpy(real_sound(bundle, None))[:, : 400 * bundle.config.hop]
    other = x.roll(x.shape[1] // 2, 1)
    with torch.no_grad():
        (_, speech, rest), (_, foreign, elsewhere) = through_tokens(bundle, x), through_tokens(bundle, other)
        right, wrong = refine(bundle, x, speech, rest)[0], refine(bundle, x, foreign, elsewhere)[0]
    behind = bundle.config.refined_lag - bundle.config.token_lag
    voice = torch.nn.functional.pad(speech, (behind, 0))[:, : x.shape[1]]
    assert float(si_sdr_db(right, voice) - si_sdr_db(wrong, voice)) > 3.0


@pytest.mark.parametrize("frame", [320, 512])
def test_a_transform_is_stored_as_one_turn_and_comes_back_bit_for_bit(frame: int) -> None:
    cosine, sine = (part.numpy() for part in dft_basis(frame))
    nodes = [helper.make_node("Concat", ["cosine", "sine"], ["both"], axis=1)]
    outputs = [helper.make_tensor_value_info("both", TensorProto.FLOAT, [frame, frame + 2])]
    stored = [numpy_helper.from_array(cosine, "cosine"), numpy_helper.from_array(sine, "sine")]
    graph = helper.make_graph(nodes, "part", [], outputs, stored)
    for initializer in list(graph.initializer):
        pack(graph, initializer)
    assert sum(len(t.raw_data) for t in graph.initializer) < 40 * frame
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    (both,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {})
    np.testing.assert_array_equal(both, np.concatenate([cosine, sine], axis=1))


def test_a_lapped_basis_is_stored_as_one_turn_and_comes_back_bit_for_bit() -> None:
    basis = lapped_basis(320, 80).numpy()
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(basis.shape))]
    nodes = [helper.make_node("Identity", ["basis"], ["out"])]
    graph = helper.make_graph(nodes, "part", [], outputs, [numpy_helper.from_array(basis, "basis")])
    pack(graph, graph.initializer[0])
    assert sum(len(t.raw_data) for t in graph.initializer) < basis.nbytes / 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    (out,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {})
    np.testing.assert_array_equal(out, basis)


def test_a_matrix_that_is_no_transform_keeps_its_values() -> None:
    values = dft_basis(128)[0].numpy().copy()
    values[5, 7] += 1e-3
    graph = helper.make_graph([], "part", [], [], [numpy_helper.from_array(values, "cosine")])
    pack(graph, graph.initializer[0])
    np.testing.assert_array_equal(numpy_helper.to_array(graph.initializer[0]), values)
