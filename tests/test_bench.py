"""The benchmarks: what they count, not how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app import bench, cli
from app.startbench import first_sound_s
from engine.artefacts import shared_models
from engine.delays import gaps
from engine.livebench import load_figures
from engine.types import SottovoceError
from tests import tiny_models
from tests.live_run import noise


def test_peak_memory_grows_by_what_is_used() -> None:
    before = bench.own_peak_mb()
    held = np.ones(int((before + 50) * 1e6 / 8))
    assert bench.own_peak_mb() > before + 20
    del held


@pytest.mark.parametrize("seconds", [0.5, 2.25])
def test_the_long_file_has_its_length(seconds: float, tmp_path: Path) -> None:
    bench.write_long_wav(tmp_path / "a.wav", seconds)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.duration) == (48_000, seconds)


def test_figures_are_shown_by_name_and_depth() -> None:
    shown = bench.lines({"speed": {"real_time_factor": 0.123456, "runs": [0.1, 0.2]}, "rows": [{"a": 1, "b": 2.5}]})
    assert [" ".join(line.split()) for line in shown] == [
        *("speed", "real time factor 0.1235", "runs 0.1, 0.2", "rows", "a 1, b 2.5"),
    ]
    assert shown[1].startswith("  ")


def test_a_list_of_sentences_has_a_line_for_each() -> None:
    told = ["1 at 2.0 s: " + "a " * 30, "2 at 3.0 s: " + "b " * 30]
    assert [line.strip() for line in bench.lines({"why": told, "short": ["a", "b"]})] == [
        *("why", *(text.strip() for text in told)),
        f"{'short':<26} a, b",
    ]


def test_a_child_that_fails_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tmp_path))
    with pytest.raises(SottovoceError, match=r"manifest\.toml is missing") as failure:
        bench.run_child("codec", "1", "cpu")
    assert not str(failure.value).startswith("sottovoce")


def test_speed_and_memory_come_with_machine_and_artefacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tiny_models.build(tmp_path / "assets")))
    shared_models.cache_clear()
    assert cli.run(["bench", "codec", "--seconds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    shared_models.cache_clear()
    assert figures["machine"]["cores"] >= 1
    assert figures["artefacts"]["codec_id"] == tiny_models.CODEC_ID[:16]
    codec = figures["codec"]
    assert len(codec["real_time_factor_runs"]) == 3
    assert sorted(codec["real_time_factor_runs"])[1] == codec["real_time_factor"] > 0
    assert [row["seconds"] for row in figures["memory"]] == [10.0, 1.0]
    assert all(30 < row["peak_memory_mb"] < 400 for row in figures["memory"])


NAMED = {
    "delay_ms_median", "delay_ms_p99", "path_ms_median", "path_ms_p99", "algorithmic_latency_ms", "hop_ms_median",
    "hop_ms_p99", "hop_ms_max", "dropouts", "cpu_percent_sound", "cpu_percent_captions", "rss_mb", "provider",
}  # fmt: skip


def test_a_live_run_is_measured_through_the_virtual_microphone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tiny_models.build(tmp_path / "assets")))
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without Whisper
    monkeypatch.setattr("engine.livebench.stimulus", noise)
    shared_models.cache_clear()
    assert cli.run(["bench", "live", "--seconds", "3", "--block-ms", "10", "--json"]) == 0
    live = json.loads(capsys.readouterr().out)["live"]
    shared_models.cache_clear()
    assert live.keys() >= NAMED
    assert (live["block_ms"], live["captions"], live["provider"]) == (10.0, False, "cpu")
    assert live["windows"] >= 4
    assert 0 < live["direct_ms_median"] < live["delay_ms_median"] <= live["delay_ms_p99"]
    assert live["path_ms_median"] == live["delay_ms_median"] - live["direct_ms_median"]
    assert live["path_ms_median"] > live["algorithmic_latency_ms"]  # no sound comes before its hop is full


@pytest.mark.parametrize("arguments", [["live", "--block-ms", "0"], ["codec", "--block-ms", "10"]])
def test_a_block_is_for_live_and_has_a_length(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *arguments]) == 2
    assert "--block-ms is for `bench live`, and from 1 to 50" in capsys.readouterr().err


def test_gaps_are_counted_between_the_first_sound_and_the_last() -> None:
    x = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    x[:4800] = x[-4800:] = 0.0
    assert gaps(x) == 0
    x[10_000:10_040] = 0.0  # shorter than a millisecond
    x[20_000:20_240] = 0.0
    x[30_000:33_000] = 0.0
    assert gaps(x) == 2


@pytest.mark.parametrize(
    ("after_ms", "back_s"),
    [([100.0] * 8, 0.0), ([150.0, 120.0, 101.0, 100.0], 1.0), ([150.0] * 4, None)],
    ids=["at once", "later", "never"],
)
def test_when_the_delay_is_back_is_read_from_its_last_high_value(after_ms: list[float], back_s: float | None) -> None:
    delays = [(0.5 * k, 100.0) for k in range(20)] + [(10.0 + 0.5 * k, 180.0) for k in range(10)]
    delays += [(15.0 + 0.5 * k, delay) for k, delay in enumerate(after_ms)]
    figures = load_figures(delays, 10.0, 15.0)
    assert figures["delay_ms_before"] == 100.0
    assert figures["delay_ms_under_load_max"] == 180.0
    assert figures["back_s"] == back_s


def test_the_first_sound_is_where_the_output_first_is_loud() -> None:
    both = np.full((48_000, 2), 0.1, np.float32)
    both[:12_000, 1] = 1e-6
    assert first_sound_s(both) == 0.25
    with pytest.raises(SottovoceError, match="no sound"):
        first_sound_s(np.zeros((480, 2), np.float32))
