"""The refiner: the microphone's own sound under a gain that the decoded tokens dictate, and some of the tokens' own.

The gain starts as |S| / (|S| + |B|) of the two decoded spectra, which on validation is better in every score than the
Wiener gain of their powers, and the network learns what to add to its logit. Where noise covers the voice the decoded
voice has the better phase, so a second output says how much of it goes in. The background is what is left of the
mixture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.front import State
from models.transforms import dft_basis, frames_of, inverse_dft_weight, overlap_add, refiner_windows

FLOOR = 1e-7  # power of a bin below which nothing can be told (about -70 dBFS over the frame)
MIX_START = -2.0  # logit of the decoded voice's share before training


class Refiner(nn.Module):
    """Mixture, decoded voice and decoded background -> refined voice and background, which add up to the mixture."""

    cosine: Tensor
    sine: Tensor
    weight: Tensor
    analysis: Tensor
    synthesis: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.frame // 2 + 1
        analysis, synthesis = refiner_windows(config.frame, config.step, config.overlap)
        cosine, sine = dft_basis(config.frame)
        self.span = config.step + config.overlap
        constants = {"cosine": cosine, "sine": sine, "weight": inverse_dft_weight(config.frame)}
        for name, value in (constants | {"analysis": analysis, "synthesis": synthesis}).items():
            self.register_buffer(name, value, persistent=False)
        self.slope = nn.Parameter(torch.full((bins,), 0.5))
        self.offset = nn.Parameter(torch.tensor([[0.0], [MIX_START]]).repeat(1, bins))
        self.input = nn.Linear(4 * bins, config.refiner_units)
        self.first = nn.GRU(config.refiner_units, config.refiner_units, batch_first=True)
        self.second = nn.GRU(config.refiner_units, config.refiner_units, batch_first=True)
        self.output = nn.Linear(2 * config.refiner_units, 2 * bins, bias=False)
        nn.init.zeros_(self.output.weight)

    def initial_state(self, batch: int) -> State:
        """Zeros: the mixture that waits for its tokens, the last frames, what is to be added, and both GRUs."""
        c = self.config
        return {
            "delay": torch.zeros(batch, c.token_lag),
            "history": torch.zeros(batch, 3, c.frame - c.step),
            "past": torch.zeros(batch, c.overlap),
            "tail": torch.zeros(batch, c.overlap),
            "gru": torch.zeros(2, batch, c.refiner_units),
        }

    def mask(self, power: Tensor, gru: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log power of mixture, voice, background, and of the mixture less the voice, [B, T, 4, bins].

        Returns the mixture's gain and the decoded voice's share, both [B, T, bins] in 0..1, and the GRUs' state.
        """
        hidden = torch.nn.functional.silu(self.input(power.flatten(2) * 0.25))
        first, h1 = self.first(hidden, gru[0:1])
        second, h2 = self.second(first, gru[1:2])
        ratio = (power[:, :, 1] - power[:, :, 2]).clamp(-12.0, 12.0)
        learned = self.output(torch.cat([second, hidden], dim=2)).unflatten(2, (2, -1)) + self.offset
        gain, share = torch.sigmoid(self.slope * ratio + learned[:, :, 0]), torch.sigmoid(learned[:, :, 1])
        return gain, share, torch.cat([h1, h2])

    def forward(
        self, mixture: Tensor, speech: Tensor, background: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """Sound [B, T * hop] each, the last two behind by the decoder's lag.

        Returns refined voice and background [B, T * hop] (behind by `refined_lag`), and the new state.
        """
        c = self.config
        joined = torch.cat([state["delay"], mixture], dim=1)
        delayed = joined[:, : mixture.shape[1]]
        signals = torch.stack([delayed, speech, background], dim=1)
        cut = frames_of(state["history"].flatten(0, 1), signals.flatten(0, 1), c.frame, c.step)
        frames, history = cut[0].unflatten(0, (-1, 3)), cut[1].unflatten(0, (-1, 3))
        frames = frames * self.analysis
        real, imag = frames @ self.cosine, frames @ self.sine  # [B, 3, T, bins]
        real_4 = torch.cat([real, real[:, :1] - real[:, 1:2]], dim=1)
        imag_4 = torch.cat([imag, imag[:, :1] - imag[:, 1:2]], dim=1)
        power = torch.log(real_4.square() + imag_4.square() + FLOOR).transpose(1, 2)
        gain, share, gru = self.mask(power, state["gru"])
        own, decoded, newest = (1.0 - share) * gain * self.weight, share * self.weight, slice(-self.span, None)
        voice_real, voice_imag = own * real[:, 0] + decoded * real[:, 1], own * imag[:, 0] + decoded * imag[:, 1]
        pieces = voice_real @ self.cosine[newest].T + voice_imag @ self.sine[newest].T
        voice, tail = overlap_add(state["tail"], pieces * self.synthesis, c.step)
        past = torch.cat([state["past"], delayed], dim=1)
        new = {
            "delay": joined[:, mixture.shape[1] :],
            "history": history,
            "past": past[:, mixture.shape[1] :],
            "tail": tail,
            "gru": gru,
        }
        return voice, past[:, : mixture.shape[1]] - voice, new
