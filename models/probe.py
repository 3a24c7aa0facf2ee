"""How much of what is said is in the voice tokens, stage by stage: `python -m models.probe [--minutes 12]`.

The classes are sound units: k-means on the output of Whisper's encoder, which has 50 frames a second as the tokens
have. A linear probe hears what the codes of a frame and of its two neighbours on either side say (the levels of the
bands in dB, and the log spectrum that the shapes so far decode to) and names the unit. It learns from training voices
and is judged on the validation's, which are other speakers. Printed for the levels alone, and with one stage of shapes
after the other.
"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import torch
import typer
import whisper
from torch import Tensor, nn

from engine.weights import require_weights
from engine.whisper_decoder import load_model
from models.checkpoint import Bundle, load_shipped
from models.feed import voices
from models.shards import RATE_HZ, Clip

WINDOW_S = 30.0
UNITS = 100
CONTEXT = 2  # frames on either side
SPECTRUM_BANDS = 40
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 12, 256, 2e-3, 1e-2
SHORTEST_S = 2.0


def sounds(clips: list[Clip], minutes: float, seed: int) -> Tensor:
    """Speech of as many speakers as there are, in windows [M, WINDOW_S * RATE_HZ]."""
    random = np.random.default_rng(seed)
    long = [clip for clip in clips if len(clip.samples) >= SHORTEST_S * RATE_HZ]
    weight = {name: 1 / sum(c.speaker == name for c in long) for name in {c.speaker for c in long}}
    odds = np.array([weight[clip.speaker] for clip in long])
    wanted = round(minutes * 60 / WINDOW_S) * round(WINDOW_S * RATE_HZ)
    order = random.choice(len(long), len(long), replace=False, p=odds / odds.sum())
    parts, length = [], 0
    for index in order:
        parts.append(np.asarray(long[index].samples, np.float32) / 32768.0)
        length += len(parts[-1])
        if length >= wanted:
            break
    whole = np.concatenate(parts)
    count = min(wanted, len(whole)) // round(WINDOW_S * RATE_HZ)
    return torch.from_numpy(whole[: count * round(WINDOW_S * RATE_HZ)]).unflatten(0, (count, -1))


@torch.no_grad()
def embeddings(windows: Tensor) -> Tensor:
    """What Whisper base's encoder makes of windows [M, N]: [M, frames, 512], 50 frames a second."""
    weights = require_weights()
    model = load_model(weights.path, weights.format, weights.name)
    frames = []
    for window in windows:
        mel = whisper.log_mel_spectrogram(window, model.dims.n_mels)
        frames.append(model.encoder(mel[None])[0].float())
    return torch.stack(frames)


@torch.no_grad()
def voice_codes(bundle: Bundle, windows: Tensor) -> Tensor:
    """Codes of the voice stream of windows [M, N], brought back in line with the sound: [M, frames, K]."""
    codes = []
    for window in windows:
        speech, _, _ = bundle.codec.encoder(window[None], bundle.codec.encoder.initial_state(1))
        codes.append(speech[0])
    late = round(bundle.config.token_lag / bundle.config.hop)
    return torch.stack(codes).roll(-late, 1)


@torch.no_grad()
def centres(frames: Tensor, count: int, iterations: int = 12, seed: int = 0) -> Tensor:
    """k-means on frames [N, D] -> [count, D]."""
    generator = torch.Generator().manual_seed(seed)
    book = frames[torch.randperm(len(frames), generator=generator)[:count]].clone()
    for _ in range(iterations):
        nearest = units_of(frames, book)
        total = torch.zeros_like(book).index_add_(0, nearest, frames)
        used = torch.bincount(nearest, minlength=count)[:, None]
        book = torch.where(used > 0, total / used.clamp_min(1), book)
    return book


def units_of(frames: Tensor, book: Tensor) -> Tensor:
    """The nearest centre of each frame: [..., D] -> [...]."""
    return (frames @ book.T - 0.5 * book.square().sum(1)).argmax(-1)


@torch.no_grad()
def features(bundle: Bundle, codes: Tensor, stages: int) -> Tensor:
    """Voice codes [M, T, K], the first `stages` stages of which are heard -> [M, T, D]: levels and spectrum in dB."""
    quantizer, bands = bundle.codec.encoder.speech, bundle.config.bands
    levels = codes[:, :, :bands] * bundle.config.gain_step_db
    if not stages:
        return levels.float()
    kept = codes.clone()
    kept[:, :, bands * (1 + stages) :] = -1
    power = torch.stack([quantizer.decode(window) for window in kept]).square()
    spectrum = 10 * torch.log10(power.unflatten(2, (SPECTRUM_BANDS, -1)).mean(3) + 1e-9)
    return torch.cat([levels.float(), spectrum], dim=2)


def with_neighbours(x: Tensor) -> Tensor:
    """Features [M, T, D] -> those of every frame and its neighbours [M * T', (2 CONTEXT + 1) * D]."""
    last = x.shape[1] - 2 * CONTEXT
    return torch.cat([x[:, step : step + last] for step in range(2 * CONTEXT + 1)], dim=2).flatten(0, 1)


def probe(train: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor], classes: int, epochs: int = EPOCHS) -> float:
    """Share of frames named right by multinomial logistic regression. Each pair: features [N, D], classes [N]."""
    torch.manual_seed(0)
    mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
    heard, asked = ((x - mean) / spread for x in (train[0], judged[0]))
    linear = nn.Linear(heard.shape[1], classes)
    optimizer = torch.optim.AdamW(linear.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        for rows in torch.randperm(len(heard)).split(BATCH):
            loss = nn.functional.cross_entropy(linear(heard[rows]), train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float((linear(asked).argmax(1) == judged[1]).float().mean())


def measure(bundle: Bundle, minutes: float) -> dict[str, float]:
    """Accuracy by what the probe may hear; "most frequent" is what naming one unit always would reach."""
    learned, judged = sounds(voices("train"), minutes, 1), sounds(voices("validation"), minutes / 3, 2)
    heard = embeddings(learned)
    # Whisper tells every frame its place in the window, and a few loud channels outshout all others
    place, spread = heard.mean(0), heard.flatten(0, 1).std(0)
    plain = [(x - place) / spread for x in (heard, embeddings(judged))]
    book = centres(plain[0].flatten(0, 1), UNITS)
    units = [units_of(x, book)[:, CONTEXT:-CONTEXT].flatten() for x in plain]
    codes = [voice_codes(bundle, x) for x in (learned, judged)]
    found = {"most frequent": float(torch.bincount(units[1], minlength=UNITS).max() / len(units[1]))}
    for stages in range(bundle.config.speech_stages + 1):
        rows = [with_neighbours(features(bundle, c, stages)) for c in codes]
        name = "levels" if not stages else f"levels and {stages} stage{'s' if stages > 1 else ''}"
        found[name] = probe((rows[0], units[0]), (rows[1], units[1]), UNITS)
        print(f"{name}: {100 * found[name]:.1f} % of the frames", flush=True)
    return found


def main(minutes: Annotated[float, typer.Option(min=1.5, help="speech to learn from")] = 12.0) -> None:
    """Print the share of sound units that a linear probe reads from the voice tokens."""
    print(json.dumps({name: round(value, 4) for name, value in measure(load_shipped(), minutes).items()}))


if __name__ == "__main__":
    typer.run(main)
