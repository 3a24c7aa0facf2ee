"""How far one sound lies behind another, window by window, and where a recording breaks off. Sound at RATE_HZ."""

from __future__ import annotations

import numpy as np

from engine.ears import RATE_HZ, Heard
from engine.types import Samples

WINDOW_S, MAX_DELAY_S = 0.5, 0.5
GAP_MS = 1.0  # so much of nothing in the midst of sound is a gap that can be heard
LIKENESS = 0.6  # a window counts when the two match at least so well
SIZE, REACH = round(WINDOW_S * RATE_HZ), round(MAX_DELAY_S * RATE_HZ)


def delays_ms(both: Samples) -> list[float]:
    """Delay of the right channel behind the left in each window of both [N, 2] in which the two match, in ms."""
    return [delay_ms for _, delay_ms in delays_over_time(both)]


def delays_over_time(both: Samples) -> list[tuple[float, float]]:
    """The same with the time in s at which each window begins."""
    found = []
    for start in range(0, len(both) - SIZE - REACH, SIZE):
        lag = _lag(both[start : start + SIZE, 0], both[start : start + SIZE + REACH, 1])
        if lag is not None:
            found.append((start / RATE_HZ, 1000.0 * lag / RATE_HZ))
    return found


def delays_heard(played: Heard, came: Heard, from_s: float) -> list[float]:
    """Delay in ms of what came behind what was played, from a moment on; two recordings, told apart by their clocks."""
    found = []
    for start in range(played.at(from_s), len(played.sound) - SIZE, SIZE):
        began_s = played.time_s(start)
        first = came.at(began_s)
        later = came.sound[first : first + SIZE + REACH]
        lag = _lag(played.sound[start : start + SIZE], later) if len(later) == SIZE + REACH else None
        if lag is not None:
            found.append(1000.0 * (came.time_s(first + lag) - began_s))
    return found


def _lag(part: Samples, later: Samples) -> int | None:
    """Where in later [SIZE + REACH] the part [SIZE] is found best; None where it is not there."""
    part, later = part.astype(np.float64), later.astype(np.float64)
    length = 1 << (len(later) + SIZE).bit_length()
    spectrum = np.conj(np.fft.rfft(part, length)) * np.fft.rfft(later, length)
    match = np.fft.irfft(spectrum, length)[:REACH]
    power = np.concatenate([[0.0], np.cumsum(later**2)])
    energy = np.sqrt((power[SIZE : SIZE + REACH] - power[:REACH]) * np.sum(part**2)) + 1e-9
    best = int(np.argmax(match / energy))
    return best if match[best] / energy[best] >= LIKENESS else None


def gaps(x: Samples) -> int:
    """How often x [N] is exactly nothing for GAP_MS or longer, its beginning and its end left out."""
    sounding = np.flatnonzero(x)
    return int(np.count_nonzero(np.diff(sounding) > GAP_MS * RATE_HZ / 1000.0))
