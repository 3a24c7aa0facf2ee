"""Reads Whisper weights in CTranslate2's binary layout and writes them as one safe tensor file. No pickle anywhere.

CTranslate2's file, little-endian: u32 version, text spec, u32 revision, u32 count; then per variable text name,
u8 rank, u32 shape[rank], u8 type, u32 bytes, data; then u32 count of aliases, each two texts. A text is u16 length and
bytes, closed by a zero. The tensor file is the safetensors layout: u64 header length, JSON header, raw data.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import ArtefactError

Tensor = NDArray[Any]
CT2_TYPES: dict[int, type[Any]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
CT2_VERSIONS = range(4, 8)
FILE_TYPES: dict[str, str] = {"F16": "<f2", "F32": "<f4"}
HEADER_LIMIT = 1 << 24
HEAD_SIZE = 64  # every Whisper model has attention heads of this width
DAMAGED = "is damaged or no Whisper model; run `sottovoce models get base`"


class _Reader:
    """A cursor over bytes; every read past the end raises ArtefactError."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def raw(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise ArtefactError(f"the weights file ends too early; it {DAMAGED}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.raw(struct.calcsize(code)))[0])

    def text(self) -> str:
        try:
            return bytes(self.raw(self.number("H"))).rstrip(b"\0").decode()
        except UnicodeDecodeError:
            raise ArtefactError(f"a name in the weights file is unreadable; it {DAMAGED}") from None


def read_ct2(data: bytes) -> dict[str, Tensor]:
    """All variables by name, aliases resolved; arrays are views into `data`. Raises ArtefactError when damaged."""
    reader = _Reader(memoryview(data))
    version = reader.number("I")
    if version not in CT2_VERSIONS or reader.text() != "WhisperSpec":
        raise ArtefactError(f"the weights file {DAMAGED}")
    reader.number("I")
    variables: dict[str, Tensor] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = CT2_TYPES.get(reader.number("B"))
        raw = reader.raw(reader.number("I"))
        if kind is None or int(np.prod(shape)) * np.dtype(kind).itemsize != len(raw):
            raise ArtefactError(f"{name} in the weights file has a wrong type or size; it {DAMAGED}")
        variables[name] = np.frombuffer(raw, dtype=kind).reshape(shape)
    for _ in range(reader.number("I")):
        alias, target = reader.text(), reader.text()
        variables.setdefault(alias, variables[target])
    return variables


def to_openai(variables: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, Tensor]]:
    """CTranslate2's names -> (openai-whisper's dimensions, its state dict); float types are kept as they are.

    Raises ArtefactError when a variable is missing or not a float (int8 files are not read).
    """
    try:
        state = dict(_stem(variables))
        layers = {side: _layers(variables, side) for side in ("encoder", "decoder")}
        for side, count in layers.items():
            for index in range(count):
                state.update(_block(variables, side, index))
    except (KeyError, ValueError) as error:
        raise ArtefactError(f"the weights file lacks {error}; it {DAMAGED}") from error
    if any(tensor.dtype.kind != "f" for tensor in state.values()):
        raise ArtefactError("only float weights can be converted; run `sottovoce models get base`")
    mels, width = state["encoder.conv1.weight"].shape[1], state["encoder.conv1.weight"].shape[0]
    dims = {
        "n_mels": mels,
        "n_audio_ctx": state["encoder.positional_embedding"].shape[0],
        "n_audio_state": width,
        "n_audio_head": width // HEAD_SIZE,
        "n_audio_layer": layers["encoder"],
        "n_vocab": state["decoder.token_embedding.weight"].shape[0],
        "n_text_ctx": state["decoder.positional_embedding"].shape[0],
        "n_text_state": width,
        "n_text_head": width // HEAD_SIZE,
        "n_text_layer": layers["decoder"],
    }
    return dims, state


def _layers(variables: Mapping[str, Tensor], side: str) -> int:
    found = (re.match(rf"{side}/layer_(\d+)/", name) for name in variables)
    return 1 + max(int(match[1]) for match in found if match)


