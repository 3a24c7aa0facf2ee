"""Whisper in ONNX Runtime with 8-bit weights, exported from openai-whisper's model; for models.runtimes to measure.

    mel [1, mels, 2 * F] ─► encoder ─► features [1, F, width]
    features ─► keys ─► keys and values of the sound [layers * heads, F, 64]
    tokens [n], these and keys and values of the text so far [layers * heads, t, 64] ─► step ─► logits, keys, values

Lengths are free in all three graphs, so that no more is computed than in torch. The same matrices are 8 bit as there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from engine.artefacts import ORT_ERRORS, Session
from engine.types import ArtefactError, Samples
from engine.whisper_decoder import TRAILING_S, Past, WhisperDecoder, encode_mel
from models.export import OPSET

EXAMPLE_FRAMES, EXAMPLE_TOKENS, EXAMPLE_PAST = 100, 3, 2  # what the exporter is shown; none of it stays fixed
PAST, SOUND = ("keys", "values"), ("sound_keys", "sound_values")
EXPORT_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, RuntimeError, ValueError)
STEP_OUTPUTS = ("logits", "keys_out", "values_out", "attention")


class EncoderGraph(nn.Module):
    """From mel to features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, mel: Tensor) -> Tensor:
        """mel [1, mels, 2 * F] -> features [1, F, width]."""
        return encode_mel(self.encoder, mel)


class _Heads(nn.Module):
    """What both halves of the text decoder share."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.heads = model.dims.n_text_head
        self.width = model.dims.n_text_state // self.heads

    def split(self, x: Tensor) -> Tensor:
        """[1, n, heads * width] -> [heads, n, width]."""
        return x[0].view(-1, self.heads, self.width).transpose(0, 1)

    def join(self, x: Tensor) -> Tensor:
        """[heads, n, width] -> [1, n, heads * width]."""
        return x.transpose(0, 1).flatten(1)[None]


class KeysGraph(_Heads):
    """What the text decoder wants of the sound, once for all tokens."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features [1, F, width] -> keys and values [layers * heads, F, width / heads]."""
        layers = [block.cross_attn for block in self.decoder.blocks]
        keys = torch.cat([self.split(layer.key(features)) for layer in layers])
        return keys, torch.cat([self.split(layer.value(features)) for layer in layers])


