"""A token file that a person stopped midway: every channel ends where the others do, and what was there stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import Models, load_models
from engine.files import decode_file, encode_file
from engine.token_reader import read_svt
from engine.token_writer import SvtWriter
from engine.types import Codes, Provider
from tests import tiny_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


def sound(path: Path, rng: np.random.Generator, seconds: float, channels: int) -> Path:
    soundfile.write(path, 0.1 * rng.standard_normal((int(16_000 * seconds), channels)), 16_000)
    return path


@pytest.mark.parametrize("channel", [0, 1])
def test_an_interruption_leaves_channels_of_one_length(
    channel: int, models: Models, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever channel was being written."""
    source = sound(tmp_path / "in.wav", rng, 5.0, 2)
    write, calls = SvtWriter.write, 0

    def interrupt(self: SvtWriter, codes_s: Codes, codes_b: Codes, to: int = 0) -> None:
        nonlocal calls
        calls += to == channel
        if calls > 120 and to == channel:
            raise KeyboardInterrupt
        write(self, codes_s, codes_b, to)

    monkeypatch.setattr(SvtWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode_file(source, tmp_path / "o.svt", models=models)
    tokens = read_svt(tmp_path / "o.svt")
    assert (tokens.warning, tokens.lost) == (None, ())
    assert len({codes.shape[1] for pair in tokens.channels for codes in pair}) == 1
    assert 1.9 < tokens.header.duration_s < 2.5
    monkeypatch.undo()
    decoded = decode_file(tmp_path / "o.svt", tmp_path / "again.wav", models=models)
    assert decoded.warnings == () and abs(decoded.duration_s - tokens.header.duration_s) < 0.03


def test_an_interruption_before_anything_is_encoded_replaces_nothing(
    models: Models, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sound(tmp_path / "in.wav", rng, 1.0, 1)
    (tmp_path / "o.svt").write_bytes(b"what was there")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SvtWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode_file(source, tmp_path / "o.svt", models=models, force=True)
    assert (tmp_path / "o.svt").read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", "o.svt"]
