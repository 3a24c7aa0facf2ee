"""Train the codec's front and the refiner: `python -m models.train [--minutes 60] [--fresh] [--threads 2]`.

    python -m models.data --minimal      # once: the sound
    python -m models.train               # resumes from the cache, else from the committed checkpoint, else from nothing
    python -m models.temper IN OUT       # IN is what training names when it ends
    python -m models.export --checkpoint OUT   # through the parity gate into assets/

From nothing means: the front is DTLN (MIT), the codebooks are fitted by k-means, and the refiner starts as the gain
|S| / (|S| + |B|) of the decoded spectra. Then the refiner is trained on fresh mixtures, and the front too where
train.toml gives it a share (measured: on little data it forgets what DTLN knew, so the share is 0). Ctrl-C saves. CPU
or GPU by itself.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pystoi import stoi
from torch import Tensor

from engine.paths import assets_dir, cache_dir
from models.ancestors import DTLN_LINE, dtln_weights
from models.checkpoint import Bundle, default_checkpoint, load_bundle, save_bundle
from models.config import ModelConfig
from models.front import load_dtln
from models.losses import separation_loss, si_sdr_db
from models.mixing import MixConfig, Mixer
from models.pictures import draw_progress
from models.quantize import fit
from models.settings import TrainConfig, read_settings
from models.shards import load

HISSING = ("tuxpaint-stamps-default", "klettres-data")  # their hiss would be taught as part of the voice


def forward(bundle: Bundle, mixture: Tensor, front_learns: bool = True) -> dict[str, Tensor]:
    """One pass over mixtures [B, N]: the voice as each part gives it, [B, N], each with its own lag."""
    codec, device = bundle.codec, mixture.device

    def zeros(part: Any) -> dict[str, Tensor]:
        return {k: v.to(device) for k, v in part.initial_state(len(mixture)).items()}

    with torch.set_grad_enabled(torch.is_grad_enabled() and front_learns):
        speech, rest, _ = codec.encoder.project(mixture, zeros(codec.encoder))
    front, _, _ = codec.decoder.synthesise(speech, rest, zeros(codec.decoder))
    with torch.no_grad():  # the tokens are what they are: no gradient through the choice of a code
        shape = speech.shape[:2]
        tokens_s, tokens_b = (
            q.decode(q.encode(part.flatten(0, 1))).unflatten(0, shape)
            for q, part in ((codec.encoder.speech, speech), (codec.encoder.background, rest))
        )
        tokens_s, tokens_b, _ = codec.decoder.synthesise(tokens_s, tokens_b, zeros(codec.decoder))
    refined, background, _, _ = bundle.refiner(mixture, tokens_s, tokens_b, zeros(bundle.refiner))
    return {"front": front, "tokens": tokens_s, "refined": refined, "background": background}


def aligned(x: Tensor, lag: int) -> Tensor:
    """Drop the lag at the front of an output [B, N] -> [B, N - lag]."""
    return x[:, lag:]


def loss_of(bundle: Bundle, out: dict[str, Tensor], mixture: Tensor, voice: Tensor, front_weight: float) -> Tensor:
    """The refiner's loss, and the front's where it has a weight."""
    c, n = bundle.config, mixture.shape[1]
    total = torch.zeros((), device=mixture.device)
    for name, lag, weight in (("front", c.token_lag, front_weight), ("refined", c.refined_lag, 1.0)):
        if weight:
            loss = separation_loss(aligned(out[name], lag), voice[:, : n - lag], mixture[:, : n - lag])
            total = total + weight * loss
    return total


@torch.no_grad()
def fit_codebooks(bundle: Bundle, mixer: Mixer, minutes: float, iterations: int) -> None:
    """k-means on what the front really gives: three clean voices for one noisy one, and what is left beside them.

    All at one level, so that `fit` can tell the loud frames, which matter, from what hums in the pauses.
    """
    speech, rest = [], []
    encoder = bundle.codec.encoder
    device = next(encoder.parameters()).device
    for turn in range(max(1, round(minutes * 60 / (16 * mixer.config.seconds)))):
        mixture, voice = (torch.from_numpy(x).to(device) for x in mixer.batch(16))
        source = mixture if turn % 4 == 0 else voice
        source = source * (0.05 / (source.square().mean(1, keepdim=True).sqrt() + 1e-6))
        state = {k: v.to(device) for k, v in encoder.initial_state(len(source)).items()}
        s, b, _ = encoder.project(source, state)
        speech.append(s.flatten(0, 1).cpu())
        if turn % 4 == 0:
            rest.append(b.flatten(0, 1).cpu())
    for name, quantizer, frames in (("speech", encoder.speech, speech), ("background", encoder.background, rest)):
        snrs = fit(quantizer.to(device), torch.cat(frames).to(device), iterations)
        for band, values in enumerate(snrs):
            print(f"  {name} band {band}: " + " ".join(f"{v:.1f}" for v in values) + " dB by stage", flush=True)


@torch.no_grad()
def evaluate(bundle: Bundle, pairs: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Means over the validation mixtures: SI-SDR improvement in dB of front, tokens and refined voice, SI-SDR of the
    background, ESTOI of the refined voice."""
    mixture, voice = pairs
    c = bundle.config
    rows: dict[str, list[Tensor]] = {}
    for m, v in zip(mixture.split(8), voice.split(8), strict=True):
        out = forward(bundle, m)
        for name, lag in (("front", c.token_lag), ("tokens", c.token_lag), ("refined", c.refined_lag)):
            end = m.shape[1] - lag
            gain = si_sdr_db(aligned(out[name], lag), v[:, :end]) - si_sdr_db(m[:, :end], v[:, :end])
            rows.setdefault(name, []).append(gain)
        end = m.shape[1] - c.refined_lag
        ears = zip(v[:, :end].cpu().numpy(), aligned(out["refined"], c.refined_lag).cpu().numpy(), strict=True)
        rows.setdefault("estoi", []).append(
            torch.tensor([stoi(a, b, c.sample_rate_hz, extended=True) for a, b in ears])
        )
        rows.setdefault("background", []).append(si_sdr_db(aligned(out["background"], c.refined_lag), (m - v)[:, :end]))
    return {name: float(torch.cat(values).mean()) for name, values in rows.items()}


