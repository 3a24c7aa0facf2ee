"""Write what the engine runs of the quantiser inside Whisper: `python -m models.export_words [--checkpoint FILE]`.

    frames [1, T, width], T even ─► codes [T/2], energy_db [T/2], logits [kinds], point [2]; codebook [codes, latent]
                                 ─► entered [T, width]: what the block that decodes the codes begins with
    nothing                      ─► own.*: what is added to Whisper's last block to make it

From W(X) to the kind of noise (engine.residue), and to what stands in its place for the words (engine.adapter). The
block's weights but for what is added are the user's Whisper's and not in the graph. The point is where the residue lies
in a plane in which the kinds are far apart (Fisher 1936), fitted here on the training pairs together with each kind's
cloud. A gate compares the graph with torch before it is written.
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
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.artefacts import ORT_ERRORS, load_onnx
from engine.paths import assets_dir, cache_dir
from engine.residue import OWN, ROLE, WINDOW_S
from engine.types import SottovoceError
from models.checkpoint import on_grid, snapped, unpacked
from models.config import FORMAT_VERSION, LOG_NAME
from models.export import OPSET, finish
from models.grown_decoder import GrownDecoder
from models.manifest import update_row
from models.noise_vq import NoiseVq, VqConfig
from models.shards import SPLITS, load
from models.word_pairs import FRAMES_PER_S, KINDS, Heard, folder, language_of, read_blocks

RECOGNISER = "base"  # whose frames the pairs hold
RIDGE = 1e-3
TOLERANCE = 2e-3
WORDS_LOG = "words.jsonl"
SCALES = tuple(float(scale) for scale in np.geomspace(0.25, 8.0, 81))
LEAST_PIECES = 16  # of a kind, for its cloud to mean anything
COMMAND = (
    "python -m models.word_pairs --blocks 48 && python -m models.word_pairs --blocks 4 --split validation"
    " && python -m models.train_words --fresh --minutes 34 --sampling {sampling}"
    " && python -m models.word_pairs --windows --blocks {windows}"
    " && python -m models.word_pairs --windows --blocks {checks} --split validation"
    " && python -m models.train_kinds --minutes 5 && python -m models.export_words"
)


class ResidueGraph(nn.Module):
    """A trained quantiser but for Whisper's block, with the plane [2 * latent, 2] and its centre [2 * latent]."""

    vectors: Tensor
    plane: Tensor
    centre: Tensor

    def __init__(self, model: NoiseVq, plane: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.encoder, self.classifier, self.decoder = model.encoder, model.classifier, decoder_of(model)
        self.aside = model.config.aside > 0
        self.register_buffer("vectors", model.codebook.vectors.clone())
        self.register_buffer("plane", plane)
        self.register_buffer("centre", centre)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """frames [1, T, width], T even -> codes [T/2], energy_db [T/2], logits [K], point [2], codebook [codes, D],
        entered [T, width], what is added."""
        there = torch.ones_like(frames[:, :, 0])
        z = self.encoder(frames, there > 0)
        codes = (z @ self.vectors.T).argmax(2)
        residue = left = z - self.vectors[codes]
        if self.aside:
            residue = torch.cat([left, self.encoder.aside(frames, there > 0)], dim=2)
        summary = self.classifier.summary(residue, there[:, ::2])
        energy_db = 10 * torch.log10(left.square().sum(2) + 1e-6)
        point = (summary - self.centre) @ self.plane
        codebook = self.vectors + 0.0 * frames[0, 0, 0]  # an output that hangs on no input would lose its name
        entered = self.decoder.entered(self.vectors[codes], frames.shape[1])
        added = (weight * 1.0 for weight in self.decoder.own.parameters())  # an output may not be a weight itself
        listened = (codes[0], energy_db[0], self.classifier.decide(summary)[0], point[0], codebook)
        return (*listened, entered[0], *added)


def decoder_of(model: NoiseVq) -> GrownDecoder:
    """The latent decoder, as it can be shipped. Raises SottovoceError where its block is its own, which is large."""
    if not isinstance(model.decoder, GrownDecoder):
        raise SottovoceError("a latent decoder with a block of its own is not shipped; train anew with --fresh")
    return model.decoder


@torch.no_grad()
def snap(model: NoiseVq) -> None:
    """Round the weights as they are shipped, so that the graph holds exactly what was measured."""
    for part in (model.encoder, model.classifier, model.decoder):
        for weight in part.parameters():
            weight.copy_(snapped(weight))
    for name, weight in decoder_of(model).own.named_parameters():
        if name.endswith((".down", ".up")):
            weight.copy_(on_grid(weight))
    model.codebook.vectors.copy_(on_grid(model.codebook.vectors))


@torch.no_grad()
def summaries(model: NoiseVq, pairs: Sequence[Heard]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the kind is decided by [N, 2 * latent] of pieces of WINDOW_S of the noisy sounds, and their kinds [N].

    Whisper heard each piece with the rest of its pair around it; in the engine it hears the piece alone.
    """
    size = round(WINDOW_S * FRAMES_PER_S)
    rows, kinds = [], []
    for pair in pairs:
        frames = torch.from_numpy(pair.noisy.astype(np.float32))
        count = max(1, len(frames) // size)
        pieces = frames[: count * size].unflatten(0, (count, -1)) if len(frames) >= size else frames[None]
        there = torch.ones(pieces.shape[:2], dtype=torch.bool)
        quantised = model.quantise(pieces, there)
        half = torch.ones(quantised.z.shape[:2], dtype=torch.bool)
        rows.append(model.classifier.summary(quantised.residue, half).numpy())
        kinds += [pair.kind] * len(pieces)
    return np.concatenate(rows), np.array(kinds)


@torch.no_grad()
def make_honest(model: NoiseVq, windows: Sequence[Heard]) -> float:
    """Scale the logits so that the chances of windows that training never heard are as likely as they can be (Guo
    2017); by how much. Which kind is the likeliest does not change.
    """
    x, kinds = summaries(model, windows)
    logits = model.classifier.decide(torch.from_numpy(x))
    losses = [float(functional.cross_entropy(logits * scale, torch.from_numpy(kinds))) for scale in SCALES]
    best = SCALES[int(np.argmin(losses))]
    for weight in model.classifier.decide.parameters():
        weight.mul_(best)
    return float(best)


def fisher_plane(x: NDArray[np.float32], kinds: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The plane [D, 2] in which kinds are farthest apart for their width, which is one on average; and the centre [D].

    Fisher 1936, Rao 1948. x [N, D], kinds [N].
    """
    centre = x.mean(0)
    within = np.zeros((x.shape[1], x.shape[1]))
    between = np.zeros_like(within)
    for kind in np.unique(kinds):
        rows = x[kinds == kind]
        mean = rows.mean(0)
        within += (rows - mean).T @ (rows - mean) / len(x)
        between += len(rows) / len(x) * np.outer(mean - centre, mean - centre)
    within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    root = np.linalg.inv(np.linalg.cholesky(within))
    _, axes = np.linalg.eigh(root @ between @ root.T)
    return (root.T @ axes[:, :-3:-1]).astype(np.float32), centre.astype(np.float32)


def clouds(points: NDArray[np.floating], kinds: NDArray[np.int64]) -> dict[str, list[float]]:
    """Of each kind: mean x, y and covariance xx, xy, yy of its points [N, 2]."""
    found = {}
    for number, kind in enumerate(KINDS):
        rows = points[kinds == number]
        if len(rows) >= LEAST_PIECES:
            spread = np.cov(rows.T)
            values = (*rows.mean(0), spread[0, 0], spread[0, 1], spread[1, 1])
            found[kind] = [round(float(value), 4) for value in values]
    return found


def write(model: NoiseVq, pairs: Sequence[Heard], path: Path) -> None:
    """The graph with its metadata at `path`. Raises SottovoceError when it does not say what torch says."""
    model.eval()
    x, kinds = summaries(model, pairs)
    plane, centre = fisher_plane(x, kinds)
    graph = ResidueGraph(copy.deepcopy(model), torch.from_numpy(plane), torch.from_numpy(centre)).eval()
    frames = torch.from_numpy(pairs[0].noisy[: len(pairs[0].noisy) // 2 * 2].astype(np.float32))[None]
    outputs = ["codes", "energy_db", "logits", "point", "codebook", "entered"]
    outputs += [OWN + name for name, _ in decoder_of(model).own.named_parameters()]
    half = {0: "half"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and of branches on shapes that never change here
        torch.onnx.export(
            graph,
            (frames,),
            str(path),
            input_names=["frames"],
            output_names=outputs,
            dynamic_axes={"frames": {1: "frames"}, "codes": half, "energy_db": half, "entered": {0: "frames"}},
            opset_version=OPSET,
            do_constant_folding=False,  # weights would be stored turned round, off their rows' grid
            dynamo=False,
        )
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "role": ROLE,
        "recogniser": RECOGNISER,
        "kinds": json.dumps(KINDS),
        "clouds": json.dumps(clouds((x - centre) @ plane, kinds)),
        "frames_per_s": str(FRAMES_PER_S),
        "config": json.dumps(asdict(model.config)),
    }
    finish(path, metadata)
    _require_parity(graph, path, pairs)


@torch.no_grad()
def _require_parity(graph: ResidueGraph, path: Path, pairs: Sequence[Heard]) -> None:
    session = load_onnx(path)
    for pair in pairs[:4]:
        frames = pair.noisy[: len(pair.noisy) // 2 * 2].astype(np.float32)[None]
        try:
            there = session.run({"frames": frames})
        except ORT_ERRORS as error:
            raise SottovoceError(f"not exported: the graph does not run ({error}); look for what changed") from error
        here = graph(torch.from_numpy(frames))
        for name, value in zip(session.outputs, here, strict=True):
            worst = float(np.abs(there[name] - value.numpy()).max())
            if worst > TOLERANCE:
                raise SottovoceError(f"not exported: {name} differs by {worst:.2g} from torch; look for what changed")


def load_shipped(path: Path) -> NoiseVq:
    """The quantiser of an exported graph, which training goes on from. Raises SottovoceError."""
    load_onnx(path)  # tells a file that is not there, or cut
    try:
        graph = onnx.load(str(path))
        config = next(json.loads(entry.value) for entry in graph.metadata_props if entry.key == "config")
        raw = {tensor.name: tensor for tensor in graph.graph.initializer}
        model = NoiseVq(VqConfig(**config))
        with torch.no_grad():
            for part in ("encoder", "classifier", "decoder"):
                for name, weight in getattr(model, part).named_parameters(part):
                    weight.copy_(torch.from_numpy(unpacked(raw, name).copy()))
            model.codebook.vectors.copy_(torch.from_numpy(unpacked(raw, "vectors").copy()))
    except (StopIteration, KeyError, TypeError, RuntimeError) as error:
        raise SottovoceError(f"{path} is not of these networks ({error}); install Sottovoce again") from error
    return model


def load_trained(path: Path) -> NoiseVq:
    """What models.train_words saved. Raises SottovoceError when it is not there or is of other networks."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model = NoiseVq(VqConfig(**saved["config"]))
        model.load_state_dict(saved["model"])
    except FileNotFoundError:
        raise SottovoceError(f"{path} is not there; run python -m models.train_words first") from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise SottovoceError(f"{path} is of other networks; train anew with --fresh") from error
    return model


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.export_words", description="The residue's graph.")
    parser.add_argument("--checkpoint", type=Path, default=cache_dir() / "words" / "vq.pt", help="what training left")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    target = assets_dir() / f"{ROLE}.onnx"
    try:
        model = load_trained(args.checkpoint).eval()
        pairs, unheard = (list(read_blocks(split, windows=True)) for split in SPLITS)
        if not pairs or not unheard:
            raise SottovoceError("there is nothing to fit the plane on; run python -m models.word_pairs --windows")
        print(f"logits times {make_honest(model, unheard):.2f}")
        snap(model)
        beside = target.with_suffix(".part")
        write(model, pairs, beside)
        beside.replace(target)
        sources = {clip.source.split("/")[0] for clip in load("train", "speech") if language_of(clip)}
        sources |= {clip.source.split("/")[0] for clip in load("train", "background")}
        windows, checks = (sum(1 for _ in folder(split, windows=True).glob("*.npz")) for split in SPLITS)
        update_row(
            name=ROLE,
            file=target.name,
            kind="model",
            license="MIT",
            ancestors=[
                "Whisper base (Radford et al. 2022, MIT): its encoder's frames are what this was trained on; what its"
                " latent decoder adds is added to the last block of that encoder"
            ],
            data=sorted(sources),
            command=COMMAND.format(windows=windows, checks=checks, sampling=model.config.sampling),
            manifest=assets_dir() / "manifest.toml",
        )
        if (log := args.checkpoint.with_name(LOG_NAME)).is_file():
            shutil.copy(log, target.with_name(WORDS_LOG))
            row = {"name": "words", "file": WORDS_LOG, "kind": "log", "license": "MIT"}
            update_row(manifest=assets_dir() / "manifest.toml", **row, command="python -m models.train_words")
    except SottovoceError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
