"""Ports straight to a sound server: what goes in comes out whole and in order, at work, over a rest and after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from engine import libpulse
from engine.devices import DeviceInfo, choose_input, choose_output
from engine.port_choice import port_for
from engine.portaudio_port import PortAudioPort
from engine.ports import Wake
from engine.priority import unnamed_threads
from engine.pulse import PrivateServer
from engine.pulse_port import PulseInput, PulseOutput
from engine.ring import Ring
from engine.types import DeviceError, Samples
from tests.pulse import pulse_server

__all__ = ["pulse_server"]
RATE_HZ, WAIT_S = 48000, 8.0
HOP = RATE_HZ // 50
STEP = 2e-4  # null sinks hold 16 bits


def until(condition: Callable[[], object], wait_s: float = WAIT_S) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def noise(count: int) -> Samples:
    """After a little silence, as all sound begins that the engine plays."""
    x = 0.1 * np.random.default_rng(4).standard_normal(count)
    x[: HOP // 2] = 0.0
    return x.astype(np.float32)


class Loopback:
    """The speaker, and an input that hears what it plays; a thread moves both, as the sound thread does."""

    def __init__(self) -> None:
        self.output = PulseOutput(choose_output("speaker"), RATE_HZ, 5.0)
        self.input = PulseInput(choose_input("speaker.monitor"), RATE_HZ, 5.0)
        self.to_play, self._came = Ring(RATE_HZ), Ring(RATE_HZ)
        self._heard: list[Samples] = []
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce loopback")

    def __enter__(self) -> Loopback:
        self.input.start(self._came, Wake())
        self.output.start(self.to_play, Wake())
        self._thread.start()
        assert until(lambda: self.output.begun and self.input.begun)
        return self

    def __exit__(self, *failure: object) -> None:
        self._halt.set()
        self._thread.join()
        self.output.stop()
        self.input.stop()

    def _run(self) -> None:
        while not self._halt.wait(0.005):
            self.output.pump()
            self.input.pump()
            self._heard.append(self._came.read(self._came.fill)[:, 0])

    @property
    def heard(self) -> Samples:
        """[N], all so far."""
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    def sounding(self) -> Samples:
        """From the first sample that is not silence to the last."""
        heard = self.heard
        at = np.flatnonzero(np.abs(heard) > STEP)
        return heard[at[0] : at[-1] + 1] if len(at) else heard[:0]


@pytest.fixture
def loopback(pulse_server: PrivateServer) -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def hear_all(loopback: Loopback, x: Samples) -> Samples:
    """What is heard of x [N], as long as x, once it is there."""
    first = int(np.flatnonzero(np.abs(x) > STEP)[0])
    last = int(np.flatnonzero(np.abs(x) > STEP)[-1])
    assert until(lambda: len(loopback.sounding()) >= last + 1 - first), len(loopback.sounding())
    heard = loopback.sounding()
    assert len(heard) == last + 1 - first
    return np.concatenate([np.zeros(first, np.float32), heard, np.zeros(len(x) - 1 - last, np.float32)])


def test_sound_comes_out_whole_and_in_order(loopback: Loopback) -> None:
    x = noise(RATE_HZ // 2)
    loopback.to_play.write(x)
    np.testing.assert_allclose(hear_all(loopback, x), x, atol=STEP)
    assert until(lambda: loopback.to_play.underruns == 1)  # it is over
    assert loopback.input.xruns == 0


def test_going_to_rest_and_waking_lose_nothing(loopback: Loopback) -> None:
    x = noise(RATE_HZ)
    loopback.to_play.write(x[: RATE_HZ // 2])
    for at in range(RATE_HZ // 2, RATE_HZ, HOP):
        loopback.input.rest(at // HOP % 8 < 4)
        loopback.to_play.write(x[at : at + HOP])
        time.sleep(0.02)
    np.testing.assert_allclose(hear_all(loopback, x), x, atol=STEP)


def test_after_a_rest_the_first_word_is_whole_and_early(loopback: Loopback) -> None:
    loopback.input.rest(True)
    loopback.output.rest(True)
    assert until(lambda: loopback.output.idle)
    time.sleep(0.5)
    loopback.input.rest(False)
    loopback.output.rest(False)
    before = len(loopback.heard)
    x = noise(RATE_HZ // 5)
    loopback.to_play.write(x)
    np.testing.assert_allclose(hear_all(loopback, x), x, atol=STEP)
    begins = int(np.flatnonzero(np.abs(loopback.heard) > STEP)[0])
    assert (begins - before) / RATE_HZ < 0.2  # a busy machine is slow; what it takes at rest is two hops


def test_at_rest_an_input_comes_in_hops(loopback: Loopback) -> None:
    def largest() -> int:
        since = len(loopback._heard)
        time.sleep(0.5)
        return max(len(piece) for piece in loopback._heard[since:])

    for port in (loopback.input, loopback.output):
        port.rest(True)
    assert until(lambda: largest() >= HOP)
    for port in (loopback.input, loopback.output):
        port.rest(False)
    pieces = len(loopback._heard)
    assert until(lambda: np.median([len(p) for p in loopback._heard[pieces:] if len(p)] or [HOP]) < HOP)


def test_an_output_with_nothing_to_play_is_idle(loopback: Loopback) -> None:
    assert until(lambda: loopback.output.idle)
    blocks = loopback.output.blocks
    loopback.to_play.write(noise(RATE_HZ // 2))
    assert until(lambda: not loopback.output.idle)
    assert until(lambda: loopback.output.idle)
    assert loopback.output.blocks - blocks == pytest.approx(102, abs=1)  # two that are kept in hand go first
    assert loopback.output.pending == 0


@pytest.mark.parametrize(("given", "plays"), [(2000, True), (1600, False)])
def test_what_is_less_than_a_server_takes_at_once_waits_for_more(given: int, plays: bool) -> None:
    """PipeWire ran dry after 1500 frames with a little left, which it keeps until there is enough."""
    port = PulseOutput(DeviceInfo("speaker", "Speaker", "output", default=True), RATE_HZ, 5.0)
    port._began, port._given = 1, given
    stream, ring = SimpleNamespace(underflow=1500, sizes=(9600, 240, 0)), Ring(10)
    port._see_dry(stream, ring)  # type: ignore[arg-type]
    assert ring.underruns == 1
    assert port._began == (1500 if plays else None)


def test_what_a_device_keeps_in_hand_is_not_pending(pulse_server: PrivateServer) -> None:
    port, ring = PulseOutput(choose_output("speaker"), RATE_HZ, 5.0, held=6), Ring(RATE_HZ)
    port.start(ring, Wake())
    try:
        assert until(lambda: port.idle)
        ring.write(noise(4800))
        port.pump()
        assert port.pending <= 4800 and not port.idle
        assert port.latency_ms >= 10.0
        assert until(lambda: port.pending == 0)
    finally:
        port.stop()


def test_what_came_last_is_there_after_the_input_was_stopped(pulse_server: PrivateServer) -> None:
    port, ring = PulseInput(choose_input("speaker.monitor"), RATE_HZ, 5.0), Ring(RATE_HZ)
    port.start(ring, Wake())
    assert until(lambda: port.pending >= HOP)
    blocks = port.blocks
    port.stop()
    waiting = port.pending
    assert waiting >= HOP and port.blocks >= blocks
    port.pump()
    assert ring.fill == waiting
    assert not port.pending and not port.alive


def test_a_device_that_is_pulled_is_told_and_replaced_by_no_other(pulse_server: PrivateServer) -> None:
    number = pulse_server.load("module-null-sink", "sink_name=extra rate=48000 channels=1")
    ports = PulseInput(choose_input("extra.monitor"), RATE_HZ, 5.0), PulseOutput(choose_output("extra"), RATE_HZ, 5.0)
    ring = Ring(RATE_HZ)
    for port in ports:
        port.start(ring, Wake())
        assert port.alive
    pulse_server.unload(number)
    assert until(lambda: not any(port.alive for port in ports))
    for port in ports:
        port.pump()
        assert port.pending == 0
        port.stop()


def test_a_server_that_ends_is_told(pulse_server: PrivateServer) -> None:
    port, ring = PulseOutput(choose_output("speaker"), RATE_HZ, 5.0), Ring(RATE_HZ)
    port.start(ring, Wake())
    pulse_server.stop()
    assert until(lambda: not port.alive)
    ring.write(noise(HOP))
    port.pump()
    assert port.latency_ms > 0.0
    port.stop()


def test_without_a_server_it_is_said_that_it_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SERVER", "unix:/nonexistent/pulse")
    port = PulseInput(DeviceInfo("mic", "Desk Mic", "input", True), RATE_HZ, 5.0)
    with pytest.raises(DeviceError, match=r"Desk Mic cannot be opened \(Connection refused\); see: sottovoce devices"):
        port.start(Ring(RATE_HZ), Wake())
    assert not port.alive and not port.pending
    port.stop()


def test_a_name_that_cannot_be_is_refused_at_once(pulse_server: PrivateServer) -> None:
    port = PulseOutput(DeviceInfo("", "Nothing", "output", True), RATE_HZ, 5.0)
    with pytest.raises(DeviceError, match="Nothing cannot be opened"):
        port.start(Ring(RATE_HZ), Wake())


def test_a_port_leaves_no_thread(pulse_server: PrivateServer) -> None:
    before = unnamed_threads()
    with Loopback():
        assert len(unnamed_threads() - before) >= 2
    assert until(lambda: not unnamed_threads() - before)


def test_which_port_a_device_gets(pulse_server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = choose_output("speaker"), choose_input("speaker.monitor")
    assert [type(port_for(d, RATE_HZ, 5.0)) for d in devices] == [PulseOutput, PulseInput]
    monkeypatch.setattr(libpulse, "LIBRARY", "libpulse-that-is-not-there.so")
    libpulse._library.cache_clear()
    try:
        assert [type(port_for(d, RATE_HZ, 5.0)) for d in devices] == [PortAudioPort] * 2
    finally:
        libpulse._library.cache_clear()
    monkeypatch.undo()
    pulse_server.stop()
    assert type(port_for(devices[0], RATE_HZ, 5.0)) is PortAudioPort
