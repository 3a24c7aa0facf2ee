"""Whisper base in torch, ONNX Runtime and CTranslate2: `python -m models.runtimes [--seconds 8] [--rounds 3]`.

All hear the same pieces of the demo recording, on one thread, with the same weights, on as many positions as there is
sound, and write greedily by the same rules. They take turns at every piece, and what is counted is the processor time
of this process, so that what else the machine does meets all of them: ratios count. The int8 ones are torch's as it is
shipped, ONNX Runtime's with the same matrices in 8 bit (encoder and decoder, exported in the run), and CTranslate2's,
where the package `ctranslate2` is installed. CTranslate2's decoding gives no word times; the others' time is with the
attention that word times come from, but without the times. Captions follow five texts, each runtime here only one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from whisper.tokenizer import get_tokenizer

from engine.livebench import demo_sound
from engine.paths import assets_dir, cache_dir
from engine.types import ArtefactError, Samples
from engine.vad import SAMPLE_RATE_HZ
from engine.weights import require_weights
from engine.whisper_decoder import WhisperDecoder, load_model
from models.metrics import word_errors
from models.tables import table
from models.training import status_of
from models.whisper_ct2 import Ct2Whisper, find_package
from models.whisper_onnx import OnnxDecoder

SIZE, LANGUAGE = "base", "en"
MOST_TOKENS = 100
LONGEST_S = 29.0  # what Whisper hears at once
LOOK_S = 0.3  # of quiet, where the recording is cut
SHIPPED = "torch int8, as shipped"
Load = Callable[[], Any]
console = Console(stderr=True)


@dataclass(frozen=True)
class Runtime:
    """One way to run Whisper. encode: sound [N] at SAMPLE_RATE_HZ to features; decode: features to tokens of text."""

    title: str
    encode: Callable[[Samples], Any]
    decode: Callable[[Any], list[int]]


@dataclass(frozen=True)
class Taken:
    """What one piece took, in ms of processor time, and what was written."""

    encode_ms: float
    decode_ms: float
    tokens: tuple[int, ...]

    @property
    def token_ms(self) -> float:
        """Of decoding for a token, that which ends the text being one."""
        return self.decode_ms / (len(self.tokens) + 1)

    @property
    def both_ms(self) -> float:
        """Of the whole piece."""
        return self.encode_ms + self.decode_ms


# The runtimes ---------------------------------------------------------------------------------------------------------


def stepwise(title: str, decoder: WhisperDecoder) -> Runtime:
    """The shipped decoding, in torch or in what stands in its place."""
    start = list(decoder.tokenizer(LANGUAGE).sot_sequence_including_notimestamps)
    decoder.beams = 1

    @torch.inference_mode()
    def encode(sound: Samples) -> Any:
        return decoder.encode(sound)

    @torch.inference_mode()
    def decode(features: Any) -> list[int]:
        found = decoder.likeliest(decoder.begin(features), start, LANGUAGE, MOST_TOKENS)
        return [token for token in found if token != decoder.tokenizer(LANGUAGE).eot]

    return Runtime(title, encode, decode)


def ct2(package: Any, decoder: WhisperDecoder, folder: Path) -> Runtime:
    """CTranslate2 with the weights of a decoder in floats."""
    whisper = Ct2Whisper(package, decoder, folder, LANGUAGE)
    return Runtime("CTranslate2 int8", whisper.encode, lambda features: whisper.decode(features, MOST_TOKENS))


def runtimes(load: Load, folder: Path, package: Any | None) -> list[Runtime]:
    """All of them, the shipped one first. load: makes Whisper with float weights; package: CTranslate2, if any."""
    plain = WhisperDecoder(load(), int8=False)
    found = [stepwise(SHIPPED, WhisperDecoder(load())), stepwise("torch float32", plain)]
    made: list[tuple[str, Callable[[Path], Runtime]]] = [
        ("onnx", lambda place: stepwise("ONNX Runtime int8", OnnxDecoder(plain.model, place)))
    ]
    if package is not None:
        made.append(("ctranslate2", lambda place: ct2(package, plain, place)))
    for name, make in track(made, "exporting", console=console):
        place = folder / name
        place.mkdir()
        found.append(make(place))
        gc.collect()
    return found


# Measuring ------------------------------------------------------------------------------------------------------------


def read_demo() -> tuple[Samples, str]:
    """The demo recording [N] at SAMPLE_RATE_HZ, and what is said in it. Raises ArtefactError."""
    text = assets_dir() / "demo.txt"
    try:
        said = text.read_text(encoding="utf-8")
    except OSError as error:
        raise ArtefactError(f"{text} cannot be read ({error.strerror}); install Sottovoce again") from error
    return demo_sound(SAMPLE_RATE_HZ), said


def cut(sound: Samples, seconds: float) -> list[Samples]:
    """Pieces of so many seconds at the most, each cut where the last half of it is quietest."""
    longest, look = round(seconds * SAMPLE_RATE_HZ), round(LOOK_S * SAMPLE_RATE_HZ)
    pieces = []
    while len(sound) > longest:
        power = np.convolve(sound[longest // 2 : longest] ** 2, np.ones(look), "valid")
        at = longest // 2 + int(power.argmin()) + look // 2
        pieces.append(sound[:at])
        sound = sound[at:]
    return [*pieces, sound]


def take(runtime: Runtime, piece: Samples) -> Taken:
    """One piece through one runtime."""
    begin = time.process_time()
    features = runtime.encode(piece)
    middle = time.process_time()
    tokens = runtime.decode(features)
    end = time.process_time()
    return Taken(1000.0 * (middle - begin), 1000.0 * (end - middle), tuple(tokens))


def measure(found: Sequence[Runtime], pieces: Sequence[Samples], rounds: int) -> dict[str, list[Taken]]:
    """What every piece took in every round, by title, in the same order for all; they take turns at each piece."""
    times: dict[str, list[Taken]] = {runtime.title: [] for runtime in found}
    for runtime in found:
        take(runtime, pieces[0])  # the first pass is slow
    turns = [piece for _ in range(rounds) for piece in pieces]
    for number, piece in enumerate(track(turns, "pieces", console=console, refresh_per_second=1)):
        first = number % len(found)
        for runtime in (*found[first:], *found[:first]):
            times[runtime.title].append(take(runtime, piece))
    return times


def as_table(times: dict[str, list[Taken]], pieces: int, said: str, to_text: Callable[[list[int]], str]) -> str:
    """Markdown, a line a runtime: medians over pieces and rounds, and medians of the ratios to the first one's."""
    ours = next(iter(times.values()))
    rows = []
    for title, taken in times.items():
        cells = [f"{np.median([one.encode_ms for one in taken]):.0f}", f"{np.median([t.token_ms for t in taken]):.1f}"]
        for cost in map(attrgetter, ("encode_ms", "token_ms", "both_ms")):
            ratios = [cost(one) / max(cost(own), 1e-3) for one, own in zip(taken, ours, strict=True)]
            cells.append(f"{np.median(ratios):.2f}")
        wrong = word_errors(" ".join(to_text(list(one.tokens)) for one in taken[:pieces]), said)
        rows.append([title, *cells, f"{wrong.errors} of {wrong.words}"])
    figures = ["encode, ms a piece", "decode, ms a token", "encode: ratio", "decode", "both", "words wrong"]
    return table(["runtime", *figures], rows)


