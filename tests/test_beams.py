"""Beam search finds what all texts tried one by one would show to be the likeliest, and does not say it twice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from engine.beams import best_by_beams

END, WORDS, SIZE = 0, (1, 2, 3), 120  # of the vocabulary, most of which is never said


class Chain:
    """Each token hangs on the one before alone: log chances [before, token]; a text begins after token END."""

    def __init__(self, chances: np.ndarray) -> None:
        with np.errstate(divide="ignore"):
            self.rows = np.log(chances).astype(np.float32)
        self.texts: list[tuple[int, ...]] = [()]
        self.asked = 0

    def go_on(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        self.asked += 1
        self.texts = [(*self.texts[parent], token) for parent, token in zip(parents, tokens, strict=True)]
        return self.rows[list(tokens)]

    def score(self, text: Sequence[int]) -> float:
        return float(np.mean([self.rows[pair] for pair in itertools.pairwise((END, *text, END))]))

    def found(self, beams: int, most: int) -> list[int]:
        return best_by_beams(self.rows[END], self.go_on, beams, END, most)


def drawn(seed: int) -> Chain:
    chances = np.zeros((SIZE, SIZE))
    chances[:4, :4] = np.random.default_rng(seed).dirichlet(np.ones(4), 4)
    return Chain(chances)


@pytest.mark.parametrize("seed", range(20))
def test_with_room_for_all_texts_the_likeliest_is_found(seed: int) -> None:
    chain = drawn(seed)
    all_texts = [text for count in range(4) for text in itertools.product(WORDS, repeat=count)]
    spoken = all_texts if chain.rows[END].argmax() == END else all_texts[1:]
    assert tuple(chain.found(60, 4)) == max(spoken, key=chain.score)


def test_what_is_likely_at_once_is_not_what_is_likely_at_last() -> None:
    chances = np.zeros((SIZE, SIZE))
    chances[END, [1, 2]] = 0.6, 0.4
    chances[1, [1, 2, 3, END]] = 0.25
    chances[2, [3, END]] = 0.95, 0.05
    chances[3, END] = 1.0
    assert Chain(chances).found(1, 6)[0] == 1
    assert Chain(chances).found(3, 6) == [2, 3]


def test_nobody_speaks_where_the_end_is_the_likeliest_beginning_and_somebody_else_where_not() -> None:
    chances = np.zeros((SIZE, SIZE))
    chances[END, [END, 1]] = 0.45, 0.55
    chances[1, [END, 2]] = 0.2, 0.8
    chances[2, END] = 1.0
    assert Chain(chances).found(3, 6) == [1, 2]
    chances[END, [END, 1]] = 0.99, 0.01
    assert Chain(chances).found(3, 6) == []


def test_the_same_again_is_not_the_end_of_a_text() -> None:
    chances = np.zeros((SIZE, SIZE))
    for before, after in ((END, 1), (1, 2), (2, 3), (3, 4)):
        chances[before, after] = 1.0
    chances[4, [END, 1]] = 0.2, 0.8
    chain = Chain(chances)
    assert chain.score([1, 2, 3, 4] * 2) > chain.score([1, 2, 3, 4]), "else this shows nothing"
    assert chain.found(3, 40) == [1, 2, 3, 4]


def test_a_loop_is_left_and_so_is_what_takes_too_long() -> None:
    chances = np.zeros((SIZE, SIZE))
    chances[[END, 1], 1] = 1.0
    chain = Chain(chances)
    assert set(chain.found(3, 100)) == {1}
    assert chain.asked < 10
    assert Chain(chances).found(3, 4) == [1] * 4
    assert Chain(chances).found(3, 0) == []
