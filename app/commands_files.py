"""Whole files: enhance, caption, encode, decode. What the engine reports is told here; the work is the engine's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from app import console
from engine.files import decode_file, encode_file, enhance_file
from engine.types import LEFT_FOR_RECOGNISER_DB, Background, CaptionTap, Provider, Samples, UsageError, Word

if TYPE_CHECKING:
    from engine.soundfiles import SoundReader


class Told(Protocol):
    """What every report of the engine has."""

    @property
    def output(self) -> str: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def real_time_factor(self) -> float: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class EnhanceRequest:
    """The options of `sottovoce enhance`."""

    source: Path
    out: Path
    background: str
    tokens_only: bool
    quantizers: int | None
    refiner: bool
    force: bool
    as_json: bool
    provider: str


EngineProgress = Callable[[float, float | None], None]


@contextmanager
def working(title: str, out: Path | None, quiet: bool = False) -> Iterator[EngineProgress]:
    """A progress bar around the block, called with (seconds done, seconds in all); tells what Ctrl-C left."""
    done_s = 0.0
    with console.progress(title, quiet) as advance:

        def report(seconds: float, total_s: float | None) -> None:
            nonlocal done_s
            done_s = seconds
            advance(seconds / total_s if total_s else 0.0)

        try:
            yield report
        except KeyboardInterrupt:
            kept = f"; {out} holds the first {console.clock(done_s)}" if out is not None and done_s > 0.0 else ""
            console.say(f"stopped{kept}")
            raise


def enhance(request: EnhanceRequest) -> int:
    """Raises SottovoceError and KeyboardInterrupt."""
    background = Background.parse(request.background)
    with working(f"enhance {request.source.name}", request.out) as progress:
        report = enhance_file(
            request.source,
            request.out,
            background,
            tokens_only=request.tokens_only,
            quantizers=request.quantizers,
            refiner=request.refiner,
            force=request.force,
            provider=Provider(request.provider),
            progress=progress,
        )
    return _tell(report, request.as_json)


def encode(source: Path, out: Path, quantizers: int | None, force: bool, as_json: bool, provider: str) -> int:
    """Raises SottovoceError and KeyboardInterrupt."""
    with working(f"encode {source.name}", out) as progress:
        report = encode_file(
            source, out, quantizers=quantizers, force=force, provider=Provider(provider), progress=progress
        )
    return _tell(report, as_json)


def decode(source: Path, out: Path, background: str, force: bool, as_json: bool, provider: str) -> int:
    """Raises SottovoceError and KeyboardInterrupt."""
    chosen = Background.parse(background)
    with working(f"decode {source.name}", out) as progress:
        report = decode_file(source, out, chosen, force=force, provider=Provider(provider), progress=progress)
    return _tell(report, as_json)


def _tell(report: Told, as_json: bool) -> int:
    for warning in report.warnings:
        console.warn(warning)
    if as_json:
        console.print_json(report.to_dict())
    else:
        took_s = report.real_time_factor * report.duration_s
        console.say(f"wrote {report.output}: {console.clock(report.duration_s)} of sound in {took_s:.1f} s")
    return console.DONE


# Captions -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionRequest:
    """The options of `sottovoce caption`; without `out` the captions go to standard output."""

    source: Path
    out: Path | None
    form: str | None
    language: str | None
    tap: str
    force: bool
    provider: str


def caption(request: CaptionRequest) -> int:
    """Raises SottovoceError. After Ctrl-C the words recognised until then are written."""
    from engine.recognizer import recognise_file
    from engine.soundfiles import SoundReader, check_target

    form = _caption_format(request)
    if request.out is not None:
        check_target(request.source, request.out, request.force)
    words: list[Word] = []
    spoken: list[str | None] = []
    with SoundReader(request.source) as reader:
        sound = _tapped(reader, CaptionTap(request.tap), request.provider)
        try:
            with working(f"caption {request.source.name}", None) as progress:
                total_s = reader.duration_s
                recognise_file(
                    sound,
                    request.language,
                    progress=lambda seconds: progress(seconds, total_s),
                    found=spoken.append,
                    words=words,
                )
        except KeyboardInterrupt:
            if words:
                _write_captions(words, request.out, form, request.language)
            return console.INTERRUPTED
        if reader.warning:
            console.warn(reader.warning)
    _write_captions(words, request.out, form, spoken[0] if spoken else request.language)
    return console.DONE


def _caption_format(request: CaptionRequest) -> str:
    """The format asked for, or OUT's extension's, or srt. Raises UsageError."""
    from engine.captions import FORMATS, format_named

    if request.form is not None:
        return request.form
    form = format_named(request.out) if request.out is not None else FORMATS[0]
    if form is None:
        raise UsageError(f"{request.out} has no caption format's extension; add --format {'|'.join(FORMATS)}")
    return form


def _tapped(reader: SoundReader, tap: CaptionTap, provider: str) -> Iterator[Samples]:
    """The sound that the recogniser is to hear, mono at the recogniser's rate, in pieces [n]."""
    from engine.vad import SAMPLE_RATE_HZ

    raw = mono_pieces(reader)
    return raw if tap is CaptionTap.RAW else _enhanced(raw, SAMPLE_RATE_HZ, tap, provider)


def mono_pieces(reader: SoundReader) -> Iterator[Samples]:
    """The reader's sound, mono at the recogniser's rate, in pieces [n]."""
    from engine.resample import FileResampler
    from engine.vad import SAMPLE_RATE_HZ

    down = FileResampler(reader.sample_rate_hz, SAMPLE_RATE_HZ)
    for block in reader.blocks():
        yield down.process(block.mean(axis=1))
    yield down.process(np.zeros(0, dtype=np.float32), last=True)


def _enhanced(sound: Iterator[Samples], rate_hz: int, tap: CaptionTap, provider: str) -> Iterator[Samples]:
    from engine.artefacts import shared_models
    from engine.pipeline import Stream

    only = tap is CaptionTap.TOKENS
    background = Background.parse("drop" if only else str(LEFT_FOR_RECOGNISER_DB))
    models = shared_models(Provider(provider))
    stream = Stream(models, rate_hz, live=False, background=background, tokens_only=only)
    for piece in sound:
        yield stream.process(piece)
    yield stream.flush()


def _write_captions(words: Sequence[Word], out: Path | None, form: str, language: str | None) -> None:
    from engine.captions import format_captions, write_captions

    if out is None:
        sys.stdout.write(format_captions(words, form, language))
        sys.stdout.flush()
    else:
        write_captions(words, out, form, language)
        console.say(f"wrote {out}: {len(words)} words")
