"""Train the quantiser that goes inside Whisper: `python -m models.train_words [--minutes 60] [--fresh]`.

    python -m models.word_pairs --blocks 60                       # once: what Whisper hears
    python -m models.word_pairs --blocks 6 --split validation
    python -m models.train_words

The four losses of the paper: the words, written by Whisper's own decoder (frozen, as its encoder is) from what the
latent decoder gives it; alpha and beta, which hold a noisy sound's codes to the clean one's; and the kind of noise,
told from the residue, with less weight the better that is told on validation. It begins fitted (models.vq_start).
Ctrl-C or SIGTERM saves; the same command goes on. models.train_kinds comes next, and leaves the codes as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.paths import cache_dir
from engine.types import SottovoceError
from engine.whisper_blocks import ending
from models import vq_start
from models.grown_decoder import GrownDecoder
from models.noise_vq import NoiseVq, VqConfig, VqWeights, alpha_loss, beta_loss, downsampled, noise_weight
from models.sources import Split
from models.train_kinds import FRAMES, side_by_side, stretch
from models.training import alike, best_device, descend, in_bfloat16, log_row, rate_at, set_rate, status_of
from models.word_pairs import KINDS, Heard, read_blocks

SEED = 3
BATCH, NEAR = 12, 48  # pairs of a step, drawn from so many of about one length
NEW_RATE, RATE, BETAS = 1e-3, 2e-4, (0.9, 0.95)  # of what begins from nothing, and of what begins fitted
FITTED_SHARE = 0.1  # of the rate, for what is fitted itself: at all of it, codes were lost within 200 steps
DECAY = 0.98  # of the codes' running means: a step here has two frames of each
RANK, ASIDE = 12, 24  # see VqConfig
KIND_TOKENS = FRAMES // 2
EVALUATE_EVERY = 150
IGNORED = -100  # targets that count for nothing


@dataclass(frozen=True)
class Batch:
    """Pairs side by side: clean, noisy [B, T, width], there [B, T], tokens in, targets [B, L], kinds [B]."""

    clean: Tensor
    noisy: Tensor
    there: Tensor
    tokens: Tensor
    targets: Tensor
    kinds: Tensor


class Words:
    """Whisper's text decoder, frozen: how likely the words are, given what stands for the sound."""

    def __init__(self, model: Any, starts: dict[str, list[int]]) -> None:
        model.requires_grad_(False)
        self._decoder, self._starts = model.decoder, starts
        self.ending = ending(model.encoder)
        self.device = next(model.decoder.parameters()).device

    def batch(self, pairs: Sequence[Heard]) -> Batch:
        """Pairs as tensors where the decoder is; what is shorter is filled up with what is not there."""
        longest = max(len(pair.clean) for pair in pairs)
        said = [[*self._starts[pair.language], *pair.tokens.tolist()] for pair in pairs]
        most = max(map(len, said)) - 1
        end = said[0][-1]
        tokens, targets = torch.full((len(pairs), most), end), torch.full((len(pairs), most), IGNORED)
        there = torch.zeros(len(pairs), longest, dtype=torch.bool)
        for row, (pair, words) in enumerate(zip(pairs, said, strict=True)):
            there[row, : len(pair.clean)] = True
            tokens[row, : len(words) - 1] = torch.tensor(words[:-1])
            first = len(self._starts[pair.language]) - 1  # the start is given, not guessed
            targets[row, first : len(words) - 1] = torch.tensor(words[first + 1 :])
        clean, noisy = (side_by_side([getattr(pair, name) for pair in pairs], longest) for name in ("clean", "noisy"))
        kinds = torch.tensor([pair.kind for pair in pairs])
        return Batch(*(part.to(self.device) for part in (clean, noisy, there, tokens, targets, kinds)))

    def loss(self, sound: Tensor, batch: Batch, every: int = 1) -> Tensor:
        """Cross entropy of the words, in nats a token, given [B, T, width] in place of W(X).

        every: only each so many rows are asked; the decoder is most of what a step costs.
        """
        logits = self._decoder(batch.tokens[::every], sound[::every])
        return functional.cross_entropy(logits.flatten(0, 1), batch.targets[::every].flatten(), ignore_index=IGNORED)

    def hearing(self) -> Tensor:
        """A [width, width] so that |x A| is how much of a frame x reaches the decoder: the length of all the keys and
        values that its layers make of it."""
        layers = [block.cross_attn for block in self._decoder.blocks]
        made = torch.cat([part.weight for layer in layers for part in (layer.key, layer.value)])
        together = made.T @ made
        ridge = 1e-3 * together.diagonal().mean() * torch.eye(len(together), device=self.device)
        return torch.linalg.cholesky(together + ridge)


