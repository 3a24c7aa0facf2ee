"""What is measured: our artefacts run through the engine, hop by hop, in every mode people use, and the peers.

Each system takes a whole mixture and gives one or more outputs, late by its own lag; every output becomes a row.

    ours        drop, with the refiner                  tokens-N   drop from the tokens of N quantizers alone
    keep-N      speech and background from the tokens   speech-N   clean speech through its speech tokens alone
    clean-in    clean speech, drop, with the refiner    probes     what should get worse, be silent, or be swapped
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import CodecInfo, Models, load_models
from engine.paths import assets_dir
from engine.pipeline import Pipeline
from engine.types import Background, Codes, Provider, Samples
from models import metrics
from models.peers import PEERS, load_peer

RATE_HZ = 16_000
TAIL = 1_600  # zeros after every mixture, so that the end of the latest output is there too


@dataclass(frozen=True)
class Sound:
    """What a system may be given, all [N] at 16 kHz: a mixture with its parts, and another one with its background."""

    mixture: Samples
    speech: Samples
    noise: Samples
    other: Samples
    other_noise: Samples


@dataclass(frozen=True)
class Output:
    """One output: the row it belongs to, the sound [N + TAIL] as late as its system is, and what came with it.

    background: the other stream, as late; figures: what the system measured itself; cpu_s: of the frames alone.
    """

    row: str
    sound: Samples | None
    cpu_s: float = 0.0
    background: Samples | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """A way of making output; its rows share one delay, that of the first.

    identity changes whenever the output could change; latency_ms is hop (or frame) and lag, as declared.
    """

    name: str
    rows: tuple[str, ...]
    identity: str
    latency_ms: float
    parameters: int
    run: Callable[[Sound], list[Output]]
    main_only: bool = False  # left out for rooms and babble twins
    captioned: bool = True  # its words are counted where words are


def padded(sound: Samples) -> Samples:
    """The sound with TAIL zeros after it."""
    return np.concatenate([sound, np.zeros(TAIL, dtype=np.float32)])


# Peers ----------------------------------------------------------------------------------------------------------------


def peer_system(name: str) -> System:
    """A peer as a system; raises a SottovoceError when it cannot be fetched or opened."""
    peer, info = load_peer(name), PEERS[name]
    version = info.weights.package.version if info.weights else "-"

    def run(sound: Sound) -> list[Output]:
        enhanced = peer.run(padded(sound.mixture))
        return [Output(name, enhanced.samples, enhanced.cpu_s)]

    return System(name, (name,), f"{name} {version}", info.latency_ms, info.parameters, run)


def clean_system() -> System:
    """The clean speech itself: what a perfect system would be given."""
    return System("clean", ("clean",), "clean", 0.0, 0, lambda sound: [Output("clean", padded(sound.speech))])


# Ours -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Streams:
    """What one pass of the engine gives, each [N] and late by its lag; codes [K, T]; CPU time of its hops."""

    out: Samples
    speech: Samples
    background: Samples
    codes_s: Codes
    codes_b: Codes
    cpu_s: float


def _digest(*graphs: Path) -> str:
    """Of what the graphs compute; what is noted beside it, as the number of training steps, is left out."""
    import onnx

    digest = hashlib.sha256()
    for path in graphs:
        digest.update(onnx.load(str(path)).graph.SerializeToString(deterministic=True))
    return digest.hexdigest()[:12]


class Ours:
    """Our three artefacts out of one folder, run through the engine's own pipeline on the CPU."""

    def __init__(self, folder: Path | None = None) -> None:
        self.models: Models = load_models(Provider.CPU, folder)
        self.info: CodecInfo = self.models.metadata
        place = folder or assets_dir()
        codec = _digest(place / "encoder.onnx", place / "decoder.onnx")
        self.token_identity = f"{self.info.codec_id[:12]} {codec}"  # of what the refiner has no part in
        self.identity = f"{self.token_identity} {_digest(place / 'refiner.onnx')}"

    @property
    def depths(self) -> tuple[int, ...]:
        """How many quantizers the tokens-only rows use: all, half, a quarter."""
        return tuple(dict.fromkeys(max(1, self.info.stages // part) for part in (1, 2, 4)))

    def sizes(self, quantizers: int | None = None) -> tuple[int, ...]:
        """Codebook sizes of the speech rows that `quantizers` keeps."""
        kept = self.info.stages if quantizers is None else quantizers
        return self.info.sizes_s[: self.info.gain_rows + kept * self.info.rows_per_stage]

    def kbps(self, quantizers: int) -> float:
        """Bit rate of the speech stream with so many quantizers, every code at log2 of its codebook's size."""
        return round(metrics.kbps(self.sizes(quantizers), self.info.frame_rate_hz), 2)

    def parameters(self) -> int:
        """How many weights the three graphs hold, tables and codebooks included."""
        import onnx

        sizes = [
            int(np.prod(tensor.dims))
            for model in (self.models.encoder, self.models.decoder, self.models.refiner)
            for tensor in onnx.load(str(model.session.path)).graph.initializer
        ]
        return sum(sizes)

    def hops(self, sound: Samples) -> NDArray[np.float32]:
        """The sound [N] as hops [T, hop], zeros after its end."""
        hop = self.info.hop_samples
        whole = np.zeros(-(-len(sound) // hop) * hop, dtype=np.float32)
        whole[: len(sound)] = sound
        return whole.reshape(-1, hop)

    def stream(
        self, sound: Samples, background: str, quantizers: int | None = None, tokens_only: bool = False
    ) -> Streams:
        """One pass of the engine's pipeline over `sound` from silence."""
        pipeline = Pipeline(self.models, Background.parse(background), tokens_only=tokens_only, quantizers=quantizers)
        hops = self.hops(sound)
        began = time.process_time()
        steps = [pipeline.step(hop) for hop in hops]
        cpu_s = time.process_time() - began

        def joined(name: str) -> Samples:
            return np.concatenate([getattr(step, name) for step in steps])[: len(sound)]

        codes_s, codes_b = (
            np.stack([getattr(step, name) for step in steps], axis=1) for name in ("codes_s", "codes_b")
        )
        return Streams(joined("out"), joined("speech"), joined("background"), codes_s, codes_b, cpu_s)

    def refined_with(self, mixture: Samples, tokens_of: Samples) -> Samples:
        """Refined speech [N] of `mixture` where the refiner is handed the decoded tokens of another recording."""
        encoder, decoder, refiner = (
            model.clone() for model in (self.models.encoder, self.models.decoder, self.models.refiner)
        )
        out = []
        for hop, other in zip(self.hops(mixture), self.hops(tokens_of), strict=True):
            decoded = decoder.step(**encoder.step(hop=other[None]), gains=np.ones(2, np.float32))
            out.append(refiner.step(mixture=hop[None], **decoded)["refined_speech"].reshape(-1))
        return np.concatenate(out)[: len(mixture)]

    def swapped(self, mixture: Samples, place: Samples) -> tuple[Samples, Samples]:
        """Decoded (speech, background), each [N]: speech tokens of one recording, background tokens of another."""
        voice, scene, decoder = self.models.encoder.clone(), self.models.encoder.clone(), self.models.decoder.clone()
        speech, background = [], []
        for hop, other in zip(self.hops(mixture), self.hops(place), strict=True):
            codes_s, codes_b = voice.step(hop=hop[None])["codes_s"], scene.step(hop=other[None])["codes_b"]
            decoded = decoder.step(codes_s=codes_s, codes_b=codes_b, gains=np.ones(2, np.float32))
            speech.append(decoded["speech"].reshape(-1))
            background.append(decoded["background"].reshape(-1))
        return np.concatenate(speech)[: len(mixture)], np.concatenate(background)[: len(mixture)]


def our_systems(ours: Ours, count_codes: Callable[[Streams], None]) -> Iterator[System]:
    """Every mode of ours; `count_codes` is shown each pass over a mixture with all quantizers."""
    refined, tokens = (ours.info.algorithmic_latency_ms(kind) for kind in (True, False))
    size = ours.parameters()

    def natural(sound: Sound) -> list[Output]:
        streams = ours.stream(padded(sound.mixture), "drop")
        count_codes(streams)
        return [Output("ours", streams.out, streams.cpu_s, streams.background)]

    def clean_in(sound: Sound) -> list[Output]:
        streams = ours.stream(padded(sound.speech), "drop")
        return [Output("clean-in", streams.out, streams.cpu_s)]

    yield System("ours", ("ours",), ours.identity, refined, size, natural)
    yield from (_token_system(ours, depth, tokens, size) for depth in ours.depths)
    yield from (_speech_system(ours, depth, tokens, size) for depth in ours.depths)
    yield System("clean-in", ("clean-in",), ours.identity, refined, size, clean_in, main_only=True)
    yield System("probes", ("probes",), ours.identity, refined, size, _probes(ours), main_only=True)


def _token_system(ours: Ours, depth: int, latency_ms: float, size: int) -> System:
    """Both streams from the tokens of `depth` quantizers: what drop and keep give without the refiner."""
    rows = (f"tokens-{depth}", f"keep-{depth}")

    def run(sound: Sound) -> list[Output]:
        streams = ours.stream(padded(sound.mixture), "keep", depth, tokens_only=True)
        return [
            Output(rows[0], streams.speech, streams.cpu_s, streams.background),
            Output(rows[1], streams.out, streams.cpu_s),
        ]

    captioned = depth == max(ours.depths)  # nobody takes captions from fewer
    return System(rows[0], rows, ours.token_identity, latency_ms, size, run, captioned=captioned)


def _speech_system(ours: Ours, depth: int, latency_ms: float, size: int) -> System:
    row = f"speech-{depth}"

    def run(sound: Sound) -> list[Output]:
        streams = ours.stream(padded(sound.speech), "drop", depth, tokens_only=True)
        return [Output(row, streams.out, streams.cpu_s)]

    return System(row, (row,), ours.token_identity, latency_ms, size, run, main_only=True)


def _probes(ours: Ours) -> Callable[[Sound], list[Output]]:
    """Figures of their own: another file's tokens, noise alone, and speech of one file with the background of another.

    They are aligned by the lags that the artefacts declare.
    """

    def run(sound: Sound) -> list[Output]:
        length = len(sound.mixture)
        mixture, other = padded(sound.mixture), padded(sound.other)
        foreign = metrics.advance(ours.refined_with(mixture, other), ours.info.lag_refined, length)
        left = metrics.advance(ours.stream(padded(sound.noise), "drop").out, ours.info.lag_refined, length)
        speech, background = (
            metrics.advance(stream, ours.info.lag_tokens, length) for stream in ours.swapped(mixture, other)
        )
        figures = {
            "foreign_si_sdr_db": metrics.si_sdr(foreign, sound.speech),
            "noise_left_db": max(metrics.level_db(left) - metrics.level_db(sound.noise), -120.0),
            "swap_speech_db": metrics.sdr(speech, sound.speech),
            "swap_background_db": metrics.sdr(background, sound.other_noise),
            "swap_overall_db": metrics.sdr(speech + background, sound.speech + sound.other_noise),
        }
        return [Output("probes", None, figures=figures)]

    return run
