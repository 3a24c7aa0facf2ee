"""Whether the residue parts kinds of noise that it was never taught: the part `unseen` of `models.evaluate recognizer`.

The public test's kinds (a train, a pub, keyboards, radio static) are in no training sound. Beside the shipped quantiser
stands a plain one, of as many codes and dimensions, which is fitted to describe noisy frames and nothing else:
principal components and k-means, no clean target, no words, no kinds. Told are how well the mean residue of a mixture
parts the kinds (silhouette, Rousseeuw 1987: 1 apart, 0 one heap), and how many tokens are the same in noise as without.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from engine.paths import assets_dir
from engine.residue import ROLE
from engine.types import Samples, SottovoceError
from models.export_words import load_shipped
from models.noise_vq import NoiseVq
from models.tables import table
from models.testset import Mixture
from models.word_pairs import Heard, read_blocks

FITTED_WINDOWS, ROUNDS, SEED = 600, 15, 6  # windows and k-means rounds of the plain quantiser
SHIPPED, PLAIN, FRAMES = "shipped quantiser", "plain quantiser", "Whisper's frames themselves"
console = Console(stderr=True)


class Quantiser(Protocol):
    """Frames [T, width] -> codes [T / 2], residue [T / 2, latent]."""

    def __call__(self, frames: Samples) -> tuple[NDArray[np.int64], Samples]: ...


class Shipped:
    """The quantiser that the engine runs."""

    def __init__(self, model: NoiseVq) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def __call__(self, frames: Samples) -> tuple[NDArray[np.int64], Samples]:
        """See Quantiser."""
        x = torch.from_numpy(np.ascontiguousarray(_even(frames), dtype=np.float32))[None]
        done = self.model.quantise(x, torch.ones(x.shape[:2], dtype=torch.bool))
        return done.indices[0].numpy(), done.residue[0].numpy()


class Plain:
    """Means of two frames, their first principal components as unit vectors, and k-means of those."""

    def __init__(self, frames: Iterable[Samples], codes: int, latent: int) -> None:
        """frames [T, width] each: what it is fitted to. Raises SottovoceError where they are fewer than codes."""
        halved = np.concatenate([_halved(part) for part in frames])
        if len(halved) < codes:
            raise SottovoceError(f"{len(halved)} frames are too few for {codes} codes; run python -m models.word_pairs")
        self._mean = halved.mean(0)
        _, _, directions = np.linalg.svd(np.cov((halved - self._mean).T), hermitian=True)
        self._directions = directions[:latent].T
        random = np.random.default_rng(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a code that nothing is near is as good as none
            self.vectors, _ = kmeans2(self._latents(halved), codes, iter=ROUNDS, minit="points", rng=random)

    def _latents(self, halved: Samples) -> Samples:
        z = (halved - self._mean) @ self._directions
        unit: Samples = z / np.linalg.norm(z, axis=1, keepdims=True).clip(1e-9)
        return unit

    def __call__(self, frames: Samples) -> tuple[NDArray[np.int64], Samples]:
        """See Quantiser."""
        z = self._latents(_halved(frames))
        codes = cdist(z, self.vectors, "sqeuclidean").argmin(1)
        return codes, z - self.vectors[codes]


def _even(frames: Samples) -> Samples:
    return frames[: len(frames) // 2 * 2]


def _halved(frames: Samples) -> Samples:
    return _even(frames).astype(np.float32).reshape(-1, 2, frames.shape[1]).mean(1)


def silhouette(points: Samples, kinds: Sequence[str]) -> float:
    """Mean over points [N, D] of (b - a) / max(a, b): a how far a point is from its own kind on average, b from the
    nearest other one. Raises ValueError where there are fewer than two kinds, or one has a single point."""
    names = sorted(set(kinds))
    member = np.array([[kind == name for name in names] for kind in kinds], float)
    counts = member.sum(0)
    if len(names) < 2 or counts.min() < 2:
        raise ValueError("two kinds or more, of two points or more each")
    sums = cdist(points, points) @ member
    own = member.astype(bool)
    within = sums[own] / (counts - 1.0)[own.argmax(1)]
    beside = np.where(own, np.inf, sums / counts).min(1)
    return float(np.mean((beside - within) / np.maximum(beside, within).clip(1e-12)))


@dataclass(frozen=True)
class Told:
    """What a quantiser makes of a mixture: its mean residue [latent], and the share of tokens equal to the clean's."""

    residue: Samples
    equal: float


