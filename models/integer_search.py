"""The residual quantisers' search for the exported graphs: codebooks read in int8, and every choice as in floats.

One frame at a time the search does little else than read the codebooks, and in int8 they are a quarter of the bytes.
Entries lie on the grid of 1/GRID, and all is counted in steps of it. What is left of a frame is written in four digits
of base 128, of weights 128, 1, 1/128 and 1/16384. Each digit of each band is a row of one integer product, zero but for
the slots of its band, because ONNX Runtime lays out a matrix when it loads, but not a stack of them; and the rows are
put together again. What an entry's own energy takes from its product is part of it: three digits more of each entry,
and three slots of each band that hold what they weigh. A digit has 7 bits and a sign, because the products of older
processors (AVX2 without VNNI) overflow with 8.

    left ─► x 1/128, 1, 128, 16384 ─► round ─► less 128 × the row above ─► rows of int8 ─► product ─► Σ ─► largest
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.codec import Encoder
from models.quantize import GRID, BandQuantizer

BASE, ZERO = 128, 64
WEIGHTS = (128.0, 1.0, 1.0 / 128, 1.0 / 16384)  # of the digits: what is left is below 8192 steps, told to 1/32768
ENERGY = (8192.0, 64.0, 0.5)  # half of BASE², BASE and 1, each of which is one digit, 64, in a row of its own
DOMAIN = "com.microsoft"


class _Product(torch.autograd.Function):
    """Digits [bands, rows, K] times columns [K, N] (int8): [bands, rows, N], whose sizes the graph is told."""

    @staticmethod
    def forward(ctx: Any, digits: Tensor, columns: Tensor, sizes: list[int]) -> Tensor:
        return digits @ columns.float()

    @staticmethod
    def symbolic(g: Any, digits: Any, columns: Any, sizes: list[int]) -> Any:
        one = g.op("Constant", value_t=torch.tensor(1.0))
        zero = g.op("Constant", value_t=torch.tensor(ZERO, dtype=torch.uint8))
        unsigned = g.op("QuantizeLinear", digits, one, zero)
        out = g.op(f"{DOMAIN}::MatMulIntegerToFloat", unsigned, columns, one, one, zero)
        out.setType(one.type().with_sizes(sizes))
        return out


def search_in_integers(quantizers: Sequence[BandQuantizer], shapes: Tensor) -> list[Tensor]:
    """Shapes [streams, N] of one frame -> codes of every group and stage: [bands of all streams that have it, 1] each.

    What `search_books` finds, but for ties. For export: it has no gradient.
    """
    first = quantizers[0]
    flat = torch.cat([shapes.reshape(1, -1) * GRID, torch.tensor([ENERGY])], dim=1)
    where = [part.split(first.widths) for part in torch.arange(shapes.numel()).split(shapes.shape[1])]
    fixed = shapes.numel() + torch.arange(len(ENERGY))
    found: list[Tensor] = []
    for group in first.groups:
        places = [torch.cat([part[band], fixed]) for part in where for band in group]
        sides = [_side_by_side([q.books(band) for band in group]) for q in quantizers]
        stages = [
            [torch.cat([side[stage] for side in pair if stage < len(side)], dim=1) for pair in zip(*sides, strict=True)]
            for stage in range(first.stages)
        ]
        found += _nearest_of_all(flat[:, torch.cat(places)], [len(place) for place in places], stages)
    return found


def _nearest_of_all(left: Tensor, sizes: Sequence[int], stages: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """What is left of the bands of a frame, side by side [1, K], of so many slots each; of each stage the entries with
    and without their energy, [codebook, K], of as many bands as it has -> codes [bands, 1] of each stage."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    own = (owner == torch.arange(len(sizes))[:, None]).float()[:, None]  # [bands, 1, K]
    weights = torch.tensor([WEIGHTS])
    borrow = torch.eye(len(WEIGHTS)) - BASE * torch.diag(torch.ones(len(WEIGHTS) - 1), -1)
    codes = []
    for told, bare in stages:
        count, size = told.shape
        if size < left.shape[1]:
            left, owner = left[:, :size], owner[:size]
            own = own[: int(owner[-1]) + 1, :, :size]
        digits = borrow @ torch.round((1.0 / weights).T @ left)
        rows = _Product.apply(digits * own, told.T, [len(own), len(WEIGHTS), count])  # type: ignore[no-untyped-call]
        code = (weights @ rows).argmax(2)
        left = left - torch.gather(bare, 0, code[owner].T).float()
        codes.append(code)
    return codes


def _side_by_side(books: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Codebooks [stages, codebook, width] of each band -> [stages, codebook, all widths + 3 a band] in steps, int8.

    Behind each entry there is its energy, negative, in three digits of BASE; in the second zeros.
    """
    told, bare = [], []
    for book in books:
        steps = torch.round(book * GRID)
        energy = -steps.square().sum(2, keepdim=True)
        high = torch.round(energy / BASE**2)
        rest = energy - high * BASE**2
        middle = torch.round(rest / BASE)
        told += [steps, high, middle, rest - middle * BASE]
        bare.append(nn.functional.pad(steps, (0, len(ENERGY))))
    return torch.cat(told, dim=2).to(torch.int8), torch.cat(bare, dim=2).to(torch.int8)


def with_integer_search(part: nn.Module) -> None:
    """Have every encoder inside `part` search in integers."""
    for module in part.modules():
        if isinstance(module, Encoder):
            module.search = search_in_integers
