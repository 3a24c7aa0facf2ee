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

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import Codes

SUFFIX = ".svt"
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


# Blocks ---------------------------------------------------------------------------------------------------------------


def block_of(kind: int, channel: int, first: int, count: int, payload: bytes) -> bytes:
    """One block of the file."""
    head = HEAD.pack(kind, channel, first, count, len(payload))
    return SYNC + head + CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def holds_tokens(path: Path) -> bool:
    """Whether it is a token file, by its name or by how it begins. A pipe is not looked into: it can be read once."""
    if path.suffix.lower() == SUFFIX or not path.is_file():
        return path.suffix.lower() == SUFFIX
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
