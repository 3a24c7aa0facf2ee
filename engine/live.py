"""A live run: sound in, sound out, captions, a recording, and events about all of it.

    libpulse's threads, or PortAudio's      move samples to and from devices in C; engine.pulse_port, .portaudio_port
    sound thread                            one hop after another through the models; engine.soundloop
    side thread                             all that may wait: recording, recogniser's pipe, devices; engine.side

Whoever owns the Engine calls start, set, record, poll and stop, from any one thread at a time. poll never waits.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from engine.artefacts import Models, shared_models
from engine.endpoints import Endpoints
from engine.meters import LiveHop, levels_of, tokens_of
from engine.ports import Port
from engine.priority import calm, restless
from engine.recognizer import DRAIN_TIMEOUT_S
from engine.relief import Relief
from engine.scenes import find_scene
from engine.side import Side
from engine.soundloop import SoundLoop
from engine.streams import Streams
from engine.types import Background, EngineConfig, Event, Problem, Stats, UsageError

DEVICE_LOOKS = 2  # devices are looked after at every second look; at rest, where looks are rare, at every one


class Engine:
    """One live run, started once. source, sink: what stands for the microphone and for
    the output (engine.ports), such as a recording.

    `start` raises SottovoceError when models, devices or the recording's folder cannot be had. Afterwards a failure is
    a Problem event and a defined state. finished: the source is over and all of it has been played.
    """

    def __init__(
        self,
        config: EngineConfig,
        models: Models | None = None,
        source: Port | None = None,
        sink: Port | None = None,
    ) -> None:
        self.config = config
        self._models, self._source, self._sink = models, source, sink
        self._events: deque[Event] = deque()
        self._stats: Stats | None = None
        self._streams: Streams | None = None
        self._loop: SoundLoop | None = None
        self._ends: Endpoints | None = None
        self._side: Side | None = None
        self._relief: Relief | None = None
        self._looks, self._told_insane = 0, False
        self._played_s: float | None = None
        self._running = False

    # The owner's side -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what is needed and let the sound run."""
        if self.config.background.scene is not None:
            find_scene(self.config.background.scene)  # what is wrongly asked for is told before what is not there
        ends = self._ends = Endpoints(self.config, self._source, self._sink, self._events.append)
        with ExitStack() as undo:
            undo.callback(self.stop)
            with ThreadPoolExecutor(1, "sottovoce models") as loader:
                loading = loader.submit(lambda: self._models or shared_models(self.config.provider))
                rate_hz = ends.prepare()  # meanwhile
                models = self._models = loading.result()
            streams = self._streams = Streams(self.config, models)
            side = self._side = Side(self.config, models.info, self._events.append, lambda: self.state, self._look)
            streams.warm_up(rate_hz)
            loop = self._loop = SoundLoop(streams.make(rate_hz), ends.block, side.take, self._on_death)
            side.open(loop)
            loop.muted = self.config.muted
            self._relief = Relief(self.config, loop, side, self._events.append, lambda: self.state)
            calm()
            self._running = True
            loop.start()
            ends.open(loop)
            side.start()
            undo.pop_all()

    def poll(self) -> list[Event]:
        """What happened since the last call: captions, problems and device changes in order, meters the latest."""
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        hops: list[LiveHop] = []
        while self._loop is not None and self._loop.recent:
            hops.append(self._loop.recent.popleft())
        if hops and self._streams is not None:
            events.append(levels_of(hops))
            tokens = tokens_of(hops, str(self._streams.background))
            events += [tokens] if tokens is not None else []
        stats, self._stats = self._stats, None
        return events + ([stats] if stats is not None else [])

    def set(
        self,
        background: Background | str | None = None,
        scene: str | None = None,
        bypass: bool | None = None,
        muted: bool | None = None,
        input: str | None = None,
        output: str | None = None,
        watched: bool | None = None,
        level: bool | None = None,
    ) -> None:
        """Change what is given, without a click. Raises UsageError or DeviceError, and then nothing has changed.

        scene: swap the background for it, at the level of the last swap. bypass: the original, at the gain that the
        level control has; False also restarts models that failed.
        Devices change a moment later; how that went is a DeviceChange or a Problem. watched: somebody looks on, so that
        the sound runs though no program listens to the virtual microphone, and the noise around is told. level: bring
        the voice to a steady level.
        """
        loop, ends, streams = self._need_running()
        wanted = streams.wanted(background, scene)
        ends.request(input, output)  # checks, then leaves it to the side thread
        if self._side is not None and (input is not None or output is not None):
            self._side.look_soon = True
        if wanted is not None:
            streams.background = wanted
            loop.do(lambda: loop.stream.set_background(wanted))
        if watched is not None:
            ends.attention.watched = watched
            if self._side is not None:
                self._side.watched = watched
        if level is not None:
            streams.level = loop.stream.level.wanted = level
        if muted is not None:
            loop.muted = muted
        if bypass is not None:
            loop.bypass = bypass
            if not bypass and loop.dead:
                fresh = streams.make(loop.rate_hz)
                fresh.pipeline.refining = loop.stream.pipeline.refining
                loop.do(lambda: loop.revive(fresh))

    def record(self, folder: str) -> None:
        """Begin to record into a folder, which is made when missing; RecordingChange tells where on the clock.

        Raises UsageError (one runs already, or lies there), AudioFileError, TokenFileError; then nothing has changed.
        """
        self._need_running()
        assert self._side is not None
        self._side.record(folder)
        if self._ends is not None:
            self._ends.attention.recording = True  # it wants the sound now, not at the next look

    def end_recording(self) -> None:
        """End the recording with what is heard now; RecordingChange tells when it can be played. Raises UsageError."""
        self._need_running()
        assert self._side is not None
        self._side.recordings.end()

    def stop(self, drain_s: float = DRAIN_TIMEOUT_S) -> None:
        """End the run, complete the recording and the captions, give the devices back. What is left to poll stays.

        drain_s: how long captions may take to catch up with the sound; what is missing then is told.
        """
        last = self._figures() if self._running else None
        if self._ends is not None:
            self._ends.close_input()
        if self._loop is not None:
            self._loop.stop()
        if self._side is not None:
            self._side.stop()
        if self._ends is not None:
            self._ends.close()
        if self._side is not None:
            self._side.close(drain_s)
        if self._running:
            self._running = False
            restless()
            self._stats = replace(last, state=self.state) if last is not None else None

    def resync(self) -> None:
        """Give up what delay has grown beyond what is needed: at once, with the shortest reserve. Raises UsageError."""
        self._need_running()
        assert self._relief is not None
        self._relief.bring_delay_back()

    def wait_captions(self, timeout_s: float = 60.0) -> bool:
        """Wait until the recogniser is loaded; whether it is. Sound before that is captioned too, later."""
        listeners = self._side.listeners if self._side is not None else []
        return bool(listeners) and all(listener.wait_ready(timeout_s) for listener in listeners)

    def clear_times(self) -> None:
        """Begin the figures of hop times anew, and what came closest to a dropout."""
        loop = self._loop
        if loop is not None:
            loop.do(loop.times.clear)
            loop.do(lambda: loop.drops.begin_period(loop.time_s))

    @property
    def finished(self) -> bool:
        """Whether the source is over and played, what the device holds back included."""
        loop, ends = self._loop, self._ends
        if loop is None or ends is None or not loop.finished.is_set() or loop.to_play:
            return False
        if self._played_s is None:
            self._played_s = time.monotonic() + ends.latencies_ms[1] / 1000.0
        return time.monotonic() >= self._played_s

    @property
    def state(self) -> str:
        """running, idle (nothing to hear, or nobody to hear it), bypass, muted, waiting (for a device) or stopped."""
        if not self._running or self._loop is None or self._ends is None:
            return "stopped"
        if self._ends.missing:
            return "waiting"
        if self._loop.muted:
            return "muted"
        if self._loop.bypass or self._loop.dead or self._loop.resting:
            return "bypass"
        return "idle" if self._loop.asleep or self._loop.unheard else "running"

    @property
    def background(self) -> Background:
        """What becomes of the background now."""
        return self._streams.background if self._streams is not None else self.config.background

    @property
    def devices(self) -> tuple[str | None, str | None]:
        """Ids of input and output now; None while one is gone."""
        return self._ends.devices if self._ends is not None else (None, None)

    @property
    def microphone(self) -> str | None:
        """What other programs call the virtual microphone, where there is one."""
        return self._ends.microphone if self._ends is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def _need_running(self) -> tuple[SoundLoop, Endpoints, Streams]:
        if self._loop is None or self._ends is None or self._streams is None or not self._running:
            raise UsageError("the engine is not running; start it first")
        return self._loop, self._ends, self._streams

    # On other threads -------------------------------------------------------------------------------------------------

    def _on_death(self, reason: str) -> None:
        """The sound thread's: the models failed."""
        text = f"the sound models failed ({reason}); your voice goes on unchanged. Switch bypass off to try again"
        self._events.append(Problem(self._now_s(), text, "bypass"))

    def _now_s(self) -> float:
        return self._loop.time_s if self._loop is not None else 0.0

    def _look(self) -> None:
        """The side thread's, a few times a second."""
        assert self._ends is not None
        self._looks += 1
        self._ends.attention.recording = self._side is not None and self._side.recordings.wants_sound
        if self._relief is not None and not self._ends.missing:
            self._relief.look()
        if self._looks % DEVICE_LOOKS == 0 or (self._loop is not None and self._loop.asleep):
            self._ends.look_after(self._now_s(), self._relief is not None and self._relief.ladder.too_busy)
        if self._loop is not None and self._loop.insane and not self._told_insane:
            self._told_insane = True
            text = "the microphone gives something that is no sound; it is left out. If that goes on, choose another"
            self._events.append(Problem(self._now_s(), text, self.state))
        if self._loop is not None and (warning := self._loop.watch.warning()) is not None:
            self._events.append(Problem(self._now_s(), warning, self.state))
        self._stats = self._figures()

    def _figures(self) -> Stats:
        assert self._ends is not None
        assert self._loop is not None
        assert self._models is not None
        loop = self._loop
        loop.drops.look()
        median, p99, longest, mean = loop.times.figures()
        device_in_ms, device_out_ms = self._ends.latencies_ms
        parts = (
            ("device in", device_in_ms),
            *loop.stream.lag_parts_ms,
            ("compute", median),
            ("reserve", loop.waiting_ms),
            ("device out", device_out_ms),
        )
        listeners = self._side.listeners if self._side is not None else []
        return Stats(
            time_s=loop.time_s,
            state=self.state,
            provider=self._models.provider,
            algorithmic_latency_ms=loop.stream.pipeline.algorithmic_latency_ms,
            delay_ms=sum(ms for _, ms in parts),
            delay_parts_ms=parts,
            hop_ms_median=median,
            hop_ms_p99=p99,
            hop_ms_max=longest,
            load=mean / (1000.0 * loop.hop / loop.rate_hz),
            dropouts=loop.dropouts,
            caption_lag_s=max((listener.lag_s for listener in listeners), default=0.0),
            given_up=self._relief.given_up if self._relief is not None else (),
            dropouts_why=loop.drops.lines,
            closest=loop.drops.closest,
        )
