"""The command line as people use it: exit statuses, one line per failure, and what is left on the disk afterwards.

Most runs are in this process, over tiny networks; those about processes (signals, limits, start-up) are real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from app import cli
from engine.artefacts import shared_models
from engine.tokens import read_svt
from engine.types import Word
from engine.weights import find_weights
from tests import tiny_models

COMMANDS = ["gui", "live", "ctl", "demo", "enhance", "caption", "encode", "decode", "devices", "models"]
COMMANDS += ["bench", "doctor"]
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


# Start-up and help ----------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_that_are_there_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out, err = capsys.readouterr()
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == COMMANDS
    assert err == ""


@pytest.mark.parametrize("command", ["residue", "serve", "ctl", "no-such"])
def test_a_command_that_is_not_there_yet_is_wrong_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command]) == 2
    assert command in told(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert command in capsys.readouterr().out


def test_help_is_there_at_once() -> None:
    """In processor time, because other work on the machine is not ours."""
    before = os.times()
    assert program(["--help"]).communicate()[0].startswith("Usage: sottovoce")
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_help_imports_nothing_heavy_and_a_run_never_torch(folder: Path) -> None:
    write("in.wav", noise(0.1))
    code = (
        "import sys; from app.cli import run\n"
        "run(['--help']); assert not {'numpy', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "assert run(['enhance', 'in.wav', 'out.wav']) == 0; assert 'onnxruntime' in sys.modules\n"
        "assert run(['doctor', '--json']) in (0, 1)\n"
        "assert not {'torch', 'whisper', 'matplotlib'} & set(sys.modules)\n"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What succeeds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "rate_hz", "channels"),
    [(1, 48_000, 1), (8_000, 8_000, 1), (9_600, 96_000, 6), (4_411, 44_100, 2), (1, 8_000, 1)],
)
def test_rate_channels_and_length_are_kept(
    frames: int, rate_hz: int, channels: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(1.0, frames, channels), rate_hz)
    assert cli.run(["enhance", "in.wav", "out.wav"]) == 0
    told(capsys)
    info = soundfile.info("out.wav")
    assert (info.frames, info.samplerate, info.channels) == (frames, rate_hz, channels)
    assert names(folder) == ["in.wav", "out.wav"]


def test_one_json_object_with_the_fields_that_programs_rely_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(0.5))
    assert cli.run(["enhance", "in.wav", "out.wav", "--background", "-12", "--json"]) == 0
    out, err = capsys.readouterr()
    values = json.loads(out)
    assert list(values) == [
        *("input", "output", "duration_s", "sample_rate_hz", "background", "scene", "codec_id", "provider"),
        *("algorithmic_latency_ms", "real_time_factor", "warnings"),
    ]
    assert (values["background"], values["duration_s"], values["sample_rate_hz"]) == ("-12", 0.5, RATE_HZ)
    assert values["algorithmic_latency_ms"] == 30.0
    assert values["warnings"] == []
    assert err == ""


def test_keep_is_the_original_and_a_negative_gain_is_between_it_and_drop(folder: Path) -> None:
    sound = noise(1.0)
    write("in.wav", sound)
    loudness = {}
    for background in ("keep", "-6", "drop"):
        assert cli.run(["enhance", "in.wav", "out.wav", "--force", "--background", background]) == 0
        loudness[background] = float(np.std(soundfile.read("out.wav")[0]))
        if background == "keep":
            assert np.array_equal(soundfile.read("out.wav", dtype="float32")[0], sound[:, 0])
    assert loudness["drop"] < loudness["-6"] < loudness["keep"]


def test_tokens_there_and_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("in.wav", noise(1.0))
    assert cli.run(["encode", "in.wav", "t.svt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] >= 50
    assert cli.run(["decode", "t.svt", "out.wav", "--background", "keep"]) == 0
    told(capsys)
    assert soundfile.info("out.wav").frames == RATE_HZ


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_tokens_are_decoded_with_one_warning(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(5.0))
    assert cli.run(["encode", "in.wav", "t.svt"]) == 0
    data = bytearray(Path("t.svt").read_bytes())
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    else:
        data[len(data) // 2] ^= 0x10
    Path("t.svt").write_bytes(data)
    capsys.readouterr()
    assert cli.run(["decode", "t.svt", "out.wav", "--json"]) == 0
    out, err = capsys.readouterr()
    assert only_line(err).startswith("sottovoce: warning: ")
    assert len(json.loads(out)["warnings"]) == 1
    assert 0 < soundfile.info("out.wav").frames <= 5 * RATE_HZ
    assert np.std(soundfile.read("out.wav")[0]) > 0.001


WORDS = [Word("Good", 0.5, 0.7), Word("morning.", 0.8, 1.2)]


def fake_recogniser(monkeypatch: pytest.MonkeyPatch, interrupted: bool = False) -> list[np.ndarray]:
    """Whisper takes too long for every test: one that hears all that it is given, and always the same words."""
    heard: list[np.ndarray] = []

    def recognise(
        sound: Iterator[np.ndarray],
        language: str | None,
        *,
        progress: Callable[[float], None],
        found,
        words: list[Word],
    ) -> None:
        for piece in sound:
            heard.append(piece)
            progress(sum(map(len, heard)) / RATE_HZ)
        words.extend(WORDS)
        if interrupted:
            raise KeyboardInterrupt
        found("en")

    monkeypatch.setattr("engine.recognizer.recognise_file", recognise)
    return heard


@pytest.mark.parametrize("tap", ["raw", "enhanced", "tokens"])
def test_standard_output_holds_captions_alone(
    tap: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = fake_recogniser(monkeypatch)
    sound = noise(2.0, 48_000, 2)
    write("in.wav", sound, 48_000)
    assert cli.run(["caption", "in.wav", "--from", tap]) == 0
    out, err = capsys.readouterr()
    assert out == "1\n00:00:00,500 --> 00:00:01,200\nGood morning.\n\n"
    assert err == ""
    whole = np.concatenate(heard)
    assert len(whole) == 2 * RATE_HZ
    share = np.std(whole) / np.std(sound.mean(axis=1))
    if tap == "raw":
        assert share > 0.5  # a third of the noise's band is left at 16 kHz
    else:
        assert 0.1 < share < 0.55  # part of it is taken away


@pytest.mark.parametrize("form", ["srt", "vtt", "txt", "json"])
def test_captions_take_the_form_of_the_extension_or_the_one_named(
    form: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_recogniser(monkeypatch)
    write("in.wav", noise(0.5))
    assert cli.run(["caption", "in.wav", f"out.{form}"]) == 0
    told(capsys)
    assert cli.run(["caption", "in.wav", "--format", form]) == 0
    text = Path(f"out.{form}").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert "Good morning." in text
    if form == "json":
        assert [w["text"] for w in json.loads(text)["words"]] == ["Good", "morning."]


def test_interrupted_captions_are_written_as_far_as_they_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_recogniser(monkeypatch, interrupted=True)
    write("in.wav", noise(0.5))
    assert cli.run(["caption", "in.wav", "out.srt"]) == 130
    assert "Good morning." in Path("out.srt").read_text(encoding="utf-8")
    assert "Traceback" not in capsys.readouterr().err


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
