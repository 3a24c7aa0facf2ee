"""The command line as people use it: exit statuses, one line per failure, and what is left on the disk afterwards.

Most runs are in this process, over tiny networks; those about processes (signals, limits, start-up) are real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from app import cli
from engine.captions import write_captions
from engine.types import SottovoceError, Word
from tests import tiny_models
from tests.command_line import (
    COMMANDS,
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

# Start-up and help ----------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_that_are_there_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out, err = capsys.readouterr()
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == COMMANDS
    assert err == ""


@pytest.mark.parametrize("command", ["listen", "ctl", "no-such"])
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
        model: str = "base",
        codec_id: str | None = None,
        adapter: bool = False,
    ) -> None:
        for piece in sound:
            heard.append(piece[0] if codec_id else piece)
            progress(sum(map(len, heard)) / RATE_HZ)
        words.extend(WORDS)
        found("en")
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr("engine.recognizer.recognise_file", recognise)
    return heard


@pytest.mark.parametrize("tap", ["raw", "enhanced", "tokens", None])
def test_standard_output_holds_captions_alone(
    tap: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --from it is the enhanced sound."""
    heard = fake_recogniser(monkeypatch)
    sound = noise(2.0, 48_000, 2)
    write("in.wav", sound, 48_000)
    assert cli.run(["caption", "in.wav", *(["--from", tap] if tap else [])]) == 0
    out, err = capsys.readouterr()
    assert out == "1\n00:00:00,500 --> 00:00:01,200\nGood morning.\n\n"
    if tap == "tokens":  # these artefacts hold no bridge
        assert "what they decode to is heard instead" in err
    else:
        assert err == ""
    whole = np.concatenate(heard)
    assert len(whole) == 2 * RATE_HZ
    share = np.std(whole) / np.std(sound.mean(axis=1))
    if tap == "raw":
        assert share > 0.5  # a third of the noise's band is left at 16 kHz
    else:
        assert 0.1 < share < 0.55  # part of it is taken away


LANGUAGES = [([], "en"), (["--language", "cs"], "cs"), (["--language", "auto"], None)]


@pytest.mark.parametrize(("options", "asked"), LANGUAGES)
def test_the_language_is_given_or_told_from_the_sound(
    options: list[str], asked: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    languages: list[str | None] = []

    def recognise(_: object, language: str | None, *, found: Callable[[str], None], **__: object) -> None:
        languages.append(language)
        found(language or "nl")

    monkeypatch.setattr("engine.recognizer.recognise_file", recognise)
    write("in.wav", noise(0.5, RATE_HZ, 1), RATE_HZ)
    assert cli.run(["caption", "in.wav", "out.json", *options]) == 0
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["language"] == (asked or "nl")
    assert languages == [asked]


def test_where_there_is_a_bridge_the_recogniser_is_given_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[np.ndarray, np.ndarray]] = []
    asked: list[str | None] = []

    def recognise(
        sound: Iterator[tuple[np.ndarray, np.ndarray]], *_: object, codec_id: str | None, **__: object
    ) -> None:
        given.extend(sound)
        asked.append(codec_id)

    monkeypatch.setattr("engine.recognizer.recognise_file", recognise)
    monkeypatch.setattr("engine.token_words.has_bridge", lambda: True)
    write("in.wav", noise(1.0, 48_000, 2), 48_000)
    assert cli.run(["caption", "in.wav", "--from", "tokens"]) == 0
    assert capsys.readouterr().err == ""
    assert asked == [tiny_models.CODEC_ID]
    assert sum(codes.shape[1] for _, codes in given) == 51  # and what is late of the last
    assert all(len(voice) == tiny_models.HOP * codes.shape[1] for voice, codes in given)


