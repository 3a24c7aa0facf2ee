"""Training losses on sound: what remains wrong against the mixture, how far the compressed spectra are apart, and what
an ear minds (models/perceptual.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.perceptual import LoudnessDistance

FLOOR_DB = -32.0  # an error this far below the mixture costs no more


def error_ratio_db(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Power of the error over the mixture's, in dB with a soft floor, mean over the batch. [B, N] each.

    Unlike SI-SDR it is defined for silence (no voice at all), and asks for the right level.
    """
    power = mixture.square().mean(1) + 1e-9
    error = (estimate - target).square().mean(1)
    return 10 * torch.log10(error / power + 10 ** (FLOOR_DB / 10)).mean()


def compressed_spectral(estimate: Tensor, target: Tensor, mixture: Tensor, frame: int, power: float = 0.3) -> Tensor:
    """Distance of power-law compressed STFTs, magnitudes 0.7 and complex values 0.3 (Ephrat 2018, Braun 2021)."""
    level = mixture.square().mean(1, keepdim=True).sqrt() + 1e-5
    window = torch.hann_window(frame, device=estimate.device)
    spectra = []
    for sound in (estimate, target):
        s = (
            torch.stft(sound / level, frame, frame // 4, window=window, return_complex=True, center=False)
            * (2 / frame) ** 0.5
        )
        real, imag = s.real, s.imag
        magnitude = (real.square() + imag.square() + 1e-6).sqrt()
        scale = magnitude ** (power - 1)
        spectra.append((magnitude**power, real * scale, imag * scale))
    (m1, r1, i1), (m2, r2, i2) = spectra
    magnitudes = (m1 - m2).square().mean()
    return 0.7 * magnitudes + 0.3 * ((r1 - r2).square() + (i1 - i2).square()).mean()


@dataclass(frozen=True)
class LossWeights:
    """What each part counts beside the error ratio, of which 10 dB are one unit."""

    spectral: float = 5.0  # with 10, and more clips without a voice, voices went with the noise: ESTOI .561 -> .534
    heard: float = 0.5  # a point of PESQ is worth 5 dB


DEFAULT_WEIGHTS = LossWeights()


def waveform_loss(estimate: Tensor, target: Tensor, mixture: Tensor, spectral: float = LossWeights.spectral) -> Tensor:
    """What is wrong with the sound itself, whoever hears it. [B, N] each."""
    loss = error_ratio_db(estimate, target, mixture) / 10
    if spectral:
        apart = sum(compressed_spectral(estimate, target, mixture, frame) for frame in (256, 512, 1024))
        loss = loss + spectral * apart
    return loss


def separation_loss(
    estimate: Tensor, target: Tensor, mixture: Tensor, ear: LoudnessDistance, weights: LossWeights = DEFAULT_WEIGHTS
) -> Tensor:
    """The sum that the refiner is trained on. [B, N] each."""
    loss = waveform_loss(estimate, target, mixture, weights.spectral)
    return loss + weights.heard * ear(estimate, target, mixture) if weights.heard else loss


def si_sdr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant SDR (Le Roux 2019) of each row in dB. [B, N] -> [B]."""
    scale = (estimate * target).sum(1, keepdim=True) / (target.square().sum(1, keepdim=True) + 1e-9)
    projected = scale * target
    return 10 * torch.log10(projected.square().sum(1) / ((estimate - projected).square().sum(1) + 1e-9) + 1e-9)
