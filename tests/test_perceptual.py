"""The loss that hears: what an ear minds, it minds; what an ear does not, it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.perceptual import LoudnessDistance, threshold_in_quiet_db

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def ear() -> LoudnessDistance:
    return LoudnessDistance(RATE_HZ)


@pytest.fixture(scope="module")
def voice() -> Tensor:
    """Harmonics that come and go, [2, 2 s]."""
    t = torch.arange(2 * RATE_HZ) / RATE_HZ
    tone = torch.stack([sum(torch.sin(2 * torch.pi * f * k * t) / k for k in range(1, 20)) for f in (120.0, 210.0)])
    return 0.05 * tone * (torch.sin(2 * torch.pi * 2.5 * t) > 0)


def noise(level: float) -> Tensor:
    return level * torch.randn(2, 2 * RATE_HZ, generator=torch.Generator().manual_seed(1))


def test_the_same_sound_is_no_distance_at_any_level(ear: LoudnessDistance, voice: Tensor) -> None:
    for level in (1.0, 1e-2):
        assert float(ear(level * voice, level * voice, level * voice)) < 1e-2


def test_more_noise_is_further(ear: LoudnessDistance, voice: Tensor) -> None:
    distances = [float(ear(voice + noise(x), voice, voice + noise(0.1))) for x in (0.001, 0.01, 0.1)]
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]


def test_the_level_of_all_changes_nothing(ear: LoudnessDistance, voice: Tensor) -> None:
    heard, mixture = voice + noise(0.01), voice + noise(0.1)
    assert float(ear(0.1 * heard, 0.1 * voice, 0.1 * mixture)) == pytest.approx(float(ear(heard, voice, mixture)), 0.02)


def test_what_nobody_hears_costs_little(ear: LoudnessDistance, voice: Tensor) -> None:
    t = torch.arange(2 * RATE_HZ) / RATE_HZ
    rumble, whistle = (0.003 * torch.sin(2 * torch.pi * f * t)[None] for f in (20.0, 3000.0))
    low, clear = (float(ear(voice + extra, voice, voice)) for extra in (rumble, whistle))
    assert low < 0.2 * clear


def test_it_can_be_learned_from_even_with_no_voice_at_all(ear: LoudnessDistance) -> None:
    estimate = noise(0.01).requires_grad_()
    distance = ear(estimate, torch.zeros(2, 2 * RATE_HZ), noise(0.1))
    distance.backward()
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()
    silent = torch.zeros(2, 2 * RATE_HZ, requires_grad=True)
    ear(silent, torch.zeros(2, 2 * RATE_HZ), torch.zeros(2, 2 * RATE_HZ)).backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


def test_ears_are_best_between_three_and_four_kilohertz() -> None:
    soft = threshold_in_quiet_db(torch.tensor([100.0, 1000.0, 3400.0, 10000.0]))
    assert int(soft.argmin()) == 2
    assert float(soft[0]) > 20.0
