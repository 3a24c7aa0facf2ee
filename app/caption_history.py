"""Every final word since the window opened, as compact records on one clock. Knows nothing of Qt.

A word takes about 40 bytes: its times and probability as floats, its text in one buffer of a block of words. A day of
speech without a pause (300 000 words) is 12 MB; what is kept is bounded at several of those.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Collection, Iterator
from itertools import chain, islice

from engine.captions import Spoken
from engine.types import OTHERS, SPEECH, Caption, Word

BLOCK_WORDS = 4096
MOST_WORDS = 1 << 20  # three days of speech without a pause


class WordBlock:
    """Up to BLOCK_WORDS words in the order they came."""

    def __init__(self) -> None:
        self._numbers = array("d")  # start_s, end_s, probability of each
        self._text = bytearray()
        self._text_ends = array("L")
        self._others = bytearray()  # 1 where OTHERS spoke

    def __len__(self) -> int:
        return len(self._text_ends)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        arrays = sum(part.itemsize * len(part) for part in (self._numbers, self._text_ends))
        return arrays + len(self._text) + len(self._others)

    def add(self, word: Word, source: str) -> None:
        """Append a word; what UTF-8 cannot write becomes a question mark."""
        self._numbers.extend((word.start_s, word.end_s, word.probability))
        self._text += word.text.encode("utf-8", "replace")
        self._text_ends.append(len(self._text))
        self._others.append(source == OTHERS)

    def copy(self) -> WordBlock:
        """One that stays as this is now."""
        other = WordBlock()
        other._numbers, other._text = self._numbers[:], self._text[:]
        other._text_ends, other._others = self._text_ends[:], self._others[:]
        return other

    def __iter__(self) -> Iterator[Spoken]:
        numbers, begin = iter(self._numbers), 0
        for end, others in zip(self._text_ends, self._others):
            start_s, end_s, probability = islice(numbers, 3)
            text = self._text[begin:end].decode("utf-8")
            yield Spoken(text, start_s, end_s, probability, OTHERS if others else SPEECH)
            begin = end


class Kept(Collection[Spoken]):
    """Words as they were at one moment, in the order they became final; each is made anew whenever it is asked for.

    A day of them at once, as objects, would hold up the sound for as long as Python takes to look through them all.
    """

    def __init__(self, blocks: tuple[WordBlock, ...]) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return sum(len(block) for block in self._blocks)

    def __iter__(self) -> Iterator[Spoken]:
        return chain.from_iterable(self._blocks)

    def __contains__(self, word: object) -> bool:
        return any(one == word for one in self)


class History:
    """Final words in the order they came. All runs of the engine are on the clock of the first one, in seconds.

    shift_s: from the clock of the latest run that was heard to the first one's. lost: how many of the oldest were let
    go because there are MOST_WORDS already. `clear` can be undone once.
    """

    def __init__(self, most_words: int = MOST_WORDS, block_words: int = BLOCK_WORDS) -> None:
        self.language: str | None = None
        self.lost = 0
        self._most, self._block_words = most_words, block_words
        self._blocks: list[WordBlock] = []
        self._cleared: list[WordBlock] | None = None
        self._first_zero_at_s: float | None = None  # when the first run's clock was at 0
        self.shift_s = 0.0
        self._begins = True  # no caption of this run has come yet
        self._end_s = 0.0

    def __len__(self) -> int:
        return sum(len(block) for block in self._blocks)

    @property
    def size_bytes(self) -> int:
        """The memory that the words take, with those that an undo would bring back."""
        return sum(block.size_bytes for block in (*self._blocks, *(self._cleared or ())))

    def add(self, caption: Caption, at_s: float) -> Caption:
        """Keep what is final; returns the caption on the first run's clock. at_s: when it came, on any steady clock."""
        if self._begins:
            self._begin(at_s - caption.time_s)
        shift_s = self.shift_s
        self.language = caption.language or self.language
        if shift_s:
            caption = dataclasses.replace(
                caption,
                time_s=caption.time_s + shift_s,
                final=tuple(_later(word, shift_s) for word in caption.final),
                tentative=tuple(_later(word, shift_s) for word in caption.tentative),
            )
        for word in caption.final:
            self._keep(word, caption.source)
        return caption

    def end_run(self) -> None:
        """The engine was stopped: the next caption comes from another, whose clock begins at 0 again."""
        self._begins = True

    def snapshot(self) -> Kept:
        """What is kept now, for another thread; costs little however much it is."""
        return Kept((*self._blocks[:-1], *(block.copy() for block in self._blocks[-1:])))

    def clear(self) -> None:
        """Empty it; the words wait for `undo_clear` or `forget_cleared`. Emptying what is empty changes nothing."""
        if self._blocks:
            self._cleared, self._blocks = self._blocks, []

    def undo_clear(self) -> None:
        """Bring back what the last `clear` took, before what came since."""
        if self._cleared is not None:
            self._blocks, self._cleared = [*self._cleared, *self._blocks], None

    def forget_cleared(self) -> None:
        """Let what was cleared go for good."""
        self._cleared = None

    def _begin(self, zero_at_s: float) -> None:
        """Another run has its first caption; its clock was at 0 at this time."""
        self._begins = False
        if self._first_zero_at_s is None:
            self._first_zero_at_s = zero_at_s
        else:  # clocks may be set back; the words' times may not
            self.shift_s = max(zero_at_s - self._first_zero_at_s, self._end_s)

    def _keep(self, word: Word, source: str) -> None:
        if not self._blocks or len(self._blocks[-1]) >= self._block_words:
            self._blocks.append(WordBlock())
        self._blocks[-1].add(word, source)
        self._end_s = max(self._end_s, word.end_s)
        if len(self._blocks) > 1 and len(self._blocks) * self._block_words > self._most:
            self.lost += len(self._blocks.pop(0))


def _later(word: Word, shift_s: float) -> Word:
    return dataclasses.replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s)
