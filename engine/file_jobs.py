"""One sound file from a batch: enhanced beside its source, with voice and background alone and captions where wanted.

The sound is what `enhance_file` makes of it; captions are those of the voice, whatever background was asked for. What
is written has a name of its own that was free when the job was planned: nothing that is there is ever replaced.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from engine.artefacts import shared_models
from engine.files import enhance_file
from engine.soundfiles import SoundReader
from engine.stems import StemPaths
from engine.taps import enhanced_pieces, mono_pieces
from engine.types import DEFAULT_WHISPER, Provider, SottovoceError, Word

WORDS_SHARE = 0.5  # of the whole, where captions are wanted; the two take about as long
# A name has 255 bytes at most, and the longest one has this around what it is named after.
STEM_BYTES = 255 - len("..sottovoce-9999.background.99999999.part.wav")
ENDINGS = (".wav", ".speech.wav", ".background.wav", ".srt")


@dataclass(frozen=True)
class FileJob:
    """What is to be done with one file; `target` is the enhanced sound, and everything else is named after it."""

    source: str
    target: str
    background: str = "drop"
    stems: bool = False
    captions: bool = False
    language: str | None = "en"
    provider: str = Provider.AUTO.value
    whisper: str = DEFAULT_WHISPER

    @classmethod
    def plan(cls, source: Path, folder: Path | None = None, **fields: Any) -> Self:
        """A job whose files go beside the source, or into a folder, under a name of which nothing is there yet.

        Raises OSError when it cannot be seen what is there.
        """
        stem = source.stem
        while len(os.fsencode(stem)) > STEM_BYTES:
            stem = stem[:-1]
        for number in itertools.count(1):
            base = (folder or source.parent) / (f"{stem}.sottovoce" + (f"-{number}" if number > 1 else ""))
            if not any(named(base, ending).exists() for ending in ENDINGS):
                break
        return cls(str(source), str(named(base, ".wav")), **fields)

    def beside(self, ending: str) -> Path:
        """Another file of the same job."""
        return named(Path(self.target).with_suffix(""), ending)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What became of a job. stopped: by a person; sound_s: what the files hold; warnings: one line each."""

    sound_s: float
    stopped: bool = False
    warnings: tuple[str, ...] = ()
    real_time_factor: float = 0.0


def named(base: Path, ending: str) -> Path:
    """`base` with something after it, whatever dots are in its name."""
    return base.with_name(base.name + ending)


def run_job(job: FileJob, progress: Callable[[float], None]) -> Outcome:
    """Do it; progress is called with the part done, 0 to 1. An interrupt keeps what was done so far, as `enhance` does.

    Raises SottovoceError when there is no sound to show for it, and then nothing is left.
    """
    share = 1.0 - WORDS_SHARE if job.captions else 1.0
    done_s, began = 0.0, time.perf_counter()

    def told(seconds: float, total_s: float | None) -> None:
        nonlocal done_s
        done_s = seconds
        progress(share * min(1.0, seconds / total_s) if total_s else 0.0)

    paths = StemPaths(job.beside(".speech.wav"), job.beside(".background.wav")) if job.stems else None
    try:
        report = enhance_file(
            job.source, job.target, job.background, provider=Provider(job.provider), progress=told, stems=paths
        )
    except KeyboardInterrupt:
        return Outcome(done_s if Path(job.target).exists() else 0.0, stopped=True)
    warnings, stopped = list(report.warnings), False
    if job.captions:
        try:
            _caption(job, report.duration_s, lambda part: progress(share + WORDS_SHARE * part))
        except KeyboardInterrupt:
            stopped = True
        except SottovoceError as error:
            warnings.append(f"no captions: {error}")
    factor = (time.perf_counter() - began) / report.duration_s
    return Outcome(report.duration_s, stopped, tuple(warnings), factor)


def _caption(job: FileJob, total_s: float, progress: Callable[[float], None]) -> None:
    """Write what is said; what was recognised before an interrupt is kept."""
    from engine.captions import write_captions
    from engine.recognizer import recognise_file

    words: list[Word] = []
    spoken: list[str | None] = [job.language]
    try:
        with SoundReader(job.source) as reader:
            recognise_file(
                enhanced_pieces(shared_models(Provider(job.provider)), mono_pieces(reader)),
                job.language,
                model=job.whisper,
                progress=lambda seconds: progress(min(1.0, seconds / total_s)),
                found=spoken.append,
                words=words,
            )
    except KeyboardInterrupt:
        if words:
            write_captions(words, job.beside(".srt"), "srt", job.language)
        raise
    write_captions(words, job.beside(".srt"), "srt", spoken[-1])
