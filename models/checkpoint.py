"""Checkpoints that carry their own shape: networks in fp16, codebooks in int8, no pickle (a zip of plain arrays).

A bundle is everything that is trained. The shipped graphs in assets/ hold all of it and are read back as one; training
keeps full checkpoints, with the optimiser, in the cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from engine.paths import assets_dir
from models.codec import Codec
from models.config import ModelConfig, config_from_dict
from models.quantize import GRID
from models.refiner import Refiner

LARGE = 16_384  # elements from which on a matrix is kept as int8 rows


def row_scale(values: torch.Tensor) -> torch.Tensor:
    """The power of two per row (last axis) by which values [..., N] become whole numbers of 127 at most."""
    top = values.abs().amax(-1, keepdim=True).clamp_min(2.0**-20)
    return torch.exp2(torch.ceil(torch.log2(top / 127.0)))


def snapped(values: torch.Tensor) -> torch.Tensor:
    """A weight as it is shipped: large matrices on their rows' int8 grid, the rest in half precision. Idempotent."""
    if values.dim() < 2 or values.numel() < LARGE:
        return values.half().float()
    return on_grid(values)


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """A matrix on its rows' int8 grid. Idempotent."""
    scale = row_scale(values)
    return (values / scale).round().clamp(-127, 127) * scale


@dataclass
class Bundle:
    """The codec, the refiner, and where they came from."""

    config: ModelConfig
    codec: Codec
    refiner: Refiner
    step: int = 0
    ancestors: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, config: ModelConfig) -> Bundle:
        """Fresh networks, empty codebooks."""
        return cls(config, Codec(config), Refiner(config))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every trained tensor by name: codec.* and refiner.*; the quantisers, which both ends share, once."""
        root = nn.ModuleDict({"codec": self.codec, "refiner": self.refiner})
        return {k: v for k, v in root.state_dict().items() if not k.startswith("codec.decoder.")}

    @torch.no_grad()
    def snap(self) -> None:
        """Round networks and codebooks to what is shipped, so that what is checked is what plays."""
        for quantizer in (self.codec.encoder.speech, self.codec.encoder.background):
            quantizer.snap()
        for module in (self.codec, self.refiner):
            module.eval()
            for parameter in module.parameters():
                parameter.copy_(snapped(parameter))

    def about(self) -> str:
        """Shape and history as JSON."""
        facts = {"config": self.config.to_dict(), "step": self.step, "ancestors": self.ancestors, "data": self.data}
        return json.dumps(facts)

    @classmethod
    def from_arrays(cls, about: str, stored: Mapping[str, np.ndarray], name: str) -> Bundle:
        """A bundle of stored weights; ValueError, with `name`, when names or shapes do not match."""
        facts = json.loads(about)
        bundle = cls.new(config_from_dict(facts["config"]))
        bundle.step, bundle.ancestors, bundle.data = facts["step"], facts["ancestors"], facts["data"]
        wanted = bundle.tensors()
        wrong = sorted(set(wanted) ^ set(stored))
        wrong += [k for k in wanted if k in stored and tuple(wanted[k].shape) != stored[k].shape]
        if wrong:
            raise ValueError(f"{name} does not fit this version of the networks: {', '.join(wrong[:3])}")
        with torch.no_grad():
            for key, tensor in wanted.items():
                values = torch.from_numpy(stored[key].copy()).float()
                tensor.copy_(values / GRID if stored[key].dtype == np.int8 else values)
        for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
            quantizer.snap()
        return bundle


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write the small form: networks fp16, codebooks int8; beside and renamed."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in bundle.tensors().items():
        values = tensor.detach().cpu()
        arrays[name] = ((values * GRID).round().to(torch.int8) if ".book_" in name else values.half()).numpy()
    arrays["about"] = np.frombuffer(bundle.about().encode(), dtype=np.uint8)
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


def load_bundle(path: Path) -> Bundle:
    """Read the small form. Raises FileNotFoundError, or ValueError when names or shapes do not match."""
    with np.load(path, allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files if name != "about"}
        return Bundle.from_arrays(arrays["about"].tobytes().decode(), stored, path.name)


def load_shipped(folder: Path | None = None) -> Bundle:
    """The bundle inside the exported graphs of `folder` (default: assets/): what plays is also what training goes on
    from. Raises FileNotFoundError or ValueError as `load_bundle`."""
    place = folder or assets_dir()
    stored: dict[str, np.ndarray] = {}
    about = "{}"
    for role, prefix in (("encoder", "codec.encoder."), ("refiner", "refiner.")):
        model = onnx.load(str(place / f"{role}.onnx"))
        about = next((p.value for p in model.metadata_props if p.key == "about"), about)
        raw = {t.name: t for t in model.graph.initializer}
        for name in raw:
            inner = name.removesuffix(".small")
            if inner.startswith("part.") and not inner.endswith((".scale", ".cast")):
                stored[prefix + inner.removeprefix("part.")] = unpacked(raw, inner)
    wanted = set(Bundle.new(config_from_dict(json.loads(about).get("config", {}))).tensors())
    return Bundle.from_arrays(about, {k: v for k, v in stored.items() if k in wanted}, f"{place.name}/*.onnx")


def unpacked(raw: Mapping[str, onnx.TensorProto], name: str) -> np.ndarray:
    """A tensor of an exported graph as it is used; codebooks stay int8."""
    values = numpy_helper.to_array(raw[f"{name}.small"] if f"{name}.small" in raw else raw[name])
    if values.dtype != np.int8 or ".book_" in name:
        return values
    return np.asarray(values * numpy_helper.to_array(raw[f"{name}.scale"]), np.float32)
