"""Devices that go, come back and change under a live run, over a real PulseAudio with null sinks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.devices import OUTPUT
from engine.ears import RATE_HZ
from engine.endpoints import STALL_S, _End
from engine.live import Engine
from engine.livebench import HEARD_SINK, MIC_SOURCE, MODULES, NOISE_SINK, Stage
from engine.ports import MemoryInput, MemoryOutput
from engine.pulse import PrivateServer
from engine.types import Background, DeviceChange, EngineConfig, Event, Problem, Provider, Stats
from tests import tiny_models
from tests.pulse import pulse_server, stage

__all__ = ["pulse_server", "stage"]
KEEP = Background.parse("keep")
WAIT_S = 20.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


def noise(seconds: float) -> np.ndarray:
    return (0.05 * np.random.default_rng(3).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def until(engine: Engine, done: Callable[[list[Event]], bool]) -> list[Event]:
    """All events up to when `done` says so."""
    events: list[Event] = []
    deadline = time.monotonic() + WAIT_S
    while not done(events):
        assert time.monotonic() < deadline, [e for e in events if isinstance(e, (DeviceChange, Problem))]
        time.sleep(0.02)
        events += engine.poll()
    return events


def begun(events: list[Event]) -> bool:
    return any(isinstance(e, Stats) and e.time_s > 0.5 for e in events)


def happened(what: str, device: str) -> Callable[[list[Event]], bool]:
    return lambda events: any(isinstance(e, DeviceChange) and (e.what, e.device) == (what, device) for e in events)


def heard(stage: Stage, sink: str) -> bool:
    """Whether sound comes out of a sink; a null sink that was idle takes two seconds to begin."""
    return any(np.abs(stage.record(2.5, sink, 1)).max(initial=0.0) > 0.01 for _ in range(4))


def pactl(*words: str) -> None:
    subprocess.run(["pactl", *words], check=True)


@pytest.mark.parametrize("idle", [True, False])
def test_an_output_that_has_nothing_to_play_has_not_stopped(monkeypatch: pytest.MonkeyPatch, idle: bool) -> None:
    now_s, end = [100.0], _End(OUTPUT, None)
    monkeypatch.setattr("engine.endpoints.time.monotonic", lambda: now_s[0])
    end.port = MemoryOutput(RATE_HZ)
    end.port.blocks, end.port.idle = 100, idle
    assert not end.stalls()
    now_s[0] += 2 * STALL_S
    assert end.stalls() is not idle
    end.port.idle = False  # it has something to play from now on
    now_s[0] += STALL_S / 2
    assert end.stalls() is not idle
    now_s[0] += STALL_S
    assert end.stalls()


def test_a_microphone_that_becomes_the_default_is_taken(stage: Stage, tiny: Models) -> None:
    stage.server.load("module-null-sink", "sink_name=quiet rate=48000 channels=1")
    stage.server.load("module-remap-source", "source_name=headset master=quiet.monitor")
    pactl("set-default-source", "headset")
    stage.play(noise(60.0))
    with Engine(EngineConfig(output=HEARD_SINK, background=KEEP), tiny) as engine:
        until(engine, begun)
        assert engine.devices == ("headset", HEARD_SINK)
        pactl("set-default-source", MIC_SOURCE)
        until(engine, happened("switched", MIC_SOURCE))
        assert engine.state == "running"
        assert heard(stage, HEARD_SINK)


def test_a_microphone_that_was_chosen_stays_whatever_becomes_the_default(stage: Stage, tiny: Models) -> None:
    stage.server.load("module-null-sink", "sink_name=quiet rate=48000 channels=1")
    pactl("set-default-source", MIC_SOURCE)
    stage.play(noise(60.0))  # a null sink with nothing to play may stop for a second, and is then opened anew
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny) as engine:
        until(engine, begun)
        pactl("set-default-source", "quiet.monitor")
        assert engine._ends is not None
        found_s = engine._now_s()
        events = until(engine, lambda _: engine._now_s() > found_s + 1.5)
        # the server may stop every source for a second when its default changes; the same one is opened again then
        assert not any(isinstance(e, DeviceChange) and e.what == "switched" for e in events)
        assert engine.devices[0] == MIC_SOURCE


def test_our_own_microphone_as_the_default_is_not_followed(stage: Stage, tiny: Models) -> None:
    pactl("set-default-source", MIC_SOURCE)
    with Engine(EngineConfig(background=KEEP, virtual_mic=True), tiny) as engine:
        engine.set(watched=True)
        until(engine, begun)
        pactl("set-default-source", "sottovoce")
        found_s = engine._now_s()
        until(engine, lambda _: engine._now_s() > found_s + 1.5)
        assert engine.devices == (MIC_SOURCE, "sottovoce_sink")


def test_when_the_default_microphone_is_pulled_another_takes_its_place(stage: Stage, tiny: Models) -> None:
    stage.server.load("module-null-sink", "sink_name=quiet rate=48000 channels=1")
    stage.server.load("module-remap-source", "source_name=headset master=quiet.monitor")
    pactl("set-default-source", MIC_SOURCE)
    with Engine(EngineConfig(output=HEARD_SINK, background=KEEP), tiny) as engine:
        until(engine, begun)
        stage.unplug()
        pactl("set-default-source", "quiet.monitor")
        events = until(engine, happened("switched", "headset"))
        assert happened("lost", MIC_SOURCE)(events)
        assert [e.state for e in events if isinstance(e, Problem)] == ["silence"]
        assert engine.state == "running"
        found_s = engine._now_s()
        until(engine, lambda _: engine._now_s() > found_s + 1.5)
        assert engine.devices[0] == "headset"


def test_what_an_output_plays_never_takes_a_microphones_place(stage: Stage, tiny: Models) -> None:
    """In a call the others would hear themselves."""
    stage.play(noise(60.0))
    with Engine(EngineConfig(output=HEARD_SINK, background=KEEP), tiny) as engine:
        until(engine, begun)
        assert engine.devices[0] == MIC_SOURCE
        stage.unplug()
        until(engine, happened("lost", MIC_SOURCE))
        looks = engine._looks
        until(engine, lambda _: engine._looks > looks + 6)
        assert engine.state == "waiting"
        stage.plug_in()
        until(engine, happened("back", MIC_SOURCE))
        assert engine.state == "running"


def test_an_output_that_is_pulled_is_waited_for(stage: Stage, tiny: Models) -> None:
    number = stage.server.load("module-null-sink", f"sink_name=other rate={RATE_HZ} channels=1")
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, "other", KEEP), tiny) as engine:
        until(engine, begun)
        stage.server.unload(number)
        events = until(engine, happened("lost", "other"))
        assert engine.state == "waiting"
        assert any(isinstance(e, Problem) and "plug it in again" in e.text for e in events)
        stage.server.load("module-null-sink", f"sink_name=other rate={RATE_HZ} channels=1")
        until(engine, happened("back", "other"))
        assert engine.state == "running"
        assert heard(stage, "other")


def test_a_sound_server_that_is_started_again_is_found(tiny: Models) -> None:
    """The stage by hand, because its server goes away in the middle."""
    former = PrivateServer(MODULES)
    former.start()
    try:
        # what is played to NOISE_SINK is what is heard; where it plays to does not matter here
        with Engine(EngineConfig(f"{NOISE_SINK}.monitor", HEARD_SINK, KEEP), tiny) as engine:
            until(engine, begun)
            former.stop()
            until(engine, happened("lost", HEARD_SINK))
            assert engine.state == "waiting"
            with PrivateServer(MODULES):
                both = [happened("back", HEARD_SINK), happened("back", f"{NOISE_SINK}.monitor")]
                until(engine, lambda seen: all(came(seen) for came in both))
                position_s = engine._now_s()
                until(engine, lambda _: engine.state == "running" and engine._now_s() > position_s + 0.5)
                engine.stop()
    finally:
        former.stop()


def test_the_virtual_microphone_comes_back_with_its_server(tiny: Models) -> None:
    former = PrivateServer(["module-null-sink sink_name=speaker rate=48000"])
    former.start()
    try:
        source = MemoryInput(noise(60.0), RATE_HZ)
        with Engine(EngineConfig(background=KEEP, virtual_mic=True), tiny, source) as engine:
            engine.set(watched=True)
            until(engine, begun)
            former.stop()
            until(engine, happened("lost", "sottovoce_sink"))
            with PrivateServer(["module-null-sink sink_name=speaker rate=48000"]):
                until(engine, happened("back", "sottovoce_sink"))
                engine.stop()
    finally:
        former.stop()
