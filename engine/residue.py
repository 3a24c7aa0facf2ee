"""What Whisper's quantiser leaves over: which noise there is, how sure that is, and how much of it over time.

    Whisper's frames ─► residue.onnx ─► codes, residue energy every 40 ms, kind of noise, a point among kinds' clouds

The graph is the vector quantiser of "Explainable Disentanglement on Discrete Speech Representations for Noise-Robust
ASR", but for a last block that engine.adapter adds; models/noise_vq.py is what it comes from. It belongs to one size of
Whisper, which it names.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import FORMAT_VERSION, Session, checked_file, read_manifest
from engine.paths import assets_dir
from engine.types import RESIDUE_STEP_S, ArtefactError, Residue, Samples

ROLE = "residue"
OWN = "own."  # outputs: what is added to Whisper's last block to decode codes, by its names
WINDOW_S, STEP_S, LEAST_S = 2.0, 1.0, 0.2  # how much is looked at, how often, and at the end at the least
SMOOTHED = 5  # looks whose mean is told
LEAST_CHANCE = 1e-6
SAMPLE_RATE_HZ = 16_000
QUIET_DB = -70.0  # RMS below which there is nothing to tell a kind by


@dataclass(frozen=True)
class Cloud:
    """Where a kind of noise lies in the plane: its mean, and a covariance."""

    mean: tuple[float, float]
    covariance: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Reading:
    """Of one stretch of frames: codes [T], residue energy [T] in dB, chances [K], point (x, y)."""

    codes: NDArray[np.int64]
    energy_db: Samples
    chances: Samples
    point: tuple[float, float]


def has_residue() -> bool:
    """Whether the artefacts hold the graph at all."""
    return any(row.get("name") == ROLE for row in read_manifest(assets_dir()))


class ResidueReader:
    """The graph, loaded. kinds: what `chances` are of; recogniser: the Whisper it belongs to.

    Raises ArtefactError when it is missing, damaged, or not what its name says.
    """

    def __init__(self, folder: Path | None = None) -> None:
        path = checked_file(folder or assets_dir(), ROLE)
        self._session = Session(path)
        metadata = self._session.metadata
        if metadata.get("role") != ROLE or metadata.get("format_version") != FORMAT_VERSION:
            raise ArtefactError(f"{path} is no residue reader of this version; install Sottovoce again")
        try:
            self.kinds: tuple[str, ...] = tuple(json.loads(metadata["kinds"]))
            self.clouds = {name: _cloud(values) for name, values in json.loads(metadata["clouds"]).items()}
            self.recogniser = metadata["recogniser"]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} does not say what it holds ({error}); install Sottovoce again") from error

    def read(self, frames: Samples) -> Reading:
        """Frames of Whisper's encoder [T, width], two or more; an odd one at the end is left out."""
        even = np.ascontiguousarray(frames[None, : len(frames) // 2 * 2], dtype=np.float32)
        codes, energy_db, logits, point = self._session.raw.run(
            ["codes", "energy_db", "logits", "point"], {"frames": even}
        )
        chances = np.exp(logits - logits.max())
        return Reading(codes, energy_db, chances / chances.sum(), (float(point[0]), float(point[1])))

    def entered(self, frames: Samples) -> Samples:
        """Frames of Whisper's encoder [T, width] -> what the block that decodes their codes begins with, [T, width]."""
        whole = np.concatenate([frames, frames[-1:]]) if len(frames) % 2 else frames
        found: Samples = self._session.raw.run(["entered"], {"frames": np.ascontiguousarray(whole[None])})[0]
        return found[: len(frames)]

    @property
    def own(self) -> dict[str, Samples]:
        """What `engine.whisper_blocks.merged` makes that block of Whisper's last one with.

        Raises ArtefactError where the graph does not hold it.
        """
        names = [name for name in self._session.outputs if name.startswith(OWN)]
        if not names:
            raise ArtefactError("the quantiser's graph decodes no codes; install Sottovoce again")
        values = self._session.raw.run(names, {"frames": self._least()})
        return {name.removeprefix(OWN): value for name, value in zip(names, values, strict=True)}

    def _least(self) -> Samples:
        return np.zeros((1, 2, self._session.shapes["frames"][2]), np.float32)

    @property
    def codebook(self) -> Samples:
        """The quantiser's vectors [codes, D]."""
        found: Samples = self._session.raw.run(["codebook"], {"frames": self._least()})[0]
        return found


def _cloud(values: list[float]) -> Cloud:
    x, y, xx, xy, yy = (float(value) for value in values)
    return Cloud((x, y), ((xx, xy), (xy, yy)))


def read_clouds() -> dict[str, Cloud]:
    """Where the kinds lie in the plane; nothing where the artefacts do not hold the graph. Raises ArtefactError."""
    return ResidueReader().clouds if has_residue() else {}


class ResidueWatch:
    """Keeps the latest sound and looks at it every STEP_S. Which frames Whisper makes of it, it is told."""

    def __init__(self, reader: ResidueReader) -> None:
        self.reader = reader
        self._sound = np.zeros(0, np.float32)
        self._new = self._position = 0
        self._readings: deque[Reading] = deque(maxlen=SMOOTHED)

    def feed(self, samples: Samples, position: int) -> None:
        """The next samples [N]; position: where they end on the recogniser's clock, at SAMPLE_RATE_HZ."""
        self._sound = np.concatenate([self._sound, samples])[-round(WINDOW_S * SAMPLE_RATE_HZ) :]
        self._new += len(samples)
        self._position = position

    def take(self, last: bool = False) -> Samples | None:
        """The sound to `look` at, where it is time: all that is new, and what is before it. None in silence, too.

        last: no more sound comes, so that less will do.
        """
        if self._new < (LEAST_S if last else STEP_S) * SAMPLE_RATE_HZ:
            return None
        rms = float(np.sqrt(np.square(self._sound).mean()))
        if rms > 10 ** (QUIET_DB / 20):
            return self._sound
        self._new = 0
        self._readings.clear()
        return None

    def look(self, frames: Samples) -> Residue:
        """What the frames [T, width] of what was taken say, and the last looks together: of chances the product, as of
        looks that know nothing of each other, and its root, as they do."""
        self._readings.append(self.reader.read(frames))
        new = min(self._new, len(self._sound))
        self._new = 0
        chances = np.exp(np.mean([np.log(reading.chances + LEAST_CHANCE) for reading in self._readings], axis=0))
        chances /= chances.sum()
        x, y = np.mean([reading.point for reading in self._readings], axis=0)
        best = int(chances.argmax())
        latest = slice(-max(1, round(new / SAMPLE_RATE_HZ / RESIDUE_STEP_S)), None)
        return Residue(
            time_s=self._position / SAMPLE_RATE_HZ,
            noise_class=self.reader.kinds[best],
            confidence=float(chances[best]),
            energy_db=tuple(self._readings[-1].energy_db[latest].tolist()),
            codes=tuple(self._readings[-1].codes[latest].tolist()),
            point=(float(x), float(y)),
        )
