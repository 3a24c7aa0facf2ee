"""Gain-shape residual vector quantiser over bands of one frame, with codebooks on an int8 grid.

A frame of coefficients [N] is cut into bands. Each band's level is one code (row of gains), its shape (unit RMS) goes
through `stages` codebooks one after the other. Rows of codes: gains of all bands, then stage 1 of all bands, and so on,
so that leaving out the last rows lowers the bit rate. Code -1 means "left out" and adds nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.config import ModelConfig

IMPORTANCE = 0.7
PADDING = 2.5
NARROW = 16  # coefficients
GRID = 32.0  # codebook entries are integers over this number: a shape has unit RMS, so +-4 covers it


class BandQuantizer(nn.Module):
    """One of the codec's two residual quantisers (speech, background)."""

    gain_table: Tensor
    band_of_bin: Tensor
    mean_of_band: Tensor

    def __init__(self, config: ModelConfig, stages: int, keep_energy: bool) -> None:
        """`keep_energy`: a decoded shape is scaled back to unit RMS, so that what cannot be coded sounds as noise of
        the right colour instead of getting duller; right for backgrounds, wrong for voices."""
        super().__init__()
        self.config, self.stages, self.keep_energy = config, stages, keep_energy
        self.widths = [b - a for a, b in itertools.pairwise(config.band_edges)]
        for band, width in enumerate(self.widths):
            self.register_buffer(f"book_{band}", torch.zeros(stages, config.codebook, width))
        band_of_bin = torch.repeat_interleave(torch.arange(config.bands), torch.tensor(self.widths))
        mean_of_band = torch.zeros(config.hop, config.bands)
        mean_of_band[torch.arange(config.hop), band_of_bin] = 1.0 / torch.tensor(self.widths)[band_of_bin]
        self.groups = _groups(self.widths)
        level = torch.arange(config.gain_levels, dtype=torch.float32)
        gain = 10 ** ((config.gain_top_db + config.gain_step_db * (level - config.gain_levels + 1)) / 20)
        gain[0] = 0.0
        for name, value in (("gain_table", gain), ("band_of_bin", band_of_bin), ("mean_of_band", mean_of_band)):
            self.register_buffer(name, value, persistent=False)
        to_slots, from_slots = _slots(self.widths, self.groups)
        self.register_buffer("to_slots", to_slots, persistent=False)
        self.register_buffer("from_slots", from_slots, persistent=False)

    def books(self, band: int) -> Tensor:
        """[stages, codebook, width]: the codebooks of a band, on the grid."""
        return self.get_buffer(f"book_{band}")

    def gain_codes(self, rms: Tensor) -> Tensor:
        """Level index of each band's RMS [...]; 0, silence, below half a step under the lowest audible level."""
        c = self.config
        steps = 20 / (math.log(10) * c.gain_step_db)  # of the natural logarithm
        top = c.gain_levels - 1 - c.gain_top_db / c.gain_step_db
        index = torch.round(steps * torch.log(rms.clamp_min(1e-9)) + top)
        return index.clamp(0, c.gain_levels - 1).long()

    def split(self, frames: Tensor) -> list[Tensor]:
        """[..., N] -> one tensor [..., width] a band."""
        edges = self.config.band_edges
        return [frames[..., a:b] for a, b in itertools.pairwise(edges)]

    def padded(self, group: tuple[int, ...]) -> Tensor:
        """The codebooks of a group of bands at the width of its widest: [stages, bands, codebook, width].

        Computed in the graph, from what is stored once; ONNX Runtime does it when it loads.
        """
        widest = max(self.widths[band] for band in group)
        books = [nn.functional.pad(self.books(band), (0, widest - self.widths[band])) for band in group]
        return torch.stack(books, dim=1)

    def encode(self, frames: Tensor) -> Tensor:
        """Coefficients [M, N] -> codes [M, K] (int64)."""
        return encode_together([self], [frames])[0]

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
            for book in self.books(band):
                distance = torch.cdist(residual, book).square()
                code = _nearest(residual, book)
                best = distance.topk(2, dim=1, largest=False).values
                open_ = open_ | (best[:, 1] - best[:, 0] <= relative * best[:, 1].clamp_min(1e-12))
                count += int(open_.sum())
                residual = residual - book[code]
        return count

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [M, K] (-1 where left out) -> coefficients [M, N]."""
        c = self.config
        shapes = codes[:, c.bands :].unflatten(1, (self.stages, c.bands))
        parts, at = [], 0
        for group in self.groups:
            books = self.padded(group)
            index = shapes[:, :, at : at + len(group)]
            at += len(group)
            first = torch.arange(books.shape[0] * books.shape[1], device=books.device) * books.shape[2]
            entries = books.flatten(0, 2)[index.clamp_min(0) + first.unflatten(0, books.shape[:2])]
            parts.append((entries * (index >= 0).to(entries.dtype)[..., None]).sum(1).flatten(1))
        total = torch.cat(parts, dim=1)[:, self.get_buffer("from_slots")]
        scale = self.gain_table[codes[:, : c.bands]]
        if self.keep_energy:
            scale = scale * torch.rsqrt(total.square() @ self.mean_of_band + 1e-4)
        return total * scale[:, self.band_of_bin]

    @torch.no_grad()
    def snap(self) -> None:
        """Round every codebook entry to the int8 grid."""
        for band in range(self.config.bands):
            book = self.books(band)
            book.copy_((book * GRID).round().clamp(-127, 127) / GRID)


Search = Callable[[Sequence[BandQuantizer], Tensor], list[Tensor]]


def encode_together(
    quantizers: Sequence[BandQuantizer], frames: Sequence[Tensor], search: Search | None = None
) -> list[Tensor]:
    """Coefficients [M, N] for each quantiser -> codes [M, K] (int64) of each. `search`: in place of `search_books`.

    They differ in nothing but their codebooks, and none has more stages than the one before it. Hop by hop a frame is
    mostly overhead: with one product for all of them the whole encoder takes 4 % less time.
    """
    first, streams = quantizers[0], len(quantizers)
    every = torch.cat(list(frames))
    gains = first.gain_codes((every.square() @ first.mean_of_band).sqrt())
    shapes = every / first.gain_table[gains].clamp_min(1e-6)[:, first.band_of_bin]
    found = (search or search_books)(quantizers, shapes)
    rows: list[tuple[int, int, int]] = []  # of every row of those: stream, stage, band
    for group, stage in itertools.product(first.groups, range(first.stages)):
        rows += [(n, stage, band) for n, q in enumerate(quantizers) if stage < q.stages for band in group]
    order = torch.tensor(sorted(range(len(rows)), key=rows.__getitem__), device=every.device)
    codes = torch.cat(found)[order].T.split([quantizer.stages * first.config.bands for quantizer in quantizers], dim=1)
    return [torch.cat(pair, dim=1) for pair in zip(gains.chunk(streams), codes, strict=True)]


def search_books(quantizers: Sequence[BandQuantizer], shapes: Tensor) -> list[Tensor]:
    """Shapes [streams * M, N] -> codes of every group and stage: [bands of all streams that have it, M] each."""
    first, streams = quantizers[0], len(quantizers)
    slots = nn.functional.pad(shapes, (0, 1))[:, first.get_buffer("to_slots")].unflatten(0, (streams, -1))
    found: list[Tensor] = []
    at = 0
    for group in first.groups:
        padded = [quantizer.padded(group) for quantizer in quantizers]
        bands, width = padded[0].shape[1], padded[0].shape[3]
        part = slots[:, :, at : at + bands * width].unflatten(2, (bands, width))
        at += bands * width
        stages = [torch.cat([books[stage] for books in padded if stage < len(books)]) for stage in range(first.stages)]
        found += _nearest_of_all(part.transpose(1, 2).flatten(0, 1), stages)
    return found


def _nearest_of_all(residual: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
    """Shapes [bands, M, width], codebooks [bands, codebook, width] of each stage -> codes [bands, M] of each stage.

    Each stage takes the nearest entry to what the one before left; a stage with fewer bands has the first of them.
    """
    codes = []
    for books in stages:
        if len(books) < len(residual):
            residual = residual[: len(books)]
        bias = -0.5 * books.square().sum(2)[:, None]  # nearest = largest of x·c - |c|²/2
        code = (residual @ books.transpose(1, 2) + bias).argmax(2)
        first = torch.arange(len(books), device=books.device)[:, None] * books.shape[1]
        residual = residual - books.flatten(0, 1)[code + first]
        codes.append(code)
    return codes


def _groups(widths: list[int]) -> list[tuple[int, ...]]:
    """Neighbouring bands that share one matrix product: none is padded to more than PADDING times its width, bar the
    narrowest, whose products are all overhead."""
    groups: list[list[int]] = [[0]]
    for band in range(1, len(widths)):
        together = [*groups[-1], band]
        wide = max(widths[b] for b in together)
        if wide <= NARROW or wide <= PADDING * min(widths[b] for b in together):
            groups[-1] = together
        else:
            groups.append([band])
    return [tuple(group) for group in groups]


def _slots(widths: list[int], groups: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Index from coefficients (and one zero behind them) into the padded groups, and back."""
    starts = [sum(widths[:band]) for band in range(len(widths))]
    there: list[int] = []
    back = [0] * sum(widths)
    for group in groups:
        widest = max(widths[band] for band in group)
        for band in group:
            for place in range(widest):
                if place < widths[band]:
                    back[starts[band] + place] = len(there)
                there.append(starts[band] + place if place < widths[band] else sum(widths))
    return torch.tensor(there), torch.tensor(back)


