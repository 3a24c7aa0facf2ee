"""Two hundred device faults, one after another: nothing dies, the recording stays whole, and it always comes back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import Models, load_models
from engine.device_port import HELD_MAX, HELD_MIN
from engine.live import Engine
from engine.token_reader import read_svt
from engine.types import Background, DeviceChange, EngineConfig, Event, Problem, Provider
from tests import tiny_models
from tests.fake_sound import MIC, RATE_HZ, SPEAKER, FakeSound, Faults, plugged_in

FAULTS = 200
WAIT_S = 30.0
KINDS: dict[str, Callable[[Faults, random.Random], None]] = {
    "microphone unplugged": lambda f, r: f.present.discard(MIC),
    "output unplugged": lambda f, r: f.present.discard(SPEAKER),
    "both unplugged": lambda f, r: f.present.clear(),
    "unplugged and then refused": lambda f, r: (f.present.discard(MIC), setattr(f, "refuse", True))[0],
    "too fast": lambda f, r: setattr(f, "pace", r.choice([1.5, 3.0])),
    "too slow": lambda f, r: setattr(f, "pace", r.choice([0.3, 0.9])),
    "nothing read": lambda f, r: setattr(f, "frames", 0),
    "odd blocks": lambda f, r: setattr(f, "frames", r.choice([1, 7, 4800])),
    "no number": lambda f, r: setattr(f, "broken", r.choice([np.nan, np.inf, -np.inf, 1e30])),
    "stalled": lambda f, r: setattr(f, "stalled", True),
    "breaks told": lambda f, r: setattr(f, "status", True),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    """Devices that fail on request, and an engine that looks after them more often than it would."""
    fake = plugged_in(monkeypatch)
    monkeypatch.setattr("engine.endpoints.STALL_S", 0.1)
    monkeypatch.setattr("engine.endpoints.SLOW_START_S", 0.3)
    monkeypatch.setattr("engine.side.LOOK_S", 0.02)
    monkeypatch.setattr("engine.endpoints.remove_leftovers", lambda: None)
    return fake


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def moves(engine: Engine, sound: FakeSound) -> Callable[[], bool]:
    """Becomes true once sound has gone all the way through after this call."""
    loop = engine._loop
    assert loop is not None
    position, heard = loop.position, len(sound.heard)
    return lambda: (
        engine.state == "running"
        and loop.position > position + 5 * loop.hop
        and len(sound.heard) > heard + 5
        and max(sound.heard[-3:]) > 0.001
    )


@pytest.mark.slow
def test_two_hundred_faults(tiny: Models, sound: FakeSound, tmp_path: Path) -> None:
    chance = random.Random(11)
    kinds = [name for _ in range(FAULTS // len(KINDS) + 1) for name in KINDS][:FAULTS]
    chance.shuffle(kinds)
    config = EngineConfig(background=Background.parse("keep"), record_dir=str(tmp_path / "r"))
    events: list[Event] = []
    with Engine(config, tiny) as engine:
        loop, ends, side = engine._loop, engine._ends, engine._side
        assert loop is not None
        assert ends is not None
        assert side is not None
        for number, kind in enumerate(kinds):
            KINDS[kind](sound.faults, chance)
            time.sleep(chance.uniform(0.01, 0.15))
            sound.faults.clear()
            wait_for(moves(engine, sound), f"fault {number}, {kind}: it did not come back ({engine.state})")
            events += engine.poll()
            assert loop._thread.is_alive()
            assert side._thread.is_alive()
            assert not loop.dead
            wait_for(lambda: not loop.closed, "a change of devices did not end")
        position = loop.position
    told = [event for event in events if isinstance(event, Problem)]
    assert not [problem for problem in told if "recording" in problem.text]
    assert all("\n" not in problem.text for problem in told)
    assert {"lost", "back"} <= {event.what for event in events if isinstance(event, DeviceChange)}
    assert sound.insane == 0
    check_recording(tmp_path / "r", position, loop.position)


def check_recording(folder: Path, least: int, most: int) -> None:
    """Every file is whole, of one length, and holds only numbers."""
    for name in ("input", "output", "speech", "background"):
        data, rate_hz = soundfile.read(folder / f"{name}.wav", dtype="float32")
        assert np.isfinite(data).all()
        assert least / RATE_HZ - 0.05 <= len(data) / rate_hz <= most / RATE_HZ + 0.05
    assert read_svt(folder / "tokens.svt").header.duration_s == pytest.approx(most / RATE_HZ, abs=0.05)


def test_a_device_that_stalls_is_told_and_opened_again(tiny: Models, sound: FakeSound) -> None:
    with Engine(EngineConfig(background=Background.parse("keep")), tiny) as engine:
        wait_for(moves(engine, sound), "it did not begin")
        sound.faults.stalled = True
        events: list[Event] = []

        def told() -> bool:
            events.extend(engine.poll())
            return any(isinstance(e, Problem) and "has stopped" in e.text for e in events)

        wait_for(told, "it was not told")
        sound.faults.clear()
        wait_for(moves(engine, sound), "it did not come back")


def test_a_device_that_is_there_and_refuses_is_told_once(tiny: Models, sound: FakeSound) -> None:
    config = EngineConfig(input=MIC, output=SPEAKER, background=Background.parse("keep"))
    with Engine(config, tiny) as engine:
        wait_for(moves(engine, sound), "it did not begin")
        sound.faults.present.discard(MIC)
        wait_for(lambda: engine.state == "waiting", "it was not missed")
        sound.faults.refuse = True
        sound.faults.present.add(MIC)
        events: list[Event] = []

        def told() -> bool:
            events.extend(engine.poll())
            return any(isinstance(e, Problem) and "cannot be opened" in e.text for e in events)

        wait_for(told, "it was not told")
        time.sleep(0.3)
        told()
        assert sum(isinstance(e, Problem) and "cannot be opened" in e.text for e in events) == 1
        sound.faults.clear()
        wait_for(moves(engine, sound), "it did not come back")


def test_what_is_no_sound_is_left_out_and_told(tiny: Models, sound: FakeSound) -> None:
    with Engine(EngineConfig(background=Background.parse("drop")), tiny) as engine:
        wait_for(moves(engine, sound), "it did not begin")
        for broken in (np.nan, np.inf, -np.inf, 1e38):
            sound.faults.broken = broken
            time.sleep(0.1)
        sound.faults.clear()
        events: list[Event] = []

        def told() -> bool:
            events.extend(engine.poll())
            return any(isinstance(e, Problem) for e in events)

        wait_for(told, "it was not told")
        wait_for(moves(engine, sound), "the models did not come through it")
        assert sound.insane == 0
        assert next(e.text for e in events if isinstance(e, Problem)).startswith("the microphone gives something")


def test_an_output_that_breaks_often_is_given_more_in_hand_but_not_for_a_load_that_passes(
    tiny: Models, sound: FakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(background=Background.parse("keep"))
    for too_busy, more in ((True, False), (False, True)):
        monkeypatch.setattr("engine.overload.Ladder.too_busy", too_busy)
        with Engine(config, tiny) as engine:
            wait_for(moves(engine, sound), "it did not begin")
            ends = engine._ends
            assert ends is not None
            sound.faults.status = True
            dropouts = last_dropouts(engine)
            wait_for(lambda before=dropouts: last_dropouts(engine) > before + 40, "breaks do not count")  # type: ignore[misc]
            if more:
                wait_for(lambda: ends._out.held == HELD_MAX, "it was given no more")  # noqa: B023
            else:
                assert ends._out.held == HELD_MIN
            sound.faults.clear()
            wait_for(moves(engine, sound), "it did not come back")


def last_dropouts(engine: Engine) -> int:
    assert engine._loop is not None
    return engine._loop.dropouts
