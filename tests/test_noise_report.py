"""`sottovoce residue`: stretches of a kind, tokens on one clock, the picture, and what is said when it cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app import cli, commands_noise
from app.commands_noise import Stretch, stretches
from app.noise_report import NoiseReport, build_noise_figure, draw_noise_report
from engine import noise_files
from engine.artefacts import shared_models
from engine.mix import active_rms
from engine.paths import assets_dir
from engine.residue import Cloud
from engine.scenes import list_scenes
from engine.types import AudioFileError, Provider, Residue


def event(time_s: float, kind: str = "rain", confidence: float = 0.5, codes: tuple[int, ...] = (7,) * 25) -> Residue:
    return Residue(time_s, kind, confidence, (-2.0,) * len(codes), codes, (0.1, 0.2))


def test_events_of_a_kind_in_a_row_are_one_stretch() -> None:
    events = [event(1.0), event(2.0, confidence=0.7), event(3.0, "wind", 0.9), event(4.0), event(9.0)]
    assert stretches(events) == [
        Stretch(0.0, 2.0, "rain", pytest.approx(0.6)),
        Stretch(2.0, 3.0, "wind", 0.9),
        Stretch(3.0, 4.0, "rain", 0.5),
        Stretch(8.0, 9.0, "rain", 0.5),
    ]
    assert stretches([]) == []


def test_tokens_lie_where_they_were_heard() -> None:
    codes = commands_noise._codes([event(1.0, codes=(1,) * 25), event(3.0, codes=(2,) * 30)])
    assert len(codes) == 75
    assert codes[:25].tolist() == [1] * 25
    assert codes[25:45].tolist() == [-1] * 20
    assert codes[45:].tolist() == [2] * 30


def report(events: tuple[Residue, ...], distances: dict[str, np.ndarray]) -> NoiseReport:
    cloud = Cloud((0.0, 1.0), ((1.0, 0.2), (0.2, 0.5)))
    sound = np.sin(np.arange(48_000) / 9).astype(np.float32)
    return NoiseReport("x.wav", 16_000, sound, events, ("clean", "rain"), {"rain": cloud}, distances)


def test_the_picture_shows_kinds_residue_and_distances(tmp_path: Path) -> None:
    shown = report((event(1.0), event(2.0, "clean")), {"Rain": np.full(60, 0.5), "Street": np.full(75, np.nan)})
    figure = build_noise_figure(shown)
    axes = {axis.get_ylabel().split()[0]: axis for part in figure.subfigs for axis in part.axes if axis.get_ylabel()}
    bars = [(bar.get_x(), bar.get_y()) for bar in axes["noise"].patches]
    assert bars == [(0.0, pytest.approx(0.6)), (1.0, pytest.approx(-0.4))]
    picture = axes["tokens"].images[0].get_array()
    assert picture.shape == (2, 75)
    assert np.nanmax(np.asarray(picture.filled(np.nan))) == 0.5
    draw_noise_report(shown, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_picture_of_nothing_is_drawn_and_one_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    draw_noise_report(report((), {}), tmp_path / "x.png")
    with pytest.raises(AudioFileError, match="cannot be written"):
        draw_noise_report(report((), {}), tmp_path / "none" / "x.png")


def test_an_interruption_while_it_is_drawn_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_noise_report(report((event(1.0),), {}), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(32_000), 16_000)
    return path


def test_what_was_found_is_printed(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise_files, "residue_of", lambda sound, progress=None: [event(1.0), event(2.0, "wind", 0.9)])
    assert cli.run(["residue", str(source)]) == 0
    assert capsys.readouterr().out == "[0:00.0 to 0:01.0] rain, 50 % sure\n[0:01.0 to 0:02.0] wind, 90 % sure\n"
    assert cli.run(["residue", str(source), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["noise_class"] for row in told["events"]] == ["rain", "wind"]
    assert told["stretches"][1]["end_s"] == 2.0


@pytest.mark.parametrize("found", [0, 2])
def test_an_interruption_tells_what_was_found_and_nothing_of_the_file(
    found: int, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def residue_of(*_: object) -> Iterator[Residue]:
        yield from [event(1.0), event(2.0)][:found]
        raise KeyboardInterrupt

    monkeypatch.setattr(noise_files, "residue_of", residue_of)
    assert cli.run(["residue", str(source), "--report", str(source.parent / "x.png")]) == 130
    out, err = capsys.readouterr()
    assert out == ("[0:00.0 to 0:02.0] rain, 50 % sure\n" if found else "")
    assert "ends early" not in err and "silent" not in err
    assert not (source.parent / "x.png").exists()


@pytest.mark.parametrize("name", ["none/x.png", "in.wav", "kept.png"])
def test_a_report_that_cannot_be_is_told_before_the_work_and_nothing_is_lost(
    name: str, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise_files, "residue_of", lambda *_: pytest.fail("it listened"))
    (source.parent / "kept.png").write_bytes(b"mine")
    before = source.read_bytes()
    assert cli.run(["residue", str(source), "--report", str(source.parent / name)]) in (1, 2)
    assert name.split("/")[0] in capsys.readouterr().err
    assert source.read_bytes() == before
    assert (source.parent / "kept.png").read_bytes() == b"mine"


def heard(sound: Iterable[np.ndarray], progress: object = None) -> Iterator[Residue]:
    """Events whose codes follow the sound: what is added to it changes them."""
    whole = np.concatenate(list(sound))
    for end in range(16_000, len(whole) + 1, 16_000):
        tokens = whole[end - 16_000 : end].reshape(25, 640)
        yield event(end / 16_000, codes=tuple((np.abs(tokens).sum(1) * 1000).astype(int) % 1024))


def test_a_report_shows_how_far_tokens_lie_in_every_shipped_place(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[NoiseReport] = []
    monkeypatch.setattr(noise_files, "residue_of", heard)
    monkeypatch.setattr("app.noise_report.draw_noise_report", lambda told, path: drawn.append(told))
    picture = source.parent / "out.png"
    assert cli.run(["residue", str(source), "--report", str(picture)]) == 0
    (told,) = drawn
    assert {scene.title for scene in list_scenes()} == set(told.distances)
    assert all(len(row) == 50 and 0 < row.mean() <= 2 for row in told.distances.values())
    assert len(told.sound) == 32_000
    assert len(told.events) == 2
    assert f"wrote {picture}" in capsys.readouterr().err


@pytest.mark.weights
def test_a_report_of_the_shipped_recording_is_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, rate_hz = soundfile.read(assets_dir() / "demo.ogg", frames=4 * 48_000)
    soundfile.write(tmp_path / "in.wav", sound, rate_hz)
    assert cli.run(["residue", str(tmp_path / "in.wav"), "--report", str(tmp_path / "out.png")]) == 0
    assert "% sure" in capsys.readouterr().out
    assert (tmp_path / "out.png").stat().st_size > 50_000


def test_a_voice_is_put_in_a_place_at_its_level() -> None:
    models = shared_models(Provider.CPU)
    voice = np.sin(np.arange(32_000) / 9).astype(np.float32) * 0.1
    for snr_db in (0.0, 10.0):
        noise = noise_files.placed(voice, "rain", models, snr_db) - voice
        level_db = 20 * np.log10(active_rms(voice) / np.sqrt(np.square(noise).mean()))
        assert level_db == pytest.approx(snr_db, abs=0.2)
