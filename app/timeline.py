"""What the views show, kept for five minutes: one column per hop, addressed by its number since the engine started.

No Qt here. Memory is fixed: a ring of columns for each picture. What is told of the noise, once a second, lies beside.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.theme import DIM_STEPS, SWAPPED
from engine.types import Background, BackgroundMode, Codes, Residue, Samples, Tokens, UsageError

HISTORY_S = 300.0
HOP_S = 0.02  # until the first event tells the real one
BANDS = 96
FLOOR_DB, CEILING_DB = -92.0, -28.0
FFT = 1024
WINDOW = 512
FULL_SCALE = 32767.0
KNOWN_S = 3.5  # so long what was told of the noise holds
DIM_RANGE_DB = 30.0  # a background turned down by this much is shown as dimmed as a dropped one


class ColumnRing:
    """The newest `capacity` columns of a picture [columns, rows]; a column's number never changes."""

    def __init__(self, capacity: int, rows: int, fill: int, dtype: type[np.generic]) -> None:
        self.fill = fill
        self.rows = rows
        self.head = 0  # number of the column that comes next
        self._data: NDArray[Any] = np.full((capacity, rows), fill, dtype=dtype)

    @property
    def tail(self) -> int:
        """Number of the oldest column still held."""
        return max(0, self.head - len(self._data))

    def put(self, first: int, columns: NDArray[Any]) -> None:
        """Write columns [n, rows] from number `first` on; a hole between is filled, what is too old is left out."""
        capacity = len(self._data)
        for number in range(max(self.head, first - capacity), first):
            self._data[number % capacity] = self.fill
        last = first + len(columns)
        begin = max(first, last - capacity, self.head - capacity)
        if begin < last:
            self._data[np.arange(begin, last) % capacity] = columns[begin - first :]
        self.head = max(self.head, last)

    def view(self, end: int, count: int) -> NDArray[Any]:
        """Columns [count, rows] before number `end`; those not held are the fill."""
        numbers = np.arange(end - count, end)
        picture = self._data[numbers % len(self._data)]
        picture[(numbers < self.tail) | (numbers >= self.head)] = self.fill
        return picture


class Spectrum:
    """Sound to columns of the spectrogram: BANDS mel-spaced bands, a byte each from FLOOR_DB to CEILING_DB."""

    def __init__(self, sample_rate_hz: int, hop: int) -> None:
        self._hop = hop
        self._past: Samples = np.zeros(WINDOW - hop, dtype=np.float32)
        self._window = np.hanning(WINDOW).astype(np.float32)
        self._window *= 2.0 / self._window.sum()
        self._bands = _mel_bands(sample_rate_hz)

    def process(self, samples: Samples) -> NDArray[np.uint8]:
        """Samples [T * hop] to columns [T, BANDS]."""
        sound = np.concatenate([self._past, samples])
        self._past = sound[len(sound) - len(self._past) :]
        frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[:: self._hop]
        spectra = np.fft.rfft(frames * self._window, FFT, axis=1)
        power = np.square(spectra.real) + np.square(spectra.imag)
        level_db = 10.0 * np.log10(power @ self._bands + 1e-12)
        scaled = (level_db - FLOOR_DB) * (255.0 / (CEILING_DB - FLOOR_DB))
        columns: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
        return columns


def mel(hz: float | NDArray[np.float64]) -> Any:
    """Hertz to mel."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def _mel_bands(sample_rate_hz: int) -> NDArray[np.float32]:
    """Weights [FFT // 2 + 1, BANDS]: a triangle to the next bands, or to the next bins where those are further."""
    bins = np.arange(FFT // 2 + 1) * sample_rate_hz / FFT
    top = mel(sample_rate_hz / 2)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, BANDS + 2) / 2595.0) - 1.0)
    spacing = sample_rate_hz / FFT
    left = np.minimum(edges[:-2], edges[1:-1] - spacing)
    right = np.maximum(edges[2:], edges[1:-1] + spacing)
    rising = (bins[:, None] - left) / (edges[1:-1] - left)
    falling = (right - bins[:, None]) / (right - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0.0, None)
    share: NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return share


def treatment(background: str) -> int:
    """How background tokens are shown: 0 kept, up to DIM_STEPS dropped, SWAPPED for another place's."""
    try:
        wish = Background.parse(background)
    except UsageError:
        return 0
    if wish.mode is BackgroundMode.SWAP:
        return SWAPPED
    if wish.mode is BackgroundMode.DROP:
        return DIM_STEPS
    gain_db = wish.gain_db if wish.mode is BackgroundMode.GAIN else 0.0
    return round(DIM_STEPS * min(1.0, -gain_db / DIM_RANGE_DB))


