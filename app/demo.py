"""`sottovoce demo`: a noisy recording in real time through the live engine; what came of it as files and a picture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app import console
from app.commands_live import HURRY_S, POLL_S, positive_seconds, summary
from app.live_view import LiveView, joined
from engine.captions import normalised
from engine.types import Background, CaptionTap, EngineConfig, Provider, Samples, TokenFileError, UsageError, Word

if TYPE_CHECKING:
    from app.report import Report
    from engine.ports import SourceInput
    from engine.soundfiles import SoundReader

REPORT_NAME = "report.png"
TITLE = "sottovoce demo"  # what the tokens call themselves: what lies beside them, the next demo may replace
MAX_PICTURE_S = 600.0  # of a longer recording, the picture shows the beginning


@dataclass(frozen=True)
class DemoRequest:
    """The options of `sottovoce demo`; without a file it is the shipped recording."""

    file: Path | None
    out: Path
    seconds: float | None
    captions: bool
    background: str
    provider: str


def shipped_recording() -> Path:
    """The recording in assets/, verified. Raises ArtefactError."""
    from engine.artefacts import checked_file
    from engine.paths import assets_dir

    return checked_file(assets_dir(), "demo")


def open_recording(path: Path, seconds: float) -> SourceInput:
    """A recording as a microphone: any sound file, mixed to mono, cut after `seconds`. Raises AudioFileError."""
    from engine.ports import FALLBACK_RATE_HZ, SourceInput
    from engine.resample import LIVE_RATES_HZ
    from engine.soundfiles import SoundReader

    with SoundReader(path) as whole:  # once through: what is no sound, or no number, is told before anything starts
        for _ in whole.blocks():
            if whole.frames_read > seconds * whole.sample_rate_hz:
                break
    reader = SoundReader(path)
    rate_hz = reader.sample_rate_hz if reader.sample_rate_hz in LIVE_RATES_HZ else FALLBACK_RATE_HZ
    return SourceInput(str(path), rate_hz, _mono(reader, seconds, rate_hz))


def _mono(reader: SoundReader, seconds: float, rate_hz: int) -> Iterator[Samples]:
    """The reader's sound, mixed, cut, at rate_hz."""
    from engine.resample import FileResampler

    left = int(min(seconds * reader.sample_rate_hz, 2**62))
    resampler = FileResampler(reader.sample_rate_hz, rate_hz)
    with reader:
        for block in reader.blocks():
            yield resampler.process(block[:left].mean(axis=1))
            left -= len(block)
            if left <= 0:
                break
    yield resampler.process(np.zeros(0, dtype=np.float32), last=True)


def run_demo(request: DemoRequest) -> int:
    """Play, caption, record, draw. After Ctrl-C the same is done with what was played until then."""
    seconds = positive_seconds(request.seconds)
    background = Background.parse(request.background)
    path = request.file or shipped_recording()
    source = open_recording(path, seconds)
    _make_room(request.out, path)
    config = EngineConfig(
        background=background,
        provider=Provider(request.provider),
        captions=request.captions,
        tap=CaptionTap.ENHANCED,
        record_dir=str(request.out),
        record_title=TITLE,
    )
    view = LiveView(request.captions)
    status = _play(config, source, view)
    view.close()
    for line in summary(view):
        console.say(line)
    if view.words:
        whole = request.file is None and request.seconds is None and status == console.DONE
        console.say(caption_figures(view, spoken_text(path) if whole else None))
    if status != console.INTERRUPTED or recorded_seconds(request.out) > 0.0:
        _finish(request.out, view, f"{path.name}, background {background}")
    return status


def spoken_text(recording: Path) -> str | None:
    """What is said in the shipped recording, where its text is beside it."""
    text = recording.with_suffix(".txt")
    return text.read_text(encoding="utf-8") if text.is_file() else None


def caption_figures(view: LiveView, spoken: str | None) -> str:
    """How many words, how soon they were final, and how many were wrong where it is known what was said."""
    after_s = view.final_after_s
    figures = f"captions: {len(view.words)} words, final {np.median(after_s):.1f} s after they ended"
    figures += f" (median; 95 % after {np.percentile(after_s, 95):.1f}, all after {max(after_s):.1f})"
    if spoken is None:
        return figures
    said = [w for w in map(normalised, spoken.split()) if w]
    heard = [w for w in map(normalised, joined(view.words).split()) if w]
    return f"{figures}, word error rate {100.0 * word_errors(said, heard) / len(said):.1f} % of {len(said)}"


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to change, leave out or put in that make one of the other."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, 1):
        before, row[0] = row[0], count
        for at, other in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1]


