"""What the codec makes of noisy voices, beside what Whisper hears of the clean ones: `python -m models.token_pairs`.

    CACHE/bridge/SPLIT/0007.npz      a block of BLOCK_PAIRS pairs, each drawn by the block's own number

The pairs are those of models.word_pairs: one talker's words, in one kind of noise, a room or none, and silence after
them. Kept are the codes of the noisy sound's voice stream, by the shipped encoder, and of the clean sound what
Whisper's convolutions make of it and what its whole encoder does. A block is there when it is whole; Ctrl-C loses one
at most, and the same command goes on.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from engine.paths import cache_dir
from engine.types import Samples, SottovoceError
from models.checkpoint import Bundle, load_shipped
from models.shards import load, write_beside
from models.sources import Split
from models.word_pairs import BLOCK_PAIRS, FrozenWhisper, Pair, PairMaker

BATCH = 8  # sounds that go through the encoder together
SEED = 9
console = Console(stderr=True)


@dataclass(frozen=True)
class TokenPair:
    """codes int16 [T, K] of the noisy sound's voice, tokens of the words, SNR as in Pair.

    stem, clean: float16 [T, width], of the clean sound by Whisper's convolutions and by its whole encoder.
    """

    codes: NDArray[np.int16]
    stem: NDArray[np.float16]
    clean: NDArray[np.float16]
    tokens: NDArray[np.int32]
    language: str
    snr_db: float


def folder(split: Split) -> Path:
    """Where the blocks of a split lie."""
    return cache_dir() / "bridge" / split


@torch.no_grad()
def voice_codes(bundle: Bundle, sounds: Sequence[Samples]) -> list[NDArray[np.int16]]:
    """Codes of the voice stream of each sound [N], int16 [ceil(N / hop), K], all from silence."""
    encoder, hop = bundle.codec.encoder, bundle.config.hop
    found: list[NDArray[np.int16]] = [np.zeros((0, 0), np.int16)] * len(sounds)
    order = sorted(range(len(sounds)), key=lambda number: len(sounds[number]))
    for at in range(0, len(order), BATCH):
        chosen = order[at : at + BATCH]
        counts = [-(-len(sounds[number]) // hop) for number in chosen]
        whole = np.zeros((len(chosen), max(counts) * hop), np.float32)
        for row, number in zip(whole, chosen, strict=True):
            row[: len(sounds[number])] = sounds[number]
        speech, _, _ = encoder.project(torch.from_numpy(whole), encoder.initial_state(len(chosen)))
        codes = encoder.speech.encode(speech.flatten(0, 1)).unflatten(0, speech.shape[:2]).numpy()
        for number, count, row in zip(chosen, counts, codes, strict=True):
            found[number] = row[:count].astype(np.int16)
    return found


def make_block(pairs: Sequence[Pair], bundle: Bundle, whisper: Any, sources: Sequence[str]) -> bytes:
    """A block's file. sources: whose sound the pairs were drawn from."""
    codes = voice_codes(bundle, [pair.noisy for pair in pairs])
    stem, clean = ([make(pair.clean) for pair in pairs] for make in (whisper.stem, whisper.frames))
    tokens = [whisper.tokens(pair.text, pair.language) for pair in pairs]
    counts = [min(map(len, sounds)) for sounds in zip(codes, stem, clean, strict=True)]
    out = io.BytesIO()
    np.savez(
        out,
        codes=_joined(codes, counts),
        stem=_joined(stem, counts),
        clean=_joined(clean, counts),
        frames=np.array(counts, np.int32),
        tokens=np.concatenate([np.array(row, np.int32) for row in tokens]),
        counts=np.array([len(row) for row in tokens], np.int32),
        snrs_db=np.array([pair.snr_db for pair in pairs], np.float32),
        languages=np.array([pair.language for pair in pairs]),
        sources=np.array(sources),
    )
    return out.getvalue()


def _joined(rows: Sequence[NDArray[Any]], counts: Sequence[int]) -> NDArray[Any]:
    """So many of each one behind the other."""
    return np.concatenate([row[:count] for row, count in zip(rows, counts, strict=True)])


def read_blocks(split: Split) -> Iterator[TokenPair]:
    """All pairs of a split that are there. Raises SottovoceError for a block of another version."""
    for path in sorted(folder(split).glob("*.npz")):
        with np.load(path) as block:
            try:
                ends, token_ends = np.cumsum(block["frames"])[:-1], np.cumsum(block["counts"])[:-1]
                sounds = [np.split(block[name], ends) for name in ("codes", "stem", "clean")]
                rest = (np.split(block["tokens"], token_ends), block["languages"], block["snrs_db"])
            except KeyError as error:
                raise SottovoceError(f"{path} is of another version; delete {path.parent} and make it anew") from error
        for codes, stem, clean, tokens, language, snr_db in zip(*sounds, *rest, strict=True):
            yield TokenPair(codes, stem, clean, tokens, str(language), float(snr_db))


def sources_of(split: Split) -> set[str]:
    """Whose sound the blocks that are there were drawn from. Raises SottovoceError for a block of another version."""
    found: set[str] = set()
    for path in sorted(folder(split).glob("*.npz")):
        with np.load(path) as block:
            if "sources" not in block:
                raise SottovoceError(f"{path} is of another version; delete {path.parent} and make it anew")
            found |= set(block["sources"].tolist())
    return found


def pairs_of(maker: PairMaker, number: int) -> list[Pair]:
    """A block's pairs; the same number gives the same ones."""
    random = np.random.default_rng([SEED, number])
    return [maker.draw(random) for _ in range(BLOCK_PAIRS)]


def run(split: Split, blocks: int) -> None:
    """Make the blocks that are not there yet."""
    place = folder(split)
    place.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(blocks) if not (place / f"{n:04d}.npz").exists()]
    if not missing:
        return
    speech, background = load(split, "speech"), load(split, "background")
    maker = PairMaker(speech, background)
    sources = sorted({clip.source.split("/")[0] for clip in (*speech, *background)})
    bundle, whisper = load_shipped(), FrozenWhisper()
    bundle.snap()
    for number in track(missing, f"{split}: blocks of {BLOCK_PAIRS} pairs", console=console):
        write_beside(place / f"{number:04d}.npz", make_block(pairs_of(maker, number), bundle, whisper, sources))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.token_pairs", description="Tokens and what they stand for.")
    parser.add_argument(
        "--blocks", type=int, default=24, help=f"how many blocks there are to be, of {BLOCK_PAIRS} pairs"
    )
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        run(args.split, args.blocks)
    except (SottovoceError, OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"stopped; {folder(args.split)} holds the blocks that are done, the same command goes on", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
