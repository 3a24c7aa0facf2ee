"""A vector quantiser inside a frozen Whisper: tokens that keep the words, and a residue that keeps the noise.

    W(X) ─► LatentEncoder ─► z ─► Codebook ─► Q(z) ─► LatentDecoder ─► in W's place, to Whisper's decoder
    [B, T, width]            [B, T/2, latent]    └─ R = z - Q(z) ─► NoiseClassifier

W(X) is what Whisper's encoder makes of sound X, 50 frames a second. After "Explainable Disentanglement on Discrete
Speech Representations for Noise-Robust ASR"; the padding code as in WhisperSpeech. Whisper itself is not in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.grown_decoder import GrownDecoder

Sampling = Literal["mean", "conv", "transformer"]
ROPE_BASE = 10_000.0
ASIDE_HIDDEN = 3  # times what is left aside: the inner layer that finds it
FORGOTTEN = 0.03  # a code used less than so often, in parts of an even share, is put where something is


@dataclass(frozen=True)
class VqConfig:
    """Shapes; the defaults are the paper's best, at Whisper base's width. classes: of noise, clean and unknown too.

    rank: of what is added to Whisper's last block to make the latent decoder's of it; 0: that block is its own. aside:
    so many of the latents are no part of any code and belong to the residue alone; 0: the paper's.
    """

    width: int = 512
    latent: int = 64
    codes: int = 1024
    heads: int = 8
    sampling: Sampling = "transformer"
    decay: float = 0.9
    classes: int = 12
    rank: int = 0
    aside: int = 0

    @property
    def coded(self) -> int:
        """Dimensions of a code."""
        return self.latent - self.aside


@dataclass(frozen=True)
class Quantised:
    """What became of latents: unit vectors z and their codes' [B, T, coded], indices [B, T], residue [B, T, latent].

    The residue is z - Q(z), and what is left aside of every code. Where nothing was said, `indices` hold the padding
    code and the residue is zero.
    """

    z: Tensor
    codes: Tensor
    indices: Tensor
    residue: Tensor


def downsampled(there: Tensor) -> Tensor:
    """A mask of frames [B, T] -> of pairs [B, ceil(T / 2)], each there where one of its frames is."""
    even = functional.pad(there, (0, there.shape[1] % 2))
    return even.unflatten(1, (-1, 2)).any(2)


class Block(nn.Module):
    """A transformer block with rotary positions (Su 2021); frames that are not there are not listened to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """x [B, T, width], there [B, T] -> [B, T, width]."""
        q, k, v = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(rotated(q), rotated(k), v, attn_mask=there[:, None, None])
        x = x + self.out(heard.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


def rotated(x: Tensor) -> Tensor:
    """Queries or keys [B, heads, T, D] turned by their place."""
    half = x.shape[3] // 2
    rate = ROPE_BASE ** (-torch.arange(half, device=x.device) / half)
    place = (x[0, 0, :, 0] * 0.0 + 1.0).cumsum(0) - 1.0  # from the values: an exported graph takes any length then
    angle = place[:, None] * rate
    a, b = x[..., :half], x[..., half : 2 * half]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=3)


