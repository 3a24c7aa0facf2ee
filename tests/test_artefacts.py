"""Loading: state is carried, files are checked, and a machine without a GPU is told plainly."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from engine import artefacts
from engine.artefacts import (
    Models,
    StreamModel,
    load_ahead,
    load_models,
    load_onnx,
    read_manifest,
    sha256_of,
    shared_models,
)
from engine.types import ArtefactError, Provider, UsageError
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the artefacts to damage."""
    return Path(shutil.copytree(folder, tmp_path / "assets"))


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    return load_models(Provider.CPU, folder)


def _sign(folder: Path, name: str) -> None:
    """Bring the manifest's hash of a file up to date."""
    manifest = folder / "manifest.toml"
    rows = [row for row in read_manifest(folder) if row["name"] == name]
    digest = hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(rows[0]["sha256"], digest))


def _set(folder: Path, name: str, **metadata: str) -> None:
    """Change metadata of one file, with a right hash."""
    path = folder / f"{name}.onnx"
    model = onnx.load(path)
    kept = {p.key: p.value for p in model.metadata_props} | metadata
    del model.metadata_props[:]
    helper.set_model_props(model, {key: value for key, value in kept.items() if value})
    onnx.save(model, path)
    _sign(folder, name)


def _codes(encoder: StreamModel, sound: np.ndarray) -> np.ndarray:
    return np.stack([encoder.step(hop=hop[None])["codes_s"] for hop in sound.reshape(-1, tiny_models.HOP)])


def test_metadata_is_understood(models: Models) -> None:
    info = models.info
    assert (info.sample_rate_hz, info.hop_samples, info.lag_tokens, info.lag_refined) == (16000, 320, 80, 160)
    assert (len(info.sizes_s), len(info.sizes_b)) == (65, 33)
    assert info.algorithmic_latency_ms() == pytest.approx(30.0)
    assert info.algorithmic_latency_ms(refined=False) == pytest.approx(25.0)
    assert (info.kept_rows(None), info.kept_rows(1)) == (65, 33)
    assert info.blank_b().tolist() == [0] + [-1] * 32
    for wrong in (0, 3):
        with pytest.raises(UsageError, match="1 to 2"):
            info.kept_rows(wrong)


def test_state_is_carried_reset_and_cloned(models: Models, rng: np.random.Generator) -> None:
    sound = (0.3 * rng.standard_normal(10 * tiny_models.HOP)).astype(np.float32)
    first = models.encoder.clone()
    codes = _codes(first, sound)
    shifted = np.concatenate([np.zeros(tiny_models.LAG_ENCODER, np.float32), sound])[: len(sound)]
    means = shifted.reshape(10, 32, 10).mean(axis=2) * tiny_models.SPEECH_SHARE
    coarse = np.round(31 * means / (codes[:, :1] / 63))
    assert np.abs(coarse + 32 - codes[:, 1:33]).max() <= 1  # the sound of the hop before is there, 40 samples of it
    assert not np.array_equal(codes, _codes(first, sound)), "the state has moved on"
    assert np.array_equal(codes, _codes(first.clone(), sound))
    first.reset()
    assert np.array_equal(codes, _codes(first, sound))


def test_two_streams_do_not_disturb_each_other(models: Models, rng: np.random.Generator) -> None:
    sound = (0.3 * rng.standard_normal(6 * tiny_models.HOP)).astype(np.float32)
    alone = _codes(models.encoder.clone(), sound)
    a, b = models.encoder.clone(), models.encoder.clone()
    together = []
    for hop in sound.reshape(-1, tiny_models.HOP):
        together.append(a.step(hop=hop[None])["codes_s"])
        b.step(hop=-2 * hop[None])
    assert np.array_equal(alone, np.stack(together))


def test_a_damaged_file_is_refused(own: Path) -> None:
    path = own / "decoder.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"decoder\.onnx is damaged .* install"):
        load_models(Provider.CPU, own)


def test_a_missing_file_or_manifest_is_told(own: Path) -> None:
    (own / "refiner.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"refiner\.onnx is missing"):
        load_models(Provider.CPU, own)
    (own / "manifest.toml").unlink()
    with pytest.raises(ArtefactError, match=r"manifest\.toml is missing"):
        load_models(Provider.CPU, own)
    (own / "manifest.toml").write_text("artefact = 3 [")
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_models(Provider.CPU, own)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": "99"}, "format version 99"),
        ({"format_version": ""}, "format version none"),
        ({"role": "encoder"}, "is a encoder, not the decoder"),
        ({"codec_id": "other"}, "different codecs"),
        ({"output_lag_samples": ""}, "metadata are not right"),
    ],
)
def test_wrong_metadata_are_refused(own: Path, changes: dict[str, str], words: str) -> None:
    _set(own, "decoder", **changes)
    with pytest.raises(ArtefactError, match=words) as failure:
        load_models(Provider.CPU, own)
    assert "\n" not in str(failure.value)


