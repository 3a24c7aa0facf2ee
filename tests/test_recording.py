"""A recording begun and ended in the midst of a run: aligned, without a click, complete, and found after a crash."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from engine.artefacts import Models
from engine.live import Engine
from engine.meters import LiveHop
from engine.paths import config_dir
from engine.recorder import WAV_NAMES, WavWriter
from engine.recording import LiveRecording, Recordings
from engine.side import Side
from engine.token_reader import read_svt
from engine.types import (
    Caption,
    EngineConfig,
    Event,
    Levels,
    Problem,
    RecordingChange,
    Samples,
    Stats,
    UsageError,
    Word,
)
from engine.unfinished import NOTES, OpenNote, repair_unfinished
from tests.live_run import DROP, events_until, last_stats, memory_engine, noise, tiny
from tests.pulse import RATE_HZ
from tests.test_recorder import INFO, recorder

__all__ = ["tiny"]
RUN = """
import sys, time
from pathlib import Path
from engine.live import Engine
from tests.live_run import memory_engine, noise
from tests import tiny_models
from engine.artefacts import load_models
from engine.types import Provider
models = load_models(Provider.CPU, tiny_models.build(Path(sys.argv[1])))
engine, _ = memory_engine(models, noise(60.0))
engine.start()
engine.record(sys.argv[2])
while True:
    engine.poll()
    time.sleep(0.05)
