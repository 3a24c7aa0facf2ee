"""A click on a word or a picture plays what was heard then, once, and never into a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QObject, QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.caption_text import CaptionText
from app.moments import LEAD_S, LENGTH_S, Moments
from app.theme import DARK
from app.timeline import HISTORY_S, Timeline
from app.views import InsideView
from engine.types import OTHERS, Caption, DeviceError, Provider, Samples, Tokens, UsageError, Word
from tests.fake_engine import HOP
from tests.stage import WAIT_MS

RATE_HZ = 16_000


def tokens(time_s: float, hops: int, level: float = 0.5) -> Tokens:
    """Sound whose first sample of each hop tells the hop's number since the start."""
    last = round(time_s * RATE_HZ / HOP)
    numbers = np.repeat(np.arange(last - hops, last), HOP) / 32767.0
    codes = np.zeros((4, hops), np.int16)
    heard = numbers.astype(np.float32)
    return Tokens(time_s, codes, codes, heard, np.full_like(heard, level), "drop")


@pytest.fixture
def timeline() -> Timeline:
    filled = Timeline()
    for second in range(1, 21):
        filled.add(tokens(float(second), 50))
    return filled


def test_a_moment_is_what_was_heard_then(timeline: Timeline) -> None:
    found = timeline.moment(7.0, 2.0)
    assert found is not None
    heard, sent = found
    assert len(heard) == len(sent) == 2 * RATE_HZ
    assert np.round(heard[::HOP] * 32767.0).tolist() == list(range(350, 450))
    assert sent == pytest.approx(0.5, abs=1e-4)


def test_a_moment_ends_with_what_is_there_and_what_is_gone_is_none(timeline: Timeline) -> None:
    cut = timeline.moment(19.0, 4.0)
    assert cut is not None and len(cut[0]) == RATE_HZ
    assert timeline.moment(20.5, 4.0) is None
    timeline.add(tokens(HISTORY_S + 60.0, 50))
    assert timeline.moment(7.0, 4.0) is None
    assert Timeline().moment(0.0, 4.0) is None


class Player:
    def __init__(self, heard: Samples, sent: Samples, rate_hz: int, output: str | None) -> None:
        self.heard, self.sent, self.rate_hz, self.output = heard, sent, rate_hz, output
        self.failure: str | None = None
        self.over, self.closed, self.plays, self.result = True, False, False, False

    def play(self) -> None:
        self.over, self.plays = False, True

    def listen_to(self, result: bool) -> None:
        self.result = result

    def close(self) -> None:
        self.closed = True


class Room:
    def __init__(self, timeline: Timeline, parent: QObject) -> None:
        self.players: list[Player] = []
        self.told: list[str] = []
        self.refuses = False
        self.moments = Moments(timeline, lambda: "headphones", parent, self._open, self._place)
        self.moments.told.connect(self.told.append)

    def _place(self, name: str, provider: Provider) -> tuple[Samples, int]:
        if name == "atlantis":
            raise UsageError("there is no scene 'atlantis'")
        return np.full(100, 0.1, np.float32), 8000

    def _open(self, *arguments: Any) -> Player:
        if self.refuses:
            raise DeviceError("no sound output was found; plug one in")
        self.players.append(Player(*arguments))
        return self.players[-1]


@pytest.fixture
def room(timeline: Timeline, qtbot: QtBot) -> Iterator[Room]:
    parent = QWidget()
    qtbot.addWidget(parent)
    made = Room(timeline, parent)
    yield made
    made.moments.close()


def test_a_moment_is_played_once_and_let_go(room: Room, qtbot: QtBot) -> None:
    assert room.moments.hear(10.0)
    qtbot.waitUntil(lambda: bool(room.players) and room.players[0].plays, timeout=WAIT_MS)
    player = room.players[0]
    assert (player.rate_hz, player.output, player.result) == (RATE_HZ, "headphones", True)
    assert len(player.heard) == round(LENGTH_S * RATE_HZ)
    assert round(float(player.heard[0]) * 32767) == round((10.0 - LEAD_S) * RATE_HZ / HOP)
    player.over = True
    qtbot.waitUntil(lambda: player.closed, timeout=WAIT_MS)


def test_the_next_moment_takes_the_place_of_the_one_that_plays(room: Room, qtbot: QtBot) -> None:
    room.moments.hear(5.0)
    room.moments.hear(9.0, sent=False)
    qtbot.waitUntil(lambda: len(room.players) == 2 and room.players[1].plays, timeout=WAIT_MS)
    assert room.players[0].closed
    assert not room.players[1].result


def test_what_cannot_be_heard_is_told(room: Room, qtbot: QtBot) -> None:
    assert not room.moments.hear(500.0)
    assert "five minutes" in room.told[0]
    room.refuses = True
    assert room.moments.hear(5.0)
    qtbot.waitUntil(lambda: len(room.told) == 2, timeout=WAIT_MS)
    assert room.told[1].startswith("no sound output")


