"""The command line when something is wrong: one clear line, the right exit status, nothing lost, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from app import cli
from engine.token_reader import read_svt
from engine.weights import find_weights
from tests.command_line import (
    LINUX,
    RATE_HZ,
    assets,
    folder,
    names,
    noise,
    only_line,
    program,
    tiny_assets,
    told,
    write,
)

__all__ = ["assets", "folder", "tiny_assets"]

# What fails -----------------------------------------------------------------------------------------------------------


def make_bad(kind: str) -> str:
    """A file that is no sound, by kind -> its name."""
    if kind == "directory":
        Path("in.wav").mkdir()
    elif kind == "text":
        Path("in.wav").write_text("this is no sound\n" * 100, encoding="utf-8")
    elif kind == "empty":
        Path("in.wav").touch()
    elif kind == "no frames":
        write("in.wav", np.zeros((0, 1), np.float32))
    elif kind in ("nan", "inf"):
        sound = noise(3.0)
        sound[2 * RATE_HZ + 5] = float(kind)
        write("in.wav", sound)
    return "in.wav"


BAD = ["missing", "directory", "text", "empty", "no frames", "nan", "inf"]


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["enhance", "encode"])
def test_what_is_no_sound_fails_and_leaves_nothing(
    command: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_bad(kind)
    before = names(folder)
    out = "out.svt" if command == "encode" else "out.wav"
    assert cli.run([command, source, out]) == 1
    assert "in.wav" in told(capsys)
    assert names(folder) == before


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("nan", "inf")])
def test_what_is_no_sound_is_not_captioned(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_bad(kind)
    before = names(folder)
    assert cli.run(["caption", source, "out.srt"]) == 1
    assert "in.wav" in told(capsys)
    assert names(folder) == before


@pytest.mark.parametrize("kind", ["missing", "directory", "text", "empty"])
def test_what_is_no_token_file_fails_and_leaves_nothing(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_bad(kind)
    before = names(folder)
    assert cli.run(["decode", source, "out.wav"]) == 1
    assert "in.wav" in told(capsys)
    assert names(folder) == before


@pytest.mark.parametrize("arguments", [["enhance", "in.wav", "out.wav"], ["encode", "in.wav", "out.svt"]])
def test_a_damaged_model_is_refused(
    arguments: list[str],
    folder: Path,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tampered = shutil.copytree(assets, folder / "assets")
    with (tampered / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tampered))
    write("in.wav", noise(0.1))
    assert cli.run(arguments) == 1
    line = told(capsys)
    assert "encoder.onnx" in line
    assert "sha256" in line
    assert names(folder) == ["assets", "in.wav"]
    assert cli.run(["models", "verify"]) == 1
    assert "encoder.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["no-such-folder/out.wav", "/proc/out.wav"] if LINUX else ["no-such-folder/out.wav"])
def test_a_place_that_cannot_be_written(out: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("in.wav", noise(0.1))
    assert cli.run(["enhance", "in.wav", out]) == 1
    told(capsys)
    assert names(folder) == ["in.wav"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("in.wav", noise(0.1))
    (folder / "locked").mkdir(mode=0o555)
    assert cli.run(["enhance", "in.wav", "locked/out.wav"]) == 1
    assert "locked/out.wav" in told(capsys)


FILLING = [
    ["enhance", "in.wav", "OUT/out.wav"],
    ["encode", "in.wav", "OUT/out.svt"],
    ["decode", "in.svt", "OUT/out.wav"],
]


@pytest.mark.skipif(not LINUX, reason="needs file size limits")
@pytest.mark.parametrize("arguments", FILLING, ids=lambda a: a[0])
def test_a_file_that_may_not_grow_leaves_nothing(arguments: list[str], folder: Path) -> None:
    import resource

    write("in.wav", noise(20.0))
    (folder / "OUT").mkdir()
    assert cli.run(["encode", "in.wav", "in.svt"]) == 0
    limit = 20_000 if arguments[0] == "encode" else 100_000
    process = program(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "OUT/" in only_line(err)
    assert names(folder / "OUT") == []


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 kB, where one may be mounted."""
    place = folder / "OUT"
    place.mkdir()
    mounted = LINUX and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("may not mount a small disk here; the file size limit is tested instead")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("arguments", FILLING, ids=lambda a: a[0])
