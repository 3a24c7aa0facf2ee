"""Several texts side by side, of which the likeliest is written: beam search.

Whoever takes the likeliest token each time cannot go back on it. Where Whisper is unsure of every word, as in noise or
in a language that it knows badly, it is often a beginning that was second at first which goes on best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Ahead = Callable[[list[int], Tensor], Tensor]  # texts to go on with, by their rows, and a token each -> log chances


@dataclass(frozen=True)
class Text:
    """tokens after what was given; total: log of how likely they are; row: which of the texts before it goes on."""

    tokens: tuple[int, ...]
    total: float
    row: int = 0

    @property
    def mean(self) -> float:
        """A long text is not worse for being long."""
        return self.total / max(1, len(self.tokens))


def likeliest(
    ahead: Ahead, first: Tensor, end: int, most_tokens: int, beams: int, loops: Callable[[Sequence[int]], bool]
) -> tuple[int, ...]:
    """Tokens, at most so many, the last of them `end` where the text has one.

    first: log chances [vocabulary] of the first token; ahead: those of the next ones, [texts, vocabulary]; loops:
    whether a text goes round, for then nothing better will come. One beam is the likeliest token each time. Unlike
    openai-whisper's, which waits until as many texts have ended, it stops where one that ended leads.
    """
    done: list[Text] = []
    going, chances = [Text((), 0.0)], first[None]
    for length in range(most_tokens):
        going, ended = _grown(going, chances, end, beams)
        done += ended
        if length + 1 == most_tokens or loops(going[0].tokens):
            return max(done or going, key=lambda text: text.mean).tokens  # the mean of what goes round rises
        best = max(done, key=lambda text: text.mean, default=None)
        if best is not None and all(best.mean >= text.mean for text in going):
            return best.tokens
        chances = ahead([text.row for text in going], torch.tensor([[text.tokens[-1]] for text in going]))
    return ()


def _grown(texts: list[Text], chances: Tensor, end: int, beams: int) -> tuple[list[Text], list[Text]]:
    """The `beams` best texts of one token more that go on, and those better than the last of them that ended.

    A text ends only where nothing is likelier: else short ones, whose mean is high, would leave out what is unsure.
    """
    best, tokens = chances.topk(min(beams + 1, chances.shape[-1]), dim=-1)
    grown = [
        Text((*text.tokens, int(token)), text.total + float(chance), row)
        for row, text in enumerate(texts)
        for place, (chance, token) in enumerate(zip(best[row], tokens[row], strict=True))
        if token != end or not place
    ]
    on: list[Text] = []
    ended: list[Text] = []
    for text in sorted(grown, key=lambda text: -text.total):
        (ended if text.tokens[-1] == end else on).append(text)
        if len(on) == beams:
            break
    return on, ended