class Timeline:
    """Pictures of the last five minutes, fed by Tokens events.

    heard, sent: spectrograms [columns, BANDS]; heard_sound, sent_sound: 16-bit sound [columns, hop]. voice, background:
    codes [columns, K], -1 where left out. What has its rows from the events is None before the first. treated: how each
    background column was treated [columns, 1].
    """

    def __init__(self) -> None:
        self.hop_s = HOP_S
        self.clear()

    def clear(self) -> None:
        """Forget everything: another run begins."""
        capacity = round(HISTORY_S / self.hop_s)
        self.heard = ColumnRing(capacity, BANDS, 0, np.uint8)
        self.sent = ColumnRing(capacity, BANDS, 0, np.uint8)
        self.treated = ColumnRing(capacity, 1, 0, np.uint8)
        self.voice: ColumnRing | None = None
        self.background: ColumnRing | None = None
        self.heard_sound: ColumnRing | None = None
        self.sent_sound: ColumnRing | None = None
        self.noise: deque[Residue] = deque()
        self._spectra: tuple[Spectrum, Spectrum] | None = None
        self.sample_rate_hz = 16_000

    @property
    def head(self) -> int:
        """Number of the column that comes next."""
        return self.treated.head

    @property
    def tail(self) -> int:
        return self.treated.tail

    def add(self, event: Tokens) -> None:
        """Take in the hops of one event; time that went back means a new run."""
        count = event.codes_s.shape[1]
        if count == 0:
            return
        hop = len(event.mixture) // count
        self.hop_s = hop / self.sample_rate_hz
        first = round(event.time_s / self.hop_s) - count
        if first + count < self.head:
            self.clear()
        if self._spectra is None:
            self._spectra = (Spectrum(self.sample_rate_hz, hop), Spectrum(self.sample_rate_hz, hop))
        spectra = self._spectra
        self.voice = voice = self._fitting(self.voice, event.codes_s)
        self.background = background = self._fitting(self.background, event.codes_b)
        first = max(first, 0)
        self.heard.put(first, spectra[0].process(event.mixture))
        self.sent.put(first, spectra[1].process(event.output))
        self.heard_sound = self._kept(self.heard_sound, first, event.mixture, hop)
        self.sent_sound = self._kept(self.sent_sound, first, event.output, hop)
        voice.put(first, event.codes_s.T)
        background.put(first, event.codes_b.T)
        self.treated.put(first, np.full((count, 1), treatment(event.background), dtype=np.uint8))

    def add_noise(self, event: Residue) -> None:
        """Take in what is told of the noise; what is older than five minutes goes."""
        self.noise.append(event)
        while self.noise[0].time_s < event.time_s - HISTORY_S:
            self.noise.popleft()

    def noise_until(self, at_s: float, most: int) -> list[Residue]:
        """What was told of the noise up to a time, on the engine's clock, the newest last; nothing where it was over.

        most: so many at most, and none from before a time of which nothing is known.
        """
        found: list[Residue] = []
        later_s = at_s
        for event in reversed(self.noise):
            if event.time_s > at_s:
                continue
            if later_s - event.time_s > KNOWN_S or len(found) == most:
                break
            found.append(event)
            later_s = event.time_s
        return found[::-1]

    def moment(self, at_s: float, length_s: float) -> tuple[Samples, Samples] | None:
        """What was heard and what was sent from `at_s` on, [N] each; None where nothing of it is held."""
        heard, sent = self.heard_sound, self.sent_sound
        first = max(self.tail, round(at_s / self.hop_s))
        count = min(round(length_s / self.hop_s), self.head - first)
        if heard is None or sent is None or count < 1 or at_s + length_s < self.tail * self.hop_s:
            return None
        parts = (ring.view(first + count, count).reshape(-1) for ring in (heard, sent))
        whole, clean = (part.astype(np.float32) / FULL_SCALE for part in parts)
        return whole, clean

    def _kept(self, ring: ColumnRing | None, first: int, sound: Samples, hop: int) -> ColumnRing:
        if ring is None or ring.rows != hop:
            ring = ColumnRing(round(HISTORY_S / self.hop_s), hop, 0, np.int16)
        ring.put(first, np.clip(sound * FULL_SCALE, -FULL_SCALE, FULL_SCALE).astype(np.int16).reshape(-1, hop))
        return ring

    def _fitting(self, ring: ColumnRing | None, codes: Codes) -> ColumnRing:
        """The ring itself, or a new one where the codes have another number of rows."""
        if ring is not None and ring.rows == codes.shape[0]:
            return ring
        return ColumnRing(round(HISTORY_S / self.hop_s), codes.shape[0], -1, np.int16)
