"""Token files: bits round trip, and damage costs no more than the blocks it touches."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.token_reader import SvtReader, read_svt
from engine.token_writer import SvtWriter
from engine.tokens import BLOCK_FRAMES, SvtHeader, bits_for, pack, unpack
from engine.types import TokenFileError, Word

FRAMES = 333
HEADER = SvtHeader(
    codec_id="c0dec",
    sample_rate_hz=16000,
    hop_samples=320,
    sizes_s=(64,) * 4 + (1024,) * 12,
    sizes_b=(64,) * 4 + (300,) * 4,
    rows_s=12,
    rows_b=8,
    gain_rows=4,
    source_rate_hz=48000,
)
WORDS = (Word("Grüße,", 0.25, 0.75, 0.5), Word("world", 1.0, 1.5))


def _codes(rng: np.random.Generator, sizes: tuple[int, ...], frames: int = FRAMES) -> np.ndarray:
    return np.stack([rng.integers(0, size, frames) for size in sizes])


@pytest.fixture
def codes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _codes(rng, HEADER.sizes_s), _codes(rng, HEADER.sizes_b)


@pytest.fixture
def path(tmp_path: Path, codes: tuple[np.ndarray, np.ndarray]) -> Path:
    path = tmp_path / "a.svt"
    with SvtWriter(path, HEADER) as writer:
        for t in range(FRAMES):
            writer.write(codes[0][:, t], codes[1][:, t])
        writer.words(WORDS)
        writer.close(source_samples=FRAMES * 960 - 17)
    return path


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=9), frames=st.integers(0, 20), seed=st.integers(0, 99))
def test_pack_round_trips(sizes: list[int], frames: int, seed: int) -> None:
    codes = _codes(np.random.default_rng(seed), tuple(sizes), frames)
    bits = [bits_for(size) for size in sizes]
    data = pack(codes, bits)
    assert len(data) == -(-sum(bits) * frames // 8)
    assert np.array_equal(unpack(data, bits, frames), codes)


def test_pack_refuses_what_does_not_fit() -> None:
    for codes in ([[4]], [[-1]], [[0], [0]]):
        with pytest.raises(ValueError, match="do not fit"):
            pack(np.array(codes), [2])
    with pytest.raises(ValueError, match="need more"):
        unpack(b"\0", [5, 5], 1)


def test_file_round_trips(path: Path, codes: tuple[np.ndarray, np.ndarray]) -> None:
    file = read_svt(path)
    assert np.array_equal(file.codes_s[:12], codes[0][:12])
    assert np.array_equal(file.codes_b, codes[1])
    assert (file.codes_s[12:] == -1).all()  # quantizers that were left out
    assert file.words == WORDS
    assert (file.lost, file.warning) == ((), None)
    assert file.header == replace(HEADER, frames=FRAMES, source_samples=FRAMES * 960 - 17)
    assert file.header.duration_s == pytest.approx(FRAMES * 0.02, abs=1e-3)


def test_bit_rate_is_what_the_file_takes(path: Path) -> None:
    net_bits = HEADER.bits_per_second * FRAMES * 0.02
    assert net_bits / 8 < path.stat().st_size < net_bits / 8 * 1.05 + 2000


def test_channels_stay_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    header = replace(HEADER, channels=2)
    codes = [(_codes(rng, HEADER.sizes_s, 120), _codes(rng, HEADER.sizes_b, 120)) for _ in range(2)]
    with SvtWriter(tmp_path / "b.svt", header) as writer:
        for channel, (codes_s, codes_b) in enumerate(codes):
            writer.write(codes_s, codes_b, channel)
    file = read_svt(tmp_path / "b.svt")
    for (codes_s, codes_b), (got_s, got_b) in zip(codes, file.channels, strict=True):
        assert np.array_equal(got_s[:12], codes_s[:12])
        assert np.array_equal(got_b, codes_b)


def test_any_flipped_bit_costs_one_block_at_most(path: Path, codes: tuple[np.ndarray, np.ndarray]) -> None:
    whole = path.read_bytes()
    for at in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        file = read_svt(path)
        wrong = (file.codes_s[:12] != codes[0][:12]).any(axis=0)
        assert wrong.sum() <= BLOCK_FRAMES, at
        assert file.warning is not None, at
        lost_s = sum(stop - start for start, stop in file.lost)
        assert lost_s == pytest.approx(wrong.sum() * 0.02), at
        assert (file.codes_s[:, wrong] == -1).all()


def test_a_cut_file_says_what_is_missing(path: Path, codes: tuple[np.ndarray, np.ndarray]) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    file = read_svt(path)
    (lost,) = file.lost
    kept = round(lost[0] / 0.02)
    assert 0 < kept < FRAMES
    assert lost[1] == pytest.approx(FRAMES * 0.02)
    assert np.array_equal(file.codes_s[:12, :kept], codes[0][:12, :kept])
    assert "lost" in (file.warning or "")


def test_an_unfinished_recording_can_be_read(tmp_path: Path, codes: tuple[np.ndarray, np.ndarray]) -> None:
    path = tmp_path / "c.svt"
    writer = SvtWriter(path, HEADER)
    writer.write(codes[0], codes[1])
    file = read_svt(path)  # as after a crash: never closed
    writer.abort()
    assert file.codes_s.shape[1] == FRAMES // BLOCK_FRAMES * BLOCK_FRAMES
    assert "never finished" in (file.warning or "")


def test_a_lost_block_comes_as_a_gap_in_order(path: Path) -> None:
    whole = path.read_bytes()
    blocks = [frames.first for frames in SvtReader(path).blocks()]
    path.write_bytes(whole[:2500] + whole[2600:])
    again = list(SvtReader(path).blocks())
    assert [frames.first for frames in again] == blocks
    assert sum(frames.lost for frames in again) == 1


@pytest.mark.parametrize("content", [b"", b"hello, this is no token file" * 50, b"\x89SVT1\r\n\x1a\n"])
def test_what_is_no_token_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.svt"
    path.write_bytes(content)
    with pytest.raises(TokenFileError, match="sottovoce encode") as failure:
        read_svt(path)
    assert "\n" not in str(failure.value)


def test_missing_newer_and_unwritable_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="check the name"):
        read_svt(tmp_path / "none.svt")
    SvtWriter(tmp_path / "new.svt", replace(HEADER, version=2)).close()
    with pytest.raises(TokenFileError, match="newer"):
        read_svt(tmp_path / "new.svt")
    with pytest.raises(TokenFileError, match="cannot be written"):
        SvtWriter(tmp_path / "no" / "e.svt", HEADER)


# A disk that fills up -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writes fail part of the way, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def begun(path: Path, codes: tuple[np.ndarray, np.ndarray], frames: int) -> SvtWriter:
    writer = SvtWriter(path, HEADER)
    writer.write(codes[0][:, :frames], codes[1][:, :frames])
    return writer


def test_a_full_disk_at_the_end_closes_the_file_and_keeps_what_was_written(
    tmp_path: Path, codes: tuple[np.ndarray, np.ndarray]
) -> None:
    path = tmp_path / "e.svt"
    writer = begun(path, codes, 130)
    with room_for(path.stat().st_size + 100):
        with pytest.raises(TokenFileError, match="make room") as failure:
            writer.close()
        assert writer._file.closed
        writer.close()  # told once
    assert "\n" not in str(failure.value)
    assert str(path) in str(failure.value)
    file = read_svt(path)
    assert (file.header.frames, file.lost, file.warning) == (100, (), None)
    assert np.array_equal(file.codes_b, codes[1][:, :100])


def test_frames_that_found_no_room_are_written_when_there_is_some(
    tmp_path: Path, codes: tuple[np.ndarray, np.ndarray]
) -> None:
    path = tmp_path / "f.svt"
    writer = begun(path, codes, 60)
    with room_for(path.stat().st_size + 100), pytest.raises(TokenFileError, match="make room"):
        writer.write(codes[0][:, 60:200], codes[1][:, 60:200])
    writer.write(codes[0][:, 200:], codes[1][:, 200:])
    writer.close()
    file = read_svt(path)
    assert (file.header.frames, file.warning) == (FRAMES, None)
    assert np.array_equal(file.codes_b, codes[1])


def test_a_disk_that_is_gone_closes_the_file_too(tmp_path: Path, codes: tuple[np.ndarray, np.ndarray]) -> None:
    class Gone(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = begun(tmp_path / "g.svt", codes, 60)
    with writer._file:
        pass
    writer._file = Gone()
    with pytest.raises(TokenFileError, match="Input/output error"):
        writer.close()
    assert writer._file.closed
    writer.close()
    assert read_svt(tmp_path / "g.svt").codes_s.shape[1] == BLOCK_FRAMES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_file_for_which_there_is_no_room_at_all_is_told() -> None:
    with pytest.raises(TokenFileError, match="No space left on device"):
        SvtWriter("/dev/full", HEADER)