"""


def changes(events: list[Event]) -> list[RecordingChange]:
    return [event for event in events if isinstance(event, RecordingChange)]


def ended(events: list[Event]) -> bool:
    return any(change.duration_s is not None for change in changes(events))


def clock_s(events: list[Event]) -> float:
    return max((event.time_s for event in events if isinstance(event, Levels)), default=0.0)


def sounds(folder: Path) -> dict[str, Samples]:
    return {name: soundfile.read(folder / name, dtype="float32")[0] for name in WAV_NAMES}


def recorded_part(engine: Engine, folder: Path, length_s: float = 0.6) -> list[Event]:
    """Records a part of what runs, with sound before and behind it -> the events."""
    events = events_until(engine, lambda seen: clock_s(seen) > 0.5)
    engine.record(str(folder))
    until_s = clock_s(events) + length_s
    events += events_until(engine, lambda seen: clock_s(seen) > until_s)
    engine.end_recording()
    return events + events_until(engine, ended)


def test_a_part_of_a_run_lies_where_poll_says(tiny: Models, tmp_path: Path) -> None:
    x = noise(30.0)
    engine, _ = memory_engine(tiny, x)
    with engine:
        events = recorded_part(engine, tmp_path / "r")
    begun, over = changes(events)
    assert begun.duration_s is None and begun.begun_s == over.begun_s > 0.4
    assert over.folder == str(tmp_path / "r")
    assert over.duration_s is not None and over.duration_s > 0.5
    sound = sounds(tmp_path / "r")
    start = round(over.begun_s * RATE_HZ)
    length = round(over.duration_s * RATE_HZ)
    assert {name: len(s) for name, s in sound.items()} == {
        "input.wav": length, "output.wav": length, "speech.wav": length // 3, "background.wav": length // 3,
    }  # fmt: skip
    np.testing.assert_allclose(sound["input.wav"], x[start : start + length], atol=2**-23)
    # kept as it is, the output is the input: to the very end, although it comes later
    np.testing.assert_array_equal(sound["output.wav"], sound["input.wav"])
    assert np.abs(sound["speech.wav"][-100:] + sound["background.wav"][-100:]).max() > 0.01
    assert read_svt(tmp_path / "r" / "tokens.svt").header.duration_s == pytest.approx(over.duration_s)


def test_to_record_leaves_no_mark_in_what_is_heard(tiny: Models, tmp_path: Path) -> None:
    """A low tone has no step that the tone itself does not have."""
    t = np.arange(30 * RATE_HZ) / RATE_HZ
    engine, sink = memory_engine(tiny, (0.3 * np.sin(2 * np.pi * 50.0 * t)).astype(np.float32))
    with engine:
        events = events_until(engine, lambda seen: clock_s(seen) > 0.3)
        begun = len(sink.samples)
        events += recorded_part(engine, tmp_path / "r", 0.3)
        heard = sink.samples[begun:]
        events += events_until(engine, lambda seen: any(isinstance(event, Stats) for event in seen))
        if last_stats(events).dropouts:
            pytest.xfail("the machine was too busy to play without a break, so there is a step of that kind")
    assert np.abs(np.diff(heard)).max() < 0.003  # the tone's own is 0.002


def test_one_after_the_other_and_never_two(tiny: Models, tmp_path: Path) -> None:
    engine, _ = memory_engine(tiny, noise(30.0), DROP)
    with pytest.raises(UsageError, match="start it first"):
        engine.record(str(tmp_path / "0"))
    with engine:
        with pytest.raises(UsageError, match="begin one first"):
            engine.end_recording()
        events = recorded_part(engine, tmp_path / "1", 0.2)
        engine.record(str(tmp_path / "2"))
        with pytest.raises(UsageError, match="end it first"):
            engine.record(str(tmp_path / "3"))
        events += events_until(engine, lambda seen: bool(changes(seen)))
    events += engine.poll()
    first, second = (change for change in changes(events) if change.duration_s is not None)
    assert second.begun_s >= first.begun_s + (first.duration_s or 0.0)
    assert len(sounds(tmp_path / "2")["input.wav"]) == round((second.duration_s or 0.0) * RATE_HZ)
    assert not (tmp_path / "3").exists()
    assert not list((config_dir() / NOTES).iterdir())


def test_a_full_disk_is_told_and_the_run_goes_on(tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = memory_engine(tiny, noise(30.0))
    room = 40

    def write(writer: WavWriter, x: Samples, before: object = WavWriter.write) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise writer._failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        before(writer, x)  # type: ignore[operator]

    with engine:
        events_until(engine, lambda seen: clock_s(seen) > 0.3)
        monkeypatch.setattr(WavWriter, "write", write)
        engine.record(str(tmp_path / "r"))
        events = events_until(engine, ended)
        now_s = clock_s(events)
        events += events_until(engine, lambda seen: clock_s(seen) > now_s + 0.3)
        assert engine.state == "running"
    [problem] = [event for event in events if isinstance(event, Problem)]
    assert "make room" in problem.text and problem.state == "running"
    assert len(sounds(tmp_path / "r")["input.wav"]) == 10 * 960


class GoneFile(io.RawIOBase):
    """On a disk that was pulled out: nothing works but closing."""

    def fails(self, *_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write = truncate = seek = tell = fails


def test_a_disk_that_goes_away_costs_the_recording_and_the_next_one_works(tiny: Models, tmp_path: Path) -> None:
    engine, _ = memory_engine(tiny, noise(30.0))
    with engine:
        engine.record(str(tmp_path / "1"))
        events = events_until(engine, lambda seen: clock_s(seen) > 0.3)
        assert engine._side is not None and engine._side.recordings._current is not None
        for track in engine._side.recordings._current.recorder._tracks:
            there, track._file = track._file, GoneFile()  # type: ignore[assignment]
            there.close()
        events += events_until(engine, ended)
        [problem] = [event for event in events if isinstance(event, Problem)]
        assert "cannot be written" in problem.text and problem.state == "running"
        events = recorded_part(engine, tmp_path / "2", 0.2)
    assert not any(isinstance(event, Problem) for event in events)
    assert len(sounds(tmp_path / "2")["input.wav"]) > 0.1 * RATE_HZ


def test_what_fails_beside_the_sound_ends_the_recording_and_tells_of_it(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = memory_engine(tiny, noise(30.0))
    with engine:
        engine.record(str(tmp_path / "r"))
        events = events_until(engine, lambda seen: clock_s(seen) > 0.3)

        def fails(recordings: Recordings, time_s: float) -> None:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(Recordings, "look", fails)
            events += events_until(engine, ended)
        with pytest.raises(UsageError, match="begin one first"):
            engine.end_recording()
    over = changes(events)[-1]
    assert over.duration_s is not None and over.duration_s > 0.2
    assert len(sounds(tmp_path / "r")["input.wav"]) == round(over.duration_s * RATE_HZ)


def test_hops_lost_before_it_began_are_not_missing_in_it(tiny: Models, tmp_path: Path) -> None:
    """Captions ran, and the queue overflowed."""
    events: list[Event] = []
    side = Side(EngineConfig(captions=True), tiny.info, events.append, lambda: "running", lambda: None)
    side._queue_lost = 7
    side._drain_queue()
    side.recordings._current = LiveRecording(recorder(tmp_path / "r"), 960, RATE_HZ, 0)
    side._drain_queue()
    assert events == []
    side._queue_lost = 3
    side._drain_queue()
    assert ["3 hops are missing" in event.text for event in events if isinstance(event, Problem)] == [True]
    side.close(0.0)


def test_one_that_is_ended_while_no_sound_comes_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The microphone was pulled out, and nobody can say any more where it ends."""
    monkeypatch.setattr("engine.recording.STILL_S", 0.0)
    told: list[RecordingChange] = []
    recordings = Recordings(EngineConfig(), INFO, told.append, lambda text, state: None)
    recordings._current = LiveRecording(recorder(tmp_path / "r"), 960, RATE_HZ, 100)
    hear(recordings, 1.0, 2.0, False)
    recordings.end()
    deadline = time.monotonic() + 10.0
    while recordings.wants_sound:
        assert time.monotonic() < deadline
        recordings.look(2.0)
    assert {len(sound) for sound in sounds(tmp_path / "r").values()} == {RATE_HZ, RATE_HZ // 3}
    assert [change.duration_s for change in told] == [None, 1.0]


def hear(recordings: Recordings, begin_s: float, end_s: float, waits_for_words: bool) -> None:
    silence = np.zeros(960, dtype=np.float32)
    for position in range(round(begin_s * RATE_HZ) + 960, round(end_s * RATE_HZ) + 1, 960):
        hop = LiveHop(position / RATE_HZ, silence, silence, silence[:320], None, 0.0, 0.0)
        recordings.write(hop, waits_for_words)


def test_words_are_on_the_recordings_own_clock_and_may_come_late(tmp_path: Path) -> None:
    """Recorded from 1 s to 2 s of a run: a word is kept when it was spoken then, whenever it becomes final."""
    told: list[RecordingChange] = []
    recordings = Recordings(EngineConfig(captions=True), INFO, told.append, lambda text, state: None)
    recordings._current = LiveRecording(recorder(tmp_path / "r", captions=True), 960, RATE_HZ, 100)
    hear(recordings, 1.0, 2.0, True)
    recordings.caption(Caption(2.0, (Word("before", 0.2, 0.7), Word("into", 0.9, 1.2), Word("in", 1.4, 1.6)), (), 0.4))
    recordings.end()
    hear(recordings, 2.0, 2.1, True)
    assert [change.duration_s for change in told] == [None, 1.0]
    assert not recordings.wants_sound
    assert soundfile.info(tmp_path / "r" / "output.wav").frames == RATE_HZ  # it plays before the words are there
    recordings.caption(Caption(3.0, (Word("last", 1.8, 2.3), Word("after", 2.2, 2.4)), (), 0.4))
    captions = (tmp_path / "r" / "captions.srt").read_text()
    assert "into in last" in captions and "00:00:00,000 -->" in captions
    recordings.close(None, 3.0)
    words = read_svt(tmp_path / "r" / "tokens.svt").words
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("into", 0.0, 0.2), ("in", 0.4, 0.6), ("last", 0.8, 1.3),
    ]  # fmt: skip
    assert len(told) == 2


