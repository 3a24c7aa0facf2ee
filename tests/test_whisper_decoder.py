"""Several texts side by side are the texts one by one, and the words of a search have times as all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from engine import whisper_decoder
from engine.whisper_decoder import WhisperDecoder
from tests.test_runtimes import noise, off, tiny

# openai-whisper leaves the file of its vocabulary to the collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
GoOn = Callable[[Sequence[int], Sequence[int]], np.ndarray]


@pytest.fixture(scope="module")
def decoder() -> WhisperDecoder:
    return WhisperDecoder(tiny(), int8=False)


@torch.inference_mode()
def test_texts_side_by_side_are_the_texts_one_by_one(decoder: WhisperDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    start = [50258, 50259, 50359, 50363]
    prefix = [11]
    features = decoder.encode(noise(2.0))

    def alone(text: Sequence[int]) -> torch.Tensor:
        logits = decoder._forward(decoder._begin(features), [*start, *prefix, *text], 1)[0]
        return (logits + decoder._bans["en"]).log_softmax(-1).exp()

    def tried(begin: np.ndarray, go_on: GoOn, *_: int) -> list[int]:
        assert off(torch.from_numpy(begin).exp(), alone([])) < 1e-4
        for parents, tokens, texts in (
            ([0, 0], [600, 700], [[600], [700]]),
            ([1, 0, 1], [11, 12, 13], [[700, 11], [600, 12], [700, 13]]),
            ([2], [600], [[700, 13, 600]]),
        ):
            rows = torch.from_numpy(go_on(parents, tokens)).exp()
            assert max(off(row, alone(text)) for row, text in zip(rows, texts, strict=True)) < 1e-4
        return [600, 700]

    monkeypatch.setattr(whisper_decoder, "best_by_beams", tried)
    decoder.tokenizer("en")
    past = decoder._begin(features)
    tokens, logprobs, silent = decoder.with_beams(3)._searched(past, start, prefix, [], "en", 2)
    assert tokens == [600, 700]
    assert np.exp(logprobs) == pytest.approx([float(alone([])[600]), float(alone([600])[700])], rel=1e-3)
    assert 0.0 <= silent <= 1.0
    assert torch.cat(past.attention, dim=1).shape[1:] == (len(start) + 3, features.shape[1])


def test_what_a_search_finds_is_no_less_likely_than_what_is_taken_at_once(decoder: WhisperDecoder) -> None:
    greedy, searched = (d.transcribe(noise(1.0), [], [], "en", 6) for d in (decoder, decoder.with_beams(5)))
    assert searched.logprob >= greedy.logprob - 1e-6
    assert searched.words
    assert all(0.0 <= word.start_s <= word.end_s <= 1.5 for word in searched.words)
    assert decoder.beams == 1


def test_a_draft_is_checked_and_not_searched(decoder: WhisperDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_decoder, "best_by_beams", None)
    assert decoder.with_beams(5).transcribe(noise(1.0), [], [600], "en", 4).words