def test_a_full_disk_leaves_nothing(arguments: list[str], small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("in.wav", noise(40.0))
    assert cli.run(["encode", "in.wav", "in.svt"]) == 0
    capsys.readouterr()
    assert cli.run(arguments) == 1
    assert "OUT/" in told(capsys)
    assert names(small_disk) == []


NO_PORTAUDIO = "raise OSError('PortAudio library not found')\n"


@pytest.mark.parametrize("arguments", [["live", "--seconds", "1"], ["devices"]], ids=lambda a: a[0])
def test_without_portaudio_it_is_told_what_to_install(arguments: list[str], folder: Path) -> None:
    (folder / "sounddevice.py").write_text(NO_PORTAUDIO, encoding="utf-8")
    root = Path(__file__).resolve().parent.parent
    process = program(arguments, env={"PYTHONPATH": f"{folder}{os.pathsep}{root}"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "libportaudio2" in only_line(err)


WRONG: list[list[str]] = [
    ["enhance"],
    ["enhance", "in.wav"],
    ["enhance", "in.wav", "out.wav", "more.wav"],
    ["enhance", "in.wav", "out.wav", "--backgruond", "keep"],
    ["enhance", "in.wav", "out.wav", "--background", "loud"],
    ["enhance", "in.wav", "out.wav", "--background", "3"],
    ["enhance", "in.wav", "out.wav", "--background", "-61"],
    ["enhance", "in.wav", "out.wav", "--background", "nan"],
    ["enhance", "in.wav", "out.wav", "--background", "swap:"],
    ["enhance", "in.wav", "out.wav", "--background", "swap:nowhere"],
    ["enhance", "in.wav", "out.wav", "--quantizers", "0"],
    ["enhance", "in.wav", "out.wav", "--quantizers", "999"],
    ["enhance", "in.wav", "out.wav", "--quantizers", "two"],
    ["enhance", "in.wav", "out.wav", "--provider", "abacus"],
    ["enhance", "in.wav", "in.wav"],
    ["enhance", "in.wav", "in.wav", "--force"],
    ["enhance", "in.wav", "there.wav"],
    ["enhance", "in.wav", "out.xyz"],
    ["encode", "in.wav", "there.wav"],
    ["encode", "in.wav", "out.svt", "--quantizers", "999"],
    ["decode", "in.svt", "out.wav", "--background", "swap:nowhere"],
    ["caption", "in.wav", "--format", "doc"],
    ["caption", "in.wav", "--from", "elsewhere"],
    ["caption", "in.wav", "there.wav"],
    ["live", "--background", "swap:nowhere"],
    ["live", "--seconds", "-1"],
    ["demo", "--background", "loud"],
    ["models", "sell"],
    ["models", "import"],
    ["models", "get", "no-such-model"],
    ["bench", "patience"],
    [],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_use_exits_with_2_and_writes_nothing(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("in.wav", "there.wav"):
        write(name, noise(0.1))
    if "in.svt" in arguments:
        assert cli.run(["encode", "in.wav", "in.svt"]) == 0
    capsys.readouterr()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert cli.run(arguments) == 2
    if arguments:
        told(capsys)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_an_unknown_scene_lists_the_scenes(
    folder: Path, assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(0.5))
    with_scenes = shutil.copytree(assets, folder / "assets")
    (with_scenes / "scenes").mkdir()
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(with_scenes))
    for scene in ("rain", "street"):
        assert cli.run(["encode", "in.wav", f"assets/scenes/{scene}.svt"]) == 0
    capsys.readouterr()
    assert cli.run(["enhance", "in.wav", "out.wav", "--background", "swap:moon"]) == 2
    line = told(capsys)
    assert "moon" in line
    assert "rain, street" in line
    assert cli.run(["enhance", "in.wav", "out.wav", "--background", "swap:rain@-6"]) == 0


def test_an_existing_file_is_replaced_with_force_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("in.wav", noise(0.1))
    Path("out.wav").write_bytes(b"mine")
    assert cli.run(["enhance", "in.wav", "out.wav"]) == 2
    assert "--force" in told(capsys)
    assert Path("out.wav").read_bytes() == b"mine"
    assert cli.run(["enhance", "in.wav", "out.wav", "--force"]) == 0
    assert soundfile.info("out.wav").frames == RATE_HZ // 10


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_load_is_an_error(
    provider: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(0.1))
    status = cli.run(["enhance", "in.wav", "out.wav", "--provider", provider, "--json"])
    out, err = capsys.readouterr()
    if status == 0:  # this machine has it, and it must be what was used
        assert json.loads(out)["provider"] == provider
    else:
        assert status == 1
        assert provider in only_line(err)
        assert names(folder) == ["in.wav"]


def test_a_bug_is_one_line_too(folder: Path) -> None:
    code = (
        "import sys; sys.argv = ['sottovoce', 'devices']; import app.commands_live as c\n"
        "def broken(as_json): raise TypeError('a\\nb')\n"
        "c.devices = broken; from app.cli import main; main()"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "bug (TypeError: a b)" in done.stderr


# Ctrl-C ---------------------------------------------------------------------------------------------------------------


def grown(pattern: str, size: int) -> Callable[[Path], bool]:
    return lambda folder: any(p.stat().st_size > size for p in folder.glob(pattern))


def interrupt(arguments: list[str], folder: Path, ready: Callable[[Path], bool], number: int = signal.SIGINT) -> str:
    """Start, wait until `ready`, stop it -> standard error. The exit status must be 130."""
    process = program(arguments, cwd=folder)
    deadline = time.monotonic() + 60.0
    while not ready(folder):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it never began to write"
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return err


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_enhance_keeps_what_was_done(number: int, folder: Path) -> None:
    write("in.wav", noise(900.0))
    err = interrupt(["enhance", "in.wav", "out.wav"], folder, grown(".out*", 200_000), number)
    assert "out.wav holds the first" in only_line(err)
    assert names(folder) == ["in.wav", "out.wav"]
    sound, _ = soundfile.read("out.wav")
    assert RATE_HZ < len(sound) < 900 * RATE_HZ
    assert np.std(sound[RATE_HZ // 2 : RATE_HZ]) > 0.001


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_in_encode_and_decode_keeps_what_was_done(folder: Path) -> None:
    write("in.wav", noise(900.0))
    interrupt(["encode", "in.wav", "t.svt"], folder, grown(".t*", 20_000))
    assert names(folder) == ["in.wav", "t.svt"]
    tokens = read_svt("t.svt")
    assert 50 < tokens.codes_s.shape[1] < 900 * 50
    assert tokens.lost == ()
    write("shorter.wav", noise(300.0))
    assert cli.run(["encode", "shorter.wav", "whole.svt"]) == 0
    interrupt(["decode", "whole.svt", "out.wav"], folder, grown(".out*", 200_000))
    assert RATE_HZ < soundfile.info("out.wav").frames < 300 * RATE_HZ


@pytest.mark.weights
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_in_caption_leaves_no_process_and_no_empty_file(folder: Path) -> None:
    if find_weights() is None:
        pytest.skip("Whisper's weights are not here; run sottovoce models get")
    write("in.wav", noise(60.0))
    process = program(["caption", "in.wav", "out.srt"])
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60.0
    while not workers:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
        workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert only_line(err) == "sottovoce: stopped\n"
    assert names(folder) == ["in.wav"]
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_window_closes_when_it_is_told_to(folder: Path, number: int) -> None:
    """As the desktop does when a person logs out."""
    own = {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(folder)}
    process = program(["gui", "--demo"], env=own)
    deadline = time.monotonic() + 60.0
    while "state" not in program(["ctl", "status", "--json"], env=own).communicate()[0]:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "bug" not in err
