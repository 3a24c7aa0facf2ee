"""The shape of the codec and of the refiner, as one frozen table that travels inside every checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

FORMAT_VERSION = 1
LOG_NAME = "training.jsonl"


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes tensor shapes. Lengths are in samples at `sample_rate_hz`."""

    sample_rate_hz: int = 16_000
    hop: int = 320  # 20 ms: one frame of tokens
    overlap: int = 80  # of the lapped transform and of the refiner's synthesis: 5 ms of lag each
    frame: int = 512  # the refiner's analysis frame, ending at the newest sample
    step: int = 160  # the refiner runs twice per hop
    front_frame: int = 320  # the front's, every 160 samples
    front_lag: int = 160  # half a frame: when its overlap-add is complete
    band_edges: tuple[int, ...] = (0, 7, 14, 22, 31, 42, 55, 72, 94, 122, 162, 220, 320)  # bins of 25 Hz
    speech_stages: int = 4  # residual stages of each band
    background_stages: int = 3
    codebook: int = 1024
    gain_levels: int = 64  # level 0 is digital silence
    gain_step_db: float = 1.5
    gain_top_db: float = 0.0  # RMS of a band's coefficients at the highest level
    front_units: int = 512  # as in DeepFilterNet3 without look-ahead, whose weights the front has
    refiner_units: int = 256

    @property
    def bands(self) -> int:
        """How many bands share a frame."""
        return len(self.band_edges) - 1

    def row_sizes(self, stages: int) -> list[int]:
        """Number of codes in each of the K rows of a stream: gains first, then stage by stage, band by band."""
        return [self.gain_levels] * self.bands + [self.codebook] * (self.bands * stages)

    @property
    def token_lag(self) -> int:
        """Output lag of the decoder."""
        return self.front_lag + self.overlap

    @property
    def refined_lag(self) -> int:
        """Output lag of the refiner behind the input, the decoder's included."""
        return self.token_lag + self.overlap

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return asdict(self)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """The inverse of `to_dict`; an unknown key or a wrong type is an error (ValueError)."""
    known = {f.name: f for f in fields(ModelConfig)}
    default = ModelConfig()
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown model setting {key!r}; known: {', '.join(known)}")
        wanted = type(getattr(default, key))
        value = tuple(value) if wanted is tuple else value
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise ValueError(f"model setting {key!r} must be {wanted.__name__}, not {value!r}")
        clean[key] = value
    return ModelConfig(**clean)
