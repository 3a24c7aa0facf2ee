"""Whisper's sizes: what each is made of, takes on the disk and in memory, and how much slower it is than `base`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ENGLISH_ONLY = ".en"
LOAD_FACTOR = 3.0  # a checkpoint holds half precision and is loaded beside the single precision made of it
MOST_LIVE_SLOWDOWN = 7.0  # base takes a seventh of a core while somebody speaks, and a recogniser has one
ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}

Shape = tuple[int, int, int, int, int]
SHAPE = ("n_mels", "n_vocab", "n_audio_state", "n_audio_layer", "n_text_layer")


@dataclass(frozen=True)
class Size:
    """One Whisper. shape: its dimensions in the order of SHAPE; slowdown: time for the same sound, base being 1."""

    name: str
    disk_mb: int
    slowdown: float
    shape: Shape

    @property
    def english(self) -> bool:
        """Whether it knows English alone."""
        return self.name.endswith(ENGLISH_ONLY)

    @property
    def load_mb(self) -> int:
        """About the memory that loading takes for a moment."""
        return round(LOAD_FACTOR * self.disk_mb)

    @property
    def live(self) -> bool:
        """Whether captions can keep up with somebody who speaks, on a processor like the one that was measured on."""
        return self.slowdown <= MOST_LIVE_SLOWDOWN


SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        Size("tiny", 76, 0.5, (80, 51865, 384, 4, 4)),
        Size("tiny.en", 76, 0.5, (80, 51864, 384, 4, 4)),
        Size("base", 145, 1.0, (80, 51865, 512, 6, 6)),
        Size("base.en", 145, 1.0, (80, 51864, 512, 6, 6)),
        Size("small", 484, 3.3, (80, 51865, 768, 12, 12)),
        Size("small.en", 484, 3.3, (80, 51864, 768, 12, 12)),
        Size("medium", 1528, 10.0, (80, 51865, 1024, 24, 24)),
        Size("medium.en", 1528, 10.0, (80, 51864, 1024, 24, 24)),
        Size("large-v3-turbo", 1618, 14.0, (128, 51866, 1280, 32, 4)),
        Size("large-v3", 3087, 19.0, (128, 51866, 1280, 32, 32)),
        Size("large-v2", 3087, 19.0, (80, 51865, 1280, 32, 32)),
        Size("large-v1", 3087, 19.0, (80, 51865, 1280, 32, 32)),
    )
}


def canonical(name: str) -> str:
    """The one name of a size that has two."""
    return ALIASES.get(name, name)


def size_of(dims: Mapping[str, int]) -> Size | None:
    """The size with these dimensions (openai-whisper's names); None for a Whisper of no known size."""
    shape = tuple(dims.get(key) for key in SHAPE)
    return next((size for size in SIZES.values() if size.shape == shape), None)