@torch.no_grad()
def fit(
    quantizer: BandQuantizer, frames: Tensor, iterations: int = 8, sweeps: int = 6, seed: int = 0
) -> list[list[float]]:
    """Fit all codebooks on coefficients [M, N]: k-means stage after stage, then `sweeps` over all stages together.

    Returns SNR in dB per band and stage.

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
        shapes = part[audible] / gain[audible, None]
        if len(shapes) < quantizer.config.codebook:
            raise ValueError(f"{len(shapes)} audible frames are too few for {quantizer.config.codebook} entries")
        residual, books = shapes, []
        for _ in range(quantizer.stages):
            books.append(_k_means(residual, quantizer.config.codebook, iterations, generator))
            residual = residual - books[-1][_nearest(residual, books[-1])]
        _settle(shapes, books, sweeps)
        quantizer.books(band).copy_(torch.stack(books))
        quantizer.snap()
        report.append(_snrs_db(shapes, list(quantizer.books(band))))
    return report


def _settle(x: Tensor, books: list[Tensor], sweeps: int) -> None:
    """Re-estimate all stages together: each entry moves to the mean of what all other stages leave for it to add
    (joint codebook design, Chan, Gupta and Gersho 1992). Changes `books`."""
    for _ in range(sweeps):
        residual, codes = x, []
        for book in books:
            codes.append(_nearest(residual, book))
            residual = residual - book[codes[-1]]
        for stage, code in enumerate(codes):
            wanted = residual + books[stage][code]
            total = torch.zeros_like(books[stage]).index_add_(0, code, wanted)
            used = torch.bincount(code, minlength=len(total)).to(x.dtype)[:, None]
            books[stage] = torch.where(used > 0, total / used.clamp_min(1), books[stage])
            residual = wanted - books[stage][code]


def _snrs_db(x: Tensor, books: list[Tensor]) -> list[float]:
    """SNR in dB after each stage."""
    snrs, residual = [], x
    for book in books:
        residual = residual - book[_nearest(residual, book)]
        snrs.append(float(10 * torch.log10(x.square().mean() / residual.square().mean())))
    return snrs


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
