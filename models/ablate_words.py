"""What losses, codes and sampling buy in the quantiser inside Whisper: `python -m models.ablate_words --out DIR`.

The paper's Tables I (how frames are halved, how many codes) and II (which losses), from equal, short trainings: every
variant starts untrained, hears the same pairs in the same order for the same number of steps, and is judged on all
validation pairs. Ctrl-C keeps the rows that are done in DIR/ablation_words.csv; the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from models.ablate import FEWEST_STEPS, keep, read, status_of
from models.noise_vq import Sampling, VqConfig, VqWeights
from models.tables import table
from models.train_words import BATCH, SEED, Training, Words, frozen_words, stored_pairs
from models.training import rate_at
from models.word_pairs import KINDS, Heard

FIGURES = {
    "words": ("words, nats a token", 3),
    "alpha": ("clean codes' distance", 3),
    "beta": ("frames' distance", 3),
    "accuracy": ("kinds told", 3),
    "codes": ("codes in use", 2),
}
WARMUP_SHARE = 0.1  # of so short a training, whose rate would rise to its end else
console = Console(stderr=True)


@dataclass(frozen=True)
class Variant:
    """What differs from the paper's recipe with 1024 codes and means of two frames."""

    name: str
    weights: VqWeights = field(default_factory=VqWeights)
    sampling: Sampling = "mean"
    codes: int = 1024


VARIANTS = (
    Variant("all losses, 1024 codes, mean"),
    Variant("words alone", VqWeights(alpha=0.0, beta=0.0, noise=0.0)),
    Variant("words, kind", VqWeights(alpha=0.0, beta=0.0)),
    Variant("words, kind, alpha", VqWeights(beta=0.0)),
    Variant("words, kind, beta", VqWeights(alpha=0.0)),
    Variant("512 codes", codes=512),
    Variant("2048 codes", codes=2048),
    Variant("convolution", sampling="conv"),
    Variant("convolution and transformer", sampling="transformer"),
)


def measured(
    variant: Variant,
    base: VqConfig,
    words: Words,
    pairs: tuple[Sequence[Heard], Sequence[Heard]],
    steps: int,
    out: Path,
) -> dict[str, float]:
    """Train a new quantiser for so many steps on the first pairs, and judge it on the second."""
    torch.manual_seed(SEED)
    config = replace(base, sampling=variant.sampling, codes=variant.codes)
    training = Training(config, words, *pairs, folder=out, weights=variant.weights)
    warmup = max(1, round(WARMUP_SHARE * steps))
    for step in track(range(steps), variant.name, console=console):
        training.one_step(rate_at(step, step / steps, warmup))
    return training.judge()


def recipe_of(base: VqConfig, pairs: tuple[Sequence[Heard], Sequence[Heard]], steps: int) -> str:
    """Changes with anything that would make two rows unequal, but for the code itself."""
    digest = hashlib.sha256(f"{base} {steps} {WARMUP_SHARE} {SEED} {BATCH} {[len(part) for part in pairs]}".encode())
    for part in pairs:
        for pair in part:
            digest.update(pair.tokens.tobytes() + pair.noisy[:1].tobytes())
    return digest.hexdigest()[:12]


def run(
    out: Path, steps: int, base: VqConfig, words: Words, pairs: tuple[Sequence[Heard], Sequence[Heard]]
) -> dict[str, dict[str, str]]:
    """All variants that are not there yet: a row each, by name."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ablation_words.csv"
    recipe = recipe_of(base, pairs, steps)
    rows = read(path, recipe)
    for variant in VARIANTS:
        if variant.name not in rows:
            found = measured(variant, base, words, pairs, steps, out)
            figures = {name: f"{found[name]:.4f}" for name in FIGURES}
            rows[variant.name] = {"variant": variant.name, "recipe": recipe, **figures}
            keep(path, rows.values())
    return rows


def as_table(rows: dict[str, dict[str, str]]) -> str:
    """The rows as Markdown, a line per variant."""
    lines = [
        [name, *(f"{float(row[figure]):.{digits}f}" for figure, (_, digits) in FIGURES.items())]
        for name, row in rows.items()
    ]
    return table(["variant", *(title for title, _ in FIGURES.values())], lines)


def write_table(out: Path, steps: int) -> None:
    """All variants on the stored pairs, and their table in `out`. Raises SottovoceError, OSError."""
    pairs = list(stored_pairs("train")), list(stored_pairs("validation"))
    text = as_table(run(out, steps, VqConfig(classes=len(KINDS)), frozen_words(), pairs))
    (out / "ablation_words.md").write_text(text, encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 160).print(Markdown(text))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.ablate_words", description="What each part buys in words.")
    parser.add_argument("--out", type=Path, required=True, help="folder for ablation_words.csv and ablation_words.md")
    parser.add_argument("--steps", type=int, default=100, help="training steps of each variant")
    args = parser.parse_args(arguments)
    if args.steps < FEWEST_STEPS:
        parser.error(f"--steps is {FEWEST_STEPS} or more")
    return status_of(args.out, lambda: write_table(args.out, args.steps))


if __name__ == "__main__":
    sys.exit(main())
