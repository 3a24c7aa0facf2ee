"""The words in the caption panel: final ones stay where they are, the tentative tail is lighter and may change.

What an event costs does not grow with what is there: only the end is written, and the oldest paragraphs go.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import (
    QColor,
    QKeyEvent,
    QMouseEvent,
    QResizeEvent,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QWheelEvent,
)
from PySide6.QtWidgets import QPushButton, QTextEdit

from app.paragraph_times import ParagraphTimes
from app.settings import SCALE_MAX, SCALE_MIN
from app.shortcut_keys import bind_button
from app.theme import Theme, scaled_font
from app.word_times import WordTimes
from engine.captions import SENTENCE_ENDS, SPEAKERS
from engine.types import OTHERS, SPEECH, Caption, Word

PARAGRAPH_PAUSE_S = 1.5
LONG_PARAGRAPH, LONGEST_PARAGRAPH = 500, 1500  # characters after which it ends with a sentence, or anyhow
LINE_PERCENT = 125.0
MOST_PARAGRAPHS = 5000
SLACK = 20  # so many at a time go, as a share of the most: what takes one away takes as long as what takes many
MARGIN = 2
REACH = 24  # pixels from a place between two letters to the farther end of either
FONT_FACTOR, ZOOM_STEP = 1.35, 1.12
NOTCH = 120  # of a mouse wheel, in Qt's eighths of a degree
WAITING = "Words appear here as they are spoken."


class Page(NamedTuple):
    """What the panel showed, put aside."""

    document: QTextDocument
    speaker: str
    final_end_s: float | None
    gone: int
    colours: tuple[QColor, QColor]
    word_times: WordTimes
    runs: int


class CaptionText(QTextEdit):
    """Committed text, then the tail. Committed text is only ever appended to."""

    shown = Signal(int, int)  # how many of the oldest paragraphs went; the first paragraph that is not as it was
    replaced = Signal()  # everything is another text now
    asked = Signal(float)  # to hear the word that was spoken then, in seconds on the engine's clock
    zoomed = Signal(float)  # how large the letters are now, one is the usual size

    def __init__(self, most_paragraphs: int = MOST_PARAGRAPHS) -> None:
        super().__init__()
        self.most_paragraphs = most_paragraphs
        self.gone = 0  # paragraphs of this text that are no longer there, because newer ones are
        self._scale, self._wheel = 1.0, 0
        self._follows, self._placing = True, False
        self._final_end_s: float | None = None
        self._speaker = SPEECH  # whose the last final word is
        self._tails: dict[str, tuple[Word, ...]] = {}
        self._tail_length = 0  # in Qt's units, as all places in the document are
        self._now_s = self._now_at_s = 0.0  # of the caption that is being written: on the engine's clock, on the wall
        self._colours = (QColor("white"), QColor("grey"))
        self._word_times, self._runs = WordTimes(), 0
        self.setReadOnly(True)
        self.viewport().setToolTip("Click a word to hear it again, up to five minutes later")
        self.setUndoRedoEnabled(False)
        self.setTabChangesFocus(True)
        self.setAccessibleName("Captions")
        self.setFont(scaled_font(FONT_FACTOR))
        self.setDocument(self._fresh_document())
        self.setPlaceholderText(WAITING)
        self.times = ParagraphTimes(self, lambda: self._colours[1])
        self.newest = self._newest_button()
        self.verticalScrollBar().valueChanged.connect(self._scrolled)
        self.verticalScrollBar().rangeChanged.connect(self._keep_to_end)

    @property
    def final_text(self) -> str:
        """What will not change any more."""
        text = self.toPlainText()
        return text[: len(text) - len(self._tail_cursor().selectedText())]

    @property
    def tentative_text(self) -> str:
        text = self.toPlainText()
        return text[len(text) - len(self._tail_cursor().selectedText()) :]

    @property
    def follows(self) -> bool:
        """Whether the newest words are kept in sight; not while the reader has scrolled away from them."""
        return self._follows

    def last_paragraphs(self, most: int) -> list[tuple[str, int]]:
        """The newest paragraphs, oldest first, each with how much of it is final, in Qt's units."""
        block, found = self.document().lastBlock(), list[tuple[str, int]]()
        final_to = self.document().characterCount() - 1 - self._tail_length
        while block.isValid() and len(found) < most:
            found.append((block.text(), min(max(0, final_to - block.position()), block.length() - 1)))
            block = block.previous()
        return found[::-1]

    def set_theme(self, theme: Theme) -> None:
        """Recolour what is there."""
        self._colours = (QColor(theme.text), QColor(theme.muted))
        self._recolour()
        self.times.update()

    def show_caption(self, caption: Caption, at_s: float | None = None) -> None:
        """Append what became final and put the new tail after it; follows the end unless the reader scrolled away.

        at_s: when it came (Unix time), now unless told.
        """
        self._now_s, self._now_at_s = caption.time_s, time.time() if at_s is None else at_s
        at = self.verticalScrollBar().value()
        self._placing = True
        edit = QTextCursor(self.document())
        edit.beginEditBlock()
        tail = self._tail_cursor()
        changed = self.document().findBlock(tail.selectionStart()).blockNumber()
        tail.removeSelectedText()
        self._tail_length = 0
        for word in caption.final:
            self._append(word, caption.source)
        self._tails[caption.source] = caption.tentative
        for source in sorted(self._tails, key=lambda source: source != self._speaker):
            self._tail_length += self._append_tail(self._tails[source], source)
        edit.endEditBlock()
        gone, height = self._drop_oldest()
        self._place(max(0, at - height))
        self.shown.emit(gone, max(0, changed - gone))

    def drop_tails(self) -> None:
        """Take away what is tentative: nobody will make it final any more."""
        tail = self._tail_cursor()
        changed = self.document().findBlock(tail.selectionStart()).blockNumber()
        tail.removeSelectedText()
        self._tail_length = 0
        self._tails.clear()
        self.shown.emit(0, changed)

    def put_aside(self) -> Page:
        """Empty the panel; returns what it showed, which `bring_back` shows again or `deleteLater` frees."""
        self.drop_tails()
        page = Page(
            self.document(), self._speaker, self._final_end_s, self.gone, self._colours, self._word_times, self._runs
        )
        self._speaker, self._final_end_s, self.gone, self._word_times = SPEECH, None, 0, WordTimes()
        self._show_document(self._fresh_document())
        return page

    def bring_back(self, page: Page) -> None:
        """Show what was put aside in place of what is there now."""
        self.drop_tails()
        now = self.document()
        page.document.setDefaultFont(self.font())
        self._speaker, self._final_end_s, self.gone = page.speaker, page.final_end_s, page.gone
        self._word_times = page.word_times if page.runs == self._runs else WordTimes()
        self._show_document(page.document)
        if page.colours != self._colours:
            self._recolour()
        now.deleteLater()

    def zoom(self, steps: int | None) -> None:
        """Larger or smaller letters by steps; None is the usual size."""
        self.set_scale(1.0 if steps is None else self._scale * ZOOM_STEP**steps)

    def set_scale(self, scale: float) -> None:
        """Letters so many times as large as usual, within bounds."""
        self._scale = min(max(SCALE_MIN, scale), SCALE_MAX)
        self.setFont(scaled_font(FONT_FACTOR * self._scale))
        self.times.fit()
        self.zoomed.emit(self._scale)

    def show_times(self, on: bool) -> None:
        """Show beside each paragraph when it began, or not."""
        self.times.setVisible(on)
        self._fit_margins()

    def follow(self) -> None:
        """Go to the newest words and stay with them."""
        self._follows = True
        self._place(0)

    # Where it is ------------------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Room for whole lines only, so that none is seen cut in two."""
        self._fit_margins()
        super().resizeEvent(event)
        self.times.fit()
        self._place_newest()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """A click on a word, not the end of a selection, asks to hear it."""
        super().mouseReleaseEvent(event)
        if event.button() is Qt.MouseButton.LeftButton and not self.textCursor().hasSelection():
            at = event.position().toPoint()
            cursor = self.cursorForPosition(at)
            if self.cursorRect(cursor).adjusted(-REACH, 0, REACH, 0).contains(at):  # not in the empty space beside
                self._ask(cursor)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter asks to hear the word at the cursor."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._ask(self.textCursor())
        else:
            super().keyPressEvent(event)

    def forget_times(self) -> None:
        """The words so far cannot be heard again: another run begins, on a clock of its own."""
        self._word_times = WordTimes()
        self._runs += 1

    def _ask(self, cursor: QTextCursor) -> None:
        start_s = self._word_times.at(self.gone + cursor.blockNumber(), cursor.positionInBlock())
        if start_s is not None:
            self.asked.emit(start_s)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """With Ctrl, the size of the letters."""
        if not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(event)
            return
        self._wheel += event.angleDelta().y()
        steps = int(self._wheel / NOTCH)
        self._wheel -= steps * NOTCH
        if steps:
            self.zoom(steps)
        event.accept()

    def _fit_margins(self) -> None:
        line = self.fontMetrics().lineSpacing() * LINE_PERCENT / 100.0
        room = self.height() - 2 * self.document().documentMargin()
        left = self.times.sizeHint().width() if self.times.isVisibleTo(self) else 0
        self.setViewportMargins(left, int(room % line) if room > line else 0, 0, 0)

    def _newest_button(self) -> QPushButton:
        button = QPushButton("Newest ↓", self)
        button.setObjectName("newest")
        button.setFont(scaled_font(0.9))
        button.setAccessibleName("Back to the newest words")
        bind_button(button, "newest_words")
        button.clicked.connect(self.follow)
        button.hide()
        return button

    def _place_newest(self) -> None:
        button, size = self.newest, self.newest.sizeHint()
        bar = self.verticalScrollBar().sizeHint().width()
        button.setGeometry(self.width() - size.width() - bar - 6, self.height() - size.height() - 4, *size.toTuple())

    def _scrolled(self, value: int) -> None:
        if not self._placing:
            self._follows = value >= self.verticalScrollBar().maximum() - 4
        self._after_scroll()

    def _keep_to_end(self) -> None:
        """The text became longer or was laid out anew."""
        if self._follows and not self._placing:
            self._place(0)

    def _place(self, at: int) -> None:
        self._placing = True
        bar = self.verticalScrollBar()
        bar.setValue(bar.maximum() if self._follows else at)
        self._placing = False
        self._after_scroll()

    def _after_scroll(self) -> None:
        if self.newest.isHidden() == (not self._follows):
            self._place_newest()
            self.newest.setVisible(not self._follows)
        self.times.update()

    # What it holds ----------------------------------------------------------------------------------------------------

    def _fresh_document(self) -> QTextDocument:
        document = QTextDocument(self)
        document.setUndoRedoEnabled(False)
        document.setDefaultFont(self.font())
        document.setDocumentMargin(MARGIN)
        return document

    def _show_document(self, document: QTextDocument) -> None:
        self.setDocument(document)
        self._follows = True
        self._place(0)
        self.replaced.emit()

    def _drop_oldest(self) -> tuple[int, int]:
        """Let go of the oldest paragraphs beyond the most -> how many, and how high they were, in pixels."""
        document = self.document()
        if document.blockCount() <= self.most_paragraphs + self.most_paragraphs // SLACK:
            return 0, 0
        gone = document.blockCount() - self.most_paragraphs
        first = document.findBlockByNumber(gone)
        height, state = round(document.documentLayout().blockBoundingRect(first).top()), first.userState()
        cursor = QTextCursor(document)
        cursor.setPosition(first.position(), QTextCursor.MoveMode.KeepAnchor)
        cursor.removeSelectedText()
        document.firstBlock().setUserState(state)  # the time of the paragraph that is first now
        self.gone += gone
        self._word_times.forget_before(self.gone)
        return gone, height

    def _append(self, word: Word, source: str) -> None:
        self._write(word.text.strip(), word, source, tentative=False)
        self._speaker, self._final_end_s = source, word.end_s

    def _append_tail(self, words: tuple[Word, ...], source: str) -> int:
        text = " ".join(word.text.strip() for word in words)
        return self._write(text, words[0], source, tentative=True) if words else 0

    def _write(self, text: str, first: Word, source: str, tentative: bool) -> int:
        """Add words at the end, in a paragraph of their own after a pause or when another speaks.

        Returns the length of what was added, in Qt's units; the whole text cannot tell: the oldest paragraph may go.
        """
        cursor, other = self._end(), source != self._speaker
        before = cursor.position()
        if self._final_end_s is None and cursor.atStart():
            self._style_block(cursor, first)
        elif other or self._pause_before(first) or _is_full(cursor.block()):
            cursor.insertBlock()
            self._style_block(cursor, first)
        else:
            text = " " + text
        label = f"{SPEAKERS[source]}: " if other or (source == OTHERS and cursor.atBlockStart()) else ""
        cursor.insertText(label, self._format(tentative=True))
        if not tentative and source == SPEECH:  # of the others no sound is kept
            self._word_times.add(self.gone + cursor.blockNumber(), cursor.positionInBlock(), first.start_s)
        cursor.insertText(text, self._format(tentative))
        return cursor.position() - before

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

    def _recolour(self) -> None:
        cursor = QTextCursor(self.document())
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.mergeCharFormat(self._format(tentative=False))
        if self._tail_length:
            self._tail_cursor().mergeCharFormat(self._format(tentative=True))

    def _format(self, tentative: bool) -> QTextCharFormat:
        form = QTextCharFormat()
        form.setForeground(self._colours[int(tentative)])
        return form

    def _style_block(self, cursor: QTextCursor, first: Word) -> None:
        form = QTextBlockFormat()
        form.setLineHeight(LINE_PERCENT, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
        cursor.setBlockFormat(form)
        began_at_s = self._now_at_s - max(0.0, self._now_s - first.start_s)
        cursor.block().setUserState(int(began_at_s // 60))


def qt_length(text: str) -> int:
    """How many units a text has for Qt, which counts in UTF-16: two for an emoji."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _is_full(block: QTextBlock) -> bool:
    """Whether a paragraph is so long that the next sentence, or at last the next word, begins another."""
    return block.length() > LONGEST_PARAGRAPH or (
        block.length() > LONG_PARAGRAPH and block.text().rstrip()[-1:] in SENTENCE_ENDS
    )
