"""Captions as lines for a reader: what a program tells its followers, and what a page is told. Pure text.

A page gets JSON messages of two forms, the last lines and the state first:

    {"type": "captions", "reset": false, "lines": [LINE, ...], "tentative": {"speech": "we go", "others": ""}}
    {"type": "state", "state": "on", "said": ""}

LINE is {"id": 7, "source": "speech", "text": "And so"}: ids rise, and a line that comes again has grown at its end;
its old words stay as they are. Only lines that are new or have grown are sent; `reset` says to forget all that came
before. `tentative` is the whole tail of each source ("speech": the microphone, "others": a second sound), which may
still change. `state` is "on", "off" (captions are switched off) or "waiting" (nothing runs); `said` is a sentence for
a person, empty when there is nothing to say.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.captions import SENTENCE_ENDS, join_words
from engine.types import SPEECH, SottovoceError, Word

KEPT_LINES = 12
PAUSE_S = 1.5  # a line ends where nobody spoke for so long, or where the clock went back because another run began
FULL_CHARS, MOST_CHARS = 120, 240  # a line ends with a sentence once it is full, and anywhere once it has the most
CAPTIONS_OFF = "Captions are off; switch them on in the window, or start: sottovoce live --captions"


@dataclass
class Line:
    """One line as it grows."""

    number: int
    source: str
    words: list[Word] = field(default_factory=list)

    @property
    def text(self) -> str:
        return join_words(self.words)

    def takes(self, word: Word, source: str) -> bool:
        """Whether the word still belongs to this line."""
        text = self.text
        full = len(text) >= MOST_CHARS or (len(text) >= FULL_CHARS and text[-1] in SENTENCE_ENDS)
        return source == self.source and not full and abs(word.start_s - self.words[-1].end_s) <= PAUSE_S

    def told(self) -> dict[str, Any]:
        return {"id": self.number, "source": self.source, "text": self.text}


class CaptionLines:
    """The last lines and the tails; every change gives the message that tells a page of it."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._tails: dict[str, str] = {}
        self._next = 0

    def add(self, source: str, final: Sequence[Word], tentative: Sequence[Word]) -> dict[str, Any]:
        """What became final, and the tail that is new."""
        grown: dict[int, Line] = {}
        for word in final:
            if not self._lines or not self._lines[-1].takes(word, source):
                self._lines.append(Line(self._next, source))
                self._next += 1
            line = self._lines[-1]
            line.words.append(word)
            grown[line.number] = line
        self._tails[source] = join_words(tentative)
        return self._message(list(grown.values())[-KEPT_LINES:])

    def drop_tails(self) -> dict[str, Any]:
        """Nothing is tentative any more."""
        self._tails.clear()
        return self._message([])

    def forget(self) -> dict[str, Any]:
        """Begin anew; numbers go on."""
        self._lines.clear()
        self._tails.clear()
        return self.everything()

    def everything(self) -> dict[str, Any]:
        """All that is there, for who comes late."""
        return self._message(list(self._lines)) | {"reset": True}

    def _message(self, lines: list[Line]) -> dict[str, Any]:
        told = [line.told() for line in lines]
        return {"type": "captions", "reset": False, "lines": told, "tentative": dict(self._tails)}


def state_message(state: str, said: str) -> dict[str, Any]:
    """ "on", "off" or "waiting", and a sentence for a person."""
    return {"type": "state", "state": state, "said": said}


@dataclass(frozen=True)
class Told:
    """One event as engine/followers.py writes it: "state" with `captions`, "recap", or "caption" with words."""

    event: str
    captions: bool = False
    source: str = SPEECH
    final: tuple[Word, ...] = ()
    tentative: tuple[Word, ...] = ()


def parse_event(line: bytes) -> Told:
    """A line that a follower got. Raises SottovoceError for anything else."""
    try:
        told = json.loads(line.decode("utf-8"))
        event, source = told["event"], told.get("source", SPEECH)
        if event == "recap":
            return Told(event)
        if event == "state":
            return Told(event, captions=told["captions"] is True)
        if event != "caption" or not isinstance(source, str):
            raise ValueError("no event")
        return Told(event, True, source, _words(told["final"]), _words(told["tentative"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise SottovoceError("the running Sottovoce is of another version; start it and this again") from None


def _words(told: list[Mapping[str, Any]]) -> tuple[Word, ...]:
    words = tuple(Word(word["text"], float(word["start_s"]), float(word["end_s"])) for word in told)
    if not all(isinstance(w.text, str) and math.isfinite(w.start_s) and math.isfinite(w.end_s) for w in words):
        raise ValueError("no words")
    return words
