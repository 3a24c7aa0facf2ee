"""Whole files: enhance, caption, encode, decode. What the engine reports is told here; the work is the engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app import console
from engine.files import decode_file, encode_file, enhance_file
from engine.types import Background, Provider


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
