"""Whole files, in constant memory: enhance sound, encode it to tokens, decode tokens to sound.

A run that is interrupted (KeyboardInterrupt) finishes the file with what was done and raises again; a run that fails
leaves no file at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.artefacts import CodecInfo, Models, shared_models
from engine.hop import DROP, BackgroundMixer, SceneSource
from engine.mix import Limiter
from engine.pipeline import FileStream
from engine.resample import FileResampler
from engine.ring import Fifo
from engine.soundfiles import SoundReader, SoundWriter, check_target, partial_path
from engine.stems import StemPaths, Stems
from engine.token_reader import SvtReader
from engine.token_writer import SvtWriter
from engine.tokens import SvtHeader
from engine.types import (
    Background,
    BackgroundMode,
    Codes,
    Provider,
    Samples,
    SottovoceError,
    TokenFileError,
    UsageError,
)

Progress = Callable[[float, float | None], None]  # seconds done, seconds in all where known
DECODE_HOPS = 50


@dataclass(frozen=True)
class EnhanceReport:
    """What `enhance_file` did; the fields are those of `sottovoce enhance --json`."""

    input: str
    output: str
    duration_s: float
    sample_rate_hz: int
    background: str
    scene: str | None
    codec_id: str
    provider: str
    algorithmic_latency_ms: float
    real_time_factor: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


@dataclass(frozen=True)
class TokenReport:
    """What `encode_file` or `decode_file` did. bits_per_second: codes of one channel, without the file's overhead."""

    input: str
    output: str
    duration_s: float
    sample_rate_hz: int
    channels: int
    frames: int
    bits_per_second: float
    background: str | None
    codec_id: str
    provider: str
    real_time_factor: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


def as_background(background: Background | str) -> Background:
    return background if isinstance(background, Background) else Background.parse(background)


def enhance(
    audio: Samples,
    sample_rate_hz: int,
    background: Background | str = "drop",
    models: Models | None = None,
    **options: Any,
) -> Samples:
    """Enhance float32 [N] or [N, C] (C up to 8); the result has the same shape, in line with the input.

    options: tokens_only, refiner, quantizers, scenes, as in `Pipeline`. Raises UsageError for what is no such sound.
    """
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim not in (1, 2) or (audio.ndim == 2 and not 1 <= audio.shape[1] <= 8):
        raise UsageError(f"sound is [N] or [N, C] with up to 8 channels, not {audio.shape}; turn it round first")
    if not np.isfinite(audio).all():
        raise UsageError("the sound has samples that are no finite numbers; repair it first")
    chosen = as_background(background)
    result = np.empty_like(audio)
    columns = [audio] if audio.ndim == 1 else list(audio.T)
    for index, column in enumerate(columns):
        stream = FileStream(models or shared_models(), sample_rate_hz, background=chosen, **options)
        enhanced = np.concatenate([stream.process(column), stream.flush()])
        if audio.ndim == 1:
            return enhanced
        result[:, index] = enhanced
    return result


def enhance_file(
    source: str | Path,
    target: str | Path,
    background: Background | str = DROP,
    *,
    tokens_only: bool = False,
    quantizers: int | None = None,
    refiner: bool = True,
    force: bool = False,
    provider: Provider = Provider.AUTO,
    progress: Progress | None = None,
    models: Models | None = None,
    scenes: SceneSource | None = None,
    stems: StemPaths | None = None,
) -> EnhanceReport:
    """Enhance a sound file into another of the same rate, channels and frame count.

    stems: where voice and background go alone, too, at the models' rate; they share the fate of the output.
    Raises UsageError (target there, unknown scene, extension), AudioFileError, ArtefactError, KeyboardInterrupt.
    """
    for path in (target, *((stems.speech, stems.background) if stems is not None else ())):
        check_target(source, path, force)
    chosen = as_background(background)
    models = models or shared_models(provider)
    began = time.perf_counter()
    with SoundReader(source) as reader:
        options: dict[str, Any] = {
            "tokens_only": tokens_only,
            "quantizers": quantizers,
            "refiner": refiner,
            "scenes": scenes,
        }
        streams = [
            FileStream(models, reader.sample_rate_hz, background=chosen, **options) for _ in range(reader.channels)
        ]
        seconds = reader.duration_s
        expected = reader.frames or (int(seconds * reader.sample_rate_hz) if seconds else None)
        writer = SoundWriter(target, reader.sample_rate_hz, reader.channels, reader.integer, expected)
        beside = _stems(stems, writer, streams, reader, expected) if stems is not None else None
        _finish_or_discard(writer, _enhanced(reader, streams), seconds, progress, beside)
    duration_s = reader.frames_read / reader.sample_rate_hz
    return EnhanceReport(
        input=str(source),
        output=str(target),
        duration_s=duration_s,
        sample_rate_hz=reader.sample_rate_hz,
        background=str(chosen),
        scene=chosen.scene,
        codec_id=models.info.codec_id,
        provider=models.provider,
        algorithmic_latency_ms=streams[0].pipeline.algorithmic_latency_ms,
        real_time_factor=(time.perf_counter() - began) / duration_s,
        warnings=(reader.warning,) if reader.warning else (),
    )


