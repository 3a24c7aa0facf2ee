"""The exporter's gate: what is written computes what torch computes, and what does not is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import typer

from engine.artefacts import load_onnx
from engine.paths import assets_dir
from models.checkpoint import Bundle, load_bundle, load_shipped, save_bundle
from models.export import codec_id, main, write_parts
from models.parity import ParityError, check_parity

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
