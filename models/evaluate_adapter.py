"""Words through the quantiser inside Whisper: the part `adapter` of `python -m models.evaluate recognizer`.

The quantiser that training left in the cache stands between Whisper's encoder, which hears a sound or goes on from the
bridge, and its decoder, which then writes from codes alone. The parts `streaming` and `tokens` have the same ways
without it, over all utterances. Its latent decoder is not shipped, so this needs the training checkpoint
(`python -m models.train_words`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from engine.captions import join_words
from engine.listener import OFFLINE
from engine.paths import cache_dir
from engine.token_words import TokenBridge, bridge_path, has_bridge
from engine.types import Samples
from models.evaluate_tokens import by_sound, by_tokens, tokened
from models.evaluate_words import ENHANCED, stream_of, taps_of
from models.export_words import load_trained
from models.metrics import word_error_rate, word_errors_in_parts
from models.noise_vq import NoiseVq
from models.testset import Mixture

console = Console(stderr=True)


@torch.no_grad()
def quantised(model: NoiseVq, frames: Tensor) -> Tensor:
    """Frames [B, T, width] as the latent decoder makes them of their codes."""
    made: Tensor = model(frames, torch.ones(frames.shape[:2], dtype=torch.bool))[0]
    return made


@contextmanager
def through(model: NoiseVq, decoder: Any) -> Iterator[None]:
    """Whatever frames the decoder would read, of sound or of tokens, are quantised first."""
    features: Callable[[Samples, float], Tensor] = decoder._features
    decoder._features = lambda samples, trailing_s: quantised(model, features(samples, trailing_s))
    try:
        yield
    finally:
        decoder._features = features


def with_adapter(mixtures: Sequence[Mixture], decoder: Any) -> dict[str, Any]:
    """Word errors of the stream of these, each as a file: clean, noisy, what captions hear of that, and its tokens.

    Raises SottovoceError without a trained quantiser.
    """
    model = load_trained(cache_dir() / "words" / "vq.pt").eval()
    clean, text = stream_of(mixtures, "speech")
    noisy = stream_of(mixtures, "mixture")[0]
    sounds = {"clean": clean, "noisy": noisy, ENHANCED: taps_of(noisy)[ENHANCED]}
    found: dict[str, Any] = {"utterances": len(mixtures)}
    with through(model, decoder):
        for name, sound in sounds.items():
            console.print(f"adapter: {name}", highlight=False)
            found[name] = _row(by_sound(sound, OFFLINE, decoder)[0], text)
        if has_bridge():
            console.print("adapter: noisy, tokens", highlight=False)
            bridge = TokenBridge(bridge_path())
            found["noisy, tokens"] = _row(by_tokens(tokened(noisy), OFFLINE, decoder, bridge)[0], text)
    return found


def _row(words: Sequence[Any], text: str) -> dict[str, Any]:
    rate = word_error_rate(word_errors_in_parts(join_words(words), text))
    return rate.row() | {"written": len(words)}