def test_after_a_kill_it_is_found_repaired_and_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "tiny"), str(folder)], cwd=Path(__file__).parent.parent
    )
    try:
        written, deadline = folder / "output.wav", time.monotonic() + 60
        while not (written.exists() and written.stat().st_size > 250_000) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert repair_unfinished() == []  # it still runs
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there_s = ((folder / "input.wav").stat().st_size - 80) / 3 / RATE_HZ
    [found] = repair_unfinished()
    assert found.folder == folder
    assert found.duration_s == pytest.approx(there_s, abs=1e-3)
    sound = sounds(folder)
    assert len(sound["input.wav"]) == len(sound["output.wav"]) == 3 * len(sound["speech.wav"])
    assert np.abs(sound["input.wav"][-960:]).max() > 0.05  # the last second, too
    tokens = read_svt(folder / "tokens.svt")
    assert tokens.warning is None and tokens.header.duration_s == pytest.approx(found.duration_s)
    assert repair_unfinished() == []


def left_open(folder: Path) -> list[Path]:
    """A recording of 0.1 s as a crash leaves it -> the notes."""
    recording = LiveRecording(recorder(folder), 960, RATE_HZ, 0)
    silence = np.zeros(960, dtype=np.float32)
    for position in range(960, 4801, 960):
        recording.write(LiveHop(position / RATE_HZ, silence, silence, silence[:320], None, 0.0, 0.0), INFO)
    for track in recording.recorder._tracks:
        track._file.close()
    recording.recorder._tokens.abort()
    assert repair_unfinished() == []  # this process has not ended
    recording._note.let_go()
    return notes()


