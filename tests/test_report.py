"""The demo's picture: what its panels hold, and that they share one clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.report import Report, build_figure, draw_report, error_db, spectrogram_db
from engine.types import AudioFileError, Word

RATE_HZ, HOP = 16_000, 320


def report(seconds: float = 2.0, words: tuple[Word, ...] = ()) -> Report:
    generator = np.random.default_rng(0)
    sound = (0.1 * generator.standard_normal(int(seconds * RATE_HZ))).astype(np.float32)
    frames = -(-len(sound) // HOP)
    codes = generator.integers(0, 1024, (36, frames)).astype(np.int16)
    codes[20:] = -1
    return Report(
        "a test", RATE_HZ, HOP / RATE_HZ, sound, 0.5 * sound, codes, codes, error_db(sound, 0 * sound, HOP), words
    )


def test_a_full_scale_tone_is_at_its_frequency_and_at_0_db() -> None:
    times = np.arange(RATE_HZ) / RATE_HZ
    levels, step_s = spectrogram_db(np.sin(2 * np.pi * 1000 * times).astype(np.float32), RATE_HZ)
    column = levels[:, int(0.5 / step_s)]
    assert np.argmax(column) * RATE_HZ / (2 * (len(column) - 1)) == pytest.approx(1000, abs=32)
    assert column.max() == pytest.approx(0.0, abs=0.5)


def test_a_long_recording_is_thinned() -> None:
    levels, step_s = spectrogram_db(np.zeros(RATE_HZ * 300, np.float32), RATE_HZ)
    assert levels.shape[1] <= 4000
    assert levels.shape[1] * step_s == pytest.approx(300, rel=0.01)


def test_error_is_0_db_for_silence_and_minus_20_db_for_a_tenth() -> None:
    sound = np.ones(3 * HOP, np.float32)
    assert error_db(sound, 0 * sound, HOP) == pytest.approx([0.0] * 3)
    assert error_db(sound, 0.9 * sound, HOP) == pytest.approx([-20.0] * 3, abs=0.01)


def test_all_panels_share_one_time_axis_and_words_stand_at_their_times() -> None:
    words = (Word("hello", 0.5, 0.8), Word("world", 1.2, 1.6))
    figure = build_figure(report(2.0, words))
    assert len(figure.axes) == 6
    assert {axis.get_xlim() for axis in figure.axes} == {(0.0, 2.0)}
    assert [(t.get_text(), t.get_position()[0]) for t in figure.axes[5].texts] == [("hello", 0.5), ("world", 1.2)]
    for axis in figure.axes[2:4]:
        assert axis.images[0].get_extent()[:2] == pytest.approx([0.0, 2.0])


def test_words_that_would_overlap_go_to_another_row() -> None:
    figure = build_figure(report(2.0, (Word("unmistakably", 0.5, 0.6), Word("so", 0.6, 0.7))))
    rows = [t.get_position()[1] for t in figure.axes[5].texts]
    assert rows[0] != rows[1]


def test_the_picture_is_written_and_is_not_blank(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw_report(report(1.0, (Word("字幕", 0.1, 0.5),)), tmp_path / "report.png")
    pixels = imread(tmp_path / "report.png")
    assert pixels.shape[1] >= 1000
    assert pixels.std() > 0.1


def test_one_sample_can_be_drawn(tmp_path: Path) -> None:
    one = np.zeros(1, np.float32)
    codes = np.zeros((36, 0), np.int16)
    draw_report(Report("one", RATE_HZ, 0.02, one, one, codes, codes, error_db(one, one, HOP)), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="choose another --out"):
        draw_report(report(0.1), tmp_path / "missing" / "report.png")
