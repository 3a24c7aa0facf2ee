"""PortAudio's port on devices that can be told to fail: breaks count once, nothing is lost or piles up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from engine import devices, portaudio_port
from engine.artefacts import Models, load_models
from engine.devices import DeviceInfo
from engine.live import Engine
from engine.portaudio_port import PortAudioPort, _Pace
from engine.ports import Wake
from engine.ring import Ring
from engine.types import Background, DeviceError, EngineConfig, Provider
from tests import tiny_models
from tests.fake_sound import MIC, RATE_HZ, SPEAKER, FakeSound, plugged_in

BLOCK_S = 0.005


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    return plugged_in(monkeypatch)


def port_of(kind: str) -> PortAudioPort:
    return PortAudioPort(DeviceInfo({"input": MIC, "output": SPEAKER}[kind], kind, kind, True), RATE_HZ, 5.0)


def breaks_seen(
    monkeypatch: pytest.MonkeyPatch, gap_s: float, told: int = 0, drift: float = 0.0, seconds: float = 8.0
) -> int:
    """What _Pace counts of an output that stands still once for gap_s and is asked every 10 ms."""
    clock = [100.0]
    monkeypatch.setattr(portaudio_port.time, "monotonic", lambda: clock[0])
    pace, found = _Pace(BLOCK_S, 4 * BLOCK_S), 0
    for _ in range(round(seconds / 0.01)):
        clock[0] += 0.01
        played_s = clock[0] - 100.0
        over = played_s > 3.3
        played_s = (min(played_s, 3.3) if played_s < 3.3 + gap_s else played_s - gap_s) * (1.0 - drift)
        found += pace.has_broken(int(played_s / BLOCK_S), told if over else 0)
    return found


@pytest.mark.parametrize("gap_s", [0.03, 0.2, 2.0])
def test_a_break_that_nobody_told_of_is_counted_once(monkeypatch: pytest.MonkeyPatch, gap_s: float) -> None:
    assert breaks_seen(monkeypatch, gap_s) == 1


def test_a_break_that_is_known_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert breaks_seen(monkeypatch, 0.2, told=1) == 0


@pytest.mark.parametrize("drift", [-5e-4, 5e-4])
def test_a_clock_that_is_slow_is_no_break(monkeypatch: pytest.MonkeyPatch, drift: float) -> None:
    assert breaks_seen(monkeypatch, 0.0, drift=drift, seconds=60.0) == 0


def test_what_came_last_is_there_after_the_input_was_stopped(sound: FakeSound) -> None:
    port, ring = port_of("input"), Ring(RATE_HZ)
    port.start(ring, Wake())
    time.sleep(0.1)
    port.stop()
    waiting = port.pending
    assert waiting > 0
    port.pump()
    assert ring.fill == waiting
    assert not port.pending


def test_two_channels_carry_the_same_sound(sound: FakeSound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.devices._portaudio_name", lambda sd, device: "Speakers")
    device = DeviceInfo(SPEAKER, "Amp", "output", True, channels=2)
    port, ring = PortAudioPort(device, RATE_HZ, 5.0), Ring(RATE_HZ)
    port.start(ring, Wake())
    try:
        sound.faults.stalled = True
        x = np.linspace(0.1, 0.2, 480, dtype=np.float32)
        ring.write(x)
        port.pump()
        np.testing.assert_array_equal(port._buffer.sound, np.repeat(x, 2)[-len(port._buffer.sound) :])
    finally:
        port.stop()


def test_a_device_that_refuses_leaves_nothing_open(sound: FakeSound) -> None:
    sound.faults.refuse = True
    before = devices._open_streams
    with pytest.raises(DeviceError, match="cannot be opened"):
        port_of("output").start(Ring(RATE_HZ), Wake())
    assert devices._open_streams == before


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


def test_sound_that_came_while_a_hop_was_worked_on_does_not_wait(tiny: Models, sound: FakeSound) -> None:
    """Hops that take 14 of their 20 ms: the next one is taken when it is complete, not a hop later."""
    with Engine(EngineConfig(background=Background.parse("keep")), tiny) as engine:
        loop = engine._loop
        assert loop is not None
        inner, waited_ms = loop.stream.process_hop, list[float]()

        def slow(x: np.ndarray) -> np.ndarray:
            waited_ms.append(loop.behind_ms)  # beyond this hop
            threading.Event().wait(0.014)
            return inner(x)

        loop.stream.process_hop = slow  # type: ignore[method-assign]
        time.sleep(2.0)
    assert len(waited_ms) > 50
    assert np.median(waited_ms) < 10.0


def test_an_output_that_stands_still_piles_up_no_delay(
    tiny: Models, sound: FakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(EngineConfig(background=Background.parse("keep")), tiny) as engine:
        loop = engine._loop
        assert loop is not None
        deadline = time.monotonic() + 10.0
        while not loop._synced and time.monotonic() < deadline:
            time.sleep(0.01)
        assert loop.output is not None
        loop.output._stream.play_ringbuffer = lambda ring: ring  # type: ignore[union-attr]
        loop.output._stream.actions = set()  # type: ignore[union-attr]
        time.sleep(1.5)
        assert loop.to_play <= loop.output_ring.capacity + loop.hop
