"""The refiner's second opinion, trained on by itself, and then how far it is trusted.

DTLN was made for steps of 8 ms and hears 10 ms ones badly: on validation it gains 1 dB of SI-SDR where it had 4. Two
hundred steps of training give that back, and some thousand teach it rooms, levels and talkers. It hears mixtures alone,
so there is no codec in the loop, and a step takes half a second of one core.

Trust is learned with all else held: a refiner that was set by ear and is trained on as a whole loses that (models/
calibrate.py), and its opinion forgets to be one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.losses import waveform_loss
from models.mixing import Mixer
from models.refiner import Refiner
from models.settings import TrainConfig
from models.training import descend, set_rate

TALKERS: dict[str, Any] = {"babble": 0.35, "babble_snr_db": (2.0, 18.0)}  # of the mixer: it is needed among them most
WARMUP_STEPS = 50
LAST_RATE = 0.03  # share of the full rate at the end
DECAY_SHARE = 0.5


def opinion_of(refiner: Refiner, mixture: Tensor) -> Tensor:
    """Mixtures [B, N] -> the second opinion's voices [B, N], late by token_lag."""
    state = {k: v.to(mixture.device) for k, v in refiner.opinion.initial_state(len(mixture)).items()}
    voice, _ = refiner.opinion(mixture, refiner.cosine, refiner.sine, state)
    return voice


def opinion_loss(refiner: Refiner, mixture: Tensor, voice: Tensor) -> Tensor:
    """What its training asks for, the voice's waveform; the refiner is what people hear. [B, N] each."""
    lag = refiner.config.token_lag
    end = mixture.shape[1] - lag
    return waveform_loss(opinion_of(refiner, mixture)[:, lag:], voice[:, :end], mixture[:, :end])


def trust_alone(refiner: Refiner) -> list[Tensor]:
    """Hold everything but the rows that say how far the second opinion is trusted -> what an optimiser is given."""
    refiner.requires_grad_(False)
    rows = {"output.weight": 2 * refiner.offset.shape[1], "offset": 2}
    parameters = [refiner.get_parameter(name).requires_grad_(True) for name in rows]
    for parameter, first in zip(parameters, rows.values(), strict=True):
        parameter.register_hook(lambda gradient, first=first: gradient * _rows_from(gradient, first))
    return parameters


def _rows_from(like: Tensor, first: int) -> Tensor:
    return (torch.arange(len(like), device=like.device) >= first).to(like.dtype)[:, None]


def train_opinion(
    refiner: Refiner, mixer: Mixer, settings: TrainConfig, minutes: float, report: Callable[[int, float, float], None]
) -> None:
    """Steps for so many minutes. `report` is called with steps, their mean loss and seconds."""
    parameters, began = list(refiner.opinion.requires_grad_(True).parameters()), time.monotonic()
    losses: list[float] = []
    device = refiner.cosine.device
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        warm = min(1.0, (len(losses) + 1) / WARMUP_STEPS)
        share = warm * min(1.0, LAST_RATE + (1.0 - LAST_RATE) * (1.0 - done) / DECAY_SHARE)
        set_rate(optimizer, settings.opinion_rate * share)
        mixture, voice = (torch.from_numpy(x).to(device) for x in mixer.batch(settings.batch))
        loss = opinion_loss(refiner, mixture, voice)
        losses.append(descend(optimizer, loss, settings.grad_clip))
        if len(losses) % settings.evaluate_every == 0:
            report(
                len(losses), sum(losses[-settings.evaluate_every :]) / settings.evaluate_every, time.monotonic() - began
            )