def notes() -> list[Path]:
    return sorted((config_dir() / NOTES).iterdir())


def test_one_that_runs_is_left_alone_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's time of birth moves when the clock is set."""
    began_s = psutil.Process().create_time()
    note = OpenNote(tmp_path / "r")
    recorder(tmp_path / "r").close()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: began_s + 60.0)
    assert repair_unfinished() == []
    assert (tmp_path / "r").exists() and notes()
    note.remove()
    note.let_go()
    assert not notes()


def test_one_of_another_machine_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("platform.node", lambda: "elsewhere")
        left = left_open(tmp_path / "r")
    assert repair_unfinished() == []
    assert notes() == left


def test_one_on_a_disk_that_is_away_or_cannot_be_written_to_is_repaired_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_open(tmp_path / "r")
    (tmp_path / "r").rename(tmp_path / "away")
    assert repair_unfinished() == []
    (tmp_path / "away").rename(tmp_path / "r")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        assert repair_unfinished() == []
    with monkeypatch.context() as patched:
        patched.setattr(WavWriter, "update", GoneFile.fails)
        assert repair_unfinished() == []
    assert notes() == left
    [found] = repair_unfinished()
    assert (found.folder, found.duration_s) == (tmp_path / "r", 0.1)
    assert notes() == []


def test_one_that_could_not_be_completed_is_repaired_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    recordings = Recordings(EngineConfig(), INFO, lambda change: None, lambda text, state: told.append(text))
    recordings._current = LiveRecording(recorder(tmp_path / "r"), 960, RATE_HZ, 0)
    hear(recordings, 0.0, 1.0, False)
    with monkeypatch.context() as patched:
        patched.setattr(WavWriter, "update", GoneFile.fails)
        recordings.close(RATE_HZ, 1.0)
    assert "could not be completed" in told[0]
    assert [found.duration_s for found in repair_unfinished()] == [1.0]


def test_notes_that_cannot_be_read_are_forgotten(tmp_path: Path) -> None:
    (config_dir() / NOTES).mkdir(parents=True)
    (config_dir() / NOTES / "2.json").write_text('{"folder": "/no')
    assert repair_unfinished() == []
    assert notes() == []
