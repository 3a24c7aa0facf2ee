"""Beam search: of several texts that are written side by side, the likeliest by token at the end.

As openai-whisper's (BeamSearchDecoder, MaximumLikelihoodRanker), with what it costs to be asked for token by token left
to the caller. Knows no recogniser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.captions import loop_start

LOOP_CHECK_TOKENS = 8
AGAIN_TOKENS = 4  # shorter ones are said twice
# Hypotheses (their places among those of the last call) and a token more for each -> log probabilities [N, V].
Continue = Callable[[Sequence[int], Sequence[int]], NDArray[np.float32]]


@dataclass(frozen=True)
class _Text:
    """Tokens so far, and the sum of their log probabilities."""

    tokens: tuple[int, ...]
    total: float

    @property
    def score(self) -> float:
        """The mean over the tokens, with the end's where it has one."""
        return self.total / (len(self.tokens) + 1)


def best_by_beams(begin: NDArray[np.float32], go_on: Continue, beams: int, end: int, most: int) -> list[int]:
    """begin: log probabilities [V] of the first token -> the best text's tokens, at the most `most`, without `end`.

    Whether there is a text at all, the first token's likeliest says: by its mean, none may be likelier than a long one.
    Where a text goes round in a loop, nothing better follows, and it is given as it is.
    """
    if begin.argmax() != end:
        begin = begin.copy()
        begin[end] = -np.inf
    alive, ended, rows = [_Text((), 0.0)], list[_Text](), begin[None]
    for count in range(1, most + 1):
        parents, following = list[int](), list[_Text]()
        for total, parent, token in _candidates(alive, rows, beams):
            before = alive[parent].tokens
            if token == end:
                if not _says_again(before):
                    ended.append(_Text(before, total))
                continue
            parents.append(parent)
            following.append(_Text((*before, token), total))
            if len(following) == beams:
                break
        if not following:
            break
        alive = following
        looping = count % LOOP_CHECK_TOKENS == 0 and loop_start(alive[0].tokens) is not None
        if len(ended) >= beams or looping:
            break
        if count < most:
            rows = go_on(parents, [text.tokens[-1] for text in alive])
    return list(max(ended or alive, key=lambda text: text.score).tokens)


def _says_again(tokens: Sequence[int]) -> bool:
    """Whether the end says what was said right before it: by the mean, it is likelier with than without."""
    return any(tokens[-size:] == tokens[-2 * size : -size] for size in range(AGAIN_TOKENS, len(tokens) // 2 + 1))


def _candidates(alive: Sequence[_Text], rows: NDArray[np.float32], beams: int) -> list[tuple[float, int, int]]:
    """Sum, hypothesis and token of the likeliest continuations, best first: one more of each than there are beams."""
    likeliest = np.argpartition(rows, -(beams + 1), axis=1)[:, -(beams + 1) :]
    found = [
        (text.total + float(row[token]), index, int(token))
        for index, (text, row, tokens) in enumerate(zip(alive, rows, likeliest, strict=True))
        for token in tokens
    ]
    return sorted((item for item in found if np.isfinite(item[0])), key=lambda item: -item[0])
