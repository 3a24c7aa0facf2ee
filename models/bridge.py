"""From the codec's voice tokens to what the blocks of Whisper's encoder begin with: the learned part of the bridge.

    codes [T, K] ─► the sound that they spell ─► log mel ─► causal convolutions ─► frames [T, width] + places [T, width]

Whisper's encoder is a short stem of convolutions over a mel spectrogram, and blocks that let every frame hear the whole
window. What the stem makes of the clean voice hangs on the tokens around a frame alone, and is made of them here as
they come; where in a window a frame lies is added when one is cut out, and the bridge's own blocks go on from that,
some frames at a time (models.bridge_blocks, engine.whisper_blocks). The codebooks are the codec's own and fixed; of the
shapes the first stages are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from whisper.audio import mel_filters

from models.bridge_blocks import OwnBlocks, waves
from models.config import ModelConfig
from models.front import State
from models.quantize import BandQuantizer
from models.transforms import dft_basis, lapped_from, lapped_parts, overlap_add

MEL_FRAME, MEL_STEP, MELS = 400, 160, 80  # of Whisper's spectrogram
QUIETEST = 1e-8  # power of a mel band below which nothing is told
MIDDLE, SPREAD = -4.0, 2.0  # of its decimal logarithm, about
PLACES = 1500  # of Whisper's longest window, 30 s


@dataclass(frozen=True)
class BridgeConfig:
    """Shapes. width: of Whisper base's frames; stages: of shapes that are read.

    lookahead: frames of tokens after a frame that are heard before it is made, 20 ms each; the tokens' own lag of
    15 ms behind their sound is in it; own, rank: how many blocks it has, and of what is added to their weights.
    """

    width: int = 512
    inner: int = 192
    hidden: int = 320
    kernel: int = 11
    dilations: tuple[int, ...] = (1, 2, 4)
    stages: int = 3
    lookahead: int = 10
    own: int = 6
    rank: int = 16

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

    turn: Tensor
    rise: Tensor
    rows: Tensor
    columns: Tensor
    cosine: Tensor
    sine: Tensor
    hann: Tensor
    to_mel: Tensor

    def __init__(self, config: BridgeConfig, codec: ModelConfig) -> None:
        super().__init__()
        self.config, self.codec = config, codec
        self.shapes = BandQuantizer(codec, config.stages, keep_energy=False)
        cosine, sine = dft_basis(MEL_FRAME)
        turn, rise, rows, columns = lapped_parts(codec.hop, codec.overlap)
        constants = {
            "turn": turn.float(),
            "rise": rise.float(),
            "rows": rows,
            "columns": columns,
            "cosine": cosine,
            "sine": sine,
            "hann": torch.hann_window(MEL_FRAME),
            "to_mel": mel_filters("cpu", MELS).T.half().float().contiguous(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        told = codec.bands + MELS * (codec.hop // MEL_STEP)
        self.enter = nn.Linear(told, config.inner)
        self.blocks = nn.ModuleList(
            Spread(config.inner, config.hidden, config.kernel, dilation) for dilation in config.dilations
        )
        self.norm = nn.LayerNorm(config.inner)
        self.leave = nn.Linear(config.inner, config.width)
        self.scale = nn.Parameter(torch.ones(config.width))
        self.own = OwnBlocks(config.own, config.width, config.rank)

    @torch.no_grad()
    def take_books(self, voice: BandQuantizer) -> None:
        """The first stages of the voice's codebooks become what tokens mean here."""
        for band in range(self.codec.bands):
            self.shapes.books(band).copy_(voice.books(band)[: self.config.stages])

    @torch.no_grad()
    def take_spread(self, frames: Tensor) -> None:
        """Begin with the mean and the spread of what the stem makes [N, width]."""
        self.scale.copy_(frames.std(0).clamp_min(1e-3))
        self.leave.bias.copy_(frames.mean(0) / self.scale)

    def initial_state(self, batch: int) -> State:
        """{"tail": what the last token still has to give, "heard": sound before, "past_N": frames before block N}."""
        pasts = [(self.config.kernel - 1) * dilation for dilation in self.config.dilations]
        sizes = {"tail": (self.codec.overlap,), "heard": (self.codec.hop,)} | {
            f"past_{n}": (self.config.inner, past) for n, past in enumerate(pasts)
        }
        return {name: torch.zeros(batch, *size, device=self.scale.device) for name, size in sizes.items()}

    def blank(self) -> Tensor:
        """Codes [K] of digital silence."""
        codes = torch.full((self.config.rows(self.codec),), -1)
        codes[: self.codec.bands] = 0
        return codes

    def features(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """Codes [B, T, K] -> [B, T, F], about one each: the bands' levels, and the log mel of the sound that they
        spell, of two frames that end with it; the new state of that sound."""
        levels = codes[:, :, : self.codec.bands].float() / (self.codec.gain_levels / 4) - 2.0
        spelled = self.shapes.decode(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])
        basis = lapped_from(self.turn, self.rise, self.rows, self.columns)
        sound, tail = overlap_add(state["tail"], spelled @ basis.T, self.codec.hop)
        hops = torch.cat([state["heard"], sound], dim=1).unflatten(1, (-1, self.codec.hop))
        around = torch.cat([hops[:, :-1], hops[:, 1:]], dim=2)
        ends = range(self.codec.hop + MEL_STEP, 2 * self.codec.hop + 1, MEL_STEP)
        mels = [self._log_mel(around[:, :, end - MEL_FRAME : end]) for end in ends]
        return torch.cat([levels, *mels], dim=2), {"tail": tail, "heard": hops[:, -1]}

    def _log_mel(self, frames: Tensor) -> Tensor:
        """Sound [..., MEL_FRAME] -> [..., MELS]."""
        windowed = frames * self.hann
        power = (windowed @ self.cosine).square() + (windowed @ self.sine).square()
        return ((power @ self.to_mel).clamp_min(QUIETEST).log10() - MIDDLE) / SPREAD

    def forward(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """Codes [B, T, K] -> frames [B, T, width] without their places, `lookahead` late; new state."""
        told, new = self.features(codes, state)
        x = self.enter(told)
        for number, block in enumerate(self.blocks):
            x, new[f"past_{number}"] = block(x, state[f"past_{number}"])
        return self.leave(self.norm(x)) * self.scale, new

    def places(self, at: Tensor) -> Tensor:
        """What is added to the frames at these places [T] of a window, [T, width]: Whisper's own waves."""
        return waves(at, self.config.width)

    def whole(self, codes: Tensor) -> Tensor:
        """A window of codes [B, T, K], silence after it -> frames [B, T, width], without their places."""
        late = self.config.lookahead
        after = self.blank().to(codes).expand(len(codes), late, -1)
        frames, _ = self(torch.cat([codes, after], dim=1), self.initial_state(len(codes)))
        return frames[:, late:]


def trained_size(part: nn.Module) -> int:
    """How many weights are trained; the codebooks are not."""
    return sum(math.prod(weight.shape) for weight in part.parameters())


def config_from(values: dict[str, object]) -> BridgeConfig:
    """From a checkpoint's or a graph's own words. Raises TypeError where they are of another version."""
    config = BridgeConfig(**values)  # type: ignore[arg-type]
    return replace(config, dilations=tuple(config.dilations))
