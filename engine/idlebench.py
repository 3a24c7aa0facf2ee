"""What a run costs while there is nothing to do: silence in the microphone, or nobody who listens to ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.ears import RATE_HZ
from engine.live import Engine
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage, Usage
from engine.types import Background, EngineConfig, Provider, Samples, Stats
from engine.virtual_mic import MIC_NAME

SETTLE_S = 8.0  # models warm, Whisper loaded, the rest begun
NOISE_LEVEL = 0.02


def measure_idle(seconds: float = 20.0, provider: str = "auto") -> list[dict[str, Any]]:
    """Processor time over `seconds` at work and in both kinds of rest, in percent of one core.

    Rows: work (noise in, captions on), silence (digital silence in, captions on), unheard (noise in, the virtual
    microphone up and nobody there). wake_ms: from somebody who begins to listen until sound comes; None elsewhere.
    Raises DeviceError where PulseAudio is not installed.
    """
    noise = np.random.default_rng(0).standard_normal(round((3 * seconds + 90.0) * RATE_HZ)).astype(np.float32)
    wanted = Provider(provider)
    with Stage() as stage:
        rows = [_row("silence", EngineConfig(MIC_SOURCE, HEARD_SINK, provider=wanted, captions=True), seconds)]
        stage.play(NOISE_LEVEL * noise)
        rows.insert(0, _row("work", EngineConfig(MIC_SOURCE, HEARD_SINK, provider=wanted, captions=True), seconds))
        unheard = EngineConfig(MIC_SOURCE, background=Background.parse("keep"), provider=wanted, virtual_mic=True)
        with _running(unheard) as engine:
            rows.append(_figures("unheard", engine, seconds))
            rows[-1]["wake_ms"] = wake_ms(stage.record_source(MIC_NAME, 3.0))
    return rows


def wake_ms(heard: Samples) -> float | None:
    """From the beginning of a recording [N] at RATE_HZ until there is sound in it; None where there is none."""
    sounding = np.flatnonzero(heard)
    return 1000.0 * float(sounding[0]) / RATE_HZ if len(sounding) else None


@contextmanager
def _running(config: EngineConfig) -> Iterator[Engine]:
    with Engine(config) as engine:
        engine.wait_captions()
        time.sleep(SETTLE_S)
        yield engine
        engine.stop(0.0)


def _row(name: str, config: EngineConfig, seconds: float) -> dict[str, Any]:
    with _running(config) as engine:
        return _figures(name, engine, seconds)


def _figures(name: str, engine: Engine, seconds: float) -> dict[str, Any]:
    usage = Usage()
    time.sleep(seconds)
    sound, captions = usage.percent()
    stats = next(event for event in engine.poll() if isinstance(event, Stats))
    return {
        "case": name,
        "state": stats.state,
        "cpu_percent_sound": sound,
        "cpu_percent_captions": captions,
        "dropouts": stats.dropouts,
        "wake_ms": None,
    }
