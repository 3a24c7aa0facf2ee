"""Where kinds of noise lie in the residue's plane, as pictures need it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

CORNERS = 48


class CloudLike(Protocol):
    """engine.residue.Cloud, which the window must not load."""

    @property
    def mean(self) -> tuple[float, float]: ...

    @property
    def covariance(self) -> tuple[tuple[float, float], tuple[float, float]]: ...


def outline(cloud: CloudLike) -> NDArray[np.floating[Any]]:
    """The line one standard deviation from the mean, [2, CORNERS]."""
    values, axes = np.linalg.eigh(np.array(cloud.covariance))
    turn = np.linspace(0.0, 2.0 * np.pi, CORNERS)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    ring = axes @ (np.sqrt(np.maximum(values, 0.0))[:, None] * circle)
    placed: NDArray[np.floating[Any]] = ring + np.array(cloud.mean)[:, None]
    return placed
