"""The probe of what voice tokens say: it finds what is there, and nothing where there is nothing."""

from __future__ import annotations

import torch

from models.checkpoint import load_shipped
from models.probe import CONTEXT, centres, features, probe, units_of, with_neighbours


def test_it_reads_units_that_hang_on_a_feature_and_not_those_that_do_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 1000, 3)
    rows = with_neighbours(x)
    there = (x[:, CONTEXT:-CONTEXT, 1] > 0).flatten().long()
    nowhere = torch.randint(0, 2, there.shape)
    half = len(rows) // 2

    def judged(units: torch.Tensor) -> float:
        return probe((rows[:half], units[:half]), (rows[half:], units[half:]), 2, epochs=300)

    assert judged(there) > 0.95
    assert judged(nowhere) < 0.6


def test_neighbours_stand_in_order() -> None:
    rows = with_neighbours(torch.arange(10.0)[None, :, None])
    assert torch.equal(rows, torch.stack([torch.arange(k, k + 5.0) for k in range(6)]))


def test_stages_that_are_not_heard_say_nothing() -> None:
    bundle = load_shipped()
    rows = bundle.config.bands * (1 + bundle.config.speech_stages)
    codes = torch.randint(1, 60, (1, 8, rows))
    other = codes.clone()
    other[:, :, bundle.config.bands * 2 :] = 7
    assert torch.equal(features(bundle, codes, 1), features(bundle, other, 1))
    assert not torch.equal(features(bundle, codes, 2), features(bundle, other, 2))
    assert features(bundle, codes, 0).shape == (1, 8, bundle.config.bands)


def test_centres_are_where_the_frames_are() -> None:
    torch.manual_seed(0)
    wanted = 10 * torch.eye(4)
    frames = wanted.repeat(50, 1) + 0.1 * torch.randn(200, 4)
    found = centres(frames, 4, seed=2)
    assert len(units_of(wanted, found).unique()) >= 3
