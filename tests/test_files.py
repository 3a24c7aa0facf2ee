"""Whole files: what comes out fits what went in, failures leave nothing, interruptions leave what was done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from engine import files
from engine.artefacts import Models, load_models
from engine.files import decode_file, encode_file, enhance, enhance_file
from engine.soundfiles import SoundReader, SoundWriter
from engine.token_reader import read_svt
from engine.token_writer import SvtWriter
from engine.tokens import SvtHeader
from engine.types import AudioFileError, Provider, SottovoceError, TokenFileError, UsageError
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    return load_models(Provider.CPU, folder)


def _sound(rng: np.random.Generator, n: int, channels: int = 1, level: float = 0.1) -> np.ndarray:
    return np.clip(level * rng.standard_normal((n, channels)), -0.8, 0.8)


def _write(path: Path, x: np.ndarray, rate: int, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, x, rate, subtype=subtype)
    return path


@pytest.fixture
def noisy(tmp_path: Path, rng: np.random.Generator) -> Path:
    return _write(tmp_path / "in.wav", _sound(rng, 24000), 16000)


# What comes out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "channels", "frames"),
    [(16000, 1, 1), (44100, 2, 1), (8000, 1, 8001), (96000, 6, 50000), (48000, 2, 48123), (11025, 1, 30000)],
)
@pytest.mark.parametrize("background", ["keep", "drop"])
def test_output_has_the_inputs_shape(
    models: Models, tmp_path: Path, rate: int, channels: int, frames: int, background: str, rng: np.random.Generator
) -> None:
    source = _write(tmp_path / "in.wav", _sound(rng, frames, channels), rate)
    report = enhance_file(source, tmp_path / "out.wav", background, models=models)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (rate, channels, frames, "PCM_24")
    assert report.duration_s == pytest.approx(frames / rate)
    before, after = (soundfile.read(tmp_path / name, always_2d=True)[0] for name in ("in.wav", "out.wav"))
    assert np.array_equal(before, after) == (background == "keep")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", "out.wav"]


def test_report_has_the_fields_of_the_contract(models: Models, tmp_path: Path, noisy: Path) -> None:
    codes = tiny_models.background_codes(models, np.random.default_rng(0).standard_normal(16000) * 0.1)
    report = enhance_file(noisy, tmp_path / "o.wav", "swap:rain@-6", models=models, scenes=lambda _: codes)
    told = json.loads(json.dumps(report.to_dict()))
    assert list(told) == [
        "input",
        "output",
        "duration_s",
        "sample_rate_hz",
        "background",
        "scene",
        "codec_id",
        "provider",
        "algorithmic_latency_ms",
        "real_time_factor",
        "warnings",
    ]
    assert (told["background"], told["scene"], told["provider"]) == ("swap:rain@-6", "rain", "cpu")
    assert told["codec_id"] == tiny_models.CODEC_ID
    assert told["algorithmic_latency_ms"] == pytest.approx(30.0)
    assert told["warnings"] == []


def test_channels_are_streams_of_their_own(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    x = _sound(rng, 20000, 2) * [1.0, 0.1]
    enhance_file(_write(tmp_path / "in.wav", x, 48000, "FLOAT"), tmp_path / "both.wav", models=models)
    both, _ = soundfile.read(tmp_path / "both.wav", dtype="float32")
    for channel in (0, 1):
        alone = enhance(x[:, channel].astype(np.float32), 48000, models=models)
        np.testing.assert_allclose(both[:, channel], alone, atol=1e-5)


def test_a_file_equals_the_same_sound_in_memory(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    x = _sound(rng, 100_000, 2).astype(np.float32)
    enhance_file(_write(tmp_path / "in.wav", x, 44100, "FLOAT"), tmp_path / "out.wav", "-6", models=models)
    y, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(y, enhance(x, 44100, "-6", models=models), atol=1e-5)
    assert enhance(x[:0], 44100, models=models).shape == (0, 2)


def test_sound_in_memory_is_checked(models: Models) -> None:
    for wrong in (np.zeros((2, 2, 2)), np.zeros((5, 9)), np.array([0.0, np.nan])):
        with pytest.raises(UsageError):
            enhance(wrong.astype(np.float32), 16000, models=models)


@pytest.mark.parametrize(
    ("name", "container", "subtype"),
    [
        ("o.flac", "FLAC", "PCM_24"),
        ("o.ogg", "OGG", "VORBIS"),
        ("o.mp3", "MP3", "MPEG_LAYER_III"),
        ("o.aiff", "AIFF", "PCM_24"),
        ("o.WAV", "WAV", "PCM_24"),
    ],
)
def test_the_extension_chooses_the_format(
    models: Models, tmp_path: Path, noisy: Path, name: str, container: str, subtype: str
) -> None:
    enhance_file(noisy, tmp_path / name, models=models)
    info = soundfile.info(tmp_path / name)
    assert (info.format, info.subtype, info.frames) == (container, subtype, 24000)


def test_float_sources_become_float(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    source = _write(tmp_path / "in.wav", _sound(rng, 5000), 16000, "FLOAT")
    enhance_file(source, tmp_path / "o.wav", "keep", models=models)
    assert soundfile.info(tmp_path / "o.wav").subtype == "FLOAT"
    assert np.array_equal(soundfile.read(source)[0], soundfile.read(tmp_path / "o.wav")[0])


def _write_m4a(path: Path, x: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(x.astype(np.float32).T.copy(), format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_what_libsndfile_cannot_read_goes_through_ffmpeg(
    models: Models, tmp_path: Path, rng: np.random.Generator
) -> None:
    t = np.arange(44100 * 2) / 44100
    x = 0.3 * np.sin(2 * np.pi * 440 * t)[:, None] + _sound(rng, len(t), level=0.01)
    _write_m4a(tmp_path / "in.m4a", x, 44100)
    with SoundReader(tmp_path / "in.m4a") as reader:
        heard = np.concatenate(list(reader.blocks()))
    assert heard.shape[1] == 1
    assert abs(len(heard) - len(x)) <= 2048
    report = enhance_file(tmp_path / "in.m4a", tmp_path / "o.wav", "keep", models=models)
    y, rate = soundfile.read(tmp_path / "o.wav", dtype="float32")
    assert (rate, len(y)) == (44100, len(heard))
    assert np.array_equal(y, heard[:, 0])
    assert report.sample_rate_hz == 44100


def test_long_outputs_get_a_header_that_can_hold_them(tmp_path: Path) -> None:
    writer = SoundWriter(tmp_path / "long.wav", 96000, 8, frames=200_000_000)
    writer.write(np.zeros((10, 8), np.float32))
    writer.finish()
    assert soundfile.info(tmp_path / "long.wav").format == "RF64"


def test_progress_is_told(models: Models, tmp_path: Path, noisy: Path) -> None:
    told: list[tuple[float, float | None]] = []
    enhance_file(noisy, tmp_path / "o.wav", models=models, progress=lambda *a: told.append(a))
    assert told[-1] == (pytest.approx(1.5), pytest.approx(1.5))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# What cannot be done -------------------------------------------------------------------------------------------------


def _fails(source: Path, target: Path, models: Models, kind: type[SottovoceError], words: str) -> None:
    """enhance_file and encode_file fail with one line, and leave no file that was not there."""
    before = sorted(p for p in target.parent.iterdir()) if target.parent.is_dir() else []
    for work in (enhance_file, encode_file):
        with pytest.raises(kind, match=words) as failure:
            work(source, target, models=models)
        assert "\n" not in str(failure.value)
    if target.parent.is_dir():
        assert sorted(p for p in target.parent.iterdir()) == before


def test_sources_that_hold_no_sound_are_refused(models: Models, tmp_path: Path) -> None:
    target = tmp_path / "o.wav"
    _fails(tmp_path / "none.wav", target, models, AudioFileError, "does not exist")
    _fails(tmp_path, target, models, AudioFileError, "is a folder")
    (tmp_path / "empty.wav").touch()
    _fails(tmp_path / "empty.wav", target, models, AudioFileError, "is empty")
    (tmp_path / "text.wav").write_text("These are words, and no sound at all.\n" * 200)
    _fails(tmp_path / "text.wav", target, models, AudioFileError, "not a sound file")
    (tmp_path / "text.raw").write_text("words\n" * 200)
    _fails(tmp_path / "text.raw", target, models, AudioFileError, "not a sound file")
    _write(tmp_path / "nothing.wav", np.zeros((0, 1)), 16000)
    _fails(tmp_path / "nothing.wav", target, models, AudioFileError, "holds no sound")
    _write(tmp_path / "nine.wav", np.zeros((10, 9)), 16000)
    _fails(tmp_path / "nine.wav", target, models, AudioFileError, "9 channels")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(
    models: Models, tmp_path: Path, bad: float, rng: np.random.Generator
) -> None:
    x = _sound(rng, 48000)
    x[40000] = bad
    source = _write(tmp_path / "bad.wav", x, 16000, "FLOAT")
    _fails(source, tmp_path / "o.wav", models, AudioFileError, r"no finite number at 2\.500 s")


def test_targets_that_must_not_be_written_are_refused(models: Models, tmp_path: Path, noisy: Path) -> None:
    _fails(noisy, noisy, models, UsageError, "is the input itself")
    (tmp_path / "link.wav").symlink_to(noisy)
    _fails(noisy, tmp_path / "link.wav", models, UsageError, "is the input itself")
    taken = _write(tmp_path / "taken.wav", np.zeros((5, 1)), 16000)
    _fails(noisy, taken, models, UsageError, "--force")
    assert soundfile.info(taken).frames == 5
    _fails(noisy, tmp_path / "no" / "o.wav", models, AudioFileError, "make it first")
    (tmp_path / "dir.wav").mkdir()
    _fails(noisy, tmp_path / "dir.wav", models, UsageError, "is a folder")
    with pytest.raises(UsageError, match="extension"):
        enhance_file(noisy, tmp_path / "o.xyz", models=models)
    enhance_file(noisy, taken, models=models, force=True)
    assert soundfile.info(taken).frames == 24000


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_written_is_told(models: Models, noisy: Path) -> None:
    if not os.path.isdir("/proc/self"):
        pytest.skip("no /proc")
    with pytest.raises(AudioFileError, match="cannot be written"):
        enhance_file(noisy, "/proc/self/o.wav", models=models)


def test_a_format_that_cannot_hold_it_is_told(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    source = _write(tmp_path / "six.wav", _sound(rng, 9600, 6), 96000)
    with pytest.raises(AudioFileError, match=r"write \.wav instead"):
        enhance_file(source, tmp_path / "o.mp3", models=models)
    assert not list(tmp_path.glob("*o*.mp3"))
    assert not list(tmp_path.glob(".*"))


def test_an_unknown_scene_is_refused_before_anything_is_written(models: Models, tmp_path: Path, noisy: Path) -> None:
    with pytest.raises(UsageError, match="no scene 'nowhere'"):
        enhance_file(noisy, tmp_path / "o.wav", "swap:nowhere", models=models)
    assert not (tmp_path / "o.wav").exists()


# RLIMIT_FSIZE makes writes fail part of the way, as a full disk does.
FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from engine.artefacts import load_models
    from engine.files import encode_file, enhance_file
    from engine.types import SottovoceError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    models = load_models("cpu", sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
    work = encode_file if sys.argv[3].endswith(".svt") else enhance_file
    try:
        work(sys.argv[2], sys.argv[3], models=models)
    except SottovoceError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize(("name", "room"), [("o.wav", 50_000), ("o.wav", 10), ("o.flac", 20_000), ("o.svt", 4000)])
def test_a_full_disk_leaves_nothing(
    folder: Path, tmp_path: Path, noisy: Path, checkout: Path, name: str, room: int
) -> None:
    target = tmp_path / name
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(folder), str(noisy), str(target), str(room)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "room" in done.stdout
    assert str(target) in done.stdout
    assert done.stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


def test_an_interruption_keeps_what_was_done(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    x = _sound(rng, 16000 * 5)
    source = _write(tmp_path / "in.wav", x, 16000)

    def interrupt(done_s: float, _: float | None) -> None:
        if done_s > 2.5:
            raise KeyboardInterrupt

    for work, name in ((enhance_file, "o.wav"), (encode_file, "o.svt")):
        with pytest.raises(KeyboardInterrupt):
            work(source, tmp_path / name, models=models, progress=interrupt)
    y, _ = soundfile.read(tmp_path / "o.wav")
    assert 2.5 < len(y) / 16000 < 4.0
    assert np.abs(y).max() > 0.05
    tokens = read_svt(tmp_path / "o.svt")
    assert tokens.warning is None
    assert 2.5 < tokens.header.duration_s < 4.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", "o.svt", "o.wav"]


def test_a_file_shorter_than_it_says_is_a_warning(models: Models, tmp_path: Path, noisy: Path) -> None:
    flac = tmp_path / "in.flac"
    soundfile.write(flac, np.tile(soundfile.read(noisy)[0], 40), 16000)
    content = flac.read_bytes()
    flac.write_bytes(content[: len(content) // 2])
    report = enhance_file(flac, tmp_path / "o.wav", models=models)
    assert "ends early" in report.warnings[0]
    assert 0 < soundfile.info(tmp_path / "o.wav").frames < 16000 * 40


# Memory --------------------------------------------------------------------------------------------------------------

MEMORY = """
    import sys
    import numpy as np
    import soundfile
    from engine.artefacts import load_models
    from engine.files import enhance_file

    seconds, source, target = int(sys.argv[2]), sys.argv[3], sys.argv[4]
    with soundfile.SoundFile(source, "w", 48000, 2, "PCM_16") as sound:
        for _ in range(seconds):
            sound.write((0.1 * np.random.default_rng(0).standard_normal((48000, 2))).astype("float32"))
    enhance_file(source, target, models=load_models("cpu", sys.argv[1]))
    with open("/proc/self/status") as status:  # getrusage would tell the peak of the process that started us too
        print(int(status.read().partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own count")
def test_memory_does_not_grow_with_the_file(folder: Path, tmp_path: Path, checkout: Path) -> None:
    peaks = []
    for seconds in (5, 60):
        args = [str(folder), str(seconds), str(tmp_path / f"{seconds}.wav"), str(tmp_path / f"{seconds}-out.wav")]
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), *args]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(done.stdout))
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 25


