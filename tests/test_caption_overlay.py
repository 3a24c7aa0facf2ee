"""The overlay: the last lines over all other windows, standing still, and at rest when hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QHideEvent, QImage
from PySide6.QtWidgets import QApplication, QMenu
from pytestqt.qtbot import QtBot

from app import caption_overlay, caption_view
from app.caption_overlay import BACKDROPS, INKS, LEAST_LINES, MOST_LINES, CaptionOverlay, desktop_note
from app.caption_view import CaptionView
from engine.types import Caption, Word

WAIT_MS = 5000
LONG = [
    "people",
    "keep",
    "talking",
    "about",
    "things",
    "of",
    "no",
    "importance",
    "whatever",
    "and",
    "the",
    "street",
    "below",
    "never",
    "sleeps",
]


def say(view: CaptionView, final: str, tail: str = "", at_s: float = 0.0) -> None:
    def words(text: str) -> tuple[Word, ...]:
        return tuple(Word(w, at_s + 0.1 * i, at_s + 0.1 * i + 0.1) for i, w in enumerate(text.split()))

    view.show_caption(Caption(at_s, words(final), words(tail), 0.0))


@pytest.fixture
def view(qtbot: QtBot) -> Iterator[CaptionView]:
    made = CaptionView(True, False)
    qtbot.addWidget(made)
    made.resize(900, 200)
    made.show()
    yield made
    made.close_overlay()
    if made.overlay is not None:
        made.overlay.deleteLater()


@pytest.fixture
def overlay(view: CaptionView) -> CaptionOverlay:
    view.overlay_button.click()
    assert view.overlay is not None and view.overlay.isVisible()
    return view.overlay


def test_it_shows_what_is_there_and_what_comes(view: CaptionView, qtbot: QtBot) -> None:
    say(view, "One.")
    view.overlay_button.click()
    overlay = view.overlay
    assert overlay is not None
    assert overlay.shown_lines() == ["One."]
    say(view, "Two", "or three", at_s=10.0)
    assert overlay.shown_lines() == ["One.", "Two or three"]
    view.clear()
    assert overlay.shown_lines() == [""] or overlay.shown_lines() == []


def test_letters_that_qt_counts_twice_are_shown_whole(overlay: CaptionOverlay, view: CaptionView) -> None:
    overlay.resize(300, overlay.height())
    say(view, " ".join(["😀😀", *LONG[:3]]), "𝄞")
    assert " ".join(overlay.shown_lines()) == "😀😀 people keep talking 𝄞"
    [form] = overlay._rows[0].layout.formats()
    assert (form.start, form.length) == (len("😀😀 people keep talking") + 2, 3)  # the tail


def test_only_the_last_lines_are_shown(overlay: CaptionOverlay, view: CaptionView) -> None:
    for number in range(9):
        say(view, f"Line {number}.", at_s=10.0 * number)
    for lines in range(LEAST_LINES, MOST_LINES + 1):
        overlay.set_lines(lines)
        assert overlay.lines == lines
        assert overlay.shown_lines() == [f"Line {number}." for number in range(9)][-lines:]


def test_hidden_it_does_nothing(overlay: CaptionOverlay, view: CaptionView, monkeypatch: pytest.MonkeyPatch) -> None:
    say(view, "One.")
    view.overlay_button.click()
    assert not overlay.isVisible()
    laid_out = []
    monkeypatch.setattr(caption_overlay, "_laid_out", lambda *_: laid_out.append(1))
    say(view, "Two.", at_s=10.0)
    view.clear()
    assert laid_out == []


def test_final_words_stand_still_while_others_come(overlay: CaptionOverlay, view: CaptionView) -> None:
    """Lines only roll up: what was once shown in a line is later in the same line, or in one further up."""
    stood: list[str] = []  # the lines, from the first one ever, that hold final words alone
    for number, word in enumerate(LONG * 4):
        at_s = 0.3 * number
        tail = tuple(Word(w, at_s + 0.3, at_s + 0.4) for w in LONG[: number % 7])
        view.show_caption(Caption(at_s, (Word(word, at_s, at_s + 0.2),), tail, 0.0))
        lines = [line for line in overlay.shown_lines() if line]
        again = next((at for at in range(len(stood)) if stood[at:] == lines[: len(stood) - at]), len(stood))
        assert again < len(stood) or not stood
        written = len(" ".join(stood[:again]).split())  # words before the first line in sight
        for line in lines:
            written += len(line.split())
            if written < number + 1 and line not in stood[again:]:
                stood.append(line)


def test_a_shorter_tail_does_not_pull_the_lines_down(overlay: CaptionOverlay, view: CaptionView) -> None:
    overlay.resize(300, overlay.height())
    overlay.set_lines(4)
    say(view, "Well", " ".join(LONG[:9]))
    rows = len(overlay.shown_lines())
    assert rows > 1
    say(view, "I", "mean", at_s=0.1)
    assert len(overlay.shown_lines()) == rows
    assert overlay.shown_lines()[0].startswith("Well")


def test_it_stays_on_top_without_a_frame_and_comes_back_where_it_was(
    overlay: CaptionOverlay, view: CaptionView
) -> None:
    flags = overlay.windowFlags()
    assert flags & Qt.WindowType.WindowStaysOnTopHint and flags & Qt.WindowType.FramelessWindowHint
    overlay.move(33, 44)
    overlay.resize(400, overlay.height())
    place = overlay.geometry()
    view.overlay_button.click()
    view.overlay_button.click()
    assert overlay.isVisible() and overlay.geometry() == place


def test_keys_move_size_and_close_it(overlay: CaptionOverlay, view: CaptionView, qtbot: QtBot) -> None:
    overlay.activateWindow()
    qtbot.waitUntil(overlay.isActiveWindow, timeout=WAIT_MS)
    at, width = overlay.pos(), overlay.width()
    qtbot.keyClick(overlay, Qt.Key.Key_Right)
    qtbot.keyClick(overlay, Qt.Key.Key_Up)
    assert overlay.pos() - at == QPoint(16, -16)
    qtbot.keyClick(overlay, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    assert overlay.width() == width - 16
    qtbot.keyClick(overlay, Qt.Key.Key_Plus, Qt.KeyboardModifier.ControlModifier)
    assert overlay.look.zoom == 1
    qtbot.keyClick(overlay, Qt.Key.Key_0, Qt.KeyboardModifier.ControlModifier)
    assert overlay.look.zoom == 0
    qtbot.keyClick(overlay, Qt.Key.Key_Escape)
    assert not overlay.isVisible() and not view.overlay_button.isChecked()


def test_what_the_desktop_closed_or_minimised_comes_back_at_a_press(overlay: CaptionOverlay, view: CaptionView) -> None:
    place = overlay.geometry()
    overlay.close()
    assert not overlay.isVisible() and not view.overlay_button.isChecked()
    view.overlay_button.click()
    assert overlay.isVisible() and overlay.geometry() == place
    overlay.showMinimized()
    QApplication.sendEvent(overlay, QHideEvent())  # a desktop tells of both
    view.overlay_button.click()
    view.overlay_button.click()
    assert overlay.isVisible() and not overlay.isMinimized()
    say(view, "One.")
    assert overlay.shown_lines() == ["One."]


def test_it_can_be_dragged(overlay: CaptionOverlay, qtbot: QtBot) -> None:
    at, hold = overlay.pos(), QPoint(40, 20)
    qtbot.mousePress(overlay, Qt.MouseButton.LeftButton, pos=hold)
    qtbot.mouseMove(overlay, hold + QPoint(25, 10))
    qtbot.mouseRelease(overlay, Qt.MouseButton.LeftButton, pos=hold)
    assert overlay.pos() != at


def test_the_mouse_goes_through_until_it_is_opened_anew(overlay: CaptionOverlay, view: CaptionView) -> None:
    place = overlay.geometry()
    overlay.set_click_through(True)
    assert overlay.click_through and overlay.isVisible() and overlay.geometry() == place
    view.overlay_button.click()
    view.overlay_button.click()
    assert not overlay.click_through and overlay.isVisible()


def test_letters_keep_the_number_of_lines(overlay: CaptionOverlay) -> None:
    overlay.set_lines(2)
    high = overlay.height()
    overlay.set_look(replace(overlay.look, zoom=4))
    assert overlay.lines == 2 and overlay.height() > high
    overlay.set_look(replace(overlay.look, zoom=-99))
    assert overlay.lines == 2 and overlay.height() < high


def test_its_colours_are_its_own(overlay: CaptionOverlay, view: CaptionView) -> None:
    say(view, "MMMMMMM")
    overlay.set_look(replace(overlay.look, ink=INKS["Yellow"], backdrop=BACKDROPS["Blue"], opacity_percent=100))
    picture = overlay.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    seen = {picture.pixelColor(x, y).name() for x in range(300) for y in range(0, picture.height(), 2)}
    assert INKS["Yellow"] in seen
    assert picture.pixelColor(picture.width() // 2, 3).name() == BACKDROPS["Blue"]


def test_all_of_it_is_in_a_menu(overlay: CaptionOverlay) -> None:
    menu = overlay.menu()
    choices = {part.title(): part.actions() for part in menu.findChildren(QMenu)}
    for title, label in (
        ("Lines", "4"),
        ("Letters", "Cyan"),
        ("Backdrop", "White"),
        ("Opacity of the backdrop", "50 %"),
    ):
        assert [action for action in choices[title] if action.isChecked()]
        next(action for action in choices[title] if action.text() == label).trigger()
    assert overlay.lines == 4
    assert overlay.look.ink == INKS["Cyan"] and overlay.look.backdrop == BACKDROPS["White"]
    assert overlay.look.opacity_percent == 50
    menu.deleteLater()


def test_on_wayland_it_is_said_that_the_desktop_decides(
    view: CaptionView, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desktop_note("xcb") == desktop_note("offscreen") == ""
    assert "Wayland" in desktop_note("wayland") and "OBS" in desktop_note("wayland-egl")
    monkeypatch.setattr(caption_view, "desktop_note", lambda _: desktop_note("wayland"))
    with qtbot.waitSignal(view.told, timeout=WAIT_MS):
        view.overlay_button.click()


def test_it_goes_with_the_window(stages: object) -> None:
    stage = stages()  # type: ignore[operator]
    stage.window.captions.overlay_button.click()
    overlay = stage.window.captions.overlay
    assert overlay.isVisible()
    stage.window.close()
    assert not overlay.isVisible()
    overlay.deleteLater()
