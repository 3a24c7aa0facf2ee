"""Write the artefacts through the parity gate: `python -m models.export [--checkpoint FILE] [--out DIR]`.

FILE is what training leaves in the cache (it names it when it ends).

Each part becomes one ONNX graph for one hop, with every state tensor as an input `state_in.NAME` and an output
`state_out.NAME`. The gate runs 500 hops of real sound hop by hop in ONNX Runtime, with carried state, against one
whole-file pass in torch, and refuses to write when they differ.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import typer
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from engine.artefacts import read_manifest
from engine.paths import assets_dir
from models.ancestors import FRONT_LINE, OPINION_LINE
from models.checkpoint import Bundle, load_bundle, load_shipped, row_scale
from models.config import FORMAT_VERSION, LOG_NAME, ModelConfig
from models.front import State
from models.integer_gru import DOMAIN, in_integers, with_integer_grus
from models.integer_search import with_integer_search
from models.manifest import update_row
from models.parity import ParityError, check_parity
from models.quantize import GRID
from models.transforms import lapped_basis, lapped_parts

OPSET = 17
PACKED = 512  # elements from which on a tensor is stored smaller
DECIDING = (
    "sample_rate_hz", "hop", "overlap", "band_edges", "speech_stages", "background_stages", "codebook",
    "gain_levels", "gain_step_db", "gain_top_db",
)  # fmt: skip
LINES = {"encoder": FRONT_LINE, "refiner": OPINION_LINE}  # whose weights a part began with
SMALL = "CACHE/training/full.npz"
COMMAND = " && ".join(
    ["python -m models.train", *(f"python -m models.{step} --checkpoint {SMALL}" for step in ("calibrate", "export"))]
)


class _OneHop(nn.Module):
    """A part of the codec as a function of one hop and its states, in the order the graph names them."""

    def __init__(self, part: nn.Module, inputs: list[str], names: list[str]) -> None:
        super().__init__()
        self.part, self.inputs, self.names = part, inputs, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.inputs)
        state = dict(zip(self.names, tensors[count:], strict=True))
        inputs = [
            t[None, None] if name.startswith("codes") else t
            for name, t in zip(self.inputs, tensors[:count], strict=True)
        ]
        *outputs, new = self.part(*inputs, state)
        flat = [t[0, 0] if t.dtype == torch.int64 else t for t in outputs]
        return (*flat, *(new[name] for name in self.names))


def export_part(
    part: nn.Module, inputs: dict[str, Tensor], outputs: list[str], metadata: dict[str, str], path: Path
) -> None:
    """One part -> one ONNX file at `path` (unchecked)."""
    state: State = part.initial_state(1)  # type: ignore[operator]
    names = list(state)
    wrapper = _OneHop(copy.deepcopy(part), list(inputs), names).eval()
    config: ModelConfig = part.config  # type: ignore[assignment]
    integers = with_integer_grus(wrapper, 2 * config.hop // config.front_frame)
    with_integer_search(wrapper)
    for module in wrapper.modules():  # fixed matrices become named, shared tensors instead of a copy at every use
        module._non_persistent_buffers_set.clear()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every Python branch on a shape; shapes are fixed here
        torch.onnx.export(
            wrapper,
            (*inputs.values(), *state.values()),
            str(path),
            input_names=[*inputs, *(f"state_in.{n}" for n in names)],
            output_names=[*outputs, *(f"state_out.{n}" for n in names)],
            opset_version=OPSET,
            do_constant_folding=False,  # ONNX Runtime folds when it loads; here it would store transposed copies
            custom_opsets={DOMAIN: 1} if integers else None,
            dynamo=False,
        )
    finish(path, metadata, _simplify)


def _simplify(graph: onnx.ModelProto) -> None:
    in_integers(graph)
    _prune(graph.graph)


def finish(path: Path, metadata: Mapping[str, str], change: Callable[[onnx.ModelProto], None] | None = None) -> None:
    """Make what the exporter wrote at `path` what is shipped: packed, changed where wanted, with its metadata."""
    graph = onnx.load(str(path))
    for initializer in list(graph.graph.initializer):
        pack(graph.graph, initializer)
    if change is not None:
        change(graph)
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def pack(graph: onnx.GraphProto, initializer: onnx.TensorProto) -> None:
    """Store a large tensor in the smallest type that holds it exactly; ONNX Runtime unfolds it when it loads."""
    values = numpy_helper.to_array(initializer)
    if values.dtype != np.float32 or values.size < PACKED:
        return
    if _is_transform(values):
        _unroll(graph, initializer, values)
        return
    if _is_lapped(values):
        _unlap(graph, initializer, values)
        return
    small, scale = _smallest(values)
    if small is None:
        return
    name = initializer.name
    graph.initializer.remove(initializer)
    graph.initializer.append(numpy_helper.from_array(small, f"{name}.small"))
    cast = name if scale is None else f"{name}.cast"
    nodes = [helper.make_node("Cast", [f"{name}.small"], [cast], to=TensorProto.FLOAT)]
    if scale is not None:
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(helper.make_node("Mul", [cast, f"{name}.scale"], [name]))
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)


def _is_transform(values: np.ndarray) -> bool:
    """Whether this is one of `dft_basis`: row n of column k is row n k mod N of column 1."""
    if values.ndim != 2 or values.shape[1] != values.shape[0] // 2 + 1:
        return False
    at = np.outer(*map(np.arange, values.shape)) % values.shape[0]
    return np.array_equal(values, values[:, 1][at])


def _unroll(graph: onnx.GraphProto, initializer: onnx.TensorProto, values: np.ndarray) -> None:
    """Store one turn of a cosine or sine; its matrix is gathered from that when the graph is loaded."""
    name, size = initializer.name, values.shape[0]
    graph.initializer.remove(initializer)
    constants = {
        "circle": values[:, 1],
        "rows": np.arange(size, dtype=np.int64)[:, None],
        "columns": np.arange(values.shape[1], dtype=np.int64)[None],
        "size": np.array(size, np.int64),
    }
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}.{key}"))
    nodes = [
        helper.make_node("Mul", [f"{name}.rows", f"{name}.columns"], [f"{name}.product"]),
        helper.make_node("Mod", [f"{name}.product", f"{name}.size"], [f"{name}.at"]),
        helper.make_node("Gather", [f"{name}.circle", f"{name}.at"], [name]),
    ]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)


def _is_lapped(values: np.ndarray) -> bool:
    """Whether this is a `lapped_basis`."""
    if values.ndim != 2 or not 0 < (overlap := values.shape[0] - values.shape[1]) <= values.shape[1]:
        return False
    return np.array_equal(values, lapped_basis(values.shape[1], overlap).numpy())


def _unlap(graph: onnx.GraphProto, initializer: onnx.TensorProto, values: np.ndarray) -> None:
    """Store one turn of its cosine, and its window; the same matrix is made from those when the graph is loaded."""
    name, hop = initializer.name, values.shape[1]
    graph.initializer.remove(initializer)
    parts = (part.numpy() for part in lapped_parts(hop, len(values) - hop))
    constants = dict(zip(("circle", "window", "rows", "columns"), parts, strict=True))
    for key, value in (constants | {"size": np.array(8 * hop, np.int64)}).items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}.{key}"))
    nodes = [
        helper.make_node("Mul", [f"{name}.rows", f"{name}.columns"], [f"{name}.product"]),
        helper.make_node("Mod", [f"{name}.product", f"{name}.size"], [f"{name}.at"]),
        helper.make_node("Gather", [f"{name}.circle", f"{name}.at"], [f"{name}.waves"]),
        helper.make_node("Mul", [f"{name}.window", f"{name}.waves"], [f"{name}.exact"]),
        helper.make_node("Cast", [f"{name}.exact"], [name], to=TensorProto.FLOAT),
    ]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)


def _smallest(values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Values as int8 and their scale, or as fp16 and None, or (None, None) where neither is exact."""
    scales = [np.array(1.0 / GRID, np.float32)]
    if values.ndim > 1:
        scales.append(row_scale(torch.from_numpy(values.copy())).numpy())
    for scale in scales:
        grid = values / scale
        if np.array_equal(grid, np.clip(np.round(grid), -127, 127)):
            return grid.astype(np.int8), scale
    half = values.astype(np.float16)
    return (half, None) if np.array_equal(values, half.astype(np.float32)) else (None, None)


