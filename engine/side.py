"""The side thread of a live run: all that may wait, so that the sound thread need not.

    sound thread ─► queue of hops ─► recorder            ─► files
                                └──► recogniser's pipe   ─► captions, told as they come
    every LOOK_S (REST_LOOK_S at rest): `look`, which watches over devices and load

What fails here costs the recording or the captions, and is told; the sound goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from engine.artefacts import CodecInfo
from engine.companion import Companion
from engine.meters import LiveHop
from engine.priority import ask_kit, hurry
from engine.recognizer import Recognizer, Told
from engine.recording import Recordings
from engine.soundloop import SoundLoop
from engine.token_words import has_bridge
from engine.types import (
    DEFAULT_WHISPER,
    LEFT_FOR_RECOGNISER_DB,
    NO_CAPTIONS,
    NO_WHISPER,
    ArtefactError,
    Caption,
    CaptionTap,
    EngineConfig,
    Event,
    Problem,
    Samples,
    UsageError,
    WhisperMissing,
)

SIDE_S, REST_S = 0.02, 0.25  # between two rounds, and while there is nothing to hear or nobody to hear it
LOOK_S, REST_LOOK_S = 0.25, 1.5
QUEUE_HOPS = 1500  # half a minute between the sound thread and the disk
LEFT_FOR_RECOGNISER = np.float32(10.0 ** (LEFT_FOR_RECOGNISER_DB / 20.0))
log = logging.getLogger(__name__)


class Side:
    """tell: takes events; state: what the engine does now; look: called every LOOK_S (REST_LOOK_S at rest), may wait.

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
        self.recordings = Recordings(config, info, tell, self._problem)
        self.recognizer: Recognizer | None = None
        self.companion: Companion | None = None
        self.watched = True  # set by anyone: whether somebody sees what noise there is
        self.captions_paused = False  # set by anyone: what is spoken meanwhile is not captioned
        self.look_soon = False  # set by anyone: something was asked for that `look` sees to
        self._uncaptioned = 0
        self._from_tokens = False  # words come from the voice's tokens, through the bridge
        self._told_no_tokens = False
        self._queue: queue.SimpleQueue[LiveHop] = queue.SimpleQueue()
        self._queue_lost = 0
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce side", daemon=True)

    # Beginning --------------------------------------------------------------------------------------------------------

    def open(self, loop: SoundLoop) -> None:
        """Begin the recording, and see that there can be captions, where they are wanted. Raises SottovoceError."""
        self._loop = loop
        if self._config.record_dir is not None:
            self.record(self._config.record_dir)
        if self._config.captions:
            self.recognizer = self._make_recognizer()

    def record(self, folder: str) -> None:
        """Begin a recording with the next hop. Raises UsageError, AudioFileError, TokenFileError."""
        assert self._loop is not None
        self.recordings.begin(folder, self._loop.stream, self._config.captions, self._loop.now_s)

    def _make_recognizer(self) -> Recognizer:
        c = self._config
        self._from_tokens = c.tap is CaptionTap.TOKENS and has_bridge()
        if self._from_tokens and c.whisper != DEFAULT_WHISPER:
            raise UsageError(f"words from tokens come with Whisper {DEFAULT_WHISPER} alone; choose --from enhanced")
        if c.tap is CaptionTap.TOKENS and not self._from_tokens and not c.tokens_only:
            raise UsageError("there is no bridge from tokens to words among the artefacts; choose --from enhanced")
        codec_id = self._info.codec_id if self._from_tokens else None
        return Recognizer(c.language, model=c.whisper, residue=c.residue, codec_id=codec_id, adapter=c.adapter)

    def start(self) -> None:
        """Once the sound runs, which need not wait for the check of Whisper's weights: what it gave by then waits.

        Raises SottovoceError.
        """
        if self.recognizer is not None:
            with ExitStack() as undo:
                undo.callback(self.recognizer.stop)  # or its end would be waited for
                try:
                    self.recognizer.start()
                except ArtefactError as error:
                    self.recognizer = None
                    state = NO_WHISPER if isinstance(error, WhisperMissing) else NO_CAPTIONS
                    self._tell(Problem(0.0, f"no captions: {error}", state))
                undo.pop_all()
        self._open_companion()
        self._thread.start()

    def _open_companion(self) -> None:
        """A device that is not there is no failure: it is told, and looked for again."""
        if self._config.also is None or not self._config.captions or self.recognizer is None:
            return
        companion = Companion(self._config.also, self._config.language, self._config.whisper)
        companion.open()
        self.companion = companion

    @property
    def listeners(self) -> list[Recognizer | Companion]:
        """Who captions now."""
        return [listener for listener in (self.recognizer, self.companion) if listener is not None]

    @property
    def pids(self) -> list[int | None]:
        """Of the processes that caption now."""
        return [listener.pid for listener in self.listeners]

    def _dismiss_listeners(self) -> list[Recognizer | Companion]:
        """Who captioned until now; nobody does any more."""
        listeners = self.listeners
        self.recognizer = self.companion = None
        return listeners

    # The sound thread's: quick, and without a lock that others hold ---------------------------------------------------

    def take(self, hop: LiveHop) -> None:
        """One hop of the sound thread's."""
        if self.recognizer is None and not self.recordings.wants_sound:
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
        looked_s = float("-inf")
        while not self._halt.wait(REST_S if self._rests else SIDE_S):
            self._drain_queue()
            if self.recognizer is not None:
                self._hand_on(self.recognizer.poll())
            if self.companion is not None and self._loop is not None:
                self._hand_on(self.companion.work(self._loop.now_s, self.captions_paused))
            ask_kit()
            self.recordings.look(self._loop.time_s if self._loop is not None else 0.0)
            if self.look_soon or time.monotonic() - looked_s >= (REST_LOOK_S if self._rests else LOOK_S):
                self.look_soon, looked_s = False, time.monotonic()
                self._look()
        self._drain_queue()

    @property
    def _rests(self) -> bool:
        return self._loop is not None and self._loop.asleep

    def _shed(self, text: str) -> None:
        """Give up what this thread does beside its watch over the devices."""
        listeners = self._dismiss_listeners()
        self._problem(text)
        for listener in listeners:
            listener.stop()
        self.recordings.give_up()

    def _problem(self, text: str, state: str | None = None) -> None:
        now_s = self._loop.time_s if self._loop is not None else 0.0
        self._tell(Problem(now_s, text, state or self._state()))

    def _drain_queue(self) -> None:
        while not self._queue.empty():
            hop = self._queue.get()
            self.recordings.write(hop, bool(self.listeners))
            if self.recognizer is not None:
                self._caption(self.recognizer, hop, self.captions_paused or hop.asleep)
        lost, self._queue_lost = self._queue_lost, 0
        if lost and self.recordings.wants_sound:
            self._problem(f"the disk is too slow: {lost} hops are missing from the recording; record to another one")

    def _caption(self, recognizer: Recognizer, hop: LiveHop, paused: bool) -> None:
        """Feed the recogniser, or tell it now and then how much it did not hear."""
        heard = _tapped(hop, self._config.tap)
        if self._from_tokens and hop.models is None:
            paused = True  # there are no tokens of it
            if self._loop is not None and self._loop.dead and not self._told_no_tokens:
                self._told_no_tokens = True
                self._problem("no captions: there are no tokens without the sound models; choose --from enhanced")
        if paused:
            self._uncaptioned += len(heard)
        if self._uncaptioned and (not paused or self._uncaptioned >= self._info.sample_rate_hz):
            recognizer.leave_out(self._uncaptioned)
            self._uncaptioned = 0
        if not paused:
            told = hop.models.codes_s[:, None] if self._from_tokens and hop.models is not None else None
            recognizer.feed(heard, told)
            if self.watched:
                recognizer.watch(hop.heard)

    def _hand_on(self, events: Sequence[Told]) -> None:
        for event in events:
            self._tell(event)
            if isinstance(event, Caption):
                self.recordings.caption(event)

    # End --------------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the thread; what it was given is worked off."""
        self._halt.set()
        if self._thread.ident is not None:
            self._thread.join()
        else:  # interrupted before it began: what was heard by then belongs to the recording
            self._drain_queue()

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
            loop = self._loop
            self.recordings.close(loop.position if loop is not None else None, loop.time_s if loop is not None else 0.0)


def _tapped(hop: LiveHop, tap: CaptionTap) -> Samples:
    """What the recogniser hears of a hop, [hop] at the models' rate."""
    if tap is CaptionTap.RAW or hop.models is None:
        return hop.heard
    if tap is CaptionTap.TOKENS:
        return hop.models.speech
    heard: Samples = hop.models.speech + LEFT_FOR_RECOGNISER * hop.models.background
    return heard
