"""Sound devices: which there are, and the ports that carry sound to and from them. The only importer of sounddevice.

A device's id is its Pulse source or sink name where a Pulse server answers (PulseAudio or PipeWire on Linux), else
"name, host API" of PortAudio; never an index, because indices move when something is plugged in. On Pulse PortAudio
sees one ALSA device, `pulse`; which source or sink it stands for is told by the environment while it is opened.

Input and output are opened apart, each with its own clock; the engine holds the sound between them together.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine import pulse
from engine.ports import FALLBACK_RATE_HZ, Wake
from engine.priority import hurry
from engine.resample import LIVE_RATES_HZ
from engine.ring import Ring
from engine.types import DeviceError, Samples, UsageError

INPUT, OUTPUT = "input", "output"
HELD_MIN, HELD_MAX = 3, 8  # blocks
CABLES = {"BlackHole": None, "CABLE Input": "CABLE Output"}  # virtual cables: an output's name, and its other end's
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


def choose_input(wanted: str | None, output: str | None = None) -> DeviceInfo:
    """The input called `wanted`, or the default one. Never our own, nor a monitor of `output`: that would howl.

    Raises UsageError for those, DeviceError when there is none.
    """
    inputs = [d for d in list_devices() if d.kind == INPUT]
    if wanted is not None:
        found = _named(inputs, wanted, "microphone")
        if found.is_own:
            raise UsageError("Sottovoce's own microphone cannot be its input; choose another with --input")
        if output is not None and found.monitor_of == output:
            raise UsageError(f"{wanted} hears what is played to {output}, which would howl; choose another output")
        return found
    usable = [d for d in inputs if not d.is_own and (output is None or d.monitor_of != output)]
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
        raise DeviceError("no sound output was found; plug one in, or choose --virtual-mic")
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
    hears = {
        (cable_in(d["name"]), d["hostapi"]): f"{d['name']}, {apis[d['hostapi']]['name']}"
        for d in sd.query_devices()
        if d["max_output_channels"] and cable_in(d["name"]) is not None
    }
    for kind in (INPUT, OUTPUT):
        for d in sd.query_devices():
            channels = d[f"max_{kind}_channels"]
            if channels:
                name = f"{d['name']}, {apis[d['hostapi']]['name']}"
                rate = _live_rate(int(d["default_samplerate"]))
                default = (kind, d["index"]) in defaults
                of = hears.get((d["name"], d["hostapi"])) if kind == INPUT else None
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
    global _open_streams
    with _opening:
        former = os.environ.get(key)
        os.environ[key] = device.id
        try:
            yield
            _open_streams += 1
        finally:
            if former is None:
                del os.environ[key]
            else:
                os.environ[key] = former


class DevicePort:
    """A sound device through PortAudio, for engine.ports.Port: its callback copies to or from the ring, and counts.

    held: how many blocks the device is asked to keep in hand.
    """

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        self.held = held
        self.info, self.device, self.sample_rate_hz = device, device.id, sample_rate_hz
        self.block = max(1, round(sample_rate_hz * block_ms / 1000.0))
        self.xruns, self.blocks = 0, 0
        self._given_s, self._lasts_s = (
            math.inf,
            math.inf,
        )  # when the last block was given, how long the device has sound
        self._calm_s = block_ms / 2000.0
        self._stream: Any = None
        self._ring: Ring | None = None
        self._wake = Wake()

    @property
    def latency_ms(self) -> float:
        stream = self._stream  # another thread may take it away meanwhile
        return 1000.0 * float(stream.latency) if stream is not None else 0.0

    @property
    def alive(self) -> bool:
        stream = self._stream
        return stream is not None and bool(stream.active)

    ended = False  # a microphone has no end

    def start(self, ring: Ring, wake: Wake) -> None:
        """Open and run; raises DeviceError when the device cannot be had."""
        global _open_streams
        sd = _sounddevice()
        name = _portaudio_name(sd, self.info)
        self._ring, self._wake = ring, wake
        kind, callback = (
            (sd.InputStream, self._take) if self.info.kind == INPUT else (sd.OutputStream, self._give)
        )  # fmt: skip
        channels = 1 if name == "pulse" else min(2, self.info.channels)
        options = {"samplerate": self.sample_rate_hz, "blocksize": self.block, "dtype": "float32", "channels": channels}
        held_s = self.held * self.block / self.sample_rate_hz
        try:
            with _routed(self.info):
                stream = kind(device=name, latency=held_s, callback=callback, **options)
            self._stream = stream
            # PortAudio keeps a block more than it tells
            self._lasts_s = float(stream.latency) + self.block / self.sample_rate_hz
            stream.start()
        except (sd.PortAudioError, ValueError) as error:
            self.stop()
            reason = str(error).split("[", 1)[0].strip()
            raise DeviceError(f"{self.info.name} cannot be opened ({reason}); see: sottovoce devices") from error

    def stop(self) -> None:
        global _open_streams
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        stream.close(ignore_errors=True)  # aborts what still plays
        with _opening:
            _open_streams -= 1

    def _take(self, data: Samples, frames: int, when: Any, status: Any) -> None:
        if not self.blocks:
            hurry()
        if self._ring is not None:
            self._ring.write(data[:, :1])
        if status:
            self.xruns += 1
        self.blocks += 1
        self._wake.ring()

    def _give(self, data: Samples, frames: int, when: Any, status: Any) -> None:
        if math.isinf(self._given_s):
            hurry()
        if self._ring is not None:
            self._ring.read_into(data[:, :1])
        data[:, 1:] = data[:, :1]
        now_s = time.monotonic()
        if status or now_s - self._given_s > self._lasts_s:  # Pulse's plugin does not always tell
            self.xruns += 1
        begun = self.blocks or now_s - self._given_s > self._calm_s
        self._given_s = now_s
        self.blocks += 1 if begun else 0  # at first the device fills its buffer at once, and may then take its time