def learning_rate(step: int, done: float, config: TrainConfig) -> float:
    """Share of the full rate: warm-up, then flat, then down to 5 % over the last part of the run (`done`: 0..1)."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * min(1.0, 0.05 + 0.95 * (1.0 - done) / config.decay_share)


def begin(fresh: bool, full: Path) -> tuple[Bundle, dict[str, Any] | None]:
    """Where to go on from: the cache, the committed checkpoint, or DTLN and empty codebooks."""
    if not fresh and full.exists():
        saved = torch.load(full, weights_only=True)
        bundle = load_bundle(full.with_suffix(".npz"))
        with torch.no_grad():
            for name, tensor in bundle.tensors().items():
                tensor.copy_(saved["weights"][name])
        bundle.step = saved["step"]
        return bundle, saved["optimizer"]
    if not fresh and default_checkpoint().exists():
        return load_bundle(default_checkpoint()), None
    bundle = Bundle.new(ModelConfig())
    load_dtln(bundle.codec.encoder.front, dtln_weights())
    bundle.ancestors = [DTLN_LINE]
    return bundle, None


def save(bundle: Bundle, optimizer: torch.optim.Optimizer, full: Path) -> None:
    """Full checkpoint in the cache, with the small form beside it."""
    save_bundle(bundle, full.with_suffix(".npz"))
    weights = {k: v.detach().cpu() for k, v in bundle.tensors().items()}
    beside = full.with_suffix(".part")
    torch.save({"weights": weights, "optimizer": optimizer.state_dict(), "step": bundle.step}, beside)
    beside.replace(full)


def main(
    config: Annotated[Path, typer.Option(help="settings")] = Path(__file__).with_name("train.toml"),
    minutes: Annotated[float, typer.Option(help="stop after so many minutes")] = 60.0,
    fresh: Annotated[bool, typer.Option(help="start from nothing")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    log: Annotated[Path | None, typer.Option(help="training log; default: in assets/")] = None,
) -> None:
    """Train for `minutes`, evaluating and saving as it goes."""
    settings = read_settings(config, {})
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = cache_dir() / "training"
    folder.mkdir(parents=True, exist_ok=True)
    full, log_path = folder / "full.pt", log or assets_dir() / "training.jsonl"

    mix = MixConfig(seconds=settings.clip_s)
    bundle, optimizer_state = begin(fresh, full)
    speech, background = load("train", "speech"), load("train", "background")
    speech = [clip for clip in speech if not clip.source.startswith(HISSING)]
    bundle.data = sorted({clip.source.split("/")[0] for clip in (*speech, *background)})
    mixer = Mixer(speech, background, mix, seed=settings.seed + bundle.step)
    # SI-SDR says nothing about clips without a voice, and one clean clip outweighs all others
    judged = replace(mix, clean=0.0, no_voice=0.0, snr_db=(-5.0, 15.0))
    judge = Mixer(load("validation", "speech"), load("validation", "background"), judged, seed=7)
    mixture, voice = judge.batch(settings.validation_clips)
    validation = (torch.from_numpy(mixture).to(device), torch.from_numpy(voice).to(device))

    if bundle.step == 0 and not bundle.codec.encoder.speech.books(0).any():
        print("fitting codebooks", flush=True)
        fit_codebooks(bundle, mixer, settings.fit_minutes, settings.fit_iterations)
    bundle.codec.to(device), bundle.refiner.to(device)
    front = list(bundle.codec.encoder.front.parameters())
    groups = [
        {"params": front, "share": settings.front_share},
        {"params": list(bundle.refiner.parameters()), "share": 1.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    if optimizer_state:
        optimizer.load_state_dict(optimizer_state)

    def report(loss: float, seconds: float) -> None:
        row = {
            "step": bundle.step,
            "loss": round(loss, 4),
            "cpu_s": round(time.process_time()),
            "wall_s": round(seconds),
        }
        row |= {k: round(v, 3) for k, v in evaluate(bundle, validation).items()}
        print(json.dumps(row), flush=True)
        with log_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        save(bundle, optimizer, full)
        draw_progress(log_path, validation, forward(bundle, validation[0][:1]), bundle.config, folder / "progress.png")

    start, losses = time.monotonic(), [0.0]
    report(0.0, 0.0)
    try:
        while (done := (time.monotonic() - start) / (minutes * 60)) < 1.0:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * group["share"] * learning_rate(bundle.step, done, settings)
            mixture_now, voice_now = (torch.from_numpy(x).to(device) for x in mixer.batch(settings.batch))
            out = forward(bundle, mixture_now, front_learns=settings.front_share > 0)
            loss = loss_of(bundle, out, mixture_now, voice_now, settings.front_loss)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], settings.grad_clip)
            losses.append(loss.item())
            if math.isfinite(losses[-1]):
                optimizer.step()
            bundle.step += 1
            if bundle.step % 20 == 0:
                print(f"{bundle.step} {np.nanmean(losses[-20:]):.3f} {time.monotonic() - start:.0f} s", flush=True)
            if bundle.step % settings.evaluate_every == 0:
                report(float(np.nanmean(losses[-settings.evaluate_every :])), time.monotonic() - start)
    except KeyboardInterrupt:
        print("stopped; saving", flush=True)
    report(float(np.nanmean(losses[-100:])), time.monotonic() - start)
    print(f"saved; next:  python -m models.export --checkpoint {full.with_suffix('.npz')}")


if __name__ == "__main__":
    typer.run(main)
