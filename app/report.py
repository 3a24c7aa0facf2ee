"""The demo's picture: sound in and out, both token streams, quantisation error and captions, on one time axis."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.types import AudioFileError, Codes, Samples, Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_S = 0.032
FLOOR_DB, TOP_DB = -100.0, -10.0
MAX_COLUMNS = 4000  # of any picture; a long recording is thinned to it
WORD_ROWS = 4
INCHES_PER_S = 0.5
WIDTH_INCHES = (12.0, 40.0)


@dataclass(frozen=True)
class Report:
    """What the picture shows; all of it on one clock that starts with the sound.

    mixture, output: [N] at sample_rate_hz, the output's lag removed; codes_*: [K, T], a column per hop;
    error_db: [T], how far speech + background decoded from tokens alone are from the mixture, relative to it.
    """

    title: str
    sample_rate_hz: int
    hop_s: float
    mixture: Samples
    output: Samples
    codes_s: Codes
    codes_b: Codes
    error_db: NDArray[np.floating[Any]]
    words: Sequence[Word] = ()


def spectrogram_db(sound: Samples, sample_rate_hz: int) -> tuple[NDArray[np.floating[Any]], float]:
    """Sound [N] -> levels in dB [F, T], T at most MAX_COLUMNS, and the seconds from one column to the next."""
    size = int(WINDOW_S * sample_rate_hz)
    step = max(size // 4, -(-max(0, len(sound) - size) // MAX_COLUMNS))
    padded = np.concatenate([sound, np.zeros(size, np.float32)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: max(1, len(sound)) : step]
    window = np.hanning(size).astype(np.float32)
    power = np.empty((size // 2 + 1, len(frames)), dtype=np.float32)
    for column, frame in enumerate(frames):  # one at a time: a long recording must not be held several times over
        power[:, column] = np.abs(np.fft.rfft(frame * window)) / (0.5 * window.sum())
    return 20.0 * np.log10(np.maximum(power, 1e-6)), step / sample_rate_hz


def error_db(mixture: Samples, decoded: Samples, hop: int) -> NDArray[np.floating[Any]]:
    """Per hop, the energy of decoded - mixture relative to the mixture, in dB; 0 or above means nothing was kept."""
    count = min(len(mixture), len(decoded)) // hop
    sound = mixture[: count * hop].reshape(count, hop)
    wrong = decoded[: count * hop].reshape(count, hop) - sound
    floor = 1e-8  # -80 dBFS: below it a hop counts as silent, and its error is told relative to that level
    level = np.maximum(np.mean(sound**2, axis=1), floor)
    share = np.maximum(np.mean(wrong**2, axis=1), 1e-10) / level
    error: NDArray[np.floating[Any]] = 10.0 * np.log10(share)
    return error


def draw_report(report: Report, path: str | Path) -> None:
    """Write the picture as a PNG; raises AudioFileError when it cannot be written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a script that the font lacks is drawn as boxes
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        figure = build_figure(report)
        try:
            figure.savefig(str(path), format="png")
        except OSError as error:
            raise AudioFileError(f"{path} cannot be written ({error.strerror}); choose another --out") from error


def build_figure(report: Report) -> Figure:
    """Six pictures above each other that share the time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    duration_s = max(len(report.mixture) / report.sample_rate_hz, report.hop_s)
    width = float(np.clip(duration_s * INCHES_PER_S, *WIDTH_INCHES))
    figure = NewFigure(figsize=(width, 13), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(6, 1, sharex=True, height_ratios=[3, 3, 2, 2, 1.4, 1.4])
    figure.suptitle(report.title)
    _draw_spectrogram(axes[0], report.mixture, report.sample_rate_hz, "in")
    _draw_spectrogram(axes[1], report.output, report.sample_rate_hz, "out")
    _draw_codes(axes[2], report.codes_s, report.hop_s, "speech tokens")
    _draw_codes(axes[3], report.codes_b, report.hop_s, "background tokens")
    _draw_error(axes[4], report)
    _draw_words(axes[5], report.words, width / duration_s)
    axes[5].set_xlim(0.0, duration_s)
    axes[5].set_xlabel("time (s)")
    return figure


def _draw_spectrogram(axis: Axes, sound: Samples, rate: int, name: str) -> None:
    levels, step_s = spectrogram_db(sound, rate)
    extent = (0.0, levels.shape[1] * step_s, 0.0, rate / 2000.0)
    axis.imshow(levels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=FLOOR_DB, vmax=TOP_DB)
    axis.set_ylabel(f"{name}\n(kHz)")


def _draw_codes(axis: Axes, codes: Codes, hop_s: float, name: str) -> None:
    """Each row is coloured by rank over its own range; rows left out (-1) stay white."""
    thin = -(-max(1, codes.shape[1]) // MAX_COLUMNS)
    shown = codes[:, ::thin].astype(np.float32)
    highest = np.maximum(codes.max(axis=1, initial=1), 1).astype(np.float32)[:, None]
    picture = np.ma.masked_less(shown / highest, 0.0)
    extent = (0.0, codes.shape[1] * hop_s, codes.shape[0], 0.0)
    axis.imshow(picture, aspect="auto", extent=extent, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
    axis.set_ylabel(f"{name}\n(quantizer)")


def _draw_error(axis: Axes, report: Report) -> None:
    times = (np.arange(len(report.error_db)) + 0.5) * report.hop_s
    axis.plot(times, report.error_db, linewidth=0.7, color="tab:red")
    axis.axhline(0.0, linewidth=0.5, color="grey")
    axis.set_ylim(-40.0, 10.0)
    axis.set_ylabel("quantisation\nerror (dB)")


def _draw_words(axis: Axes, words: Sequence[Word], inches_per_s: float) -> None:
    """Each word over the time in which it was spoken, in the first of a few rows with room for its letters."""
    axis.set_ylim(WORD_ROWS, 0.0)
    axis.set_yticks([])
    axis.set_ylabel("captions")
    free_from_s = [0.0] * WORD_ROWS
    for word in words:
        axis.axvspan(word.start_s, word.end_s, color="tab:blue", alpha=0.15, linewidth=0)
        text = word.text.strip()
        row = next((r for r, s in enumerate(free_from_s) if s <= word.start_s), None)
        if row is None:
            continue  # no room at this scale; its span is still marked
        free_from_s[row] = word.start_s + (0.085 * len(text) + 0.08) / inches_per_s
        axis.text(word.start_s, row + 0.5, text, fontsize=8, va="center", ha="left", clip_on=True)
    if not words:
        axis.text(0.0, 0.5 * WORD_ROWS, " (no captions)", fontsize=8, va="center", color="grey")
