"""The two ends of a live run as a person knows them: chosen, opened, lost, found again, changed for others.

All of it may wait, so it is called from the engine's side thread, and from its owner at the start and the end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from engine.attention import Attention
from engine.device_port import HELD_MAX, HELD_MIN, DevicePort
from engine.devices import INPUT, OUTPUT, DeviceInfo, choose_input, choose_output, get_ready, list_devices
from engine.dropouts import Cause
from engine.port_choice import port_for
from engine.portaudio_port import PortAudioPort
from engine.ports import NO_OUTPUT, DiscardOutput, Port
from engine.soundloop import SoundLoop
from engine.types import DeviceChange, DeviceError, EngineConfig, Event, Problem, UsageError
from engine.virtual_mic import PulseMic, make_virtual_mic, remove_leftovers

FADE_OUT_S = 0.05  # beyond what waits in the output ring; the sound is silent by then
WHAT = {INPUT: "microphone", OUTPUT: "output"}
# A device that is there and moves no block for so long is opened anew. What a sink plays may come two seconds late to
# those who listen in, when its own delay is changed for another program.
STALL_S = 2.5
SLOW_START_BLOCKS, SLOW_START_S = 50, 5.0  # it may take its time with the first ones, as wireless ones do
MANY_XRUNS, LOOKS = 3, 20  # breaks in so many of so many looks (ten seconds), and the device is given more in hand,
LOAD_PASSES_S = 60.0  # which it keeps: so not for a load that passes


@dataclass
class _End:
    """One end. wanted: the id a person chose, None for whatever is the default; lost: it was there and is gone.

    device: the id of what ran last; monitor: whether that was what an output plays; default: the system's when last
    looked at; moved_s: when the port was first seen to have moved `blocks`; refusal: why it could not be opened again,
    as was told.
    """

    kind: str
    wanted: str | None = None
    port: Port | None = None
    lost: bool = False
    device: str = ""
    monitor: bool = False
    held: int = HELD_MIN
    xruns: deque[int] = field(default_factory=lambda: deque(maxlen=LOOKS))
    default: str | None = None
    blocks: int = -1
    moved_s: float = 0.0
    refusal: str | None = None

    def breaks_often(self) -> bool:
        """Whether the device ran dry several times in the last seconds; asked at every look."""
        if self.port is not None:
            self.xruns.append(self.port.xruns)
        often = sum(later > earlier for earlier, later in pairwise(self.xruns)) >= MANY_XRUNS
        return often and self.held < HELD_MAX

    def stalls(self) -> bool:
        """Whether no block has moved for too long; asked at every look."""
        blocks = self.port.blocks if self.port is not None else -1
        if self.port is None or self.port.idle or blocks != self.blocks:
            self.blocks, self.moved_s = blocks, time.monotonic()
        return time.monotonic() - self.moved_s > (STALL_S if self.blocks > SLOW_START_BLOCKS else SLOW_START_S)

    def default_moved(self, found: Sequence[DeviceInfo]) -> bool:
        """Whether the system's default is another than at the last look, where it is what a person wants."""
        now = next((d.id for d in found if d.kind == self.kind and d.default and not d.is_own), None)
        before, self.default = self.default, now
        return self.wanted is None and None not in (before, now) and now != before


