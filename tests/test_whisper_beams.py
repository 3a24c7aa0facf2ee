"""Beam search: the likeliest of all texts where there is room for it, the greedy one where there is one beam."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.vad import SAMPLE_RATE_HZ
from engine.whisper_beams import likeliest
from engine.whisper_decoder import WhisperDecoder

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
WORDS, END, LONGEST = 4, 0, 4


def never_loops(tokens: Sequence[int]) -> bool:
    return False


class Language:
    """Chances of a token that hang on the one before it; remembers which texts are gone on with."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.table = (2.0 * torch.randn(WORDS + 1, WORDS)).log_softmax(-1)  # the last row: of the first token
        self.texts: list[tuple[int, ...]] = [()]

    def ahead(self, rows: list[int], tokens: torch.Tensor) -> torch.Tensor:
        self.texts = [(*self.texts[row], int(token)) for row, token in zip(rows, tokens[:, 0], strict=True)]
        return self.table[tokens[:, 0]]

    def mean(self, text: tuple[int, ...]) -> float:
        steps = zip((WORDS, *text), text, strict=False)
        return sum(float(self.table[before, token]) for before, token in steps) / max(1, len(text))

    def all_texts(self) -> list[tuple[int, ...]]:
        """Those that end, and those that are as long as may be."""
        going = list(itertools.product(range(1, WORDS), repeat=LONGEST))
        ended = [(*p, END) for n in range(LONGEST) for p in itertools.product(range(1, WORDS), repeat=n)]
        return going + ended


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_one_beam_is_greedy_and_more_find_no_better_than_the_best(seed: int, beams: int) -> None:
    language = Language(seed)
    found = likeliest(language.ahead, language.table[-1], END, LONGEST, beams, never_loops)
    assert found in language.all_texts()
    best = max(map(language.mean, language.all_texts()))
    assert language.mean(found) <= best + 1e-6
    greedy: tuple[int, ...] = ()
    while len(greedy) < LONGEST and END not in greedy:
        greedy = (*greedy, int(language.table[greedy[-1] if greedy else -1].argmax()))
    if beams == 1:
        assert found == greedy
    assert all(text[0] != END for text in language.texts if text)  # what has ended is not gone on with


def test_a_beginning_that_was_second_at_first_can_win() -> None:
    """Token 1 is likelier than 2, but after 2 the text is sure and after 1 it is not."""
    table = torch.log(torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01]]))
    first = torch.log(torch.tensor([0.01, 0.5, 0.45, 0.04]))

    def ahead(rows: list[int], tokens: torch.Tensor) -> torch.Tensor:
        return table[tokens[:, 0].clamp(max=2)]

    assert likeliest(ahead, first, END, 5, 1, never_loops)[0] == 1
    assert likeliest(ahead, first, END, 5, 2, never_loops) == (2, END)


@pytest.mark.parametrize(("most", "loops_at", "found"), [(3, 99, (1, 1, 1)), (9, 2, (1, 1)), (0, 99, ())])
def test_a_text_stops_where_it_is_as_long_as_may_be_or_goes_round(
    most: int, loops_at: int, found: tuple[int, ...]
) -> None:
    never = torch.log(torch.tensor([1e-9, 0.5, 0.3, 0.2]))

    def ahead(rows: list[int], tokens: torch.Tensor) -> torch.Tensor:
        return never.expand(len(rows), -1)

    assert likeliest(ahead, never, END, most, 2, lambda tokens: len(tokens) >= loops_at) == found


def test_a_text_ends_only_where_nothing_is_likelier() -> None:
    """Ending after 1 has the better mean, but after 1 the word 2 is likelier than the end."""
    table = torch.log(
        torch.tensor([[0.25] * 4, [0.45, 0.01, 0.5, 0.04], [0.04, 0.03, 0.03, 0.9], [0.4, 0.2, 0.2, 0.2]])
    )
    first = torch.log(torch.tensor([0.001, 0.997, 0.001, 0.001]))

    def ahead(rows: list[int], tokens: torch.Tensor) -> torch.Tensor:
        return table[tokens[:, 0]]

    assert table[1, 0] / 2 > (table[1, 2] + table[2, 3] + table[3, 0]) / 4  # so it would be chosen
    assert likeliest(ahead, first, END, 6, 3, never_loops)[:3] == (1, 2, 3)


def test_what_goes_round_does_not_stand_before_a_text_that_ended() -> None:
    """Token 1 says itself again, ever more surely on the mean; 2, 3 and the end are the better text."""
    table = torch.log(torch.tensor([[0.25] * 4, [0.01, 0.97, 0.01, 0.01], [0.1, 0.1, 0.1, 0.7], [0.7, 0.1, 0.1, 0.1]]))
    first = torch.log(torch.tensor([0.01, 0.38, 0.6, 0.01]))

    def ahead(rows: list[int], tokens: torch.Tensor) -> torch.Tensor:
        return table[tokens[:, 0]]

    found = likeliest(ahead, first, END, 30, 5, lambda tokens: len(tokens) == 8 and len(set(tokens)) == 1)
    assert found == (2, 3, END)


@pytest.fixture(scope="module")
def decoder() -> WhisperDecoder:
    torch.manual_seed(2)
    dims = whisper.model.ModelDimensions(80, 1500, 32, 2, 1, 51865, 448, 32, 2, 2)
    model = whisper.model.Whisper(dims).eval()
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=0.5)
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.5)
    return WhisperDecoder(model, int8=False)


@torch.no_grad()
def test_texts_side_by_side_are_heard_as_each_by_itself(decoder: WhisperDecoder) -> None:
    features = torch.randn(1, 20, 32)
    texts = [[1, 2, 3], [1, 2, 9], [1, 7, 4]]
    alone = [decoder.ahead(decoder.begin(features), torch.tensor([text]), 1)[0] for text in texts]
    past = decoder.begin(features)
    decoder.ahead(past, torch.tensor([[1]]), 1)
    past.pick([0, 0, 0])
    decoder.ahead(past, torch.tensor([[2], [2], [7]]), 1)
    past.pick([1, 0, 2])
    both = decoder.ahead(past, torch.tensor([[3], [9], [4]]), 1)
    torch.testing.assert_close(both, torch.stack(alone))


def test_what_beams_find_is_likelier_and_its_words_have_times(
    decoder: WhisperDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE_HZ).astype(np.float32)
    prefix = [500, 600]
    monkeypatch.setattr(decoder, "beams", 1)
    one = decoder.transcribe(sound, prefix, "en", 12)
    monkeypatch.setattr(decoder, "beams", 5)
    five = decoder.transcribe(sound, prefix, "en", 12)
    assert five.logprob >= one.logprob - 1e-4
    assert five.no_speech == pytest.approx(one.no_speech)
    times = [time for word in five.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[-1] <= 2.0
    assert sum(len(word.tokens) for word in five.words) <= 12


def test_where_no_token_has_room_there_is_no_word(decoder: WhisperDecoder) -> None:
    sound = np.zeros(SAMPLE_RATE_HZ, np.float32)
    assert decoder.transcribe(sound, [], "en", 0).words == ()
