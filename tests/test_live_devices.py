"""The engine over null sinks of a real sound server: devices that go, outputs that change, what others hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import Models, shared_models
from engine.delays import delays_ms
from engine.live import Engine
from engine.livebench import NOISE_SINK, Stage
from engine.paths import assets_dir
from engine.ports import MemoryInput
from engine.types import (
    DeviceError,
    EngineConfig,
    Problem,
    Provider,
    Stats,
    UsageError,
)
from tests.live_run import DROP, KEEP, changes, events_until, last_stats, noise, tiny, windows_rms
from tests.pulse import HEARD_SINK, MIC_SOURCE, RATE_HZ, pulse_server, stage

__all__ = ["pulse_server", "stage", "tiny"]


def test_noisy_speech_comes_out_clean(stage: Stage) -> None:
    """The trained models, a voice over rain from one sink into another: the voice keeps its level, its pauses fall."""
    sound, rate_hz = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", frames=20 * RATE_HZ)
    assert rate_hz == RATE_HZ
    stage.play(np.concatenate([sound] * 3))
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, DROP), shared_models(Provider.CPU)) as engine:
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 2.0 for e in seen))
        both = stage.record(6.0)
    frames = both[: len(both) // 960 * 960].reshape(-1, 960, 2)
    levels_db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-9)
    quiet_db, loud_db = (np.percentile(levels_db, share, axis=0) for share in (10, 90))
    assert loud_db[0] > -40
    assert abs(loud_db[1] - loud_db[0]) < 4
    assert quiet_db[1] - quiet_db[0] < -12


def test_the_delay_is_what_stats_say_and_does_not_grow(stage: Stage, tiny: Models) -> None:
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny) as engine:
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 1.5 for e in seen))
        delays = delays_ms(stage.record(5.0))
        stats = last_stats(engine.poll())
    assert len(delays) >= 4
    assert max(delays) < 250.0
    assert np.median(delays) == pytest.approx(stats.delay_ms, abs=35.0)  # the server's own buffers are beyond our sight
    assert stats.dropouts <= 20  # a busy machine may break it now and then; a standing fault breaks it every hop


def test_an_unplugged_microphone_is_told_and_taken_up_again(stage: Stage, tiny: Models, tmp_path: Path) -> None:
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP, record_dir=str(tmp_path / "r")), tiny) as engine:
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 1.0 for e in seen))
        stage.unplug()
        events = events_until(engine, lambda seen: any(isinstance(e, Problem) for e in seen))
        assert changes(events) == ["lost"]
        assert engine.state == "waiting"
        assert not stage.record(1.0)[24000:, 1].any()  # what was on its way to the output may still be heard at first
        stage.plug_in()
        events_until(engine, lambda seen: "back" in changes(seen))
        assert engine.state == "running"
        before = engine._now_s()
        events_until(engine, lambda seen: engine._now_s() > before + 0.5)
    recorded = soundfile.read(tmp_path / "r" / "input.wav")[0]
    assert len(recorded) > 1.5 * RATE_HZ


def test_the_output_can_be_changed_while_it_runs(stage: Stage, tiny: Models) -> None:
    stage.server.load("module-null-sink", f"sink_name=other rate={RATE_HZ} channels=1")
    stage.play(noise(60.0))
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny) as engine:
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 0.5 for e in seen))
        with pytest.raises(DeviceError, match="sottovoce devices"):
            engine.set(output="nobody")
        engine.set(output="other")
        events_until(engine, lambda seen: "switched" in changes(seen))
        heard = stage.record(2.5, "other", 1)[:, 0]
        assert windows_rms(heard)[-25:].mean() > 0.02
        assert not stage.record(1.0)[24000:, 1].any()  # what was on its way to the output may still be heard at first


def test_other_programs_hear_the_virtual_microphone(stage: Stage, tiny: Models) -> None:
    stage.play(noise(60.0))
    config = EngineConfig(MIC_SOURCE, background=KEEP, virtual_mic=True)
    with Engine(config, tiny) as engine:
        engine.set(watched=True)
        events_until(engine, lambda seen: any(isinstance(e, Stats) and e.time_s > 1.0 for e in seen))
        heard = stage.record_source("sottovoce", 2.0)
        with pytest.raises(UsageError, match=r"howl|own"):
            engine.set(input="sottovoce_sink.monitor")
    assert windows_rms(heard)[-25:].mean() > 0.02
    with pytest.raises(DeviceError):
        stage.server.load("module-remap-source", "source_name=again master=sottovoce_sink.monitor")


def test_without_server_library_and_portaudio_a_microphone_fails_and_a_recording_plays_on(
    stage: Stage, tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise DeviceError("PortAudio is missing; install it: sudo apt install libportaudio2")

    monkeypatch.setattr("engine.devices._sounddevice", missing)
    with Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny) as engine:
        events_until(engine, lambda _: engine._now_s() > 0.5)  # a sound server is enough
    monkeypatch.setattr("engine.libpulse.usable", lambda: False)
    with pytest.raises(DeviceError, match="libportaudio2"):
        Engine(EngineConfig(MIC_SOURCE, HEARD_SINK, KEEP), tiny).start()
    with Engine(EngineConfig(background=KEEP), tiny, MemoryInput(noise(0.5), RATE_HZ)) as engine:
        events = events_until(engine, lambda _: engine.finished)
    assert "libportaudio2" in changes(events)[0]


def test_its_own_output_is_refused_as_input(stage: Stage, tiny: Models) -> None:
    with pytest.raises(UsageError, match="howl"):
        Engine(EngineConfig(f"{NOISE_SINK}.monitor", NOISE_SINK, KEEP), tiny).start()
