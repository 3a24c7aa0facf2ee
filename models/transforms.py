"""Fixed transforms as plain matrices, so that training, export and ONNX Runtime compute the same products.

samples            │<────────────── frame 512 ──────────────>│ newest
lapped transform                  │<── 80 ──│─── 240 ───│─ 80 ──>│      400 samples, output lags by 80
refiner synthesis                         │<─ 80 ─│─ 80 ─│─ 80 ─>│      240 samples, steps of 160
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lapped_basis(hop: int, overlap: int) -> Tensor:
    """MDCT with a low-overlap sine window (Princen and Bradley 1987): [hop + overlap, hop], window included.

    Analysis is `x @ basis` on the newest hop + overlap samples; synthesis `c @ basis.T`, overlap-added by `hop`.
    """
    return lapped_from(*lapped_parts(hop, overlap))


def lapped_parts(hop: int, overlap: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `lapped_from` makes the basis of, which takes less room: a turn of a cosine [8 hop], the window
    [hop + overlap, 1], and by how many steps of that turn the rows [hop + overlap, 1] and the columns [hop] go on."""
    rise = torch.sin(math.pi / 2 * (torch.arange(overlap, dtype=torch.float64) + 0.5) / overlap)
    window = torch.cat([rise, torch.ones(hop - overlap, dtype=torch.float64), rise.flip(0)])
    circle = math.sqrt(2 / hop) * torch.cos(2 * math.pi * torch.arange(8 * hop, dtype=torch.float64) / (8 * hop))
    rows = 2 * torch.arange(hop + overlap) + 2 * hop - overlap + 1
    return circle, window[:, None], rows[:, None], 2 * torch.arange(hop) + 1


def lapped_from(circle: Tensor, window: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The basis of `lapped_parts`."""
    return (window * circle[rows * columns % len(circle)]).float()


def dft_basis(frame: int) -> tuple[Tensor, Tensor]:
    """Real DFT as two matrices [frame, frame // 2 + 1]: cosine part and sine part (X = x @ c + 1j * x @ s).

    Every entry is one of `frame` values, of which an exported graph holds no more than one each.
    """
    at = torch.arange(frame)[:, None] * torch.arange(frame // 2 + 1) % frame
    circle = 2 * math.pi * torch.arange(frame, dtype=torch.float64) / frame
    return torch.cos(circle).float()[at], (-torch.sin(circle)).float()[at]


def inverse_dft_weight(frame: int) -> Tensor:
    """[frame // 2 + 1]: x = (re * w) @ c.T + (im * w) @ s.T undoes `dft_basis`."""
    weight = torch.full((frame // 2 + 1,), 2.0 / frame)
    weight[0] = weight[-1] = 1.0 / frame
    return weight


def refiner_windows(frame: int, step: int, overlap: int) -> tuple[Tensor, Tensor]:
    """Analysis window [frame] with a long rise and a short fall, and its synthesis window [step + overlap].

    Their product on the newest step + overlap samples is a trapezoid with sin² flanks, which sums to one at `step`.
    """
    span = step + overlap
    head = frame - span
    ramp = (torch.arange(overlap, dtype=torch.float64) + 0.5) / overlap
    fall = torch.cos(math.pi / 2 * ramp)
    analysis = torch.ones(frame, dtype=torch.float64)
    analysis[:head] = torch.sin(math.pi / 2 * (torch.arange(head, dtype=torch.float64) + 0.5) / head)
    analysis[-overlap:] = fall
    synthesis = torch.ones(span, dtype=torch.float64)
    synthesis[:overlap] = torch.sin(math.pi / 2 * ramp) ** 2
    synthesis[-overlap:] = fall
    return analysis.float(), synthesis.float()


def frames_of(history: Tensor, x: Tensor, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Cut overlapping frames that end at every `step` new samples.

    history: [B, size - step], x: [B, n * step] -> frames [B, n, size], new history [B, size - step].
    """
    joined = torch.cat([history, x], dim=1)
    count = x.shape[1] // step
    if count <= 2:  # one hop: slices export to ONNX without any index arithmetic
        frames = torch.stack([joined[:, i * step : i * step + size] for i in range(count)], dim=1)
    else:
        frames = joined.unfold(1, size, step)
    return frames, joined[:, joined.shape[1] - (size - step) :]


def overlap_add(tail: Tensor, frames: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Overlap-add of frames [B, n, step + overlap] with overlap <= step.

    tail: [B, overlap], what the last call left over -> samples [B, n * step], new tail [B, overlap].
    """
    overlap = frames.shape[2] - step
    ends = torch.cat([tail[:, None], frames[:, :-1, step:]], dim=1)
    body = frames[:, :, :overlap] + ends
    if overlap < step:
        body = torch.cat([body, frames[:, :, overlap:step]], dim=2)
    return body.flatten(1), frames[:, -1, step:]
