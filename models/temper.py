"""Take a trained refiner part of the way back to where it started: `python -m models.temper IN.npz OUT.npz`.

A short training learns its noises faster than its voices; between the gain it began as and the weights it ended
with lies a refiner that is better on both (weight averaging after Wortsman et al. 2022). The two shares are chosen on
validation mixtures and written into the checkpoint's history.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from models.checkpoint import load_bundle, save_bundle


def main(
    source: Annotated[Path, typer.Argument(help="a trained checkpoint")],
    target: Annotated[Path, typer.Argument(help="where to write the tempered one")],
    slope: Annotated[float, typer.Option(help="factor on the trust in the tokens' level ratio")] = 0.7,
    learned: Annotated[float, typer.Option(help="factor on what the network adds")] = 0.5,
) -> None:
    """Scale the refiner's two terms and save."""
    bundle = load_bundle(source)
    refiner = bundle.refiner
    with torch.no_grad():
        refiner.slope.mul_(slope)
        for part in (refiner.offset, refiner.output.weight, refiner.output.bias):
            part.mul_(learned)
    save_bundle(bundle, target)
    print(f"wrote {target}: slope x {slope}, learned x {learned}, step {bundle.step}")


if __name__ == "__main__":
    typer.run(main)
