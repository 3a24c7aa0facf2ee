"""Train the bridge from voice tokens into Whisper: `python -m models.train_bridge [--minutes 60] [--fresh]`.

    python -m models.token_pairs --blocks 200                      # once: tokens, and what Whisper hears
    python -m models.token_pairs --blocks 2 --split validation
    python -m models.train_bridge && python -m models.export_bridge

Whisper stays as it is. The bridge is held to the frames that its encoder makes of the clean sound, where they matter to
its decoder, and in the later part of the time to the words themselves, which the decoder writes from what the bridge
gives it. It goes on from what training left in the cache, or else from the shipped graph. Ctrl-C or SIGTERM saves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.paths import assets_dir, cache_dir
from engine.token_words import ROLE
from engine.types import SottovoceError
from models.bridge import Bridge, BridgeConfig, config_from
from models.checkpoint import Bundle, load_shipped
from models.config import LOG_NAME
from models.noise_vq import beta_loss
from models.sources import Split
from models.token_pairs import TokenPair, read_blocks
from models.train_words import Batch, Words, frozen_words
from models.training import alike, descend, in_bfloat16, log_row, rate_at, set_rate, status_of
from models.word_pairs import Heard

SEED = 4
BATCH, NEAR = 6, 48  # pairs of a step, drawn from so many of about one length
RATE, BETAS, DECAY = 8e-3, (0.9, 0.95), 1e-2
WORDS_FROM = 0.4  # share of the minutes after which words count
WORDS_WEIGHT, WORDS_EVERY = 0.05, 3  # words are asked of each so many pairs: the decoder is most of what a step costs
EVALUATE_EVERY = 200
SAMPLED = 40  # pairs from which the frames' mean and spread are taken
BOUNDING = 24  # pairs of which it is told what Whisper's own frames would give, and none at all


@dataclass(frozen=True)
class TokenBatch:
    """Pairs side by side: codes [B, T, K], silence where one is shorter, and what Whisper hears and writes."""

    codes: Tensor
    words: Batch


@dataclass(frozen=True)
class Measure:
    """How far frames are apart: by what reaches the decoder, in parts of the clean frames' own variance there.

    hearing: [width, width], as `Words.hearing`; unit: that variance.
    """

    hearing: Tensor
    unit: float

    def distance(self, clean: Tensor, made: Tensor, there: Tensor) -> Tensor:
        """Frames [B, T, width], there [B, T]; 1 for who gives the mean frame always, 0 for Whisper itself."""
        return beta_loss(clean @ self.hearing, made @ self.hearing, there) / self.unit


@dataclass(frozen=True)
class Losses:
    """distance: as `Measure`; beta: mean squared difference of numbers; words: nats a token, 0 where not asked."""

    distance: Tensor
    beta: Tensor
    words: Tensor

    def total(self) -> Tensor:
        """What is made small."""
        return self.distance + WORDS_WEIGHT * self.words


def batch_of(pairs: Sequence[TokenPair], words: Words, blank: Tensor) -> TokenBatch:
    """Pairs as tensors; of the codes those rows that a blank frame [K] has."""
    none = np.zeros((0, 0), np.float16)  # the noisy sound's frames are not asked for
    batch = words.batch([Heard(p.clean, none, p.tokens, 0, p.snr_db, p.language) for p in pairs])
    codes = blank.expand(len(pairs), batch.clean.shape[1], -1).clone()
    for row, pair in zip(codes, pairs, strict=True):
        row[: len(pair.codes)] = torch.from_numpy(pair.codes[:, : len(blank)].astype(np.int64))
    return TokenBatch(codes.to(words.device), batch)


def losses(model: Bridge, words: Words, batch: TokenBatch, measure: Measure, every: int | None) -> Losses:
    """All of a batch; every: words are asked of each so many pairs, of none where it is None."""
    told = batch.words
    with in_bfloat16(words.device):
        frames = model.whole(batch.codes)
        written = torch.zeros(()) if every is None else words.loss(frames, told, every)
    frames = frames.float()
    beta = beta_loss(told.clean, frames, told.there) / told.clean.shape[2]
    return Losses(measure.distance(told.clean, frames, told.there), beta, written)


def frames_of(pairs: Sequence[TokenPair]) -> Tensor:
    """The clean frames of some of the pairs [N, width]."""
    chosen = pairs[:: max(1, len(pairs) // SAMPLED)]
    return torch.from_numpy(np.concatenate([pair.clean for pair in chosen]).astype(np.float32))


class Training:
    """One run: the bridge, its optimiser, the pairs, and where things are written."""

    def __init__(
        self, model: Bridge, words: Words, train: Sequence[TokenPair], validation: Sequence[TokenPair], folder: Path
    ) -> None:
        self.model, self.words = model.to(words.device), words
        self.train, self.validation = sorted(train, key=lambda pair: len(pair.clean)), validation
        hearing = words.hearing()
        unit = float((frames_of(train).to(words.device) @ hearing).var(0).sum())
        self.measure = Measure(hearing, unit)
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

    def one_step(self, rate: float, with_words: bool) -> Losses:
        """A step at a share of the full rate."""
        self.model.train()
        batch = batch_of(alike(self.train, BATCH, NEAR, self._random), self.words, self.model.blank())
        found = losses(self.model, self.words, batch, self.measure, WORDS_EVERY if with_words else None)
        set_rate(self.optimizer, RATE * rate)
        descend(self.optimizer, found.total())
        self.step += 1
        return found

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Means over validation, each pair counting alike."""
        self.model.eval()
        ordered = sorted(self.validation, key=lambda pair: len(pair.clean))
        parts = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
        blank = self.model.blank()
        rows = [losses(self.model, self.words, batch_of(part, self.words, blank), self.measure, 1) for part in parts]
        shares = [len(part) / len(ordered) for part in parts]
        names = ("distance", "beta", "words")
        return {name: float(np.dot(shares, [float(getattr(row, name)) for row in rows])) for name in names}

    @torch.no_grad()
    def bounds(self) -> dict[str, float]:
        """Nats a token on validation from Whisper's own frames of the clean sound, and from its mean frame alone."""
        mean = frames_of(self.train).mean(0).to(self.words.device)
        found = {"whisper_clean": 0.0, "mean_frame": 0.0}
        said = [pair for pair in self.validation if len(pair.tokens) > 1][:BOUNDING]
        for pair in said:
            batch = batch_of([pair], self.words, self.model.blank()).words
            for name, sound in (("whisper_clean", batch.clean), ("mean_frame", mean.expand_as(batch.clean))):
                found[name] += float(self.words.loss(sound, batch)) / len(said)
        return found

    def report(self, seconds: float) -> dict[str, float]:
        """Judge, log and save; the figures."""
        figures = {name: round(value, 4) for name, value in self.judge().items()}
        log_row(self.log, {"step": self.step, "wall_s": round(seconds), **figures})
        self.save()
        return figures

    def run(self, minutes: float) -> None:
        """Steps until the minutes are over or somebody stops it; saves either way."""
        began = time.monotonic()
        try:
            while (done := (time.monotonic() - began) / max(60 * minutes, 1e-3)) < 1.0:
                self.one_step(rate_at(self.step, done), done >= WORDS_FROM)
                if self.step % EVALUATE_EVERY == 0:
                    self.report(time.monotonic() - began)
        except KeyboardInterrupt:
            print("stopped", flush=True)
        self.report(time.monotonic() - began)