class StepGraph(_Heads):
    """Some tokens more. align_heads: per layer the heads whose attention tells when a word is said."""

    def __init__(self, model: Any, align_heads: Sequence[Sequence[int]]) -> None:
        super().__init__(model)
        self.align_heads = [list(heads) for heads in align_heads]
        self.to_vocabulary = nn.Parameter(model.decoder.token_embedding.weight.detach().T.contiguous())

    def forward(
        self, tokens: Tensor, keys: Tensor, values: Tensor, sound_keys: Tensor, sound_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens [n], keys and values after t tokens -> logits [n, vocabulary], keys and values after t + n, attention
        [heads, n, F] of align_heads before its softmax.
        """
        at, n = keys.shape[1], tokens.shape[0]
        x = (self.decoder.token_embedding(tokens) + self.decoder.positional_embedding[at : at + n])[None]
        later = torch.arange(at + n)[None] > at + torch.arange(n)[:, None]
        new_keys, new_values, rows = [], [], []
        for index, block in enumerate(self.decoder.blocks):
            own = slice(index * self.heads, (index + 1) * self.heads)
            y = block.attn_ln(x)
            key = torch.cat([keys[own], self.split(block.attn.key(y))], dim=1)
            value = torch.cat([values[own], self.split(block.attn.value(y))], dim=1)
            scores = self.split(block.attn.query(y)) @ key.transpose(1, 2) * self.width**-0.5
            mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
            x = x + block.attn.out(self.join(mixed))
            query = self.split(block.cross_attn.query(block.cross_attn_ln(x)))
            scores = query @ sound_keys[own].transpose(1, 2) * self.width**-0.5
            if self.align_heads[index]:
                rows.append(scores[self.align_heads[index]])
            x = x + block.cross_attn.out(self.join(scores.softmax(-1) @ sound_values[own]))
            x = x + block.mlp(block.mlp_ln(x))
            new_keys.append(key)
            new_values.append(value)
        logits = (self.decoder.ln(x) @ self.to_vocabulary)[0]
        return logits, torch.cat(new_keys), torch.cat(new_values), torch.cat(rows)


class OnnxDecoder(WhisperDecoder):
    """The shipped decoding with ONNX Runtime in torch's place.

    model: with float weights, which stay as they are; folder: empty, for the graphs. Raises ArtefactError.
    """

    beams = 1  # the graph takes one text

    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__(model, int8=False)
        try:
            self._graphs = {name: Session(path) for name, path in self._export(folder).items()}
        except EXPORT_ERRORS as error:
            raise ArtefactError(f"ONNX Runtime does not take this model ({error}); install Sottovoce again") from error

    def _export(self, folder: Path) -> dict[str, Path]:
        made = {"encoder": self._encoder, "keys": self._keys, "step": self._step}
        return {name: make(folder / f"{name}.onnx") for name, make in made.items()}

    def _encoder(self, path: Path) -> Path:
        dims = self.model.dims
        mel = torch.zeros(1, dims.n_mels, 2 * EXAMPLE_FRAMES)
        wide = 4 * dims.n_audio_state  # the outer layer of the MLP stays in floats, as in the shipped one
        axes = {"mel": {2: "mel"}, "features": {1: "frames"}}
        return write(path, EncoderGraph(self.model), {"mel": mel}, ["features"], axes, in_floats=wide)

    def _keys(self, path: Path) -> Path:
        features = torch.zeros(1, EXAMPLE_FRAMES, self.model.dims.n_audio_state)
        axes = {name: {1: "frames"} for name in ("features", *SOUND)}
        return write(path, KeysGraph(self.model), {"features": features}, SOUND, axes)

    def _step(self, path: Path) -> Path:
        rows = self.model.dims.n_text_layer * self.heads
        tokens = torch.zeros(EXAMPLE_TOKENS, dtype=torch.int64)
        past = [torch.zeros(rows, EXAMPLE_PAST, self.width) for _ in PAST]
        sound = [torch.zeros(rows, EXAMPLE_FRAMES, self.width) for _ in SOUND]
        axes = {"tokens": {0: "n"}, "logits": {0: "n"}, "attention": {1: "n", 2: "frames"}}
        axes |= {name: {1: "t"} for name in PAST} | {name: {1: "all"} for name in STEP_OUTPUTS[1:3]}
        axes |= {name: {1: "frames"} for name in SOUND}
        inputs = dict(zip(("tokens", *PAST, *SOUND), (tokens, *past, *sound), strict=True))
        return write(path, StepGraph(self.model, self.align_heads), inputs, STEP_OUTPUTS, axes)

    def _run(self, name: str, **feeds: Tensor) -> list[Tensor]:
        graph = self._graphs[name]
        found = graph.raw.run(graph.outputs, {key: value.numpy() for key, value in feeds.items()})
        return [torch.from_numpy(array) for array in found]

    def encode(self, samples: Samples, trailing_s: float = TRAILING_S[0]) -> Tensor:
        """As in torch."""
        return self._run("encoder", mel=self.mel(samples, trailing_s))[0]

    def begin(self, features: Tensor) -> Past:
        """As in torch."""
        sound_keys, sound_values = self._run("keys", features=features)
        none = torch.zeros(len(sound_keys), 0, self.width)
        return Past([none], [none], [sound_keys], [sound_values], [])

    def ahead(self, past: Past, tokens: Tensor, wanted: int) -> Tensor:
        """As in torch, of one text."""
        logits, past.keys[0], past.values[0], attention = self._run(
            "step",
            tokens=tokens[0],
            keys=past.keys[0],
            values=past.values[0],
            sound_keys=past.sound_keys[0],
            sound_values=past.sound_values[0],
        )
        past.attention.append(attention)
        return logits[None, tokens.shape[1] - wanted :]


# The files ------------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    graph: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
    in_floats: int | None = None,
) -> Path:
    """Export a graph with its matrices in 8 bit, but for those that are multiplied by `in_floats` inputs."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and of lengths that it takes for fixed ones
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    quantise_products(model, in_floats)
    onnx.save(model, path)
    return path


def quantise_products(model: onnx.ModelProto, in_floats: int | None) -> None:
    """Turn products with fixed matrices to 8 bit, in place: a scale for each output, inputs rounded as they come.

    What ONNX Runtime's own quantize_dynamic makes, without its loop over every word of the vocabulary.
    """
    matrices = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    for node in model.graph.node:
        matrix = matrices.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is None or matrix.dims[0] == in_floats:
            nodes.append(node)
            continue
        source, name = node.input[0], matrix.name
        parts = [f"{source}_{part}" for part in ("rounded", "scale", "zero")]
        if source not in rounded:
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], parts))
            rounded.add(source)
        values = numpy_helper.to_array(matrix)
        scale = np.maximum(np.abs(values).max(axis=0), 1e-8) / 127
        whole = np.rint(values / scale).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(whole, f"{name}_rounded"))
        model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        model.graph.initializer.remove(matrix)
        out = node.output[0]
        nodes += [
            helper.make_node("MatMulInteger", [parts[0], f"{name}_rounded", parts[2]], [f"{out}_whole"]),
            helper.make_node("Cast", [f"{out}_whole"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [parts[1], f"{name}_scale"], [f"{out}_scale"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
