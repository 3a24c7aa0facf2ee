"""Train the refiner: `python -m models.train [--minutes 60] [--opinion-minutes 0] [--fresh] [--workers 1]`.

    python -m models.data --minimal      # once: the sound
    python -m models.train               # resumes from the cache, else from the shipped artefacts, else from nothing
    python -m models.calibrate --checkpoint OUT   # OUT is what training names; sets the refiner's balance by ear
    python -m models.export --checkpoint OUT   # through the parity gate into assets/

From nothing means: the front is DeepFilterNet3 without look-ahead, the codebooks are fitted by k-means on what it
gives, and the refiner starts as the gain |S| / (|S| + |B|) of the decoded spectra, with DTLN as its second opinion,
which wants `--opinion-minutes 30` before the rest. Front and codebooks stay as they are (measured: on little data a
front forgets what it knew), so workers make clips that have been through them, and the refiner is trained on those.
Ctrl-C or SIGTERM saves. CPU or GPU by itself.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pystoi import stoi
from torch import Tensor

from engine.paths import assets_dir, cache_dir
from engine.types import SottovoceError
from models.ancestors import FRONT_LINE, OPINION_LINE, load_front, load_opinion
from models.checkpoint import Bundle, load_bundle, load_shipped, save_bundle
from models.config import LOG_NAME, ModelConfig
from models.feed import Feed, through_tokens, training_clips, voices
from models.losses import DEFAULT_WEIGHTS, LossWeights, separation_loss, si_sdr_db
from models.mixing import MixConfig, Mixer
from models.perceptual import LoudnessDistance
from models.pictures import draw_progress
from models.quantize import fit
from models.settings import TrainConfig, read_settings
from models.shards import load
from models.train_opinion import TALKERS, opinion_of, train_opinion, trust_alone
from models.training import descend, stop_on_signals


def refine(bundle: Bundle, mixture: Tensor, speech: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Mixtures, decoded voices and backgrounds [B, N] -> refined voices and backgrounds, [B, N], with their lag."""
    state = {k: v.to(mixture.device) for k, v in bundle.refiner.initial_state(len(mixture)).items()}
    voice, rest, _ = bundle.refiner(mixture, speech, background, state)
    return voice, rest


def aligned(x: Tensor, lag: int) -> Tensor:
    """Drop the lag at the front of an output [B, N] -> [B, N - lag]."""
    return x[:, lag:]


def loss_of(bundle: Bundle, clips: Tensor, ear: LoudnessDistance, weights: LossWeights = DEFAULT_WEIGHTS) -> Tensor:
    """The refiner's loss on clips from the feed [SIGNALS, B, N]."""
    mixture, voice, speech, background = clips
    refined, _ = refine(bundle, mixture, speech, background)
    lag = bundle.config.refined_lag
    end = mixture.shape[1] - lag
    return separation_loss(aligned(refined, lag), voice[:, :end], mixture[:, :end], ear, weights)


@torch.no_grad()
def fit_codebooks(bundle: Bundle, mixer: Mixer, settings: TrainConfig) -> None:
    """k-means on what the front really gives: three clean voices for one noisy one, and what is left beside them.

    All at one level, so that `fit` can tell the loud frames, which matter, from what hums in the pauses.
    """
    speech, rest = [], []
    encoder = bundle.codec.encoder
    device = next(encoder.parameters()).device
    for turn in range(max(1, round(settings.fit_minutes * 60 / (16 * mixer.config.seconds)))):
        mixture, voice = (torch.from_numpy(x).to(device) for x in mixer.batch(16))
        source = mixture if turn % 4 == 0 else voice
        source = source * (0.05 / (source.square().mean(1, keepdim=True).sqrt() + 1e-6))
        state = {k: v.to(device) for k, v in encoder.initial_state(len(source)).items()}
        s, b, _ = encoder.project(source, state)
        speech.append(s.flatten(0, 1).cpu())
        if turn % 4 == 0:
            rest.append(b.flatten(0, 1).cpu())
    for name, quantizer, frames in (("speech", encoder.speech, speech), ("background", encoder.background, rest)):
        snrs = fit(quantizer.to(device), torch.cat(frames).to(device), settings.fit_iterations, settings.fit_sweeps)
        for band, values in enumerate(snrs):
            print(f"  {name} band {band}: " + " ".join(f"{v:.1f}" for v in values) + " dB by stage", flush=True)


