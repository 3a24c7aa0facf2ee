"""The probe of what voice tokens say: it finds what is there, and nothing where there is nothing."""

from __future__ import annotations

import torch

from models.probe import CONTEXT, centres, probe, units_of, with_neighbours


def test_it_reads_units_that_hang_on_a_code_and_not_those_that_do_not() -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 8, (4, 1000, 3))
    rows = with_neighbours(codes)
    there = codes[:, CONTEXT:-CONTEXT, 1].flatten()
    nowhere = torch.randint(0, 8, there.shape)
    half = len(rows) // 2

    def judged(units: torch.Tensor) -> float:
        return probe((rows[:half], units[:half]), (rows[half:], units[half:]), 8, epochs=100)

    assert judged(there) > 0.95
    assert judged(nowhere) < 0.2


def test_neighbours_are_told_apart() -> None:
    codes = torch.arange(10)[None, :, None]
    rows = with_neighbours(codes)
    assert rows.shape == (10 - 2 * CONTEXT, 2 * CONTEXT + 1)
    assert torch.equal(rows % 10, torch.stack([torch.arange(k, k + 5) for k in range(6)]))
    assert len(rows.unique()) == rows.numel()


def test_centres_are_where_the_frames_are() -> None:
    torch.manual_seed(0)
    wanted = 10 * torch.eye(4)
    frames = wanted.repeat(50, 1) + 0.1 * torch.randn(200, 4)
    found = centres(frames, 4, seed=2)
    assert len(units_of(wanted, found).unique()) >= 3
