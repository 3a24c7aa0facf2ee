"""Sound devices: which there are, what they are called, and how one is opened. The only importer of sounddevice.

A device's id is its Pulse source or sink name where a Pulse server answers (PulseAudio or PipeWire on Linux), else
"name, host API" of PortAudio; never an index, because indices move when something is plugged in. Pulse devices are
opened through libpulse (engine.pulse_port). Where that cannot be, PortAudio sees one ALSA device, `pulse`; which source
or sink it stands for is told by the environment while it is opened.

Input and output are opened apart, each with its own clock; the engine holds the sound between them together.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine import pulse
from engine.ports import FALLBACK_RATE_HZ
from engine.priority import unnamed_threads
from engine.resample import LIVE_RATES_HZ
from engine.types import DeviceError, UsageError

INPUT, OUTPUT = "input", "output"
CABLES = {"BlackHole": None, "CABLE Input": "CABLE Output"}  # virtual cables: an output's name, and its other end's
CUT_NAME = 31  # characters; so much of a name is told by the oldest of the ways to a device that Windows has
_opening = threading.Lock()  # the environment and PortAudio's own lists belong to the process
_open_streams = 0


@dataclass(frozen=True)
class DeviceInfo:
    """One device as a person chooses it. kind: "input" or "output"; is_own: part of our virtual microphone."""

    id: str
    name: str
    kind: str
    default: bool
    is_monitor: bool = False
    is_own: bool = False
    sample_rate_hz: int = FALLBACK_RATE_HZ
    channels: int = 1
    monitor_of: str | None = None


def cable_in(name: str) -> str | None:
    """Where the sound of an output so named can be heard: the name of a virtual cable's other end; None for others."""
    for cable, other_end in CABLES.items():
        if cable in name:
            return name if other_end is None else name.replace(cable, other_end)
    return None


def hears(microphone: DeviceInfo, output: DeviceInfo) -> bool:
    """Whether an input gives what is played to an output: it is its monitor, or the other end of a virtual cable.

    Windows lists both ends of a cable once for each of its ways to a device.
    """
    other_end = cable_in(output.name)
    return microphone.monitor_of == output.id or (other_end is not None and _same_name(microphone.name, other_end))


def _same_name(a: str, b: str) -> bool:
    return a[:CUT_NAME] == b[:CUT_NAME]


def on_pulse() -> bool:
    """Whether ids are Pulse names here."""
    return sys.platform.startswith("linux") and pulse.available()


def list_devices() -> list[DeviceInfo]:
    """Inputs, then outputs, our own left in and marked. Raises DeviceError when PortAudio is missing."""
    found = pulse.list_if_available() if sys.platform.startswith("linux") else None
    if found is None:
        return list(_portaudio_devices())
    return [
        DeviceInfo(
            d.name, d.title, d.kind, d.default, d.monitor_of is not None, d.is_own, _live_rate(d.sample_rate_hz),
            d.channels, d.monitor_of,
        )
        for d in found
    ]  # fmt: skip


def choose_input(wanted: str | None, output: str | None = None, monitors: bool = True) -> DeviceInfo:
    """The input called `wanted`, or the default one. Never our own, nor one that hears `output`: that would howl.

    monitors: what an output plays may be the default. Raises UsageError for those, DeviceError when there is none.
    """
    devices = list_devices()
    inputs = [d for d in devices if d.kind == INPUT]
    played = [d for d in devices if d.kind == OUTPUT and d.id == output]
    if wanted is not None:
        found = _named(inputs, wanted, "microphone")
        if found.is_own:
            raise UsageError("Sottovoce's own microphone cannot be its input; choose another with --input")
        if any(hears(found, d) for d in played):
            raise UsageError(f"{wanted} hears what is played to {output}, which would howl; choose another output")
        return found
    usable = [d for d in inputs if not d.is_own and not any(hears(d, out) for out in played)]
    usable = [d for d in usable if monitors or not d.is_monitor]
    if not usable:
        raise DeviceError("no microphone was found; plug one in, or run: sottovoce demo")
    return max(usable, key=lambda d: (d.default, not d.is_monitor))


def choose_output(wanted: str | None) -> DeviceInfo:
    """The output called `wanted`, or the default one. Raises DeviceError when there is none."""
    outputs = [d for d in list_devices() if d.kind == OUTPUT]
    if wanted is not None:
        return _named(outputs, wanted, "output")
    usable = [d for d in outputs if not d.is_own]
    if not usable:
        raise DeviceError("no sound output was found; plug one in, or run: sottovoce live --virtual-mic")
    return max(usable, key=lambda d: d.default)


def _named(devices: list[DeviceInfo], wanted: str, what: str) -> DeviceInfo:
    for device in devices:
        if device.id == wanted:
            return device
    raise DeviceError(f"there is no {what} called {wanted}; see: sottovoce devices")


def _live_rate(rate_hz: int) -> int:
    return rate_hz if rate_hz in LIVE_RATES_HZ else FALLBACK_RATE_HZ


# PortAudio ------------------------------------------------------------------------------------------------------------


