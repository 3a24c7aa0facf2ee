"""Hours of captions in minutes: the recogniser's own process, fed the shipped recording over and over.

Each piece is given when the one before was looked at, as fast as the machine goes. Pieces differ in length, as they do
where a look takes its time: Whisper is asked about sound of any length. What must not happen over hours: memory that
grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import psutil

from engine.livebench import demo_sound
from engine.outbox import SEND_S
from engine.recognizer import Recognizer
from engine.soak import minutes_of, per_hour
from engine.types import Caption, Samples, SottovoceError
from engine.vad import SAMPLE_RATE_HZ

PIECES = (round(SEND_S * SAMPLE_RATE_HZ), round(5 * SEND_S * SAMPLE_RATE_HZ))  # the shortest, and the longest
SETTLE_MINUTES = 2  # the recording has been heard to its end by then
WAIT_S = 0.0005
MB = 1e6


class CaptionSoak:
    """One simulated run, in English. `minute` goes on by a simulated minute and gives the figures at its end."""

    def __init__(self, sound: Samples, seed: int = 1) -> None:
        """sound [N]: 16 kHz, mono. Raises SottovoceError when there can be no captions."""
        self._sound, self._random = sound, np.random.default_rng(seed)
        self._minutes = self._fed = self._words = 0
        self._recognizer = Recognizer("en", residue=True)
        self._recognizer.start()
        if not self._recognizer.wait_ready():
            self._give_up()
        assert self._recognizer.pid is not None
        self._process = psutil.Process(self._recognizer.pid)

    def minute(self) -> dict[str, float]:
        """Memory in MB, the most of the minute: free memory goes back now and then, and a long look wants it again.

        cpu_s, words: since the start.
        """
        memory_mb = []
        self._minutes += 1
        while self._fed < 60 * SAMPLE_RATE_HZ * self._minutes:
            self._piece()
            memory_mb.append(self._process.memory_info().rss / MB)
        times = self._process.cpu_times()
        return {
            "minute": float(self._minutes),
            "rss_mb": max(memory_mb),
            "cpu_s": times.user + times.system,
            "words": float(self._words),
        }

    def _piece(self) -> None:
        """Give the next piece, to captions and to who watches the noise, and wait until it was looked at."""
        length = int(self._random.integers(*PIECES))
        piece = self._sound[np.arange(self._fed, self._fed + length) % len(self._sound)]
        self._fed += length
        self._recognizer.feed(piece)
        self._recognizer.watch(piece)
        while self._recognizer.running and self._recognizer.lag_s > 0:
            time.sleep(WAIT_S)
        self._words += sum(len(event.final) for event in self._recognizer.poll() if isinstance(event, Caption))
        if not self._recognizer.running:
            self._give_up()

    def _give_up(self) -> None:
        self.close()
        raise SottovoceError(self._recognizer.failure or "Whisper does not load; run: sottovoce doctor")

    def close(self) -> None:
        """End the recogniser's process."""
        self._recognizer.stop()


def measure_caption_soak(minutes: float, progress: Callable[[float], None]) -> dict[str, Any]:
    """So many simulated minutes, at least two, and SETTLE_MINUTES before -> figures of the process; memory in MB.

    Who stops it gets the figures of the minutes until then.
    growth: from the first minute to the last; per hour: the slope of a line through all minutes; cpu_percent: of one
    core, had it been live. Raises SottovoceError when there can be no captions.
    """
    with closing(CaptionSoak(demo_sound(SAMPLE_RATE_HZ))) as soak:
        before = [soak.minute() for _ in range(SETTLE_MINUTES)][-1]  # what is allocated first is no growth
        rows = minutes_of(soak.minute, max(2, round(minutes)), progress)
    count = len(rows)
    memory_mb = [row["rss_mb"] for row in rows]
    return {
        "minutes": count,
        "rss_mb_first": memory_mb[0],
        "rss_mb_last": memory_mb[-1],
        "growth_mb": memory_mb[-1] - memory_mb[0],
        "growth_mb_per_hour": per_hour([60.0 * row["minute"] for row in rows], memory_mb),
        "cpu_percent": 100.0 * (rows[-1]["cpu_s"] - before["cpu_s"]) / (60.0 * count),
        "words": int(rows[-1]["words"]),
    }
