"""PulseAudio, and PipeWire's Pulse server, through pulsectl: what is there, and a server of our own. No sound."""

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

from engine.types import DeviceError

OWN_PREFIX = "sottovoce"
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
def connection() -> Iterator[Any]:
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
        with connection():
            return True
    except DeviceError:
        return False


def list_pulse() -> list[PulseDevice]:
    """Sources, then sinks. Raises DeviceError when no server answers."""
    with connection() as pulse:
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


def unload_module(pulse: Any, module: int) -> None:
    """Through a `connection`; a module that is gone already is no failure."""
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
        with connection() as pulse:
            return int(pulse.module_load(module, arguments))

    def unload(self, number: int) -> None:
        with connection() as pulse:
            unload_module(pulse, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
