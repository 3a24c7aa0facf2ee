"""A second opinion on where the voice is: DTLN, a dual-signal transformation LSTM network (Westhausen and Meyer 2020).

Two small recurrent networks on frames of 32 ms: the first gives a mask for the magnitudes of the mixture's spectrum,
the second one for a learned transform of what the first one leaves. It was made for steps of 8 ms; here it makes the
refiner's, of 10 ms, and its frames are added under a window that is as late as the decoder is, so that all voices that
the refiner compares are of one moment. Its learned transform takes the masked spectrum itself, which spares the inverse
DFT between the two (the product of both matrices).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.front import State
from models.transforms import frames_of

UNITS = 128
FEATURES = 256
LAYERS = 2


def piece_window(span: int, step: int) -> Tensor:
    """[span]: a box of `step` smoothed by a Hann window, so that it sums to one at every `step`."""
    width = span - step + 1
    smooth = torch.sin(torch.pi * (torch.arange(width, dtype=torch.float64) + 1.0) / (width + 1.0)).square()
    box = torch.ones(1, 1, step, dtype=torch.float64)
    padded = nn.functional.pad(box, (width - 1, width - 1))
    return (nn.functional.conv1d(padded, smooth[None, None]) / smooth.sum())[0, 0].float()


class Dtln(nn.Module):
    """Mixture -> voice, late by the decoder's lag."""

    window: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.frame // 2 + 1
        self.span = config.token_lag + config.step
        self.chunks = -(-self.span // config.step)  # of one step each, the last one part empty
        self.register_buffer("window", piece_window(self.span, config.step), persistent=False)
        self.first = nn.LSTM(bins, UNITS, LAYERS, batch_first=True)
        self.first_mask = nn.Linear(UNITS, bins)
        self.encode = nn.Linear(2 * bins, FEATURES, bias=False)
        self.norm = nn.LayerNorm(FEATURES, eps=1e-7)
        self.second = nn.LSTM(FEATURES, UNITS, LAYERS, batch_first=True)
        self.second_mask = nn.Linear(UNITS, FEATURES)
        self.decode = nn.Linear(FEATURES, self.span, bias=False)
        nn.init.zeros_(self.decode.weight)  # silent until it is given weights that know something

    def initial_state(self, batch: int) -> State:
        """Zeros: the last frame's sound, both networks' memories (first h, c, second h, c), the last frames' voices."""
        c = self.config
        return {
            "heard": torch.zeros(batch, c.frame - c.step),
            "lstm": torch.zeros(4, LAYERS, batch, UNITS),
            "pieces": torch.zeros(batch, self.chunks - 1, self.chunks * c.step),
        }

    def forward(self, mixture: Tensor, cosine: Tensor, sine: Tensor, state: State) -> tuple[Tensor, State]:
        """Mixture [B, T * hop], `dft_basis(config.frame)` -> voice [B, T * hop], new state."""
        c, kept = self.config, state["lstm"]
        frames, heard = frames_of(state["heard"], mixture, c.frame, c.step)
        real, imag = frames @ cosine, frames @ sine
        magnitude = (real.square() + imag.square() + 1e-14).sqrt()
        hidden, (h1, c1) = self.first(magnitude, (kept[0], kept[1]))
        mask = torch.sigmoid(self.first_mask(hidden))
        features = self.encode(torch.cat([mask * real, mask * imag], dim=2))
        hidden, (h2, c2) = self.second(self.norm(features), (kept[2], kept[3]))
        voiced = self.decode(features * torch.sigmoid(self.second_mask(hidden))) * self.window
        padded = nn.functional.pad(voiced, (0, self.chunks * c.step - self.span))
        pieces = torch.cat([state["pieces"], padded], dim=1)
        count, step = frames.shape[1], c.step
        ready = [
            pieces[:, self.chunks - 1 - n : self.chunks - 1 - n + count, n * step : (n + 1) * step]
            for n in range(self.chunks)
        ]
        voice = torch.stack(ready).sum(0).flatten(1)
        new = {"heard": heard, "lstm": torch.stack([h1, c1, h2, c2]), "pieces": pieces[:, count:]}
        return voice, new