@pytest.mark.parametrize("tap", ["raw", "enhanced", "tokens"])
@pytest.mark.parametrize("adapter", [False, True])
def test_words_come_through_the_quantiser_where_that_is_asked_for(
    tap: str, adapter: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("engine.recognizer.recognise_file", lambda *_, adapter, **__: asked.append(adapter))
    write("in.wav", noise(0.5, RATE_HZ, 1), RATE_HZ)
    assert cli.run(["caption", "in.wav", "--from", tap, *(["--adapter"] if adapter else [])]) == 0
    assert asked == [adapter]


def test_the_quantiser_is_for_one_whisper_and_for_captions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("in.wav", noise(0.5, RATE_HZ, 1), RATE_HZ)
    assert cli.run(["caption", "in.wav", "--whisper", "small", "--adapter"]) == 2
    assert "leave --adapter out" in capsys.readouterr().err
    assert cli.run(["live", "--adapter", "--seconds", "1"]) == 2
    assert "--captions" in capsys.readouterr().err


def test_a_recording_is_captioned_by_the_whisper_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("engine.recognizer.recognise_file", lambda *_, model, **__: asked.append(model))
    monkeypatch.setattr("engine.token_words.has_bridge", lambda: True)
    write("in.wav", noise(0.5))
    assert cli.run(["caption", "in.wav"]) == 0
    assert cli.run(["caption", "in.wav", "--whisper", "small"]) == 0
    assert asked == ["base", "small"]
    capsys.readouterr()
    assert cli.run(["caption", "in.wav", "--from", "tokens", "--whisper", "small"]) == 0
    assert asked[-1] == "small"
    assert "no bridge leads from tokens to Whisper small" in capsys.readouterr().err


@pytest.mark.parametrize("bridge", [True, False])
def test_a_token_file_is_captioned_from_its_tokens(
    bridge: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = fake_recogniser(monkeypatch)
    monkeypatch.setattr("engine.token_words.has_bridge", lambda: bridge)
    write("in.wav", noise(2.0))
    assert cli.run(["encode", "in.wav", "in.svt"]) == 0
    told(capsys)
    assert cli.run(["caption", "in.svt"]) == 2
    assert "add --from tokens" in told(capsys)
    assert cli.run(["caption", "in.svt", "--from", "tokens"]) == 0
    out, err = capsys.readouterr()
    assert "Good morning." in out
    assert ("what they decode to is heard instead" in err) != bridge
    assert 2.0 <= sum(map(len, heard)) / RATE_HZ < 2.1


def test_a_token_file_is_known_by_any_name_and_its_other_channels_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_recogniser(monkeypatch)
    write("in.wav", noise(1.0, RATE_HZ, 2), RATE_HZ)
    assert cli.run(["encode", "in.wav", "in.tok"]) == 0
    told(capsys)
    assert cli.run(["caption", "in.tok", "--from", "tokens"]) == 0
    assert "has 2 channels, and words are written from the tokens of the first alone" in capsys.readouterr().err
    for command in (["enhance", "in.tok", "out.wav"], ["residue", "in.tok"]):
        assert cli.run(command) == 1
        assert "make sound of them with sottovoce decode" in told(capsys)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(("command", "name"), [("enhance", "out.wav"), ("encode", "out.svt"), ("caption", "out.srt")])
def test_what_is_no_plain_file_is_never_replaced(
    command: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Devices, too, which a test had better not try."""
    write("in.wav", noise(0.5))
    os.mkfifo(name)
    assert cli.run([command, "in.wav", name, "--force"]) == 2
    assert f"{name} is no plain file" in told(capsys)
    assert Path(name).is_fifo()
    with pytest.raises(SottovoceError, match="no plain file"):
        write_captions(WORDS, name, "srt")


def plain_files_alone(opened: Callable[..., Any]) -> Callable[..., Any]:
    def checked(path: Path, *args: Any, **named: Any) -> Any:
        assert not path.is_fifo(), "opened before it is read"
        return opened(path, *args, **named)

    return checked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_sound_may_come_through_a_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be read once, and by nobody else, or who writes into it is done before it is read."""
    heard = fake_recogniser(monkeypatch)
    monkeypatch.setattr(Path, "open", plain_files_alone(Path.open))
    write("in.wav", noise(1.0))
    os.mkfifo("pipe")
    writer = subprocess.Popen(["cat in.wav > pipe"], shell=True)
    try:
        assert cli.run(["caption", "pipe", "--from", "raw"]) == 0
    finally:
        writer.kill()
        writer.wait()
    assert sum(map(len, heard)) == RATE_HZ


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
    assert cli.run(["caption", "in.wav", "out.json", "--language", "auto"]) == 130
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["language"] == "en"
    assert "Traceback" not in capsys.readouterr().err
