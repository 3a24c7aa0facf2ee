"""A voice's tokens with the sound that they decode to, from a sound or from a token file: what words come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from engine.artefacts import Models
from engine.hop import DROP, Pipeline
from engine.ring import Fifo
from engine.tokens import SvtReader
from engine.types import Codes, Samples, TokenFileError

PIECE_HOPS = 25  # handed on together


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
