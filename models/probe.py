"""How much of what is said is in the voice tokens, stage by stage: `python -m models.probe [--minutes 12]`.

The classes are sound units: k-means on the output of Whisper's encoder, which has 50 frames a second as the tokens
have. A linear probe hears the codes of a frame and of its two neighbours on either side (one weight per code and class,
summed: logistic regression on one-hot codes) and names the unit. It learns from training voices and is judged on the
validation's, which are other speakers. Printed for the levels alone, and with one stage of shapes after the other.
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
from engine.whisper_worker import load_model
from models.checkpoint import Bundle, load_shipped
from models.feed import voices
from models.shards import RATE_HZ, Clip

WINDOW_S = 30.0
UNITS = 100
CONTEXT = 2  # frames on either side
EPOCHS, BATCH, LEARNING_RATE = 6, 512, 3e-3
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


def with_neighbours(codes: Tensor) -> Tensor:
    """Codes [M, T, K] -> those of every frame and its neighbours, each row's numbers apart: [M * T', (2 C + 1) * K]."""
    first = torch.arange(codes.shape[2]) * (int(codes.max()) + 1)
    shifted = [(codes + first).roll(-step, 1) for step in range(-CONTEXT, CONTEXT + 1)]
    size = codes.shape[2] * (int(codes.max()) + 1)
    joined = torch.cat([part + number * size for number, part in enumerate(shifted)], dim=2)
    return joined[:, CONTEXT:-CONTEXT].flatten(0, 1)


def probe(train: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor], classes: int, epochs: int = EPOCHS) -> float:
    """Share of frames named right. Each pair: indices [N, K] of what is there, unit of each frame [N]."""
    torch.manual_seed(0)
    table = nn.EmbeddingBag(int(max(train[0].max(), judged[0].max())) + 1, classes, mode="sum")
    nn.init.zeros_(table.weight)
    optimizer = torch.optim.Adam(table.parameters(), LEARNING_RATE)
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(BATCH):
            loss = nn.functional.cross_entropy(table(train[0][rows]), train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float((table(judged[0]).argmax(1) == judged[1]).float().mean())


def measure(bundle: Bundle, minutes: float) -> dict[str, float]:
    """Accuracy by what the probe may hear; "most frequent" is what naming one unit always would reach."""
    learned, judged = sounds(voices("train"), minutes, 1), sounds(voices("validation"), minutes / 3, 2)
    heard = embeddings(learned)
    book = centres(heard.flatten(0, 1), UNITS)
    units = [units_of(x, book)[:, CONTEXT:-CONTEXT].flatten() for x in (heard, embeddings(judged))]
    codes = [voice_codes(bundle, x) for x in (learned, judged)]
    bands = bundle.config.bands
    found = {"most frequent": float(torch.bincount(units[1], minlength=UNITS).max() / len(units[1]))}
    for stages in range(bundle.config.speech_stages + 1):
        rows = [with_neighbours(c[:, :, : bands * (1 + stages)]) for c in codes]
        name = "levels" if not stages else f"levels and {stages} stage{'s' if stages > 1 else ''}"
        found[name] = probe((rows[0], units[0]), (rows[1], units[1]), UNITS)
        print(f"{name}: {100 * found[name]:.1f} % of the frames", flush=True)
    return found


def main(minutes: Annotated[float, typer.Option(min=1.5, help="speech to learn from")] = 12.0) -> None:
    """Print the share of sound units that a linear probe reads from the voice tokens."""
    print(json.dumps({name: round(value, 4) for name, value in measure(load_shipped(), minutes).items()}))


if __name__ == "__main__":
    typer.run(main)
