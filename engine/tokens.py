"""Token files (.svt): codes packed to the bit, in blocks that stand on their own.

    file   = MAGIC, block, block, ...
    block  = SYNC, kind u8, channel u8, first u32, count u32, size u32, crc32 of these five and the payload u32, payload

Kinds: "header" (JSON, padded to a fixed size; at the start twice, so that one damaged copy does no harm), "frames"
(frames first .. first + count of one channel, each frame the speech rows and then the background rows, highest bit
first), "words" (JSON list of [text, start_s, end_s, probability]). A reader looks for SYNC and believes a block only
when its checksum is right; so a cut or damaged file gives back every whole block, and says what is missing.

Codes are [K, T], -1 where a quantizer was left out. A file stores the first `rows_s` and `rows_b` rows.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from engine.types import Codes, TokenFileError, Word

MAGIC = b"\x89SVT1\r\n\x1a\n"
SYNC = b"\xf5SvB"
VERSION = 1
HEAD = struct.Struct("<BBIII")
CRC = struct.Struct("<I")
OVERHEAD = len(SYNC) + HEAD.size + CRC.size
HEADER_KIND, FRAMES_KIND, WORDS_KIND = 0, 1, 2
BLOCK_FRAMES = 50
MAX_PAYLOAD = 1 << 22  # no block is larger; a damaged size field must not send the reader to the end of the file
MAX_FRAMES = 1 << 25  # a week; a header that claims more would fill memory with what is not there
MAX_CHANNELS, MAX_ROWS, MAX_CODES, MAX_RATE_HZ = 8, 256, 1 << 15, 768_000


@dataclass(frozen=True)
class SvtHeader:
    """What a token file says of itself.

    sizes_s, sizes_b: codes in each row of the codec; rows_s, rows_b: how many of them are stored. frames: per channel,
    -1 while the file is still being written. source_*: the sound it was made from.
    """

    codec_id: str
    sample_rate_hz: int
    hop_samples: int
    sizes_s: tuple[int, ...]
    sizes_b: tuple[int, ...]
    rows_s: int
    rows_b: int
    gain_rows: int = 0
    channels: int = 1
    frames: int = -1
    source_rate_hz: int = 0
    source_samples: int = -1
    title: str = ""
    version: int = VERSION

    @property
    def duration_s(self) -> float:
        """Of the source where it is known, else of the frames; 0 while the file is still being written."""
        if self.source_samples >= 0 and self.source_rate_hz > 0:
            return self.source_samples / self.source_rate_hz
        return max(0, self.frames) * self.hop_samples / self.sample_rate_hz

    @property
    def bits_per_second(self) -> float:
        """Net bit rate of one channel's codes."""
        return float(sum(self.bits()) * self.sample_rate_hz / self.hop_samples)

    def bits(self) -> list[int]:
        """Bits of each stored row, speech rows first."""
        return [bits_for(n) for n in self.sizes_s[: self.rows_s] + self.sizes_b[: self.rows_b]]


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


# Bits -----------------------------------------------------------------------------------------------------------------


def bits_for(size: int) -> int:
    """Bits that tell `size` codes apart (0 for one code)."""
    return max(0, int(size - 1).bit_length())