def begin(bundle: Bundle, fresh: bool, train: Sequence[TokenPair]) -> Bridge:
    """The shipped bridge, or where there is none, or a fresh one is wanted, one that knows the codebooks alone."""
    from models.export_bridge import load_shipped as shipped_bridge  # it takes its training from here

    path = assets_dir() / f"{ROLE}.onnx"
    if path.is_file() and not fresh:
        return shipped_bridge(path)
    model = Bridge(BridgeConfig(), bundle.config)
    model.take_books(bundle.codec.encoder.speech)
    model.take_spread(frames_of(train))
    return model


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
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many minutes")
    parser.add_argument("--fresh", action="store_true", help="begin anew; what was there is kept as bridge.before.pt")
    args = parser.parse_args(arguments)
    torch.manual_seed(SEED)

    def work() -> None:
        train, validation = stored_pairs("train"), stored_pairs("validation")
        bundle = load_shipped()
        training = Training(begin(bundle, args.fresh, train), frozen_words(), train, validation, cache_dir() / "bridge")
        if args.fresh and training.path.exists():
            training.path.replace(training.path.with_suffix(".before.pt"))
        training.resume()
        print(json.dumps({name: round(value, 4) for name, value in training.bounds().items()}), flush=True)
        training.run(args.minutes)

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
