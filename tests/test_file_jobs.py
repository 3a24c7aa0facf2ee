"""Files of a batch: the same sound as `enhance` makes, names that are free, an end that keeps what was done."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import Models
from engine.file_jobs import FileJob, run_job
from engine.file_worker import WORKER
from engine.files import enhance_file
from engine.paths import assets_dir
from engine.resample import FileResampler
from engine.soundfiles import SoundReader, SoundWriter
from engine.stems import StemPaths, Stems
from engine.taps import mono_pieces
from engine.types import AudioFileError, Samples, UsageError, Word
from tests.live_run import tiny

__all__ = ["tiny"]
ROOT = Path(__file__).resolve().parent.parent


def sound(path: Path, seconds: float = 2.0, rate_hz: int = 44_100, channels: int = 2) -> Samples:
    x = (0.1 * np.random.default_rng(5).standard_normal((round(seconds * rate_hz), channels))).astype(np.float32)
    soundfile.write(path, x, rate_hz, subtype="FLOAT")
    return x


@pytest.fixture
def tiny_jobs(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> Models:
    """Jobs use the tiny models."""
    for module in ("files", "file_jobs"):
        monkeypatch.setattr(f"engine.{module}.shared_models", lambda provider=None: tiny)
    return tiny


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    source = tmp_path / "talk.v2.m4a"
    assert FileJob.plan(source).target == str(tmp_path / "talk.v2.sottovoce.wav")
    (tmp_path / "talk.v2.sottovoce.srt").touch()
    job = FileJob.plan(source)
    assert job.target == str(tmp_path / "talk.v2.sottovoce-2.wav")
    assert job.beside(".speech.wav") == tmp_path / "talk.v2.sottovoce-2.speech.wav"
    assert FileJob.plan(source, tmp_path / "to").target == str(tmp_path / "to" / "talk.v2.sottovoce.wav")


@pytest.mark.parametrize("letter", ["a", "ä", "語"])
def test_a_long_name_is_shortened_until_all_that_is_made_of_it_fits(
    tiny_jobs: Models, tmp_path: Path, letter: str
) -> None:
    source = tmp_path / (letter * (251 // len(letter.encode())) + ".wav")
    sound(source)
    outcome = run_job(first := FileJob.plan(source, stems=True), lambda part: None)
    assert outcome.sound_s == pytest.approx(2.0)
    assert Path(first.target).name.startswith(letter * 60)
    second = FileJob.plan(source)
    assert second.target == first.target.removesuffix(".wav") + "-2.wav"
    assert sorted(path.name[-15:] for path in tmp_path.iterdir() if path != source) == sorted(
        str(path)[-15:] for path in (first.target, first.beside(".speech.wav"), first.beside(".background.wav"))
    )


def test_voice_and_background_add_up_to_what_was_heard(tiny_jobs: Models, tmp_path: Path) -> None:
    x = sound(tmp_path / "a.wav")
    job = FileJob.plan(tmp_path / "a.wav", stems=True)
    parts: list[float] = []
    outcome = run_job(job, parts.append)
    assert not outcome.stopped and outcome.warnings == ()
    assert parts == sorted(parts) and parts[-1] == 1.0
    both = [soundfile.read(job.beside(f".{name}.wav"), dtype="float32")[0] for name in ("speech", "background")]
    expected = FileResampler(44_100, 16_000, channels=2).process(x, last=True)
    assert both[0].shape == both[1].shape == expected.shape
    np.testing.assert_allclose(both[0] + both[1], expected, atol=1e-5)
    enhance_file(tmp_path / "a.wav", tmp_path / "plain.wav", models=tiny_jobs)
    plain, made = (soundfile.read(path, dtype="float32")[0] for path in (tmp_path / "plain.wav", job.target))
    np.testing.assert_array_equal(plain, made)


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupt_keeps_what_was_done_or_leaves_nothing(tiny_jobs: Models, tmp_path: Path, after: int) -> None:
    sound(tmp_path / "a.wav", 5.0)
    job, told = FileJob.plan(tmp_path / "a.wav", stems=True, captions=True), 0

    def progress(part: float) -> None:
        nonlocal told
        told += 1
        if told == after:
            raise KeyboardInterrupt

    if after:
        outcome = run_job(job, progress)
        assert outcome.stopped and 1.0 < outcome.sound_s < 4.0
        frames = soundfile.info(job.target).frames
        assert frames == round(outcome.sound_s * 44_100)
        assert soundfile.info(job.beside(".speech.wav")).frames == pytest.approx(frames * 16 / 44.1, abs=1)
        assert len(list(tmp_path.iterdir())) == 4
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("engine.files._enhanced", interrupted)
            assert run_job(job, progress).sound_s == 0.0
        assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def interrupted(*_: object) -> Iterator[Samples]:
    yield np.zeros((0, 2), dtype=np.float32)
    raise KeyboardInterrupt


def full(writer: SoundWriter, x: Samples) -> None:
    raise writer._full() from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def not_finite(path: Path) -> None:
    x = sound(path)
    x[50_000] = np.nan
    soundfile.write(path, x, 44_100, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("no sound at all"), "convert it to WAV"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: None, "does not exist"),
        (not_finite, "no finite number at 1.134 s"),
    ],
)
def test_what_cannot_be_worked_on_leaves_nothing(
    tiny_jobs: Models, tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    make(tmp_path / "a.wav")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AudioFileError, match=told):
        run_job(FileJob.plan(tmp_path / "a.wav", stems=True), lambda part: None)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("which", ["write", "finish"])
def test_a_full_disk_leaves_nothing(
    tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    sound(tmp_path / "a.wav")
    if which == "write":
        monkeypatch.setattr(SoundWriter, "write", full)
    else:
        finish = SoundWriter.finish

        def fails_last(writer: SoundWriter) -> None:
            if writer.path.name.endswith("sottovoce.wav"):
                raise writer._full()
            finish(writer)

        monkeypatch.setattr(SoundWriter, "finish", fails_last)
    with pytest.raises(AudioFileError, match="make room"):
        run_job(FileJob.plan(tmp_path / "a.wav", stems=True), lambda part: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_cut_file_is_worked_on_as_far_as_it_goes(tiny_jobs: Models, tmp_path: Path) -> None:
    sound(tmp_path / "a.flac.wav", 3.0)
    soundfile.write(tmp_path / "a.flac", soundfile.read(tmp_path / "a.flac.wav")[0], 44_100)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) * 2 // 3])
    outcome = run_job(FileJob.plan(tmp_path / "a.flac"), lambda part: None)
    assert 1.0 <= outcome.sound_s < 2.5
    assert "ends early" in outcome.warnings[0]


def test_captions_that_fail_cost_the_captions_alone(
    tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound(tmp_path / "a.wav")

    def fails(*_: object, **__: object) -> list[Word]:
        raise UsageError("Whisper is missing; run: sottovoce models get base")

    monkeypatch.setattr("engine.recognizer.recognise_file", fails)
    job = FileJob.plan(tmp_path / "a.wav", captions=True)
    outcome = run_job(job, lambda part: None)
    assert "no captions: Whisper is missing" in outcome.warnings[0]
    assert Path(job.target).exists() and not job.beside(".srt").exists()


def test_captions_are_those_of_the_voice(tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "a.wav")
    heard: list[np.ndarray] = []

    def recognise(pieces: Iterator[np.ndarray], *_: object, **__: object) -> list[Word]:
        heard.extend(pieces)
        return []

    monkeypatch.setattr("engine.recognizer.recognise_file", recognise)
    for background in ("keep", "drop"):
        run_job(FileJob.plan(tmp_path / "a.wav", background=background, captions=True), lambda part: None)
    with SoundReader(tmp_path / "a.wav") as reader:
        source = np.concatenate(list(mono_pieces(reader)))
    kept, dropped = np.split(np.concatenate(heard), 2)
    assert np.array_equal(kept, dropped)
    assert len(kept) == len(source)
    assert 0.1 < np.std(kept) / np.std(source) < 0.99  # part of it is taken away


def test_captions_stopped_midway_are_kept(tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "a.wav")

    def stopped(*_: object, words: list[Word], **__: object) -> list[Word]:
        words.append(Word("hello", 0.1, 0.5))
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.recognizer.recognise_file", stopped)
    job = FileJob.plan(tmp_path / "a.wav", captions=True)
    outcome = run_job(job, lambda part: None)
    assert outcome.stopped and outcome.sound_s == pytest.approx(2.0)
    assert "hello" in job.beside(".srt").read_text()


def worked(job: FileJob, stop_at: float | None = None) -> list[dict[str, object]]:
    """What the process says; its input is closed when it has told of so much."""
    process = subprocess.Popen(
        [*WORKER, json.dumps(job.to_dict())], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    said: list[dict[str, object]] = []
    with process:
        for line in process.stdout:
            said.append(json.loads(line))
            if stop_at is not None and float(str(said[-1].get("part", 0.0))) >= stop_at and not process.stdin.closed:
                process.stdin.close()
    return said


def test_the_process_makes_what_enhance_makes_bit_for_bit(tmp_path: Path) -> None:
    x, rate_hz = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", frames=3 * 48_000)
    soundfile.write(tmp_path / "a.wav", x, rate_hz)
    job = FileJob.plan(tmp_path / "a.wav", background="swap:rain@-6", provider="cpu")
    assert worked(job)[-1]["outcome"]["stopped"] is False  # type: ignore[index]
    out = tmp_path / "plain.wav"
    command = [sys.executable, "-m", "app.cli", "enhance", str(tmp_path / "a.wav"), str(out)]
    subprocess.run([*command, "--background", "swap:rain@-6", "--provider", "cpu"], cwd=ROOT, check=True)
    assert out.read_bytes() == Path(job.target).read_bytes()


def test_the_process_keeps_what_was_done_when_its_parent_goes(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 120.0, 16_000, 1)
    job = FileJob.plan(tmp_path / "a.wav", provider="cpu")
    outcome = worked(job, stop_at=0.01)[-1]["outcome"]
    assert outcome["stopped"] is True  # type: ignore[index]
    assert 1.0 <= soundfile.info(job.target).duration < 119.0
    assert len(list(tmp_path.iterdir())) == 2


LATE = """
import signal, sys
from engine import file_jobs, file_worker
file_jobs.run_job = lambda job, progress: file_jobs.Outcome(3.0)
def late(*_): raise KeyboardInterrupt
signal.signal = late  # the first thing that is done after the work
sys.exit(file_worker.main())
"""


def test_an_interrupt_after_the_work_changes_nothing_in_what_is_told(tmp_path: Path) -> None:
    job = json.dumps(FileJob.plan(tmp_path / "a.wav").to_dict())
    command = [sys.executable, "-c", LATE, job]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()  # its input stays open so long
    assert json.loads(said)["outcome"] == {"sound_s": 3.0, "stopped": False, "warnings": [], "real_time_factor": 0.0}


@pytest.mark.parametrize("last", [".speech.wav", "sottovoce.wav"])
def test_an_interrupt_when_a_file_has_just_its_name_keeps_all(
    tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    sound(tmp_path / "a.wav")
    replace = os.replace

    def interrupted_after(source: Path, target: Path) -> None:
        replace(source, target)
        if str(target).endswith(last):
            raise KeyboardInterrupt

    monkeypatch.setattr("engine.soundfiles.os.replace", interrupted_after)
    job = FileJob.plan(tmp_path / "a.wav", stems=True)
    outcome = run_job(job, lambda part: None)
    assert outcome.stopped and outcome.sound_s == pytest.approx(2.0)
    assert soundfile.info(job.target).duration == pytest.approx(2.0)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(("frames", "form"), [(None, "WAV"), (2**30, "RF64")])
def test_stems_of_very_long_sound_may_grow_beyond_4_gb(
    tiny: Models, tmp_path: Path, frames: int | None, form: str
) -> None:
    paths = StemPaths(tmp_path / "s.wav", tmp_path / "b.wav")
    stems = Stems(paths, tiny.info, 1, 0, False, frames)
    stems.finish()
    assert {soundfile.info(path).format for path in tmp_path.iterdir()} == {form}


def test_the_length_of_stems_is_known_before(
    tiny_jobs: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound(tmp_path / "a.wav")
    monkeypatch.setattr("engine.soundfiles.WAV_LIMIT_BYTES", 4 * 2 * 16_000)  # 1 s of them
    job = FileJob.plan(tmp_path / "a.wav", stems=True)
    run_job(job, lambda part: None)
    assert soundfile.info(job.beside(".speech.wav")).format == "RF64"


def test_stems_go_where_nothing_lies(tiny: Models, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "s.wav").touch()
    with pytest.raises(UsageError, match="is there already"):
        enhance_file(
            tmp_path / "a.wav", tmp_path / "o.wav", models=tiny, stems=StemPaths(tmp_path / "s.wav", tmp_path / "b.wav")
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "s.wav"]
