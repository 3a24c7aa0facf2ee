"""Train the bridge from voice tokens into Whisper: `python -m models.train_bridge [--minutes 65] [--alone 13]`.

    python -m models.token_pairs --blocks 44                       # once: tokens, and what Whisper hears
    python -m models.token_pairs --blocks 1 --split validation
    python -m models.train_bridge --fresh && python -m models.export_bridge

Whisper stays as it is. The bridge's convolutions are held to what those of its encoder make of the clean sound: first
to that alone, a step of which takes a tenth of the time. Then its own blocks, which begin as Whisper's, are held to
what its whole encoder makes of the clean sound, where it matters to the decoder, and to the words that the decoder
writes; each step cuts time into blocks of another length, so that they can be run at any from a second on. It goes on,
with all of these, from what training left in the cache, or else from the shipped graph. Ctrl-C or SIGTERM saves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.paths import assets_dir, cache_dir
from engine.token_words import ROLE
from engine.types import SottovoceError
from engine.whisper_blocks import BLOCK, run_blocks
from models.bridge import Bridge, BridgeConfig, config_from
from models.bridge_blocks import grown
from models.checkpoint import Bundle, load_shipped
from models.config import LOG_NAME
from models.noise_vq import beta_loss
from models.sources import Split
from models.token_pairs import TokenPair, read_blocks
from models.train_words import Batch, Words, frozen_base
from models.training import alike, descend, in_bfloat16, log_row, rate_at, status_of
from models.word_pairs import Heard

SEED = 4
BATCH, NEAR = 6, 48  # pairs of a step, drawn from so many of about one length
ALONE_RATE, STEM_RATE, OWN_RATE, BETAS, DECAY = 3e-3, 3e-4, 1e-3, (0.9, 0.95), 1e-2
STEM_WEIGHT = 0.1  # of the convolutions' frames, where they are not alone
WORDS_WEIGHT, WORDS_EVERY = 0.05, 3  # words are asked of each so many pairs
SIZES = (50, 75, 100, 150, sys.maxsize)  # frames that hear each other, one of these in each step
EVALUATE_EVERY = 200
SAMPLED = 40  # pairs from which the frames' mean and spread are taken
BOUNDING = 24  # pairs of which it is told what Whisper's own frames would give, and none at all


@dataclass(frozen=True)
class TokenBatch:
    """Pairs side by side: codes [B, T, K], silence where one is shorter, and what Whisper hears and writes.

    words.clean are its encoder's frames of the clean sound, words.noisy what its convolutions make of that.
    """

    codes: Tensor
    words: Batch


@dataclass(frozen=True)
class Hearer:
    """Whisper frozen: its encoder, from which the bridge's blocks grow, and its text decoder."""

    encoder: Any
    words: Words


def frozen_whisper() -> Hearer:
    """Whisper base, on a GPU where there is one. Raises ArtefactError without its weights."""
    model, words = frozen_base()
    return Hearer(model.encoder, words)


@dataclass(frozen=True)
class Measure:
    """How far frames are apart: by what reaches the decoder, in parts of the clean frames' own variance there.

    hearing: [width, width], as `Words.hearing`; unit: that variance; spread: [width], of the convolutions' frames.
    """

    hearing: Tensor
    unit: float
    spread: Tensor

    def distance(self, clean: Tensor, made: Tensor, there: Tensor) -> Tensor:
        """Frames [B, T, width], there [B, T]; 1 for who gives the mean frame always, 0 for Whisper itself."""
        return beta_loss(clean @ self.hearing, made @ self.hearing, there) / self.unit

    def stem_distance(self, clean: Tensor, made: Tensor, there: Tensor) -> Tensor:
        """The same of what the convolutions make, each channel counting alike."""
        return beta_loss(clean / self.spread, made / self.spread, there) / len(self.spread)


@dataclass(frozen=True)
class Asked:
    """What of the losses is asked for. words: of each so many pairs, of none where it is None; size: of the blocks of
    frames that hear each other."""

    frames: bool = True
    words: int | None = 1
    size: int = BLOCK


@dataclass(frozen=True)
class Losses:
    """stem, distance: as `Measure`; words: nats a token; the last two 0 where they are not asked for."""

    stem: Tensor
    distance: Tensor
    words: Tensor

    def total(self, asked: Asked) -> Tensor:
        """What is made small."""
        if not asked.frames:
            return self.stem
        return STEM_WEIGHT * self.stem + self.distance + WORDS_WEIGHT * self.words


