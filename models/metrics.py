"""Figures for one output against one reference, and the statistics over files.

All sound is 16 kHz mono float32 [N], full scale 1.0. Decibels are never clipped; a figure that has no meaning for its
input (PESQ of silence, ESTOI of less than 0.4 s of speech) is NaN, and NaN is left out of every mean.
Needs the `bench` extra; DNSMOS P.835 comes as ONNX files inside the speechmos package, which is fetched like a peer.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import Session, load_onnx
from engine.types import Samples
from models.peers import Weights, fetch
from models.sources import Package

RATE_HZ = 16_000
NAN = float("nan")
SPEECHMOS = Weights(
    Package(
        "speechmos",
        "pypi",
        "0.0.1.1",
        "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
        9_439_732,
        "MIT",
    ),
    ("speechmos/dnsmos_models/sig_bak_ovr.onnx",),
)
PART_WORDS = 10  # of a stream's reference, when errors are counted part by part
DNSMOS_WINDOW = 144_160  # 9.01 s, what the network was made for
DNSMOS_POLYNOMIALS = (  # from the network's raw SIG, BAK, OVRL to the scale of P.835, highest power first
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


# Alignment ------------------------------------------------------------------------------------------------------------


def find_delay(output: Samples, reference: Samples, longest: int = 2_000, finer: int = 16) -> float:
    """By how many samples `output` is later than `reference`, 0 to `longest`, to about a hundredth of a sample.

    The peak of the cross-correlation, interpolated `finer` times through its spectrum and then by a parabola.
    """
    size = 1 << (len(output) + len(reference) - 1).bit_length()
    cross = np.fft.rfft(output, size) * np.conj(np.fft.rfft(reference, size))
    correlation = np.fft.irfft(cross, size * finer)
    window = np.roll(correlation, finer)[: (longest + 2) * finer]  # from one sample early
    peak = int(np.argmax(window))
    if not 0 < peak < len(window) - 1:
        return 0.0
    before, top, after = window[peak - 1 : peak + 2]
    bend = before - 2.0 * top + after
    offset = 0.5 * (before - after) / bend if bend else 0.0
    return max(0.0, (peak + offset) / finer - 1.0)


def fixed_delay(delays: Sequence[float]) -> float:
    """One delay for a system from those of several files: the median, a whole number where it is within 0.05 of one."""
    median = float(np.median(np.asarray(delays)))
    return float(round(median)) if abs(median - round(median)) < 0.05 else median


def advance(output: Samples, delay: float, length: int) -> Samples:
    """`output` with `delay` samples taken away at the front, cut or zero-padded to `length`."""
    whole = math.floor(delay)
    if delay != whole:
        size = 1 << (len(output) + 1024).bit_length()
        ramp = np.exp(2j * np.pi * np.fft.rfftfreq(size) * (delay - whole))
        output = np.fft.irfft(np.fft.rfft(output, size) * ramp, size)[: len(output)].astype(np.float32)
    out = np.zeros(length, dtype=np.float32)
    kept = output[whole : whole + length]
    out[: len(kept)] = kept
    return out


# One output against one reference -------------------------------------------------------------------------------------


def si_sdr(estimate: Samples, reference: Samples) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), means removed; NaN for a silent side."""
    wanted = reference.astype(np.float64) - reference.mean(dtype=np.float64)
    given = estimate.astype(np.float64) - estimate.mean(dtype=np.float64)
    energy = float(wanted @ wanted)
    if energy == 0.0 or not given.any():
        return NAN
    target = (float(given @ wanted) / energy) * wanted
    return _ratio_db(float(target @ target), float(np.sum((given - target) ** 2)))


def sdr(estimate: Samples, reference: Samples) -> float:
    """Signal-to-distortion ratio in dB, where a wrong level counts as distortion; NaN for a silent reference."""
    wanted = reference.astype(np.float64)
    energy = float(wanted @ wanted)
    return _ratio_db(energy, float(np.sum((estimate - wanted) ** 2))) if energy else NAN


def level_db(samples: Samples) -> float:
    """RMS in dB against full scale, -inf for silence."""
    return _ratio_db(float(np.mean(samples.astype(np.float64) ** 2)), 1.0)


def _ratio_db(power: float, other: float) -> float:
    if power == 0.0:
        return -math.inf
    return 10.0 * math.log10(power / other) if other else math.inf


