"""The side thread of a live run: all that may wait, so that the sound thread need not.

    sound thread ─► queue of hops ─► recorder            ─► files
                                └──► recogniser's pipe   ─► captions, told as they come
    every LOOK_S: `look`, which watches over devices and load

What fails here costs the recording or the captions, and is told; the sound goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from engine.artefacts import CodecInfo
from engine.companion import Companion
from engine.meters import LiveHop
from engine.priority import ask_kit, hurry
from engine.recognizer import Recognizer, Told
from engine.recorder import HopRecord, Recorder
from engine.soundloop import SoundLoop
from engine.types import (
    LEFT_FOR_RECOGNISER_DB,
    ArtefactError,
    Caption,
    CaptionTap,
    EngineConfig,
    Event,
    Problem,
    Samples,
    SottovoceError,
    UsageError,
)

SIDE_S, REST_S = 0.02, 0.1  # between two rounds, and while there is nothing to hear or nobody to hear it
LOOK_S = 0.25
QUEUE_HOPS = 1500  # half a minute between the sound thread and the disk
LEFT_FOR_RECOGNISER = np.float32(10.0 ** (LEFT_FOR_RECOGNISER_DB / 20.0))
log = logging.getLogger(__name__)


class Side:
    """tell: takes events; state: what the engine does now; look: called every LOOK_S, may wait.

    `take` alone belongs to the sound thread; everything else to the engine's owner and, while it runs, to the thread.
    """

    def __init__(
        self,
        config: EngineConfig,
        info: CodecInfo,
        tell: Callable[[Event], None],
        state: Callable[[], str],
        look: Callable[[], None],
    ) -> None:
        self._config, self._info = config, info
        self._tell, self._state, self._look = tell, state, look
        self._loop: SoundLoop | None = None
        self._recorder: Recorder | None = None
        self.recognizer: Recognizer | None = None
        self.companion: Companion | None = None
        self.watched = True  # set by anyone: whether somebody sees what noise there is
        self.captions_paused = False  # set by anyone: what is spoken meanwhile is not captioned
        self._uncaptioned = 0
        self._queue: queue.SimpleQueue[LiveHop] = queue.SimpleQueue()
        self._queue_lost = 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce side", daemon=True)

    # Beginning --------------------------------------------------------------------------------------------------------

    def open(self, loop: SoundLoop) -> None:
        """Begin the recording and the recogniser, where they are wanted. Raises SottovoceError."""
        self._loop = loop
        self._open_recorder(loop)
        self._open_recognizer()
        self._open_companion()

    def _open_recorder(self, loop: SoundLoop) -> None:
        c = self._config
        if c.record_dir is None:
            return
        parts = dict(loop.stream.lag_parts_ms)
        lag_ms = parts["model lag"] + parts["resampling in"]
        skip = (loop.stream.lag_hop_native, round(lag_ms * self._info.sample_rate_hz / 1000.0))
        self._recorder = Recorder(c.record_dir, self._info, loop.rate_hz, skip, c.quantizers, c.captions)

    def _open_recognizer(self) -> None:
        if not self._config.captions:
            return
        if self._config.tap is CaptionTap.TOKENS and not self._config.tokens_only:
            raise UsageError("live captions from tokens need --tokens-only; choose raw or enhanced")
        c = self._config
        recognizer = Recognizer(c.language, model=c.whisper, residue=c.residue)
        try:
            recognizer.start()
        except ArtefactError as error:
            self._tell(Problem(0.0, f"no captions: {error}", "no captions"))
            return
        self.recognizer = recognizer

    def _open_companion(self) -> None:
        """A device that is not there is no failure: it is told, and looked for again."""
        if self._config.also is None or not self._config.captions or self.recognizer is None:
            return
        companion = Companion(self._config.also, self._config.language, self._config.whisper)
        try:
            companion.open()
        except BaseException:
            companion.stop()
            raise
        self.companion = companion

    @property
    def listeners(self) -> list[Recognizer | Companion]:
        """Who captions now."""
        return [listener for listener in (self.recognizer, self.companion) if listener is not None]

    def _dismiss_listeners(self) -> list[Recognizer | Companion]:
        """Who captioned until now; nobody does any more."""
        listeners = self.listeners
        self.recognizer = self.companion = None
        return listeners

    def start(self) -> None:
        self._thread.start()

    # The sound thread's: quick, and without a lock that others hold ---------------------------------------------------

    def take(self, hop: LiveHop) -> None:
        """One hop of the sound thread's."""
        if self._recorder is None and self.recognizer is None:
            return
        if self._queue.qsize() < QUEUE_HOPS:
            self._queue.put(hop)
        else:
            self._queue_lost += 1

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        hurry()  # held up while it has the interpreter, it would hold up the sound
        while not self._halt.is_set():
            try:
                self._work()
            except Exception as error:  # top of a thread: sound goes on without recording and captions
                log.debug("the side thread failed", exc_info=error)
                self._shed(f"recording and captions stopped ({type(error).__name__}: {error}); start anew to have them")

    def _work(self) -> None:
        next_look = time.monotonic()
        while not self._halt.wait(REST_S if self._loop is not None and self._loop.asleep else SIDE_S):
            self._drain_queue()
            if self.recognizer is not None:
                self._hand_on(self.recognizer.poll())
            if self.companion is not None and self._loop is not None:
                self._hand_on(self.companion.work(self._loop.time_s, self.captions_paused))
            ask_kit()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_S
                self._look()
        self._drain_queue()

    def _shed(self, text: str) -> None:
        """Give up what this thread does beside its watch over the devices."""
        recorder, self._recorder = self._recorder, None
        listeners = self._dismiss_listeners()
        self._problem(text)
        for listener in listeners:
            listener.stop()
        if recorder is not None:
            _close_quietly(recorder)

    def _problem(self, text: str, state: str | None = None) -> None:
        now_s = self._loop.time_s if self._loop is not None else 0.0
        self._tell(Problem(now_s, text, state or self._state()))

    def _drain_queue(self) -> None:
        while not self._queue.empty():
            hop = self._queue.get()
            if self._recorder is not None:
                self._record(self._recorder, hop)
            if self.recognizer is not None:
                self._caption(self.recognizer, hop, self.captions_paused or hop.asleep)
        if self._queue_lost and self._recorder is not None:
            lost, self._queue_lost = self._queue_lost, 0
            self._problem(f"the disk is too slow: {lost} hops are missing from the recording; record to another one")

    def _caption(self, recognizer: Recognizer, hop: LiveHop, paused: bool) -> None:
        """Feed the recogniser, or tell it now and then how much it did not hear."""
        heard = _tapped(hop, self._config.tap)
        if paused:
            self._uncaptioned += len(heard)
        if self._uncaptioned and (not paused or self._uncaptioned >= self._info.sample_rate_hz):
            recognizer.leave_out(self._uncaptioned)
            self._uncaptioned = 0
        if not paused:
            recognizer.feed(heard)
            if self.watched:
                recognizer.watch(hop.heard)

    def _record(self, recorder: Recorder, hop: LiveHop) -> None:
        try:
            recorder.write(_record_of(hop, self._info))
        except SottovoceError as error:
            self._give_up_recording(recorder, error)

    def _give_up_recording(self, recorder: Recorder, error: SottovoceError) -> None:
        """Keep what is there, tell, and let the sound go on."""
        self._recorder = None
        self._problem(f"the recording stopped: {error}")
        _close_quietly(recorder)

    def _hand_on(self, events: Sequence[Told]) -> None:
        for event in events:
            self._tell(event)
            if self._recorder is not None and isinstance(event, Caption):
                try:
                    self._recorder.caption(event)
                except SottovoceError as error:
                    self._give_up_recording(self._recorder, error)

    # End --------------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the thread; what it was given is worked off."""
        self._halt.set()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self, drain_s: float) -> None:
        """Complete captions, for at most drain_s, and the recording."""
        try:
            listeners = self._dismiss_listeners()
            until_s = time.monotonic() + drain_s
            for listener in listeners:
                listener.end()
            for listener in listeners:  # the person's own words first
                self._hand_on(listener.finish(max(0.0, until_s - time.monotonic())))
        finally:  # a second Ctrl-C gives up the last captions, not the recording
            self._close_recorder()

    def _close_recorder(self) -> None:
        recorder, self._recorder = self._recorder, None
        try:
            if recorder is not None:
                recorder.close(self._loop.position if self._loop is not None else None)
        except SottovoceError as error:
            self._problem(f"the recording could not be completed: {error}", "stopped")


def _close_quietly(recorder: Recorder) -> None:
    """Keep what can be kept, after a failure that has been told."""
    try:
        recorder.close()
    except SottovoceError as error:
        log.debug("after a failure the recording could not be completed either: %s", error)


def _record_of(hop: LiveHop, info: CodecInfo) -> HopRecord:
    """What is written of a hop; where the models did not see it, silence and tokens without gain."""
    made = hop.models
    if made is not None:
        return HopRecord(hop.input, hop.output, made.speech, made.background, made.codes_s, made.codes_b)
    silence = np.zeros(info.hop_samples, dtype=np.float32)
    no_s, no_b = (np.zeros(len(sizes), dtype=np.int64) for sizes in (info.sizes_s, info.sizes_b))
    return HopRecord(hop.input, hop.output, silence, silence, no_s, no_b)


def _tapped(hop: LiveHop, tap: CaptionTap) -> Samples:
    """What the recogniser hears of a hop, [hop] at the models' rate."""
    if tap is CaptionTap.RAW or hop.models is None:
        return hop.heard
    if tap is CaptionTap.TOKENS:
        return hop.models.speech
    heard: Samples = hop.models.speech + LEFT_FOR_RECOGNISER * hop.models.background
    return heard
