"""Blocks of an encoder, Whisper's or the bridge's, some frames at a time: what was heard of frames is not made again.

    frames │  BLOCK  │  BLOCK  │  BLOCK  │ the rest │
    hears  │────────>│
           │──────────────────>│                          each frame hears its own block of frames and those before it
           │────────────────────────────>│

In Whisper every frame hears the whole window, which has to be encoded anew whenever it goes on. Cut so, its blocks make
few more mistakes where a block is three seconds, and are wrong in a quarter of the words at half a second. The bridge's
are trained to be cut.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.types import ArtefactError

BLOCK = 150  # frames: three seconds


@torch.no_grad()
def merged(encoder: Any, own: Mapping[str, NDArray[np.float32]]) -> torch.nn.Module:
    """The bridge's own blocks, or the adapter's, of those of openai-whisper's encoder in floats, which stays as it is.

    own: by Whisper's names, of each linear layer down [rank, in] and up [rank, out], whose product is added to its
    weight (Hu et al. 2021, LoRA); every other weight as it is. There are as many blocks as there are names of. Raises
    ArtefactError where they do not fit the encoder.
    """
    made = torch.nn.Module()
    count = len({name.split(".")[1] for name in own if name.startswith("blocks.")})
    made.blocks = copy.deepcopy(encoder.blocks[:count])
    made.ln_post = copy.deepcopy(encoder.ln_post)
    try:
        for name, weight in made.named_parameters():
            layer = name.removesuffix("weight")
            if f"{layer}up" in own:
                weight.add_(torch.from_numpy(own[f"{layer}up"].T @ own[f"{layer}down"]))
            else:
                weight.copy_(torch.from_numpy(own[name]))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ArtefactError(
            f"an artefact's blocks are of another Whisper ({error}); install Sottovoce again"
        ) from error
    return made


def ending(encoder: Any) -> torch.nn.Module:
    """The last block and the last norm of openai-whisper's encoder, themselves, as `run_blocks` has them."""
    found = torch.nn.Module()
    found.blocks, found.ln_post = encoder.blocks[-1:], encoder.ln_post
    return found


@dataclass
class Past:
    """Of whole blocks of frames that went through before: what went in, what came out [B, T, width], and the keys and
    values of each layer [B, heads, T, width / heads]."""

    entered: Tensor
    left: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def cut(self, count: int) -> Past:
        """The first frames alone."""
        keys, values = ([part[:, :, :count] for part in parts] for parts in (self.keys, self.values))
        return Past(self.entered[:, :count], self.left[:, :count], keys, values)


def run_blocks(encoder: Any, x: Tensor, past: Past | None = None, size: int = BLOCK) -> Past:
    """Frames [B, T, width] with their places, as the blocks of openai-whisper's encoder begin with them, behind those
    of `past`, which are whole blocks of `size` frames -> all of them, gone through."""
    before = past.entered.shape[1] if past is not None else 0
    count = x.shape[1]
    block = torch.arange(before + count, device=x.device) // size
    mask = block[None, :] <= block[before:, None] if int(block[-1]) > int(block[before]) else None
    made = Past(x if past is None else torch.cat([past.entered, x], dim=1), x)
    for number, layer in enumerate(encoder.blocks):
        heard = layer.attn_ln(x)
        asked, key, value = (
            part(heard).unflatten(2, (layer.attn.n_head, -1)).transpose(1, 2)
            for part in (layer.attn.query, layer.attn.key, layer.attn.value)
        )
        if past is not None:
            key, value = torch.cat([past.keys[number], key], dim=2), torch.cat([past.values[number], value], dim=2)
        found = F.scaled_dot_product_attention(asked, key, value, attn_mask=mask)
        x = x + layer.attn.out(found.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.mlp_ln(x))
        made.keys.append(key)
        made.values.append(value)
    x = encoder.ln_post(x)
    made.left = x if past is None else torch.cat([past.left, x], dim=1)
    return made


class BlockEncoder:
    """Windows of frames that mostly begin alike, one after the other; whole blocks that were there are kept.

    In floats that changes nothing; in 8 bit a little, because a layer's inputs are rounded by the largest of a call.
    size: frames of a block; None: each window is heard whole, as in Whisper, and none are kept.
    """

    def __init__(self, encoder: Any, size: int | None = BLOCK) -> None:
        self._encoder, self._size = encoder, size or sys.maxsize
        self._past: Past | None = None

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Frames [1, T, width] with their places -> what Whisper's text decoder hears, [1, T, width]."""
        known = self._known(x)
        past = self._past.cut(known) if self._past is not None and known else None
        made = run_blocks(self._encoder, x[:, known:], past, self._size) if known < x.shape[1] else past
        assert made is not None
        whole = x.shape[1] // self._size * self._size
        self._past = made.cut(whole) if whole else None
        return made.left

    def _known(self, x: Tensor) -> int:
        """How many of the first frames are those that went through before, in whole blocks."""
        if self._past is None:
            return 0
        count = min(x.shape[1], self._past.entered.shape[1]) // self._size * self._size
        for start in range(0, count, self._size):
            block = slice(start, start + self._size)
            if not torch.equal(x[:, block], self._past.entered[:, block]):
                return start
        return count
