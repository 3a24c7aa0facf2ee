"""Devices over a private PulseAudio server: listed, chosen, guarded against howling, opened and lost."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from engine.device_port import DevicePort
from engine.devices import INPUT, OUTPUT, DeviceInfo, choose_input, choose_output, list_devices
from engine.port_choice import port_for
from engine.portaudio_port import PortAudioPort
from engine.ports import FileInput, MemoryInput, MemoryOutput, Wake
from engine.pulse import PrivateServer, list_pulse
from engine.ring import Ring
from engine.types import AudioFileError, DeviceError, UsageError
from tests.pulse import pulse_server

__all__ = ["pulse_server"]
WAIT_S = 8.0
PortOf = Callable[[DeviceInfo], DevicePort]


@pytest.fixture(params=["pulse", "portaudio"])
def port_of(request: pytest.FixtureRequest) -> PortOf:
    """Makes a device's port, of both kinds that there are on a Pulse server."""
    kind = port_for if request.param == "pulse" else PortAudioPort
    return lambda device: kind(device, 48000, 5.0)


def until(condition: object, wait_s: float = WAIT_S) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def is_present(name: str) -> bool:
    return any(d.id == name for d in list_devices())


def test_devices_have_pulse_names(pulse_server: PrivateServer) -> None:
    found = {(d.id, d.kind): d for d in list_devices()}
    assert set(found) == {("speaker", OUTPUT), ("speaker.monitor", INPUT)}
    assert found["speaker.monitor", INPUT].is_monitor
    assert found["speaker", OUTPUT].default
    assert not any(d.is_own for d in found.values())


def test_without_a_server_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SERVER", "unix:/nonexistent/pulse")
    with pytest.raises(DeviceError, match="pulseaudio --start"):
        list_pulse()


def test_unknown_devices_are_refused(pulse_server: PrivateServer) -> None:
    with pytest.raises(DeviceError, match="sottovoce devices"):
        choose_input("nobody")
    with pytest.raises(DeviceError, match="sottovoce devices"):
        choose_output("nobody")


def test_what_is_played_cannot_be_the_input(pulse_server: PrivateServer) -> None:
    with pytest.raises(UsageError, match="howl"):
        choose_input("speaker.monitor", "speaker")
    with pytest.raises(DeviceError, match="no microphone"):
        choose_input(None, "speaker")


def test_a_device_moves_sound_until_it_is_gone(pulse_server: PrivateServer, port_of: PortOf) -> None:
    number = pulse_server.load("module-null-sink", "sink_name=extra rate=48000 channels=1")
    ring, wake = Ring(48000), Wake()
    port = port_of(choose_input("extra.monitor"))
    port.start(ring, wake)
    try:

        def moved() -> bool:
            port.pump()
            return ring.fill >= 480

        assert until(moved)
        assert port.alive
        assert is_present("extra.monitor")
        assert 0.0 < port.latency_ms < 100.0
        pulse_server.unload(number)
        assert until(lambda: not is_present("extra.monitor"))
    finally:
        port.stop()
    assert not port.alive


def playing(ring: Ring, port_of: PortOf) -> DevicePort:
    """The speaker, to which sound from the ring moves steadily."""
    port = port_of(choose_output("speaker"))
    port.start(ring, Wake())

    def begun() -> bool:
        port.pump()
        return port.begun

    assert until(begun)
    return port


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library's usleep")
def test_sound_goes_on_while_the_interpreter_is_held(pulse_server: PrivateServer, port_of: PortOf) -> None:
    ring = Ring(48000)
    port = playing(ring, port_of)
    try:
        ring.write(np.full(48000, 0.1, dtype=np.float32))
        port.pump()
        waiting = port.pending
        ctypes.PyDLL(None).usleep(300_000)  # nothing else in Python runs meanwhile
        assert waiting - port.pending > 0.25 * 48000
    finally:
        port.stop()


def test_an_output_that_ran_dry_says_so_once_and_goes_on(pulse_server: PrivateServer, port_of: PortOf) -> None:
    ring = Ring(48000)
    port = playing(ring, port_of)
    try:
        for turn in (1, 2):
            ring.write(np.full(4800, 0.1, dtype=np.float32))
            port.pump()
            assert until(lambda: not port.pending)
            time.sleep(0.05)
            port.pump()
            assert ring.underruns == turn
            port.pump()
            assert ring.underruns == turn
    finally:
        port.stop()


def test_an_input_that_nobody_emptied_goes_on(pulse_server: PrivateServer, port_of: PortOf) -> None:
    ring, port = Ring(2048), port_of(choose_input("speaker.monitor"))
    port.start(ring, Wake())
    try:
        assert until(lambda: port.pending > 2048 - 240)
        time.sleep(0.1)
        broken = port.xruns
        port.pump()
        assert port.xruns == broken + 1
        ring.clear()

        def more() -> bool:
            port.pump()
            return ring.fill > 0

        assert until(more)
    finally:
        port.stop()


def test_a_device_that_went_before_it_is_opened_is_told(pulse_server: PrivateServer, port_of: PortOf) -> None:
    number = pulse_server.load("module-null-sink", "sink_name=extra rate=48000 channels=1")
    gone = choose_input("extra.monitor")
    pulse_server.unload(number)
    with pytest.raises(DeviceError):
        port_of(gone).start(Ring(48000), Wake())


def test_memory_is_played_in_real_time_and_then_over() -> None:
    x = np.arange(4800, dtype=np.float32)
    port, ring, wake = MemoryInput(x, 16000), Ring(16000), Wake()
    began = time.monotonic()
    port.start(ring, wake)
    assert until(lambda: port.ended)
    assert time.monotonic() - began >= 0.28
    port.stop()
    np.testing.assert_array_equal(ring.read(ring.fill)[:, 0], x)


def test_a_memory_output_takes_what_the_ring_has() -> None:
    port, ring = MemoryOutput(16000), Ring(16000)
    ring.write(np.ones(800, dtype=np.float32))
    port.start(ring, Wake())
    assert until(lambda: len(port.samples) >= 1600)
    port.stop()
    assert port.samples[:800].all()
    assert not port.samples[800:].any()


def test_a_file_that_is_no_sound_is_refused(tmp_path: object) -> None:
    with pytest.raises(AudioFileError, match="check the name"):
        FileInput("nowhere.wav")
