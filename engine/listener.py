"""From samples to words: where somebody speaks, when to ask the recogniser, and what of its answer is final.

Runs in the recogniser's process, but knows neither torch nor Whisper: both are asked through small protocols. All
positions are samples at 16 kHz since the start, from one counter that never stops; words carry its seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.answers import LEFT_OUT_S, Answers, Decoder
from engine.captions import SENTENCE_ENDS, Agreement, Heard
from engine.segment import POST_ROLL_S, VOICE_OFF, VOICE_ON, Segment, Sound
from engine.types import Samples, Word
from engine.vad import SAMPLE_RATE_HZ, WINDOW, Detector

ON_WINDOWS = 2  # a voice begins with this many windows in a row
SILENT_WINDOWS = 31  # a second
PRE_ROLL_S = 0.4  # kept from before the voice was noticed
TOLD_S = 0.1  # an answer about sound that goes on this long after the voice is about all of it


@dataclass(frozen=True)
class Pace:
    """When to ask and when to close. A segment is closed by a pause of pause_s once it lasts min_s, or of rest_s.

    step_s: new sound between two tentative answers (None: none are given), of which the nearer they are the less it
    says that they agree; trim_s: a segment longer than this loses its oldest final words; max_s: it is cut here at the
    quietest place; margin_s: what ends later stays tentative; sure_s: what ends so long before that is final by one
    answer (see `Agreement`), or words that are heard anew at every look would wait for the pause; context_s: what was
    said so long before a segment is heard with it.
    """

    step_s: float | None = 1.0
    pause_s: float = 0.5
    min_s: float = 0.0
    rest_s: float = 0.5
    trim_s: float = 8.0
    max_s: float = 10.0
    margin_s: float = 0.3
    sure_s: float = 4.0
    context_s: float = 10.0


LIVE = Pace()
OFFLINE = Pace(step_s=None, pause_s=0.5, min_s=12.0, rest_s=2.0, trim_s=28.0, max_s=28.0, context_s=0.0)


@dataclass(frozen=True)
class Update:
    """What one look brought. heard_to: the sound it is about ends here; final_to: nothing before is needed again.

    language: that is sure; guessed: in which one final words were written, sure or not.
    """

    final: tuple[Word, ...]
    tentative: tuple[Word, ...]
    heard_to: int
    final_to: int
    language: str | None
    guessed: str | None = None


class Listener:
    """Feed samples, then call `advance` until it gives None. `finish` first when no more will come.

    asked_from: told where the sound begins that the decoder is asked about next.
    """

    def __init__(
        self,
        decoder: Decoder,
        detector: Detector,
        language: str | None = None,
        pace: Pace = LIVE,
        start: int = 0,
        asked_from: Callable[[int], object] = lambda place: None,
    ) -> None:
        self.detector, self.pace = detector, pace
        self._sound = Sound(start)
        self._answers = Answers(decoder, self._sound, language, pace.context_s, asked_from)
        self._free = start  # no segment will begin before this
        self._seen = start  # voice was looked for up to here
        self._run = 0
        self._ended = False
        self._silent = 0  # windows of digital silence in a row, with nothing open
        self._segment: Segment | None = None
        self._agreement: Agreement[Heard] = Agreement(pace.sure_s)
        self._last_s = start / SAMPLE_RATE_HZ
        self._told_to = start

    @property
    def language(self) -> str | None:
        """What is spoken; None until the recogniser is sure."""
        return self._answers.language

    @property
    def fed_to(self) -> int:
        return self._sound.end

    def feed(self, samples: Samples) -> None:
        """The next samples at 16 kHz, mono."""
        self._sound.add(samples)

    def gap(self, count: int) -> None:
        """`count` samples were lost here: silence stands for them, so that the clock goes on."""
        self.feed(np.zeros(count, dtype=np.float32))

    def finish(self) -> None:
        """No more will come: what is open is closed by the next calls of `advance`."""
        self._ended = True

    def advance(self) -> Update | None:
        """Look on until there is something to tell; None when more sound is wanted."""
        while self.fed_to - self._seen >= WINDOW:
            self._look(self._chance(self._sound.between(self._seen, self._seen + WINDOW)))
            segment = self._segment
            if segment is None:
                self._forget(self._seen - int(PRE_ROLL_S * SAMPLE_RATE_HZ))
            elif self._is_over(segment):
                return self._close(segment, segment.voiced_to + int(POST_ROLL_S * SAMPLE_RATE_HZ))
            elif self._seconds(self._seen - segment.start) >= self.pace.max_s:
                return self._cut(segment)
        segment = self._segment
        if segment is None:
            return None
        if self._ended:
            return self._close(segment, self.fed_to)
        return self._step(segment) if self._is_due(segment) else None

    def _chance(self, window: Samples) -> float:
        """How likely somebody speaks in it. In long digital silence the detector rests, and then begins anew."""
        self._silent = 0 if self._segment is not None or window.any() else self._silent + 1
        if self._silent < SILENT_WINDOWS:
            return self.detector(window)
        if self._silent == SILENT_WINDOWS:
            self.detector.reset()
        return 0.0

    @staticmethod
    def _seconds(samples: int) -> float:
        return samples / SAMPLE_RATE_HZ

    def _look(self, chance: float) -> None:
        """One window's probability of voice: opens a segment, or says how far the open one is voiced."""
        self._seen += WINDOW
        segment = self._segment
        if segment is not None:
            segment.chances.append(chance)
            if chance >= VOICE_OFF:
                segment.voiced_to = self._seen
                segment.voiced += WINDOW
            return
        self._run = self._run + 1 if chance >= VOICE_ON else 0
        if self._run >= ON_WINDOWS:
            start = max(self._free, self._seen - self._run * WINDOW - int(PRE_ROLL_S * SAMPLE_RATE_HZ))
            self._open(start, self._run * WINDOW)

    def _open(self, start: int, voiced: int) -> None:
        self._segment = Segment(
            start, self._seen, start, voiced, first_window=self._seen, language=self._answers.language
        )
        self._segment.voiced_from = max(start, self._seen - self._run * WINDOW)
        self._agreement = Agreement(self.pace.sure_s)
        self._run = 0

    def _is_over(self, segment: Segment) -> bool:
        silence = self._seconds(self._seen - segment.voiced_to)
        long_enough = self._seconds(segment.voiced_to - segment.start) >= self.pace.min_s
        return silence >= (self.pace.pause_s if long_enough else self.pace.rest_s)

    def _is_due(self, segment: Segment) -> bool:
        if self.pace.step_s is None or segment.voiced_to <= segment.asked_to:
            return False
        return self._seconds(self._seen - segment.asked_to) >= self.pace.step_s

    def _forget(self, before: int) -> None:
        """No segment will begin before this; sound that may be heard with one stays."""
        self._free = max(self._free, min(before, self.fed_to))
        self._sound.forget(self._free - round(self.pace.context_s * SAMPLE_RATE_HZ))

    def _step(self, segment: Segment) -> Update:
        """A tentative answer about all that is there."""
        segment.asked_to = self._seen
        words = self._answers.about(segment, self._seen)
        horizon_s = self._seconds(self._seen) - self.pace.margin_s
        final, tail = self._agreement.update(words, horizon_s)
        segment.tail = tuple(tail)
        segment.read = segment.tail or segment.read
        self._hold(segment, final)
        heard_to = self._seen
        self._trim(segment)
        return self._update(final, self._kept(segment, tail, heard_to), heard_to, self._final_to(segment))

    def _hold(self, segment: Segment, final: Sequence[Heard]) -> None:
        segment.held += final
        if final:
            segment.any_final = True

    @property
    def final_to(self) -> int:
        """No sound before this is still to be told: where another listener would have to go on."""
        return max(self._told_to, self._free if self._segment is None else self._final_to(self._segment))

    def _final_to(self, segment: Segment) -> int:
        return max(segment.start, min(segment.held_to, self._seen))

    def _trim(self, segment: Segment) -> None:
        """Drop the oldest final words of a long segment, cut where the speaker breathed or ended a sentence."""
        if self._seconds(self._seen - segment.start) < self.pace.trim_s or not segment.held:
            return
        following = [*segment.held[1:], *segment.tail[:1]]
        best, best_score = None, -1.0
        for index, (word, after) in enumerate(zip(segment.held, following, strict=False)):
            kept_s = self._seconds(self._seen) - word.end_s
            score = min(after.start_s - word.end_s, 0.5) + (0.5 if word.text[-1:] in SENTENCE_ENDS else 0.0)
            score += 0.02 * (index / len(segment.held))
            if kept_s <= 0.6 * self.pace.trim_s and score > best_score:
                best, best_score = index, score
        if best is None:
            best = len(segment.held) - 1
        self._drop_held(segment, best, following[best].start_s if best < len(following) else None)

    def _drop_held(self, segment: Segment, last: int, next_start_s: float | None) -> None:
        end_s = segment.held[last].end_s
        cut_s = end_s if next_start_s is None else (end_s + max(next_start_s, end_s)) / 2
        segment.start = min(max(segment.start, int(cut_s * SAMPLE_RATE_HZ)), self._seen)
        self._answers.context.add(segment.held[: last + 1])
        segment.held = segment.held[last + 1 :]
        segment.language = self.language  # where that is not sure, it is told again from what is left
        self._forget(segment.start)

    def _cut(self, segment: Segment) -> Update:
        """No pause came: close at the quietest place of the last third, behind what is final, and go on from there."""
        floor = max(self._seen - (self._seen - segment.start) // 3, segment.held_to)
        first = min(max(-((segment.first_window - floor) // WINDOW), 0), len(segment.chances) - 1)
        around = np.pad(segment.chances[first:], 1, mode="edge")
        quiet = first + int(np.argmin(np.convolve(around, np.ones(3) / 3, mode="valid")))
        at = max(segment.first_window + quiet * WINDOW, segment.held_to, segment.start + WINDOW)
        rest = segment.chances[quiet + 1 :]
        update = self._close(segment, at, keep_from=at)
        self._open(at, sum(c >= VOICE_OFF for c in rest) * WINDOW)
        if self._segment is not None:
            self._segment.chances, self._segment.first_window = list(rest), segment.first_window + (quiet + 1) * WINDOW
            self._segment.voiced_from = at
        return update

    def _close(self, segment: Segment, end: int, keep_from: int | None = None) -> Update:
        """The last answer about a segment: all of it is final."""
        end = min(end, self.fed_to)
        words = self._last_answer(segment, end, whole=keep_from is None)  # else the last one goes beyond the cut
        final = self._agreement.finish(self._answers.filled(segment, words, end))
        self._hold(segment, final)
        self._answers.context.add(segment.held)
        self._segment = None
        if keep_from is None:
            self.detector.reset()
            self._forget(self._seen - int(PRE_ROLL_S * SAMPLE_RATE_HZ))
        else:
            self._forget(keep_from)
        update = self._update(final, [], self._seen, self._free)
        return replace(update, guessed=segment.guessed) if final else update

    def _last_answer(self, segment: Segment, end: int, whole: bool) -> list[Heard]:
        """The words after the held ones, up to `end`."""
        words = list(segment.tail) if whole and self._is_told(segment) else self._answers.about(segment, end)
        return [word for word in self._kept(segment, words, end) if whole or word.end_s <= self._seconds(end)]

    @staticmethod
    def _kept(segment: Segment, words: list[Heard], end: int) -> list[Heard]:
        """The words of an answer; where there is none though somebody spoke for a while, those that were read there
        before: in loud noise, half a second more of it can cost all the words.
        """
        if words or segment.any_final or segment.passed_over([], end, LEFT_OUT_S) is None:
            return words
        return list(segment.read)

    def _is_told(self, segment: Segment) -> bool:
        """Whether the last answer was about all that was said, so that there is nothing left to ask. One that leaves
        a whole segment without a word is not trusted with that.
        """
        said_all = segment.asked_to >= segment.voiced_to + int(TOLD_S * SAMPLE_RATE_HZ)
        return said_all and bool(segment.tail or segment.any_final)

    def _update(self, final: Sequence[Heard], tail: Sequence[Heard], heard_to: int, final_to: int) -> Update:
        """Heard words -> plain ones, in order of time."""
        told = tuple(self._plain(word) for word in final)
        tentative = tuple(Word(w.text, max(w.start_s, self._last_s), max(w.end_s, self._last_s)) for w in tail)
        self._told_to = max(self._told_to, final_to)
        return Update(told, tentative, heard_to, self._told_to, self.language)

    def _plain(self, word: Heard) -> Word:
        start = max(word.start_s, self._last_s)
        self._last_s = start
        return Word(word.text, start, max(word.end_s, start), word.probability)
