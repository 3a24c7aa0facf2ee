"""A latent decoder that is small: the last block of Whisper's encoder, and what is added to its weights.

    codes [B, T/2, coded] ─► perceptron ─► each twice, and its place ─► last block, grown ─► in W(X)'s place

Codes say what sounds, not when; Whisper's frames say both, and its text decoder loses its way without that. With
k-means for codes, before any training, a token of clean sound cost 4.5 nats without places, 4.3 with 12 dimensions of
them and 2.6 with 64 (Whisper's own frames: .8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.types import SottovoceError
from engine.whisper_blocks import run_blocks
from models.bridge_blocks import OwnBlocks, grown, waves

if TYPE_CHECKING:
    from models.noise_vq import VqConfig

HIDDEN = 4  # times a code's dimensions: the perceptron's inner layer
PLACES = 64  # dimensions of what a place adds: with 12 of them it was two nats a token worse before training


class GrownDecoder(nn.Module):
    """In the place of models.noise_vq.LatentDecoder where `VqConfig.rank` is not zero; `grow` comes first."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        inner = HIDDEN * config.coded
        self.enter = nn.Sequential(nn.Linear(config.coded, inner), nn.GELU(), nn.Linear(inner, config.width))
        few = min(PLACES, config.width)
        self.places = nn.Sequential(nn.Linear(config.width, few, bias=False), nn.Linear(few, config.width, bias=False))
        self.own = OwnBlocks(1, config.width, config.rank)
        self._through: list[nn.Module] = []  # in a list: its weights are Whisper's, and not saved with these

    def grow(self, ending: Any) -> None:
        """Whose last block it is: `engine.whisper_blocks.ending` of openai-whisper's encoder, which stays as it is."""
        self._through = [grown(ending, self.own)]

    def entered(self, codes: Tensor, count: int) -> Tensor:
        """Codes [B, ceil(count / 2), coded] -> what the block begins with, [B, count, width]."""
        frames = self.enter(codes).repeat_interleave(2, dim=1)[:, :count]
        places: Tensor = self.places(waves(torch.arange(count, device=codes.device), frames.shape[2]))
        return frames + places

    def forward(self, codes: Tensor, there: Tensor) -> Tensor:
        """Codes [B, ceil(T / 2), coded] and where frames are [B, T] -> [B, T, width].

        What is not there is heard, too: it is padding codes, which say so. Raises SottovoceError before `grow`.
        """
        if not self._through:
            raise SottovoceError("this quantiser's decoder is a block of Whisper's, and was given none")
        count = there.shape[1]
        return run_blocks(self._through[0], self.entered(codes, count), size=count).left
