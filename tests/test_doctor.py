"""What the doctor finds, and what it advises."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from app import cli
from app.doctor import Check, folder_check, onnxruntime_check, portaudio_check, version_of
from engine.types import ArtefactError


def found(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and the checks by name."""
    status = cli.run(["doctor", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["ok"] == (status == 0)
    return status, {check["what"]: check for check in values["checks"]}


def test_versions_are_read_without_importing() -> None:
    assert version_of("numpy") is not None
    assert version_of("no-such-package-at-all") is None


@pytest.mark.parametrize(
    ("cpu", "gpu", "state"),
    [(None, "1.31.1", "ok"), ("1.31.1", None, "ok"), ("1.31.1", "1.31.1", "missing"), (None, None, "missing")],
)
def test_one_onnxruntime_and_one_only(cpu: str | None, gpu: str | None, state: str) -> None:
    check = onnxruntime_check(cpu, gpu)
    assert check.state == state
    assert bool(check.do) == (state == "missing")


def test_a_folder_that_is_not_there_yet_can_be_made(tmp_path: Path) -> None:
    assert folder_check("cache", tmp_path / "a" / "b").state in ("ok", "note")


def test_a_folder_that_cannot_be_made_is_told() -> None:
    check = folder_check("cache", Path("/proc/sottovoce/cache"))
    assert check.state == "missing"
    assert "/proc" in check.do


def test_all_is_looked_at_and_every_fault_has_advice(capsys: pytest.CaptureFixture[str]) -> None:
    status, checks = found(capsys)
    assert {
        *(
            "python",
            "packages",
            "onnxruntime",
            "provider cpu",
            "artefacts",
            "Whisper",
            "voice detector",
            "PortAudio",
            "sound devices",
        ),
        *("window", "cache folder", "settings folder"),
    } <= set(checks)
    assert status == (1 if any(c["state"] == "missing" for c in checks.values()) else 0)
    assert checks["provider cpu"]["state"] == checks["artefacts"]["state"] == "ok"
    for check in checks.values():
        assert check["state"] != "missing" or check["do"], check


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it comes with sounddevice")
@pytest.mark.parametrize(("server", "state"), [(True, "note"), (False, "missing")])
def test_portaudio_is_only_missed_without_a_sound_server(
    server: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr("engine.libpulse.usable", lambda: True)
    monkeypatch.setattr("engine.devices.on_pulse", lambda: server)
    check = portaudio_check()
    assert check.state == state
    assert check.do


def test_a_damaged_model_is_found(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assets = shutil.copytree(checkout / "assets", tmp_path / "assets")
    with (assets / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(assets))
    status, checks = found(capsys)
    assert status == 1
    assert checks["provider cpu"]["state"] == "missing"
    assert "sha256" in checks["artefact decoder"]["found"]


def test_missing_weights_are_told_with_the_command_that_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, checks = found(capsys)
    assert status == 1
    assert checks["Whisper"]["do"].startswith("sottovoce models get base")


def test_a_missing_voice_detector_is_told_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an installation of the wheel alone."""

    def missing() -> None:
        raise ArtefactError("silero-vad is not installed; run ./run, or pip install --no-deps silero-vad")

    monkeypatch.setattr("engine.vad.model_path", missing)
    status, checks = found(capsys)
    assert status == 1
    assert checks["voice detector"]["found"] == "silero-vad is not installed; captions need it"
    assert checks["voice detector"]["do"] == "run ./run, or pip install --no-deps silero-vad"


def test_for_people_each_check_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = (Check("ears", "ok", "two"), Check("voice", "missing", "hoarse", "drink tea"))
    monkeypatch.setattr("app.doctor.CHECKS", (lambda: iter(checks),))
    assert cli.run(["doctor"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["ok", "ears", "two"]
    assert lines[1].split() == ["MISSING", "voice", "hoarse"]
    assert "drink tea" in lines[2]
    assert err == "sottovoce: 1 needed: voice; do what is told beside each\n"
