"""From the codec's voice tokens into Whisper's latent space: what stands in the place of Whisper's encoder.

    codes [T, K] ─► what the shipped codebooks say of them, log power ─► causal convolutions ─► frames [T, width]
                                                                                              + places [T, width]

Whisper's encoder hears a whole window, and tells every frame its place in it. So a frame is made of two parts: what is
said, which hangs on the tokens around it alone and is computed as they come, and where in the window that is, which is
added when a window is cut out. The codebooks are the codec's own and fixed; of the shapes the first stages are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.front import State
from models.quantize import BandQuantizer

QUIETEST = 1e-9  # power of a bin below which nothing is told
MIDDLE_DB, SPREAD_DB = -50.0, 20.0  # of a voice's bins, about
LONGEST_WAVE = 10_000.0  # frames, of what places are told by, as in Whisper


@dataclass(frozen=True)
class BridgeConfig:
    """Shapes. width: of Whisper base's frames; stages: of shapes that are read; places: the longest window, in frames.

    lookahead: frames of tokens after a frame that are heard before it is made, 20 ms each; the tokens' own lag of
    15 ms behind their sound is in it.
    """

    width: int = 512
    inner: int = 256
    hidden: int = 384
    kernel: int = 21
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    stages: int = 2
    lookahead: int = 20
    places: int = 900
    waves: int = 64
    place_hidden: int = 128

    def rows(self, codec: ModelConfig) -> int:
        """Rows of codes that are read, the first ones of a voice's."""
        return codec.bands * (1 + self.stages)


class Spread(nn.Module):
    """A block: each channel over time by itself, past frames alone, then all channels of a frame together."""

    def __init__(self, inner: int, hidden: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.along = nn.Conv1d(inner, inner, kernel, dilation=dilation, groups=inner)
        self.norm = nn.LayerNorm(inner)
        self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.GELU(), nn.Linear(hidden, inner))

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, inner] and what came before it [B, inner, past] -> [B, T, inner], new past."""
        joined = torch.cat([past, x.transpose(1, 2)], dim=2)
        return x + self.mlp(self.norm(self.along(joined).transpose(1, 2))), joined[:, :, -self.past :]


class Bridge(nn.Module):
    """Causal: frame t comes with token t + lookahead. `whole` is a window at once, `forward` goes on from a state."""

    def __init__(self, config: BridgeConfig, codec: ModelConfig) -> None:
        super().__init__()
        self.config, self.codec = config, codec
        self.shapes = BandQuantizer(codec, config.stages, keep_energy=False)
        told = codec.bands + len(self._pooled(torch.zeros(1, codec.hop))[0])
        self.enter = nn.Linear(told, config.inner)
        self.blocks = nn.ModuleList(
            Spread(config.inner, config.hidden, config.kernel, dilation) for dilation in config.dilations
        )
        self.norm = nn.LayerNorm(config.inner)
        self.leave = nn.Linear(config.inner, config.width)
        self.place = nn.Sequential(
            nn.Linear(2 * config.waves, config.place_hidden), nn.GELU(), nn.Linear(config.place_hidden, config.width)
        )
        self.scale = nn.Parameter(torch.ones(config.width))

    @torch.no_grad()
    def take_books(self, voice: BandQuantizer) -> None:
        """The first stages of the voice's codebooks become what tokens mean here."""
        for band in range(self.codec.bands):
            self.shapes.books(band).copy_(voice.books(band)[: self.config.stages])

    @torch.no_grad()
    def take_spread(self, frames: Tensor) -> None:
        """Begin with the mean and the spread of Whisper's frames [N, width]: a few channels outshout all others."""
        self.scale.copy_(frames.std(0).clamp_min(1e-3))
        self.leave.bias.copy_(frames.mean(0) / self.scale)

    def initial_state(self, batch: int) -> State:
        """{"past_N": [B, inner, frames of block N]}: zeros."""
        pasts = [(self.config.kernel - 1) * dilation for dilation in self.config.dilations]
        return {
            f"past_{n}": torch.zeros(batch, self.config.inner, past, device=self.scale.device)
            for n, past in enumerate(pasts)
        }

    def blank(self) -> Tensor:
        """Codes [K] of digital silence."""
        codes = torch.full((self.config.rows(self.codec),), -1)
        codes[: self.codec.bands] = 0
        return codes

    def features(self, codes: Tensor) -> Tensor:
        """Codes [M, K] -> [M, F]: the bands' levels, and the power of the spectrum that they spell, about one each."""
        levels = codes[:, : self.codec.bands].float() / (self.codec.gain_levels / 4) - 2.0
        power = self._pooled(self.shapes.decode(codes).square())
        return torch.cat([levels, (10.0 * torch.log10(power + QUIETEST) - MIDDLE_DB) / SPREAD_DB], dim=1)

    @staticmethod
    def _pooled(power: Tensor) -> Tensor:
        """[M, N] -> [M, N / 2]: the lowest quarter bin by bin, the next in twos, the rest in fours."""
        quarter = power.shape[1] // 4
        middle = power[:, quarter : 2 * quarter].unflatten(1, (-1, 2)).mean(2)
        high = power[:, 2 * quarter :].unflatten(1, (-1, 4)).mean(2)
        return torch.cat([power[:, :quarter], middle, high], dim=1)

    def run(self, told: Tensor, state: State) -> tuple[Tensor, State]:
        """Features [B, T, F] -> frames [B, T, width] without their places, `lookahead` late; new state."""
        x, new = self.enter(told), dict[str, Tensor]()
        for (name, past), block in zip(state.items(), self.blocks, strict=True):
            x, new[name] = block(x, past)
        return self.leave(self.norm(x)) * self.scale, new

    def forward(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """Codes [B, T, K] -> frames [B, T, width] without their places, `lookahead` late; new state."""
        return self.run(self.features(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]), state)

    def places(self, at: Tensor) -> Tensor:
        """What is added to the frames at these places [T] of a window, [T, width]."""
        waves = self.config.waves
        rates = LONGEST_WAVE ** (-torch.arange(waves, device=at.device) / (waves - 1))
        angle = at.float()[:, None] * rates
        told: Tensor = self.place(torch.cat([angle.sin(), angle.cos()], dim=1)) * self.scale
        return told

    def whole(self, codes: Tensor) -> Tensor:
        """A window of codes [B, T, K], silence after it -> frames [B, T, width] as Whisper's encoder makes them.

        Raises ValueError when the window is longer than `config.places`.
        """
        count, late = codes.shape[1], self.config.lookahead
        if count > self.config.places:
            raise ValueError(f"a window has at most {self.config.places} frames, not {count}")
        after = self.blank().to(codes).expand(len(codes), late, -1)
        frames, _ = self(torch.cat([codes, after], dim=1), self.initial_state(len(codes)))
        return frames[:, late:] + self.places(torch.arange(count, device=codes.device))


def trained_size(bridge: Bridge) -> int:
    """How many weights are trained; the codebooks are not."""
    return sum(math.prod(weight.shape) for weight in bridge.parameters())


def config_from(values: dict[str, object]) -> BridgeConfig:
    """From a checkpoint's or a graph's own words. Raises TypeError where they are of another version."""
    config = BridgeConfig(**values)  # type: ignore[arg-type]
    return replace(config, dilations=tuple(config.dilations))