def _enhanced(reader: SoundReader, streams: list[FileStream]) -> Iterator[Samples]:
    """Blocks [N, C] of the output."""
    for block in reader.blocks():
        yield np.stack([s.process(block[:, c]) for c, s in enumerate(streams)], axis=1)
    yield np.stack([s.flush() for s in streams], axis=1)


def _stems(
    paths: StemPaths, writer: SoundWriter, streams: list[FileStream], reader: SoundReader, expected: int | None
) -> Stems:
    """Files for voice and background, told of every hop. Raises AudioFileError, and then nothing is left."""
    pipeline = streams[0].pipeline
    frames = round(expected * pipeline.info.sample_rate_hz / reader.sample_rate_hz) if expected else None
    try:
        stems = Stems(paths, pipeline.info, len(streams), pipeline.lag, reader.integer, frames)
    except SottovoceError:
        writer.discard()
        raise
    for channel, stream in enumerate(streams):
        stream.on_hop = stems.listener(channel)
    return stems


def _finish_or_discard(
    writer: SoundWriter,
    blocks: Iterator[Samples],
    total_s: float | None,
    progress: Progress | None,
    stems: Stems | None = None,
) -> None:
    """Write all blocks; what was done is kept when a person interrupts, and nothing when something fails."""
    with ExitStack() as undo:
        undo.callback(_discard, writer, stems)
        try:
            for block in blocks:
                writer.write(block)
                if stems is not None:
                    stems.write(round(writer.frames * stems.sample_rate_hz / writer.sample_rate_hz))
                if progress is not None:
                    progress(writer.frames / writer.sample_rate_hz, total_s)
            _finish(writer, stems)
        except KeyboardInterrupt:
            if writer.frames:
                undo.pop_all()  # whatever becomes of its end, what is written stays
                _finish(writer, stems)
            raise
        undo.pop_all()


def _discard(writer: SoundWriter, stems: Stems | None) -> None:
    writer.discard()
    if stems is not None:
        stems.discard()


def _finish(writer: SoundWriter, stems: Stems | None) -> None:
    if stems is not None:
        stems.finish()
    writer.finish()


# Sound to tokens ------------------------------------------------------------------------------------------------------


def header_for(info: CodecInfo, quantizers: int | None = None, **fields: Any) -> SvtHeader:
    """The header of a token file made by these models; fields: channels, source_rate_hz, source_samples, title."""
    rows = info.kept_rows(quantizers)
    return SvtHeader(
        codec_id=info.codec_id,
        sample_rate_hz=info.sample_rate_hz,
        hop_samples=info.hop_samples,
        sizes_s=info.sizes_s,
        sizes_b=info.sizes_b,
        rows_s=min(rows, len(info.sizes_s)),
        rows_b=min(rows, len(info.sizes_b)),
        gain_rows=info.gain_rows,
        **fields,
    )


