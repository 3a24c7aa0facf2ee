"""A sound as tokens: every hop once, the voice they decode to, and an end that is complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import Models, load_models
from engine.files import encode_file
from engine.taps import stored_pieces, token_pieces
from engine.token_reader import SvtReader
from engine.types import TokenFileError
from tests.tiny_models import HOP, LAG_TOKENS, SPEECH_SHARE, build


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models("cpu", build(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("length", [1, HOP, 100 * HOP, 100 * HOP - 20, 12_345])
def test_the_voice_and_its_tokens_are_whole_hops_however_the_sound_comes(tiny: Models, length: int) -> None:
    slow = np.sin(np.arange(length) / 400).astype(np.float32)
    whole = list(token_pieces(tiny, [slow]))
    cut = list(token_pieces(tiny, np.array_split(slow, 7)))
    voice, codes = (np.concatenate([piece[n] for piece in whole], axis=-1) for n in (0, 1))
    assert np.array_equal(voice, np.concatenate([piece[0] for piece in cut]))
    assert np.array_equal(codes, np.concatenate([piece[1] for piece in cut], axis=1))
    assert all(len(sound) == HOP * piece_codes.shape[1] for sound, piece_codes in whole)
    assert codes.shape[0] == len(tiny.info.sizes_s)
    assert len(voice) >= length + LAG_TOKENS
    steady = (length - 1) // HOP * HOP  # the last hop is cut off in the middle
    said = voice[LAG_TOKENS : LAG_TOKENS + steady]
    assert np.abs(said - SPEECH_SHARE * slow[:steady]).max(initial=0.0) < 0.05


def test_tokens_are_those_of_encode(tiny: Models, rng: np.random.Generator) -> None:
    sound = (0.1 * rng.standard_normal(30 * HOP)).astype(np.float32)
    codes = np.concatenate([piece[1] for piece in token_pieces(tiny, [sound])], axis=1)
    encoder = tiny.encoder.clone()
    told = [encoder.step(hop=part[None])["codes_s"] for part in sound.reshape(-1, HOP)]
    assert np.array_equal(codes[:, :30], np.stack(told, axis=1))


def test_nothing_is_a_moment_of_silence(tiny: Models) -> None:
    pieces = list(token_pieces(tiny, [np.zeros(0, np.float32)]))
    assert sum(len(voice) for voice, _ in pieces) == HOP
    assert not pieces[0][0].any()


@pytest.fixture(scope="module")
def stored(tiny: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds as tokens."""
    folder = tmp_path_factory.mktemp("stored")
    sound = 0.1 * np.random.default_rng(1).standard_normal(4 * 16_000)
    soundfile.write(folder / "in.wav", sound, 16_000, subtype="FLOAT")
    encode_file(folder / "in.wav", folder / "in.svt", models=tiny)
    return folder / "in.svt"


def test_a_token_file_gives_what_its_sound_gave(tiny: Models, stored: Path) -> None:
    sound, _ = soundfile.read(stored.with_suffix(".wav"), dtype="float32")
    ways = (stored_pieces(tiny, SvtReader(stored)), token_pieces(tiny, [sound]))
    voices, codes = zip(*([np.concatenate(x, axis=-1) for x in zip(*way, strict=True)] for way in ways), strict=True)
    count = min(len(voices[0]), 4 * 16_000)
    np.testing.assert_allclose(voices[0][:count], voices[1][:count], atol=1e-6)
    assert np.array_equal(codes[0][:, : count // HOP], codes[1][:, : count // HOP])


def test_what_a_token_file_lost_is_silence(tiny: Models, stored: Path, tmp_path: Path) -> None:
    data = bytearray(stored.read_bytes())
    at = len(data) // 2
    data[at : at + 4] = bytes(byte ^ 255 for byte in data[at : at + 4])
    (tmp_path / "cut.svt").write_bytes(data)
    reader = SvtReader(tmp_path / "cut.svt")
    ((start_s, end_s),) = reader.lost
    voice, codes = (np.concatenate(parts, axis=-1) for parts in zip(*stored_pieces(tiny, reader), strict=True))
    inside = slice(round(start_s * 16_000) + HOP, round(end_s * 16_000))
    assert not voice[inside].any()
    assert voice[: round(start_s * 16_000)].any()
    assert not codes[: tiny.info.gain_rows, round(start_s * 50) : round(end_s * 50)].any()


def test_tokens_of_another_codec_are_refused(tiny: Models, stored: Path) -> None:
    other = replace(tiny, metadata=replace(tiny.info, codec_id="0" * 64))
    with pytest.raises(TokenFileError, match="another codec"):
        next(stored_pieces(other, SvtReader(stored)))