# Tokens --------------------------------------------------------------------------------------------------------------


def test_tokens_round_trip_through_files(models: Models, tmp_path: Path, rng: np.random.Generator) -> None:
    x = np.repeat(_sound(rng, 3200, 2, 0.2), 10, axis=0)  # held for 10 samples, as the tiny tokens hold them
    source = _write(tmp_path / "in.wav", x, 16000, "FLOAT")
    report = encode_file(source, tmp_path / "a.svt", models=models)
    assert (report.channels, report.sample_rate_hz) == (2, 16000)
    assert report.bits_per_second == pytest.approx((65 + 33) * 6 * 50)
    decoded = decode_file(tmp_path / "a.svt", tmp_path / "o.wav", models=models)
    y, rate = soundfile.read(tmp_path / "o.wav")
    assert (rate, y.shape) == (16000, x.shape)
    assert np.abs(y - x).mean() < 0.02 * np.abs(x).mean() + 0.01
    assert decoded.warnings == ()


def test_decoded_tokens_are_the_tokens_only_output(models: Models, tmp_path: Path, noisy: Path) -> None:
    encode_file(noisy, tmp_path / "a.svt", models=models)
    for background in ("keep", "drop", "-12"):
        decode_file(tmp_path / "a.svt", tmp_path / "a.wav", background, models=models, force=True)
        enhance_file(noisy, tmp_path / "b.wav", background, tokens_only=True, models=models, force=True)
        a, b = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_fewer_quantizers_make_a_smaller_file(models: Models, tmp_path: Path, noisy: Path) -> None:
    sizes = []
    for quantizers in (1, 2):
        path = tmp_path / f"{quantizers}.svt"
        encode_file(noisy, path, quantizers=quantizers, models=models)
        decode_file(path, path.with_suffix(".wav"), models=models)
        sizes.append(path.stat().st_size)
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_tokens_decode_with_one_warning(models: Models, tmp_path: Path, noisy: Path, damage: str) -> None:
    path = tmp_path / "a.svt"
    encode_file(noisy, path, models=models)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 3 // 4]
    else:
        content[len(content) // 2] ^= 8
    path.write_bytes(content)
    report = decode_file(path, tmp_path / "o.wav", models=models)
    assert len(report.warnings) == 1
    assert "lost" in report.warnings[0]
    y, _ = soundfile.read(tmp_path / "o.wav")
    assert len(y) == 24000
    assert np.abs(y).max() > 0.05
    assert (np.abs(y.reshape(-1, 800)).max(axis=1) == 0).any(), "what was lost is silence"


def test_tokens_of_another_codec_are_refused_by_name(models: Models, tmp_path: Path) -> None:
    header = SvtHeader("f00d" * 16, 16000, 320, (64,), (64,), 1, 1)
    with SvtWriter(tmp_path / "a.svt", header) as writer:
        writer.write(np.zeros(1), np.zeros(1))
    with pytest.raises(TokenFileError, match="f00d" * 16):
        decode_file(tmp_path / "a.svt", tmp_path / "o.wav", models=models)
    (tmp_path / "b.svt").write_text("no tokens")
    with pytest.raises(TokenFileError, match="not a token file"):
        decode_file(tmp_path / "b.svt", tmp_path / "o.wav", models=models)
    assert not (tmp_path / "o.wav").exists()


def test_a_scene_plays_in_decoded_tokens(models: Models, tmp_path: Path, noisy: Path, rng: np.random.Generator) -> None:
    codes = tiny_models.background_codes(models, _sound(rng, 16000)[:, 0])
    encode_file(noisy, tmp_path / "a.svt", models=models)
    for background in ("drop", "swap:x"):
        name = tmp_path / f"{background[:4]}.wav"
        decode_file(tmp_path / "a.svt", name, background, models=models, scenes=lambda _: codes)
    dropped, swapped = (soundfile.read(tmp_path / name)[0] for name in ("drop.wav", "swap.wav"))
    assert 0.2 < (swapped - dropped).std() / 0.025 < 1.5


def test_public_names_are_there() -> None:
    import engine

    assert engine.enhance is files.enhance
    assert set(engine.__all__) >= {"enhance", "enhance_file", "encode_file", "decode_file", "Engine", "Stream"}
    with pytest.raises(AttributeError):
        _ = engine.nothing
