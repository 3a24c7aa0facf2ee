"""What comes from outside, broken in every way: it is read, or refused in one line; nothing hangs or eats memory.

What each may cost, and how many there are, says tests/fuzzing.py. The settings' file, the control socket and the
captions' page have theirs beside their other tests.
"""

from __future__ import annotations

import io
import json
import os
import random
import time
from collections.abc import Iterator
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
from engine.token_reader import SvtReader
from engine.tokens import FRAMES_KIND, HEADER_KIND, MAGIC, WORDS_KIND, SvtHeader, block_of
from engine.types import Background, UsageError
from tests import fuzzing
from tests.fuzzing import ODD, PeakMemory, mutated, run


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file in memory where there is such a place."""
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = place / f"sottovoce-fuzz-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def header() -> SvtHeader:
    return SvtHeader("c" * 64, 16_000, 320, (64, 1024), (64, 256), 2, 2, gain_rows=1, frames=40)


def token_file(fields: dict[str, Any], words: Any, first: int = 0, count: int = 10, most: int = 1000) -> bytes:
    """count: frames that the block claims; there are `most` at the most."""
    payload = bytes(-(-30 * max(0, min(count, most)) // 8))
    return (
        MAGIC
        + block_of(HEADER_KIND, 0, 0, 1, json.dumps(fields).encode())
        + block_of(FRAMES_KIND, 0, first, count, payload)
        + block_of(WORDS_KIND, 0, 0, 1, json.dumps(words).encode())
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
        most = draw.choice((*[1000] * 30, 10**6))  # large ones take their time
        file.write_bytes(token_file(fields, words, first, count, most))
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


# The bounds themselves ------------------------------------------------------------------------------------------------


def hold(size_mb: float) -> None:
    """So much memory, written to, and let go again after a moment."""
    held = np.ones(round(size_mb * 1e6), np.uint8)
    time.sleep(0.05)
    del held


@pytest.mark.parametrize("sampled", [False, True])
def test_memory_that_is_held_for_a_moment_is_seen_whatever_was_held_before(sampled: bool) -> None:
    hold(150.0)
    with PeakMemory(sampled) as memory:
        pass
    assert memory.grown_mb < 20.0
    with PeakMemory(sampled) as memory:
        hold(80.0)
    assert 60.0 < memory.grown_mb < 120.0


def test_one_input_that_eats_memory_fails_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_FUZZ", "20")
    monkeypatch.setattr(fuzzing, "MOST_MEMORY_MB", 50.0)
    hold(150.0)  # an earlier test's peak
    run(lambda draw: hold(1.0))
    sizes_mb = [1.0] * 15 + [80.0] + [1.0] * 4
    with pytest.raises(AssertionError, match="MB more were held"):
        run(lambda draw: hold(sizes_mb.pop()))
    assert sizes_mb == []


def test_an_input_that_takes_too_long_or_is_refused_in_two_lines_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(draw: random.Random) -> None:
        raise UsageError("one\ntwo")

    with pytest.raises(AssertionError, match="two"):
        run(refuse)
    monkeypatch.setattr(fuzzing, "SLOWEST_S", 0.01)
    with pytest.raises(AssertionError, match="input 0 took"):
        run(lambda draw: time.sleep(0.02))