def batch_of(pairs: Sequence[TokenPair], words: Words, blank: Tensor) -> TokenBatch:
    """Pairs as tensors; of the codes those rows that a blank frame [K] has."""
    batch = words.batch([Heard(p.clean, p.stem, p.tokens, 0, p.snr_db, p.language) for p in pairs])
    codes = blank.expand(len(pairs), batch.clean.shape[1], -1).clone()
    for row, pair in zip(codes, pairs, strict=True):
        row[: len(pair.codes)] = torch.from_numpy(pair.codes[:, : len(blank)].astype(np.int64))
    return TokenBatch(codes.to(words.device), batch)


def losses(model: Bridge, blocks: nn.Module, words: Words, batch: TokenBatch, measure: Measure, asked: Asked) -> Losses:
    """Those of a batch that are asked for. blocks: the model's own, grown."""
    told = batch.words
    written = distance = torch.zeros(())
    stem = model.whole(batch.codes)
    if asked.frames:
        with in_bfloat16(words.device):
            placed = stem + model.places(torch.arange(stem.shape[1], device=stem.device))
            frames = run_blocks(blocks, placed, size=asked.size).left
            if asked.words is not None:
                written = words.loss(frames, told, asked.words)
        distance = measure.distance(told.clean, frames.float(), told.there)
    return Losses(measure.stem_distance(told.noisy, stem, told.there), distance, written)


