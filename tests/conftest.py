"""What every test gets: no screen needed, fixed seeds, and failure on what a user would see.

A test fails when a Python or Qt warning appears that pyproject.toml does not name, and when a thread that it started
is still alive after it. Sound servers are private (engine/pulse.py); the person's own is never touched.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports Qt or opens a sound device. ./run test shows the window on Xvfb; else there is no screen.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["PULSE_SERVER"] = "unix:/nonexistent/pulse"  # never the sound server of the person's session

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as engine/__init__.py does; tests may load ONNX Runtime before it

# One thread, and no spinning at barriers: on a busy machine a spinning OpenMP team waits for itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# How long a busy machine takes to draw an example, or to try it, says nothing of the example.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

THREAD_GRACE_S = 15.0  # networks that are being loaded are not left half way, however busy the machine is
# Threads that a library keeps for the life of the process.
LASTING = ("pymp", "ThreadPoolExecutor", "QThread", "Dummy", "QueueFeederThread", "tqdm_monitor")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """The same draw for every test, whatever ran before it."""
    random.seed(1)
    np.random.seed(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own, with a fixed seed."""
    return np.random.default_rng(1)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test whose threads outlive it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_S
    while (left := _started_since(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"threads left running: {', '.join(thread.name for thread in left)}"


def _started_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and t.is_alive() and not t.name.startswith(LASTING)]


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's settings are neither read nor written; the cache (weights) is the real one."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("SOTTOVOCE_CONFIG", str(folder))
    monkeypatch.setenv("SOTTOVOCE_LOGS", str(folder / "logs"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))  # a running app is not steered
    return folder


@pytest.fixture
def stages(qtbot: Any) -> Iterator[Any]:
    """Makes windows on made-up engines, and closes them."""
    from app.window import Choices
    from engine.types import EngineConfig
    from tests.stage import MICROPHONE, OTHER, OWN, SPEAKER, Stage

    made: list[Stage] = []

    def one(
        devices: list[Any] | None = None,
        choices: Any = None,
        config: Any = None,
        **fake: Any,
    ) -> Stage:
        known = [MICROPHONE, OTHER, OWN, SPEAKER] if devices is None else devices
        made.append(Stage(qtbot, known, choices or Choices(), config or EngineConfig(captions=True), **fake))
        return made[-1]

    yield one
    for stage in made:
        stage.close()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