def pesq_wb(estimate: Samples, reference: Samples) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.04 to 4.64; NaN where it finds no utterance."""
    from pesq import PesqError, pesq

    score = (
        float(pesq(RATE_HZ, reference, estimate, "wb", on_error=PesqError.RETURN_VALUES)) if estimate.any() else -1.0
    )
    return score if score > 0.0 else NAN


def estoi(estimate: Samples, reference: Samples) -> float:
    """Extended short-time objective intelligibility, about 0 to 1; NaN where less than 0.4 s of it is speech."""
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        score = float(stoi(reference, estimate, RATE_HZ, extended=True))
    return NAN if score == 1e-5 else score  # the value pystoi returns beside its warning


@dataclass(frozen=True)
class Dnsmos:
    """Non-intrusive opinion scores of ITU-T P.835, 1 to 5."""

    sig: float
    bak: float
    ovrl: float


def dnsmos(samples: Samples) -> Dnsmos:
    """DNSMOS P.835, as speechmos computes it: windows of 9.01 s every second, short sound repeated to fill one.

    Sound that goes beyond full scale is clipped, since the network knows only what fits into a file.
    """
    sound = np.clip(samples, -1.0, 1.0).astype(np.float32)
    while len(sound) < DNSMOS_WINDOW:
        sound = np.append(sound, sound)
    count = int(np.floor(len(sound) / RATE_HZ) - DNSMOS_WINDOW / RATE_HZ) + 1
    graph = _dnsmos_graph()
    rows = []
    for index in range(count):
        window = sound[index * RATE_HZ : index * RATE_HZ + DNSMOS_WINDOW]
        if len(window) == DNSMOS_WINDOW:
            rows.append(graph.run({"input_1": window[None]})["Identity:0"][0])
    raw = np.asarray(rows, dtype=np.float64)
    scores = [float(np.mean(np.polyval(row, raw[:, i]))) for i, row in enumerate(DNSMOS_POLYNOMIALS)]
    return Dnsmos(*scores)


@functools.cache
def _dnsmos_graph() -> Session:
    return load_onnx(fetch("dnsmos", SPEECHMOS) / "sig_bak_ovr.onnx")


class Listen(Protocol):
    """A recogniser: sound [N] at 16 kHz to text."""

    def __call__(self, samples: Samples, language: str = "en") -> str: ...


@dataclass(frozen=True)
class WordErrors:
    """Substituted, deleted and inserted words, and how many the reference has."""

    errors: int
    words: int


def word_errors(text: str, reference: str, language: str = "en") -> WordErrors:
    """Word errors after Whisper's normaliser, English or of any other language; an empty text misses every word."""
    parts = word_errors_in_parts(text, reference, language)
    return WordErrors(sum(part.errors for part in parts), sum(part.words for part in parts))


def word_errors_in_parts(text: str, reference: str, language: str = "en") -> list[WordErrors]:
    """The same of each PART_WORDS of the reference; a word too many counts where it stands."""
    import jiwer

    normalise = _normaliser(language == "en")
    wanted, heard = normalise(reference), normalise(text)
    if not wanted:
        return [WordErrors(len(heard.split()), 0)]
    aligned = jiwer.process_words(wanted, heard)
    errors = np.zeros(len(aligned.references[0]), int)
    for chunk in aligned.alignments[0]:
        if chunk.type == "insert":
            errors[min(chunk.ref_start_idx, len(errors) - 1)] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            errors[chunk.ref_start_idx : chunk.ref_end_idx] += 1
    parts = np.split(errors, range(PART_WORDS, len(errors), PART_WORDS))
    return [WordErrors(int(part.sum()), len(part)) for part in parts]


@dataclass(frozen=True)
class WordErrorRate:
    """Percent of the words that were wrong, and its 2.5 and 97.5 % points."""

    percent: float
    low: float
    high: float
    words: int

    def row(self) -> dict[str, Any]:
        """As it is written in tables."""
        interval = [round(self.low, 1), round(self.high, 1)]
        return {"word_errors_percent": round(self.percent, 2), "interval": interval, "words": self.words}


def word_error_rate(parts: Sequence[WordErrors], draws: int = 2_000, seed: int = 1) -> WordErrorRate:
    """All errors over all words of files, or of parts of a stream; the interval is of `draws` resamplings of them."""
    errors, words = (np.array([getattr(part, name) for part in parts]) for name in ("errors", "words"))
    picks = np.random.default_rng(seed).integers(0, len(parts), (draws, len(parts)))
    rates = 100.0 * errors[picks].sum(axis=1) / np.maximum(words[picks].sum(axis=1), 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return WordErrorRate(
        100.0 * float(errors.sum()) / max(1, int(words.sum())), float(low), float(high), int(words.sum())
    )


@functools.cache
def _normaliser(english: bool) -> Callable[[str], str]:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    if not english:
        return BasicTextNormalizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its table of spellings open
        return EnglishTextNormalizer()


# Over files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean over files with its 95 % bootstrap interval; NaN where no file has the figure."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: Sequence[float], draws: int = 2_000, seed: int = 1) -> Interval:
    """Mean of the finite values and the 2.5 and 97.5 % points of the means of `draws` resamplings of the files."""
    finite = np.asarray([value for value in values if math.isfinite(value)])
    if not len(finite):
        return Interval(NAN, NAN, NAN, 0)
    picks = np.random.default_rng(seed).integers(0, len(finite), (draws, len(finite)))
    low, high = np.percentile(finite[picks].mean(axis=1), (2.5, 97.5))
    return Interval(float(finite.mean()), float(low), float(high), len(finite))


@dataclass(frozen=True)
class CodeUse:
    """How one quantizer's codes were used: entropy in bits per code, and the share of the codebook that was used."""

    size: int
    entropy_bits: float
    used: float


def use_of(counts: NDArray[np.integer]) -> CodeUse:
    """The use of one codebook from how often each of its codes [size] came."""
    share = counts[counts > 0] / max(1, counts.sum())
    return CodeUse(len(counts), float(-(share * np.log2(share)).sum()), float((counts > 0).mean()))


def code_use(codes: NDArray[np.integer], sizes: Sequence[int]) -> list[CodeUse]:
    """One CodeUse per row of codes [K, T]; left-out codes (-1) are not counted."""
    return [use_of(np.bincount(row[row >= 0], minlength=size)) for row, size in zip(codes, sizes, strict=True)]


def kbps(sizes: Sequence[int], frames_per_s: float) -> float:
    """What codes of these codebook sizes cost when each takes log2 of its size, in kbit/s."""
    return sum(math.log2(size) for size in sizes) * frames_per_s / 1000.0
