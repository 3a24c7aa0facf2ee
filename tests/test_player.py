"""Original and result in turn: as loud as each other, from the same place, without a click."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from engine.delays import gaps
from engine.devices import DeviceInfo
from engine.livebench import Stage
from engine.mix import active_rms, db
from engine.player import Player, Recorded
from engine.ports import MemoryOutput
from engine.resample import FileResampler
from engine.types import AudioFileError, DeviceError, Samples
from tests.pulse import HEARD_SINK, RATE_HZ, stage

__all__ = ["stage"]
SPEAKER = DeviceInfo("amp", "Amp", "output", True, sample_rate_hz=RATE_HZ)
WAIT_S = 20.0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tone(hz: float, level: float, seconds: float = 12.0, rate_hz: int = RATE_HZ) -> Samples:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


class Desk:
    """A player into memory. `port` is the newest."""

    def __init__(self, folder: Path, original: Samples, result: Samples, rate_hz: int = RATE_HZ) -> None:
        self.ports: list[MemoryOutput] = []
        for name, sound in (("a", original), ("b", result)):
            soundfile.write(folder / f"{name}.wav", sound, rate_hz, subtype="FLOAT")

        def open_port(device: DeviceInfo) -> MemoryOutput:
            self.ports.append(MemoryOutput(device.sample_rate_hz))
            return self.ports[-1]

        self.player = Player(folder / "a.wav", folder / "b.wav", None, open_port)

    @property
    def heard(self) -> Samples:
        """From the first sound on, where nothing broke on the way."""
        heard = self.ports[-1].samples
        if gaps(heard):
            pytest.xfail("the machine was too busy to play without a break, so there is a step of that kind")
        return heard[int(np.flatnonzero(heard)[0]) :]


@pytest.fixture
def desks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    monkeypatch.setattr("engine.player.choose_output", lambda wanted: SPEAKER)
    made: list[Desk] = []

    def one(*arguments: Samples, rate_hz: int = RATE_HZ) -> Desk:
        made.append(Desk(tmp_path, *arguments, rate_hz=rate_hz))
        return made[-1]

    yield one
    for desk in made:
        desk.player.close()


def test_both_are_equally_loud_and_the_switch_does_not_click(desks: Callable[..., Desk]) -> None:
    desk = desks(tone(50.0, 0.3), tone(50.0, 0.05))
    player = desk.player
    player.play()
    until(lambda: player.position_s > 0.4)
    for result in (True, False, True):
        player.listen_to(result)
        at_s = player.position_s
        until(lambda: player.position_s > at_s + 0.3)  # noqa: B023
    heard = desk.heard[:48_000]
    steady = heard[960:]
    assert np.abs(np.diff(heard)).max() < 0.0006  # the tone's own is 0.00033
    levels = [np.sqrt(np.square(steady[at : at + 4800]).mean()) for at in range(0, len(steady) - 4800, 4800)]
    assert max(levels) / min(levels) < 10 ** (0.5 / 20)


def test_the_switch_fades_between_different_sounds(desks: Callable[..., Desk]) -> None:
    desk = desks(tone(50.0, 0.1), -tone(50.0, 0.1))
    desk.player.play()
    until(lambda: desk.player.position_s > 0.3)
    desk.player.listen_to(True)
    until(lambda: desk.player.position_s > 0.8)
    assert np.abs(np.diff(desk.heard[:30_000])).max() < 0.002  # a jump from side to side would be 0.2


def test_pause_seek_and_play_again_fade_too(desks: Callable[..., Desk]) -> None:
    desk = desks(tone(50.0, 0.3), tone(50.0, 0.3))
    player = desk.player
    player.play()
    until(lambda: player.position_s > 0.3)
    player.seek(9.0)
    until(lambda: player.position_s > 9.3)
    player.pause()
    until(lambda: not player.playing and not desk.ports[-1].alive)
    paused_s = player.position_s
    assert 9.3 < paused_s < 10.0
    assert np.abs(np.diff(desk.heard)).max() < 0.003
    player.seek(11.5)
    player.play()
    until(lambda: player.playing)
    until(lambda: not player.playing)  # to the end
    assert player.position_s == pytest.approx(12.0, abs=0.3)
    until(lambda: not desk.ports[-1].alive)
    player.play()
    until(lambda: 0.1 < player.position_s < 5.0)


def test_the_position_is_that_of_the_file(desks: Callable[..., Desk]) -> None:
    """At another rate, from the midst, and both from the same sample."""
    rng = np.random.default_rng(2)
    x = (0.1 * rng.standard_normal(5 * 16_000)).astype(np.float32)
    desk = desks(x, x, rate_hz=16_000)
    desk.player.seek(2.0)
    desk.player.listen_to(True)
    desk.player.play()
    until(lambda: desk.player.position_s > 2.5)
    assert desk.player.duration_s == 5.0
    heard = desk.heard
    expected = FileResampler(16_000, RATE_HZ).process(x[32_000:], last=True)
    np.testing.assert_allclose(heard[960:9600], expected[960:9600], atol=2e-2)


def test_what_ffmpeg_alone_reads_is_played_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.player.choose_output", lambda wanted: SPEAKER)
    soundfile.write(tmp_path / "b.wav", tone(100.0, 0.1, 3.0), RATE_HZ)
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(100.0, 0.1, 3.0)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    out = MemoryOutput(RATE_HZ)
    player = Player(tmp_path / "a.m4a", tmp_path / "b.wav", None, lambda device: out)
    player.seek(2.0)
    player.play()
    until(lambda: player.position_s > 2.3)
    player.close()
    assert np.sqrt(np.square(out.samples[out.samples != 0.0]).mean()) == pytest.approx(0.07, rel=0.2)


def test_what_cannot_be_played_is_told(
    desks: Callable[..., Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks(tone(50.0, 0.1, 1.0), tone(50.0, 0.1, 1.0))
    with pytest.raises(AudioFileError, match="does not exist"):
        Player(tmp_path / "a.wav", tmp_path / "gone.wav")

    def taken(device: DeviceInfo) -> MemoryOutput:
        raise DeviceError("Amp cannot be opened; see: sottovoce devices")

    monkeypatch.setattr(desk.player, "_open_port", taken)
    desk.player.play()
    until(lambda: desk.player.failure is not None)
    assert "cannot be opened" in (desk.player.failure or "")
    assert not desk.player.playing


@pytest.mark.pulse
def test_through_a_real_device_the_end_is_heard(stage: Stage) -> None:
    sound = Recorded(tone(400.0, 0.2, 0.5), RATE_HZ)
    player = Player(sound, sound, HEARD_SINK)
    try:
        heard = stage.record_while(lambda: (player.play(), until(lambda: player.over), time.sleep(0.3)))[:, 1]
    finally:
        player.close()
    end = len(np.trim_zeros(heard, "b"))  # a busy machine may lose some of the beginning, never of the end
    np.testing.assert_allclose(heard[end - RATE_HZ // 10 : end], sound.samples[-RATE_HZ // 10 :], atol=1e-3)


@pytest.mark.pulse
def test_through_a_real_device_both_are_equally_loud(stage: Stage, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    bursts = np.repeat(np.tile([1.0, 0.0], 10), RATE_HZ // 2).astype(np.float32)  # half seconds of voice and pause
    voice = (0.02 * bursts * rng.standard_normal(len(bursts))).astype(np.float32)
    noisy = voice * 4 + (0.001 * rng.standard_normal(len(bursts))).astype(np.float32)
    for name, sound in (("a", noisy), ("b", voice)):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE_HZ, subtype="FLOAT")
    player = Player(tmp_path / "a.wav", tmp_path / "b.wav", HEARD_SINK)
    levels = []
    try:
        player.play()
        until(lambda: player.position_s > 0.2)
        for result in (False, True):
            player.listen_to(result)
            from_s = player.position_s
            heard = stage.record_while(lambda: until(lambda: player.position_s > from_s + 3.0))[:, 1]  # noqa: B023
            levels.append(db(active_rms(FileResampler(RATE_HZ, 16_000).process(heard, last=True))))
    finally:
        player.close()
    assert levels[0] > -60.0
    assert abs(levels[0] - levels[1]) < 0.5


class Holding(MemoryOutput):
    """Holds sound back as devices do: what has not been heard when it is stopped never is."""

    latency_ms = 60.0  # type: ignore[assignment]

    def stop(self) -> None:
        super().stop()
        held = min(len(self._kept), round(self.latency_ms * self.sample_rate_hz / 1000.0) // self.block)
        del self._kept[len(self._kept) - held :]


@pytest.mark.parametrize("paused", [False, True])
def test_what_a_device_holds_back_is_heard_before_it_is_let_go(monkeypatch: pytest.MonkeyPatch, paused: bool) -> None:
    monkeypatch.setattr("engine.player.choose_output", lambda wanted: SPEAKER)
    out = Holding(RATE_HZ)
    sound = Recorded(tone(50.0, 0.3, 0.5), RATE_HZ)
    player = Player(sound, sound, None, lambda device: out)
    try:
        player.play()
        if paused:
            until(lambda: player.position_s > 0.2)
            player.pause()
        until(lambda: player.over)
        if gaps(out.samples):
            pytest.xfail("the machine was too busy to play without a break, so there is a step of that kind")
        assert len(np.trim_zeros(out.samples)) == pytest.approx(player.position_s * RATE_HZ, abs=10)
        assert not out.samples[-240:].any()  # to the end of the fade
    finally:
        player.close()


def test_one_that_is_cut_off_ends_where_it_ends_and_goes_on_from_elsewhere(
    desks: Callable[..., Desk], tmp_path: Path
) -> None:
    """A seek beyond what is left of a compressed file."""
    desk = desks(tone(50.0, 0.1, 1.0), tone(50.0, 0.1, 1.0))
    soundfile.write(tmp_path / "a.flac", noise_s := np.random.default_rng(1).uniform(-0.1, 0.1, 10 * RATE_HZ), RATE_HZ)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 3])
    soundfile.write(tmp_path / "b.wav", noise_s, RATE_HZ)
    player = Player(tmp_path / "a.flac", tmp_path / "b.wav", None, desk.player._open_port)
    try:
        player.seek(8.0)
        player.play()
        until(lambda: player.position_s > 8.3)  # the other one is whole
        player.seek(1.0)
        until(lambda: 1.2 < player.position_s < 5.0)
        assert player.playing and player.failure is None
    finally:
        player.close()


def test_what_nobody_thought_of_is_told_and_the_next_one_plays(
    desks: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    player = desks(tone(50.0, 0.1, 1.0), tone(50.0, 0.1, 1.0)).player

    def fails(at_s: float) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(player, "_go", fails)
        player.seek(0.5)
        until(lambda: player.failure is not None)
    assert "RuntimeError: a fault" in (player.failure or "")
    player.play()
    until(lambda: player.position_s > 0.1)


def test_sound_in_memory_is_played_to_its_end_and_then_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.player.choose_output", lambda wanted: SPEAKER)
    ports: list[MemoryOutput] = []

    def open_port(device: DeviceInfo) -> MemoryOutput:
        ports.append(MemoryOutput(device.sample_rate_hz))
        return ports[-1]

    sound = Recorded(tone(400.0, 0.2, 0.5, 16_000), 16_000)
    player = Player(sound, Recorded(0.5 * sound.samples, 16_000), None, open_port)
    try:
        assert player.duration_s == pytest.approx(0.5)
        assert player.over
        player.play()
        assert not player.over
        until(lambda: player.over)
        heard = ports[-1].samples
        assert np.count_nonzero(np.abs(heard) > 1e-3) == pytest.approx(0.5 * RATE_HZ, rel=0.05)
        assert np.abs(heard).max() == pytest.approx(0.1, rel=0.1)  # the louder one comes down to the other
    finally:
        player.close()
