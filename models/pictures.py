"""The picture that goes with an evaluation during training: the curves so far, and one mixture in and out."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

from models.config import ModelConfig

matplotlib.use("Agg")


def draw_progress(
    log: Path, validation: tuple[Tensor, Tensor], out: dict[str, Tensor], config: ModelConfig, path: Path
) -> None:
    """Curves from the log, spectrograms of the first validation mixture, its voice, and what the parts make of it."""
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(3, 2, figsize=(13, 9), constrained_layout=True)
    for name in ("front", "tokens", "opinion", "refined", "background"):
        told = [r for r in rows if name in r]  # a log may go further back than the second opinion
        axes[0, 0].plot([r["step"] for r in told], [r[name] for r in told], label=name)
    axes[0, 0].set(title="SI-SDR improvement (background: SI-SDR), dB", xlabel="step")
    axes[0, 0].legend()
    sounds = {"mixture": validation[0][0], "voice": validation[1][0], **{k: v[0] for k, v in out.items()}}
    for axis, name in zip(axes.flat[1:], ("mixture", "voice", "tokens", "refined", "background"), strict=True):
        axis.specgram(
            sounds[name].detach().cpu().numpy()
            + 1e-6 * np.random.default_rng(0).standard_normal(sounds[name].shape[0]),
            NFFT=512,
            noverlap=384,
            Fs=config.sample_rate_hz,
            vmin=-140,
            vmax=-40,
        )
        axis.set_title(name)
    figure.savefig(path, dpi=70)
    plt.close(figure)
