"""What comes from outside, broken in every way: it is read, or refused in one line; nothing hangs or eats memory.

SOTTOVOCE_FUZZ=100000 runs that many inputs of each kind instead of a few.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from engine.artefacts import ROLES, _info, read_manifest
from engine.caption_lines import parse_event
from engine.control import COMMANDS, parse_request
from engine.paths import assets_dir
from engine.soundfiles import SoundReader
from engine.tokens import FRAMES_KIND, HEADER_KIND, MAGIC, WORDS_KIND, SvtHeader, SvtReader, _block
from engine.types import Background, SottovoceError

COUNT = int(os.environ.get("SOTTOVOCE_FUZZ", "150"))
SLOWEST_S = 5.0
MOST_MEMORY_MB = 400.0  # more than before, over all inputs of a kind
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, -(2**70), 1.5, float("nan"), float("inf"), "", "x", "9" * 5000, [], [[]],
    {}, [1, "a"], [2**40] * 3, "\x00", "é\u2028",
)  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, taken out, put in or doubled, or the end cut off."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 1:
            del out[at : at + draw.choice((1, 4, 64))]
        elif kind == 2:
            out[at:at] = draw.randbytes(draw.choice((1, 4, 64)))
        elif kind == 3:
            out[at:at] = out[at : at + draw.choice((4, 64))]
        else:
            del out[at:]
    return bytes(out)


def run(one: Callable[[random.Random], object]) -> None:
    """COUNT inputs: each is taken or refused in one line, in time; memory stays where it was."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(COUNT):
        began = time.monotonic()
        try:
            one(random.Random(seed))
        except SottovoceError as refusal:
            said = str(refusal)
        else:
            said = "taken"
        assert said and "\n" not in said, (seed, said)
        assert time.monotonic() - began < SLOWEST_S, seed
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEMORY_MB


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file in memory where there is such a place."""
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = place / f"sottovoce-fuzz-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def header() -> SvtHeader:
    return SvtHeader("c" * 64, 16_000, 320, (64, 1024), (64, 256), 2, 2, gain_rows=1, frames=40)


def token_file(fields: dict[str, Any], words: Any, first: int = 0, count: int = 10) -> bytes:
    payload = bytes(-(-30 * max(0, min(count, 10**6)) // 8))
    return (
        MAGIC
        + _block(HEADER_KIND, 0, 0, 1, json.dumps(fields).encode())
        + _block(FRAMES_KIND, 0, first, count, payload)
        + _block(WORDS_KIND, 0, 0, 1, json.dumps(words).encode())
    )


def read_all(path: Path) -> None:
    """Header, words and the first blocks of every channel."""
    reader = SvtReader(path)
    for channel in range(reader.header.channels):
        for number, _ in enumerate(reader.blocks(channel)):
            if number > 20:
                break


def test_token_files_with_broken_bytes(file: Path) -> None:
    whole = token_file(asdict(header()), [["a", 0.0, 0.5, 1.0]])

    def one(draw: random.Random) -> None:
        file.write_bytes(mutated(whole, draw))
        read_all(file)

    run(one)


def test_token_files_with_right_checksums_and_odd_fields(file: Path) -> None:
    def one(draw: random.Random) -> None:
        fields = asdict(header())
        for name in draw.sample(sorted(fields), draw.choice((0, 1, 1, 2, 4))):
            fields[name] = draw.choice(ODD)
        words = draw.choice(([["a", 0.0, 0.5, 1.0]], [["a"]], [[1, "b", None, []]], draw.choice(ODD)))
        first, count = draw.choice((0, 40, 2**31, 2**32 - 1)), draw.choice((0, 1, 10, 2**20, 2**32 - 1))
        file.write_bytes(token_file(fields, words, first, count))
        read_all(file)

    run(one)


def _sound(kind: str) -> bytes:
    file = io.BytesIO()
    x = 0.1 * np.random.default_rng(0).standard_normal((800, 2))
    soundfile.write(file, x, 16_000, format=kind, subtype={"OGG": "VORBIS"}.get(kind, "PCM_16"))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF", "CAF"])
def test_sound_files(file: Path, kind: str) -> None:
    whole = _sound(kind)

    def one(draw: random.Random) -> None:
        head = draw.random() < 0.7  # most that can go wrong is in the first bytes
        file.write_bytes(mutated(whole[:120], draw) + whole[120:] if head else mutated(whole, draw))
        with SoundReader(file) as reader:
            for number, block in enumerate(reader.blocks()):
                assert np.isfinite(block).all()
                if number > 20:
                    break

    run(one)


def test_manifests(tmp_path: Path) -> None:
    whole = (assets_dir() / "manifest.toml").read_bytes()[:3000]

    def one(draw: random.Random) -> None:
        (tmp_path / "manifest.toml").write_bytes(mutated(whole, draw))
        read_manifest(tmp_path)

    run(one)


def test_metadata_of_the_networks() -> None:
    good = {
        "codec_id": "c", "sample_rate_hz": "16000", "hop_samples": "320", "output_lag_samples": "240",
        "codes_s_sizes": "[64, 1024]", "codes_b_sizes": "[64, 1024]", "gain_rows": "1", "rows_per_stage": "1",
        "stages": "1",
    }  # fmt: skip

    def one(draw: random.Random) -> None:
        made = {}
        for role in ROLES:
            metadata = dict(good)
            for name in draw.sample(sorted(good), draw.choice((0, 1, 2))):
                text = mutated(good[name].encode(), draw).decode("utf-8", "replace")
                metadata[name] = draw.choice((text, json.dumps(draw.choice(ODD)), str(draw.choice(ODD))))
                if draw.random() < 0.1:
                    del metadata[name]
            made[role] = SimpleNamespace(metadata=metadata)
        _info(made)  # type: ignore[arg-type]

    run(one)


def test_requests_to_the_running_app() -> None:
    def one(draw: random.Random) -> None:
        asked = {"do": draw.choice((*COMMANDS, draw.choice(ODD))), "value": draw.choice(("", "on", *ODD))}
        parse_request(mutated(json.dumps(asked).encode(), draw))

    run(one)


def test_events_of_the_running_app() -> None:
    def one(draw: random.Random) -> None:
        word = {"text": draw.choice(("x", draw.choice(ODD))), "start_s": 1.0, "end_s": draw.choice((1.5, *ODD))}
        told = {"event": "caption", "source": "speech", "final": [word], "tentative": [word], "lag_s": 1.0}
        parse_event(mutated(json.dumps(told).encode(), draw))

    run(one)


def test_what_is_written_for_a_background() -> None:
    def one(draw: random.Random) -> None:
        text = draw.choice(("keep", "-12", "swap:rain@-6", "drop"))
        Background.parse(mutated(text.encode(), draw).decode("utf-8", "replace"))

    run(one)
