"""Token files (.svt), read block by block: cut and damaged ones as far as they go; for the format see engine.tokens."""

from __future__ import annotations

import contextlib
import json
import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from engine.tokens import (
    BLOCK_FRAMES,
    CRC,
    FRAMES_KIND,
    HEAD,
    HEADER_KIND,
    MAGIC,
    MAX_CHANNELS,
    MAX_CODES,
    MAX_FRAMES,
    MAX_PAYLOAD,
    MAX_RATE_HZ,
    MAX_ROWS,
    OVERHEAD,
    SYNC,
    VERSION,
    WORDS_KIND,
    SvtHeader,
    unpack,
)
from engine.types import Codes, TokenFileError, Word


@dataclass(frozen=True)
class SvtFile:
    """A token file in memory. codes_*: of the first channel, [K, T]; channels: of all; lost: spans in seconds."""

    header: SvtHeader
    channels: tuple[tuple[Codes, Codes], ...]
    words: tuple[Word, ...]
    lost: tuple[tuple[float, float], ...]
    warning: str | None = None

    @property
    def codes_s(self) -> Codes:
        return self.channels[0][0]

    @property
    def codes_b(self) -> Codes:
        return self.channels[0][1]


@dataclass(frozen=True)
class Frames:
    """Consecutive frames of one channel: codes [K, T], and whether they had to be made up because they were lost."""

    channel: int
    first: int
    codes_s: Codes
    codes_b: Codes
    lost: bool = False


@dataclass(frozen=True)
class _Found:
    """A block whose checksum is right: its head, and where its payload lies."""

    kind: int
    channel: int
    first: int
    count: int
    start: int
    stop: int


@dataclass
class SvtReader:
    """A token file, block by block, in constant memory. Raises TokenFileError when it is no token file at all."""

    path: Path
    header: SvtHeader = field(init=False)
    words: tuple[Word, ...] = field(init=False)
    lost: tuple[tuple[float, float], ...] = field(init=False)
    warning: str | None = field(init=False)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data = self._map()
        found, clean = _scan(self._data)
        self.header = self._read_header(found)
        self.frames_per_channel, self._blocks = self._arrange(found)
        self.words = tuple(w for b in found if b.kind == WORDS_KIND for w in _read_words(self._payload(b)))
        self.lost = tuple(self._lost_spans())
        self.warning = self._warning(clean)

    def _map(self) -> mmap.mmap | bytes:
        try:
            with self.path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise TokenFileError(f"{self.path} cannot be read ({error.strerror}); check the name") from error
        except ValueError:  # an empty file cannot be mapped
            raise TokenFileError(f"{self.path} is empty; make it again with sottovoce encode") from None

    def _payload(self, block: _Found) -> bytes:
        return bytes(self._data[block.start : block.stop])

    def _read_header(self, found: list[_Found]) -> SvtHeader:
        for block in found:
            if block.kind == HEADER_KIND:
                return _parse_header(self._payload(block), self.path)
        if bytes(self._data[: len(MAGIC)]) == MAGIC:
            raise TokenFileError(f"{self.path} has lost its header; make it again with sottovoce encode")
        raise TokenFileError(f"{self.path} is not a token file; make one with sottovoce encode")

    def _arrange(self, found: list[_Found]) -> tuple[int, list[dict[int, _Found]]]:
        blocks: list[dict[int, _Found]] = [{} for _ in range(self.header.channels)]
        bits = sum(self.header.bits())
        for b in found:
            fits = b.channel < self.header.channels and (b.stop - b.start) * 8 >= bits * b.count
            fits = fits and b.count > 0 and b.first + b.count <= MAX_FRAMES
            if b.kind == FRAMES_KIND and fits:
                blocks[b.channel].setdefault(b.first, b)
        seen = max((b.first + b.count for channel in blocks for b in channel.values()), default=0)
        return max(seen, self.header.frames), blocks

    def blocks(self, channel: int = 0) -> Iterator[Frames]:
        """All frames of a channel in order, in blocks; what was lost comes as -1 in every row, in blocks too."""
        at = 0
        for first in sorted(self._blocks[channel]):
            yield from self._gap(channel, at, first)
            block = self._blocks[channel][first]
            rows = unpack(self._payload(block), self.header.bits(), block.count)
            yield Frames(channel, first, *self._split(rows))
            at = first + block.count
        yield from self._gap(channel, at, self.frames_per_channel)

    def _gap(self, channel: int, start: int, stop: int) -> Iterator[Frames]:
        rows = self.header.rows_s + self.header.rows_b
        for at in range(start, stop, BLOCK_FRAMES):
            codes = np.full((rows, min(BLOCK_FRAMES, stop - at)), -1, dtype=np.int16)
            yield Frames(channel, at, *self._split(codes), lost=True)

    def _split(self, rows: Codes) -> tuple[Codes, Codes]:
        """Stored rows -> all K rows of speech and background, -1 where nothing is stored."""
        h = self.header
        codes_s = np.full((len(h.sizes_s), rows.shape[1]), -1, dtype=np.int16)
        codes_b = np.full((len(h.sizes_b), rows.shape[1]), -1, dtype=np.int16)
        codes_s[: h.rows_s], codes_b[: h.rows_b] = rows[: h.rows_s], rows[h.rows_s :]
        return codes_s, codes_b

    def _lost_spans(self) -> Iterator[tuple[float, float]]:
        """Spans in which a channel has no frames, joined, in seconds."""
        missing = np.zeros(self.frames_per_channel + 2, dtype=bool)
        for blocks in self._blocks:
            there = np.zeros(self.frames_per_channel, dtype=bool)
            for b in blocks.values():
                there[b.first : b.first + b.count] = True
            missing[1:-1] |= ~there
        edges = np.flatnonzero(np.diff(missing.astype(np.int8)))
        frame_s = self.header.hop_samples / self.header.sample_rate_hz
        for start, stop in edges.reshape(-1, 2):
            yield float(start * frame_s), float(stop * frame_s)

    def _warning(self, clean: bool) -> str | None:
        if self.lost:
            spans = ", ".join(f"{a:.2f}-{b:.2f} s" for a, b in self.lost[:5]) + (" ..." if len(self.lost) > 5 else "")
            return f"{self.path} is damaged: {sum(b - a for a, b in self.lost):.2f} s of sound are lost ({spans})"
        if self.header.frames < 0:
            return f"{self.path} was never finished; it ends after {self.duration_s:.2f} s"
        return None if clean else f"{self.path} is damaged, but no sound is lost"

    @property
    def duration_s(self) -> float:
        return self.frames_per_channel * self.header.hop_samples / self.header.sample_rate_hz


