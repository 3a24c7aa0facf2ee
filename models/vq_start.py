"""Where training the quantiser inside Whisper begins: fitted, so that no step is spent on what algebra knows.

What Whisper's last block begins with is taken apart into what every window has at a place and what is said there. The
latents are the principal components of the latter in a metric of what Whisper's text decoder minds, guessed from noisy
frames by least squares; the codes are k-means of them; and the latent decoder begins by giving each code the mean of
what it stood for, and its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from engine.types import Samples, SottovoceError
from engine.whisper_blocks import run_blocks
from engine.whisper_decoder import stem_of
from models.bridge_blocks import waves
from models.grown_decoder import GrownDecoder
from models.noise_vq import NoiseVq
from models.shards import load
from models.training import descend, rate_at, set_rate
from models.word_pairs import BLOCK_PAIRS, TO_LEARN, FrozenWhisper, Heard, PairMaker, pairs_of, read_blocks

if TYPE_CHECKING:
    from models.train_words import Words

BLOCKS = 12  # of stored pairs that are looked at
ROUNDS, RIDGE = 12, 1e-3  # of k-means; of least squares
MINDED_PAIRS, MINDED_POWER, LEAST_MINDED = 128, 0.5, 1e-4
LOUDEST = 3.0  # times the usual length: as far as a frame may lie from the middle
LIFT = 2.0  # latents have one dimension that is always so many times the others together: unit vectors tell lengths so
STEPS, RATE = 1500, 3e-3  # of fitting the decoder's way in
console = Console(stderr=True)


@dataclass(frozen=True)
class Seen:
    """A pair, and what Whisper's last block begins with on its clean sound, [frames, width]."""

    pair: Heard
    before: np.ndarray


