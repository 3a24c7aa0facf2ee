"""The picture of `sottovoce residue`: sound, kinds of noise, residue, distances of tokens, and the plane of kinds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.clouds import CloudLike, outline
from engine.soundfiles import partial_path
from engine.types import RESIDUE_STEP_S, AudioFileError, Residue, Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVENT_S = 1.0
FARTHEST = 2.0  # between vectors of length one
ENVELOPE_COLUMNS = 3000


@dataclass(frozen=True)
class NoiseReport:
    """What the picture shows. sound [N]; distances: for each place, of its tokens from the sound's own [tokens]."""

    title: str
    sample_rate_hz: int
    sound: Samples
    events: tuple[Residue, ...]
    kinds: tuple[str, ...]
    clouds: Mapping[str, CloudLike]
    distances: Mapping[str, Samples]


def draw_noise_report(report: NoiseReport, path: Path) -> None:
    """Write the picture as a PNG; raises AudioFileError when it cannot be written."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    figure = build_noise_figure(report)
    beside = partial_path(path)
    try:
        figure.savefig(str(beside), format="png")
        beside.replace(path)
    except OSError as error:
        raise AudioFileError(f"{path} cannot be written ({error.strerror}); choose another --report") from error
    finally:
        beside.unlink(missing_ok=True)


def build_noise_figure(report: NoiseReport) -> Figure:
    """Four pictures on one time axis, and the plane beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(15, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(report.title)
    parts: Any = figure.subfigures(1, 2, width_ratios=[2, 1])
    left, right = parts
    axes = left.subplots(4, 1, sharex=True, height_ratios=[1.2, 1.6, 1, 1.6])
    duration_s = max(len(report.sound) / report.sample_rate_hz, EVENT_S)
    _draw_sound(axes[0], report)
    _draw_kinds(axes[1], report)
    _draw_energy(axes[2], report)
    _draw_distances(axes[3], report, left)
    axes[3].set_xlim(0.0, duration_s)
    axes[3].set_xlabel("time (s)")
    _draw_plane(right.subplots(), report)
    return figure


def _draw_sound(axis: Axes, report: NoiseReport) -> None:
    step = max(1, len(report.sound) // ENVELOPE_COLUMNS)
    whole = report.sound[: len(report.sound) // step * step].reshape(-1, step)
    times = np.arange(len(whole)) * step / report.sample_rate_hz
    axis.fill_between(times, whole.min(axis=1), whole.max(axis=1), linewidth=0)
    axis.set_ylabel("sound")


def _draw_kinds(axis: Axes, report: NoiseReport) -> None:
    """A mark a second, the stronger the surer."""
    places = {kind: row for row, kind in enumerate(report.kinds)}
    for event in report.events:
        row = places[event.noise_class]
        alpha = float(np.clip(event.confidence, 0.1, 1.0))
        axis.barh(row, EVENT_S, left=event.time_s - EVENT_S, height=0.8, color=f"C{row % 10}", alpha=alpha)
    axis.set_yticks(range(len(report.kinds)), report.kinds, fontsize=7)
    axis.set_ylim(len(report.kinds) - 0.5, -0.5)
    axis.set_ylabel("noise")


def _draw_energy(axis: Axes, report: NoiseReport) -> None:
    for event in report.events:
        count = len(event.energy_db)
        times = event.time_s - RESIDUE_STEP_S * (count - 0.5 - np.arange(count))
        axis.plot(times, event.energy_db, linewidth=0.8, color="tab:red")
    axis.set_ylabel("residue (dB)")


def _draw_distances(axis: Axes, report: NoiseReport, figure: Figure) -> None:
    """Dark where the token stayed what it was although the voice was put into that place."""
    axis.set_ylabel("tokens in\nother places")
    if not report.distances:
        axis.set_yticks([])
        return
    longest = max(len(row) for row in report.distances.values())
    picture = np.full((len(report.distances), longest), np.nan)
    for row, values in enumerate(report.distances.values()):
        picture[row, : len(values)] = values
    extent = (0.0, longest * RESIDUE_STEP_S, len(picture) - 0.5, -0.5)
    image = axis.imshow(picture, aspect="auto", extent=extent, cmap="magma", vmin=0.0, vmax=FARTHEST)
    axis.set_yticks(range(len(picture)), list(report.distances), fontsize=7)
    figure.colorbar(image, ax=axis, label="L2", pad=0.01)


def _draw_plane(axis: Axes, report: NoiseReport) -> None:
    for row, (kind, cloud) in enumerate(report.clouds.items()):
        axis.fill(*outline(cloud), alpha=0.25, color=f"C{row % 10}")
        axis.text(*cloud.mean, kind, fontsize=8, ha="center", va="center")
    points = np.array([event.point for event in report.events]).reshape(-1, 2)
    axis.plot(points[:, 0], points[:, 1], color="black", linewidth=0.6, alpha=0.4)
    axis.scatter(points[:, 0], points[:, 1], c=np.arange(len(points)), cmap="viridis", s=14, zorder=3)
    axis.set_title("residue among the kinds' clouds (one standard deviation)", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