# The command ----------------------------------------------------------------------------------------------------------


def compare(seconds: float, rounds: int) -> str:
    """The table and a line about it. Raises SottovoceError, OSError."""
    weights = require_weights(SIZE)
    sound, said = read_demo()
    pieces = cut(sound, seconds)
    place = cache_dir() / "runtimes"
    place.mkdir(parents=True, exist_ok=True)
    package = find_package()
    with tempfile.TemporaryDirectory(dir=place) as folder:

        def load() -> Any:
            return load_model(weights.path, weights.format, weights.name)

        found = runtimes(load, Path(folder), package)
        times = measure(found, pieces, rounds)
    tokenizer = get_tokenizer(True, language=LANGUAGE, task="transcribe")
    about = f"{len(pieces)} pieces, {len(sound) / SAMPLE_RATE_HZ:.0f} s, {rounds} rounds; processor time, one thread"
    if package is None:
        about += "; CTranslate2 is not installed (pip install ctranslate2) and was not compared"
    return as_table(times, len(pieces), said, tokenizer.decode) + f"\n{about}"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.runtimes", description="What runs Whisper soonest.")
    parser.add_argument("--seconds", type=float, default=8.0, help="of sound in a piece, at the most")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    if not 2.0 <= args.seconds <= LONGEST_S or args.rounds < 1:
        parser.error(f"--seconds is 2 to {LONGEST_S:g}, and --rounds 1 or more")
    return status_of(lambda: print(compare(args.seconds, args.rounds)))


if __name__ == "__main__":
    sys.exit(main())