def frames_of(pairs: Sequence[TokenPair], name: str) -> Tensor:
    """The `stem` or the `clean` frames of some of the pairs [N, width]."""
    chosen = pairs[:: max(1, len(pairs) // SAMPLED)]
    return torch.from_numpy(np.concatenate([getattr(pair, name) for pair in chosen]).astype(np.float32))


class Training:
    """One run: the bridge, its optimiser, the pairs, and where things are written."""

    def __init__(
        self, model: Bridge, whisper: Hearer, train: Sequence[TokenPair], validation: Sequence[TokenPair], folder: Path
    ) -> None:
        device = whisper.words.device
        self.model, self.words = model.to(device), whisper.words
        self.blocks = grown(whisper.encoder, model.own)
        self.train, self.validation = sorted(train, key=lambda pair: len(pair.clean)), validation
        hearing = whisper.words.hearing()
        unit = float((frames_of(train, "clean").to(device) @ hearing).var(0).sum())
        self.measure = Measure(hearing, unit, frames_of(train, "stem").to(device).std(0).clamp_min(1e-3))
        own = list(model.own.parameters())
        others = [weight for name, weight in model.named_parameters() if not name.startswith("own.")]
        groups = [{"params": others}, {"params": own}]
        self.optimizer = torch.optim.AdamW(groups, lr=STEM_RATE, betas=BETAS, weight_decay=DECAY)
        self.step = 0
        self.path, self.log = folder / "bridge.pt", folder / LOG_NAME
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
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = int(saved["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise SottovoceError(f"{self.path} is of other networks; begin anew with --fresh") from error
        self._random = np.random.default_rng([SEED, self.step])  # other pairs than the run before began with
        return True

    def save(self) -> None:
        """Beside and renamed."""
        beside = self.path.with_suffix(".part")
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**states, "step": self.step, "config": asdict(self.model.config)}, beside)
        beside.replace(self.path)

    def one_step(self, rate: float, asked: Asked) -> Losses:
        """A step at a share of the full rates."""
        self.model.train()
        batch = batch_of(alike(self.train, BATCH, NEAR, self._random), self.words, self.model.blank())
        found = losses(self.model, self.blocks, self.words, batch, self.measure, asked)
        others, own = self.optimizer.param_groups
        others["lr"], own["lr"] = rate * (STEM_RATE if asked.frames else ALONE_RATE), rate * OWN_RATE
        descend(self.optimizer, found.total(asked))
        self.step += 1
        return found

    def alone_step(self, rate: float) -> Losses:
        """A step for the convolutions' frames alone."""
        return self.one_step(rate, Asked(frames=False))

    def joint_step(self, rate: float) -> Losses:
        """A step with everything asked for, in blocks of one of the SIZES."""
        return self.one_step(rate, Asked(words=WORDS_EVERY, size=int(self._random.choice(SIZES))))

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Means over validation, each pair counting alike."""
        self.model.eval()
        ordered = sorted(self.validation, key=lambda pair: len(pair.clean))
        parts = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
        batches = [batch_of(part, self.words, self.model.blank()) for part in parts]
        rows = [losses(self.model, self.blocks, self.words, batch, self.measure, Asked()) for batch in batches]
        shares = [len(part) / len(ordered) for part in parts]
        names = ("stem", "distance", "words")
        return {name: float(np.dot(shares, [float(getattr(row, name)) for row in rows])) for name in names}

    @torch.no_grad()
    def bounds(self) -> dict[str, float]:
        """Nats a token on validation from Whisper's own frames of the clean sound, and from its mean frame alone."""
        mean = frames_of(self.train, "clean").mean(0).to(self.words.device)
        found = {"whisper_clean": 0.0, "mean_frame": 0.0}
        said = [pair for pair in self.validation if len(pair.tokens) > 1][:BOUNDING]
        for pair in said:
            batch = batch_of([pair], self.words, self.model.blank()).words
            for name, sound in zip(found, (batch.clean, mean.expand_as(batch.clean)), strict=True):
                found[name] += float(self.words.loss(sound, batch)) / len(said)
        return found

    def report(self, seconds: float) -> dict[str, float]:
        """Judge, log and save; the figures."""
        figures = {name: round(value, 4) for name, value in self.judge().items()}
        log_row(self.log, {"step": self.step, "wall_s": round(seconds), **figures})
        self.save()
        return figures

    def run(self, minutes: float, alone: float) -> None:
        """Steps until the minutes are over, the first ones `alone`, or somebody stops it; saves either way."""
        began = time.monotonic()
        steps = (self.alone_step, self.joint_step)
        try:
            for take, start, end in zip(steps, (0.0, alone), (alone, minutes), strict=True):
                while (passed := (time.monotonic() - began) / 60.0) < end:
                    take(rate_at(self.step, (passed - start) / (end - start)))
                    if self.step % EVALUATE_EVERY == 0:
                        self.report(time.monotonic() - began)
        except KeyboardInterrupt:
            print("stopped", flush=True)
        self.report(time.monotonic() - began)


def begin(bundle: Bundle, fresh: bool, train: Sequence[TokenPair], encoder: Any) -> tuple[Bridge, bool]:
    """The shipped bridge, and whether it knows something; where there is none, or a fresh one is wanted, one that has
    the codebooks, and blocks that are Whisper's."""
    from models.export_bridge import load_shipped as shipped_bridge  # it takes its training from here

    path = assets_dir() / f"{ROLE}.onnx"
    if path.is_file() and not fresh:
        return shipped_bridge(path), True
    model = Bridge(BridgeConfig(), bundle.config)
    model.take_books(bundle.codec.encoder.speech)
    model.take_spread(frames_of(train, "stem"))
    model.own.take(encoder)
    return model, False


def load_trained(path: Path, bundle: Bundle) -> Bridge:
    """What training saved. Raises SottovoceError when it is not there or is of other networks."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model = Bridge(config_from(saved["config"]), bundle.config)
        model.load_state_dict(saved["model"])
    except FileNotFoundError:
        raise SottovoceError(f"{path} is not there; run python -m models.train_bridge first") from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise SottovoceError(f"{path} is of other networks; train anew with --fresh") from error
    return model


def stored_pairs(split: Split) -> list[TokenPair]:
    """Every pair of a split from the cache. Raises SottovoceError where there is none."""
    if not (pairs := list(read_blocks(split))):
        raise SottovoceError(f"there are no {split} pairs yet; run python -m models.token_pairs --split {split}")
    return pairs


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.train_bridge", description="Train the bridge to Whisper.")
    parser.add_argument("--minutes", type=float, default=65.0, help="stop after so many minutes")
    parser.add_argument(
        "--alone", type=float, default=13.0, help="so many of a new one's with the convolutions' frames alone"
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew; what was there is kept as bridge.before.pt")
    args = parser.parse_args(arguments)
    torch.manual_seed(SEED)

    def work() -> None:
        train, validation = stored_pairs("train"), stored_pairs("validation")
        whisper = frozen_whisper()
        model, known = begin(load_shipped(), args.fresh, train, whisper.encoder)
        training = Training(model, whisper, train, validation, cache_dir() / "bridge")
        if args.fresh and training.path.exists():
            training.path.replace(training.path.with_suffix(".before.pt"))
        known = training.resume() or known
        print(json.dumps({name: round(value, 4) for name, value in training.bounds().items()}), flush=True)
        training.run(args.minutes, 0.0 if known else min(args.alone, args.minutes))

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
