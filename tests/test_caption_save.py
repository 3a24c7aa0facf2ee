"""Captions saved from the window: the same files as `sottovoce caption` writes, and one sentence where that fails."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pysubs2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot

from app import caption_save
from app.caption_history import History
from app.caption_save import CaptionSaver, default_name, with_extension
from app.caption_view import CaptionView
from engine.captions import CUE_S, FORMATS, LINE_CHARS, LINES, format_captions, group, write_captions
from engine.types import OTHERS, SPEECH, Caption, SottovoceError, Word

WAIT_MS = 5000
vocabulary = st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Well,", "no", "yes", "extraordinarily"])
timed = st.lists(
    st.tuples(vocabulary, st.floats(0.0, 1.0, allow_subnormal=False), st.floats(0.0, 8.0, allow_subnormal=False)),
    max_size=60,
)


def clocked(parts: list[tuple[str, float, float]]) -> tuple[Word, ...]:
    """(text, length, pause before) -> words in order of time."""
    words, at = [], 0.0
    for text, length_s, pause_s in parts:
        words.append(Word(text, at + pause_s, at + pause_s + length_s, 0.9))
        at = words[-1].end_s
    return tuple(words)


def heard(words: tuple[Word, ...], source: str = SPEECH) -> Caption:
    return Caption(words[-1].end_s if words else 0.0, words, (), 0.5, "en", source)


SAID = clocked([(text, 0.3, 0.1) for text in ["Good", "morning.", "What", "is", "it?"]])


@settings(deadline=None)
@given(timed, st.sampled_from(FORMATS))
def test_what_is_saved_is_what_the_command_would_write(parts: list[tuple[str, float, float]], form: str) -> None:
    history = History(block_words=8)
    words = clocked(parts)
    for at in range(0, len(words), 3):
        history.add(heard(words[at : at + 3]), 100.0)
    assert format_captions(history.snapshot(), form, "en") == format_captions(words, form, "en")


@settings(deadline=None)
@given(timed, timed)
def test_two_speakers_are_told_apart_and_nothing_is_lost(
    mine: list[tuple[str, float, float]], theirs: list[tuple[str, float, float]]
) -> None:
    history = History()
    ours, others = clocked(mine), clocked(theirs)
    history.add(heard(ours), 100.0)
    history.add(heard(others, OTHERS), 100.0)
    words = list(history.snapshot())
    cues = group(words)
    assert [cue.start_s for cue in cues] == sorted(cue.start_s for cue in cues)
    for cue in cues:
        assert len(cue.lines) <= LINES and cue.end_s - cue.start_s <= CUE_S
        assert all(len(line) <= LINE_CHARS for line in cue.lines)
    if not others:
        assert cues == group(ours)
        return
    for name, said in (("You:", ours), ("Others:", others)):
        lines = [" ".join(cue.lines).split() for cue in cues]
        assert [word for first, *rest in lines if first == name for word in rest] == [word.text for word in said]
    read = json.loads(format_captions(words, "json"))
    assert [word["source"] for word in read["words"]] == [SPEECH] * len(ours) + [OTHERS] * len(others)


@pytest.fixture
def view(qtbot: QtBot) -> CaptionView:
    made = CaptionView(True, False)
    qtbot.addWidget(made)
    made.show()
    made.show_caption(heard(SAID))
    return made


def save(view: CaptionView, path: Path, qtbot: QtBot, name_filter: str = "Subtitles (*.srt)") -> None:
    """As a person does it: the button, a name in the dialog, Save."""
    view.save.click()
    dialog = view.findChildren(caption_save.QFileDialog)[-1]
    dialog.selectNameFilter(name_filter)
    dialog.setDirectory(str(path.parent))
    dialog.selectFile(path.name)
    dialog.accepted.emit()
    dialog.close()


@pytest.mark.parametrize("form", FORMATS)
def test_a_saved_file_is_there_and_reads_back(view: CaptionView, qtbot: QtBot, tmp_path: Path, form: str) -> None:
    path, other = tmp_path / f"saved.{form}", tmp_path / f"other.{form}"
    with qtbot.waitSignal(view.saver.saved, timeout=WAIT_MS) as saved:
        save(view, path, qtbot)
    assert saved.args == [str(path)]
    write_captions(SAID, other, language="en")
    assert path.read_bytes() == other.read_bytes()
    assert "saved" in view.note.toolTip()
    if form in ("srt", "vtt"):
        assert " ".join(event.plaintext for event in pysubs2.load(str(path))) == "Good morning. What is it?"


def test_a_name_without_extension_gets_the_chosen_formats(view: CaptionView, qtbot: QtBot, tmp_path: Path) -> None:
    with qtbot.waitSignal(view.saver.saved, timeout=WAIT_MS):
        save(view, tmp_path / "talk", qtbot, "Web subtitles (*.vtt)")
    assert (tmp_path / "talk.vtt").read_text(encoding="utf-8").startswith("WEBVTT")


def test_a_file_that_the_dialog_did_not_ask_about_is_not_overwritten(
    view: CaptionView, qtbot: QtBot, tmp_path: Path
) -> None:
    (tmp_path / "talk.srt").write_text("precious")
    with qtbot.waitSignal(view.told, timeout=WAIT_MS) as told:
        save(view, tmp_path / "talk", qtbot)
    assert "is there already" in told.args[0]
    assert (tmp_path / "talk.srt").read_text() == "precious"


def test_where_nothing_can_be_written_one_sentence_says_so(view: CaptionView, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with qtbot.waitSignal(view.told, timeout=WAIT_MS) as told:
        view.saver.write(*view._to_save(), tmp_path / "file" / "talk.srt", "srt")
    assert "cannot be written" in told.args[0] and "\n" not in told.args[0]


def test_a_full_disk_leaves_neither_file_nor_half_a_file(
    view: CaptionView, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with qtbot.waitSignal(view.told, timeout=WAIT_MS) as told:
        view.saver.write(*view._to_save(), tmp_path / "talk.srt", "srt")
    assert "No space left on device" in told.args[0]
    assert list(tmp_path.iterdir()) == []


def test_the_window_goes_on_while_it_writes(
    view: CaptionView, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, threads = threading.Event(), list[str]()

    def slow(*_: Any) -> None:
        threads.append(threading.current_thread().name)
        may_end.wait(WAIT_MS / 1000)
        raise SottovoceError("the disk is slow; wait")

    monkeypatch.setattr(caption_save, "write_captions", slow)
    view.saver.write(*view._to_save(), tmp_path / "talk.srt", "srt")
    view.show_caption(heard(clocked([("more", 0.3, 9.0)])))
    assert "more" in view.text.final_text
    with qtbot.waitSignal(view.told, timeout=WAIT_MS):
        may_end.set()
    assert threads == ["sottovoce-save"]


def test_the_name_offered_sorts_by_time_and_is_legal_everywhere(qtbot: QtBot) -> None:
    name = default_name(datetime(2026, 3, 4, 5, 6), "srt")
    assert name == "captions 2026-03-04 05.06.srt"
    assert with_extension(Path(name), "vtt") == Path(name)
    assert with_extension(Path("Dr. Who"), "vtt") == Path("Dr. Who.vtt")


def test_with_nothing_to_save_no_dialog_comes(qtbot: QtBot) -> None:
    view = CaptionView(True, False)
    qtbot.addWidget(view)
    view.resize(900, 200)
    view.show()
    view.save.click()
    assert not view.findChildren(caption_save.QFileDialog)
    assert view.note.toolTip() == "Nothing to save yet"
    assert isinstance(view.saver, CaptionSaver)
