"""What each part of the refiner buys, from equal, short trainings: `python -m models.ablate --out DIR [--steps 120]`.

Every variant starts untrained, hears the same clips in the same order (those about data hear their own), takes the
same number of steps, and is judged on the same validation mixtures. The frozen parts are the shipped ones. Ctrl-C
keeps the rows that are done in DIR/ablation.csv; the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track
from torch import Tensor

from models import metrics, training
from models.checkpoint import Bundle, load_shipped
from models.feed import through_tokens, training_clips, voices
from models.losses import LossWeights
from models.mixing import MixConfig, Mixer
from models.perceptual import LoudnessDistance
from models.refiner import Refiner
from models.shards import Clip, load, write_beside
from models.tables import table
from models.train import aligned, loss_of, refine

SEED = 5
BATCH = 16
JUDGED = 24  # validation mixtures of each kind
FEWEST_STEPS = 10  # the rate must have time to rise and fall
RATE = 1e-3  # of learning: untrained refiners take larger steps than the long training does
FIGURES = {"gain_db": "SI-SDR gain, dB", "pesq": "PESQ-WB", "estoi": "ESTOI", "ovrl": "OVRL"}
KINDS = {
    "noise": MixConfig(clean=0.0, no_voice=0.0, babble=0.0, snr_db=(-5.0, 15.0)),
    "talkers": MixConfig(clean=0.0, no_voice=0.0, babble=1.0, babble_snr_db=(0.0, 15.0)),
}
console = Console(stderr=True)


@dataclass(frozen=True)
class Variant:
    """What differs from the shipped recipe.

    given: what becomes of clips [SIGNALS, B, N] before the refiner sees them; mix: of what the mixer draws.
    """

    name: str
    given: Callable[[Tensor], Tensor] = lambda clips: clips
    loss: LossWeights = field(default_factory=LossWeights)
    mix: MixConfig = field(default_factory=MixConfig)
    units: int | None = None
    blends: bool = True
    asks: bool = True
    talkers: float = 1.0
    trained: bool = True


def without(*signals: int) -> Callable[[Tensor], Tensor]:
    """Clips in which some signals are silent; 2 is the decoded voice, 3 the decoded background."""

    def silence(clips: Tensor) -> Tensor:
        kept = torch.ones(len(clips), 1, 1)
        kept[list(signals)] = 0.0
        return clips * kept

    return silence


VARIANTS = (
    Variant("all"),
    Variant("no training: tokens' gain alone", trained=False, blends=False, asks=False),
    Variant("no tokens: the second opinion and a network on the mixture", given=without(2, 3), blends=False),
    Variant("neither tokens nor second opinion", given=without(2, 3), blends=False, asks=False),
    Variant("no background tokens", given=without(3)),
    Variant("no decoded voice blended in", blends=False),
    Variant("no second opinion", asks=False),
    Variant("no loss on spectra", loss=LossWeights(spectral=0.0)),
    Variant("no loss on loudness", loss=LossWeights(heard=0.0)),
    Variant("half the units", units=128),
    Variant("half as many units again", units=384),
    Variant("no talkers as noise", mix=MixConfig(babble=0.0)),
    Variant("no rooms, no microphones", mix=MixConfig(room=0.0, microphone=0.0)),
    Variant("a quarter of the talkers", talkers=0.25),
)


def heard(bundle: Bundle, mixture: Tensor, voice: Tensor) -> Tensor:
    """Mixtures and voices [B, N] -> clips as the feed gives them, [SIGNALS, B, N]."""
    _, speech, background = through_tokens(bundle, mixture)
    return torch.stack([mixture, voice, speech, background])


@torch.no_grad()
def pool(bundle: Bundle, clips: tuple[list[Clip], list[Clip]], mix: MixConfig, batches: int) -> list[Tensor]:
    """Training batches that have been through the frozen parts."""
    mixer = Mixer(*clips, mix, SEED)
    drawn = (mixer.batch(BATCH) for _ in range(batches))
    return [heard(bundle, *map(torch.from_numpy, pair)).half() for pair in drawn]


@torch.no_grad()
def judged(bundle: Bundle) -> dict[str, Tensor]:
    """Validation clips of each kind."""
    sound = voices("validation"), load("validation", "background")
    drawn = {name: Mixer(*sound, mix, SEED).batch(JUDGED) for name, mix in KINDS.items()}
    return {name: heard(bundle, *map(torch.from_numpy, pair)) for name, pair in drawn.items()}


def some_talkers(clips: list[Clip], share: float) -> list[Clip]:
    """All clips of so large a share of the talkers, always the same ones."""
    names = sorted({clip.speaker for clip in clips})
    kept = set(np.random.default_rng(SEED).permutation(names)[: max(1, round(share * len(names)))])
    return [clip for clip in clips if clip.speaker in kept]


def train(bundle: Bundle, variant: Variant, batches: Sequence[Tensor], steps: int) -> None:
    """A new refiner for the bundle, trained on the batches in turn."""
    torch.manual_seed(SEED)
    config = replace(bundle.config, refiner_units=variant.units or bundle.config.refiner_units)
    opinion = bundle.refiner.opinion
    bundle.refiner = Refiner(config)
    if variant.asks:
        bundle.refiner.opinion.load_state_dict(opinion.state_dict())
    else:
        torch.nn.init.zeros_(bundle.refiner.opinion.decode.weight).requires_grad_(False)
    for row, taken in ((1, variant.blends), (2, variant.asks)):
        if not taken:
            bundle.refiner.offset.data[row] = -30.0  # so far down that no gradient reaches it
    ear = LoudnessDistance(config.sample_rate_hz)
    optimizer = torch.optim.AdamW(bundle.refiner.parameters(), lr=RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    for step in track(range(steps if variant.trained else 0), variant.name, console=console):
        loss = loss_of(bundle, variant.given(batches[step % len(batches)].float()), ear, variant.loss)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bundle.refiner.parameters(), 3.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def scores(bundle: Bundle, clips: Tensor) -> dict[str, float]:
    """Means over clips [SIGNALS, B, N]."""
    mixture, voice, speech, background = clips
    refined, _ = refine(bundle, mixture, speech, background)
    lag = bundle.config.refined_lag
    rows = []
    for noisy, truth, out in zip(mixture.numpy(), voice.numpy(), aligned(refined, lag).numpy(), strict=True):
        noisy, truth = noisy[: len(out)], truth[: len(out)]
        gain = metrics.si_sdr(out, truth) - metrics.si_sdr(noisy, truth)
        rows.append((gain, metrics.pesq_wb(out, truth), metrics.estoi(out, truth), metrics.dnsmos(out).ovrl))
    return dict(zip(FIGURES, map(float, np.nanmean(rows, axis=0))))


def recipe_of(bundle: Bundle, steps: int, batches: int) -> str:
    """Changes with anything that would make two rows unequal, but for the code itself."""
    digest = hashlib.sha256(f"{steps} {batches} {SEED} {JUDGED} {RATE} {KINDS} {LossWeights()} {MixConfig()}".encode())
    for name, tensor in sorted(bundle.tensors().items()):
        if name.startswith(("codec.", "refiner.opinion.")):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:12]


def read(path: Path, recipe: str) -> dict[str, dict[str, str]]:
    """Rows of an earlier run of the same recipe, by variant."""
    with suppress(FileNotFoundError), path.open(newline="", encoding="utf-8") as file:
        return {row["variant"]: row for row in csv.DictReader(file) if row.get("recipe") == recipe}
    return {}


def keep(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write all rows beside the file and rename it."""
    text = io.StringIO()
    for number, row in enumerate(rows):
        writer = csv.DictWriter(text, list(row))
        if not number:
            writer.writeheader()
        writer.writerow(row)
    write_beside(path, text.getvalue().encode())


