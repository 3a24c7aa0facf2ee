"""How Whisper is asked, whatever it answers: with how much silence after the sound, and how often."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import whisper
from whisper.model import AudioEncoder

from engine.answers import Hypothesis
from engine.vad import SAMPLE_RATE_HZ
from engine.whisper_blocks import run_blocks
from engine.whisper_decoder import FRAMES_PER_S, TRAILING_S, WhisperDecoder, has_int8

# openai-whisper leaves the file of its vocabulary to the collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
LONGEST_S = 30.0


@pytest.fixture(scope="module")
def decoder() -> WhisperDecoder:
    torch.manual_seed(0)
    dims = whisper.model.ModelDimensions(80, 1500, 32, 1, 1, 51865, 448, 32, 1, 1)
    return WhisperDecoder(whisper.model.Whisper(dims).eval(), int8=False)


@pytest.mark.parametrize(
    ("sound_s", "loops", "heard_s"),
    [
        (4.0, False, [4.0 + TRAILING_S[0]]),
        (4.0, True, [4.0 + TRAILING_S[0], 4.0 + TRAILING_S[1]]),
        (25.0, True, [25.0 + TRAILING_S[0], LONGEST_S]),
        (29.0, True, [LONGEST_S]),  # no more silence has room
    ],
)
def test_a_loop_is_asked_again_with_more_silence_after_it(
    decoder: WhisperDecoder, monkeypatch: pytest.MonkeyPatch, sound_s: float, loops: bool, heard_s: list[float]
) -> None:
    asked: list[int] = []

    def answer(features: torch.Tensor, *_: object) -> tuple[Hypothesis, bool]:
        asked.append(features.shape[1])
        return Hypothesis((), "en"), loops

    monkeypatch.setattr(decoder, "_answer", answer)
    sound = np.zeros(round(sound_s * SAMPLE_RATE_HZ), np.float32)
    decoder.transcribe(sound, [], "en", 20)
    assert asked == [round(seconds * FRAMES_PER_S) for seconds in heard_s]


def test_a_word_that_was_cut_off_amid_a_letter_is_not_said(
    decoder: WhisperDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decoder.tokenizer("hi").encode(" सभी मनुष्यों")
    texts = set()
    for count in range(1, len(whole) + 1):
        monkeypatch.setattr(decoder, "likeliest", lambda *_, count=count: tuple(whole[:count]))
        answer = decoder.transcribe(np.zeros(2 * SAMPLE_RATE_HZ, np.float32), [], "hi", count)
        texts |= {word.text for word in answer.words}
    assert "सभी" in texts
    assert not any("\ufffd" in text for text in texts)


@torch.no_grad()
def test_frames_that_are_given_go_through_the_blocks_of_the_encoder(decoder: WhisperDecoder) -> None:
    sound = np.random.default_rng(1).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    stem = decoder.stem(sound)
    assert stem.shape == (FRAMES_PER_S, 32)
    placed = stem + decoder.model.encoder.positional_embedding[: len(stem)].numpy()
    asked: list[tuple[int, float]] = []

    def window(count: int, trailing_s: float) -> np.ndarray:
        asked.append((count, trailing_s))
        return placed

    given = WhisperDecoder(decoder.model, int8=False, window=window)
    np.testing.assert_allclose(given._features(sound, 1.5)[0], decoder.frames(sound), atol=1e-5)
    assert asked == [(SAMPLE_RATE_HZ, 1.5)]


@torch.no_grad()
def test_frames_that_are_given_go_through_blocks_of_their_own_and_sound_through_whispers(
    decoder: WhisperDecoder,
) -> None:
    torch.manual_seed(4)
    model, own = copy.deepcopy(decoder.model), AudioEncoder(80, 1500, 32, 1, 1).eval()
    sound = np.random.default_rng(1).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    stem, plain = decoder.stem(sound), decoder.frames(sound)
    given = WhisperDecoder(model, int8=False, window=lambda count, trailing_s: stem, own=own)
    np.testing.assert_array_equal(given.frames(sound), plain)  # the noise is told from these
    expected = run_blocks(own, torch.from_numpy(stem)[None]).left
    torch.testing.assert_close(given._features(sound, 1.5), expected)
    assert float((expected[0] - torch.from_numpy(plain)).abs().max()) > 0.1


@pytest.mark.skipif(not has_int8(), reason="this build of torch has no 8-bit matrices")
def test_both_encoders_are_in_eight_bits(decoder: WhisperDecoder) -> None:
    model, own = copy.deepcopy(decoder.model), AudioEncoder(80, 1500, 32, 1, 1).eval()
    WhisperDecoder(model, own=own)
    for block in (*model.encoder.blocks, *own.blocks):
        assert not [layer for layer in block.attn.modules() if isinstance(layer, torch.nn.Linear)]
        assert [type(layer).__name__ for layer in block.mlp] == ["_Int8Linear", "GELU", "Linear"]
