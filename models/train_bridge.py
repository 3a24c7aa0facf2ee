"""Train the bridge from voice tokens into Whisper: `python -m models.train_bridge [--minutes 70] [--alone 13]`.

    python -m models.token_pairs --blocks 44                       # once: tokens, and what Whisper hears
    python -m models.token_pairs --blocks 1 --split validation
    python -m models.train_bridge --fresh && python -m models.export_bridge

Whisper stays as it is. The bridge is held to what the convolutions of its encoder make of the clean sound: first to
that alone, a step of which takes a tenth of the time, then also to what its whole encoder makes of that, where it
matters to the decoder, and to the words that the decoder writes, through the blocks as they are run behind the bridge.
It goes on, with all of these, from what training left in the cache, or else from the shipped graph. Ctrl-C or SIGTERM
saves.
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
from torch import Tensor

from engine.paths import assets_dir, cache_dir
from engine.token_words import ROLE
from engine.types import SottovoceError
from engine.whisper_blocks import run_blocks
from models.bridge import Bridge, BridgeConfig, config_from
from models.checkpoint import Bundle, load_shipped
from models.config import LOG_NAME
from models.noise_vq import beta_loss
from models.sources import Split
from models.token_pairs import TokenPair, read_blocks
from models.train_words import Batch, Words, frozen_base
from models.training import alike, descend, in_bfloat16, log_row, rate_at, set_rate, status_of
from models.word_pairs import Heard

SEED = 4
BATCH, NEAR = 6, 48  # pairs of a step, drawn from so many of about one length
ALONE_RATE, RATE, BETAS, DECAY = 3e-3, 1e-3, (0.9, 0.95), 1e-2
STEM_WEIGHT = 0.3  # of the convolutions' frames, where they are not alone
WORDS_WEIGHT, WORDS_EVERY = 0.1, 2  # words are asked of each so many pairs
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


class Hearer:
    """Whisper frozen, from behind its convolutions on: the blocks of its encoder as they are run, and its decoder."""

    def __init__(self, model: Any, words: Words) -> None:
        model.requires_grad_(False)
        self._encoder, self.words = model.encoder, words

    def frames(self, x: Tensor) -> Tensor:
        """[B, T, width] with places -> the encoder's frames [B, T, width], no window of theirs heard at once."""
        return run_blocks(self._encoder, x).left


def frozen_whisper() -> Hearer:
    """Whisper base, on a GPU where there is one. Raises ArtefactError without its weights."""
    model, words = frozen_base()
    return Hearer(model, words)


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
    """What of the losses is asked for. words: of each so many pairs, of none where it is None."""

    frames: bool = True
    words: int | None = 1


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


def losses(model: Bridge, whisper: Hearer, batch: TokenBatch, measure: Measure, asked: Asked) -> Losses:
    """Those of a batch that are asked for."""
    told = batch.words
    written = distance = torch.zeros(())
    stem = model.whole(batch.codes)
    if asked.frames:
        with in_bfloat16(whisper.words.device):
            frames = whisper.frames(stem + model.places(torch.arange(stem.shape[1], device=stem.device)))
            if asked.words is not None:
                written = whisper.words.loss(frames, told, asked.words)
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
        self.model, self.whisper = model.to(device), whisper
        self.train, self.validation = sorted(train, key=lambda pair: len(pair.clean)), validation
        hearing = whisper.words.hearing()
        unit = float((frames_of(train, "clean").to(device) @ hearing).var(0).sum())
        self.measure = Measure(hearing, unit, frames_of(train, "stem").to(device).std(0).clamp_min(1e-3))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY)
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
        """A step at a share of the full rate."""
        self.model.train()
        batch = batch_of(alike(self.train, BATCH, NEAR, self._random), self.whisper.words, self.model.blank())
        found = losses(self.model, self.whisper, batch, self.measure, asked)
        set_rate(self.optimizer, rate * (RATE if asked.frames else ALONE_RATE))
        descend(self.optimizer, found.total(asked))
        self.step += 1
        return found

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Means over validation, each pair counting alike."""
        self.model.eval()
        ordered = sorted(self.validation, key=lambda pair: len(pair.clean))
        parts = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
        batches = [batch_of(part, self.whisper.words, self.model.blank()) for part in parts]
        rows = [losses(self.model, self.whisper, batch, self.measure, Asked()) for batch in batches]
        shares = [len(part) / len(ordered) for part in parts]
        names = ("stem", "distance", "words")
        return {name: float(np.dot(shares, [float(getattr(row, name)) for row in rows])) for name in names}

    @torch.no_grad()
    def bounds(self) -> dict[str, float]:
        """Nats a token on validation from Whisper's own frames of the clean sound, whole and by its blocks one after
        the other, and from its mean frame alone."""
        words = self.whisper.words
        mean = frames_of(self.train, "clean").mean(0).to(words.device)
        found = {"whisper_clean": 0.0, "in_blocks": 0.0, "mean_frame": 0.0}
        said = [pair for pair in self.validation if len(pair.tokens) > 1][:BOUNDING]
        for pair in said:
            batch = batch_of([pair], words, self.model.blank()).words
            places = self.model.places(torch.arange(batch.noisy.shape[1], device=words.device))
            sounds = (batch.clean, self.whisper.frames(batch.noisy + places), mean.expand_as(batch.clean))
            for name, sound in zip(found, sounds, strict=True):
                found[name] += float(words.loss(sound, batch)) / len(said)
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
        stages = ((0.0, alone, Asked(frames=False)), (alone, minutes, Asked(words=WORDS_EVERY)))
        try:
            for start, end, asked in stages:
                while (passed := (time.monotonic() - began) / 60.0) < end:
                    self.one_step(rate_at(self.step, (passed - start) / (end - start)), asked)
                    if self.step % EVALUATE_EVERY == 0:
                        self.report(time.monotonic() - began)
        except KeyboardInterrupt:
            print("stopped", flush=True)
        self.report(time.monotonic() - began)


def begin(bundle: Bundle, fresh: bool, train: Sequence[TokenPair]) -> tuple[Bridge, bool]:
    """The shipped bridge, and whether it knows something; where there is none, or a fresh one is wanted, one that has
    the codebooks alone."""
    from models.export_bridge import load_shipped as shipped_bridge  # it takes its training from here

    path = assets_dir() / f"{ROLE}.onnx"
    if path.is_file() and not fresh:
        return shipped_bridge(path), True
    model = Bridge(BridgeConfig(), bundle.config)
    model.take_books(bundle.codec.encoder.speech)
    model.take_spread(frames_of(train, "stem"))
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
    parser.add_argument("--minutes", type=float, default=70.0, help="stop after so many minutes")
    parser.add_argument(
        "--alone", type=float, default=13.0, help="so many of a new one's with the convolutions' frames alone"
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew; what was there is kept as bridge.before.pt")
    args = parser.parse_args(arguments)
    torch.manual_seed(SEED)

    def work() -> None:
        train, validation = stored_pairs("train"), stored_pairs("validation")
        model, known = begin(load_shipped(), args.fresh, train)
        training = Training(model, frozen_whisper(), train, validation, cache_dir() / "bridge")
        if args.fresh and training.path.exists():
            training.path.replace(training.path.with_suffix(".before.pt"))
        known = training.resume() or known
        print(json.dumps({name: round(value, 4) for name, value in training.bounds().items()}), flush=True)
        training.run(args.minutes, 0.0 if known else min(args.alone, args.minutes))

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
