"""What the listener believes of answers that say more than was spoken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.captions import Heard, join_words
from engine.listener import Hypothesis, Listener
from engine.vad import SAMPLE_RATE_HZ


class Loud:
    """Hears a voice wherever it is loud."""

    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).mean() > 0.05 else 0.0

    def reset(self) -> None: ...


class Echoing:
    """Hears "Good morning" from half a second on, and says it a second time, which takes so long."""

    def __init__(self, second_s: float) -> None:
        self.second_s = second_s

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], draft: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        length_s = len(samples) / SAMPLE_RATE_HZ
        heard = [Heard("Good", 0.3, 0.6, 0.9, (1,)), Heard("morning", 0.6, 0.9, 0.9, (2,))]
        if length_s > 1.0:
            middle_s = length_s - 0.3
            heard += [
                Heard("Good", 0.9, middle_s, 0.9, (1,)),
                Heard("morning", middle_s, middle_s + self.second_s, 0.9, (2,)),
            ]
        return Hypothesis(tuple(heard[len(prefix) :]), "en")


@pytest.mark.parametrize(
    ("second_s", "told"), [(0.02, "Good morning"), (0.3, "Good morning Good morning")], ids=["in no time", "spoken"]
)
@pytest.mark.parametrize("voice_s", [1.2, 3.0])
def test_a_short_phrase_after_a_pause_is_told_as_often_as_it_was_said(
    second_s: float, told: str, voice_s: float
) -> None:
    sound = np.zeros(round((voice_s + 3.0) * SAMPLE_RATE_HZ), np.float32)
    sound[SAMPLE_RATE_HZ : round((1.0 + voice_s) * SAMPLE_RATE_HZ)] = 0.1
    listener = Listener(Echoing(second_s), Loud(), "en")
    words = []
    for at in range(0, len(sound), 1600):
        listener.feed(sound[at : at + 1600])
        while (update := listener.advance()) is not None:
            words += update.final
    assert join_words(words) == told


class Counting(Loud):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, window: np.ndarray) -> float:
        self.asked += 1
        return super().__call__(window)


def test_in_long_silence_nobody_is_asked_for_a_voice_and_the_next_one_is_heard() -> None:
    detector = Counting()
    listener = Listener(Echoing(0.3), detector, "en")
    words = []
    voice = np.full(2 * SAMPLE_RATE_HZ, 0.1, np.float32)
    for piece in (voice, np.zeros(60 * SAMPLE_RATE_HZ, np.float32), voice, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)):
        listener.feed(piece)
        while (update := listener.advance()) is not None:
            words += update.final
    assert detector.asked * 512 < 12 * SAMPLE_RATE_HZ
    assert sum(word.text.strip().startswith("Good") for word in words) >= 2
    assert max(word.end_s for word in words) > 62.0