def seen(blocks: int = BLOCKS) -> list[Seen]:
    """The first stored pairs; their sounds are made again. Raises SottovoceError where there are none."""
    stored = list(islice(read_blocks("train"), blocks * BLOCK_PAIRS))
    if not stored:
        raise SottovoceError("there are no train pairs yet; run python -m models.word_pairs --split train")
    maker = PairMaker(load("train", "speech"), load("train", "background"), extent=TO_LEARN)
    whisper, found = FrozenWhisper(), list[Seen]()
    for number in track(range(len(stored) // BLOCK_PAIRS), "before Whisper's last block", console=console):
        for pair, sound in zip(stored[number * BLOCK_PAIRS :], pairs_of(maker, number), strict=False):
            before = before_last(whisper.decoder, sound.clean)
            if len(before) != len(pair.clean):
                raise SottovoceError("the stored pairs are of other recordings; delete them and make them again")
            found.append(Seen(pair, before))
    return found


@torch.inference_mode()
def before_last(decoder: Any, sound: Samples) -> np.ndarray:
    """Sound [N] -> what the last block of Whisper's encoder begins with, float16 [frames, width]."""
    encoder = decoder.model.encoder
    x = stem_of(encoder, decoder.mel(sound, trailing_s=0.0))
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks[:-1]:
        x = block(x)
    return np.asarray(x[0].numpy().astype(np.float16))


def fit(model: NoiseVq, words: Words, looked: Sequence[Seen], seed: int = 0) -> None:
    """Set the weights of a new model, whose latent decoder grows from Whisper's last block, in place."""
    decoder, home = model.decoder, next(model.parameters()).device
    assert isinstance(decoder, GrownDecoder)
    model.cpu()
    decoder.own.take(words.ending)
    decoder.grow(words.ending)
    halves = [halved(one.before) for one in looked]
    before, place = torch.cat(halves), torch.cat([torch.arange(len(half)) for half in halves])
    minded = _minded(looked, halves, words)
    with torch.no_grad():
        before = before - _fit_places(decoder, before, place)
        latents = _latents(calmed(before), minded, model.config.coded)
        noisy, clean = (torch.cat([halved(getattr(one.pair, name)) for one in looked]) for name in ("noisy", "clean"))
        weight, bias = least_squares(torch.cat([noisy, clean]), latents.repeat(2, 1))
        model.encoder.project.weight.copy_(weight)
        model.encoder.project.bias.copy_(bias)
        _begin_as_nothing(model)
        z = functional.normalize(latents, dim=1)
        codes = spherical_means(z, model.config.codes, seed)
        model.codebook.vectors.copy_(codes)
        chosen = nearest(z, codes)
    _fit_way_in(decoder, codes, chosen, before, minded)
    model.to(home)


def halved(frames: np.ndarray) -> Tensor:
    """Frames [T, width] -> means of two, [T // 2, width]."""
    return torch.from_numpy(frames[: len(frames) // 2 * 2].astype(np.float32)).unflatten(0, (-1, 2)).mean(1)


def calmed(frames: Tensor) -> Tensor:
    """Frames [N, width], none of them farther from the middle than LOUDEST times what is usual: a few of Whisper's are
    ten times as long as the others (Darcet 2024), and would be all that means and squares see."""
    middle = frames.median(0).values
    away = frames - middle
    length = away.norm(dim=1, keepdim=True)
    return middle + away * (LOUDEST * length.median() / length).clamp(max=1.0)


def _minded(looked: Sequence[Seen], halves: Sequence[Tensor], words: Words) -> Tensor:
    """A metric [width, width]: a root of the Fisher information of the words in what the last block begins with."""
    found = torch.zeros(halves[0].shape[1], halves[0].shape[1])
    spoken = [number for number, one in enumerate(looked) if len(one.pair.tokens) > 1][:MINDED_PAIRS]
    for number in track(spoken, "what the words depend on", console=console):
        pair, x = looked[number].pair, halves[number].clone().requires_grad_(True)
        frames = x.to(words.device).repeat_interleave(2, dim=0)[None]
        heard = run_blocks(words.ending, frames, size=2 * len(x)).left
        (words.loss(heard, words.batch([pair])) * len(pair.tokens)).backward()
        assert x.grad is not None
        found += x.grad.T @ x.grad
    strengths, axes = torch.linalg.eigh(found)
    return axes * (strengths / strengths[-1] + LEAST_MINDED).clamp_min(0.0) ** (MINDED_POWER / 2)


def _fit_places(decoder: GrownDecoder, before: Tensor, place: Tensor) -> Tensor:
    """Give the decoder what frames [N, width] have in common at each place [N], counted in halves; it, [N, width]."""
    known = waves(torch.arange(2 * (int(place.max()) + 1)), before.shape[1])
    weight, _ = least_squares(known.unflatten(0, (-1, 2)).mean(1)[place], calmed(before))
    down: Any = decoder.places[0]
    up: Any = decoder.places[1]
    u, s, v = torch.linalg.svd(weight)
    rank = len(down.weight)
    down.weight.copy_(v[:rank])
    up.weight.copy_(u[:, :rank] * s[:rank])
    found: Tensor = decoder.places(known).unflatten(0, (-1, 2)).mean(1)[place]
    return found


def _latents(before: Tensor, minded: Tensor, count: int) -> Tensor:
    """The first principal components in the metric, [N, count], the last of them one that never changes."""
    heard = (before - before.mean(0)) @ minded
    _, axes = torch.linalg.eigh(heard.T @ heard / len(heard))
    latents = heard @ axes[:, 1 - count :]
    size = LIFT * latents.norm(dim=1).median()
    return torch.cat([latents, size.expand(len(latents), 1)], dim=1) / size


def _begin_as_nothing(model: NoiseVq) -> None:
    """What of the encoder adds to the straight way through adds nothing yet."""
    block = getattr(model.encoder, "block", None)
    ends: list[Any] = [model.encoder.mlp[2]] if block is None else [block.out, block.mlp[2]]
    for end in ends:
        torch.nn.init.zeros_(end.weight)
        torch.nn.init.zeros_(end.bias)


def _fit_way_in(decoder: GrownDecoder, codes: Tensor, chosen: Tensor, before: Tensor, minded: Tensor) -> None:
    """From codes [codes, coded] to the mean of the frames [N, width] that each was chosen for [N], in the metric."""
    uses = torch.bincount(chosen, minlength=len(codes)).clamp(min=1).float()
    wanted = torch.zeros(len(codes), before.shape[1]).index_add_(0, chosen, before) / uses[:, None]
    share, middle = uses / uses.sum(), before.median(0).values
    metric = minded / ((wanted - middle) @ minded).square().sum(1).mean().sqrt()
    first: Any = decoder.enter[0]
    last: Any = decoder.enter[2]
    with torch.no_grad():
        last.bias.copy_(middle)
        first.weight.mul_(2 * LIFT)  # codes lie close together
    optimizer = torch.optim.Adam(decoder.enter.parameters(), lr=RATE)
    for step in track(range(STEPS), "the way into Whisper's last block", console=console):
        set_rate(optimizer, RATE * rate_at(step, step / STEPS))
        loss = (((decoder.enter(codes) - wanted) @ metric).square().sum(1) * share).sum()
        descend(optimizer, loss)


def least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [M, N] and bias [M] that bring x [., N] nearest to y [., M]."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    away = x - mean_x
    gram = away.T @ away
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, away.T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    """Which of the codes [codes, D] each unit vector [N, D] is like most, [N]."""
    return torch.cat([(part @ codes.T).argmax(1) for part in z.split(8192)])


def spherical_means(z: Tensor, count: int, seed: int) -> Tensor:
    """Unit vectors [count, D] amid the unit vectors [N, D]; those that stand for none begin anew at one of these."""
    random = torch.Generator().manual_seed(seed)
    codes = z[torch.randint(len(z), (count,), generator=random)].clone()
    for _ in track(range(ROUNDS), "codes", console=console):
        chosen = nearest(z, codes)
        codes = functional.normalize(torch.zeros_like(codes).index_add_(0, chosen, z), dim=1)
        lost = torch.nonzero(torch.bincount(chosen, minlength=count) == 0)[:, 0]
        codes[lost] = z[torch.randint(len(z), (len(lost),), generator=random)]
    return codes
