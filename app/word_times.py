"""When each word that is shown was spoken. Knows nothing of Qt."""

from __future__ import annotations

from array import array
from bisect import bisect_right


class WordTimes:
    """Places in paragraphs and the times of the words there; paragraphs are numbered from the first there ever was."""

    def __init__(self) -> None:
        self._words: dict[int, tuple[array[int], array[float]]] = {}

    def add(self, paragraph: int, place: int, start_s: float) -> None:
        """A word that begins at `place`, behind all others of its paragraph."""
        places, starts_s = self._words.setdefault(paragraph, (array("L"), array("d")))
        places.append(place)
        starts_s.append(start_s)

    def at(self, paragraph: int, place: int) -> float | None:
        """When the word there was spoken; None where there is none."""
        places, starts_s = self._words.get(paragraph, (array("L"), array("d")))
        number = bisect_right(places, place) - 1
        return starts_s[number] if number >= 0 else None

    def forget_before(self, paragraph: int) -> None:
        """Earlier paragraphs are no longer shown."""
        while self._words and (oldest := next(iter(self._words))) < paragraph:
            del self._words[oldest]