@dataclass(frozen=True)
class Losses:
    """The parts, each as it is before its weight; accuracy: of the kind of noise."""

    words: Tensor
    alpha: Tensor
    beta: Tensor
    noise: Tensor
    accuracy: float

    def total(self, weights: VqWeights, told: float) -> Tensor:
        """Their sum; told: how well the noise is told on validation, 0..1."""
        held = weights.alpha * self.alpha + weights.beta * self.beta
        return self.words + held + noise_weight(weights, told) * self.noise


def stretch_of(there: Tensor, random: np.random.Generator | None) -> Tensor:
    """A mask of KIND_TOKENS in a row of those there are [B, T]: anywhere, or without `random` the last ones."""
    spare = (there.sum(1) - KIND_TOKENS).clamp(min=0).cpu().numpy()
    return stretch(there, spare if random is None else random.integers(0, spare + 1), KIND_TOKENS)


def losses(model: NoiseVq, words: Words, batch: Batch, random: np.random.Generator | None = None) -> Losses:
    """All four on a batch; beta is a mean over Whisper's dimensions. The kind is told from KIND_TOKENS of each pair."""
    said = downsampled(batch.there)
    with in_bfloat16(words.device):  # on a CPU 5.3 s of a step become 2.2
        decoded, quantised, logits = model(batch.noisy, batch.there, stretch_of(said, random))
        with torch.no_grad():
            clean = model.encoder(batch.clean, batch.there)
        written = words.loss(decoded, batch, every=2 if random is not None else 1)
    decoded, logits = decoded.float(), logits.float()
    return Losses(
        written,
        alpha_loss(clean, quantised, said),
        beta_loss(batch.clean, decoded, batch.there) / batch.clean.shape[2],
        functional.cross_entropy(logits, batch.kinds),
        float((logits.argmax(1) == batch.kinds).float().mean()),
    )


