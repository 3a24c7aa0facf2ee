"""Recordings of a live run, begun with it or in its midst, ended with it or before.

A recording begins and ends between two hops: nothing in the sound's way knows of it. What comes out belongs to what
came in a few hops before, so the beginning of the output is left out, and after the end a few hops more are taken in.
Words become final seconds after they were spoken; the files of words wait for them, the sound does not.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.artefacts import CodecInfo
from engine.meters import LiveHop
from engine.pipeline import LiveStream
from engine.recorder import HopRecord, Recorder
from engine.types import Caption, EngineConfig, RecordingChange, SottovoceError, UsageError, Word
from engine.unfinished import OpenNote

LATE_WORDS_S = 6.0  # 95 % of the words are final 4.2 s after they were spoken
STILL_S = 0.5  # an ending recording for which no hop comes any more is ended as it is
log = logging.getLogger(__name__)


class LiveRecording:
    """One recording on the engine's clock. `write`, `caption` and `look` belong to one thread; `end` to anyone.

    wanted_s: when it was asked for. Hops that ended by then are told later all the same, at rest many at once.
    """

    def __init__(self, recorder: Recorder, hop: int, rate_hz: int, lag: int, wanted_s: float = 0.0) -> None:
        self.recorder, self._hop, self._rate_hz = recorder, hop, rate_hz
        self._wanted = round(wanted_s * rate_hz)
        self._lag_hops = math.ceil(lag / hop)
        self._begin: int | None = None  # position of its first sample
        self._end: int | None = None  # one after its last
        self._end_wanted = False
        self._touched_s = time.monotonic()
        self._note = OpenNote(recorder.folder)

    @property
    def begun_s(self) -> float:
        return (self._begin or 0) / self._rate_hz

    @property
    def has_begun(self) -> bool:
        return self._begin is not None

    def end(self) -> None:
        """No more sound after the hop that is written now."""
        self._touched_s = time.monotonic()
        self._end_wanted = True

    def write(self, hop: LiveHop, info: CodecInfo) -> bool:
        """Add a hop; True when that was the last. Raises SottovoceError."""
        position = round(hop.time_s * self._rate_hz)
        if position <= self._wanted:
            return False
        if self._begin is None:
            self._begin = position - self._hop
        if self._end_wanted and self._end is None:
            self._end = max(self._begin, position - self._hop)
        self.recorder.write(_record_of(hop, info))
        self._touched_s = time.monotonic()
        return self._end is not None and position >= self._end + self._lag_hops * self._hop

    @property
    def stands_still(self) -> bool:
        """Whether it should have ended, and no sound comes that could end it."""
        return self._end_wanted and time.monotonic() - self._touched_s > STILL_S

    def frames(self, position: int | None) -> int | None:
        """How long the recording is in samples, when it ends at its own end or else here; None: as far as it goes."""
        end = self._end if self._end is not None else position
        return None if end is None else max(0, end - (self._begin if self._begin is not None else end))

    def caption(self, caption: Caption) -> None:
        """Take the words that were spoken in it, on its own clock. Raises SottovoceError."""
        if self._begin is None:
            return
        begun_s, end_s = self.begun_s, math.inf if self._end is None else self._end / self._rate_hz
        words = tuple(_moved(word, begun_s) for word in caption.final if word.end_s > begun_s and word.start_s < end_s)
        self.recorder.caption(dataclasses.replace(caption, final=words) if words != caption.final else caption)

    def close(self, frames: int | None) -> None:
        """Complete every file. Raises SottovoceError."""
        try:
            self.recorder.close(frames)
            self._note.remove()
        finally:
            self._note.let_go()


class Recordings:
    """Those of one run: at most one that takes sound, and those that only wait for their last words.

    begin and end belong to the engine's owner, everything else to the side thread. tell: takes a RecordingChange;
    problem: takes a line for a person.
    """

    def __init__(
        self,
        config: EngineConfig,
        info: CodecInfo,
        tell: Callable[[RecordingChange], None],
        problem: Callable[[str, str | None], None],
    ) -> None:
        self._config, self._info = config, info
        self._tell, self._problem = tell, problem
        self._current: LiveRecording | None = None
        self._late: list[tuple[LiveRecording, int, float]] = []  # with their frames, and until when they wait

    @property
    def wants_sound(self) -> bool:
        return self._current is not None

    def begin(self, folder: str | Path, stream: LiveStream, captions: bool, now_s: float) -> None:
        """From the next hop on; now_s: the engine's clock.

        Raises UsageError while another runs or where one lies, AudioFileError, TokenFileError.
        """
        if self._current is not None:
            raise UsageError("a recording is running already; end it first")
        parts = dict(stream.lag_parts_ms)
        lag_ms = parts["model lag"] + parts["resampling in"]
        skip = (stream.lag_hop_native, round(lag_ms * self._info.sample_rate_hz / 1000.0))
        rows, title = self._config.quantizers, self._config.record_title
        recorder = Recorder(folder, self._info, stream.sample_rate_hz, skip, rows, captions, title)
        self._current = LiveRecording(recorder, stream.hop_native, stream.sample_rate_hz, stream.lag_hop_native, now_s)

    def end(self) -> None:
        """With the hop under way. Raises UsageError where none runs."""
        if self._current is None:
            raise UsageError("no recording is running; begin one first")
        self._current.end()

    def write(self, hop: LiveHop, waits_for_words: bool) -> None:
        """One hop of the run."""
        current = self._current
        if current is None:
            return
        begins = not current.has_begun
        try:
            over = current.write(hop, self._info)
        except SottovoceError as error:
            self._fail(current, error)
            return
        if begins and current.has_begun:
            self._tell(RecordingChange(hop.time_s, str(current.recorder.folder), current.begun_s))
        if over:
            self._sound_ends(current, hop.time_s, waits_for_words)

    def caption(self, caption: Caption) -> None:
        """What somebody said in the run."""
        for recording in self._open():
            try:
                recording.caption(caption)
                if recording is not self._current:
                    recording.recorder.write_new_words()
            except SottovoceError as error:
                self._fail(recording, error)

    def look(self, time_s: float) -> None:
        """End what has waited long enough. time_s: the engine's clock."""
        if self._current is not None and self._current.stands_still:
            self._sound_ends(self._current, time_s, False)
        for late in [late for late in self._late if time.monotonic() >= late[2]]:
            self._late.remove(late)
            self._close(late[0], late[1])

    def close(self, position: int | None, time_s: float) -> None:
        """The run is over, its last sample at this position."""
        current, self._current = self._current, None
        if current is not None:
            frames = current.frames(position)
            self._close(current, frames, "stopped")
            self._tell_end(current, frames, time_s)
        for recording, late_frames, _ in self._late:
            self._close(recording, late_frames, "stopped")
        self._late.clear()

    def give_up(self) -> None:
        """After a failure that has been told: keep what can be kept."""
        current, recordings = self._current, self._open()
        self._current, self._late = None, []
        for recording in recordings:
            _close_quietly(recording)
        if current is not None:  # the end of the others has been told
            self._tell_end(current, None, current.begun_s + current.recorder.duration_s)

    def _open(self) -> list[LiveRecording]:
        current = [self._current] if self._current is not None else []
        return [*current, *(recording for recording, _, _ in self._late)]

    def _sound_ends(self, current: LiveRecording, time_s: float, waits_for_words: bool) -> None:
        """The sound can be played from now on; words may still come."""
        self._current = None
        frames = current.frames(None)  # None: no hop came any more that could say where it ends
        if waits_for_words:
            assert frames is not None
            try:
                current.recorder.close_sound(frames)
            except SottovoceError as error:
                self._fail(current, error)
                return
            self._late.append((current, frames, time.monotonic() + LATE_WORDS_S))
        else:
            self._close(current, frames)
        self._tell_end(current, frames, time_s)

    def _close(self, recording: LiveRecording, frames: int | None, state: str | None = None) -> None:
        try:
            recording.close(frames)
        except SottovoceError as error:
            self._problem(f"the recording could not be completed: {error}", state)

    def _fail(self, recording: LiveRecording, error: SottovoceError) -> None:
        """Keep what is there, tell, and let the sound go on."""
        if recording is self._current:
            self._current = None
        self._late = [late for late in self._late if late[0] is not recording]
        self._problem(f"the recording stopped: {error}", None)
        _close_quietly(recording)
        self._tell_end(recording, None, recording.begun_s + recording.recorder.duration_s)

    def _tell_end(self, recording: LiveRecording, frames: int | None, time_s: float) -> None:
        recorder = recording.recorder
        duration_s = recorder.duration_s if frames is None else frames / recorder.sample_rate_hz
        self._tell(RecordingChange(time_s, str(recorder.folder), recording.begun_s, duration_s))


def _close_quietly(recording: LiveRecording) -> None:
    """Keep what can be kept, after a failure that has been told."""
    try:
        recording.close(None)
    except (SottovoceError, OSError) as error:
        log.debug("after a failure the recording could not be completed either: %s", error)


def _moved(word: Word, begun_s: float) -> Word:
    """The word on a clock that began then."""
    if not begun_s:
        return word
    return dataclasses.replace(word, start_s=max(0.0, word.start_s - begun_s), end_s=word.end_s - begun_s)


def _record_of(hop: LiveHop, info: CodecInfo) -> HopRecord:
    """What is written of a hop; where the models did not see it, silence and tokens without gain."""
    made = hop.models
    if made is not None:
        return HopRecord(hop.input, hop.output, made.speech, made.background, made.codes_s, made.codes_b)
    silence = np.zeros(info.hop_samples, dtype=np.float32)
    no_s, no_b = (np.zeros(len(sizes), dtype=np.int64) for sizes in (info.sizes_s, info.sizes_b))
    return HopRecord(hop.input, hop.output, silence, silence, no_s, no_b)