class Learn(StrEnum):
    """What a run trains."""

    ALL = "all"
    TRUST = "trust"  # in the second opinion, while all else stays as it was set by ear


class Judge:
    """Validation mixtures, heard once by what does not change."""

    @torch.no_grad()
    def __init__(self, bundle: Bundle, mix: MixConfig, count: int, device: torch.device) -> None:
        # SI-SDR says nothing about clips without a voice, and one clean clip outweighs all others
        judged = replace(mix, clean=0.0, no_voice=0.0, snr_db=(-5.0, 15.0))
        drawn = Mixer(voices("validation"), load("validation", "background"), judged, seed=7).batch(count)
        self.mixture, self.voice = (torch.from_numpy(x).to(device) for x in drawn)
        parts = [through_tokens(bundle, m) for m in self.mixture.split(8)]
        self.front, self.speech, self.background = (torch.cat(x) for x in zip(*parts, strict=True))

    @torch.no_grad()
    def heard(self, bundle: Bundle) -> dict[str, Tensor]:
        """Every voice and the background as they come out, [B, N], lag still in."""
        voice, rest = refine(bundle, self.mixture, self.speech, self.background)
        opinion = opinion_of(bundle.refiner, self.mixture)
        return {"front": self.front, "tokens": self.speech, "opinion": opinion, "refined": voice, "background": rest}

    def scores(self, bundle: Bundle) -> dict[str, float]:
        """Means: SI-SDR improvement in dB of front, tokens, second opinion and refined voice (its median, too), SI-SDR
        of the background, ESTOI of the refined voice."""
        out, c = self.heard(bundle), bundle.config
        rows: dict[str, float] = {}
        lags = {"front": c.token_lag, "tokens": c.token_lag, "opinion": c.token_lag, "refined": c.refined_lag}
        for name, lag in lags.items():
            end = self.mixture.shape[1] - lag
            before = si_sdr_db(self.mixture[:, :end], self.voice[:, :end])
            gain = si_sdr_db(aligned(out[name], lag), self.voice[:, :end]) - before
            rows[name] = float(gain.mean())
        rows["refined_median"] = float(gain.median())
        end = self.mixture.shape[1] - c.refined_lag
        ears = zip(self.voice[:, :end].cpu(), aligned(out["refined"], c.refined_lag).cpu(), strict=True)
        rows["estoi"] = float(np.mean([stoi(a.numpy(), b.numpy(), c.sample_rate_hz, extended=True) for a, b in ears]))
        noise = (self.mixture - self.voice)[:, :end]
        rows["background"] = float(si_sdr_db(aligned(out["background"], c.refined_lag), noise).mean())
        return rows


def learning_rate(step: int, done: float, config: TrainConfig) -> float:
    """Share of the full rate: warm-up, then flat, then down to 5 % over the last part of the run (`done`: 0..1)."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * min(1.0, 0.05 + 0.95 * (1.0 - done) / config.decay_share)


def set_aside(full: Path) -> None:
    """Keep a checkpoint, hours of somebody's training, as before.*."""
    for old in (full, full.with_suffix(".npz")):
        if old.exists():
            old.replace(old.with_stem("before"))


