"""The bridge: nothing in it waits, meters are the newest, captions are all there, failures come as one line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.bridge import Bridge, RunState
from engine.types import ArtefactError, Caption, EngineConfig, Levels, SottovoceError, Word
from tests.fake_engine import FakeEngine

WAIT_MS = 5000
ANSWER_S = 0.1
Make = Callable[..., Bridge]


class Maker:
    """Makes engines, and remembers them."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.made: list[FakeEngine] = []

    def __call__(self, config: EngineConfig) -> FakeEngine:
        self.made.append(FakeEngine(config, **self.options))
        return self.made[-1]


@pytest.fixture
def make(qtbot: QtBot) -> Iterator[Make]:
    """Bridges that are closed after the test."""
    bridges: list[Bridge] = []

    def one(maker: Callable[[EngineConfig], Any], devices: Callable[[], list[Any]] = list) -> Bridge:
        bridges.append(Bridge(maker, devices, list))
        return bridges[-1]

    yield one
    for bridge in bridges:
        with qtbot.waitSignal(bridge.closed, timeout=WAIT_MS):
            bridge.close()


def start(bridge: Bridge, qtbot: QtBot, config: EngineConfig | None = None) -> None:
    bridge.start(config or EngineConfig())
    qtbot.waitUntil(lambda: bridge.state is RunState.ON, timeout=WAIT_MS)


def test_an_engine_is_made_started_and_stopped(make: Make, qtbot: QtBot) -> None:
    maker = Maker()
    bridge = make(maker)
    states: list[RunState] = []
    bridge.run_state.connect(states.append)
    start(bridge, qtbot)
    bridge.stop()
    qtbot.waitUntil(lambda: bridge.state is RunState.OFF, timeout=WAIT_MS)
    assert states == [RunState.STARTING, RunState.ON, RunState.STOPPING, RunState.OFF]
    assert [name for name, _ in maker.made[0].calls] == ["start", "set", "stop"]


def test_a_second_start_replaces_the_engine(make: Make, qtbot: QtBot) -> None:
    maker = Maker()
    bridge = make(maker)
    start(bridge, qtbot)
    start(bridge, qtbot, EngineConfig(captions=True))
    assert [name for name, _ in maker.made[0].calls] == ["start", "set", "stop"]
    assert maker.made[1].config.captions


def test_of_several_starts_in_a_row_the_last_one_counts(make: Make, qtbot: QtBot) -> None:
    stall = threading.Event()
    maker = Maker(stall=stall)
    bridge = make(maker)
    start(bridge, qtbot)
    states: list[RunState] = []
    bridge.run_state.connect(states.append)
    for language in ("de", "fr", "nl", "da"):
        bridge.start(EngineConfig(language=language))
    stall.set()
    qtbot.waitUntil(lambda: bridge.state is RunState.ON, timeout=WAIT_MS)
    assert [engine.config.language for engine in maker.made] == ["en", "da"]
    assert states == [RunState.STARTING] * 4 + [RunState.ON]


def test_a_start_that_is_overtaken_makes_nothing_and_the_last_wish_holds(make: Make, qtbot: QtBot) -> None:
    stall = threading.Event()
    maker = Maker(stall=stall)
    bridge = make(maker)
    start(bridge, qtbot)
    for language in ("de", "fr"):
        bridge.start(EngineConfig(language=language))
        bridge.stop()
    bridge.start(EngineConfig(language="nl"))
    stall.set()
    qtbot.waitUntil(lambda: bridge.state is RunState.ON, timeout=WAIT_MS)
    assert [engine.config.language for engine in maker.made] == ["en", "nl"]
    bridge.start(EngineConfig(language="da"))
    bridge.stop()
    qtbot.waitUntil(lambda: bridge.state is RunState.OFF, timeout=WAIT_MS)
    assert all(name == "stop" for name, _ in (engine.calls[-1] for engine in maker.made))


