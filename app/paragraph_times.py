"""The clock's time at which each paragraph in sight began, in the margin beside it; never part of the text."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QDateTime, QLocale, QPoint, QPointF, QSize, Qt, QTime
from PySide6.QtGui import QColor, QFont, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QTextEdit, QWidget


class ParagraphTimes(QWidget):
    """Lies over the left margin of `text`. colour: gives the one it writes in.

    A paragraph tells when it began, in minutes since 1970, as its block's user state; one that does not know has -1.
    """

    def __init__(self, text: QTextEdit, colour: Callable[[], QColor]) -> None:
        super().__init__(text)
        self._text, self._colour = text, colour
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def sizeHint(self) -> QSize:
        self.setFont(self._small_font())
        return QSize(self.fontMetrics().horizontalAdvance(_clock(QTime(22, 58))) + 14, 1)

    def fit(self) -> None:
        """Lie beside the text as it is now."""
        view = self._text.viewport()
        self.setGeometry(0, view.y(), self.sizeHint().width(), view.height())

    def showEvent(self, event: QShowEvent) -> None:
        self.fit()

    def paintEvent(self, event: QPaintEvent) -> None:
        text = self._text
        painter = QPainter(self)
        painter.setFont(self._small_font())
        painter.setPen(self._colour())
        layout, offset = text.document().documentLayout(), text.verticalScrollBar().value()
        block = text.cursorForPosition(QPoint(0, 0)).block()
        while block.isValid():
            top = layout.blockBoundingRect(block).top() - offset
            if top > self.height():
                break
            line = block.layout().lineAt(0)
            if block.userState() > 0 and line.isValid():
                began = QDateTime.fromSecsSinceEpoch(60 * block.userState()).time()
                painter.drawText(QPointF(2.0, top + line.y() + line.ascent()), _clock(began))
            block = block.next()

    def _small_font(self) -> QFont:
        font = QFont(self._text.font())
        font.setPointSizeF(font.pointSizeF() * 0.78)
        return font


def _clock(time: QTime) -> str:
    return QLocale().toString(time, QLocale.FormatType.ShortFormat)