def _prune(graph: onnx.GraphProto) -> None:
    """Leave out the nodes whose results nobody takes."""
    for node in reversed(list(graph.node)):
        taken = {name for other in graph.node for name in other.input} | {out.name for out in graph.output}
        if not taken & set(node.output):
            graph.node.remove(node)


def codec_id(bundle: Bundle) -> str:
    """sha256 over codebooks and what else decides how tokens decode: the same whatever front and refiner are."""
    shape = {k: v for k, v in bundle.config.to_dict().items() if k in DECIDING}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
        for band in range(bundle.config.bands):
            digest.update((quantizer.books(band) * GRID).round().to(torch.int8).numpy().tobytes())
    return digest.hexdigest()


def _metadata(bundle: Bundle, role: str, lag: int) -> dict[str, str]:
    c = bundle.config
    return {
        "format_version": str(FORMAT_VERSION),
        "role": role,
        "codec_id": codec_id(bundle),
        "sample_rate_hz": str(c.sample_rate_hz),
        "hop_samples": str(c.hop),
        "output_lag_samples": str(lag),
        "codes_s_sizes": json.dumps(c.row_sizes(c.speech_stages)),
        "codes_b_sizes": json.dumps(c.row_sizes(c.background_stages)),
        "gain_rows": str(c.bands),
        "rows_per_stage": str(c.bands),
        "stages": str(c.speech_stages),
        "about": bundle.about(),
    }


