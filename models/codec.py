"""The streaming codec: hop of sound -> codes of voice and background -> hop of each.

The latent of a frame is the pair of lapped-transform coefficients [voice; background] in R^2N; the two quantisers see
it through the complementary orthogonal projections P_s = diag(I, 0) and P_b = I - P_s (DeCodec's SOP, made exact), so
voice and background always add up to the mixture before quantisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.front import Front, State
from models.quantize import BandQuantizer, encode_together, search_books
from models.transforms import frames_of, lapped_basis, overlap_add


class Encoder(nn.Module):
    """Sound -> coefficients of voice and background -> codes."""

    basis: Tensor

    def __init__(self, config: ModelConfig, speech: BandQuantizer, background: BandQuantizer) -> None:
        super().__init__()
        self.config = config
        self.front = Front(config)
        self.register_buffer("basis", lapped_basis(config.hop, config.overlap), persistent=False)
        self.speech, self.background = speech, background
        self.search = search_books

    def initial_state(self, batch: int) -> State:
        """Zeros: the mixture [B, front_lag + overlap] and the voice [B, overlap] before this hop, and the front's."""
        c = self.config
        own = {"mixture": torch.zeros(batch, c.front_lag + c.overlap), "voice": torch.zeros(batch, c.overlap)}
        return {**own, **self.front.initial_state(batch)}

    def project(self, sound: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Sound [B, T * hop] -> coefficients of voice and background, [B, T, N] each; they add up to the mixture's."""
        c = self.config
        voice, front = self.front(sound, state)
        heard = torch.cat([state["mixture"], sound], dim=1)
        delayed = heard[:, c.overlap : c.overlap + sound.shape[1]]
        frames, past_voice = frames_of(state["voice"], voice, c.hop + c.overlap, c.hop)
        both, _ = frames_of(heard[:, : c.overlap], delayed, c.hop + c.overlap, c.hop)
        voices, mixture = (torch.cat([frames, both], dim=1) @ self.basis).chunk(2, dim=1)
        new = {"mixture": heard[:, sound.shape[1] :], "voice": past_voice, **front}
        return voices, mixture - voices, new

    def forward(self, sound: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Sound [B, T * hop] -> codes of voice and background [B, T, K]."""
        speech, background, state = self.project(sound, state)
        shape = speech.shape[:2]
        flat = [speech.flatten(0, 1), background.flatten(0, 1)]
        codes_s, codes_b = encode_together([self.speech, self.background], flat, self.search)
        return codes_s.unflatten(0, shape), codes_b.unflatten(0, shape), state


class Decoder(nn.Module):
    """Codes -> sound of voice and background."""

    basis: Tensor

    def __init__(self, config: ModelConfig, speech: BandQuantizer, background: BandQuantizer) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("basis", lapped_basis(config.hop, config.overlap), persistent=False)
        self.speech, self.background = speech, background

    def initial_state(self, batch: int) -> State:
        """{"tails": [B, 2, overlap]}: what the last frames still have to give."""
        return {"tails": torch.zeros(batch, 2, self.config.overlap)}

    def synthesise(self, speech: Tensor, background: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Coefficients [B, T, N] of both -> sound [B, T * hop] of both."""
        tails = state["tails"]
        voice, voice_tail = overlap_add(tails[:, 0], speech @ self.basis.T, self.config.hop)
        rest, rest_tail = overlap_add(tails[:, 1], background @ self.basis.T, self.config.hop)
        return voice, rest, {"tails": torch.stack([voice_tail, rest_tail], dim=1)}

    def forward(self, codes_s: Tensor, codes_b: Tensor, gains: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Codes [B, T, K] of both, gains [2] -> sound [B, T * hop] of both."""
        shape = codes_s.shape[:2]
        speech = self.speech.decode(codes_s.flatten(0, 1)).unflatten(0, shape) * gains[0]
        background = self.background.decode(codes_b.flatten(0, 1)).unflatten(0, shape) * gains[1]
        return self.synthesise(speech, background, state)


class Codec(nn.Module):
    """Encoder and decoder over one pair of quantisers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        speech = BandQuantizer(config, config.speech_stages, keep_energy=False)
        background = BandQuantizer(config, config.background_stages, keep_energy=True)
        self.encoder = Encoder(config, speech, background)
        self.decoder = Decoder(config, speech, background)
