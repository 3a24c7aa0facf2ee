"""Teach the quantiser inside Whisper the kinds of noise, alone: `python -m models.train_kinds [--minutes 30]`.

    python -m models.word_pairs --windows --blocks 80                       # once: what Whisper hears
    python -m models.word_pairs --windows --blocks 8 --split validation
    python -m models.train_kinds && python -m models.export_words

A step costs a tenth of one with words (models.train_words), and telling kinds of noise needs many. It goes on from what
training left in the cache, or else from the shipped graph. What is kept is the mean of the weights along the way
(Polyak 1992), as it was when most validation windows were told. Ctrl-C or SIGTERM saves.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.paths import assets_dir, cache_dir
from engine.residue import ROLE, WINDOW_S
from engine.types import SottovoceError
from models.config import LOG_NAME
from models.noise_vq import NoiseVq, alpha_loss, downsampled
from models.shards import SPLITS
from models.training import best_device, descend, in_bfloat16, log_row, rate_at, set_rate, status_of
from models.word_pairs import CLEAN, FRAMES_PER_S, KIND_OF, KINDS, UNKNOWN, Heard, read_blocks

SEED = 3
RATE, BATCH, DECAY, ALPHA = 1e-3, 48, 0.3, 0.1
# There are few recordings of each kind, and without these every one is known by heart in 500 steps: what is dropped of
# the residue and of what the kind is decided by, the shortest stretch that must do, and what is left to other kinds.
DROPPED, SUMMARY_DROPPED, LEAST_TOKENS, SMOOTHING = 0.1, 0.3, 15, 0.1
FRAMES = round(WINDOW_S * FRAMES_PER_S)  # as live
MEMORY = 0.995  # of the running mean of the weights, a step
JUDGE_EVERY = 200
TOLD = [number for number, kind in enumerate(KINDS) if kind != KIND_OF[UNKNOWN]]


class KindTraining:
    """Encoder and classifier of a quantiser on FRAMES of many pairs: the kind, and codes that stay the clean sound's.

    The codes stand still: where they move, so does the residue, and on validation .50 of the kinds were told in place
    of .67. Where latents are left aside, these alone are learned, and the kinds are told as well (.68 against .67);
    where the kinds moved the others, even at a tenth of the rate, the words were lost: 5.5 nats a token for 3.2.
    """

    def __init__(self, model: NoiseVq, pairs: Sequence[Heard], random: np.random.Generator) -> None:
        self.model, self.pairs = model, pairs
        self._random, self._share = random, shares(pairs)
        self.device = next(model.parameters()).device
        self._parts = trained_parts(model)
        self._optimizer = torch.optim.AdamW(self._parts, lr=RATE, weight_decay=DECAY)
        self._mean = [part.detach().clone() for part in self._parts]
        self.step = 0

    def one_step(self, rate: float) -> float:
        """A step at a share of the full rate; the loss."""
        self.model.train()
        self.model.codebook.eval()
        set_rate(self._optimizer, RATE * rate)
        chosen = [self.pairs[i] for i in self._random.choice(len(self.pairs), BATCH, p=self._share)]
        loss = descend(self._optimizer, self.loss(chosen))
        self.step += 1
        memory = min(MEMORY, self.step / (self.step + 10.0))
        with torch.no_grad():
            for mean, part in zip(self._mean, self._parts, strict=True):
                mean.lerp_(part, 1.0 - memory)
        return loss

    def loss(self, pairs: Sequence[Heard]) -> Tensor:
        """Of the same FRAMES from anywhere in both sounds of each pair."""
        clean, noisy, there = (part.to(self.device) for part in pieces(pairs, self._random))
        with in_bfloat16(self.device):
            quantised = self.model.quantise(noisy, there)
            said = downsampled(there)
            summary = self.model.classifier.summary(
                functional.dropout(quantised.residue, DROPPED), some_of(said, self._random)
            )
            logits = self.model.classifier.decide(functional.dropout(summary, SUMMARY_DROPPED))
            with torch.no_grad():
                target = self.model.encoder(clean, there)
        held = ALPHA * alpha_loss(target, quantised, said)
        kinds = torch.tensor([pair.kind for pair in pairs], device=self.device)
        return held + functional.cross_entropy(logits.float(), kinds, label_smoothing=SMOOTHING)

    @torch.no_grad()
    def keep_mean(self) -> None:
        """Put the running mean in the weights' place."""
        for mean, part in zip(self._mean, self._parts, strict=True):
            part.copy_(mean)

    @torch.no_grad()
    def averaged(self) -> NoiseVq:
        """A copy with the running mean in the weights' place."""
        model = copy.deepcopy(self.model).eval()
        for mean, part in zip(self._mean, trained_parts(model), strict=True):
            part.copy_(mean)
        return model

    def run(self, minutes: float, watch: Callable[[], None] = lambda: None) -> None:
        """Steps until the minutes are over; the running mean is what stays. watch: called every JUDGE_EVERY steps."""
        began = time.monotonic()
        try:
            while (done := (time.monotonic() - began) / (60 * minutes)) < 1.0:
                self.one_step(rate_at(self.step, done))
                if self.step % JUDGE_EVERY == 0:
                    watch()
        finally:
            self.keep_mean()


def shares(pairs: Sequence[Heard]) -> NDArray[np.float64]:
    """How often each pair is drawn, [N], one in all: rare kinds more often than they come, by the root (Mahajan 2018).

    Not so what is unknown: it may be anything.
    """
    kinds = np.array([pair.kind for pair in pairs])
    weight = 1.0 / np.sqrt(np.bincount(kinds, minlength=len(KINDS)).clip(min=1))
    weight[KINDS.index(KIND_OF[UNKNOWN])] = weight.min()
    drawn: NDArray[np.float64] = weight[kinds] / weight[kinds].sum()
    return drawn


