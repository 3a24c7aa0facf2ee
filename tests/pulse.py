"""A sound server of the tests' own, with null sinks: a test plays where `mic` hears it and records what came out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from engine.ears import RATE_HZ
from engine.livebench import HEARD_SINK, MIC_SOURCE, STAGE_SINK, Stage
from engine.pulse import PrivateServer

__all__ = ["HEARD_SINK", "MIC_SOURCE", "RATE_HZ", "STAGE_SINK", "pulse_server", "stage"]


def _need_pulseaudio() -> None:
    if shutil.which("pulseaudio") is None:
        pytest.fail("pulseaudio is not installed; these tests need it: sudo apt install pulseaudio libasound2-plugins")


@pytest.fixture
def pulse_server() -> Iterator[PrivateServer]:
    """A running server with one null sink called `speaker`."""
    _need_pulseaudio()
    with PrivateServer(["module-null-sink sink_name=speaker rate=48000 channels=2"]) as server:
        yield server


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A running server with the sinks of engine.livebench."""
    _need_pulseaudio()
    with Stage() as running:
        yield running