def write_parts(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Export encoder, decoder and refiner into `folder` (unchecked)."""
    c = bundle.config
    hop = torch.zeros(1, c.hop)
    codes = {
        "codes_s": torch.zeros(len(c.row_sizes(c.speech_stages)), dtype=torch.int64),
        "codes_b": torch.zeros(len(c.row_sizes(c.background_stages)), dtype=torch.int64),
    }
    plan: list[tuple[str, nn.Module, dict[str, Tensor], list[str], int]] = [
        ("encoder", bundle.codec.encoder, {"hop": hop}, ["codes_s", "codes_b"], 0),
        ("decoder", bundle.codec.decoder, {**codes, "gains": torch.ones(2)}, ["speech", "background"], c.token_lag),
        (
            "refiner",
            bundle.refiner,
            {"mixture": hop, "speech": hop, "background": hop},
            ["speech", "background"],
            c.refined_lag,
        ),
    ]
    paths = {}
    for role, part, inputs, outputs, lag in plan:
        paths[role] = folder / f"{role}.onnx"
        clashes = {name: f"refined_{name}" for name in outputs if name in inputs}
        export_part(part, inputs, [clashes.get(n, n) for n in outputs], _metadata(bundle, role, lag), paths[role])
    return paths


def main(checkpoint: Path | None = None, out: Path | None = None, sound: Path | None = None, command: str = "") -> None:
    """Export a checkpoint (default: the one in the shipped graphs) into `out` (default: assets/) through the gate.

    The log of the training goes with it where it lies beside the checkpoint. Run `python -m models.scenes` when the
    codebooks have changed.
    """
    folder = out or assets_dir()
    bundle = load_bundle(checkpoint) if checkpoint else load_shipped()
    bundle.snap()
    scratch = folder / ".export"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        paths = write_parts(bundle, scratch)
        report = check_parity(bundle, paths, sound)
        typer.echo(report.text())
        for role, path in paths.items():
            path.replace(folder / f"{role}.onnx")
            said = command or (COMMAND if checkpoint else _command_of(role))
            update_row(manifest=folder / "manifest.toml", **_row(bundle, role, folder / f"{role}.onnx", said))
        if checkpoint and (log := checkpoint.with_name(LOG_NAME)).is_file():
            shutil.copy(log, folder / LOG_NAME)
            row = {"name": "training", "file": LOG_NAME, "kind": "log", "license": "MIT"}
            update_row(manifest=folder / "manifest.toml", **row, command=command or COMMAND)
    except ParityError as error:
        typer.echo(f"not exported: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        for leftover in scratch.glob("*"):
            leftover.unlink()
        scratch.rmdir()


def _row(bundle: Bundle, role: str, path: Path, command: str) -> dict[str, Any]:
    c = bundle.config
    lag = {"encoder": 0, "decoder": c.token_lag, "refiner": c.refined_lag}[role]
    return {
        "name": role,
        "file": path.name,
        "kind": "model",
        "license": "MIT",
        "ancestors": [line for line in bundle.ancestors if line == LINES.get(role)],
        "sample_rate_hz": c.sample_rate_hz,
        "hop_samples": c.hop,
        "output_lag_samples": lag,
        "data": bundle.data,
        "command": command,
    }


def _command_of(role: str) -> str:
    """How the shipped graph was trained: the same networks, written anew, came of the same commands."""
    rows = (row for row in read_manifest(assets_dir()) if row["name"] == role)
    return str(next(rows, {}).get("command", COMMAND))


if __name__ == "__main__":
    typer.run(main)