def _layout(bits: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each bit of a frame: the row it belongs to, and how far to the right that row's code must be moved."""
    rows = np.repeat(np.arange(len(bits)), bits)
    shifts = np.concatenate([np.arange(b - 1, -1, -1) for b in bits] or [np.zeros(0, dtype=np.int64)])
    return rows, shifts


def pack(codes: NDArray[Any], bits: Sequence[int]) -> bytes:
    """Codes [K, T] of `bits[k]` each -> bytes, frame by frame, highest bit first, the last byte filled with zeros."""
    codes = np.asarray(codes, dtype=np.int64)
    limits = np.left_shift(1, np.asarray(bits, dtype=np.int64))[:, None]
    if codes.shape[0] != len(bits) or (codes < 0).any() or (codes >= limits).any():
        raise ValueError(f"codes {codes.shape} do not fit the {len(bits)} rows of bits given")
    rows, shifts = _layout(bits)
    return np.packbits(((codes.T[:, rows] >> shifts) & 1).astype(np.uint8)).tobytes()


def unpack(data: bytes, bits: Sequence[int], count: int) -> Codes:
    """The inverse of `pack`: `count` frames as [K, count] int16. Raises ValueError when data is too short."""
    total = int(sum(bits))
    if len(data) * 8 < total * count:
        raise ValueError(f"{count} frames of {total} bits need more than {len(data)} bytes")
    flat = np.unpackbits(np.frombuffer(data, dtype=np.uint8))[: total * count].reshape(count, total)
    codes = np.zeros((len(bits), count), dtype=np.int16)
    rows, shifts = _layout(bits)
    if total and count:
        there, starts = np.unique(rows, return_index=True)  # rows of one code take no bits and stay zero
        codes[there] = np.add.reduceat(flat.astype(np.int64) << shifts, starts, axis=1).T
    return codes


# Writing --------------------------------------------------------------------------------------------------------------


def _block(kind: int, channel: int, first: int, count: int, payload: bytes) -> bytes:
    head = HEAD.pack(kind, channel, first, count, len(payload))
    return SYNC + head + CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


class SvtWriter:
    """Writes a token file as frames come in. Every whole block is safe on disk; `close` completes the header.

    Raises TokenFileError when the file cannot be written; `name` is what it says then, where the path is a passing one.
    What was written before then is kept, and frames that found no room wait for the next try.
    """

    def __init__(self, path: str | Path, header: SvtHeader, name: str | Path | None = None) -> None:
        self.path, self.header, self._name = Path(path), header, name or path
        self._bits = header.bits()
        self._room = len(self._header_json(header)) + 64  # numbers grow when the file is closed
        self._waiting: list[list[NDArray[np.int64]]] = [[] for _ in range(header.channels)]
        self._done = [0] * header.channels
        try:
            self._file: BinaryIO = self.path.open("wb", buffering=0)  # a full disk leaves nothing in a buffer
            try:
                self._append(MAGIC + self._header_blocks())
            except OSError:
                self._file.close()
                raise
        except OSError as error:
            raise self._failed(error) from error

    def write(self, codes_s: NDArray[Any], codes_b: NDArray[Any], channel: int = 0) -> None:
        """Add one frame [K] or several [K, n] to a channel; rows beyond the stored ones are left out."""
        h = self.header
        parts = [np.asarray(codes_s)[: h.rows_s], np.asarray(codes_b)[: h.rows_b]]
        frames = np.concatenate([p[:, None] if p.ndim == 1 else p for p in parts if p.shape[0]]).astype(np.int64)
        waiting = self._waiting[channel]
        waiting.extend(frames.T)
        while len(waiting) >= BLOCK_FRAMES:
            self._flush(channel)

    def words(self, words: Sequence[Word]) -> None:
        """Add words; they may come in any number of calls, in order."""
        rows = [[w.text, round(w.start_s, 3), round(w.end_s, 3), round(w.probability, 4)] for w in words]
        self._put(_block(WORDS_KIND, 0, 0, len(rows), json.dumps(rows, ensure_ascii=False).encode()))

    def close(self, source_samples: int | None = None) -> None:
        """Write what is waiting and the final header, and close the file whatever comes of it; once only.

        On a full disk the header is completed all the same: its room is taken already.
        """
        if self._file.closed:
            return
        samples = self.header.source_samples if source_samples is None else source_samples
        try:
            with self._file:
                try:
                    for channel, waiting in enumerate(self._waiting):
                        while waiting:
                            self._flush(channel)
                finally:
                    self.header = replace(self.header, frames=max(self._done, default=0), source_samples=samples)
                    self._file.seek(len(MAGIC))
                    self._file.write(self._header_blocks())
        except OSError as error:
            raise self._failed(error) from error

    def abort(self) -> None:
        """Close without completing anything."""
        with contextlib.suppress(OSError):  # the disk may be full: there is nothing left to save
            self._file.close()

    def _flush(self, channel: int) -> None:
        frames = self._waiting[channel][:BLOCK_FRAMES]
        payload = pack(np.stack(frames, axis=1), self._bits)
        self._put(_block(FRAMES_KIND, channel, self._done[channel], len(frames), payload))
        del self._waiting[channel][:BLOCK_FRAMES]
        self._done[channel] += len(frames)

    def _put(self, block: bytes) -> None:
        try:
            self._append(block)
        except OSError as error:
            raise self._failed(error) from error

    def _append(self, data: bytes) -> None:
        """All of data at the end of the file, or nothing: a disk that fills up may take a part first."""
        end = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError:
            with contextlib.suppress(OSError):  # the disk itself may have gone
                self._file.truncate(end)
                self._file.seek(end)
            raise

    @staticmethod
    def _header_json(header: SvtHeader) -> bytes:
        return json.dumps(asdict(header), ensure_ascii=False, separators=(",", ":")).encode()

    def _header_blocks(self) -> bytes:
        """The header as it is now, twice."""
        return 2 * _block(HEADER_KIND, 0, 0, 1, self._header_json(self.header).ljust(self._room))

    def _failed(self, error: OSError) -> TokenFileError:
        return TokenFileError(f"{self._name} cannot be written ({error.strerror}); choose another place or make room")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Reading --------------------------------------------------------------------------------------------------------------


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
