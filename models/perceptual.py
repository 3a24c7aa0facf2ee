"""A training loss that hears as PESQ does: loudness in Bark bands, where added noise costs more than lost voice.

After ITU-T P.862 (2001) and its differentiable form of Martín-Doñas et al. 2018 (PMSQE), with the hearing threshold of
Terhardt 1979 and the loudness of Zwicker in place of the standard's tables. Nothing is aligned in time or level; a
level that is wrong by less than about 4 dB is masked, beyond that it is an error, while PESQ forgives it.

As in P.862 a moment can be no worse than WORST. In the loudest noise most moments are, so that there this loss says
little and the others lead; it grows in weight as the noise goes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAME = 512  # 32 ms at 16 kHz, half overlapped
BAND_BARK = 0.5
LOWEST_HZ, HIGHEST_HZ = 100.0, 7_600.0
SPEECH_SPL_DB = 79.0  # the level at which P.862 listens
EXPONENT = 0.23  # of loudness over power (Zwicker)
SONE = 0.187  # a 1 kHz tone of 40 dB is one sone (P.862)
DEAD_ZONE = 0.25  # a change of less than this share of the loudness is masked
ASYMMETRY_FROM, ASYMMETRY_TO = 3.0, 12.0  # P.862, 10.2.10
WORST = 45.0  # of a moment's disturbance
SYMMETRIC, ASYMMETRIC = 0.1, 0.0309  # what P.862 takes off its score for each
PEAK = 6.0  # norm over a third of a second: its worst moments stand for it
STRETCH = 20  # frames of it


def bark(frequency_hz: Tensor) -> Tensor:
    """Critical-band rate in Bark (Schroeder 1979)."""
    return 7.0 * torch.asinh(frequency_hz / 650.0)


def threshold_in_quiet_db(frequency_hz: Tensor) -> Tensor:
    """Sound pressure level in dB of the softest tone heard (Terhardt 1979)."""
    khz = frequency_hz / 1000.0
    return 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3).square()) + 1e-3 * khz**4


class LoudnessDistance(nn.Module):
    """What is wrong with a voice to an ear, 0 for nothing; one unit is about one point of PESQ.

    The clean voice is heard at SPEECH_SPL_DB; without a voice the mixture is heard 20 dB above that.
    """

    bands: Tensor
    threshold: Tensor
    window: Tensor

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__()
        frequency = torch.arange(1, FRAME // 2 + 1) * (sample_rate_hz / FRAME)
        lowest, highest = bark(torch.tensor(LOWEST_HZ)), bark(torch.tensor(HIGHEST_HZ))
        place = (bark(frequency) - lowest) / BAND_BARK
        count = int((highest - lowest) / BAND_BARK)
        whole = nn.functional.one_hot(place.long().clamp(0, count - 1), count).float()
        heard = (place >= 0) & (place < count)
        bands = whole * heard[:, None]
        centre = (bands * frequency[:, None]).sum(0) / bands.sum(0)
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("threshold", 10 ** (threshold_in_quiet_db(centre) / 10), persistent=False)
        self.register_buffer("window", torch.hann_window(FRAME), persistent=False)

    def forward(self, estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
        """Mean over the batch; [B, N] each."""
        level = target.square().mean(1) + 1e-2 * mixture.square().mean(1) + 1e-10
        scale = 10 ** (SPEECH_SPL_DB / 10) / level
        heard, wanted = (self._band_power(x, scale) for x in (estimate, target))
        difference = self._loudness(heard) - self._loudness(wanted)
        masked = DEAD_ZONE * torch.minimum(self._loudness(heard), self._loudness(wanted))
        disturbance = (difference.abs() - masked).clamp(min=0.0)
        ratio = ((heard + 50.0) / (wanted + 50.0)).detach() ** 1.2
        factor = torch.where(ratio < ASYMMETRY_FROM, torch.zeros_like(ratio), ratio.clamp(max=ASYMMETRY_TO))
        symmetric = (disturbance.square().mean(2) + 1e-8).sqrt() * BAND_BARK * disturbance.shape[2]
        asymmetric = (disturbance * factor).sum(2) * BAND_BARK
        return SYMMETRIC * _over_time(symmetric) + ASYMMETRIC * _over_time(asymmetric)

    def _band_power(self, sound: Tensor, scale: Tensor) -> Tensor:
        """[B, N] -> [B, T, bands], so that full speech has SPEECH_SPL_DB."""
        spectrum = torch.stft(sound, FRAME, FRAME // 2, window=self.window, return_complex=True, center=False)[:, 1:]
        power = spectrum.real.square() + spectrum.imag.square()
        energy = self.window.square().sum() * FRAME / 2
        return power.transpose(1, 2) @ self.bands * (scale / energy)[:, None, None]

    def _loudness(self, power: Tensor) -> Tensor:
        """Sone per Bark; nothing below the threshold in quiet."""
        above = ((0.5 + 0.5 * power / self.threshold) ** EXPONENT - 1.0).clamp(min=0.0)
        return SONE * (2.0 * self.threshold) ** EXPONENT * above


def _over_time(disturbance: Tensor) -> Tensor:
    """[B, T] -> mean over the batch of a norm that the worst moments of each stretch decide."""
    stretches = disturbance.clamp(max=WORST).unfold(1, STRETCH, STRETCH // 2)
    peaks = ((stretches + 1e-6) ** PEAK).mean(2) ** (1.0 / PEAK)
    return peaks.square().mean(1).sqrt().mean()
