"""A live run on a terminal: captions as lines on standard output, the state on one line of standard error.

The state line is drawn on a terminal only, and taken away before anything else is written.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable

from app import console
from engine.types import OTHERS, SPEECH, Caption, DeviceChange, Event, Levels, Problem, Stats, Word

REDRAW_S = 0.1
NO_DEVICE = "none"
LINE_CHARS = 78
SENTENCE_ENDS = ".?!…。？！"
WHO = {SPEECH: "you", OTHERS: "others"}


class LiveView:
    """Takes the engine's events. `words` (of the microphone), `problems` and `stats` (the last) are there afterwards.

    note: is told every event, for a log. labelled: every line says who spoke, where a second sound is captioned too.
    """

    def __init__(
        self, show_captions: bool, note: Callable[[Event], None] = lambda event: None, labelled: bool = False
    ) -> None:
        self.words: list[Word] = []
        self.problems: list[Problem] = []
        self.stats: Stats | None = None
        self.language: str | None = None
        self.final_after_s: list[float] = []  # for each word, from its end until it was final
        self._show_captions, self._note, self._labelled = show_captions, note, labelled
        self._levels: Levels | None = None
        self._waiting: dict[str, list[Word]] = {}  # by source
        self._tentative: dict[str, str] = {}
        self._terminal = sys.stderr.isatty()
        self._drawn = False
        self._redraw_at = 0.0

    def take(self, events: Iterable[Event]) -> None:
        """Show what is new."""
        for event in events:
            self._note(event)
            if isinstance(event, Caption):
                self._caption(event)
            elif isinstance(event, Problem):
                self.problems.append(event)
                plain = event.state in ("stopped", "running")  # the end, or good news
                self._tell(event.text if plain else f"warning: {event.text}")
            elif isinstance(event, DeviceChange):
                self._tell(event.what if event.device in ("", NO_DEVICE) else f"{event.what}: {event.device}")
            elif isinstance(event, Stats):
                self.stats = event
            elif isinstance(event, Levels):
                self._levels = event
        if self._terminal and time.monotonic() >= self._redraw_at:
            self._redraw_at = time.monotonic() + REDRAW_S
            self._draw()

    def close(self) -> None:
        """Print the last words and take the state line away."""
        self._print_words(everything=True)
        self._clear()

    def _caption(self, caption: Caption) -> None:
        self.language = caption.language or self.language
        if caption.source != OTHERS:
            self.words.extend(caption.final)
            self.final_after_s.extend(caption.time_s - word.end_s for word in caption.final)
        self._waiting.setdefault(caption.source, []).extend(caption.final)
        self._tentative[caption.source] = joined(caption.tentative)
        self._print_words()

    def _print_words(self, everything: bool = False) -> None:
        """Final words, in lines that end with a sentence, a pause or a full line."""
        for source, waiting in self._waiting.items():
            who = f"{WHO[source]}: " if self._labelled else ""
            while self._show_captions and (count := line_end(waiting, everything)):
                line = waiting[:count]
                del waiting[:count]
                self._clear()
                print(f"[{console.clock(line[0].start_s)}] {who}{joined(line)}", flush=True)

    def _tell(self, text: str) -> None:
        self._clear()
        console.say(text)

    def _draw(self) -> None:
        parts = []
        if self.stats is not None:
            s = self.stats
            parts += [
                f"{console.clock(s.time_s)} {s.state}",
                f"delay {s.delay_ms:.0f} ms",
                f"load {100 * s.load:.0f} %",
            ]
            parts += [f"{s.dropouts} dropouts"] if s.dropouts else []
            parts += [f"captions {s.caption_lag_s:.1f} s behind"] if self._show_captions and s.caption_lag_s > 1 else []
        if self._levels is not None:
            parts.append(f"in {self._levels.input_rms_db:.0f} dB, out {self._levels.output_rms_db:.0f} dB")
        for source, waiting in self._waiting.items() if self._show_captions else ():
            parts.append(joined([*waiting, Word(self._tentative[source], 0.0, 0.0)]))
        width = shutil.get_terminal_size().columns - 1
        text = " | ".join(parts)
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False


def joined(words: Iterable[Word]) -> str:
    """Words as text."""
    from engine.captions import join_words

    return join_words(words).strip()


def line_end(words: list[Word], everything: bool = False) -> int:
    """How many of the words make the next line; 0 when it may still grow."""
    length = 0
    for count, word in enumerate(words, 1):
        length += len(word.text) + 1
        if word.text.rstrip()[-1:] in SENTENCE_ENDS or length > LINE_CHARS:
            return count
        if count < len(words) and words[count].start_s - word.end_s > 1.0:
            return count
    return len(words) if everything else 0