def test_what_is_no_network_is_refused_in_one_line(own: Path) -> None:
    (own / "encoder.onnx").write_bytes(b"not a network" * 99)
    _sign(own, "encoder")
    with pytest.raises(ArtefactError, match="cannot be loaded") as failure:
        load_models(Provider.CPU, own)
    assert "\n" not in str(failure.value)
    with pytest.raises(ArtefactError, match="missing"):
        load_onnx(own / "none.onnx")


def test_a_state_that_never_comes_back_is_refused(own: Path) -> None:
    model = onnx.load(own / "encoder.onnx")
    for node in model.graph.node:
        node.output[:] = [name.replace("state_out.late", "lost") for name in node.output]
    kept = [o for o in model.graph.output if not o.name.startswith("state_out.")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, own / "encoder.onnx")
    with pytest.raises(ArtefactError, match=r"never gives state_out\.late back"):
        load_onnx(own / "encoder.onnx")


def _has_gpu() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(_has_gpu(), reason="there is a GPU")
def test_a_provider_that_is_not_there_is_an_error_and_auto_is_not(folder: Path) -> None:
    for provider in (Provider.CUDA, Provider.TENSORRT):
        with pytest.raises(ArtefactError, match="--provider cpu"):
            load_models(provider, folder)
    assert load_models(Provider.AUTO, folder).provider == "cpu"


@pytest.fixture
def nothing_shared() -> Iterator[None]:
    shared_models.cache_clear()
    yield
    shared_models.cache_clear()


@pytest.mark.usefixtures("nothing_shared")
def test_what_was_begun_ahead_is_taken_and_loaded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(folder))
    loaded: list[Models] = []
    real = artefacts.load_models
    monkeypatch.setattr(artefacts, "load_models", lambda provider: loaded.append(real(provider)) or loaded[-1])
    load_ahead(Provider.CPU)
    assert shared_models(Provider.CPU) is shared_models(Provider.CPU) is loaded[0]
    assert len(loaded) == 1


@pytest.mark.usefixtures("nothing_shared")
def test_what_fails_ahead_is_told_to_who_asks_and_may_be_tried_again(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(own))
    (own / "decoder.onnx").rename(own / "away.onnx")
    load_ahead(Provider.CPU)
    with pytest.raises(ArtefactError, match=r"decoder\.onnx is missing"):
        shared_models(Provider.CPU)
    (own / "away.onnx").rename(own / "decoder.onnx")
    assert shared_models(Provider.CPU).provider == "cpu"


def test_loading_leaves_no_trace_and_reports_to_nobody(folder: Path, checkout: Path, tmp_path: Path) -> None:
    """ONNX Runtime keeps what it would report in a file of its own, and has a thread that sends it."""
    code = (
        "import sys, os; from engine.artefacts import load_models; load_models('cpu', sys.argv[1]);"
        "print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=checkout,
        env=kept | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(tmp_path.rglob("*")) == []
    assert done.stdout == "1\n"


def test_loading_prints_nothing(folder: Path, checkout: Path) -> None:
    code = f"from engine.artefacts import load_models; print(load_models('auto', {str(folder)!r}).provider)"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("cpu", "cuda", "tensorrt")
    assert done.stderr == ""


def test_nobody_is_told_of_what_is_loaded(folder: Path, checkout: Path, tmp_path: Path) -> None:
    """ONNX Runtime would keep a number for this machine and a list of what was done, and send it to its makers."""
    code = f"from engine.artefacts import load_models; load_models('cpu', {str(folder)!r})"
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | homes
    subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_shipped_models_are_whole() -> None:
    info = load_models(Provider.CPU).info
    assert info.algorithmic_latency_ms() <= 60
    assert len(info.codec_id) == 64
    assert info.gain_rows + info.stages * info.rows_per_stage == max(len(info.sizes_s), len(info.sizes_b))


def test_sha256_reads_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * (3 << 20))
    assert sha256_of(path) == hashlib.sha256(b"a" * (3 << 20)).hexdigest()
