"""The caption panel: final words stay where they are, the tentative tail after them is lighter and may change."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QColor, QGuiApplication, QResizeEvent, QTextBlockFormat, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QTextEdit, QVBoxLayout

from app.controls import quiet_button
from app.theme import Theme, scaled_font
from engine.types import OTHERS, SPEECH, Caption, Word

PARAGRAPH_PAUSE_S = 1.5
LINE_PERCENT = 125.0
MOST_PARAGRAPHS = 3000
WAITING = "Words appear here as they are spoken."
WHO = {SPEECH: "You: ", OTHERS: "Others: "}


class CaptionText(QTextEdit):
    """Committed text, then the tail. Committed text is only ever appended to."""

    def __init__(self) -> None:
        super().__init__()
        self.setReadOnly(True)
        self.setUndoRedoEnabled(False)
        self.setTabChangesFocus(True)
        self.setAccessibleName("Captions")
        self.setFont(scaled_font(1.35))
        self.document().setMaximumBlockCount(MOST_PARAGRAPHS)
        self.document().setDocumentMargin(2)
        self.setPlaceholderText(WAITING)
        self._final_end_s: float | None = None
        self._speaker = SPEECH  # whose the last final word is
        self._tails: dict[str, tuple[Word, ...]] = {}
        self._tail_length = 0
        self._colours = (QColor("white"), QColor("grey"))

    @property
    def final_text(self) -> str:
        """What will not change any more."""
        text = self.toPlainText()
        return text[: len(text) - self._tail_length]

    @property
    def tentative_text(self) -> str:
        text = self.toPlainText()
        return text[len(text) - self._tail_length :]

    def set_theme(self, theme: Theme) -> None:
        """Recolour what is there."""
        self._colours = (QColor(theme.text), QColor(theme.muted))
        cursor = QTextCursor(self.document())
        cursor.select(QTextCursor.SelectionType.Document)
        tail = self._tail_length
        cursor.mergeCharFormat(self._format(tentative=False))
        if tail:
            self._tail_cursor().mergeCharFormat(self._format(tentative=True))

    def show_caption(self, caption: Caption) -> None:
        """Append what became final and put the new tail after it; follows the end unless the reader scrolled away."""
        bar = self.verticalScrollBar()
        follows = bar.value() >= bar.maximum() - 4
        at = bar.value()
        self._tail_cursor().removeSelectedText()
        self._tail_length = 0
        for word in caption.final:
            self._append(word, caption.source)
        self._tails[caption.source] = caption.tentative
        for source in sorted(self._tails, key=lambda source: source != self._speaker):
            self._tail_length += self._append_tail(self._tails[source], source)
        bar.setValue(bar.maximum() if follows else at)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Room for whole lines only, so that none is seen cut in two."""
        line = self.fontMetrics().lineSpacing() * LINE_PERCENT / 100.0
        room = self.height() - 2 * self.document().documentMargin()
        self.setViewportMargins(0, int(room % line) if room > line else 0, 0, 0)
        super().resizeEvent(event)

    def drop_tails(self) -> None:
        """Take away what is tentative: nobody will make it final any more."""
        self._tail_cursor().removeSelectedText()
        self._tail_length = 0
        self._tails.clear()

    def forget(self) -> None:
        """Empty the panel."""
        self.clear()
        self._tail_length = 0
        self._tails.clear()
        self._speaker, self._final_end_s = SPEECH, None

    def _append(self, word: Word, source: str) -> None:
        self._write(word.text.strip(), word, source, tentative=False)
        self._speaker, self._final_end_s = source, word.end_s

    def _append_tail(self, words: tuple[Word, ...], source: str) -> int:
        text = " ".join(word.text.strip() for word in words)
        return self._write(text, words[0], source, tentative=True) if words else 0

    def _write(self, text: str, first: Word, source: str, tentative: bool) -> int:
        """Add words at the end, in a paragraph of their own after a pause or when another speaks.

        Returns the length of what was added. It cannot be told from the whole text: the oldest paragraph may go.
        """
        cursor, other = self._end(), source != self._speaker
        begun = 0
        if self._final_end_s is None and cursor.atStart():
            self._style_block(cursor)
        elif other or self._pause_before(first):
            cursor.insertBlock()
            self._style_block(cursor)
            begun = 1
        else:
            text = " " + text
        label = WHO[source] if other or (source == OTHERS and cursor.atBlockStart()) else ""
        cursor.insertText(label, self._format(tentative=True))
        cursor.insertText(text, self._format(tentative))
        return begun + len(label) + len(text)

    def _pause_before(self, word: Word) -> bool:
        """Whether a paragraph begins: after a pause, or when the clock went back because another run began."""
        if self._final_end_s is None:
            return False
        pause_s = word.start_s - self._final_end_s
        return pause_s > PARAGRAPH_PAUSE_S or pause_s < -PARAGRAPH_PAUSE_S

    def _end(self) -> QTextCursor:
        cursor = QTextCursor(self.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        return cursor

    def _tail_cursor(self) -> QTextCursor:
        cursor = self._end()
        at = cursor.position()
        cursor.setPosition(at - self._tail_length)
        cursor.setPosition(at, QTextCursor.MoveMode.KeepAnchor)
        return cursor

    def _format(self, tentative: bool) -> QTextCharFormat:
        form = QTextCharFormat()
        form.setForeground(self._colours[int(tentative)])
        return form

    @staticmethod
    def _style_block(cursor: QTextCursor) -> None:
        form = QTextBlockFormat()
        form.setLineHeight(LINE_PERCENT, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
        cursor.setBlockFormat(form)


class CaptionView(QFrame):
    """Captions with a heading, a switch, and what may be done with them."""

    wanted = Signal(bool)  # captions were switched on or off
    others_wanted = Signal(bool)  # whether to caption what the loudspeakers play, too

    def __init__(self, on: bool, others: bool) -> None:
        super().__init__()
        self.setObjectName("card")
        self.text = CaptionText()
        self.switch = quiet_button(
            "On" if on else "Off", "Listen for words (Ctrl+T)", "Captions on or off", "Ctrl+T", checkable=True
        )
        self.switch.setChecked(on)
        self.switch.toggled.connect(self._switched)
        tip = "Caption what your loudspeakers play, too: the other people in a call"
        self.others = quiet_button("Others", tip, "Captions of others", checkable=True)
        self.others.setChecked(others)
        self.others.setEnabled(on)
        self.others.toggled.connect(self.others_wanted)
        self.copy = quiet_button("Copy", "Put all final words on the clipboard", "Copy captions")
        self.copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text.final_text.strip()))
        self.empty = quiet_button("Clear", "Empty this panel", "Clear captions")
        self.empty.clicked.connect(self.text.forget)
        title = QLabel("Captions")
        title.setFont(scaled_font(0.95, bold=True))
        head = QHBoxLayout()
        head.setSpacing(6)
        head.addWidget(title)
        head.addStretch(1)
        for widget in (self.switch, self.others, self.copy, self.empty):
            head.addWidget(widget)
        box = QVBoxLayout(self)
        box.setContentsMargins(16, 8, 10, 10)
        box.setSpacing(2)
        box.addLayout(head)
        box.addWidget(self.text, 1)

    def set_theme(self, theme: Theme) -> None:
        self.text.set_theme(theme)

    def show_unavailable(self) -> None:
        """Switch off, without telling anybody: what captions need is missing."""
        self.switch.blockSignals(True)
        self.switch.setChecked(False)
        self.switch.blockSignals(False)
        self._label_switch(False)

    def _label_switch(self, on: bool) -> None:
        self.switch.setText("On" if on else "Off")
        self.others.setEnabled(on)
        self.text.setPlaceholderText(WAITING if on else "Captions are off.")

    def _switched(self, on: bool) -> None:
        self._label_switch(on)
        self.wanted.emit(on)
