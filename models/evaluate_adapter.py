"""Words with and without the quantiser inside Whisper: the part `adapter` of `python -m models.evaluate recognizer`.

Words come from sound as it is, from what captions hear of it and from its tokens, each as a file; where the quantiser
stands between what Whisper's decoder would read and that, the words are written from codes alone (engine.adapter).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from engine.captions import join_words
from engine.listener import OFFLINE
from engine.token_words import TokenBridge, bridge_path, has_bridge
from models.evaluate_tokens import by_sound, by_tokens, tokened
from models.evaluate_words import ENHANCED, stream_of, taps_of
from models.metrics import word_error_rate, word_errors_in_parts
from models.testset import Mixture

WITHOUT, WITH = "without adapter", "with adapter"
console = Console(stderr=True)


def adapted(mixtures: Sequence[Mixture], plain: Any, adapting: Any) -> dict[str, Any]:
    """Word errors of the stream of these: clean, noisy, what captions hear of that, and its tokens, by each decoder."""
    clean, text = stream_of(mixtures, "speech")
    noisy = stream_of(mixtures, "mixture")[0]
    sounds = {"clean": clean, "noisy": noisy, ENHANCED: taps_of(noisy)[ENHANCED]}
    bridge = TokenBridge(bridge_path()) if has_bridge() else None
    spoken = tokened(noisy) if bridge is not None else None
    found: dict[str, Any] = {"utterances": len(mixtures)}
    for how, decoder in ((WITHOUT, plain), (WITH, adapting)):
        for name, sound in sounds.items():
            console.print(f"adapter: {name}, {how}", highlight=False)
            found[f"{name}, {how}"] = _row(by_sound(sound, OFFLINE, decoder)[0], text)
        if bridge is not None and spoken is not None:
            console.print(f"adapter: noisy, tokens, {how}", highlight=False)
            found[f"noisy, tokens, {how}"] = _row(by_tokens(spoken, OFFLINE, decoder, bridge)[0], text)
    return found


def _row(words: Sequence[Any], text: str) -> dict[str, Any]:
    rate = word_error_rate(word_errors_in_parts(join_words(words), text))
    return rate.row() | {"written": len(words)}