def _scan(data: mmap.mmap | bytes) -> tuple[list[_Found], bool]:
    """Every block with a right checksum, and whether nothing but such blocks lies behind the magic."""
    found: list[_Found] = []
    expected, clean = len(MAGIC), bytes(data[: len(MAGIC)]) == MAGIC
    at = data.find(SYNC)
    while at >= 0:
        start = at + OVERHEAD
        block = _check_block(data, at, start)
        if block is None:
            at = data.find(SYNC, at + 1)
            continue
        clean = clean and at == expected
        found.append(block)
        expected = block.stop
        at = data.find(SYNC, expected)
    return found, clean and expected == len(data)


def _check_block(data: mmap.mmap | bytes, at: int, start: int) -> _Found | None:
    if start > len(data):
        return None
    head = bytes(data[at + len(SYNC) : start - CRC.size])
    kind, channel, first, count, size = HEAD.unpack(head)
    if size > MAX_PAYLOAD or start + size > len(data):
        return None
    (wanted,) = CRC.unpack(bytes(data[start - CRC.size : start]))
    if zlib.crc32(bytes(data[start : start + size]), zlib.crc32(head)) != wanted:
        return None
    return _Found(kind, channel, first, count, start, start + size)


def _parse_header(payload: bytes, path: Path) -> SvtHeader:
    known = {f.name for f in fields(SvtHeader)}
    try:
        values = json.loads(payload)
        version = int(values["version"])
        if version > VERSION:
            raise TokenFileError(f"{path} has version {version}, this program reads {VERSION}; take a newer Sottovoce")
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return _believable(SvtHeader(**kept))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise TokenFileError(f"{path} has a header that cannot be read; make it again with sottovoce encode") from error


def _believable(h: SvtHeader) -> SvtHeader:
    """The header, when every field has its type and a value within reason. Raises ValueError."""
    sizes = (h.sizes_s, h.sizes_b)
    bounds: list[tuple[object, int, int]] = [
        *((rate, 1, MAX_RATE_HZ) for rate in (h.sample_rate_hz, h.hop_samples)),
        (h.channels, 1, MAX_CHANNELS),
        (h.frames, -1, MAX_FRAMES),
        (h.source_rate_hz, 0, MAX_RATE_HZ),
        (h.source_samples, -1, MAX_FRAMES * MAX_RATE_HZ),
        *((size, 1, MAX_CODES) for row in sizes for size in row),
        *((len(row), 0, MAX_ROWS) for row in sizes),
        *((rows, 0, len(row)) for rows, row in zip((h.rows_s, h.rows_b), sizes, strict=True)),
        (h.gain_rows, 0, MAX_ROWS),
    ]
    right = all(type(value) is int and low <= value <= high for value, low, high in bounds) and bool(h.bits())
    if not right or not isinstance(h.codec_id, str) or not isinstance(h.title, str):
        raise ValueError("a field is not what it should be")
    return h


def _read_words(payload: bytes) -> list[Word]:
    """The words of a block, none when it holds something else."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
        return [Word(str(t), float(a), float(b), float(p)) for t, a, b, p in json.loads(payload)]
    return []


def read_svt(path: str | Path) -> SvtFile:
    """The whole file in memory; lost frames are -1 in every row. Raises TokenFileError when it is no token file."""
    reader = SvtReader(path)
    h = reader.header
    channels = []
    for channel in range(h.channels):
        parts = list(reader.blocks(channel))
        codes_s = np.concatenate([p.codes_s for p in parts] or [np.zeros((len(h.sizes_s), 0), np.int16)], axis=1)
        codes_b = np.concatenate([p.codes_b for p in parts] or [np.zeros((len(h.sizes_b), 0), np.int16)], axis=1)
        channels.append((codes_s, codes_b))
    return SvtFile(h, tuple(channels), reader.words, reader.lost, reader.warning)
