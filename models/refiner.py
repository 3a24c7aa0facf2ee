"""The refiner: the microphone's own sound under a gain that the decoded tokens dictate, and some of the tokens' own.

The gain starts as |S| / (|S| + |B|) of the two decoded spectra, which on validation is better in every score than the
Wiener gain of their powers, and the network learns what to add to its logit. Where noise covers the voice the decoded
voice has the better phase, so a second output says how much of it goes in. The background is what is left of the
mixture.

Tokens mislead where the front took the wrong one of two talkers for the voice. So a third sound is at hand, a second
opinion that hears the mixture alone (`models/dtln.py`); two that err in different ways are together nearer the truth
than either, and the network says bin by bin how much of each goes in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.dtln import Dtln
from models.front import State
from models.transforms import dft_basis, frames_of, inverse_dft_weight, overlap_add, refiner_windows

FLOOR = 1e-7  # power of a bin below which nothing can be told (about -70 dBFS over the frame)
SHARE_START = -2.0  # logit of the decoded voice's share before training
TRUST_START = -1.0  # and of the second opinion's
SOUNDS = 6  # whose log power the network hears


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
        self.offset = nn.Parameter(torch.tensor([[0.0], [SHARE_START], [TRUST_START]]).repeat(1, bins))
        self.opinion = Dtln(config)
        self.input = nn.Linear(SOUNDS * bins, config.refiner_units)
        self.first = nn.GRU(config.refiner_units, config.refiner_units, batch_first=True)
        self.second = nn.GRU(config.refiner_units, config.refiner_units, batch_first=True)
        self.output = nn.Linear(2 * config.refiner_units, len(self.offset) * bins, bias=False)
        nn.init.zeros_(self.output.weight)

    def initial_state(self, batch: int) -> State:
        """Zeros: the mixture that waits for its tokens, the last frames, what is to be added, the GRUs, the opinion."""
        c = self.config
        own = {
            "delay": torch.zeros(batch, c.token_lag),
            "history": torch.zeros(batch, 4, c.frame - c.step),
            "past": torch.zeros(batch, c.overlap),
            "tail": torch.zeros(batch, c.overlap),
            "gru": torch.zeros(2, batch, c.refiner_units),
        }
        return own | {f"opinion_{name}": value for name, value in self.opinion.initial_state(batch).items()}

    def mask(self, power: Tensor, gru: Tensor) -> tuple[Tensor, Tensor]:
        """Log power [B, T, SOUNDS, bins]: mixture, voice, background, the mixture less the voice, the second opinion,
        the mixture less that.

        Returns the mixture's gain, the decoded voice's share and the trust in the second opinion, together
        [B, T, 3, bins] in 0..1, and the GRUs' state.
        """
        hidden = torch.nn.functional.silu(self.input(power.flatten(2) * 0.25))
        first, h1 = self.first(hidden, gru[0:1])
        second, h2 = self.second(first, gru[1:2])
        ratio = (power[:, :, 1] - power[:, :, 2]).clamp(-12.0, 12.0)
        learned = self.output(torch.cat([second, hidden], dim=2)).unflatten(2, self.offset.shape) + self.offset
        dictated = torch.cat([(self.slope * ratio)[:, :, None] + learned[:, :, :1], learned[:, :, 1:]], dim=2)
        return torch.sigmoid(dictated), torch.cat([h1, h2])

    def forward(
        self, mixture: Tensor, speech: Tensor, background: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """Sound [B, T * hop] each, the last two behind by the decoder's lag.

        Returns refined voice and background [B, T * hop] (behind by `refined_lag`), and the new state.
        """
        c = self.config
        theirs = {name.removeprefix("opinion_"): value for name, value in state.items() if name.startswith("opinion_")}
        opinion, theirs = self.opinion(mixture, self.cosine, self.sine, theirs)
        joined = torch.cat([state["delay"], mixture], dim=1)
        delayed = joined[:, : mixture.shape[1]]
        signals = torch.stack([delayed, speech, background, opinion], dim=1)
        cut = frames_of(state["history"].flatten(0, 1), signals.flatten(0, 1), c.frame, c.step)
        frames, history = cut[0].unflatten(0, (-1, 4)), cut[1].unflatten(0, (-1, 4))
        frames = frames * self.analysis
        spectra = torch.stack([frames @ self.cosine, frames @ self.sine])  # [2, B, 4, T, bins]
        masks, gru = self.mask(self._powers(spectra), state["gru"])
        gain, share, trust = masks.unbind(2)
        own = trust * spectra[:, :, 3] + (1.0 - trust) * gain * spectra[:, :, 0]
        refined = ((1.0 - share) * own + share * spectra[:, :, 1]) * self.weight
        newest = slice(-self.span, None)
        pieces = refined[0] @ self.cosine[newest].T + refined[1] @ self.sine[newest].T
        voice, tail = overlap_add(state["tail"], pieces * self.synthesis, c.step)
        past = torch.cat([state["past"], delayed], dim=1)
        new = {
            "delay": joined[:, mixture.shape[1] :],
            "history": history,
            "past": past[:, mixture.shape[1] :],
            "tail": tail,
            "gru": gru,
        }
        new |= {f"opinion_{name}": value for name, value in theirs.items()}
        return voice, past[:, : mixture.shape[1]] - voice, new

    @staticmethod
    def _powers(spectra: Tensor) -> Tensor:
        """Spectra [2, B, 4, T, bins] of mixture, voice, background and second opinion -> what `mask` hears."""
        mixture, voice, background, opinion = spectra.unbind(2)
        heard = torch.stack([mixture, voice, background, mixture - voice, opinion, mixture - opinion], dim=3)
        return torch.log(heard.square().sum(0) + FLOOR)
