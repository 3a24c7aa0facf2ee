"""The command line on tiny networks, in a folder of its own: what its tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import shared_models
from tests import tiny_models

COMMANDS = ["gui", "live", "ctl", "serve", "demo", "enhance", "caption", "residue", "encode", "decode", "devices"]
COMMANDS += ["settings", "models", "bench", "doctor"]
LINUX = sys.platform.startswith("linux")
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("assets"))


@pytest.fixture(autouse=True)
def tiny_assets(assets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every run, in this process or another, loads the tiny networks."""
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(assets))
    shared_models.cache_clear()
    yield
    shared_models.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    shape = (max(1, int(seconds * rate_hz)), channels)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def write(path: str, sound: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, sound, rate_hz, subtype=subtype)
    return Path(path)


def program(arguments: Sequence[str], **options: object) -> subprocess.Popen[str]:
    """The real program, in a process of its own."""
    command = [sys.executable, "-m", "app", *arguments]
    environment = (
        dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)} | options.pop("env", {})
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)  # type: ignore[call-overload]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error; standard output must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    return only_line(err)


def only_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("sottovoce: ")
    assert "Traceback" not in err
    assert "bug" not in err
    return err


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