def told(quantiser: Quantiser, noisy: Samples, clean: Samples) -> Told:
    """Frames [T, width] of a mixture and of its voice alone."""
    codes, residue = quantiser(noisy)
    return Told(residue.mean(0), float(np.mean(codes == quantiser(clean)[0])))


def plain_like(shipped: NoiseVq) -> Plain:
    """A plain quantiser of the shipped one's size, from training windows. Raises SottovoceError without any."""
    windows: Iterator[Heard] = islice(read_blocks("train", windows=True), FITTED_WINDOWS)
    if not (frames := [window.noisy for window in windows]):
        raise SottovoceError("there are no training windows yet; run python -m models.word_pairs --windows --blocks 8")
    return Plain(frames, shipped.config.codes, shipped.config.latent)


def unseen(mixtures: Sequence[Mixture], decoder: Any, out: Path) -> dict[str, Any]:
    """Silhouettes and percent of equal tokens, over SNR, of both quantisers; and a picture of them, `unseen.png`.

    decoder: gives Whisper's frames of a sound. Raises SottovoceError.
    """
    model = load_shipped(assets_dir() / f"{ROLE}.onnx")
    quantisers: dict[str, Quantiser] = {SHIPPED: Shipped(model), PLAIN: plain_like(model)}
    rows: dict[str, list[Told]] = {SHIPPED: [], PLAIN: [], FRAMES: []}
    for mixture in track(mixtures, "unseen", console=console):
        noisy, clean = decoder.frames(mixture.mixture), decoder.frames(mixture.speech)
        for name, quantiser in quantisers.items():
            rows[name].append(told(quantiser, noisy, clean))
        rows[FRAMES].append(Told(noisy.mean(0), np.nan))
    kinds, snrs_db = [mixture.noise_class for mixture in mixtures], [mixture.snr_db for mixture in mixtures]
    draw({name: [row.residue for row in rows[name]] for name in (PLAIN, SHIPPED)}, kinds, out / "unseen.png")
    return {"kinds": sorted(set(kinds))} | {name: figures(rows[name], kinds, snrs_db) for name in rows}


def figures(rows: Sequence[Told], kinds: Sequence[str], snrs_db: Sequence[float]) -> dict[str, Any]:
    """Of one quantiser: of all mixtures, and of those at each SNR."""
    groups = {"all": range(len(rows))} | {
        f"{snr_db:g} dB": [i for i, other in enumerate(snrs_db) if other == snr_db] for snr_db in sorted(set(snrs_db))
    }
    found: dict[str, Any] = {}
    for name, chosen in groups.items():
        apart = silhouette(np.array([rows[i].residue for i in chosen]), [kinds[i] for i in chosen])
        found[name] = {"silhouette": round(apart, 3)}
        if np.isfinite(equal := float(np.mean([rows[i].equal for i in chosen]))):
            found[name]["equal tokens"] = round(100.0 * equal, 1)
    return found


def draw(residues: dict[str, list[Samples]], kinds: Sequence[str], path: Path) -> None:
    """Mean residues in the plane of their two first principal components, a picture a quantiser."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, points) in enumerate(residues.items(), 1):
        axes = figure.add_subplot(1, len(residues), place, title=name)
        centred = np.array(points) - np.mean(points, axis=0)
        flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        for kind in sorted(set(kinds)):
            own = flat[[other == kind for other in kinds]]
            axes.scatter(own[:, 0], own[:, 1], s=14, label=kind)
        axes.legend()
    figure.savefig(str(path))


def as_table(found: dict[str, Any]) -> str:
    """The figures as Markdown: a line for each SNR."""
    names = [name for name in (SHIPPED, PLAIN, FRAMES) if name in found]
    titles = [f"{name}: {figure}" for name in names for figure in ("silhouette", "equal tokens, %")]
    lines = [
        [group, *(str(found[name][group].get(key, "")) for name in names for key in ("silhouette", "equal tokens"))]
        for group in found[names[0]]
    ]
    return table(["unseen noise", *titles], lines)