def _stem(v: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for conv in ("conv1", "conv2"):
        yield from _linear(v, f"encoder.{conv}", f"encoder/{conv}")
    for side in ("encoder", "decoder"):
        yield f"{side}.positional_embedding", v[f"{side}/position_encodings/encodings"]
    yield "decoder.token_embedding.weight", v["decoder/embeddings/weight"]
    yield from _norm(v, "encoder.ln_post", "encoder/layer_norm")
    yield from _norm(v, "decoder.ln", "decoder/layer_norm")


def _block(v: Mapping[str, Tensor], side: str, index: int) -> Iterator[tuple[str, Tensor]]:
    to, source = f"{side}.blocks.{index}", f"{side}/layer_{index}"
    yield from _split(v, f"{to}.attn", f"{source}/self_attention/linear_0", ("query", "key", "value"))
    yield from _linear(v, f"{to}.attn.out", f"{source}/self_attention/linear_1")
    yield from _norm(v, f"{to}.attn_ln", f"{source}/self_attention/layer_norm")
    if side == "decoder":
        yield from _linear(v, f"{to}.cross_attn.query", f"{source}/attention/linear_0")
        yield from _split(v, f"{to}.cross_attn", f"{source}/attention/linear_1", ("key", "value"))
        yield from _linear(v, f"{to}.cross_attn.out", f"{source}/attention/linear_2")
        yield from _norm(v, f"{to}.cross_attn_ln", f"{source}/attention/layer_norm")
    yield from _linear(v, f"{to}.mlp.0", f"{source}/ffn/linear_0")
    yield from _linear(v, f"{to}.mlp.2", f"{source}/ffn/linear_1")
    yield from _norm(v, f"{to}.mlp_ln", f"{source}/ffn/layer_norm")


def _norm(v: Mapping[str, Tensor], to: str, source: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{to}.weight", v[f"{source}/gamma"]
    yield f"{to}.bias", v[f"{source}/beta"]


def _linear(v: Mapping[str, Tensor], to: str, source: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{to}.weight", v[f"{source}/weight"]
    yield f"{to}.bias", v[f"{source}/bias"]


def _split(v: Mapping[str, Tensor], to: str, source: str, parts: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """CTranslate2 stacks the projections; Whisper's key has no bias, so its part of the stacked bias is all zero."""
    weights = np.split(v[f"{source}/weight"], len(parts))
    biases = np.split(v[f"{source}/bias"], len(parts))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        yield f"{to}.{part}.weight", weight
        if part != "key":
            yield f"{to}.{part}.bias", bias
        elif np.any(bias):
            raise ValueError("a key projection without bias")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a tensor file in the safetensors layout; the same tensors always give the same bytes."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    kinds = {np.dtype(code): name for name, code in FILE_TYPES.items()}
    at = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).data)
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A tensor file -> (tensors by name, metadata); raises ArtefactError when it is missing or damaged."""
    try:
        data = memoryview(path.read_bytes())
        length = struct.unpack_from("<Q", data)[0]
        if length > min(HEADER_LIMIT, len(data) - 8):
            raise ValueError("header")
        header = json.loads(bytes(data[8 : 8 + length]))
        metadata = header.pop("__metadata__", {})
        body = data[8 + length :]
        return {name: _view(body, entry) for name, entry in header.items()}, metadata
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror}); run `sottovoce models get base`") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ArtefactError(f"{path} {DAMAGED}") from error


def _view(body: memoryview, entry: Mapping[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body):
        raise ValueError("offsets")
    return np.frombuffer(body[start:end], dtype=FILE_TYPES[entry["dtype"]]).reshape(entry["shape"])


def main(source: Path, out: Path, metadata: Mapping[str, str]) -> None:
    """CTranslate2's file -> a tensor file. Raises ArtefactError."""
    dims, state = to_openai(read_ct2(source.read_bytes()))
    write_tensors(out, state, {"dims": json.dumps(dims), **metadata})


if __name__ == "__main__":  # a process of its own: the copying would make the sound crackle
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
