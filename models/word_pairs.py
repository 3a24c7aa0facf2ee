"""Voices with their words, clean and in noise, as a frozen Whisper hears them: `python -m models.word_pairs`.

Encoding is most of what training the recogniser's quantiser costs, and Whisper never changes, so it is done once.

    CACHE/words/SPLIT/0007.npz           a block of BLOCK_PAIRS pairs, each drawn by the block's own number
    CACHE/words/SPLIT-windows/0007.npz   with --windows: pieces as long as a live run looks at to tell the noise by

A block is there when it is whole; those that are there are left alone, so that Ctrl-C loses one block at most and the
same command goes on. What is drawn: one talker's utterances in a row, 1.5 to 26 s, and as much silence after them as
live windows have or, at times, none (where Whisper by itself begins to loop), in one kind of noise, a room or none.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.signal import fftconvolve

from engine.mix import active_rms
from engine.paths import cache_dir
from engine.residue import QUIET_DB, WINDOW_S
from engine.types import Samples, SottovoceError
from models.mixing import EARLY_ROOM_S, RATE_HZ, coloured, played, room_response
from models.shards import Clip, load, to_float, write_beside
from models.sources import Split

BLOCK_PAIRS, BLOCK_WINDOWS = 32, 128
FRAMES_PER_S = 50  # of Whisper's encoder
CLEAN, BABBLE, UNKNOWN = "clean", "babble", "unknown"
NOISES = ("nature", "crowd", "water", "rain", "wind", "traffic", "music", "machine", "fire")
SOUNDS = (CLEAN, *NOISES, BABBLE, UNKNOWN)
# What is told apart: finer kinds have so few recordings that a rain is known, not rain. Validation holds others.
KIND_OF = {
    CLEAN: CLEAN,
    **dict.fromkeys((BABBLE, "crowd"), "voices"),
    "music": "music",
    **dict.fromkeys(("rain", "wind", "water"), "weather"),
    **dict.fromkeys(("machine", "traffic"), "machines"),
    "nature": "nature",
    "fire": "fire",
    UNKNOWN: UNKNOWN,
}
KINDS = tuple(dict.fromkeys(KIND_OF.values()))
LANGUAGES = {"festvox-ru": "ru", "fillets-ng-data-cs": "cs", "fillets-ng-data-nl": "nl", "voice-": "en"}
SHARES = {"en": 0.55, "ru": 0.15, "cs": 0.18, "nl": 0.12}  # of what is drawn, where a split has them
TRAILING_S = (0.5, 2.5)
PAUSE_S = (0.1, 0.6)
SNR_DB, BABBLE_SNR_DB = (-5.0, 20.0), (2.0, 20.0)
LEVEL_DB = (-38.0, -16.0)
CLEAN_SHARE, UNKNOWN_SHARE, BABBLE_SHARE, ROOM_SHARE, MICROPHONE_SHARE = 0.12, 0.08, 0.12, 0.25, 0.5
NO_VOICE_SHARE = 0.1  # noise in which nobody speaks
NOISE_RMS = 0.05
# What else noises of training windows go through, so that few recordings are many (`PairMaker.varied`).
SPEED, BACKWARDS_SHARE, TWO_OF_A_KIND_SHARE, VARIED_MICROPHONE_SHARE = (0.7, 1.4), 0.3, 0.3, 0.8
console = Console(stderr=True)


@dataclass(frozen=True)
class Extent:
    """How long pairs are: utterances until a length drawn from length_s is there, never beyond longest_s, and silence;
    but none in a share bare of them."""

    length_s: tuple[float, float]
    longest_s: float
    bare: float = 0.0


AS_LIVE = Extent((1.5, 14.0), 15.0)
TO_LEARN = Extent((1.5, 26.0), 26.5, bare=0.25)  # with a pause and the silence no more than Whisper takes


@dataclass(frozen=True)
class Pair:
    """clean, noisy [N] of one length, silence after the words included; noise: one of SOUNDS.

    snr_db: inf where there is no noise, -inf where there is no voice.
    """

    clean: Samples
    noisy: Samples
    text: str
    language: str
    noise: str
    snr_db: float


def language_of(clip: Clip) -> str | None:
    """The language of a clip whose words are known; None for others, and for single words of many languages."""
    found = (language for source, language in LANGUAGES.items() if clip.source.startswith(source))
    return next(found, None) if clip.transcript else None


class PairMaker:
    """Draws pairs from lists of clips. varied: noises also faster or slower, backwards, two of a kind at once."""

    def __init__(
        self, speech: Sequence[Clip], background: Sequence[Clip], varied: bool = False, extent: Extent = AS_LIVE
    ) -> None:
        self.varied, self.extent = varied, extent
        self._talkers: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
        self._noises: dict[str, list[Clip]] = defaultdict(list)
        for clip in speech:
            if (language := language_of(clip)) is not None and len(clip.samples) < extent.longest_s * RATE_HZ:
                self._talkers[language][clip.speaker].append(clip)
        for clip in background:
            self._noises[clip.class_name].append(clip)
        if not self._talkers or not self._noises:
            raise SottovoceError("there are no training shards yet; run python -m models.data --minimal")
        self._voices = list(speech)

    def draw(self, random: np.random.Generator, language: str | None = None) -> Pair:
        """One pair, with a voice of this language, or with one of any or none."""
        if language is None:
            if random.random() < NO_VOICE_SHARE:
                return self._without_voice(random)
            names = [name for name in SHARES if name in self._talkers]
            share = np.array([SHARES[name] for name in names])
            language = str(random.choice(names, p=share / share.sum()))
        talkers = self._talkers[language]
        talker = str(random.choice(sorted(talkers)))
        voice, text = _in_a_row(talkers[talker], self.extent, random)
        if random.random() < MICROPHONE_SHARE:
            voice = coloured(voice, random)
        heard = voice
        if random.random() < ROOM_SHARE:
            response = room_response(random)
            voice, heard = (
                fftconvolve(voice, part)[: len(voice)].astype(np.float32)
                for part in (response[: round(EARLY_ROOM_S * RATE_HZ)], response)
            )
        kind = self._kind(random)
        snr_db = float(random.uniform(*(BABBLE_SNR_DB if kind == BABBLE else SNR_DB)))
        level = np.float32(10 ** (random.uniform(*LEVEL_DB) / 20) / max(active_rms(heard), 1e-6))
        noise = self._noise(kind, talker, len(heard), random)
        gain = active_rms(heard) * 10 ** (-snr_db / 20) / NOISE_RMS
        mixture = heard + noise * np.float32(gain)
        level = np.float32(min(float(level), 0.99 / max(float(np.abs(mixture).max()), 1e-6)))
        return Pair(voice * level, mixture * level, text, language, kind, snr_db if kind != CLEAN else float("inf"))

    def _without_voice(self, random: np.random.Generator) -> Pair:
        """Noise alone: nothing is to be written."""
        kind, length = self._kind(random), round(float(random.uniform(*self.extent.length_s)) * RATE_HZ)
        level = 10 ** (random.uniform(*LEVEL_DB) / 20) / NOISE_RMS
        noise = self._noise(kind, "", length, random) * np.float32(level)
        noise *= np.float32(min(1.0, 0.99 / max(float(np.abs(noise).max()), 1e-6)))
        return Pair(np.zeros_like(noise), noise, "", "en", kind, float("-inf"))

    def _kind(self, random: np.random.Generator) -> str:
        drawn = random.random()
        for kind, share in ((CLEAN, CLEAN_SHARE), (UNKNOWN, UNKNOWN_SHARE), (BABBLE, BABBLE_SHARE)):
            if drawn < share:
                return kind
            drawn -= share
        return str(random.choice([name for name in NOISES if name in self._noises]))

    def _noise(self, kind: str, talker: str, length: int, random: np.random.Generator) -> Samples:
        """[length] at NOISE_RMS; an unknown kind is two known ones at once, or something of no kind."""
        if kind == CLEAN:
            return np.zeros(length, np.float32)
        if kind == BABBLE:
            others = [clip for clip in self._voices if clip.speaker != talker]
            parts = [_stretch(others, length, random) for _ in range(int(random.integers(2, 6)))]
        elif kind == UNKNOWN:
            names = sorted(self._noises)
            parts = [self._recorded(str(name), length, random) for name in random.choice(names, 2)]
        else:
            count = 2 if self.varied and random.random() < TWO_OF_A_KIND_SHARE else 1
            parts = [self._recorded(kind, length, random) for _ in range(count)]
        whole: Samples = np.stack([_at_level(part) for part in parts]).sum(axis=0)
        share = VARIED_MICROPHONE_SHARE if self.varied else MICROPHONE_SHARE
        return _at_level(coloured(whole, random) if random.random() < share else whole)

    def _recorded(self, kind: str, length: int, random: np.random.Generator) -> Samples:
        """[length] of recordings of a kind, where wanted as they would be of another place."""
        if not self.varied:
            return _stretch(self._noises[kind], length, random)
        speed = float(random.uniform(*SPEED))
        sound = played(_stretch(self._noises[kind], int(length * speed) + 2, random), speed)[:length]
        return sound[::-1] if random.random() < BACKWARDS_SHARE else sound


def _at_level(x: Samples) -> Samples:
    rms = float(np.sqrt(np.square(x).mean()))
    return (x * (NOISE_RMS / max(rms, 1e-5))).astype(np.float32)


def _in_a_row(clips: Sequence[Clip], extent: Extent, random: np.random.Generator) -> tuple[Samples, str]:
    """Whole utterances until a length is reached, with pauses between and silence after; and their words."""
    wanted = float(random.uniform(*extent.length_s)) * RATE_HZ
    parts, texts, length = list[Samples](), list[str](), 0
    while not texts or length < wanted:
        clip = clips[int(random.integers(len(clips)))]
        if texts and length + len(clip.samples) > extent.longest_s * RATE_HZ:
            break
        pause = np.zeros(round(random.uniform(*PAUSE_S) * RATE_HZ), np.float32)
        sound = to_float(clip.samples)
        parts += [pause, sound * np.float32(NOISE_RMS / max(active_rms(sound), 1e-5))]
        texts.append(clip.transcript.strip())
        length += len(pause) + len(sound)
    bare = extent.bare > 0.0 and random.random() < extent.bare
    parts.append(np.zeros(0 if bare else round(random.uniform(*TRAILING_S) * RATE_HZ), np.float32))
    return np.concatenate(parts), " ".join(texts)


def _stretch(clips: Sequence[Clip], length: int, random: np.random.Generator) -> Samples:
    """[length] of one clip or, where it is too short, of several."""
    out, at = np.zeros(length, np.float32), 0
    while at < length:
        sound = to_float(clips[int(random.integers(len(clips)))].samples)
        start = int(random.integers(max(1, len(sound) - length)))
        piece = sound[start : start + length - at]
        out[at : at + len(piece)] = piece
        at += max(1, len(piece))
    return out


# Blocks ---------------------------------------------------------------------------------------------------------------


def folder(split: Split, windows: bool = False) -> Path:
    """Where the blocks of a split lie."""
    return cache_dir() / "words" / (f"{split}-windows" if windows else split)


class FrozenWhisper:
    """Whisper base's encoder, in floats, or in 8 bit as captions run it. Raises ArtefactError without its weights."""

    def __init__(self, int8: bool = False) -> None:
        from engine.weights import require_weights
        from engine.whisper_decoder import WhisperDecoder, load_model

        weights = require_weights("base")
        self.decoder = WhisperDecoder(load_model(weights.path, weights.format, weights.name), int8=int8)

    def frames(self, sound: Samples) -> np.ndarray:
        """Sound [N] -> what the encoder makes of it, float16 [frames, width], on as many positions as it has."""
        return self.decoder.frames(sound).astype(np.float16)

    def stem(self, sound: Samples) -> np.ndarray:
        """Sound [N] -> what its convolutions make of it, float16 [frames, width]."""
        return self.decoder.stem(sound).astype(np.float16)

    def tokens(self, text: str, language: str) -> list[int]:
        """The words as the decoder is to write them, its end of text after them."""
        tokenizer = self.decoder.tokenizer(language)
        return [*(tokenizer.encode(" " + text) if text else ()), tokenizer.eot]