class Training:
    """One run: the quantiser, its optimiser, the pairs, and where things are written."""

    def __init__(
        self,
        config: VqConfig,
        words: Words,
        train: Sequence[Heard],
        validation: Sequence[Heard],
        folder: Path,
        weights: VqWeights | None = None,
    ) -> None:
        self.model, self.words, self.weights = NoiseVq(config).to(words.device), words, weights or VqWeights()
        if isinstance(self.model.decoder, GrownDecoder):
            self.model.decoder.grow(words.ending)
        self.train, self.validation = sorted(train, key=lambda pair: len(pair.clean)), validation
        self.optimizer = self._new_optimizer()
        self.step, self.told = 0, 0.0
        self.path, self.log = folder / "vq.pt", folder / "training.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._random = np.random.default_rng(SEED)

    def resume(self) -> bool:
        """Go on from what was saved; False when there is nothing. Raises SottovoceError when it does not fit."""
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return False
        try:
            self.model.load_state_dict(saved["model"])
            if "optimizer" in saved:  # models.train_kinds leaves none
                self.optimizer.load_state_dict(saved["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise SottovoceError(f"{self.path} is of other networks; begin anew with --fresh") from error
        self.step, self.told = saved["step"], saved["told"]
        return True

    def save(self) -> None:
        """Beside and renamed."""
        beside = self.path.with_suffix(".part")
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**states, "step": self.step, "told": self.told, "config": asdict(self.model.config)}, beside)
        beside.replace(self.path)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        fitted = {id(weight) for weight in self.model.fitted()}
        weights = list(self.model.parameters())
        groups = [
            {"params": [weight for weight in weights if id(weight) in fitted], "share": FITTED_SHARE},
            {"params": [weight for weight in weights if id(weight) not in fitted], "share": 1.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], betas=BETAS, weight_decay=1e-2)

    def one_step(self, rate: float) -> Losses:
        """A step at a share of the full rate."""
        self.model.train()
        set_rate(self.optimizer, (RATE if self.model.fitted() else NEW_RATE) * rate)
        chosen = alike(self.train, BATCH, NEAR, self._random)
        found = losses(self.model, self.words, self.words.batch(chosen), self._random)
        descend(self.optimizer, found.total(self.weights, self.told))
        self.step += 1
        return found

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Means over validation: the losses, and how often the noise is told; and the share of codes in use."""
        self.model.eval()
        rows, used = list[Losses](), set[int]()
        ordered = sorted(self.validation, key=lambda pair: len(pair.clean))
        batches = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
        for batch in map(self.words.batch, batches):
            rows.append(losses(self.model, self.words, batch))
            used |= set(self.model.quantise(batch.noisy, batch.there).indices.flatten().tolist())
        names = ("words", "alpha", "beta", "noise", "accuracy")
        shares = np.array([len(batch) for batch in batches]) / len(ordered)
        figures = {name: float(np.dot(shares, [float(getattr(row, name)) for row in rows])) for name in names}
        return figures | {"codes": len(used - {self.model.config.codes}) / self.model.config.codes}

    def plain(self) -> float:
        """Cross entropy of the words on noisy validation with Whisper alone, for comparison."""
        with torch.no_grad():
            batches = [self.words.batch(self.validation[at : at + 1]) for at in range(len(self.validation))]
            return float(np.mean([float(self.words.loss(batch.noisy, batch)) for batch in batches]))

    def report(self, began: float) -> None:
        """Judge, log and save. began: when this did, by time.monotonic."""
        figures = self.judge()
        self.told = figures["accuracy"]
        figures = {name: round(value, 4) for name, value in figures.items()}
        log_row(self.log, {"step": self.step, "wall_s": round(time.monotonic() - began), **figures})
        self.save()

    def run(self, minutes: float) -> None:
        """Steps until the minutes are over or somebody stops it; saves either way."""
        began = time.monotonic()
        print(json.dumps({"whisper_alone": round(self.plain(), 4)}), flush=True)
        self.report(began)
        first, start = self.step, time.monotonic()
        try:
            while (done := (time.monotonic() - start) / (60 * minutes)) < 1.0:
                self.one_step(rate_at(self.step - first, done))
                if self.step % EVALUATE_EVERY == 0:
                    self.report(began)
        except KeyboardInterrupt:
            print("stopped", flush=True)
        self.report(began)


def frozen_base() -> tuple[Any, Words]:
    """Whisper base, on a GPU where there is one, and its decoder. Raises ArtefactError without its weights."""
    from engine.weights import require_weights
    from engine.whisper_decoder import WhisperDecoder, load_model
    from models.word_pairs import SHARES

    weights = require_weights("base")
    model = load_model(weights.path, weights.format, weights.name)
    reader = WhisperDecoder(model, int8=False)
    starts = {name: list(reader.tokenizer(name).sot_sequence_including_notimestamps) for name in SHARES}
    return model, Words(model.to(best_device()), starts)


def frozen_words() -> Words:
    """Whisper base's decoder, as `frozen_base`."""
    return frozen_base()[1]


def stored_pairs(split: Split) -> Iterator[Heard]:
    """Every pair of a split from the cache. Raises SottovoceError where there is none."""
    found = False
    for pair in read_blocks(split):
        found = True
        yield pair
    if not found:
        raise SottovoceError(f"there are no {split} pairs yet; run python -m models.word_pairs --split {split}")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.train_words", description="Train Whisper's quantiser.")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many minutes")
    parser.add_argument("--fresh", action="store_true", help="begin anew; what was there is kept as vq.before.pt")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="on so many processors")
    parser.add_argument("--sampling", choices=("mean", "conv", "transformer"), default="mean")
    parser.add_argument("--codes", type=int, choices=(512, 1024, 2048), default=2048)
    args = parser.parse_args(arguments)
    torch.manual_seed(SEED)

    def work() -> None:
        torch.set_num_threads(args.threads)
        config = VqConfig(
            codes=args.codes, sampling=args.sampling, decay=DECAY, classes=len(KINDS), rank=RANK, aside=ASIDE
        )
        pairs = list(stored_pairs("train")), list(stored_pairs("validation"))
        training = Training(config, frozen_words(), *pairs, folder=cache_dir() / "words")
        if args.fresh:
            for path in (training.path, training.log):
                if path.exists():
                    path.replace(path.with_suffix(f".before{path.suffix}"))
        if not training.resume():
            vq_start.fit(training.model, training.words, vq_start.seen())
        training.run(args.minutes)

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
