"""A recording is whole whatever ends it, and its files are in line with each other."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.artefacts import CodecInfo
from engine.recorder import HopRecord, Recorder, WavWriter, recorded_files
from engine.token_reader import read_svt
from engine.types import AudioFileError, Caption, Samples, TokenFileError, UsageError, Word

HOP, RATE_HZ = 320, 48000
HOP_NATIVE = 960
INFO = CodecInfo("id", 16000, HOP, 80, 160, (8, 8, 8), (8, 8), 1, 1, 2)
CODES_S, CODES_B = np.array([1, 2, 3]), np.array([4, 5])

KILLED = """
import sys, time
from pathlib import Path
from tests.test_recorder import recorder, hop
import numpy as np
r = recorder(Path(sys.argv[1]))
sound = np.full(960, 0.25, np.float32)
while True:
    r.write(hop(sound))
    time.sleep(0.002)
"""
FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from engine.recorder import WavWriter
from engine.types import AudioFileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
w = WavWriter(Path(sys.argv[1]), 48000)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_001, 10_001))
try:
    for _ in range(100):
        w.write(np.full(480, 0.5, np.float32))
except AudioFileError as error:
    print(error)
w.close()
"""


def hop(sound: Samples, output: Samples | None = None) -> HopRecord:
    low = sound[::3].copy()
    return HopRecord(sound, sound if output is None else output, low, 0.5 * low, CODES_S, CODES_B)


def recorder(folder: Path, skip: tuple[int, int] = (0, 0), captions: bool = False) -> Recorder:
    return Recorder(folder, INFO, RATE_HZ, skip, captions=captions)


def test_wav_is_read_back_to_24_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.uniform(-1, 1, 1001).astype(np.float32)
    writer = WavWriter(tmp_path / "a.wav", RATE_HZ)
    writer.write(x[:500])
    writer.write(x[500:])
    writer.close()
    y, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="float64")
    assert rate_hz == RATE_HZ
    np.testing.assert_allclose(y, np.clip(x, -1, 1 - 2**-23), atol=2**-24)


def test_what_is_beyond_full_scale_is_clipped(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", RATE_HZ)
    writer.write(np.array([2.0, -2.0], dtype=np.float32))
    writer.close()
    assert soundfile.read(tmp_path / "a.wav")[0].tolist() == [1 - 2**-23, -1.0]


def test_wav_can_be_played_before_it_is_closed(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", RATE_HZ)
    writer.write(np.zeros(480, dtype=np.float32))
    writer.update()
    assert soundfile.info(tmp_path / "a.wav").frames == 480
    writer.close()


def test_beyond_4_gb_the_header_becomes_rf64(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", RATE_HZ)
    writer.frames = 2_000_000_000
    head = writer._header()
    assert head[:4] == b"RF64"
    assert struct.unpack("<QQQ", head[20:44]) == (6_000_000_072, 6_000_000_000, 2_000_000_000)
    writer.frames = 0
    writer.close()


def test_files_are_in_line_and_equally_long(tmp_path: Path, rng: np.random.Generator) -> None:
    """Output that is late by 100 samples, and speech by 30 at its own rate, begin where the input begins."""
    x = (0.1 * rng.standard_normal(10 * HOP_NATIVE)).astype(np.float32)
    late = np.concatenate([np.zeros(100, np.float32), x])[: len(x)]
    r = recorder(tmp_path / "r", skip=(100, 30))
    for i in range(0, len(x), HOP_NATIVE):
        r.write(hop(x[i : i + HOP_NATIVE], late[i : i + HOP_NATIVE]))
    r.close(frames=9000)
    sounds = {p.stem: soundfile.read(p)[0] for p in recorded_files(tmp_path / "r") if p.suffix == ".wav"}
    assert {name: len(s) for name, s in sounds.items()} == {
        "input": 9000, "output": 9000, "speech": 3000, "background": 3000,
    }  # fmt: skip
    np.testing.assert_allclose(sounds["output"], sounds["input"])
    np.testing.assert_allclose(sounds["speech"][:2900], x[::3][30:2930], atol=1e-6)
    tokens = read_svt(tmp_path / "r" / "tokens.svt")
    assert tokens.codes_s.shape == (3, 10)
    assert tokens.header.duration_s == 9000 / RATE_HZ


def test_words_are_in_both_the_captions_and_the_tokens(tmp_path: Path) -> None:
    r = recorder(tmp_path, captions=True)
    words = (Word("hello", 0.1, 0.4), Word("there", 0.5, 0.9))
    r.write(hop(np.zeros(HOP_NATIVE, np.float32)))
    r.caption(Caption(1.0, words, (Word("not", 1.0, 1.1),), 0.5, "en"))
    r.close()
    assert "hello there" in (tmp_path / "captions.srt").read_text()
    assert [w.text for w in read_svt(tmp_path / "tokens.svt").words] == ["hello", "there"]


def test_an_earlier_recording_is_not_overwritten(tmp_path: Path) -> None:
    recorder(tmp_path).close()
    with pytest.raises(UsageError, match="another folder"):
        recorder(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioFileError, match="another folder"):
        recorder(tmp_path / "file" / "r")


@pytest.mark.parametrize("there", [False, True])
def test_one_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    folder = tmp_path / "r"
    if there:
        folder.mkdir()
        (folder / "notes.txt").touch()

    def refused(path: Path, header: object) -> None:
        path.touch()
        raise TokenFileError(f"{path} cannot be written (No space left on device); make room")

    with monkeypatch.context() as patched:
        patched.setattr("engine.recorder.SvtWriter", refused)
        with pytest.raises(TokenFileError, match="make room"):
            recorder(folder)
    assert folder.exists() == there
    assert not there or [path.name for path in folder.iterdir()] == ["notes.txt"]
    recorder(folder).close()


def test_a_killed_run_leaves_all_but_its_last_second(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=Path(__file__).parent.parent)
    try:
        written, deadline = folder / "input.wav", time.monotonic() + 30
        while not (written.exists() and written.stat().st_size > 500_000) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = (written.stat().st_size - 80) / (3 * RATE_HZ)
    for path in recorded_files(folder):
        if path.suffix == ".wav":
            x, rate_hz = soundfile.read(path)
            assert there - 1.1 <= len(x) / rate_hz <= there + 0.1
            assert np.abs(x[: len(x) // 2]).min() > 0.1
    frames = read_svt(folder / "tokens.svt").codes_s.shape[1]
    assert frames * 0.02 >= there - 1.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are a thing of Unix")
def test_a_full_disk_is_told_and_what_was_written_plays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "a.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert "make room" in done.stdout
    x, _ = soundfile.read(tmp_path / "a.wav")
    assert len(x) > 3000 - 480
    np.testing.assert_allclose(x, 0.5)
