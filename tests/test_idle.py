"""While there is nothing to hear, or nobody to hear it, nothing is computed; and what comes next is not harmed."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.clients import listeners
from engine.idlebench import wake_ms
from engine.live import Engine
from engine.livebench import Stage
from engine.pipeline import LiveStream
from engine.ports import NO_OUTPUT, MemoryInput, MemoryOutput
from engine.recording import LiveRecording
from engine.ring import Ring
from engine.soundloop import SLEEP_AFTER_S, SoundLoop
from engine.types import Background, DeviceChange, EngineConfig, Event, Provider, Samples
from engine.virtual_mic import MIC_NAME
from tests import tiny_models
from tests.pulse import MIC_SOURCE, RATE_HZ, pulse_server, stage
from tests.test_recorder import INFO, recorder

__all__ = ["pulse_server", "stage"]
HOP = RATE_HZ // 50
WAIT_S = 15.0
KEEP, DROP = Background.parse("keep"), Background.parse("drop")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


class Bench:
    """A sound loop worked by hand: hops in, hops out, and which of them the models saw."""

    def __init__(self, tiny: Models, background: Background) -> None:
        self.seen: list[Any] = []
        stream = LiveStream(tiny, RATE_HZ, background=background)
        self.loop = SoundLoop(stream, HOP // 2, self.seen.append, lambda text: pytest.fail(text))

    def feed(self, x: Samples) -> None:
        for hop in x.reshape(-1, HOP):
            self.loop.input_ring.write(hop[:, None])
            self.loop.work_off()

    @property
    def output(self) -> Samples:
        return np.concatenate([hop.output for hop in self.seen])

    def worked(self) -> list[bool]:
        return [hop.models is not None for hop in self.seen]


def noise(seconds: float, level: float = 0.05) -> Samples:
    return (level * np.random.default_rng(3).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def awake(x: Samples, tiny: Models, background: Background) -> Samples:
    """What a stream that never rests makes of x."""
    stream = LiveStream(tiny, RATE_HZ, background=background)
    return np.concatenate([stream.process_hop(hop) for hop in x.reshape(-1, HOP)])


@pytest.mark.parametrize("background", [KEEP, DROP])
def test_in_silence_the_models_rest_and_the_next_hop_is_worked_on(tiny: Models, background: Background) -> None:
    x = np.concatenate([noise(1.0), silence(SLEEP_AFTER_S + 2.0), noise(1.0)])
    bench = Bench(tiny, background)
    bench.feed(x)
    hops = round(50 * (1.0 + SLEEP_AFTER_S))
    assert bench.worked() == [True] * hops + [False] * 100 + [True] * 50
    # the gate opens over the first hop; all else is as if the models had never rested
    np.testing.assert_allclose(bench.output[HOP:], awake(x, tiny, background)[HOP:], atol=1e-6)


def test_after_silence_the_output_begins_where_it_would_have_gone_on(tiny: Models) -> None:
    """The output is given nothing meanwhile; the next word is whole from its first sample on, and no later."""
    word = noise(1.0)
    x = np.concatenate([word, silence(SLEEP_AFTER_S + 2.0), word])
    output = MemoryOutput(RATE_HZ)
    engine = Engine(EngineConfig(background=KEEP), tiny, MemoryInput(x, RATE_HZ), output)
    with engine:
        until(lambda: engine.finished)
    heard = output.samples
    sounding = np.flatnonzero(np.abs(heard) > 1e-3)
    gap = int(np.argmax(np.diff(sounding)))
    ends, begins = int(sounding[gap]), int(sounding[gap + 1])
    assert (begins - ends) / RATE_HZ == pytest.approx(SLEEP_AFTER_S + 2.0, abs=0.05)
    shift = int(np.argmax(np.correlate(heard[begins - HOP : begins + 2 * HOP], word[:HOP], "valid")))
    np.testing.assert_allclose(heard[begins - HOP + shift :][: 2 * HOP], word[: 2 * HOP], atol=1e-6)


@pytest.mark.parametrize("muted", [True, False])
def test_at_rest_nothing_is_given_to_the_output(tiny: Models, muted: bool) -> None:
    bench = Bench(tiny, KEEP)
    bench.loop.muted = muted
    bench.loop.output = output = MemoryOutput(RATE_HZ)
    output.blocks = 1
    bench.feed(silence(SLEEP_AFTER_S + 1.0))
    bench.loop.output_ring.clear()
    bench.feed(silence(0.1))
    assert bench.loop.output_ring.fill == 0
    bench.loop.muted = False
    bench.feed(noise(0.02))
    assert bench.loop.output_ring.fill == bench.loop.fill.goal + HOP
    assert bench.loop.dropouts == 0


def test_ports_are_told_of_a_rest_and_of_its_end(tiny: Models) -> None:
    class Port(MemoryOutput):
        resting = False

        def rest(self, resting: bool) -> None:
            self.resting = resting

    bench, output = Bench(tiny, KEEP), Port(RATE_HZ)
    bench.loop.output = output
    bench.feed(silence(SLEEP_AFTER_S))
    assert not output.resting
    bench.feed(silence(0.1))
    assert output.resting
    bench.feed(noise(0.02))
    assert not output.resting


class TellingInput(MemoryInput):
    """An input worked by hand, in pieces, that tells silence from sound."""

    tells_silence = True

    def __init__(self, ring: Ring) -> None:
        super().__init__(silence(0.0), RATE_HZ)
        self.rings, self.pieces, self.passed, self._to = False, deque[Samples](), 0, ring

    def pump(self) -> None:
        while self.pieces:
            self._to.write(self.pieces.popleft())

    def pass_silence(self) -> tuple[int, bool]:
        frames = 0
        while self.pieces and not self.pieces[0].any():
            frames += len(self.pieces.popleft())
        self.passed += frames
        return frames, bool(self.pieces)


@pytest.mark.parametrize("piece", [HOP // 4, HOP - 100, HOP, 3 * HOP + 7])
def test_silence_that_is_left_with_the_device_takes_its_time(tiny: Models, piece: int) -> None:
    """However it comes, in time and sound all is as if it had been moved hop by hop."""
    x = np.concatenate(
        [noise(1.0), silence(SLEEP_AFTER_S + 2.013), noise(1.0), silence(SLEEP_AFTER_S + 1.0), noise(0.5)]
    )
    x = x[: len(x) // HOP * HOP]
    bench, moved = Bench(tiny, KEEP), Bench(tiny, KEEP)
    moved.feed(x)
    bench.loop.input = port = TellingInput(bench.loop.input_ring)
    for at in range(0, len(x), piece):
        port.pieces.append(x[at : at + piece])
        bench.loop.work_off()
    assert port.passed > 2.5 * RATE_HZ
    assert bench.loop.position == moved.loop.position == len(x)
    assert bench.worked() == moved.worked()
    np.testing.assert_array_equal(bench.output, moved.output)


def test_a_recording_begun_at_rest_has_nothing_of_before(tiny: Models, tmp_path: Path) -> None:
    """Silence that went by is told ten hops at once, whoever began to record meanwhile."""
    bench = Bench(tiny, KEEP)
    bench.loop.input = port = TellingInput(bench.loop.input_ring)
    for _ in range(round(50 * SLEEP_AFTER_S) + 15):
        port.pieces.append(silence(0.02))
        bench.loop.work_off()
    asked_s = bench.loop.now_s
    assert asked_s > bench.loop.time_s + 0.05
    recording = LiveRecording(recorder(tmp_path / "r"), HOP, RATE_HZ, 0, asked_s)
    bench.seen.clear()
    for _ in range(20):
        port.pieces.append(silence(0.02))
        bench.loop.work_off()
    for hop in bench.seen:
        recording.write(hop, INFO)
    assert bench.seen[0].time_s < asked_s
    assert recording.begun_s == pytest.approx(asked_s)
    assert recording.frames(bench.loop.position) == bench.loop.position - round(asked_s * RATE_HZ)
    recording.close(None)


def test_a_device_that_goes_at_rest_takes_no_time_with_it(tiny: Models) -> None:
    bench = Bench(tiny, KEEP)
    bench.loop.input = port = TellingInput(bench.loop.input_ring)
    x = np.concatenate([noise(1.0), silence(SLEEP_AFTER_S + 1.13)])
    for at in range(0, len(x), HOP):
        port.pieces.append(x[at : at + HOP])
        bench.loop.work_off()
    assert bench.loop.position < len(x) - HOP
    assert bench.loop.now_s == pytest.approx(len(x) / RATE_HZ)
    bench.loop.input = None
    bench.loop.work_off()
    assert bench.loop.position == len(x) // HOP * HOP


def test_muted_at_rest_what_was_passed_over_is_told(tiny: Models) -> None:
    bench = Bench(tiny, KEEP)
    bench.loop.input = port = TellingInput(bench.loop.input_ring)
    for _ in range(round(50 * SLEEP_AFTER_S) + 20):
        port.pieces.append(silence(0.0199))
        bench.loop.work_off()
    bench.loop.muted = True
    for _ in range(60):
        port.pieces.append(noise(0.02))
        bench.loop.work_off()
    fed = (round(50 * SLEEP_AFTER_S) + 20) * len(silence(0.0199)) + 60 * len(noise(0.02))
    assert bench.loop.position + bench.loop.input_ring.fill == fed


def test_a_quiet_room_is_no_silence(tiny: Models) -> None:
    bench = Bench(tiny, KEEP)
    bench.feed(noise(SLEEP_AFTER_S + 1.0, level=1e-3))
    assert all(bench.worked())


def test_muted_it_rests_too(tiny: Models) -> None:
    bench = Bench(tiny, KEEP)
    bench.loop.muted = True
    bench.feed(noise(SLEEP_AFTER_S + 1.0))
    assert bench.worked()[-1] is False
    bench.loop.muted = False
    bench.feed(noise(0.2))
    assert all(bench.worked()[-10:])


def test_what_was_said_before_nobody_listened_is_not_heard_later(tiny: Models) -> None:
    bench = Bench(tiny, KEEP)
    bench.feed(noise(0.5))
    bench.loop.unheard = True
    bench.feed(noise(0.5))
    assert not any(bench.worked()[-20:])
    bench.loop.unheard = False
    bench.seen.clear()
    bench.feed(silence(0.5))
    assert np.abs(bench.output).max() == 0.0 and all(bench.worked())


def test_captions_are_told_of_the_silence_and_not_fed_with_it(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        fed = left_out = 0
        pid = None

        def feed(self, heard: Samples, codes: object = None) -> None:
            self.fed += len(heard)

        def watch(self, heard: Samples) -> None: ...

        def leave_out(self, samples: int) -> None:
            self.left_out += samples

        def poll(self) -> list[Event]:
            return []

        lag_s = 0.0

        def stop(self) -> None: ...

        def finish(self, timeout_s: float) -> list[Event]:
            return []

    listener = Listener()
    x = np.concatenate([noise(0.5), silence(SLEEP_AFTER_S + 3.0), noise(0.5)])
    engine = Engine(EngineConfig(background=KEEP), tiny, MemoryInput(x, RATE_HZ), MemoryOutput(RATE_HZ))
    with engine:
        assert engine._side is not None
        engine._side.recognizer = listener  # type: ignore[assignment]
        deadline = time.monotonic() + WAIT_S
        while not engine.finished and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        engine._side.recognizer = None
    assert listener.left_out == pytest.approx(3.0 * 16_000, abs=16_000)
    assert listener.fed + listener.left_out == pytest.approx(len(x) / 3, abs=1_600)


def test_another_output_is_not_waited_for_at_rest(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.side.REST_LOOK_S", 3600.0)
    x = silence(SLEEP_AFTER_S + WAIT_S)
    with Engine(EngineConfig(background=KEEP), tiny, MemoryInput(x, RATE_HZ), MemoryOutput(RATE_HZ)) as engine:
        until(lambda: engine.state == "idle")
        time.sleep(0.5)  # the last look of before
        engine.poll()
        engine.set(output=NO_OUTPUT)
        until(lambda: any(isinstance(event, DeviceChange) for event in engine.poll()))


def test_devices_are_closed_until_a_program_listens(stage: Stage, tiny: Models) -> None:
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, background=KEEP, virtual_mic=True), tiny) as engine:
        until(lambda: engine.state == "idle")
        time.sleep(0.5)  # the sound fades, the devices close
        position = engine._now_s()
        time.sleep(0.5)
        assert engine._now_s() == position and listeners() == 0
        heard: list[Samples] = []
        program = threading.Thread(target=lambda: heard.append(stage.record_source(MIC_NAME, 8.0)))
        program.start()
        until(lambda: engine.state == "running" and engine._now_s() > position)
        program.join()
        assert wake_ms(heard[0]) is not None
        until(lambda: engine.state == "idle")
        engine.set(watched=True)
        until(lambda: engine.state == "running")


def until(done: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_recording_or_captions_are_listeners_enough(stage: Stage, tiny: Models, tmp_path: Path) -> None:
    stage.play(noise(60.0))
    config = EngineConfig(MIC_SOURCE, background=KEEP, virtual_mic=True, record_dir=str(tmp_path / "r"))
    with Engine(config, tiny) as engine:
        until(lambda: engine._now_s() > 1.5)
        assert engine.state == "running"
