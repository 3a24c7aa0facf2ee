"""The microphone that other programs hear the clean sound from: `live --virtual-mic`.

Linux            a null sink that the engine plays into, and a source made from its monitor, because many programs
                 do not offer monitors as microphones. PulseAudio and PipeWire's Pulse server both do so. Its
                 modules carry our process, so that what a killed run left behind is found and removed, and
                 another live run is left alone.
macOS, Windows   a virtual cable that the person has installed: the engine plays into one end, other programs hear
                 the other.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any, Protocol

import psutil

from engine.devices import OUTPUT, DeviceInfo, cable_in, list_devices
from engine.pulse import OWN_PREFIX, connection, unload_module
from engine.types import DeviceError

MIC_NAME = OWN_PREFIX
MIC_SINK = f"{OWN_PREFIX}_sink"
MIC_TITLE = "Sottovoce"
PID_PROPERTY, BEGAN_PROPERTY = "sottovoce.pid", "sottovoce.began"
SAME_BEGIN_S = 2.0  # a process's begin is told in whole seconds or better
HOW_TO_GET = {
    "darwin": "install BlackHole 2ch (existential.audio/blackhole), then start again",
    "win32": "install VB-CABLE (vb-audio.com/Cable), then start again",
}


class VirtualMic(Protocol):
    """sink: id of the output to play into, known once created; name: what other programs call the microphone."""

    @property
    def sink(self) -> str: ...
    @property
    def name(self) -> str: ...
    def create(self) -> None: ...
    def remove(self) -> None: ...


def makes_its_own() -> bool:
    """Whether this system lets us make a microphone; else it takes a virtual cable."""
    return sys.platform.startswith("linux")


def make_virtual_mic() -> VirtualMic:
    """What this system has for it; nothing is made yet."""
    return PulseMic() if makes_its_own() else CableMic()


def offered(devices: Iterable[DeviceInfo]) -> tuple[str, str] | None:
    """Which microphone there could be with these devices: the output to play into, by id, and what other programs call
    the microphone. None where it takes a cable and there is none."""
    return (MIC_SINK, MIC_TITLE) if makes_its_own() else _cable(devices)


def _cable(devices: Iterable[DeviceInfo]) -> tuple[str, str] | None:
    """The first of the cables: its sink's id, and the name of its other end."""
    ends = ((device, cable_in(device.name)) for device in devices if device.kind == OUTPUT)
    return next(((device.id, other_end) for device, other_end in ends if other_end is not None), None)


def remove_leftovers() -> None:
    """Take away what a run that was killed left behind; quietly, where there is a server at all."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(DeviceError), connection() as pulse:
            for item, alive in _ours(pulse):
                if not alive:
                    unload_module(pulse, item.owner_module)


class PulseMic:
    """A microphone named Sottovoce. `create` may be called again after the server went and came back."""

    sink, name = MIC_SINK, MIC_TITLE

    def __init__(self) -> None:
        self._modules: list[int] = []

    def create(self) -> None:
        """Raises DeviceError when there is no server, or another run has its microphone up."""
        with connection() as pulse:
            _remove_stale(pulse)
            self._modules.clear()
            with contextlib.ExitStack() as undo:
                undo.callback(self._unload, pulse)
                self._modules.append(pulse.module_load("module-null-sink", _null_sink_arguments()))
                self._modules.append(pulse.module_load("module-remap-source", _remap_arguments()))
                undo.pop_all()

    def remove(self) -> None:
        """Take the microphone away; a server that is gone has done so already."""
        if not self._modules:
            return
        try:
            with connection() as pulse:
                self._unload(pulse)
        except DeviceError:
            self._modules.clear()

    def _unload(self, pulse: Any) -> None:
        for module in reversed(self._modules):
            unload_module(pulse, module)
        self._modules.clear()

    def __enter__(self) -> PulseMic:
        self.create()
        return self

    def __exit__(self, *failure: object) -> None:
        self.remove()


class CableMic:
    """A virtual cable among the devices. It is the person's: nothing is made and nothing removed."""

    def __init__(self) -> None:
        self.sink = self.name = ""

    def create(self) -> None:
        """Raises DeviceError, with what to install, when there is none."""
        found = _cable(list_devices())
        if found is None:
            how = HOW_TO_GET.get(sys.platform, "install one")
            raise DeviceError(f"a virtual microphone needs a virtual cable here, and there is none; {how}")
        self.sink, self.name = found

    def remove(self) -> None:
        pass


def _whose() -> str:
    return f"{PID_PROPERTY}={os.getpid()} {BEGAN_PROPERTY}={psutil.Process().create_time():.0f}"


def _null_sink_arguments() -> str:
    properties = f"device.description='{MIC_TITLE} (do not play here)' {_whose()}"
    return f'sink_name={MIC_SINK} rate=48000 channels=1 sink_properties="{properties}"'


def _remap_arguments() -> str:
    properties = f"device.description='{MIC_TITLE}' device.icon_name='audio-input-microphone' {_whose()}"
    return f'source_name={MIC_NAME} master={MIC_SINK}.monitor source_properties="{properties}"'


def _ours(pulse: Any) -> list[tuple[Any, bool]]:
    """Sinks and sources of our name, and whether the run that made them lives."""
    found = [item for item in [*pulse.source_list(), *pulse.sink_list()] if item.name in (MIC_NAME, MIC_SINK)]
    return [(item, _lives(item.proplist)) for item in found]


def _lives(properties: dict[str, str]) -> bool:
    """Whether the process told there still runs, and is not another one that got its number."""
    pid, began = properties.get(PID_PROPERTY, ""), properties.get(BEGAN_PROPERTY)
    if not pid.isdigit():
        return False
    try:
        began_s = psutil.Process(int(pid)).create_time()
    except psutil.Error:
        return False
    try:
        return began is None or abs(began_s - float(began)) <= SAME_BEGIN_S
    except ValueError:
        return False


def _remove_stale(pulse: Any) -> None:
    """Unload what a dead run of ours, or we, left behind. Raises DeviceError when another run is alive."""
    for item, alive in _ours(pulse):
        pid = item.proplist.get(PID_PROPERTY)
        if alive and pid != str(os.getpid()):
            raise DeviceError(f"another Sottovoce (process {pid}) has its virtual microphone up; stop that one first")
        unload_module(pulse, item.owner_module)