class _ChannelEncoder:
    """One channel of sound at any rate -> frames of codes."""

    def __init__(self, models: Models, sample_rate_hz: int) -> None:
        self._info = models.info
        self._encoder = models.encoder.clone()
        self._down = FileResampler(sample_rate_hz, self._info.sample_rate_hz)
        self._waiting = Fifo()

    def process(self, x: Samples, last: bool = False) -> Iterator[tuple[Codes, Codes]]:
        self._waiting.push(self._down.process(x, last))
        hop = self._info.hop_samples
        if last:  # the decoder is late by its lag: as many hops more as it takes to get the end out
            wanted = -(-(len(self._waiting) + self._info.lag_tokens) // hop) * hop
            self._waiting.push(np.zeros(wanted - len(self._waiting), dtype=np.float32))
        while len(self._waiting) >= hop:
            codes = self._encoder.step(hop=self._waiting.pop(hop)[None, :])
            yield codes["codes_s"], codes["codes_b"]


def encode_file(
    source: str | Path,
    target: str | Path,
    *,
    quantizers: int | None = None,
    force: bool = False,
    provider: Provider = Provider.AUTO,
    progress: Progress | None = None,
    models: Models | None = None,
) -> TokenReport:
    """Encode a sound file, each channel of its own, into a token file.

    Raises UsageError, AudioFileError, TokenFileError, ArtefactError, KeyboardInterrupt.
    """
    check_target(source, target, force)
    models = models or shared_models(provider)
    began = time.perf_counter()
    with SoundReader(source) as reader:
        header = header_for(models.info, quantizers, channels=reader.channels, source_rate_hz=reader.sample_rate_hz)
        temp = partial_path(Path(target))
        writer = SvtWriter(temp, header, target)
        with ExitStack() as undo:
            undo.callback(temp.unlink, missing_ok=True)
            undo.callback(writer.abort)
            try:
                try:
                    _encode_blocks(reader, models, writer, progress)
                finally:
                    encoded_s = writer.frames * models.info.hop_samples / models.info.sample_rate_hz
                    writer.close(source_samples=min(reader.frames_read, round(encoded_s * reader.sample_rate_hz)))
                os.replace(temp, target)
            except KeyboardInterrupt:
                if writer.header.frames > 0:
                    if temp.exists():  # else it was interrupted just after it was there
                        os.replace(temp, target)
                    undo.pop_all()
                raise
            undo.pop_all()
    return _token_report(source, target, writer.header, models, began, None, reader.warning)


def _encode_blocks(reader: SoundReader, models: Models, writer: SvtWriter, progress: Progress | None) -> None:
    encoders = [_ChannelEncoder(models, reader.sample_rate_hz) for _ in range(reader.channels)]
    for block in reader.blocks():
        _write_together(writer, [list(one.process(block[:, channel])) for channel, one in enumerate(encoders)])
        if progress is not None:
            progress(reader.frames_read / reader.sample_rate_hz, reader.duration_s)
    rest = np.zeros(0, dtype=np.float32)
    _write_together(writer, [list(encoder.process(rest, last=True)) for encoder in encoders])


def _write_together(writer: SvtWriter, encoded: Sequence[Sequence[tuple[Codes, Codes]]]) -> None:
    """The same stretch of all channels. Encoding takes nearly all the time: who interrupts that finds none ahead."""
    for channel, frames in enumerate(encoded):
        for codes_s, codes_b in frames:
            writer.write(codes_s, codes_b, channel)


def _token_report(
    source: str | Path,
    target: str | Path,
    header: SvtHeader,
    models: Models,
    began: float,
    background: Background | None,
    warning: str | None,
) -> TokenReport:
    return TokenReport(
        input=str(source),
        output=str(target),
        duration_s=header.duration_s,
        sample_rate_hz=header.sample_rate_hz,
        channels=header.channels,
        frames=max(0, header.frames),
        bits_per_second=header.bits_per_second,
        background=None if background is None else str(background),
        codec_id=header.codec_id,
        provider=models.provider,
        real_time_factor=(time.perf_counter() - began) / max(header.duration_s, 1e-3),
        warnings=(warning,) if warning else (),
    )


# Tokens to sound ------------------------------------------------------------------------------------------------------


class TokenDecoder:
    """Frames of one channel -> sound at the models' rate, limited, `lag_tokens` late; the background as chosen."""

    def __init__(self, models: Models, background: Background = DROP, scenes: SceneSource | None = None) -> None:
        info = models.info
        self._decoder = models.decoder.clone()
        self._mixer = BackgroundMixer(models, background, scenes, coded=True)
        self._blanks = info.blank_s(), info.blank_b()
        self._limits = tuple(np.array(sizes, dtype=np.int64) - 1 for sizes in (info.sizes_s, info.sizes_b))
        self._gains = np.ones(2, dtype=np.float32)
        self._limiter = Limiter(info.sample_rate_hz)

    def step(self, codes_s: Codes, codes_b: Codes, lost: bool = False) -> Samples:
        """One frame [K_s], [K_b] -> [hop]. A lost frame is silence."""
        frame = [
            np.minimum(c.astype(np.int64), limit) for c, limit in zip((codes_s, codes_b), self._limits, strict=True)
        ]
        if lost:
            frame = list(self._blanks)
        # a stream of which nothing is stored (a scene's speech) is silence too
        frame = [blank if c[0] < 0 else c for c, blank in zip(frame, self._blanks, strict=True)]
        decoded = self._decoder.step(codes_s=frame[0], codes_b=frame[1], gains=self._gains)
        background = decoded["background"].reshape(-1)
        gain, scene, _ = self._mixer.next(background, frame[1].astype(np.int16))
        return self._limiter.process(decoded["speech"].reshape(-1) + gain * background + scene)


def decode_file(
    source: str | Path,
    target: str | Path,
    background: Background | str = Background(BackgroundMode.KEEP),
    *,
    force: bool = False,
    provider: Provider = Provider.AUTO,
    progress: Progress | None = None,
    models: Models | None = None,
    scenes: SceneSource | None = None,
) -> TokenReport:
    """Decode a token file to sound at the codec's rate; a damaged file is decoded as far as it goes, with a warning.

    Raises UsageError, TokenFileError (no token file, or another codec's), AudioFileError, ArtefactError.
    """
    check_target(source, target, force)
    chosen = as_background(background)
    reader = SvtReader(source)
    models = models or shared_models(provider)
    if reader.header.codec_id != models.info.codec_id:
        raise TokenFileError(
            f"{source} was made by codec {reader.header.codec_id}, this program has {models.info.codec_id}; "
            "decode it with the version that made it"
        )
    began = time.perf_counter()
    decoders = [TokenDecoder(models, chosen, scenes) for _ in range(reader.header.channels)]
    total = _decoded_samples(reader, models.info)
    writer = SoundWriter(target, models.info.sample_rate_hz, reader.header.channels, False, total)
    _finish_or_discard(writer, _decoded(reader, decoders, models.info.lag_tokens, total), reader.duration_s, progress)
    return _token_report(source, target, reader.header, models, began, chosen, reader.warning)


def _decoded_samples(reader: SvtReader, info: CodecInfo) -> int:
    """Length of the sound: that of the source where it is known, else all that the frames hold."""
    h = reader.header
    there = max(1, reader.frames_per_channel * info.hop_samples - info.lag_tokens)
    if h.source_samples < 0 or h.source_rate_hz <= 0:
        return there
    return max(1, min(there, round(h.source_samples * info.sample_rate_hz / h.source_rate_hz)))


def _frames(reader: SvtReader, channel: int) -> Iterator[tuple[Codes, Codes, bool]]:
    for block in reader.blocks(channel):
        for codes_s, codes_b in zip(block.codes_s.T, block.codes_b.T, strict=True):
            yield codes_s, codes_b, block.lost


def _decoded(reader: SvtReader, decoders: list[TokenDecoder], lag: int, total: int) -> Iterator[Samples]:
    """Blocks [N, C] of sound, the lag removed, `total` samples in all."""
    sources = [_frames(reader, channel) for channel in range(len(decoders))]
    skip, left = lag, total
    rows: list[Samples] = []
    for frames in zip(*sources, strict=True):
        rows.append(np.stack([d.step(*f) for d, f in zip(decoders, frames, strict=True)], axis=1)[skip:])
        skip = 0
        if len(rows) == DECODE_HOPS:
            block, rows = np.concatenate(rows)[:left], []
            left -= len(block)
            yield block
    if rows and left:
        yield np.concatenate(rows)[:left]
