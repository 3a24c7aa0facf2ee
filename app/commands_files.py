"""Whole files: enhance, caption, encode, decode. What the engine reports is told here; the work is the engine's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app import console
from engine.files import decode_file, encode_file, enhance_file
from engine.types import (
    DEFAULT_WHISPER,
    Background,
    CaptionTap,
    Provider,
    UsageError,
    Word,
)

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
    whisper: str = DEFAULT_WHISPER
    adapter: bool = False


def caption(request: CaptionRequest) -> int:
    """Raises SottovoceError. After Ctrl-C the words recognised until then are written."""
    from engine.recognizer import recognise_file
    from engine.soundfiles import check_target

    form = _caption_format(request)
    if request.out is not None:
        check_target(request.source, request.out, request.force)
    words: list[Word] = []
    spoken: list[str | None] = []
    with _opened(request) as heard:
        try:
            with working(f"caption {request.source.name}", None) as progress:
                recognise_file(
                    heard.pieces,
                    request.language,
                    model=request.whisper,
                    codec_id=heard.codec_id,
                    adapter=request.adapter,
                    progress=lambda seconds: progress(seconds, heard.duration_s),
                    found=spoken.append,
                    words=words,
                )
        except KeyboardInterrupt:
            if words:
                _write_captions(words, request.out, form, spoken[0] if spoken else request.language)
            return console.INTERRUPTED
        if warning := heard.warning():
            console.warn(warning)
    _write_captions(words, request.out, form, spoken[0] if spoken else request.language)
    return console.DONE


@dataclass(frozen=True)
class _Heard:
    """What the recogniser is given: pieces of sound, or where there is a codec_id, of sound with its tokens.

    warning: what is to be told of the file, once it is read.
    """

    pieces: Any
    codec_id: str | None
    duration_s: float | None
    warning: Callable[[], str | None]


@contextmanager
def _opened(request: CaptionRequest) -> Iterator[_Heard]:
    """The source as the tap wants it: mono, at the recogniser's rate. Raises SottovoceError.

    Where no bridge takes tokens to this size of Whisper, what they decode to is heard in their place.
    """
    from engine.soundfiles import SoundReader
    from engine.token_words import has_bridge
    from engine.tokens import holds_tokens

    tap, stored = CaptionTap(request.tap), holds_tokens(request.source)
    bridged = tap is CaptionTap.TOKENS and has_bridge() and request.whisper == DEFAULT_WHISPER
    if stored and tap is not CaptionTap.TOKENS:
        raise UsageError(f"{request.source} holds tokens and no sound; add --from tokens")
    if tap is CaptionTap.TOKENS and not bridged:
        console.warn(f"no bridge leads from tokens to Whisper {request.whisper}; what they decode to is heard instead")
    if stored:
        from engine.artefacts import shared_models
        from engine.taps import stored_pieces
        from engine.token_reader import SvtReader

        models, tokens = shared_models(Provider(request.provider)), SvtReader(request.source)
        if (channels := tokens.header.channels) > 1:
            console.warn(
                f"{request.source} has {channels} channels, and words are written from the tokens of the first alone; "
                "decode it and caption that for all of them"
            )
        pieces = stored_pieces(models, tokens)
        codec_id = models.info.codec_id if bridged else None
        whole = pieces if bridged else (voice for voice, _ in pieces)
        yield _Heard(whole, codec_id, tokens.duration_s, lambda: tokens.warning)
        return
    with SoundReader(request.source) as reader:
        sound, codec_id = _tapped(reader, tap, bridged, request.provider)
        yield _Heard(sound, codec_id, reader.duration_s, lambda: reader.warning)


def _caption_format(request: CaptionRequest) -> str:
    """The format asked for, or OUT's extension's, or srt. Raises UsageError."""
    from engine.captions import FORMATS, format_named

    if request.form is not None:
        return request.form
    form = format_named(request.out) if request.out is not None else FORMATS[0]
    if form is None:
        raise UsageError(f"{request.out} has no caption format's extension; add --format {'|'.join(FORMATS)}")
    return form


def _tapped(reader: SoundReader, tap: CaptionTap, bridged: bool, provider: str) -> tuple[Any, str | None]:
    """A sound file's pieces [n], and None; or where words come from tokens, pieces with them, and the codec's id."""
    from engine.artefacts import shared_models
    from engine.taps import enhanced_pieces, mono_pieces, token_pieces

    raw = mono_pieces(reader)
    if tap is CaptionTap.RAW:
        return raw, None
    models = shared_models(Provider(provider))
    if bridged:
        return token_pieces(models, raw), models.info.codec_id
    return enhanced_pieces(models, raw, tokens_only=tap is CaptionTap.TOKENS), None


def _write_captions(words: Sequence[Word], out: Path | None, form: str, language: str | None) -> None:
    from engine.captions import format_captions, write_captions

    if out is None:
        sys.stdout.write(format_captions(words, form, language))
        sys.stdout.flush()
    else:
        write_captions(words, out, form, language)
        console.say(f"wrote {out}: {len(words)} words")
