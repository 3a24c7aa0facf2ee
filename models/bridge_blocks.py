"""The bridge's own blocks: grown from those of Whisper's encoder, kept as what was added to their weights.

    frames [B, T, width] ─► block ─► ... ─► block ─► norm ─► what Whisper's text decoder hears

They stand in the place of Whisper's encoder where words come from tokens. Each linear layer is Whisper's weight and a
product of two thin matrices (Hu et al. 2021, LoRA), which alone are trained and kept, with the biases and the norms, so
that what is shipped is small though it stands for millions of weights. They are run some frames at a time
(engine.whisper_blocks) and are trained so, in blocks of one second and more. Names are Whisper's.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDER = 4  # the inner layer of a block
LONGEST_WAVE = 10_000.0  # frames, of what places are told by


def waves(at: Tensor, width: int) -> Tensor:
    """How Whisper tells the places [T] of frames in a window: sines and cosines, [T, width]."""
    half = width // 2
    rates = LONGEST_WAVE ** (-torch.arange(half, device=at.device) / (half - 1))
    angle = at.float()[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Added(nn.Module):
    """What is added to the weight of a linear layer, down [rank, in] and up [rank, out], and the bias in its place."""

    def __init__(self, wide_in: int, wide_out: int, rank: int, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, wide_in) / math.sqrt(wide_in))
        self.up = nn.Parameter(torch.zeros(rank, wide_out))
        self.bias = nn.Parameter(torch.zeros(wide_out)) if bias else None


class OwnBlocks(nn.Module):
    """What is added to the first `count` blocks of an encoder of this width, and its last norm."""

    def __init__(self, count: int, width: int, rank: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(width, rank) for _ in range(count))
        self.ln_post = nn.LayerNorm(width)

    @torch.no_grad()
    def take(self, encoder: Any) -> None:
        """Begin as these blocks of openai-whisper's encoder."""
        for name, weight in self.named_parameters():
            if not name.endswith((".down", ".up")):
                weight.copy_(encoder.get_parameter(name))


def _block(width: int, rank: int) -> nn.ModuleDict:
    attention = {name: Added(width, width, rank, bias=name != "key") for name in ("query", "key", "value", "out")}
    mlp = {"0": Added(width, WIDER * width, rank), "2": Added(WIDER * width, width, rank)}
    norms = {name: nn.LayerNorm(width) for name in ("attn_ln", "mlp_ln")}
    return nn.ModuleDict({"attn": nn.ModuleDict(attention), "mlp": nn.ModuleDict(mlp), **norms})


class Grown(nn.Module):
    """A linear layer whose weight [out, in] is held, and what is added to it."""

    held: Tensor

    def __init__(self, weight: Tensor, added: Added) -> None:
        super().__init__()
        self.register_buffer("held", weight.detach(), persistent=False)
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.held, self.added.bias) + F.linear(x, self.added.down) @ self.added.up


def grown(encoder: Any, own: OwnBlocks) -> nn.Module:
    """Blocks as `engine.whisper_blocks.run_blocks` has them, through which what is added is trained; the encoder of
    openai-whisper stays as it is."""
    made = nn.Module()
    made.blocks = copy.deepcopy(encoder.blocks[: len(own.blocks)])
    made.ln_post = own.ln_post
    for name, module in list(made.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, nn.Linear):
            setattr(made.get_submodule(parent), last, Grown(module.weight, own.get_submodule(name)))  # type: ignore[arg-type]
        elif isinstance(module, nn.LayerNorm):
            setattr(made.get_submodule(parent), last, own.get_submodule(name))
    return made
