"""Token files (.svt), written as frames come in; the format is told in engine.tokens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from engine.tokens import BLOCK_FRAMES, FRAMES_KIND, HEADER_KIND, MAGIC, WORDS_KIND, SvtHeader, block_of, pack
from engine.types import TokenFileError, Word


class SvtWriter:
    """Writes a token file as frames come in. A block is safe on disk when every channel has one; `close` completes the
    header. Channels are to be written in step: what is ahead is held in memory, and left out at the end.

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
        self._waiting[channel].extend(frames.T)
        while all(len(waiting) >= BLOCK_FRAMES for waiting in self._waiting):
            for number in range(h.channels):
                self._flush(number)

    def words(self, words: Sequence[Word]) -> None:
        """Add words; they may come in any number of calls, in order."""
        rows = [[w.text, round(w.start_s, 3), round(w.end_s, 3), round(w.probability, 4)] for w in words]
        self._put(block_of(WORDS_KIND, 0, 0, len(rows), json.dumps(rows, ensure_ascii=False).encode()))

    @property
    def frames(self) -> int:
        """How many every channel has."""
        return min(done + len(waiting) for done, waiting in zip(self._done, self._waiting, strict=True))

    def close(self, source_samples: int | None = None) -> None:
        """Write what is waiting and the final header, and close the file whatever comes of it; once only.

        A channel that is ahead of the others, because a person interrupted, ends where they do. On a full disk the
        header is completed all the same: its room is taken already.
        """
        if self._file.closed:
            return
        samples = self.header.source_samples if source_samples is None else source_samples
        frames = self.frames
        for done, waiting in zip(self._done, self._waiting, strict=True):
            del waiting[max(0, frames - done) :]
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
        self._put(block_of(FRAMES_KIND, channel, self._done[channel], len(frames), payload))
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
        return 2 * block_of(HEADER_KIND, 0, 0, 1, self._header_json(self.header).ljust(self._room))

    def _failed(self, error: OSError) -> TokenFileError:
        return TokenFileError(f"{self._name} cannot be written ({error.strerror}); choose another place or make room")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
