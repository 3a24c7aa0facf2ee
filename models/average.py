"""The mean of checkpoints that were trained on from the same one: `python -m models.average A.npz B.npz`.

Of the refiner and its second opinion (.npz), or of the quantiser inside Whisper (.pt).

Runs that go on from one state with different clips end on different sides of the same valley, and between them it is
deeper (Wortsman 2022): two second opinions that had gained .4 dB each on validation gained .6 together. Training goes
on from the mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from engine.paths import cache_dir
from engine.types import SottovoceError
from models.checkpoint import Bundle, load_bundle, save_bundle
from models.export_words import load_trained
from models.noise_vq import NoiseVq
from models.train_kinds import save


def averaged(bundles: list[Bundle]) -> Bundle:
    """The first of them with the mean of all weights. Raises ValueError where they differ in shape or in codebooks."""
    first, *others = bundles
    tensors = [bundle.tensors() for bundle in bundles]
    for other, theirs in zip(others, tensors[1:], strict=True):
        same = all(torch.equal(v, theirs[k]) for k, v in tensors[0].items() if ".book_" in k)
        if other.config != first.config or not same:
            raise ValueError("these checkpoints were not trained on from the same one")
    with torch.no_grad():
        for name, tensor in tensors[0].items():
            tensor.copy_(torch.stack([theirs[name] for theirs in tensors]).mean(0))
    first.step = max(bundle.step for bundle in bundles)
    return first


def averaged_quantisers(models: list[NoiseVq]) -> NoiseVq:
    """The first of them with the mean of all weights. Raises ValueError where they differ in shape or in codes."""
    first, *others = models
    states = [model.state_dict() for model in models]
    for other in others:
        if other.config != first.config or not torch.equal(other.codebook.vectors, first.codebook.vectors):
            raise ValueError("these checkpoints were not trained on from the same one")
    with torch.no_grad():
        for name, tensor in states[0].items():
            tensor.copy_(torch.stack([theirs[name] for theirs in states]).mean(0))
    return first


def _average_quantisers(checkpoints: list[Path], path: Path) -> None:
    try:
        save(averaged_quantisers([load_trained(checkpoint) for checkpoint in checkpoints]), path)
    except (OSError, ValueError, SottovoceError) as problem:
        typer.echo(f"not averaged: {problem}", err=True)
        raise typer.Exit(1) from None
    print(f"wrote {path}")


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="checkpoints (.npz, or all .pt), two or more")],
    out: Annotated[Path | None, typer.Option(help="default: where training goes on from, in the cache")] = None,
) -> None:
    """Write the mean; a full checkpoint that lies beside it is kept as before.pt."""
    if len(checkpoints) < 2:
        raise typer.BadParameter("two checkpoints or more")
    if all(checkpoint.suffix == ".pt" for checkpoint in checkpoints):
        _average_quantisers(checkpoints, out or cache_dir() / "words" / "vq.pt")
        return
    path = out or cache_dir() / "training" / "full.npz"
    try:
        mean = averaged([load_bundle(checkpoint) for checkpoint in checkpoints])
    except (OSError, ValueError) as problem:
        typer.echo(f"not averaged: {problem}", err=True)
        raise typer.Exit(1) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    save_bundle(mean, path)
    if (full := path.with_suffix(".pt")).exists():
        full.replace(full.with_stem("before"))
    print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
