"""Searching the captions while they go on: where a needle is, and the small bar that asks for it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from PySide6.QtCore import QEvent, QObject, QPoint, Qt, QTimer
from PySide6.QtGui import QColor, QKeyEvent, QTextBlock, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QTextEdit, QWidget

from app.caption_text import CaptionText, qt_length
from app.controls import quiet_button
from app.theme import DARK, Theme, scaled_font

Span = tuple[int, int]  # from, to: columns of a paragraph, in Qt's units


class Place(NamedTuple):
    """A match: the number of its paragraph, and its columns."""

    paragraph: int
    span: Span


class Finder:
    """Where a needle occurs in paragraphs, whatever the case; kept right as paragraphs come and go at either end.

    A space in the needle stands for any white space. Matches do not overlap.
    """

    def __init__(self) -> None:
        self.total = 0
        self._pattern: re.Pattern[str] | None = None
        self._found: list[tuple[Span, ...]] = []  # by paragraph

    def look_for(self, needle: str, paragraphs: Iterable[str]) -> None:
        """Begin anew; nothing is found of an empty needle."""
        words = [re.escape(word) for word in needle.split()]
        self._pattern = re.compile(r"\s+".join(words), re.IGNORECASE) if words else None
        self._found, self.total = [], 0
        self._extend(paragraphs)

    def update(self, gone: int, first: int, paragraphs: Iterable[str]) -> None:
        """The oldest `gone` paragraphs went, and those from number `first` on (counted after that) are these now."""
        self.total -= sum(map(len, self._found[:gone])) + sum(map(len, self._found[gone + first :]))
        del self._found[gone + first :], self._found[:gone]
        self._extend(paragraphs)

    def in_paragraph(self, number: int) -> tuple[Span, ...]:
        return self._found[number] if number < len(self._found) else ()

    def after(self, paragraph: int, column: int) -> Place | None:
        """The first match that begins there or later; beyond the last one, the first of all."""
        return self._at_or_after(paragraph, column) or self._at_or_after(0, 0)

    def before(self, paragraph: int, column: int) -> Place | None:
        """The last match that begins before; before the first one, the last of all."""
        return self._before(paragraph, column) or self._before(len(self._found), 0)

    def number(self, place: Place) -> int:
        """The how manieth match it is, from 1."""
        earlier = sum(map(len, self._found[: place.paragraph]))
        return earlier + bisect_left(self.in_paragraph(place.paragraph), place.span) + 1

    def _at_or_after(self, paragraph: int, column: int) -> Place | None:
        for number in range(paragraph, len(self._found)):
            spans = self._found[number]
            at = bisect_left(spans, (column, 0)) if number == paragraph else 0
            if at < len(spans):
                return Place(number, spans[at])
        return None

    def _before(self, paragraph: int, column: int) -> Place | None:
        for number in range(min(paragraph, len(self._found) - 1), -1, -1):
            spans = self._found[number]
            at = bisect_left(spans, (column, 0)) if number == paragraph else len(spans)
            if at:
                return Place(number, spans[at - 1])
        return None

    def _extend(self, paragraphs: Iterable[str]) -> None:
        for text in paragraphs:
            spans = tuple(found.span() for found in self._pattern.finditer(text)) if self._pattern else ()
            if qt_length(text) > len(text):
                spans = tuple(_columns(text, span) for span in spans)
            self._found.append(spans)
            self.total += len(spans)


class SearchBar(QWidget):
    """A line to type in, the count, and the way to the next match. Marks the matches in sight."""

    def __init__(self, text: CaptionText) -> None:
        super().__init__()
        self._text, self._finder, self._theme = text, Finder(), DARK
        self._current: QTextCursor | None = None  # moves with the text
        self.line = QLineEdit()
        self.line.setPlaceholderText("Find in captions")
        self.line.setAccessibleName("Find in captions")
        self.line.setClearButtonEnabled(True)
        self.line.installEventFilter(self)
        self.count = QLabel()
        self.count.setProperty("tone", "muted")
        self.count.setFont(scaled_font(0.9))
        self.back = quiet_button("↑", "The match before (Shift+Enter)", "Match before")
        self.forth = quiet_button("↓", "The next match (Enter)", "Next match")
        self.done = quiet_button("✕", "Close (Escape)", "Close the search")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 2, 0, 4)
        row.setSpacing(6)
        row.addWidget(self.line, 1)
        for widget in (self.count, self.back, self.forth, self.done):
            row.addWidget(widget)
        self.line.textChanged.connect(self._search)
        self.back.clicked.connect(lambda: self.go(back=True))
        self.forth.clicked.connect(lambda: self.go())
        self.done.clicked.connect(self.close_search)
        text.shown.connect(self._follow_text)
        text.replaced.connect(self._begin_anew)
        self._soon = QTimer(self)  # however much changes at once, what is in sight is marked once
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._mark)
        text.verticalScrollBar().valueChanged.connect(lambda: self.isHidden() or self._soon.start(0))
        text.zoomed.connect(self._mark)
        self.hide()

    @property
    def matches(self) -> int:
        """How many there are."""
        return self._finder.total

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self._mark()

    def open_search(self) -> None:
        """Show the bar, with what is selected in the text to look for."""
        selected = self._text.textCursor().selectedText()
        self.show()
        self.line.setFocus()
        if selected and "\u2029" not in selected:  # within one paragraph
            self.line.setText(selected)
        self.line.selectAll()
        self._search()

    def close_search(self) -> None:
        """Take the bar and the marks away."""
        if not self.isHidden():
            self.hide()
            self._current = None
            self._mark()
            self._text.setFocus()

    def go(self, back: bool = False) -> None:
        """To the next match, or to the one before; round the ends. Opens the bar where it is closed."""
        if self.isHidden():
            self.open_search()
            if not self.line.text():
                return
        block, column = self._here(at_end=not back)
        found = self._finder.before(block, column) if back else self._finder.after(block, column)
        self._show_place(found)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        pressed = event if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress else None
        if pressed is not None and pressed.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.go(back=bool(pressed.modifiers() & Qt.KeyboardModifier.ShiftModifier))
            return True
        return super().eventFilter(watched, event)

    def _search(self) -> None:
        """Look for another needle, or in another text, and go to the nearest match from here on."""
        if self.isHidden():
            return
        here = self._here(at_end=False)
        self._finder.look_for(self.line.text(), _texts(self._text.document().firstBlock()))
        self._show_place(self._finder.after(*here))

    def _begin_anew(self) -> None:
        self._current = None
        self._search()

    def _follow_text(self, gone: int, first: int) -> None:
        if self.isHidden():
            return
        self._finder.update(gone, first, _texts(self._text.document().findBlockByNumber(first)))
        if self._current is not None and not self._current.hasSelection():  # it stood in what went
            self._current = None
        self._soon.start(0)

    def _here(self, at_end: bool) -> tuple[int, int]:
        """Where the search stands: at the current match, else at the first line in sight."""
        cursor = self._text.cursorForPosition(QPoint(0, 0)) if self._current is None else self._current
        at = cursor.selectionEnd() if at_end else cursor.selectionStart()
        block = self._text.document().findBlock(at)
        return block.blockNumber(), at - block.position()

    def _show_place(self, place: Place | None) -> None:
        self._current = None
        if place is not None:
            block = self._text.document().findBlockByNumber(place.paragraph)
            self._current = _selected(block, place.span)
            self._text.setTextCursor(self._current)
        self._mark()

    def _mark(self) -> None:
        """Highlight the matches in sight, and tell the count."""
        if self.isHidden():
            self._text.setExtraSelections([])
            return
        text, marks = self._text, []
        view = text.viewport().rect()
        begin, end = (text.cursorForPosition(at).position() for at in (view.topLeft(), view.bottomRight()))
        block = text.document().findBlock(begin)
        while block.isValid() and block.position() <= end:
            for span in self._finder.in_paragraph(block.blockNumber()):
                if begin <= block.position() + span[1] and block.position() + span[0] <= end:
                    marks.append(self._marked(_selected(block, span)))
            block = block.next()
        text.setExtraSelections(marks)
        self._tell()

    def _marked(self, cursor: QTextCursor) -> QTextEdit.ExtraSelection:
        mark = QTextEdit.ExtraSelection()
        form = QTextCharFormat()
        here = self._current is not None and cursor.selectionStart() == self._current.selectionStart()
        form.setBackground(QColor(self._theme.accent if here else self._theme.warning_panel))
        form.setForeground(QColor(self._theme.on_accent if here else self._theme.warning))
        mark.cursor, mark.format = cursor, form
        return mark

    def _tell(self) -> None:
        total = self._finder.total
        if not self.line.text().strip():
            words = ""
        elif not total:
            words = "none"
        elif self._current is None:
            words = f"{total}"
        else:
            block, column = self._here(at_end=False)
            at = Place(block, (column, column + qt_length(self._current.selectedText())))
            words = f"{min(self._finder.number(at), total)} of {total}"
        self.count.setText(words)
        self.count.setAccessibleName(f"Matches: {words}")


def _columns(text: str, span: Span) -> Span:
    """A span in Python's characters as columns."""
    begin = qt_length(text[: span[0]])
    return begin, begin + qt_length(text[slice(*span)])


def _selected(block: QTextBlock, span: Span) -> QTextCursor:
    cursor = QTextCursor(block)
    cursor.setPosition(block.position() + span[0])
    cursor.setPosition(block.position() + span[1], QTextCursor.MoveMode.KeepAnchor)
    return cursor


def _texts(block: QTextBlock) -> Iterable[str]:
    """The text of a paragraph and all that follow."""
    while block.isValid():
        yield block.text()
        block = block.next()