class LatentEncoder(nn.Module):
    """Whisper's frames, two by two, to unit vectors of few dimensions."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        width, self.sampling = config.width, config.sampling
        if self.sampling != "mean":
            self.stride = nn.Conv1d(width, width, 3, stride=2, padding=1)
            nn.init.zeros_(self.stride.weight)  # it begins as every other frame
            nn.init.zeros_(self.stride.bias)  # type: ignore[arg-type]
        if self.sampling == "transformer":
            self.block = Block(width, config.heads)
        else:
            self.norm = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.project = nn.Linear(width, config.coded)
        if config.aside:
            few = ASIDE_HIDDEN * config.aside
            self.leave = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, few), nn.GELU(), nn.Linear(few, config.aside)
            )

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """W(X) [B, T, width] and where it is there [B, T] -> z [B, ceil(T / 2), coded], of length one."""
        x = _even(x * there[..., None])
        if self.sampling == "mean":
            y = x.unflatten(1, (-1, 2)).mean(2)
        else:
            y = x[:, ::2] + self.stride(x.transpose(1, 2)).transpose(1, 2)
        y = self.block(y, downsampled(there)) if self.sampling == "transformer" else y + self.mlp(self.norm(y))
        return functional.normalize(self.project(y).float(), dim=2)

    def aside(self, x: Tensor, there: Tensor) -> Tensor:
        """What no code is made of, as `forward`: [B, ceil(T / 2), aside]."""
        found: Tensor = self.leave(_even(x * there[..., None]).unflatten(1, (-1, 2)).mean(2))
        return found.float()


def _even(x: Tensor) -> Tensor:
    """Frames [B, T, width] or one more, the last again."""
    return torch.cat([x, x[:, -1:]], dim=1) if x.shape[1] % 2 else x


class Codebook(nn.Module):
    """Unit vectors that follow what they stand for (EMA, cosine similarity), and one more for where nothing is said."""

    vectors: Tensor
    uses: Tensor

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.decay, self.size = config.decay, config.codes
        noise = nn.init.kaiming_normal_(torch.empty(config.codes, config.coded))
        self.register_buffer("vectors", functional.normalize(noise, dim=1))
        self.register_buffer("uses", torch.full((config.codes,), 1.0 / config.codes))  # share of late
        self.padding = nn.Parameter(torch.zeros(config.coded))

    def forward(self, z: Tensor, there: Tensor) -> Quantised:
        """z [B, T, coded] of length one, there [B, T]. In training the codes move, and gradients pass them by."""
        with torch.autocast(z.device.type, enabled=False):  # neighbours are told apart in floats
            indices = (z @ self.vectors.T).argmax(2)
        if self.training:
            self._follow(z[there].detach(), indices[there])
        nearest = self.vectors[indices]
        codes = torch.where(there[..., None], z + (nearest - z).detach(), self.padding.expand_as(z))
        residue = (z - nearest.detach()) * there[..., None]
        return Quantised(z, codes, torch.where(there, indices, self.size), residue)

    def decode(self, indices: Tensor) -> Tensor:
        """Indices [B, T], the padding code among them -> vectors [B, T, coded]. Raises IndexError beyond it."""
        return torch.cat([self.vectors, self.padding[None]])[indices]

    @torch.no_grad()
    def _follow(self, z: Tensor, indices: Tensor) -> None:
        """Move each code towards the mean of what it stood for [N, coded], forgotten ones to where something is."""
        if not len(z):
            return
        chosen = functional.one_hot(indices, self.size).to(z.dtype)
        count = chosen.sum(0)
        self.uses.lerp_(count / count.sum(), 1.0 - self.decay)
        used = count > 0
        with torch.autocast(z.device.type, enabled=False):
            mean = functional.normalize((chosen.T @ z)[used], dim=1)
        self.vectors[used] = functional.normalize(torch.lerp(self.vectors[used], mean, 1.0 - self.decay), dim=1)
        forgotten = torch.nonzero(self.uses * self.size < FORGOTTEN)[:, 0]
        if len(forgotten):
            drawn = torch.randint(len(z), (len(forgotten),), device=z.device)
            self.vectors[forgotten] = z[drawn]
            self.uses[forgotten] = 1.0 / self.size


class LatentDecoder(nn.Module):
    """Codes back to frames as Whisper's encoder makes them: each twice, and a block that smooths them."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.coded, config.width)
        self.block = Block(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, codes: Tensor, there: Tensor) -> Tensor:
        """Codes [B, ceil(T / 2), coded] and where frames are [B, T] -> [B, T, width]."""
        frames = self.project(codes).repeat_interleave(2, dim=1)[:, : there.shape[1]]
        # frames that are not there are padding codes, which say so: nothing is hidden from the block
        done: Tensor = self.norm(self.block(frames, torch.ones_like(there)))
        return done


