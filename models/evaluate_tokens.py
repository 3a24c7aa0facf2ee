"""Words from the voice's tokens beside words from sound: the part `tokens` of `python -m models.evaluate recognizer`.

One stream of public utterances goes by each way that words can take: the sound through Whisper's encoder, the voice
that the tokens decode to through the same, and the tokens through the bridge. Told are word errors and the CPU seconds
of listening, `frames_cpu_s` of them for the frames that Whisper's decoder reads. What the codec itself takes is counted
for none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from rich.console import Console

from engine.artefacts import shared_models
from engine.captions import join_words
from engine.listener import LIVE, OFFLINE, Listener, Pace
from engine.taps import token_pieces
from engine.token_words import STEP, TokenBridge, TokenFrames, TokenListener, bridge_path
from engine.types import Codes, Provider, Samples, Word
from engine.vad import SAMPLE_RATE_HZ, SileroVad
from engine.whisper_blocks import BLOCK, BlockEncoder
from models.evaluate_words import heard_by, stream_of
from models.metrics import word_error_rate, word_errors_in_parts
from models.testset import Mixture

SOUND, DECODED, TOKENS = "sound", "sound of the tokens", "tokens"
PACES = {"offline": OFFLINE, "live": LIVE}
console = Console(stderr=True)


P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Clock:
    """CPU seconds spent in calls that go through it."""

    seconds: float = 0.0

    def around(self, call: Callable[P, R]) -> Callable[P, R]:
        """The same call, timed."""

        def timed(*args: P.args, **named: P.kwargs) -> R:
            began = time.process_time()
            try:
                return call(*args, **named)
            finally:
                self.seconds += time.process_time() - began

        return timed


@dataclass(frozen=True)
class Tokened:
    """A sound as tokens: the voice [N] that they decode to, and codes [K, T]."""

    voice: Samples
    codes: Codes


def tokened(sound: Samples) -> Tokened:
    """The sound [N] through the shipped codec."""
    voices, codes = zip(*token_pieces(shared_models(Provider.CPU), [sound]), strict=True)
    return Tokened(np.concatenate(voices), np.concatenate(codes, axis=1))


def by_sound(sound: Samples, pace: Pace, decoder: Any) -> tuple[list[Word], float]:
    """Words of a sound through Whisper's encoder, and the CPU seconds of that."""
    clock, encode = Clock(), decoder.encode
    decoder.encode = clock.around(encode)
    try:
        words, _ = heard_by(Listener(decoder, SileroVad(), "en", pace), sound)
    finally:
        decoder.encode = encode
    return words, clock.seconds


def by_tokens(spoken: Tokened, pace: Pace, decoder: Any, bridge: TokenBridge) -> tuple[list[Word], float]:
    """Words of tokens through the bridge, which come as their sound does, and the CPU seconds of that."""
    clock, frames, fed = Clock(), TokenFrames(bridge), 0
    blocks, before = BlockEncoder(decoder.own, BLOCK if pace == LIVE else None), decoder.blocks
    feed = clock.around(frames.feed)

    def coming(place: int) -> None:
        nonlocal fed
        until = min(-(-place // STEP), spoken.codes.shape[1])
        feed(fed, spoken.codes[:, fed:until].T)
        fed = until

    decoder.window, decoder.blocks = clock.around(frames.window), clock.around(blocks.__call__)
    try:
        words, _ = heard_by(TokenListener(decoder, SileroVad(), frames, "en", pace), spoken.voice, coming)
    finally:
        decoder.window, decoder.blocks = None, before
    return words, clock.seconds


def heard_as(
    way: str, sound: Samples, spoken: Tokened, pace: Pace, decoder: Any, bridge: TokenBridge
) -> tuple[list[Word], float]:
    """Words by one of the ways, and the CPU seconds that their frames took."""
    if way == TOKENS:
        return by_tokens(spoken, pace, decoder, bridge)
    return by_sound(sound if way == SOUND else spoken.voice, pace, decoder)


def from_tokens(mixtures: Sequence[Mixture], decoder: Any) -> dict[str, Any]:
    """Word errors in percent and CPU seconds of every way, for the clean and the noisy stream; live, noisy ones alone.

    Raises ArtefactError where there is no bridge.
    """
    bridge = TokenBridge(bridge_path())
    found: dict[str, Any] = {"utterances": len(mixtures)}
    for name, part in (("clean", "speech"), ("noisy", "mixture")):
        sound, text = stream_of(mixtures, part)
        spoken = tokened(sound)
        found[f"{name}, seconds"] = round(len(sound) / SAMPLE_RATE_HZ)
        plan = [("offline", way) for way in (SOUND, DECODED, TOKENS)]
        plan += [("live", way) for way in (SOUND, TOKENS) if name == "noisy"]
        for how, way in plan:
            console.print(f"tokens: {name}, {way}, {how}", highlight=False)
            began = time.process_time()
            words, frames_s = heard_as(way, sound, spoken, PACES[how], decoder, bridge)
            cpu_s = time.process_time() - began
            rate = word_error_rate(word_errors_in_parts(join_words(words), text))
            row = rate.row() | {"written": len(words)}
            found[f"{name}, {way}, {how}"] = row | {"cpu_s": round(cpu_s, 1), "frames_cpu_s": round(frames_s, 1)}
    return found