def pairs_of(maker: PairMaker, number: int) -> list[Pair]:
    """A block's pairs; the same number gives the same ones."""
    random = np.random.default_rng([7, number])
    return [maker.draw(random) for _ in range(BLOCK_PAIRS)]


def windows_of(maker: PairMaker, number: int) -> list[Pair]:
    """A block's windows, WINDOW_S of a pair each; the same number gives the same ones."""
    random = np.random.default_rng([8, number])
    return [window_of(maker.draw(random), random) for _ in range(BLOCK_WINDOWS)]


def window_of(pair: Pair, random: np.random.Generator) -> Pair:
    """WINDOW_S from anywhere in a pair where there is something to hear; its words are not told."""
    size, spare = round(WINDOW_S * RATE_HZ), max(0, len(pair.noisy) - round(WINDOW_S * RATE_HZ))
    power = np.concatenate([[0.0], np.square(pair.noisy, dtype=np.float64).cumsum()])
    starts = np.arange(0, spare + 1, RATE_HZ // 10)
    heard = power[np.minimum(starts + size, len(pair.noisy))] - power[starts] > size * 10 ** (QUIET_DB / 10)
    start = int(random.choice(starts[heard] if heard.any() else starts))
    cut = slice(start, start + size)
    return replace(pair, clean=pair.clean[cut], noisy=pair.noisy[cut], text="")


def make_block(pairs: Sequence[Pair], whisper: Any) -> bytes:
    """A block's file."""
    heard = [(whisper.frames(pair.clean), whisper.frames(pair.noisy)) for pair in pairs]
    tokens = [whisper.tokens(pair.text, pair.language) for pair in pairs]
    out = io.BytesIO()
    np.savez(
        out,
        clean=np.concatenate([clean for clean, _ in heard]),
        noisy=np.concatenate([noisy for _, noisy in heard]),
        frames=np.array([len(clean) for clean, _ in heard], np.int32),
        tokens=np.concatenate([np.array(row, np.int32) for row in tokens]),
        counts=np.array([len(row) for row in tokens], np.int32),
        kinds=np.array([SOUNDS.index(pair.noise) for pair in pairs], np.int8),
        snrs_db=np.array([pair.snr_db for pair in pairs], np.float32),
        languages=np.array([pair.language for pair in pairs]),
    )
    return out.getvalue()


@dataclass(frozen=True)
class Heard:
    """A pair of a block: clean, noisy float16 [frames, width], tokens, index into KINDS, SNR as in Pair."""

    clean: np.ndarray
    noisy: np.ndarray
    tokens: np.ndarray
    kind: int
    snr_db: float
    language: str


def read_blocks(split: Split, windows: bool = False) -> Iterator[Heard]:
    """All pairs of a split that are there, or all windows."""
    told = [KINDS.index(KIND_OF[name]) for name in SOUNDS]
    for path in sorted(folder(split, windows).glob("*.npz")):
        with np.load(path) as block:
            ends, token_ends = np.cumsum(block["frames"])[:-1], np.cumsum(block["counts"])[:-1]
            sounds = (np.split(block[name], ends) for name in ("clean", "noisy"))
            rows = (np.split(block["tokens"], token_ends), block["kinds"], block["snrs_db"], block["languages"])
            for clean, noisy, tokens, kind, snr_db, language in zip(*sounds, *rows, strict=True):
                yield Heard(clean, noisy, tokens, told[int(kind)], float(snr_db), str(language))


def run(split: Split, blocks: int, windows: bool = False) -> None:
    """Make the blocks that are not there yet."""
    varied, extent = windows and split == "train", AS_LIVE if windows else TO_LEARN
    maker = PairMaker(load(split, "speech"), load(split, "background"), varied, extent)
    place, drawn = folder(split, windows), windows_of if windows else pairs_of
    place.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(blocks) if not (place / f"{n:04d}.npz").exists()]
    whisper = FrozenWhisper(int8=windows) if missing else None
    title = f"{split}: blocks of {f'{BLOCK_WINDOWS} windows' if windows else f'{BLOCK_PAIRS} pairs'}"
    for number in track(missing, title, console=console):
        write_beside(place / f"{number:04d}.npz", make_block(drawn(maker, number), whisper))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.word_pairs", description="What Whisper hears, on disk.")
    parser.add_argument(
        "--blocks",
        type=int,
        default=40,
        help=f"how many blocks there are to be, of {BLOCK_PAIRS} pairs or {BLOCK_WINDOWS} windows",
    )
    parser.add_argument("--windows", action="store_true", help=f"{WINDOW_S:g} s each, for telling the kind of noise")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        run(args.split, args.blocks, args.windows)
    except (SottovoceError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        place = folder(args.split, args.windows)
        print(f"stopped; {place} holds the blocks that are done, the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