class NoiseClassifier(nn.Module):
    """The kind of noise from the residue: a few neighbours at a time, then the mean over what was given."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.listen = nn.Sequential(
            nn.Conv1d(config.latent, 2 * config.latent, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(2 * config.latent, 2 * config.latent, 5, padding=2),
            nn.GELU(),
        )
        self.decide = nn.Linear(2 * config.latent, config.classes)

    def forward(self, residue: Tensor, there: Tensor) -> Tensor:
        """Residue [B, T, latent] and where it is there [B, T] -> logits [B, classes]."""
        logits: Tensor = self.decide(self.summary(residue, there))
        return logits

    def summary(self, residue: Tensor, there: Tensor) -> Tensor:
        """What the kind is decided by: [B, 2 * latent]."""
        one = residue * residue.shape[2] ** 0.5  # about one in each dimension: what is left of a unit vector is small
        heard = self.listen(one.transpose(1, 2)).transpose(1, 2) * there[..., None]
        return heard.sum(1) / there.sum(1, keepdim=True).clamp(min=1)


class NoiseVq(nn.Module):
    """All four parts. `forward` is what Whisper's decoder is given in place of W(X)."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.codebook = LatentEncoder(config), Codebook(config)
        self.decoder = GrownDecoder(config) if config.rank else LatentDecoder(config)
        self.classifier = NoiseClassifier(config)

    def quantise(self, x: Tensor, there: Tensor) -> Quantised:
        """W(X) [B, T, width] and where it is there [B, T] -> its tokens and residue, at half the frames."""
        said = downsampled(there)
        done: Quantised = self.codebook(self.encoder(x, there), said)
        if not self.config.aside:
            return done
        # the kind of noise is learned by what is aside alone: where it moved the codes, words were lost in a minute
        aside = self.encoder.aside(x, there) * said[..., None]
        return replace(done, residue=torch.cat([done.residue.detach(), aside], dim=2))

    def fitted(self) -> list[nn.Parameter]:
        """What models.vq_start fits where the latent decoder grows from Whisper's last block."""
        if not isinstance(self.decoder, GrownDecoder):
            return []
        aside = {id(weight) for name, weight in self.encoder.named_parameters() if name.startswith("leave.")}
        coding = [weight for weight in self.encoder.parameters() if id(weight) not in aside]
        return [*coding, *self.decoder.enter.parameters(), *self.decoder.places.parameters()]

    def forward(self, x: Tensor, there: Tensor, heard: Tensor | None = None) -> tuple[Tensor, Quantised, Tensor]:
        """-> (in W's place [B, T, width], what became of the latents, noise logits [B, classes]).

        heard: the tokens [B, ceil(T / 2)] that the kind of noise is told from; all where None.
        """
        quantised = self.quantise(x, there)
        logits = self.classifier(quantised.residue, downsampled(there) if heard is None else heard)
        return self.decoder(quantised.codes, there), quantised, logits


@dataclass(frozen=True)
class VqWeights:
    """What each loss counts beside that of the words (the paper's). noise: at its most; see `noise_weight`."""

    alpha: float = 0.5
    beta: float = 0.5
    noise: float = 1.0


def noise_weight(weights: VqWeights, accuracy: float) -> float:
    """The less the classifier errs on validation (accuracy 0..1), the less is done for it."""
    return weights.noise * (1.0 - min(max(accuracy, 0.0), 1.0))


def alpha_loss(clean: Tensor, noisy: Quantised, there: Tensor) -> Tensor:
    """How far the clean sound's latents z [B, T, coded] are from the codes of the noisy one; there [B, T].

    The clean ones stand still: drawn together, both would end as one point.
    """
    return _mean(clean.detach() - noisy.codes, there)


def beta_loss(clean: Tensor, decoded: Tensor, there: Tensor) -> Tensor:
    """How far W(clean) [B, T, width] is from what the decoder makes of the noisy sound's codes."""
    return _mean(clean - decoded, there)


def _mean(difference: Tensor, there: Tensor) -> Tensor:
    """Squared length, mean over the frames that are there."""
    return (difference.square().sum(2) * there).sum() / there.sum().clamp(min=1)
