"""The demo: a recording in real time through the live engine, and what is left of it in the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app import cli
from app.demo import caption_figures, gather, open_recording, word_errors
from app.live_view import LiveView
from engine.artefacts import shared_models
from engine.captions import join_words
from engine.relief import CAPTIONS, GIVEN_UP
from engine.token_reader import read_svt
from engine.types import Caption, Word
from engine.weights import find_weights
from tests import tiny_models

RATE_HZ = 48_000
RESULTS = {"speech.wav", "background.wav", "tokens.svt", "report.png"}  # and captions.srt, with captions


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs load tiny networks."""
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tiny_models.build(tmp_path / "assets")))
    shared_models.cache_clear()
    yield
    shared_models.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def recording(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1) -> Path:
    shape = (int(seconds * rate_hz), channels)
    sound = 0.1 * np.random.default_rng(0).standard_normal(shape)
    soundfile.write("in.wav", sound.astype(np.float32), rate_hz, subtype="FLOAT")
    return Path("in.wav")


def program(*arguments: str) -> subprocess.Popen[str]:
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_any_recording_leaves_all_results(tiny: None, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    assert cli.run(["demo", str(recording(1.5, 22_050, 2)), "--no-captions"]) == 0
    assert time.monotonic() - start > 1.5, "it runs in real time"
    results = folder / "sottovoce-out"
    assert {p.name for p in results.iterdir()} >= RESULTS
    for name in ("speech.wav", "background.wav"):
        sound, rate_hz = soundfile.read(results / name)
        assert len(sound) / rate_hz == pytest.approx(1.5, abs=0.05)
        assert np.std(sound) > 0.001
    assert read_svt(results / "tokens.svt").codes_s.shape[1] >= 75
    assert (results / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "sottovoce-out holds" in capsys.readouterr().err


def test_the_report_is_in_line_with_the_sound(tiny: None, folder: Path) -> None:
    """The tiny codec follows noise well enough that half a sample of shift in its picture would show."""
    assert cli.run(["demo", str(recording(1.0)), "--no-captions", "--out", "out"]) == 0
    errors = {late_ms: np.median(gather(Path("out"), [], "", late_ms).error_db) for late_ms in (0.0, 2.5, 5.0)}
    assert min(errors, key=errors.__getitem__) == 2.5


def test_a_second_run_replaces_the_first_and_cuts_where_told(tiny: None, folder: Path) -> None:
    path = str(recording(3.0))
    assert cli.run(["demo", path, "--no-captions", "--seconds", "0.5", "--out", "out"]) == 0
    assert soundfile.info("out/input.wav").duration == pytest.approx(0.5, abs=0.03)
    assert cli.run(["demo", path, "--no-captions", "--seconds", "0.3", "--out", "out"]) == 0
    assert soundfile.info("out/input.wav").duration == pytest.approx(0.3, abs=0.03)


def test_a_recording_of_another_kind_is_left_alone(
    tiny: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "speech.wav").write_bytes(b"mine")
    assert cli.run(["demo", str(recording(0.2)), "--no-captions", "--out", "out"]) == 2
    assert "--out" in capsys.readouterr().err
    assert (folder / "out" / "speech.wav").read_bytes() == b"mine"


def test_a_recording_beside_a_picture_is_left_alone(
    tiny: None, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`residue` may have drawn it, or an earlier demo."""
    with monkeypatch.context() as patched:
        patched.setattr("app.demo.TITLE", "")  # as `live` records
        assert cli.run(["demo", str(recording(0.3)), "--no-captions", "--out", "out"]) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert "report.png" in before
    assert cli.run(["demo", "in.wav", "--no-captions", "--out", "out"]) == 2
    assert "name another folder with --out" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_a_demo_of_what_an_earlier_one_left_does_not_remove_it(
    tiny: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["demo", str(recording(0.3)), "--no-captions"]) == 0
    before = Path("sottovoce-out/output.wav").read_bytes()
    capsys.readouterr()
    assert cli.run(["demo", "sottovoce-out/output.wav", "--no-captions"]) == 2
    assert "name another folder with --out" in capsys.readouterr().err
    assert Path("sottovoce-out/output.wav").read_bytes() == before


@pytest.mark.parametrize("kind", ["missing", "text", "nan"])
def test_what_is_no_sound_fails_before_anything_is_made(
    kind: str, tiny: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "text":
        Path("in.wav").write_text("words\n" * 50, encoding="utf-8")
    elif kind == "nan":
        soundfile.write("in.wav", np.full(1000, np.nan, np.float32), RATE_HZ, subtype="FLOAT")
    assert cli.run(["demo", "in.wav", "--no-captions"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert not (folder / "sottovoce-out").exists()


def test_a_recording_is_mixed_and_cut(folder: Path) -> None:
    source = open_recording(recording(1.0, 44_100, 2), 0.25)
    left = list(source._sound)
    assert sum(map(len, left)) == pytest.approx(0.25 * source.sample_rate_hz, abs=2)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_keeps_what_was_played(tiny: None, folder: Path) -> None:
    process = program("demo", str(recording(60.0)), "--no-captions", "--out", "out")
    input_file, deadline = folder / "out" / "input.wav", time.monotonic() + 60.0
    while not (input_file.exists() and input_file.stat().st_size > 200_000):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert {p.name for p in (folder / "out").iterdir()} >= RESULTS
    info = soundfile.info("out/speech.wav")
    assert 1.0 < info.duration < 60.0
    assert soundfile.info("out/input.wav").duration == pytest.approx(info.duration, abs=0.05)
    assert read_svt("out/tokens.svt").lost == ()


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b", "a b b b", 2), ("a b c", "x b c", 1), ("a b", "", 2)],
)
def test_word_errors_are_changes_omissions_and_additions(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_caption_figures_tell_errors_and_delay() -> None:
    view = LiveView(show_captions=False)
    view.take([Caption(3.0, (Word("Good", 0.5, 1.0), Word("Morning!", 1.0, 2.0)), (), 0.5)])
    assert caption_figures(view, None).endswith(
        "2 words, final 1.5 s after they ended (median; 95 % after 1.9, all after 2.0)"
    )
    assert caption_figures(view, "Good evening, all.").endswith("word error rate 66.7 % of 3")


@pytest.mark.weights
@pytest.mark.slow
def test_the_shipped_recording_is_captioned_as_it_goes(folder: Path) -> None:
    if find_weights() is None:
        pytest.skip("Whisper's weights are not here; run sottovoce models get")
    for _ in range(3):
        process = program("demo", "--seconds", "7", "--out", "out")
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        if GIVEN_UP[CAPTIONS][0] not in err:  # what is said while others keep the machine busy is rightly left out
            break
    assert all(line.startswith("[0:0") for line in out.splitlines()), out
    assert "synthetic voice" in out, err
    assert "synthetic voice" in (folder / "out" / "captions.srt").read_text(encoding="utf-8")
    assert "synthetic voice" in join_words(read_svt("out/tokens.svt").words)
