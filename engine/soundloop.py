"""The sound thread: takes hops from the input ring, has them worked on, and adds them to the output ring.

    input callback ─► ring ─► [ mute ─► LiveStream ─► gate ─► fill control ] ─► ring ─► output callback

It waits for nothing but the next block of sound, writes to no file and talks to no other process. When the models fail
the voice goes on as it came in. When it falls behind it leaves sound out, with a count, so that delay never grows.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from engine.dropouts import Cause, DropoutWatch
from engine.fill import FillControl, splice
from engine.hop import SETTLE_HOPS, HopOutput
from engine.level import LOUDEST, SILENCE_PEAK, InputWatch
from engine.meters import SHOWN_HOPS, HopTimes, LiveHop
from engine.mix import Ramp
from engine.pipeline import LiveStream
from engine.ports import Port, Wake
from engine.priority import hurry
from engine.resample import LiveResampler
from engine.rest import Rest
from engine.ring import Ring
from engine.types import Samples

INPUT_RING_S, OUTPUT_RING_S = 1.0, 0.5
BEHIND_MS = 120.0  # with more than this waiting to be worked on, sound is left out
WAIT_S = 0.1
# A device that rings no bell is looked at when its next hop may be there, and then so often, so many times.
LOOK_S, PUNCTUAL_WAITS, LATE_LOOK_S = 0.001, 16, 0.005
ASLEEP_LOOK_S = 0.004
DEATH_FADE_MS = 5.0
SLEEP_AFTER_S = 4.0  # by then nothing is left in the models' memory, nor in a scene's level
WAKE_HOPS = 3  # after a sleep into which somebody spoke: until what was in the models' memory is out
FILL_SMOOTHING = 0.02
log = logging.getLogger(__name__)
OnHop = Callable[[LiveHop], None]


class SoundLoop:
    """One live stream between two rings. `stream` may be replaced through `do`.

    muted, closed, bypass, resting: set by anyone, ramped over a hop. closed: nothing is let out (a device is being
    changed). resting: as bypass, and the models do not run either. unheard: nobody listens to the output.
    asleep: the models do not run, because there is nothing to hear or nobody to hear it. See engine.rest for silence.
    Counters: dropouts (what a listener heard break), broken (those that came from being late), skipped (input samples
    left out), position (samples since start), busy_ms (time spent on hops), insane (hops with what is no sound).
    """

    def __init__(self, stream: LiveStream, block: int, on_hop: OnHop, on_failure: Callable[[str], None]) -> None:
        self.stream, self._on_hop, self._on_failure = stream, on_hop, on_failure
        self.rate_hz, self.hop = stream.sample_rate_hz, stream.hop_native
        self.input_ring = Ring(round(INPUT_RING_S * self.rate_hz))
        self.output_ring = Ring(round(OUTPUT_RING_S * self.rate_hz))
        self.fill, self._block = FillControl(self.rate_hz, self.hop, block), block
        self.wake, self.times = Wake(), HopTimes()
        self.input: Port | None = None
        self.output: Port | None = None
        self.muted = self.closed = self.bypass = self.resting = self.dead = self.unheard = self.asleep = False
        self.finished = threading.Event()
        self.dropouts = self.broken = self.skipped = self.position = 0
        self.waiting_ms = self.busy_ms = 0.0
        self._to_settle = self._to_wake = self._quiet_hops = self._waits = self.insane = 0
        self.watch, self.drops = InputWatch(self.hop / self.rate_hz), DropoutWatch(self.rate_hz)
        self.recent: deque[LiveHop] = deque(maxlen=SHOWN_HOPS)
        self._open, self._gate = Ramp(1.0, self.hop), Ramp(0.0, self.hop)
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._synced, self._dry_before, self._xruns_before = False, 0, (0, 0)
        self._made: HopOutput | None = None
        self._unfinished: Samples | None = None
        self._last = np.float32(0.0)
        self._rest = Rest(self.hop, stream.lag_hop_native, self.input_ring, self._tell_rest)
        self._nothing = np.zeros(stream.pipeline.info.hop_samples, dtype=np.float32)
        self._spare = LiveResampler(self.rate_hz, stream.pipeline.info.sample_rate_hz)  # made now: it takes a while
        self._thread = threading.Thread(target=self._run, name="sottovoce sound", daemon=True)
        self._watch_stream()

    # What others call -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Work off what is waiting and end. The input should have been stopped before."""
        self._halt.set()
        self.wake.ring()
        if self._thread.ident is not None:
            self._thread.join()

    def count_dropout(self, told: Cause | None = None) -> None:
        """A listener heard the sound break; the sound thread's (see `do`). told: why, where that is known."""
        self.dropouts += 1
        self.drops.broke(self.time_s, told)

    def do(self, command: Callable[[], None]) -> None:
        """Have something done between two hops; it must be quick."""
        self._commands.put(command)

    def resync(self) -> None:
        """A device was changed: what happened to the rings meanwhile is no dropout."""
        self._synced = False

    @property
    def behind_ms(self) -> float:
        """Input that waits for its turn."""
        port = self.input
        waiting = self.input_ring.fill + (port.pending if port is not None else 0)
        return 1000.0 * waiting / self.rate_hz

    @property
    def to_play(self) -> int:
        """Samples that wait for the output."""
        port = self.output
        return self.output_ring.fill + (port.pending if port is not None else 0)

    def revive(self, stream: LiveStream) -> None:
        """Go on with fresh models, as loud as before."""
        stream.level = self.stream.level
        self.stream, self.dead = stream, False
        self._spare.reset()
        self._watch_stream()

    @property
    def time_s(self) -> float:
        """The engine's clock: sound taken from the input, muted and skipped sound included."""
        return self.position / self.rate_hz

    @property
    def now_s(self) -> float:
        """The same, with the silence of a rest that was not told yet."""
        return (self.position + self._rest.untold) / self.rate_hz

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        hurry()
        with self.drops.watching():
            while not self._over():
                try:
                    self._loop()
                except Exception as error:  # noqa: BLE001 - top of a thread: the voice must go on whatever broke
                    self._die(error)

    def _over(self) -> bool:
        left = self.input_ring.fill + self._rest.untold
        return self._halt.is_set() and left < self.hop and self._commands.empty()

    def _loop(self) -> None:
        while not self._over():
            if self.wake.wait(self._patience_s()):
                self.drops.absent(self.wake.rung_s)
            else:
                self._waits += 1
            self.work_off()

    def _patience_s(self) -> float:
        """How long to wait for a bell, or for the moment at which a device that rings none has the next hop."""
        port = self.input
        if port is None or port.rings:
            return WAIT_S
        if self._waits >= PUNCTUAL_WAITS:  # nothing has come for a while
            return LATE_LOOK_S
        if self.asleep:  # a few milliseconds late is early enough for the first sound; each look costs
            return ASLEEP_LOOK_S if self._waits else self.hop / self.rate_hz
        missing = self.hop - self.input_ring.fill - self._block  # part of the next block's time may have passed
        return max(LOOK_S, missing / self.rate_hz)

    def work_off(self) -> None:
        """All hops that are there now. The thread does this whenever it is woken; without it, whoever owns the loop."""
        ended = self.input is not None and self.input.ended  # before the fill is read: the last block is in by then
        while not self._passes_over_silence() and self._is_hop_there():
            self._waits = 0
            self._take_hop()
            if self._rest.on and self.input_ring.fill < self.hop:  # that took no time in which more could have come
                break
        if self.output is not None and self._rest.is_output_due():
            self.output.pump()
        if ended and not self.finished.is_set():
            self._drain()
        self._obey()

    def _is_hop_there(self) -> bool:
        looked_s = time.perf_counter()
        if self.input is not None:
            self.input.pump()  # each time: sound came while the last hop was worked on
        if self.input_ring.fill >= self.hop:
            return True
        self.drops.absent(looked_s)
        return False

    def _obey(self) -> None:
        while not self._commands.empty():
            self._commands.get()()

    def _take_hop(self) -> None:
        self._obey()
        behind = self.input_ring.fill - self.hop
        if behind > BEHIND_MS * self.rate_hz / 1000.0:
            self._skip(behind // self.hop)
        x = self.input_ring.read(self.hop)[:, 0]
        if not (self.asleep and self._may_rest() and self._rest.take(x, self.muted)):
            self._work(x)

    def _may_rest(self) -> bool:
        """Whether a hop of silence leaves everything as it is, and nothing comes out."""
        settled = self._open.value == float(not self.muted) and self._gate.value == float(
            not (self.muted or self.closed)
        )
        return settled and not (self.unheard or self.dead or self._to_wake or self.stream.lets_original_out)

    def _passes_over_silence(self) -> bool:
        """Whether silence alone came at rest, and was left with the device."""
        passes = self._rest.passes_over(self.input, self._may_rest, self.muted)
        self._waits = 0 if self._rest.moved else self._waits
        return passes

    def _tell_rest(self, x: Samples, peak: float) -> None:
        """One hop of silence; what it would have left behind is made up for by `_end_rest`."""
        self.position += self.hop
        self.times.add(0.0)
        self._tell_ports(True)
        self._last = np.float32(0.0)
        silence, limiter_db = self._rest.silence, self.stream.limiter.gain_db
        seen = LiveHop(self.time_s, x, silence, self._nothing, None, limiter_db, peak, asleep=True)
        self.recent.append(seen)
        self._on_hop(seen)

    def _end_rest(self) -> None:
        """Let what delays the original hear the last of the silence; the output begins again, its reserve first.

        The first hop came in one piece, and so later than those that follow: what is then too much soon shows.
        """
        for x in self._rest.end():
            self.stream.bypass_hop(x)
        self._tell_ports(False)
        self.fill.look_soon()
        self._synced = False

    def _tell_ports(self, resting: bool) -> None:
        for port in (self.input, self.output):
            if port is not None:
                port.rest(resting)

    def _skip(self, hops: int) -> None:
        """Leave out the oldest hops; silence stands for them wherever time is counted."""
        self.input_ring.skip(hops * self.hop)
        self.skipped += hops * self.hop
        self.drops.take(self.position + self.hop)
        self.count_dropout()
        self.broken += 1
        silence = np.zeros(self.hop, dtype=np.float32)
        for _ in range(hops):
            self.position += self.hop
            self._on_hop(LiveHop(self.time_s, silence, silence, self._nothing, None, 0.0, 0.0, lost=True))

    def _work(self, x: Samples) -> None:
        """One hop from input to output."""
        self.drops.take(self.position + self.hop)
        if self._rest.on:
            self._end_rest()
        x, peak = self._sane(x)
        self.position += self.hop
        gain = self._open.next(0.0 if self.muted else 1.0)
        x = x if np.isscalar(gain) and gain == 1.0 else x * gain
        self._sleep_or_wake(x)
        began = time.perf_counter()
        y = self._process(x)
        took_ms = 1000.0 * (time.perf_counter() - began)
        self.times.add(took_ms)
        self.busy_ms += took_ms
        self.drops.computed()
        gate = self._gate.next(0.0 if self.muted or self.closed or self._to_wake else 1.0)
        y = y if np.isscalar(gate) and gate == 1.0 else y * gate
        self._last = y[-1]
        self._put(y)
        made = self._made
        self.watch.add(peak, made)
        heard = made.mixture if made is not None else self._nothing if self.asleep else self._heard(x)
        limiter_db = self.stream.limiter.gain_db
        seen = LiveHop(self.time_s, x, y, heard, made, limiter_db, peak, asleep=self.asleep)
        self.recent.append(seen)
        self._on_hop(seen)

    def _sane(self, x: Samples) -> tuple[Samples, float]:
        """x without what is no sound, and its peak: one sample that is no number would stay in the models for ever."""
        peak = float(np.abs(x).max())
        if peak <= LOUDEST:
            return x, peak
        self.insane += 1
        x = np.clip(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), -LOUDEST, LOUDEST)
        return x, float(np.abs(x).max())

    def _sleep_or_wake(self, x: Samples) -> None:
        """Whether the models may rest in this hop [hop]. They are back in the very hop that brings sound again."""
        self._quiet_hops = self._quiet_hops + 1 if np.abs(x).max() <= SILENCE_PEAK else 0
        unheard = self.unheard
        self.asleep = unheard or self._quiet_hops * self.hop > SLEEP_AFTER_S * self.rate_hz
        self._to_wake = WAKE_HOPS if unheard else max(0, self._to_wake - 1)

    def _process(self, x: Samples) -> Samples:
        self._made = None
        if self.dead:
            return self.stream.bypass_hop(x)
        if self.asleep:
            original = self.stream.bypass_hop(x)
            return original if self.stream.lets_original_out else np.zeros_like(original)
        if self.resting and self.stream.lets_original_out:
            self._to_settle = SETTLE_HOPS
            return self.stream.bypass_hop(x)
        self._to_settle -= 1 if self._to_settle else 0
        self.stream.bypass = self.bypass or self.resting or self._to_settle > 0
        self._unfinished = x  # as long as it is under way: `_die` sees to it
        y = self.stream.process_hop(x)
        self._unfinished = None
        return y

    def _die(self, error: Exception) -> None:
        """The models failed in the middle of a hop: let the voice through as it is, from this very hop on."""
        log.debug("the sound models failed", exc_info=error)
        self._made, first = None, not self.dead
        self.dead = True
        if first:
            text = str(error).strip().split("\n", 1)[0] or type(error).__name__
            self._on_failure(text)
        x, self._unfinished = self._unfinished, None
        if x is not None:
            y = self.stream.bypass_hop(x).copy()
            fade = np.linspace(0.0, 1.0, round(DEATH_FADE_MS * self.rate_hz / 1000.0), dtype=np.float32)
            y[: len(fade)] = fade * y[: len(fade)] + (1 - fade) * self._last
            self._put(y)
            self._on_hop(LiveHop(self.time_s, x, y, self._heard(x), None, 0.0, float(np.abs(x).max())))

    def _heard(self, x: Samples) -> Samples:
        """The input at the models' rate, where the models do not give it."""
        return self._spare.process(x)

    def _watch_stream(self) -> None:
        def keep(hop: HopOutput) -> None:
            self._made = hop

        self.stream.on_hop = keep

    def _drain(self) -> None:
        """The input is over: push out what is still inside, filled up with silence."""
        left = self.input_ring.fill
        hops = -(-(left + self.stream.lag_hop_native) // self.hop)
        rest = np.zeros(hops * self.hop, dtype=np.float32)
        rest[:left] = self.input_ring.read(left)[:, 0]
        true_end = self.position + left
        for hop in rest.reshape(-1, self.hop):
            self._work(hop)
        self.position = true_end
        self.finished.set()

    # The output ring --------------------------------------------------------------------------------------------------

    def _put(self, y: Samples) -> None:
        """Add one hop to what waits for the output, which is kept between too little and too much."""
        ring, port = self.output_ring, self.output
        if port is not None:
            port.pump()
        if port is None or not port.begun:
            self._synced = False
            if port is None:
                ring.clear()
            return
        if not self._synced:
            self._sync(port)
        elif ring.underruns != self._dry_before:
            self._dry_before = ring.underruns
            self.count_dropout()
            self.broken += 1
            self.fill.ran_dry()
        self._count_xruns(port)
        waiting = self.to_play
        self.drops.left(waiting, self.time_s)
        self.waiting_ms += FILL_SMOOTHING * (1000.0 * waiting / self.rate_hz - self.waiting_ms)
        shift = self.fill.next(waiting)
        if shift:
            y, shift = splice(y, shift, self.rate_hz)
            self.fill.applied(shift)
        ring.write(y[: max(0, ring.capacity - waiting)])  # an output that stands still
        port.pump()
        self.drops.written(waiting + len(y))

    def _sync(self, port: Port) -> None:
        """Begin, or begin again: the reserve is silence."""
        ring = self.output_ring
        missing = self.fill.goal - self.to_play
        if missing > 0:
            ring.write(np.zeros(missing, dtype=np.float32))
        self.waiting_ms = 1000.0 * self.to_play / self.rate_hz
        self._dry_before, self._xruns_before = ring.underruns, self._xruns_of(port)
        self._synced = True
        self.drops.forget()

    def _count_xruns(self, port: Port) -> None:
        xruns = self._xruns_of(port)
        for cause, now, before in zip((Cause.TOLD_IN, Cause.TOLD_OUT), xruns, self._xruns_before):
            for _ in range(now - before):
                self.count_dropout(cause)
        self._xruns_before = xruns

    def _xruns_of(self, port: Port) -> tuple[int, int]:
        return self.input.xruns if self.input is not None else 0, port.xruns
