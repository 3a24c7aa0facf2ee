"""Live engines for tests: between arrays, or between null sinks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.live import Engine
from engine.ports import MemoryInput, MemoryOutput
from engine.types import (
    Background,
    DeviceChange,
    EngineConfig,
    Event,
    Levels,
    Provider,
    Samples,
    Stats,
    Tokens,
)
from tests import tiny_models
from tests.pulse import RATE_HZ

KEEP, DROP = Background.parse("keep"), Background.parse("drop")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


def noise(seconds: float, level: float = 0.05) -> Samples:
    return (level * np.random.default_rng(3).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def memory_engine(
    tiny: Models, x: Samples, background: Background = KEEP, **fields: Any
) -> tuple[Engine, MemoryOutput]:
    """An engine between an array and a sink that keeps what it hears."""
    sink = MemoryOutput(RATE_HZ)
    return Engine(EngineConfig(background=background, **fields), tiny, MemoryInput(x, RATE_HZ), sink), sink


def events_until(engine: Engine, done: Callable[[list[Event]], bool], wait_s: float = 12.0) -> list[Event]:
    """All events up to when `done` says so; fails with them when it never does."""
    events: list[Event] = []
    deadline = time.monotonic() + wait_s
    while not done(events):
        assert time.monotonic() < deadline, [e for e in events if not isinstance(e, (Levels, Tokens))]
        time.sleep(0.02)
        events += engine.poll()
    return events


def last_stats(events: list[Event]) -> Stats:
    return [e for e in events if isinstance(e, Stats)][-1]


def changes(events: list[Event]) -> list[str]:
    return [e.what for e in events if isinstance(e, DeviceChange)]


def windows_rms(x: Samples, size: int = 960) -> Samples:
    return np.sqrt(np.square(x[: len(x) // size * size].reshape(-1, size)).mean(axis=1))
