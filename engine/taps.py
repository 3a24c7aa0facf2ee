"""What the words of a file come from: its sound, the enhanced sound, or the voice's tokens and what they decode to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from engine.artefacts import Models
from engine.hop import DROP, Pipeline
from engine.pipeline import Stream
from engine.resample import FileResampler
from engine.ring import Fifo
from engine.soundfiles import SoundReader
from engine.token_reader import SvtReader
from engine.types import LEFT_FOR_RECOGNISER_DB, Background, Codes, Samples, TokenFileError
from engine.vad import SAMPLE_RATE_HZ

PIECE_HOPS = 25  # handed on together


def mono_pieces(reader: SoundReader) -> Iterator[Samples]:
    """The reader's sound, mono at the recogniser's rate, in pieces [n]."""
    down = FileResampler(reader.sample_rate_hz, SAMPLE_RATE_HZ)
    for block in reader.blocks():
        yield down.process(block.mean(axis=1))
    yield down.process(np.zeros(0, dtype=np.float32), last=True)


def enhanced_pieces(models: Models, sound: Iterable[Samples], tokens_only: bool = False) -> Iterator[Samples]:
    """Pieces [n] at the recogniser's rate -> as many samples of the voice, as captions hear it live: with some of the
    background left. tokens_only: what the voice's tokens decode to, and no background."""
    background = Background.parse("drop" if tokens_only else str(LEFT_FOR_RECOGNISER_DB))
    stream = Stream(models, SAMPLE_RATE_HZ, live=False, background=background, tokens_only=tokens_only)
    for piece in sound:
        yield stream.process(piece)
    yield stream.flush()


def token_pieces(models: Models, sound: Iterable[Samples]) -> Iterator[tuple[Samples, Codes]]:
    """Sound at the models' rate in pieces [n] of any length -> whole hops of decoded voice, and their codes [K, hops].

    The voice is `lag_tokens` late, which is told by nobody: the codes say when a word was. So the end is silence.
    """
    pipeline, waiting = Pipeline(models, DROP, tokens_only=True), Fifo()
    hop = models.info.hop_samples
    for piece in sound:
        waiting.push(piece)
        while len(waiting) >= PIECE_HOPS * hop:
            yield _through(pipeline, waiting.pop(PIECE_HOPS * hop))
    left = waiting.pop()
    count = -(-(len(left) + models.info.lag_tokens) // hop)
    yield _through(pipeline, np.concatenate([left, np.zeros(count * hop - len(left), np.float32)]))


def _through(pipeline: Pipeline, sound: Samples) -> tuple[Samples, Codes]:
    steps = [pipeline.step(hop) for hop in sound.reshape(-1, pipeline.info.hop_samples)]
    voice = np.concatenate([step.speech for step in steps])
    return voice, np.stack([step.codes_s for step in steps], axis=1)


def stored_pieces(models: Models, reader: SvtReader) -> Iterator[tuple[Samples, Codes]]:
    """The same of a token file's first channel; what was lost is silence. Raises TokenFileError for another codec's."""
    info, decoder = models.info, models.decoder.clone()
    if reader.header.codec_id != info.codec_id:
        raise TokenFileError(f"{reader.path} was made by another codec; caption it with the version that made it")
    ones, silence = np.ones(2, np.float32), info.blank_b()
    for block in reader.blocks(0):
        codes = block.codes_s
        if block.lost:
            codes = np.repeat(info.blank_s()[:, None], codes.shape[1], axis=1).astype(np.int16)
        hops = [decoder.step(codes_s=hop, codes_b=silence, gains=ones) for hop in codes.T.astype(np.int64)]
        yield np.concatenate([hop["speech"].reshape(-1) for hop in hops]), codes