def side_by_side(rows: Sequence[np.ndarray], longest: int) -> Tensor:
    """Frames [T, width] of several sounds as [B, longest, width], zeros where one is shorter."""
    whole = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for place, row in zip(whole, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(whole)


def pieces(pairs: Sequence[Heard], random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The same FRAMES from anywhere in both sounds of each pair -> clean, noisy [B, T, width], there [B, T]."""
    size = FRAMES
    starts = [int(random.integers(max(1, len(pair.noisy) - size + 1))) for pair in pairs]
    there = torch.zeros(len(pairs), size, dtype=torch.bool)
    for row, pair in enumerate(pairs):
        there[row, : len(pair.noisy)] = True
    cut = [
        side_by_side([getattr(p, name)[at : at + size] for p, at in zip(pairs, starts, strict=True)], size)
        for name in ("clean", "noisy")
    ]
    return cut[0], cut[1], there


def some_of(there: Tensor, random: np.random.Generator) -> Tensor:
    """A mask of a stretch of each row's tokens that are there [B, T], LEAST_TOKENS at least."""
    counts = there.sum(1).cpu().numpy()
    lengths = random.integers(np.minimum(counts, LEAST_TOKENS), counts + 1)
    return stretch(there, random.integers(0, counts - lengths + 1), lengths)


def stretch(there: Tensor, starts: NDArray[np.int64], lengths: NDArray[np.int64] | int) -> Tensor:
    """What lies in a stretch of each row [B] of those there are [B, T]."""
    place = torch.arange(there.shape[1], device=there.device)[None]
    first = torch.from_numpy(starts).to(there.device)[:, None]
    last = first + (lengths if isinstance(lengths, int) else torch.from_numpy(lengths).to(there.device)[:, None])
    return there & (place >= first) & (place < last)


def trained_parts(model: NoiseVq) -> list[torch.nn.Parameter]:
    """What is trained here: what finds the residue and tells kinds by it, but no code where latents are left aside."""
    finding = model.encoder.leave if model.config.aside else model.encoder
    return [*finding.parameters(), *model.classifier.parameters()]


@torch.no_grad()
def told(model: NoiseVq, windows: Sequence[Heard]) -> dict[str, float]:
    """Shares of windows whose kind is told, and of those told clean or not rightly; unknown ones are not asked."""
    asked = [window for window in windows if window.kind in TOLD]
    found = list[int]()
    for at in range(0, len(asked), BATCH):
        cut = pieces(asked[at : at + BATCH], np.random.default_rng(0))
        _, noisy, there = (part.to(next(model.parameters()).device) for part in cut)
        logits = model.classifier(model.quantise(noisy, there).residue, downsampled(there))
        found += logits.argmax(1).tolist()
    kinds, clean = np.array([window.kind for window in asked]), KINDS.index(CLEAN)
    guessed = np.array(found)
    by_kind = {KINDS[k]: float(np.mean(guessed[kinds == k] == k)) for k in np.unique(kinds)}
    parted = float(np.mean((kinds == clean) == (guessed == clean)))
    return {"told": float(np.mean(kinds == guessed)), "clean_or_not": parted, **by_kind}


def train(
    model: NoiseVq, pairs: Sequence[Heard], validation: Sequence[Heard], minutes: float, folder: Path
) -> dict[str, float]:
    """Train, print and log how well validation windows are told, and save what told most; its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    training, began = KindTraining(model, pairs, np.random.default_rng(SEED)), time.monotonic()
    best: tuple[dict[str, float], dict[str, Tensor]] = told(model.eval(), validation), copy.deepcopy(model.state_dict())

    def report(judged: NoiseVq) -> None:
        nonlocal best
        row = {name: round(value, 4) for name, value in told(judged, validation).items()}
        at = {"kinds_step": training.step, "wall_s": round(time.monotonic() - began)}
        log_row(folder / LOG_NAME, at | row)
        if row["told"] > best[0]["told"]:
            best = row, copy.deepcopy(judged.state_dict())

    try:
        training.run(minutes, watch=lambda: report(training.averaged()))
    except KeyboardInterrupt:
        print("stopped", flush=True)
    report(model.eval())
    model.load_state_dict(best[1])
    save(model, folder / "vq.pt")
    return best[0]


def save(model: NoiseVq, path: Path) -> None:
    """Beside and renamed; what else models.train_words keeps there stays, but for its optimiser."""
    before = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {"step": 0, "told": 0.0}
    before.pop("optimizer", None)
    torch.save(before | {"model": model.state_dict(), "config": asdict(model.config)}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def begin() -> NoiseVq:
    """The quantiser that training left in the cache, or else what is shipped."""
    from models.export_words import (
        WORDS_LOG,
        load_shipped,
        load_trained,
    )  # it takes its training from models.train_words

    path = cache_dir() / "words" / "vq.pt"
    if path.is_file():
        return load_trained(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(assets_dir() / WORDS_LOG, path.with_name(LOG_NAME))  # what comes is written behind it
    return load_shipped(assets_dir() / f"{ROLE}.onnx")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.train_kinds", description="Teach kinds of noise.")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so many minutes")
    args = parser.parse_args(arguments)
    torch.manual_seed(SEED)

    def work() -> None:
        windows = {split: list(read_blocks(split, windows=True)) for split in SPLITS}
        for split in SPLITS:
            if not windows[split]:
                wanted = f"python -m models.word_pairs --windows --split {split}"
                raise SottovoceError(f"there are no {split} windows yet; run {wanted}")
        train(begin().to(best_device()), windows["train"], windows["validation"], args.minutes, cache_dir() / "words")

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
