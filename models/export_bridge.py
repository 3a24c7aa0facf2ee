"""Write the bridge from voice tokens into Whisper: `python -m models.export_bridge [--checkpoint FILE]`.

    codes [T, K] and states ─► frames [T, width], `lookahead_frames` late, and new states
    at [P]                  ─► places [P, width]: what is added to a frame at each of these places of a window
    nothing                 ─► own.*: what is added to blocks of Whisper's encoder to make the bridge's own of them

The frames go through those blocks, whose weights but for that are the user's Whisper's and not in the graph.

The first K rows of the voice's codes are read, -1 where one is left out. A gate runs pairs through the graph a few
frames at a time, with carried state, against one pass in torch, another reads the weights back as training does, and
nothing is written where they differ.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engine.artefacts import LOAD_ERRORS
from engine.paths import assets_dir, cache_dir
from engine.token_words import LATE, OWN, PLACES, ROLE, TokenBridge
from engine.types import SottovoceError
from models import bridge, checkpoint
from models.bridge import Bridge, config_from
from models.checkpoint import Bundle, on_grid, snapped, unpacked
from models.config import FORMAT_VERSION, LOG_NAME, config_from_dict
from models.export import OPSET, codec_id, finish
from models.manifest import update_row
from models.quantize import GRID
from models.token_pairs import TokenPair, folder, read_blocks, sources_of
from models.train_bridge import load_trained

RECOGNISER = "base"  # whose frames the pairs hold
TOLERANCE = 2e-3  # of the frames' own spread
PIECES = (1, 7, 50)  # frames at a time, in turn
CHECKED = 4
BRIDGE_LOG, LOG_ROW = "bridge.jsonl", "bridging"
COMMAND = (
    "python -m models.token_pairs --blocks {blocks}"
    " && python -m models.token_pairs --blocks {checks} --split validation"
    " && python -m models.train_bridge --fresh && python -m models.export_bridge"
)


class BridgeGraph(nn.Module):
    """A bridge as the engine runs it: one stream, what a place adds, and what its own blocks add to Whisper's."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.names = list(bridge.initial_state(1))

    def forward(self, codes: Tensor, at: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """codes [T, K], at [P], states -> frames [T, width], places [P, width], new states, what is added."""
        frames, new = self.bridge(codes[None], dict(zip(self.names, states, strict=True)))
        added = (weight * 1.0 for weight in self.bridge.own.parameters())  # an output may not be a weight itself
        return (frames[0], self.bridge.places(at), *(new[name] for name in self.names), *added)


@torch.no_grad()
def snap(model: Bridge) -> None:
    """Round the weights as they are shipped, so that the graph holds exactly what was measured."""
    for weight in model.parameters():
        weight.copy_(snapped(weight))
    for name, weight in model.own.named_parameters():
        if name.endswith((".down", ".up")):
            weight.copy_(on_grid(weight))


def write(model: Bridge, bundle: Bundle, pairs: Sequence[TokenPair], path: Path) -> None:
    """The graph with its metadata at `path`. Raises SottovoceError when it does not say what torch says."""
    model.eval()
    graph = BridgeGraph(copy.deepcopy(model)).eval()
    for module in graph.modules():  # fixed matrices become named, shared tensors instead of a copy at every use
        module._non_persistent_buffers_set.clear()
    state = model.initial_state(1)
    inputs = ["codes", "at", *(f"state_in.{name}" for name in state)]
    outputs = ["frames", "places", *(f"state_out.{name}" for name in state)]
    outputs += [OWN + name for name, _ in model.own.named_parameters()]
    time, place = {0: "frames"}, {0: "places"}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and of branches on shapes that never change here
        torch.onnx.export(
            graph,
            (model.blank().repeat(5, 1), torch.arange(3), *state.values()),
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={"codes": time, "frames": time, "at": place, "places": place},
            opset_version=OPSET,
            do_constant_folding=False,  # weights would be stored turned round, off their rows' grid
            dynamo=False,
        )
    finish(path, _metadata(model, bundle))
    _require_parity(model, path, pairs)
    _require_trainable(model, path)


def _metadata(model: Bridge, bundle: Bundle) -> dict[str, str]:
    return {
        "format_version": str(FORMAT_VERSION),
        "role": ROLE,
        "recogniser": RECOGNISER,
        "codec_id": codec_id(bundle),
        "sample_rate_hz": str(bundle.config.sample_rate_hz),
        "hop_samples": str(bundle.config.hop),
        "gain_rows": str(bundle.config.bands),
        LATE: str(model.config.lookahead),
        PLACES: str(bridge.PLACES),
        "config": json.dumps(asdict(model.config)),
        "codec": json.dumps(bundle.config.to_dict()),
    }


@torch.no_grad()
def _require_parity(model: Bridge, path: Path, pairs: Sequence[TokenPair]) -> None:
    """Hop by hop in ONNX Runtime against the whole in torch. Raises SottovoceError."""
    rows = model.config.rows(model.codec)
    try:
        bridge = TokenBridge(path)
        if any(not np.array_equal(bridge.own[name], weight.numpy()) for name, weight in model.own.named_parameters()):
            raise SottovoceError("not exported: the blocks' weights are not torch's; look for what changed")
        for pair in pairs[:CHECKED]:
            codes = pair.codes[:, :rows].astype(np.int64)
            here = model.whole(torch.from_numpy(codes)[None])[0].numpy()
            there = _streamed(bridge, codes)
            worst = float(np.abs((there - here) / model.scale.numpy()).max())
            if worst > TOLERANCE:
                raise SottovoceError(f"not exported: frames differ by {worst:.2g} from torch; look for what changed")
    except LOAD_ERRORS as error:
        raise SottovoceError(f"not exported: the graph does not run ({error}); look for what changed") from error


def _require_trainable(model: Bridge, path: Path) -> None:
    """That training can go on from the graph. Raises SottovoceError.

    Weights that are alike, as before any training, are stored once there, and the others could not be found again.
    """
    try:
        again = load_shipped(path)
    except SottovoceError as error:
        raise SottovoceError("not exported: some of its weights are all alike; train the bridge first") from error
    for (name, weight), other in zip(model.named_parameters(), again.parameters(), strict=True):
        if not torch.allclose(weight, other, atol=1e-6):
            raise SottovoceError(f"not exported: {name} is read back as something else; look for what changed")


def _streamed(bridge: TokenBridge, codes: np.ndarray) -> np.ndarray:
    """Frames [T, width] of codes [T, K] that come in PIECES, without their places."""
    whole = np.concatenate([codes, np.tile(bridge.blank, (bridge.lookahead, 1))])
    state, parts, at = bridge.first_state(), list[np.ndarray](), 0
    while at < len(whole):
        size = PIECES[len(parts) % len(PIECES)]
        made, state = bridge.run(whole[at : at + size], state)
        parts.append(made)
        at += size
    return np.concatenate(parts)[bridge.lookahead :]


def load_shipped(path: Path) -> Bridge:
    """The bridge of an exported graph, which training goes on from. Raises SottovoceError."""
    try:
        graph = onnx.load(str(path))
        about = {entry.key: entry.value for entry in graph.metadata_props}
        raw = {tensor.name: tensor for tensor in graph.graph.initializer}
        model = Bridge(config_from(json.loads(about["config"])), config_from_dict(json.loads(about["codec"])))
        with torch.no_grad():
            for name, weight in model.named_parameters("bridge"):
                weight.copy_(torch.from_numpy(unpacked(raw, name).copy()))
            for band in range(model.codec.bands):
                stored = unpacked(raw, f"bridge.shapes.book_{band}")
                values = torch.from_numpy(stored.copy()).float()
                model.shapes.books(band).copy_(values / GRID if stored.dtype == np.int8 else values)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SottovoceError(f"{path} is not of these networks ({error}); install Sottovoce again") from error
    return model


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.export_bridge", description="The bridge's graph.")
    parser.add_argument("--checkpoint", type=Path, default=cache_dir() / "bridge" / "bridge.pt")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    target = assets_dir() / f"{ROLE}.onnx"
    beside = target.with_suffix(".part")
    try:
        bundle = checkpoint.load_shipped()
        model = load_trained(args.checkpoint, bundle)
        snap(model)
        pairs = list(read_blocks("validation"))
        if not pairs:
            raise SottovoceError(
                "there are no pairs to check with; run python -m models.token_pairs --split validation"
            )
        write(model, bundle, pairs, beside)
        beside.replace(target)
        _record(target, args.checkpoint.with_name(LOG_NAME))
    except SottovoceError as problem:
        beside.unlink(missing_ok=True)
        print(problem, file=sys.stderr)
        return 1
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    return 0


def _record(target: Path, log: Path) -> None:
    """The manifest's rows of the graph, and of the log of its training where it is there."""
    manifest = target.with_name("manifest.toml")
    blocks, checks = (sum(1 for _ in folder(split).glob("*.npz")) for split in ("train", "validation"))
    update_row(
        name=ROLE,
        file=target.name,
        kind="model",
        license="MIT",
        ancestors=[
            "Whisper base (Radford et al. 2022, MIT): trained on what its encoder makes of clean voices; what its own"
            " blocks add is added to those of that encoder"
        ],
        data=sorted(sources_of("train")),
        command=COMMAND.format(blocks=blocks, checks=checks),
        manifest=manifest,
    )
    if log.is_file():
        shutil.copy(log, target.with_name(BRIDGE_LOG))
        row = {"name": LOG_ROW, "file": BRIDGE_LOG, "kind": "log", "license": "MIT"}
        update_row(manifest=manifest, **row, command="python -m models.train_bridge --fresh")


if __name__ == "__main__":
    sys.exit(main())