def test_a_place_is_heard_before_it_is_sent(room: Room, qtbot: QtBot) -> None:
    room.moments.hear_place("rain", Provider.CPU)
    qtbot.waitUntil(lambda: bool(room.players) and room.players[0].plays, timeout=WAIT_MS)
    assert (len(room.players[0].sent), room.players[0].rate_hz) == (100, 8000)
    room.moments.hear_place("atlantis", Provider.CPU)
    qtbot.waitUntil(lambda: bool(room.told), timeout=WAIT_MS)
    assert "atlantis" in room.told[0]


def test_a_device_that_goes_while_it_plays_is_told(room: Room, qtbot: QtBot) -> None:
    room.moments.hear(5.0)
    qtbot.waitUntil(lambda: bool(room.players) and room.players[0].plays, timeout=WAIT_MS)
    room.players[0].failure = "the output has gone"
    qtbot.waitUntil(lambda: room.players[0].closed, timeout=WAIT_MS)
    assert room.told == ["the output has gone"]


@pytest.fixture
def text(qtbot: QtBot) -> CaptionText:
    made = CaptionText()
    qtbot.addWidget(made)
    made.resize(600, 200)
    made.show()
    final = tuple(Word(f" word{n}", float(n), n + 0.9, 1.0) for n in range(4))
    made.show_caption(Caption(4.0, final, (Word(" maybe", 4.0, 4.5, 0.5),), 0.1))
    return made


def place_of(text: CaptionText, word: str) -> QPoint:
    cursor = text.textCursor()
    cursor.setPosition(text.toPlainText().index(word) + 2)
    return text.cursorRect(cursor).center()


@pytest.mark.parametrize(("word", "start_s"), [("word0", 0.0), ("word2", 2.0), ("word3", 3.0)])
def test_a_click_on_a_word_asks_for_its_moment(text: CaptionText, qtbot: QtBot, word: str, start_s: float) -> None:
    with qtbot.waitSignal(text.asked, timeout=WAIT_MS) as asked:
        QTest.mouseClick(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, word))
    assert asked.args == [start_s]


def test_enter_asks_for_the_word_at_the_cursor(text: CaptionText, qtbot: QtBot) -> None:
    cursor = text.textCursor()
    cursor.setPosition(text.toPlainText().index("word1") + 1)
    text.setTextCursor(cursor)
    with qtbot.waitSignal(text.asked, timeout=WAIT_MS) as asked:
        QTest.keyClick(text, Qt.Key.Key_Return)
    assert asked.args == [1.0]


def test_no_moment_beside_the_text_in_a_selection_of_others_or_of_another_run(text: CaptionText, qtbot: QtBot) -> None:
    asked: list[float] = []
    text.asked.connect(asked.append)
    QTest.mouseClick(text.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(580, 150))
    QTest.mousePress(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, "word1"))
    QTest.mouseMove(text.viewport(), place_of(text, "word3"))
    QTest.mouseRelease(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, "word3"))
    assert text.textCursor().hasSelection()
    text.show_caption(Caption(6.0, (Word(" theirs", 5.0, 5.5, 1.0),), (), 0.1, source=OTHERS))
    QTest.mouseClick(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, "theirs"))
    text.forget_times()
    QTest.mouseClick(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, "word1"))
    assert asked == []


def test_what_was_cleared_can_be_heard_when_it_is_back(text: CaptionText, qtbot: QtBot) -> None:
    page = text.put_aside()
    text.bring_back(page)
    with qtbot.waitSignal(text.asked, timeout=WAIT_MS) as asked:
        QTest.mouseClick(text.viewport(), Qt.MouseButton.LeftButton, pos=place_of(text, "word3"))
    assert asked.args == [3.0]


def test_a_click_on_a_picture_asks_for_that_time_and_a_word_is_shown_in_the_middle(
    timeline: Timeline, qtbot: QtBot
) -> None:
    view = InsideView(timeline)
    qtbot.addWidget(view)
    view.resize(900, 500)
    view.set_theme(DARK)
    view.show()
    view.refresh()
    asked: list[tuple[float, bool]] = []
    view.asked.connect(lambda at_s, sent: asked.append((at_s, sent)))
    for picture in (view.heard, view.sent):
        box = picture.plot.getPlotItem().vb
        middle = picture.plot.mapFromScene(box.sceneBoundingRect().center())
        QTest.mouseClick(picture.plot.viewport(), Qt.MouseButton.LeftButton, pos=middle)
    assert [sent for _, sent in asked] == [False, True]
    assert asked[0][0] == pytest.approx(14.0, abs=0.3)  # six of twelve seconds before the end of twenty
    view.show_moment(8.0)
    assert view.live.isChecked()
    assert view.heard.pointer.isVisible()
    assert view.heard.pointer.value() == pytest.approx(-6.0, abs=0.1)