def run(out: Path, steps: int, batches: int) -> None:
    """All variants that are not there yet, then the table."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ablation.csv"
    bundle, sound = load_shipped(), training_clips()
    recipe = recipe_of(bundle, steps, batches)
    rows = read(path, recipe)
    tests, common = judged(bundle), pool(bundle, sound, MixConfig(), batches)
    for variant in VARIANTS:
        if variant.name in rows:
            continue
        own = common
        if variant.mix != MixConfig() or variant.talkers < 1.0:
            own = pool(bundle, (some_talkers(sound[0], variant.talkers), sound[1]), variant.mix, batches)
        train(bundle, variant, own, steps)
        found = {kind: scores(bundle, variant.given(clips)) for kind, clips in tests.items()}
        figures = {f"{kind} {name}": f"{value:.4f}" for kind, row in found.items() for name, value in row.items()}
        rows[variant.name] = {"variant": variant.name, "recipe": recipe, **figures}
        keep(path, rows.values())
    text = as_table(rows)
    (out / "ablation.md").write_text(text, encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 220).print(Markdown(text))


def as_table(rows: dict[str, dict[str, str]]) -> str:
    """The rows as Markdown, a line per variant."""
    columns = {f"{kind} {name}": f"{kind}: {title}" for kind in KINDS for name, title in FIGURES.items()}
    digits = {"estoi": 3, "gain_db": 1}
    lines = [
        [name, *(f"{float(row[c]):.{digits.get(c.split()[1], 2)}f}" for c in columns)] for name, row in rows.items()
    ]
    return table(["variant", *columns.values()], lines)


def status_of(out: Path, work: Callable[[], None]) -> int:
    """As models.training has it, of work that keeps in `out` what is done."""
    return training.status_of(work, f"stopped; {out} holds the variants that are done, the same command goes on")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.ablate", description="What each part of the refiner buys.")
    parser.add_argument("--out", type=Path, required=True, help="folder for ablation.csv and ablation.md")
    parser.add_argument("--steps", type=int, default=120, help="training steps of each variant")
    parser.add_argument("--batches", type=int, default=32, help=f"different batches of {BATCH} clips")
    args = parser.parse_args(arguments)
    if args.steps < FEWEST_STEPS or args.batches < 1:
        parser.error(f"--steps is {FEWEST_STEPS} or more, --batches 1 or more")
    return status_of(args.out, lambda: run(args.out, args.steps, args.batches))


if __name__ == "__main__":
    sys.exit(main())
