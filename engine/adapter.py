"""The quantiser inside Whisper, all of it: what its text decoder hears in place of what its encoder made.

    Whisper's frames ─► residue.onnx ─► codes ─► what a block begins with ─► last block, grown ─► Whisper's text decoder

The words are then written from one code of many every 40 ms and nothing else, wherever the frames come from: from sound
or from the codec's tokens. The block is the last of the user's own Whisper, and what the graph holds is added to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.residue import ResidueReader, has_residue
from engine.types import ArtefactError
from engine.whisper_blocks import ending, merged, run_blocks


class Adapter:
    """Frames of openai-whisper's encoder [1, T, width] -> the same, made of their codes.

    recogniser: the size of Whisper that `encoder` is of. Raises ArtefactError where the graph is not here, or is of
    another size.
    """

    def __init__(self, encoder: Any, recogniser: str) -> None:
        if not has_residue():
            raise ArtefactError("there is no quantiser among the artefacts; leave --adapter out")
        self._reader = ResidueReader()
        if self._reader.recogniser != recogniser:
            wanted = self._reader.recogniser
            raise ArtefactError(f"the quantiser comes with Whisper {wanted} alone, not with {recogniser}")
        self.own: Any = merged(ending(encoder), self._reader.own)

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        entered = torch.from_numpy(self._reader.entered(frames[0].numpy()))[None]
        return run_blocks(self.own, entered, size=entered.shape[1]).left