def resumed(full: Path) -> tuple[Bundle, dict[str, Any] | None] | None:
    """What lies in the cache, with its optimiser; None where there is nothing that fits these networks."""
    small = full.with_suffix(".npz")
    if not small.exists():
        return None
    try:
        bundle = load_bundle(small)
    except ValueError as problem:
        set_aside(full)
        print(f"{problem}; kept as before.*, going on from the shipped networks", flush=True)
        return None
    if not full.exists():  # stopped before the first step
        return bundle, None
    saved = torch.load(full, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, tensor in bundle.tensors().items():
            tensor.copy_(saved["weights"][name])
    bundle.step = saved["step"]
    return bundle, saved["optimizer"]


def begin(fresh: bool, full: Path) -> tuple[Bundle, dict[str, Any] | None]:
    """Where to go on from: the cache, the shipped artefacts, or the pretrained front and empty codebooks."""
    if fresh:
        set_aside(full)
    elif found := resumed(full):
        return found
    elif (assets_dir() / "encoder.onnx").exists():
        return load_shipped(), None
    bundle = Bundle.new(ModelConfig())
    load_front(bundle.codec.encoder.front.network)
    load_opinion(bundle.refiner.opinion)
    bundle.snap()
    bundle.ancestors = [FRONT_LINE, OPINION_LINE]
    return bundle, None


def save(bundle: Bundle, optimizer: torch.optim.Optimizer, full: Path) -> None:
    """Full checkpoint in the cache, with the small form beside it."""
    save_bundle(bundle, full.with_suffix(".npz"))
    weights = {k: v.detach().cpu() for k, v in bundle.tensors().items()}
    beside = full.with_suffix(".part")
    torch.save({"weights": weights, "optimizer": optimizer.state_dict(), "step": bundle.step}, beside)
    beside.replace(full)


class Training:
    """One run: the refiner, its optimiser, the judge, and where things are written."""

    def __init__(self, settings: TrainConfig, fresh: bool, log: Path, learn: Learn = Learn.ALL) -> None:
        self.settings, self.log, self.learn = settings, log, learn
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = cache_dir() / "training"
        folder.mkdir(parents=True, exist_ok=True)
        self.full = folder / "full.pt"
        self.mix = MixConfig(seconds=settings.clip_s)
        self.rate = settings.trust_rate if learn is Learn.TRUST else settings.learning_rate
        clips = training_clips()
        self.bundle, optimizer_state = begin(fresh, self.full)
        self.bundle.codec.to(self.device), self.bundle.refiner.to(self.device)
        self.bundle.data = sorted({*self.bundle.data, *(clip.source.split("/")[0] for part in clips for clip in part)})
        if not self.bundle.codec.encoder.speech.books(0).any():
            print("fitting codebooks", flush=True)
            fit_codebooks(self.bundle, Mixer(*clips, self.mix, settings.seed), settings)
            save_bundle(self.bundle, self.full.with_suffix(".npz"))
        save_bundle(self.bundle, self.frozen)  # what the workers hear through
        self.judge = Judge(self.bundle, self.mix, settings.validation_clips, self.device)
        self.optimizer, fits = self._optimizer(), False
        if optimizer_state:  # of a run that learned as much
            counts = (
                len(state["param_groups"][0]["params"]) for state in (optimizer_state, self.optimizer.state_dict())
            )
            if fits := len(set(counts)) == 1:
                self.optimizer.load_state_dict(optimizer_state)
        self.warm_from = 0 if fits else self.bundle.step
        self.ear = LoudnessDistance(self.bundle.config.sample_rate_hz).to(self.device)
        self.losses: list[float] = []

    def _optimizer(self) -> torch.optim.Optimizer:
        s = self.settings
        if self.learn is Learn.TRUST:
            return torch.optim.AdamW(
                trust_alone(self.bundle.refiner), lr=self.rate, betas=(0.9, 0.98), weight_decay=0.0
            )
        return torch.optim.AdamW(
            self.bundle.refiner.parameters(), lr=self.rate, betas=(0.9, 0.98), weight_decay=s.weight_decay
        )

    @property
    def frozen(self) -> Path:
        """The checkpoint that the workers load."""
        return self.full.with_name("frozen.npz")

    def step(self, clips: Tensor, rate: float) -> None:
        """One step on clips [SIGNALS, B, N]; a loss or a gradient that is no number changes nothing."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(self.bundle, clips.to(self.device), self.ear)
        self.losses.append(descend(self.optimizer, loss, self.settings.grad_clip))
        self.bundle.step += 1

    def report(self, seconds: float, feed: Feed) -> None:
        """Save, judge, log, draw."""
        recent = self.losses[-self.settings.evaluate_every :]
        row: dict[str, Any] = {"step": self.bundle.step, "loss": round(float(np.nanmean(recent or [0.0])), 4)}
        row |= {"wall_s": round(seconds), "cpu_s": round(time.process_time() + feed.cpu_s), "clips": feed.made_clips}
        self._write(row)

    def listen(self, minutes: float) -> None:
        """Train the second opinion alone; saves whatever ends it."""

        def report(steps: int, loss: float, seconds: float) -> None:
            row = {"step": self.bundle.step, "opinion_steps": steps, "loss": round(loss, 4), "wall_s": round(seconds)}
            self._write(row | {"cpu_s": round(time.process_time())})

        mix = replace(self.mix, **TALKERS)
        clips = Mixer(*training_clips(), mix, self.settings.seed + self.bundle.step + 1)
        try:
            train_opinion(self.bundle.refiner, clips, self.settings, minutes, report)
        finally:
            self.bundle.refiner.opinion.requires_grad_(self.learn is Learn.ALL)
            save(self.bundle, self.optimizer, self.full)

    def _write(self, row: dict[str, Any]) -> None:
        """Save, and add to the log and the picture how things stand."""
        save(self.bundle, self.optimizer, self.full)
        row |= {k: round(v, 3) for k, v in self.judge.scores(self.bundle).items()}
        print(json.dumps(row), flush=True)
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        pair = (self.judge.mixture, self.judge.voice)
        draw_progress(
            self.log, pair, self.judge.heard(self.bundle), self.bundle.config, self.full.with_name("progress.png")
        )

    def run(self, minutes: float, workers: int) -> None:
        """Steps until the minutes are over or somebody stops it; saves either way."""
        s, start = self.settings, time.monotonic()
        mix = replace(self.mix, **TALKERS) if self.learn is Learn.TRUST else self.mix
        with Feed(self.frozen, mix, s.batch, s.pool_clips, workers, s.seed + self.bundle.step) as feed:
            self.report(0.0, feed)
            try:
                while (done := (time.monotonic() - start) / (minutes * 60)) < 1.0:
                    share = learning_rate(self.bundle.step - self.warm_from, done, s)
                    self.step(feed.draw(), self.rate * share)
                    if self.bundle.step % 20 == 0:
                        recent = np.nanmean(self.losses[-20:])
                        print(f"{self.bundle.step} {recent:.3f} {time.monotonic() - start:.0f} s", flush=True)
                    if self.bundle.step % s.evaluate_every == 0:
                        self.report(time.monotonic() - start, feed)
            except KeyboardInterrupt:
                print("stopped", flush=True)
            finally:
                save(self.bundle, self.optimizer, self.full)
        self.report(time.monotonic() - start, feed)


def main(
    config: Annotated[Path, typer.Option(help="settings")] = Path(__file__).with_name("train.toml"),
    minutes: Annotated[float, typer.Option(min=0.1, help="stop after so many minutes")] = 60.0,
    opinion_minutes: Annotated[float, typer.Option(min=0.0, help="before that, for the second opinion alone")] = 0.0,
    learn: Annotated[Learn, typer.Option(help="the refiner, or only how far it trusts its second opinion")] = Learn.ALL,
    fresh: Annotated[bool, typer.Option(help="start from nothing; keeps the old one as before.*")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training itself")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="processes that make clips, one thread each")] = 1,
    log: Annotated[Path | None, typer.Option(help="training log; default: in the cache, beside the checkpoint")] = None,
) -> None:
    """Train for `minutes`, evaluating and saving as it goes."""
    settings = read_settings(config)
    stop_on_signals()
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    try:
        training = Training(settings, fresh, log or cache_dir() / "training" / LOG_NAME, learn)
        if opinion_minutes:
            training.listen(opinion_minutes)
        training.run(minutes, workers)
    except SottovoceError as error:
        typer.echo(f"stopped: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(f"saved; next:  python -m models.calibrate --checkpoint {training.full.with_suffix('.npz')}")


if __name__ == "__main__":
    typer.run(main)
