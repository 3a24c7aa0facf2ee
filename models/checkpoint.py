"""Checkpoints that carry their own shape: networks in fp16, codebooks in int8, no pickle (a zip of plain arrays).

A bundle is everything that is trained. The small committed one lies in assets/; training keeps full ones, with the
optimiser, in the cache.
"""

from __future__ import annotations

import json
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

SMALL_NAME = "checkpoint.npz"


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
        """Round networks to fp16 and codebooks to their grid, as shipped, so that what is checked is what plays."""
        for quantizer in (self.codec.encoder.speech, self.codec.encoder.background):
            quantizer.snap()
        for module in (self.codec, self.refiner):
            module.eval()
            for parameter in module.parameters():
                parameter.copy_(parameter.half().float())


def default_checkpoint() -> Path:
    """The small committed checkpoint."""
    return assets_dir() / SMALL_NAME


def save_bundle(bundle: Bundle, path: Path, books: bool = True) -> None:
    """Write the small form: networks fp16, codebooks int8; beside and renamed. `books=False` leaves the codebooks out:
    in assets/ they lie in decoder.onnx already."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in bundle.tensors().items():
        values = tensor.detach().cpu()
        is_book = ".book_" in name
        if is_book and not books:
            continue
        arrays[name] = ((values * GRID).round().to(torch.int8) if is_book else values.half()).numpy()
    about = {"config": bundle.config.to_dict(), "step": bundle.step, "ancestors": bundle.ancestors, "data": bundle.data}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


def _books_of(decoder: Path) -> dict[str, np.ndarray]:
    """The int8 codebooks inside an exported decoder, under the names they have in a bundle."""
    tensors = {
        t.name: t for t in onnx.load(str(decoder)).graph.initializer if ".book_" in t.name and t.name.endswith(".small")
    }
    return {
        name.removesuffix(".small").replace("part.", "codec.encoder."): numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
    }


def load_bundle(path: Path) -> Bundle:
    """Read the small form. Raises FileNotFoundError, or ValueError when names or shapes do not match."""
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        bundle = Bundle.new(config_from_dict(about["config"]))
        bundle.step, bundle.ancestors, bundle.data = about["step"], about["ancestors"], about["data"]
        wanted = bundle.tensors()
        stored = {name: arrays[name] for name in arrays.files if name != "about"}
        if not any(".book_" in name for name in stored):
            stored |= _books_of(path.with_name("decoder.onnx"))
        missing = sorted(set(wanted) ^ set(stored))
        if missing:
            raise ValueError(f"{path.name} does not fit this version of the networks: {', '.join(missing[:3])}")
        with torch.no_grad():
            for name, tensor in wanted.items():
                values = torch.from_numpy(stored[name].copy()).float()
                tensor.copy_(values / GRID if ".book_" in name else values)
        for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
            quantizer.snap()
    return bundle