def test_meters_are_the_newest_and_captions_all_there(make: Make, qtbot: QtBot) -> None:
    maker = Maker()
    bridge = make(maker)
    start(bridge, qtbot)
    engine = maker.made[0]
    engine.pause()
    bridge.poll()
    levels: list[Levels] = []
    captions: list[Caption] = []
    bridge.levels.connect(levels.append)
    bridge.caption.connect(captions.append)
    engine.extra = [Levels(float(i), *[-20.0] * 6, 0.0) for i in range(5)]
    engine.extra += [Caption(float(i), (Word(str(i), i, i + 1),), (), 0.0) for i in range(5)]
    bridge.poll()
    assert [event.time_s for event in levels] == [4.0]
    assert [event.final[0].text for event in captions] == ["0", "1", "2", "3", "4"]


def test_settings_of_a_dragged_slider_are_taken_once_and_last(make: Make, qtbot: QtBot) -> None:
    stall = threading.Event()
    maker = Maker(stall=stall)
    bridge = make(maker)
    start(bridge, qtbot)
    engine = maker.made[0]
    for step in range(100):
        bridge.set(background=str(-(step % 60)))
        bridge.set(bypass=step % 2 == 0)
    stall.set()
    qtbot.waitUntil(lambda: engine.background == "-39" and engine.state == "running", timeout=WAIT_MS)
    assert 1 <= sum(name == "set" for name, _ in engine.calls) <= 3


def test_nothing_waits_for_a_stalled_engine(make: Make, qtbot: QtBot) -> None:
    stall = threading.Event()
    bridge = make(Maker(stall=stall))
    start(bridge, qtbot)
    begin = time.monotonic()
    bridge.set(bypass=True)
    bridge.stop()
    bridge.refresh_devices()
    bridge.poll()
    assert time.monotonic() - begin < ANSWER_S
    assert bridge.state is RunState.STOPPING
    stall.set()


@pytest.mark.parametrize(
    "error", [SottovoceError("the cable is out; plug it in"), OSError("the cable is out; plug it in")]
)
def test_a_failure_to_start_is_one_line_and_off(make: Make, qtbot: QtBot, error: Exception) -> None:
    def fail(config: EngineConfig) -> FakeEngine:
        raise error

    bridge = make(fail)
    with qtbot.waitSignal(bridge.failed, timeout=WAIT_MS) as told:
        bridge.start(EngineConfig())
    assert told.args == ["the cable is out; plug it in"]
    assert bridge.state is RunState.OFF


def test_a_bug_in_the_engine_is_told_too(make: Make, qtbot: QtBot, caplog: pytest.LogCaptureFixture) -> None:
    def fail(config: EngineConfig) -> FakeEngine:
        raise ZeroDivisionError("by nought")

    bridge = make(fail)
    with qtbot.waitSignal(bridge.failed, timeout=WAIT_MS) as told:
        bridge.start(EngineConfig())
    assert "by nought" in told.args[0]
    assert "switch it on again" in told.args[0]
    assert "a command failed" in caplog.text
    start_again = Maker()
    bridge._make_engine = start_again
    start(bridge, qtbot)
    assert start_again.made


def test_without_weights_it_runs_without_captions(make: Make, qtbot: QtBot) -> None:
    maker = Maker()

    def picky(config: EngineConfig) -> FakeEngine:
        if config.captions:
            raise ArtefactError("Whisper is missing; run: sottovoce models get base")
        return maker(config)

    bridge = make(picky)
    with qtbot.waitSignal(bridge.no_captions, timeout=WAIT_MS) as told:
        bridge.start(EngineConfig(captions=True))
    assert told.args == ["Whisper is missing; run: sottovoce models get base"]
    qtbot.waitUntil(lambda: bridge.state is RunState.ON, timeout=WAIT_MS)
    assert not maker.made[0].config.captions


def test_devices_that_cannot_be_listed_are_none_and_say_why(make: Make, qtbot: QtBot) -> None:
    def fail() -> list[Any]:
        raise SottovoceError("PortAudio is missing; install it")

    bridge = make(Maker(), fail)
    with qtbot.waitSignals([bridge.devices, bridge.failed], timeout=WAIT_MS):
        bridge.refresh_devices()
