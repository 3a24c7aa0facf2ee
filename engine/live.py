"""A live run: sound in, sound out, captions, a recording, and events about all of it.

    sound callbacks (PortAudio's threads)   move samples between devices and rings; engine.devices
    sound thread                            one hop after another through the models; engine.soundloop
    side thread (here)                      all that may wait: recording, recogniser's pipe, devices that come and go

Whoever owns the Engine calls start, set, poll and stop, from any one thread at a time. poll never waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Self

import numpy as np

from engine.artefacts import Models, shared_models
from engine.endpoints import Endpoints
from engine.fill import splice
from engine.meters import HopTimes, LiveHop, levels_of, tokens_of
from engine.pipeline import LiveStream, Stream
from engine.ports import Port
from engine.priority import calm, hurry, restless
from engine.recognizer import DRAIN_TIMEOUT_S, Recognizer
from engine.recorder import HopRecord, Recorder
from engine.scenes import load_scene
from engine.soundloop import SoundLoop
from engine.types import (
    ArtefactError,
    Background,
    BackgroundMode,
    Caption,
    CaptionTap,
    Codes,
    EngineConfig,
    Event,
    Problem,
    Samples,
    SottovoceError,
    Stats,
    UsageError,
)

SIDE_S = 0.02
STATS_S = 0.5
QUEUE_HOPS = 1500  # half a minute between the sound thread and the disk
WARM_UP_HOPS = 25
LEFT_FOR_RECOGNISER = 0.3  # of the background: Whisper hears better with some of it left
log = logging.getLogger(__name__)


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
        self._background = config.background
        self._scenes: dict[str, Codes] = {}
        self._events: deque[Event] = deque()
        self._stats: Stats | None = None
        self._loop: SoundLoop | None = None
        self._ends: Endpoints | None = None
        self._recorder: Recorder | None = None
        self._recognizer: Recognizer | None = None
        self._queue: queue.SimpleQueue[LiveHop] = queue.SimpleQueue()
        self._queue_lost = 0
        self._halt = threading.Event()
        self._side = threading.Thread(target=self._run_side, name="sottovoce side", daemon=True)
        self._running = False

    # The owner's side -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what is needed and let the sound run."""
        models = self._models = self._models or shared_models(self.config.provider)
        self._keep_scene(self._background)
        self._ends = Endpoints(self.config, self._source, self._sink, self._tell)
        try:
            rate_hz = self._ends.prepare()
            self._warm_up(models, rate_hz)
            self._loop = loop = SoundLoop(self._new_stream(rate_hz), self._ends.block, self._on_hop, self._on_death)
            self._open_recorder(loop, models)
            self._open_recognizer()
            calm()
            self._running = True
            loop.start()
            self._ends.open(loop)
            self._side.start()
        except BaseException:
            self.stop()
            raise

    def poll(self) -> list[Event]:
        """What happened since the last call: captions, problems and device changes in order, meters the latest."""
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        hops: list[LiveHop] = []
        while self._loop is not None and self._loop.recent:
            hops.append(self._loop.recent.popleft())
        if hops:
            events.append(levels_of(hops))
            tokens = tokens_of(hops, str(self._background))
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
    ) -> None:
        """Change what is given, without a click. Raises UsageError or DeviceError, and then nothing has changed.

        scene: swap the background for it, at the level of the last swap. bypass=False also restarts models that failed.
        Devices change a moment later; how that went is a DeviceChange or a Problem.
        """
        loop, ends = self._need_running()
        wanted = self._wanted_background(background, scene)
        ends.request(input, output)  # checks, then leaves it to the side thread
        if wanted is not None:
            self._background = wanted
            loop.do(lambda: loop.stream.set_background(wanted))
        if muted is not None:
            loop.muted = muted
        if bypass is not None:
            loop.bypass = bypass
            if not bypass and loop.dead:
                fresh = self._new_stream(loop.rate_hz)
                loop.do(lambda: loop.revive(fresh))

    def stop(self, drain_s: float = DRAIN_TIMEOUT_S) -> None:
        """End the run, complete the recording and the captions, give the devices back. What is left to poll stays.

        drain_s: how long captions may take to catch up with the sound; what is missing then is told.
        """
        last = self._figures() if self._running else None
        if self._ends is not None:
            self._ends.close_input()
        if self._loop is not None:
            self._loop.stop()
        self._halt.set()
        if self._side.ident is not None:
            self._side.join()
        if self._ends is not None:
            self._ends.close()
        try:
            self._close_recognizer(drain_s)
        finally:  # a second Ctrl-C gives up the last captions, not the recording
            self._close_recorder()
        if self._running:
            self._running = False
            restless()
            self._stats = replace(last, state=self.state) if last is not None else None

    def wait_captions(self, timeout_s: float = 60.0) -> bool:
        """Wait until the recogniser is loaded; whether it is. Sound before that is captioned too, later."""
        recognizer = self._recognizer
        return recognizer is not None and recognizer.wait_ready(timeout_s)

    def clear_times(self) -> None:
        """Begin the figures of hop times anew."""
        if self._loop is not None:
            self._loop.do(self._loop.times.clear)

    @property
    def finished(self) -> bool:
        """Whether the source is over and played."""
        loop = self._loop
        return loop is not None and loop.finished.is_set() and not loop.output_ring.fill

    @property
    def state(self) -> str:
        """running, bypass, muted, waiting (for a device) or stopped."""
        if not self._running or self._loop is None or self._ends is None:
            return "stopped"
        if self._ends.missing:
            return "waiting"
        if self._loop.muted:
            return "muted"
        return "bypass" if self._loop.bypass or self._loop.dead else "running"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    # Beginning --------------------------------------------------------------------------------------------------------

    def _need_running(self) -> tuple[SoundLoop, Endpoints]:
        if self._loop is None or self._ends is None or not self._running:
            raise UsageError("the engine is not running; start it first")
        return self._loop, self._ends

    def _wanted_background(self, background: Background | str | None, scene: str | None) -> Background | None:
        wanted = Background.parse(background) if isinstance(background, str) else background
        if scene is not None:
            last = wanted or self._background
            gain_db = last.gain_db if last.mode is BackgroundMode.SWAP else 0.0
            wanted = Background(BackgroundMode.SWAP, gain_db, scene)
        if wanted is not None:
            self._keep_scene(wanted)
        return wanted

    def _keep_scene(self, background: Background) -> None:
        """Read the scene's file here, so that the sound thread need not."""
        name = background.scene
        if background.mode is BackgroundMode.SWAP and name is not None and name not in self._scenes:
            assert self._models is not None
            self._scenes[name] = load_scene(name, codec_id=self._models.info.codec_id)

    def _new_stream(self, rate_hz: int) -> LiveStream:
        assert self._models is not None
        c = self.config
        stream = Stream(
            self._models,
            rate_hz,
            live=True,
            background=self._background,
            tokens_only=c.tokens_only,
            refiner=c.refiner,
            quantizers=c.quantizers,
            scenes=self._scenes.__getitem__,
        )
        assert isinstance(stream, LiveStream)
        return stream

    def _warm_up(self, models: Models, rate_hz: int) -> None:
        """A few hops of noise, loud enough for the limiter, on every way through: the first take longer than others."""
        stream, times = self._new_stream(rate_hz), HopTimes()
        noise = np.random.default_rng(0).standard_normal((WARM_UP_HOPS, stream.hop_native)).astype(np.float32)
        for count, hop in enumerate(noise):
            began = time.perf_counter()
            stream.bypass = count > WARM_UP_HOPS // 2
            splice(stream.process_hop(hop), (-1) ** count * stream.hop_native // 4, rate_hz)
            times.add(1000.0 * (time.perf_counter() - began))
        times.figures()

    def _open_recorder(self, loop: SoundLoop, models: Models) -> None:
        c = self.config
        if c.record_dir is None:
            return
        parts = dict(loop.stream.lag_parts_ms)
        lag_ms = parts["model lag"] + parts["resampling in"]
        skip = (loop.stream.lag_hop_native, round(lag_ms * models.info.sample_rate_hz / 1000.0))
        self._recorder = Recorder(c.record_dir, models.info, loop.rate_hz, skip, c.quantizers, c.captions)

    def _open_recognizer(self) -> None:
        if not self.config.captions:
            return
        if self.config.tap is CaptionTap.TOKENS and not self.config.tokens_only:
            raise UsageError("live captions from tokens need --tokens-only; choose raw or enhanced")
        recognizer = Recognizer(self.config.language)
        try:
            recognizer.start()
        except ArtefactError as error:
            self._tell(Problem(0.0, f"no captions: {error}", "no captions"))
            return
        self._recognizer = recognizer

    # The sound thread's side: quick, and without a lock that others hold ----------------------------------------------

    def _on_hop(self, hop: LiveHop) -> None:
        if self._recorder is None and self._recognizer is None:
            return
        if self._queue.qsize() < QUEUE_HOPS:
            self._queue.put(hop)
        else:
            self._queue_lost += 1

    def _on_death(self, reason: str) -> None:
        text = f"the sound models failed ({reason}); your voice goes on unchanged. Switch bypass off to try again"
        self._tell(Problem(self._now_s(), text, "bypass"))

    # The side thread --------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._events.append(event)

    def _now_s(self) -> float:
        return self._loop.time_s if self._loop is not None else 0.0

    def _run_side(self) -> None:
        hurry()  # held up while it has the interpreter, it would hold up the sound
        while not self._halt.is_set():
            try:
                self._side_loop()
            except Exception as error:  # top of a thread: sound goes on without recording and captions
                log.debug("the side thread failed", exc_info=error)
                self._shed(f"recording and captions stopped ({type(error).__name__}: {error}); start anew to have them")

    def _shed(self, text: str) -> None:
        """Give up what the side thread does beside its watch over the devices."""
        recorder, self._recorder = self._recorder, None
        recognizer, self._recognizer = self._recognizer, None
        self._tell(Problem(self._now_s(), text, self.state))
        if recognizer is not None:
            recognizer.stop()
        if recorder is not None:
            _close_quietly(recorder)

    def _side_loop(self) -> None:
        next_stats = time.monotonic()
        while not self._halt.wait(SIDE_S):
            self._drain_queue()
            self._take_captions()
            if time.monotonic() >= next_stats:
                next_stats = time.monotonic() + STATS_S
                assert self._ends is not None
                self._ends.look_after(self._now_s())
                self._stats = self._figures()
        self._drain_queue()

    def _drain_queue(self) -> None:
        while not self._queue.empty():
            hop = self._queue.get()
            if self._recorder is not None:
                self._record(self._recorder, hop)
            if self._recognizer is not None:
                self._recognizer.feed(_tapped(hop, self.config.tap))
        if self._queue_lost and self._recorder is not None:
            lost, self._queue_lost = self._queue_lost, 0
            text = f"the disk is too slow: {lost} hops are missing from the recording; record to another one"
            self._tell(Problem(self._now_s(), text, self.state))

    def _record(self, recorder: Recorder, hop: LiveHop) -> None:
        info = self._need_models().info
        made, silence = hop.models, np.zeros(info.hop_samples, dtype=np.float32)
        no_s, no_b = (
            np.zeros(len(sizes), dtype=np.int64) for sizes in (info.sizes_s, info.sizes_b)
        )  # no gain: silence
        try:
            recorder.write(
                HopRecord(
                    input=hop.input,
                    output=hop.output,
                    speech=made.speech if made else silence,
                    background=made.background if made else silence,
                    codes_s=made.codes_s if made else no_s,
                    codes_b=made.codes_b if made else no_b,
                )
            )
        except SottovoceError as error:
            self._give_up_recording(recorder, error)

    def _give_up_recording(self, recorder: Recorder, error: SottovoceError) -> None:
        """Keep what is there, tell, and let the sound go on."""
        self._recorder = None
        self._tell(Problem(self._now_s(), f"the recording stopped: {error}", self.state))
        _close_quietly(recorder)

    def _take_captions(self) -> None:
        if self._recognizer is not None:
            self._hand_on(self._recognizer.poll())

    def _hand_on(self, events: list[Caption | Problem]) -> None:
        for event in events:
            self._tell(event)
            if self._recorder is not None and isinstance(event, Caption):
                try:
                    self._recorder.caption(event)
                except SottovoceError as error:
                    self._give_up_recording(self._recorder, error)

    # Figures ----------------------------------------------------------------------------------------------------------

    def _figures(self) -> Stats:
        assert self._ends is not None
        assert self._loop is not None
        loop, models = self._loop, self._need_models()
        median, p99, longest, mean = loop.times.figures()
        device_in_ms, device_out_ms = self._ends.latencies_ms
        parts = (
            ("device in", device_in_ms),
            *loop.stream.lag_parts_ms,
            ("compute", median),
            ("reserve", loop.waiting_ms),
            ("device out", device_out_ms),
        )
        return Stats(
            time_s=loop.time_s,
            state=self.state,
            provider=models.provider,
            algorithmic_latency_ms=loop.stream.pipeline.algorithmic_latency_ms,
            delay_ms=sum(ms for _, ms in parts),
            delay_parts_ms=parts,
            hop_ms_median=median,
            hop_ms_p99=p99,
            hop_ms_max=longest,
            load=mean / (1000.0 * loop.hop / loop.rate_hz),
            dropouts=loop.dropouts,
            caption_lag_s=self._recognizer.lag_s if self._recognizer is not None else 0.0,
        )

    def _need_models(self) -> Models:
        assert self._models is not None
        return self._models

    # End --------------------------------------------------------------------------------------------------------------

    def _close_recognizer(self, drain_s: float) -> None:
        recognizer, self._recognizer = self._recognizer, None
        if recognizer is not None:
            self._hand_on(recognizer.finish(drain_s))

    def _close_recorder(self) -> None:
        recorder, self._recorder = self._recorder, None
        try:
            if recorder is not None:
                recorder.close(self._loop.position if self._loop is not None else None)
        except SottovoceError as error:
            self._tell(Problem(self._now_s(), f"the recording could not be completed: {error}", "stopped"))


def _close_quietly(recorder: Recorder) -> None:
    """Keep what can be kept, after a failure that has been told."""
    try:
        recorder.close()
    except SottovoceError as error:
        log.debug("after a failure the recording could not be completed either: %s", error)


def _tapped(hop: LiveHop, tap: CaptionTap) -> Samples:
    """What the recogniser hears of a hop, [hop] at the models' rate."""
    if tap is CaptionTap.RAW or hop.models is None:
        return hop.heard
    if tap is CaptionTap.TOKENS:
        return hop.models.speech
    heard: Samples = hop.models.speech + np.float32(LEFT_FOR_RECOGNISER) * hop.models.background
    return heard
