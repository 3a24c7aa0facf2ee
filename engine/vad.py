"""Where somebody speaks: silero's voice detector, one probability per 32 ms, run by our own artefact loader.

The network comes from the silero-vad package's data; the package itself is not imported, because that would load torch.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import load_onnx, sha256_of
from engine.types import ArtefactError, Samples

SAMPLE_RATE_HZ = 16_000
WINDOW = 512  # samples per probability, 32 ms
CONTEXT = 64  # samples of the past that silero wants before each window
MODEL_FILE = "silero_vad/data/silero_vad.onnx"
MODEL_SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"


class Detector(Protocol):
    """One probability of speech per WINDOW samples, in order; `reset` forgets the past."""

    def __call__(self, window: Samples) -> float: ...

    def reset(self) -> None: ...


def model_path() -> Path:
    """Where silero-vad's network lies, its sha256 verified; raises ArtefactError."""
    try:
        path = Path(str(importlib.metadata.distribution("silero-vad").locate_file(MODEL_FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise ArtefactError("silero-vad is not installed; run ./run, or pip install --no-deps silero-vad") from None
    if not path.is_file() or sha256_of(path) != MODEL_SHA256:
        raise ArtefactError(f"{path} is missing or of another version; run ./run again to install silero-vad 6.2.3")
    return path


class SileroVad:
    """silero's detector with its state: call it with each next 512 samples at 16 kHz."""

    def __init__(self) -> None:
        self._session = load_onnx(model_path())
        self._rate = np.array(SAMPLE_RATE_HZ, dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """As at the start of a recording."""
        self._state: NDArray[np.float32] = np.zeros((2, 1, 128), dtype=np.float32)
        self._input: NDArray[np.float32] = np.zeros((1, CONTEXT + WINDOW), dtype=np.float32)

    def __call__(self, window: Samples) -> float:
        """Probability 0..1 that somebody speaks in these WINDOW samples."""
        self._input[0, :CONTEXT] = self._input[0, WINDOW:]
        self._input[0, CONTEXT:] = window
        result = self._session.run({"input": self._input, "state": self._state, "sr": self._rate})
        self._state = result["stateN"]
        return float(result["output"][0, 0])


def probabilities(samples: Samples, detector: Detector | None = None) -> NDArray[np.float32]:
    """Probability of speech for every whole window of a recording [N] at 16 kHz -> [N // 512]."""
    vad = detector or SileroVad()
    count = len(samples) // WINDOW
    windows = samples[: count * WINDOW].reshape(count, WINDOW)
    return np.array([vad(window) for window in windows], dtype=np.float32)