def _sounddevice() -> Any:
    try:
        import sounddevice
    except OSError as error:
        raise DeviceError("PortAudio is missing; install it: sudo apt install libportaudio2") from error
    _hush_alsa()
    return sounddevice


def get_ready() -> None:
    """Load what opening a device takes, which is slow the first time; what is missing is told when one is opened."""
    with contextlib.suppress(DeviceError):
        _sounddevice()
        _rtmixer()


@functools.cache
def _hush_alsa() -> Any:
    """ALSA prints every underrun to standard error; they are counted and told by us. Keep the handler."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
    handler = kind(lambda *message: None)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(handler)
    return handler


def _portaudio_devices() -> Iterator[DeviceInfo]:
    sd = _sounddevice()
    _refresh(sd)
    apis = sd.query_hostapis()
    defaults = {(kind, api[f"default_{kind}_device"]) for api in apis for kind in (INPUT, OUTPUT)}
    cables = [
        (other_end, d["hostapi"], f"{d['name']}, {apis[d['hostapi']]['name']}")
        for d in sd.query_devices()
        if d["max_output_channels"] and (other_end := cable_in(d["name"])) is not None
    ]
    for kind in (INPUT, OUTPUT):
        for d in sd.query_devices():
            channels = d[f"max_{kind}_channels"]
            if channels:
                name = f"{d['name']}, {apis[d['hostapi']]['name']}"
                rate = _live_rate(int(d["default_samplerate"]))
                default = (kind, d["index"]) in defaults
                ends = [id for other, api, id in cables if api == d["hostapi"] and _same_name(other, d["name"])]
                of = ends[0] if kind == INPUT and ends else None
                yield DeviceInfo(name, d["name"], kind, default, of is not None, False, rate, channels, of)


def _refresh(sd: Any) -> None:
    """PortAudio lists devices once, when it starts; starting it anew ends its streams, so only while there is none."""
    with _opening:
        if not _open_streams:
            sd._terminate()
            sd._initialize()


def _portaudio_name(sd: Any, device: DeviceInfo) -> str | int:
    """What PortAudio calls the device."""
    if not on_pulse():
        return device.id
    for _ in range(2):
        if any(d["name"] == "pulse" for d in sd.query_devices()):
            return "pulse"
        _refresh(sd)
    raise DeviceError("ALSA has no way to the sound server; install it: sudo apt install libasound2-plugins")


@contextmanager
def _routed(device: DeviceInfo) -> Iterator[None]:
    """While this holds, ALSA's `pulse` is `device`."""
    key = "PULSE_SOURCE" if device.kind == INPUT else "PULSE_SINK"
    with _opening:
        former = os.environ.get(key)
        os.environ[key] = device.id
        try:
            yield
        finally:
            if former is None:
                del os.environ[key]
            else:
                os.environ[key] = former


def _rtmixer() -> Any:
    import rtmixer

    return rtmixer


def open_stream(
    device: DeviceInfo, sample_rate_hz: int, block: int, latency_s: float, begin: Callable[[Any], None]
) -> tuple[Any, set[int]]:
    """An rtmixer.Recorder or Mixer that runs on the device, and its threads. `begin` has it before its first block.

    Raises DeviceError when the device cannot be had. To be given back by `close_stream`.
    """
    global _open_streams
    sd = _sounddevice()
    name, kinds = _portaudio_name(sd, device), _rtmixer()
    kind = kinds.Recorder if device.kind == INPUT else kinds.Mixer
    channels = 1 if name == "pulse" else min(2, device.channels)
    try:
        with _routed(device):
            before = unnamed_threads()
            stream = kind(device=name, samplerate=sample_rate_hz, blocksize=block, channels=channels, latency=latency_s)
            _open_streams += 1
        with contextlib.ExitStack() as undo:
            undo.callback(close_stream, stream)
            begin(stream)
            stream.start()
            threads = unnamed_threads() - before
            undo.pop_all()
    except (sd.PortAudioError, ValueError) as error:
        reason = str(error).split("[", 1)[0].strip()
        raise DeviceError(f"{device.name} cannot be opened ({reason}); see: sottovoce devices") from error
    return stream, threads


def close_stream(stream: Any) -> None:
    """Give a stream back; what still plays is cut off."""
    global _open_streams
    stream.close(ignore_errors=True)
    with _opening:
        _open_streams -= 1


def sample_ring(channels: int, frames: int) -> Any:
    """A ring of at least so many frames, float32, that a stream's callback fills or empties."""
    return _rtmixer().RingBuffer(4 * channels, 1 << (frames - 1).bit_length())


def frames_in(ring: Any) -> int:
    """How many frames wait in such a ring. Asked in its own way it would let other Python threads in first."""
    state = ring._ptr
    return int((state.writeIndex - state.readIndex) & state.bigMask)


def has_ended(stream: Any, action: Any) -> bool:
    """Whether the stream's callback is through with an action; asked in the same way."""
    told = stream._result_q._ptr
    return told.writeIndex != told.readIndex and action not in stream.actions