def _make_room(folder: Path, source: Path) -> None:
    """Remove what an earlier demo left. Raises UsageError for anything else of these names, which is somebody's work,
    and where the source is among it."""
    from engine.recorder import recorded_files

    report = folder / REPORT_NAME
    files = [*recorded_files(folder), *([report] if report.exists() else [])]
    if files and not _is_demos(folder):
        raise UsageError(f"{folder} holds what may be no demo's; name another folder with --out, or move that away")
    if any(path.samefile(source) for path in files):
        raise UsageError(
            f"{source} is of an earlier demo, which this one would replace; name another folder with --out"
        )
    for path in files:
        path.unlink(missing_ok=True)


def _is_demos(folder: Path) -> bool:
    """Whether the recording there is one, which its tokens say from its first moment on."""
    from engine.recorder import TOKENS_NAME
    from engine.token_reader import SvtReader

    try:
        return SvtReader(folder / TOKENS_NAME).header.title == TITLE
    except TokenFileError:
        return False


def _play(config: EngineConfig, source: SourceInput, view: LiveView) -> int:
    """The recording through the engine, to its end or to Ctrl-C -> exit status."""
    from engine.live import Engine

    engine = Engine(config, source=source)
    status = console.DONE
    engine.start()
    try:
        while not engine.finished:
            time.sleep(POLL_S)
            view.take(engine.poll())
    except KeyboardInterrupt:
        status = console.INTERRUPTED
        engine.stop(HURRY_S)
    else:
        engine.stop()
    view.take(engine.poll())
    stopped = [problem for problem in view.problems if problem.state == "stopped"]
    return console.FAILED if stopped else status


def recorded_seconds(folder: Path) -> float:
    """How much of the recording was played."""
    from engine.recorder import TOKENS_NAME
    from engine.token_reader import read_svt

    return read_svt(folder / TOKENS_NAME).header.duration_s


def _finish(folder: Path, view: LiveView, title: str) -> None:
    """The report, and what is where."""
    from app.report import draw_report

    parts_ms = dict(view.stats.delay_parts_ms) if view.stats is not None else {}
    report = gather(folder, view.words, title, parts_ms.get("resampling in", 0.0))
    draw_report(report, folder / REPORT_NAME)
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    console.say(f"{folder} holds {', '.join(names)}")


def gather(folder: Path, words: Sequence[Word], title: str, late_ms: float) -> Report:
    """The recording in `folder` as its picture wants it: at the models' rate, tokens decoded alone for their error.

    late_ms: how far the encoder was behind the input, because live resampling takes time.
    """
    from app.report import Report, error_db
    from engine.artefacts import shared_models
    from engine.files import TokenDecoder
    from engine.recorder import TOKENS_NAME
    from engine.token_reader import read_svt

    models = shared_models(Provider.CPU)
    info = models.info
    mixture = _sound(folder / "input.wav", info.sample_rate_hz)
    output = _sound(folder / "output.wav", info.sample_rate_hz)
    tokens = read_svt(folder / TOKENS_NAME)
    decoder = TokenDecoder(models, Background.parse("keep"))
    frames = min(tokens.codes_s.shape[1], -(-len(mixture) // info.hop_samples))
    hops = [decoder.step(tokens.codes_s[:, t], tokens.codes_b[:, t]) for t in range(frames)]
    late = info.lag_tokens + round(late_ms * info.sample_rate_hz / 1000.0)
    decoded = np.concatenate([*hops, np.zeros(late, np.float32)])[late:]
    return Report(
        title=title,
        sample_rate_hz=info.sample_rate_hz,
        hop_s=info.hop_samples / info.sample_rate_hz,
        mixture=mixture,
        output=output,
        codes_s=tokens.codes_s[:, :frames],
        codes_b=tokens.codes_b[:, :frames],
        error_db=error_db(mixture, decoded, info.hop_samples),
        words=words,
    )


def _sound(path: Path, rate_hz: int) -> Samples:
    """The first MAX_PICTURE_S of a mono file at another rate, [N]."""
    from engine.resample import FileResampler
    from engine.soundfiles import SoundReader

    with SoundReader(path) as reader:
        resampler = FileResampler(reader.sample_rate_hz, rate_hz)
        blocks = []
        for block in reader.blocks():
            blocks.append(resampler.process(block[:, 0]))
            if reader.frames_read >= MAX_PICTURE_S * reader.sample_rate_hz:
                break
        blocks.append(resampler.process(np.zeros(0, dtype=np.float32), last=True))
    return np.concatenate(blocks)
