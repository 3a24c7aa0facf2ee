"""Training settings: one frozen table, read from a TOML file that may only name what is here."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class TrainConfig:
    """See the comments in train.toml."""

    seed: int
    clip_s: float
    batch: int
    pool_clips: int
    learning_rate: float
    opinion_rate: float
    trust_rate: float
    warmup_steps: int
    decay_share: float
    weight_decay: float
    grad_clip: float
    fit_minutes: float
    fit_iterations: int
    fit_sweeps: int
    evaluate_every: int
    validation_clips: int


def read_settings(path: Path) -> TrainConfig:
    """Raises ValueError that names the key when one is unknown, missing, or of the wrong type."""
    values = tomllib.loads(path.read_text())
    known = {f.name: {"int": int, "float": float}[str(f.type)] for f in fields(TrainConfig)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{path.name}: unknown setting {key!r}; known: {', '.join(known)}")
        if type(value) is not known[key]:
            raise ValueError(f"{path.name}: {key} must be {known[key].__name__}, not {value!r}")
    if missing := sorted(set(known) - set(values)):
        raise ValueError(f"{path.name}: missing {', '.join(missing)}")
    return TrainConfig(**values)
