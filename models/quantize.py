"""Gain-shape residual vector quantiser over bands of one frame, with codebooks on an int8 grid.

A frame of coefficients [N] is cut into bands. Each band's level is one code (row of gains), its shape (unit RMS) goes
through `stages` codebooks one after the other. Rows of codes: gains of all bands, then stage 1 of all bands, and so on,
so that leaving out the last rows lowers the bit rate. Code -1 means "left out" and adds nothing.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from models.config import ModelConfig

IMPORTANCE = 0.7
GRID = 32.0  # codebook entries are integers over this number: a shape has unit RMS, so +-4 covers it


class BandQuantizer(nn.Module):
    """One of the codec's two residual quantisers (speech, background)."""

    gain_table: Tensor
    first_entry: Tensor

    def __init__(self, config: ModelConfig, stages: int, keep_energy: bool) -> None:
        """`keep_energy`: a decoded shape is scaled back to unit RMS, so that what cannot be coded sounds as noise of
        the right colour instead of getting duller; right for backgrounds, wrong for voices."""
        super().__init__()
        self.config, self.stages, self.keep_energy = config, stages, keep_energy
        for band in range(config.bands):
            width = config.band_edges[band + 1] - config.band_edges[band]
            self.register_buffer(f"book_{band}", torch.zeros(stages, config.codebook, width))
            self.register_buffer(f"bias_{band}", torch.zeros(stages, config.codebook), persistent=False)
        self.register_buffer("first_entry", torch.arange(stages) * config.codebook, persistent=False)
        level = torch.arange(config.gain_levels, dtype=torch.float32)
        gain = 10 ** ((config.gain_top_db + config.gain_step_db * (level - config.gain_levels + 1)) / 20)
        gain[0] = 0.0
        self.register_buffer("gain_table", gain, persistent=False)

    def books(self, band: int) -> Tensor:
        """[stages, codebook, width]: the codebooks of a band, on the grid."""
        return self.get_buffer(f"book_{band}")

    def gain_codes(self, rms: Tensor) -> Tensor:
        """Level index of each band's RMS [...]; 0 below half a step under the lowest level."""
        c = self.config
        db = 20 * torch.log10(rms.clamp_min(1e-9))
        index = torch.round((db - c.gain_top_db) / c.gain_step_db) + (c.gain_levels - 1)
        return index.clamp(0, c.gain_levels - 1).long()

    def split(self, frames: Tensor) -> list[Tensor]:
        """[..., N] -> one tensor [..., width] a band."""
        edges = self.config.band_edges
        return [frames[..., a:b] for a, b in itertools.pairwise(edges)]

    def encode(self, frames: Tensor) -> Tensor:
        """Coefficients [M, N] -> codes [M, K] (int64)."""
        gains, shapes = [], []
        for band, part in enumerate(self.split(frames)):
            rms = part.square().mean(-1).sqrt()
            gain = self.gain_codes(rms)
            gains.append(gain)
            shapes.append(self._encode_shape(band, part / self.gain_table[gain].clamp_min(1e-6)[:, None]))
        stacked = torch.stack(shapes, dim=2).flatten(1)  # [M, stages, bands] -> stage by stage
        return torch.cat([torch.stack(gains, dim=1), stacked], dim=1)

    def _encode_shape(self, band: int, residual: Tensor) -> Tensor:
        """Shape [M, width] -> codes [M, stages], each stage taking the nearest entry to what is left."""
        books = self.books(band)
        codes = []
        for stage in range(self.stages):
            book = books[stage]
            code = nn.functional.linear(residual, book, self.get_buffer(f"bias_{band}")[stage]).argmax(1)
            residual = residual - book[code]
            codes.append(code)
        return torch.stack(codes, dim=1)

    def count_ties(self, frames: Tensor, relative: float) -> int:
        """How many codes of [M, N] hang on a near-tie (two best distances within `relative`), with all that follow."""
        count = 0
        for band, part in enumerate(self.split(frames)):
            rms = part.square().mean(-1).sqrt()
            gain = self.gain_codes(rms)
            level = (20 * torch.log10(rms.clamp_min(1e-9)) / self.config.gain_step_db) % 1.0
            open_ = (level - 0.5).abs() < 1e-3  # the level itself sits between two steps
            residual = part / self.gain_table[gain].clamp_min(1e-6)[:, None]
            count += int(open_.sum())
            for code, book in zip(self._encode_shape(band, residual).T, self.books(band), strict=True):
                distance = torch.cdist(residual, book).square()
                best = distance.topk(2, dim=1, largest=False).values
                open_ = open_ | (best[:, 1] - best[:, 0] <= relative * best[:, 1].clamp_min(1e-12))
                count += int(open_.sum())
                residual = residual - book[code]
        return count

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [M, K] (-1 where left out) -> coefficients [M, N]."""
        c = self.config
        shapes = codes[:, c.bands :].unflatten(1, (self.stages, c.bands))
        parts = []
        for band in range(c.bands):
            index = shapes[:, :, band]  # one look-up for all stages: their codebooks lie one after the other
            entries = self.books(band).flatten(0, 1)[index.clamp_min(0) + self.first_entry]
            total = (entries * (index >= 0).to(entries.dtype)[:, :, None]).sum(1)
            if self.keep_energy:
                total = total * torch.rsqrt(total.square().mean(1, keepdim=True) + 1e-4)
            parts.append(total * self.gain_table[codes[:, band]][:, None])
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def snap(self) -> None:
        """Round every codebook entry to the int8 grid, and set what is derived from the codebooks."""
        for band in range(self.config.bands):
            book = self.books(band)
            book.copy_((book * GRID).round().clamp(-127, 127) / GRID)
            self.get_buffer(f"bias_{band}").copy_(-0.5 * book.square().sum(2))  # nearest = largest of x·c - |c|²/2


@torch.no_grad()
def fit(quantizer: BandQuantizer, frames: Tensor, iterations: int = 8, seed: int = 0) -> list[list[float]]:
    """Fit all codebooks by k-means, stage after stage, on coefficients [M, N]; returns SNR in dB per band and stage.

    A frame takes part the more likely the louder it is (amplitude to the power IMPORTANCE, the loudest tenth for sure).
    """
    generator = torch.Generator().manual_seed(seed)
    report = []
    for band, part in enumerate(quantizer.split(frames)):
        rms = part.square().mean(-1).sqrt()
        gain = quantizer.gain_table[quantizer.gain_codes(rms)]
        loud = torch.quantile(gain[torch.randperm(len(gain), generator=generator)[:100_000]], 0.9)
        odds = (gain / loud.clamp_min(1e-9)).clamp(max=1.0) ** IMPORTANCE
        audible = (gain > 0) & (torch.rand(len(gain), generator=generator).to(gain.device) < odds)
        residual = part[audible] / gain[audible, None]
        power = residual.square().mean()
        snrs = []
        for stage in range(quantizer.stages):
            book = _k_means(residual, quantizer.config.codebook, iterations, generator)
            book = (book * GRID).round().clamp(-127, 127) / GRID
            quantizer.books(band)[stage].copy_(book)
            residual = residual - book[_nearest(residual, book)]
            snrs.append(float(10 * torch.log10(power / residual.square().mean())))
        report.append(snrs)
    quantizer.snap()
    return report


def _nearest(x: Tensor, book: Tensor) -> Tensor:
    half = 0.5 * book.square().sum(1)
    return torch.cat([(part @ book.T - half).argmax(1) for part in x.split(16384)])


def _k_means(x: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    book = x[torch.randperm(len(x), generator=generator)[:count]].clone()
    for _ in range(iterations):
        code = _nearest(x, book)
        total = torch.zeros_like(book).index_add_(0, code, x)
        used = torch.bincount(code, minlength=count).to(x.dtype)
        book = torch.where(used[:, None] > 0, total / used.clamp_min(1)[:, None], book)
        dead = used < 2
        if dead.any():  # an entry nobody uses is moved to where the data is
            pick = torch.randint(len(x), (int(dead.sum()),), generator=generator)
            book[dead] = x[pick]
    return book