class Endpoints:
    """Input and output of one run. `source` and `sink` stand for the microphone and the output where they are given.

    prepare chooses them and returns the run's sample rate; open lets the sound run; look_after comes twice a second.
    """

    def __init__(
        self, config: EngineConfig, source: Port | None, sink: Port | None, tell: Callable[[Event], None]
    ) -> None:
        self._config, self._tell = config, tell
        self._source, self._sink = source, sink
        self._in, self._out = _End(INPUT, config.input), _End(OUTPUT, config.output)
        self._mic = make_virtual_mic() if config.virtual_mic else None
        self.attention, self._resting = Attention(self._rest), False
        self._loop: SoundLoop | None = None
        self._requests: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._busy_since_s: float | None = None
        self.rate_hz = 0

    @property
    def block(self) -> int:
        """Samples that a device moves at once."""
        return max(1, round(self.rate_hz * self._config.block_ms / 1000.0))

    @property
    def missing(self) -> bool:
        """Whether a device is gone and waited for."""
        return self._in.lost or self._out.lost

    @property
    def latencies_ms(self) -> tuple[float, float]:
        """What input and output hold back."""
        ports = (self._in.port, self._out.port)
        return tuple(p.latency_ms if p is not None else 0.0 for p in ports)  # type: ignore[return-value]

    @property
    def microphone(self) -> str | None:
        """What other programs call the virtual microphone, where there is one."""
        return self._mic.name if self._mic is not None else None

    @property
    def devices(self) -> tuple[str | None, str | None]:
        """Ids of input and output; None while one is gone."""
        ports = (self._in.port, self._out.port)
        return tuple(p.device if p is not None else None for p in ports)  # type: ignore[return-value]

    # Beginning and end ------------------------------------------------------------------------------------------------

    def prepare(self) -> int:
        """Choose both ends; the rate is the input's. Raises DeviceError or UsageError."""
        remove_leftovers()
        if self._mic is not None:
            if self._config.output is not None:
                raise UsageError("choose one of --output and --virtual-mic, not both")
            self._mic.create()
            self._out.wanted = self._mic.sink
        output = self._choose_output()
        if self._source is not None:
            self.rate_hz, self._in.port = self._source.sample_rate_hz, self._source
        else:
            device = choose_input(self._in.wanted, output.id if output is not None else None)
            self.rate_hz = device.sample_rate_hz
            self._in.port = self._device_port(device)
        if output is not None:
            self._out.port = self._device_port(output)
        else:
            self._out.port = self._sink or DiscardOutput(self.rate_hz, self._config.block_ms)
        if any(isinstance(end.port, PortAudioPort) for end in (self._in, self._out)):
            get_ready()
        return self.rate_hz

    def _choose_output(self) -> DeviceInfo | None:
        """None: the sink that was given, or nowhere."""
        if self._sink is not None or self._out.wanted == NO_OUTPUT:
            return None
        try:
            return choose_output(self._out.wanted)
        except DeviceError as error:
            if not self._may_be_unheard():
                raise
            self._tell_unheard(error)
            return None

    def _device_port(self, device: DeviceInfo, held: int = HELD_MIN) -> DevicePort:
        return port_for(device, self.rate_hz, self._config.block_ms, held)

    def open(self, loop: SoundLoop) -> None:
        """Start both; the output first, so that the sound has somewhere to go."""
        self._loop = loop
        assert self._in.port is not None
        assert self._out.port is not None
        try:
            self._start(self._out, self._out.port)
        except DeviceError as error:
            if not self._may_be_unheard():
                raise
            self._tell_unheard(error)
            self._start(self._out, DiscardOutput(self.rate_hz, self._config.block_ms))
        self._start(self._in, self._in.port)
        # the models may rest while no program listens to the virtual microphone, where nothing else wants them
        if isinstance(self._mic, PulseMic) and not self._config.captions and self._config.record_dir is None:
            self.attention.start()

    def _rest(self, resting: bool) -> None:
        """Close the devices while nobody listens, the microphone's light goes out, and open them when somebody does."""
        loop = self._need_loop()
        with self._lock:
            if self._closing or resting == self._resting:
                return
            self._resting = loop.unheard = resting
            if resting:
                time.sleep(FADE_OUT_S + loop.waiting_ms / 1000.0)
            for end in (self._out, self._in):
                if isinstance(end.port, DevicePort):
                    (self._put_down if resting else self._take_up)(end, end.port)

    def _put_down(self, end: _End, port: DevicePort) -> None:
        port.stop()
        if end.kind == OUTPUT:
            self._need_loop().output = None  # what comes meanwhile must not be heard later
        else:
            self._need_loop().input = None  # nothing comes: it need not be looked at

    def _take_up(self, end: _End, port: DevicePort) -> None:
        try:
            self._start(end, self._device_port(port.info, end.held))
        except DeviceError:
            why = "cannot be opened; plug it in again, or choose another"
            self._lose(end, port, why, self._need_loop().time_s)

    def _may_be_unheard(self) -> bool:
        """A recording is worked on even where nothing can play it, unless a certain output was asked for."""
        return self._source is not None and self._out.wanted is None

    def _tell_unheard(self, error: DeviceError) -> None:
        self._tell(DeviceChange(0.0, f"not played: {error}", NO_OUTPUT))

    def _start(self, end: _End, port: Port) -> None:
        """Raises DeviceError; the end has its port only when it runs."""
        loop = self._need_loop()
        end.port = None
        port.start(loop.input_ring if end.kind == INPUT else loop.output_ring, loop.wake)
        end.port, end.device = port, port.device
        end.monitor = isinstance(port, DevicePort) and port.info.is_monitor
        end.xruns.clear()
        end.blocks = -1
        loop.resync()
        if end.kind == INPUT:
            loop.input = port
            loop.wake.ring()  # without an input it waits for longer
        else:
            loop.output = port

    def _stop(self, end: _End) -> None:
        port, end.port = end.port, None
        if port is not None:
            port.stop()
        if self._loop is not None:
            if end.kind == INPUT:
                self._loop.input = None
                if port is not None:
                    self._loop.do(port.pump)  # what came last
            else:
                self._loop.output = None

    def close_input(self) -> None:
        """No more sound comes in, and no device is looked for any more."""
        with self._lock:
            self._closing = True
            self._stop(self._in)

    def close(self) -> None:
        """Give everything back."""
        self.attention.stop()
        with self._lock:
            self._closing = True
            self._stop(self._in)
            self._stop(self._out)
            self._in.lost = self._out.lost = False
            if self._mic is not None:
                self._mic.remove()

    # While it runs ----------------------------------------------------------------------------------------------------

    def request(self, input_id: str | None, output_id: str | None) -> None:
        """Ask for other devices; raises UsageError or DeviceError when they cannot be meant."""
        if input_id is not None:
            if self._source is not None:
                raise UsageError("a recording is playing in the microphone's place; start anew to hear a microphone")
            choose_input(input_id, output_id or self._current(self._out))
        if output_id is not None:
            if self._mic is not None:
                raise UsageError("the output is the virtual microphone; start anew without it to hear the sound")
            if output_id != NO_OUTPUT:
                choose_output(output_id)
            if self._source is None and input_id is None:
                choose_input(self._current(self._in), output_id)
        wishes = {INPUT: input_id, OUTPUT: output_id}
        self._requests.update({kind: wish for kind, wish in wishes.items() if wish is not None})

    def _current(self, end: _End) -> str | None:
        return end.port.device if end.port is not None else end.wanted

    def look_after(self, time_s: float, too_busy: bool = False) -> None:
        """Notice devices that went or came back, and do what was requested. too_busy: this machine does too much."""
        with self._lock:
            if self._closing or self._resting:
                return
            self._busy_since_s = (self._busy_since_s or time.monotonic()) if too_busy else None
            watched = any(isinstance(end.port, DevicePort) for end in (self._in, self._out))
            found = _there_now() if watched else []
            for end in (self._in, self._out):
                if end.kind in self._requests:
                    self._change(end, self._requests.pop(end.kind), time_s)
                elif end.lost:
                    self._find_again(end, time_s)
                elif isinstance(end.port, DevicePort):
                    self._watch(end, end.port, found, time_s)

    def _watch(self, end: _End, port: DevicePort, found: Sequence[DeviceInfo], time_s: float) -> None:
        if not _is_there(port, found):
            self._lose(end, port, "is gone; plug it in again, or choose another", time_s)
        elif end.stalls():
            self._lose(end, port, "has stopped; it is opened again, or choose another", time_s)
        elif end.default_moved(found) and (now := self._choose(end, None)).default and now.id != port.device:
            self._change(end, None, time_s)
        elif self._busy_since_s is not None and time.monotonic() - self._busy_since_s < LOAD_PASSES_S:
            end.xruns.clear()
        elif end.breaks_often():
            self._enlarge(end, port)

    def _lose(self, end: _End, port: DevicePort, how: str, time_s: float) -> None:
        self._stop(end)
        end.lost, end.refusal = True, None
        text = f"the {WHAT[end.kind]} {port.info.name} {how}"
        self._tell(DeviceChange(time_s, "lost", port.device))
        self._tell(Problem(time_s, text, "silence"))

    def _enlarge(self, end: _End, port: DevicePort) -> None:
        """Let the device keep twice as much in hand; that costs a moment of silence once, instead of many breaks."""
        end.held = min(2 * end.held, HELD_MAX)
        loop = self._need_loop()
        loop.closed = True
        time.sleep(FADE_OUT_S + loop.waiting_ms / 1000.0)
        self._stop(end)
        try:
            self._start(end, self._device_port(port.info, end.held))
        except DeviceError:
            end.lost = True  # looked for at the next look
        finally:
            loop.closed = False
        loop.do(lambda: loop.count_dropout(Cause.REOPENED))

    def _find_again(self, end: _End, time_s: float) -> None:
        lost = end.device
        try:
            if end.wanted is not None and self._mic is not None and end.kind == OUTPUT:
                self._mic.create()
            port = self._open_again(end, end.wanted)
        except (DeviceError, UsageError) as error:
            self._tell_refusal(end, str(error), time_s)
            return
        end.lost, end.refusal = False, None
        self._tell(DeviceChange(time_s, "back" if port.device == lost else "switched", port.device))

    def _tell_refusal(self, end: _End, why: str, time_s: float) -> None:
        """Still waiting. That it is not there has been told; that it is there and cannot be opened is told once."""
        there = any(d.kind == end.kind and d.id == end.wanted for d in _there_now())
        if there and end.refusal is None:
            end.refusal = why
            self._tell(Problem(time_s, why, "silence"))

    def _choose(self, end: _End, wanted: str | None) -> DeviceInfo:
        """For a microphone that has gone never what an output plays: in a call, the others would hear themselves.

        Raises DeviceError or UsageError.
        """
        if end.kind == OUTPUT:
            return choose_output(wanted)
        return choose_input(wanted, self._current(self._out), monitors=end.monitor)

    def _open_again(self, end: _End, wanted: str | None) -> Port:
        """Raises DeviceError or UsageError."""
        port: Port
        if end.kind == OUTPUT and wanted == NO_OUTPUT:
            port = DiscardOutput(self.rate_hz, self._config.block_ms)
        else:
            port = self._device_port(self._choose(end, wanted), end.held)
        self._start(end, port)
        return port

    def _change(self, end: _End, wanted: str | None, time_s: float) -> None:
        """Fade out, change, fade in; back to the former device when the new one cannot be opened."""
        loop, former = self._need_loop(), end.wanted
        loop.closed = True
        time.sleep(FADE_OUT_S + loop.waiting_ms / 1000.0)
        self._stop(end)
        try:
            port = self._open_again(end, wanted)
            end.wanted, end.lost = wanted, False
            self._tell(DeviceChange(time_s, "switched", port.device))
        except (DeviceError, UsageError) as error:
            self._tell(Problem(time_s, str(error), "former device"))
            end.lost = True
            end.wanted = former
            self._find_again(end, time_s)
        finally:
            loop.closed = False

    def _need_loop(self) -> SoundLoop:
        assert self._loop is not None
        return self._loop


def _there_now() -> list[DeviceInfo]:
    """Every device; none where nobody can be asked."""
    try:
        return list_devices()
    except DeviceError:
        return []


def _is_there(port: DevicePort, found: Sequence[DeviceInfo]) -> bool:
    """A sound server may move a stream to another device when its own goes, so its liveness is not enough."""
    return port.alive and any((d.id, d.kind) == (port.device, port.info.kind) for d in found)
