"""PulseAudio, and PipeWire's Pulse server, through pulsectl: what is there, the virtual microphone, our own server.

Nothing here carries sound. The virtual microphone is a null sink that the engine plays into and a source made from its
monitor, because many programs do not offer monitors as microphones. Its modules carry our process number, so that what
a killed run left behind is found and removed, and another live run is left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from engine.types import DeviceError

OWN_PREFIX = "sottovoce"
MIC_NAME = "sottovoce"
MIC_SINK = "sottovoce_sink"
PID_PROPERTY = "sottovoce.pid"
SERVER_START_S = 10.0


@dataclass(frozen=True)
class PulseDevice:
    """A source (kind "input") or sink (kind "output"). monitor_of: name of the sink a monitor listens to."""

    name: str
    title: str
    kind: str
    default: bool
    sample_rate_hz: int
    channels: int
    monitor_of: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is part of our virtual microphone, which must never become our input."""
        return self.name.startswith(OWN_PREFIX)


@contextmanager
def _connection() -> Iterator[Any]:
    """A pulsectl connection; every failure of it is a DeviceError that says what to do."""
    try:
        import pulsectl
    except (ImportError, OSError) as error:
        raise DeviceError("PulseAudio's client library is missing; install it: sudo apt install libpulse0") from error
    try:
        with pulsectl.Pulse(OWN_PREFIX, connect=False) as pulse:
            pulse.connect()
            yield pulse
    except pulsectl.PulseError as error:
        raise DeviceError(f"no sound server answers ({error}); start one: pulseaudio --start") from error


def available() -> bool:
    """Whether a Pulse server answers."""
    try:
        with _connection():
            return True
    except DeviceError:
        return False


def list_pulse() -> list[PulseDevice]:
    """Sources, then sinks. Raises DeviceError when no server answers."""
    with _connection() as pulse:
        info = pulse.server_info()
        found = [_device(s, "input", info.default_source_name) for s in pulse.source_list()]
        return found + [_device(s, "output", info.default_sink_name) for s in pulse.sink_list()]


def list_if_available() -> list[PulseDevice] | None:
    """The same, None when no server answers."""
    try:
        return list_pulse()
    except DeviceError:
        return None


def _device(item: Any, kind: str, default: str) -> PulseDevice:
    monitor = getattr(item, "monitor_of_sink_name", None) if kind == "input" else None
    spec = item.sample_spec
    return PulseDevice(
        item.name, item.description or item.name, kind, item.name == default, spec.rate, spec.channels, monitor
    )


# The virtual microphone -----------------------------------------------------------------------------------------------


class VirtualMic:
    """A microphone named `sottovoce` for other programs. `create` and `remove`, or a context manager."""

    def __init__(self) -> None:
        self._modules: list[int] = []

    @property
    def sink(self) -> str:
        """The sink to play into."""
        return MIC_SINK

    def create(self, sample_rate_hz: int = 48000) -> None:
        """Raises DeviceError when there is no server, or another run has its microphone up."""
        with _connection() as pulse:
            _remove_stale(pulse)
            try:
                self._modules.append(pulse.module_load("module-null-sink", _null_sink_arguments(sample_rate_hz)))
                self._modules.append(pulse.module_load("module-remap-source", _remap_arguments()))
            except BaseException:
                self._unload(pulse)
                raise

    def remove(self) -> None:
        """Take the microphone away; a server that is gone has done so already."""
        if not self._modules:
            return
        try:
            with _connection() as pulse:
                self._unload(pulse)
        except DeviceError:
            self._modules.clear()

    def _unload(self, pulse: Any) -> None:
        for module in reversed(self._modules):
            _unload_module(pulse, module)
        self._modules.clear()

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(self, *failure: object) -> None:
        self.remove()


def _null_sink_arguments(sample_rate_hz: int) -> str:
    properties = f"device.description='Sottovoce (do not play here)' {PID_PROPERTY}={os.getpid()}"
    return f'sink_name={MIC_SINK} rate={sample_rate_hz} channels=1 sink_properties="{properties}"'


def _remap_arguments() -> str:
    properties = f"device.description='Sottovoce' {PID_PROPERTY}={os.getpid()}"
    return f'source_name={MIC_NAME} master={MIC_SINK}.monitor source_properties="{properties}"'


def _remove_stale(pulse: Any) -> None:
    """Unload what a dead run of ours left behind. Raises DeviceError when the run is alive."""
    for item in [*pulse.source_list(), *pulse.sink_list()]:
        pid = item.proplist.get(PID_PROPERTY, "")
        if item.name not in (MIC_NAME, MIC_SINK):
            continue
        if pid.isdigit() and int(pid) != os.getpid() and psutil.pid_exists(int(pid)):
            raise DeviceError(f"another Sottovoce (process {pid}) has its virtual microphone up; stop that one first")
        _unload_module(pulse, item.owner_module)


def _unload_module(pulse: Any, module: int) -> None:
    import pulsectl

    with contextlib.suppress(pulsectl.PulseError):  # it went with the module it stood on
        pulse.module_unload(module)


# A server of our own --------------------------------------------------------------------------------------------------


class PrivateServer:
    """A PulseAudio server with a folder and null sinks of its own, for tests and measurements where none runs.

    While it is up PULSE_SERVER points to it, for this process and its children. `modules` are loaded as given, such as
    "module-null-sink sink_name=a". Raises DeviceError when pulseaudio is missing or does not start.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = list(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._former: str | None = None

    @property
    def address(self) -> str:
        return f"unix:{self._folder}/native"

    def start(self) -> None:
        program = shutil.which("pulseaudio")
        if program is None:
            raise DeviceError("pulseaudio is not installed; install it: sudo apt install pulseaudio")
        self._folder = Path(tempfile.mkdtemp(prefix="sottovoce-pulse-"))
        native = f"module-native-protocol-unix auth-anonymous=1 socket={self._folder}/native"
        command = [program, "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "--use-pid-file=no"]
        for module in [native, *self._modules]:
            command += ["-L", module]
        self._process = subprocess.Popen(
            command, env=self._environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._former = os.environ.get("PULSE_SERVER")
        os.environ["PULSE_SERVER"] = self.address
        self._wait()

    def _environment(self) -> dict[str, str]:
        """As root and as anyone: no home, no session bus and no runtime folder but ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "DBUS_"))}
        folder = str(self._folder)
        return kept | {"HOME": folder, "XDG_RUNTIME_DIR": folder, "PULSE_RUNTIME_PATH": folder}

    def _wait(self) -> None:
        deadline = time.monotonic() + SERVER_START_S
        while not available():
            if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                self.stop()
                raise DeviceError("pulseaudio did not start; see what `pulseaudio -n -vv` says")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server; what played on it loses its devices."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            if self._former is None:
                os.environ.pop("PULSE_SERVER", None)
            else:
                os.environ["PULSE_SERVER"] = self._former
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def load(self, module: str, arguments: str) -> int:
        """Load one more module; its number is for `unload`."""
        with _connection() as pulse:
            return int(pulse.module_load(module, arguments))

    def unload(self, number: int) -> None:
        with _connection() as pulse:
            _unload_module(pulse, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
