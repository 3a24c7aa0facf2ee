"""Boxes whose marks a style sheet alone cannot draw: the tick of one that is ticked, the arrows of a number."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRect
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QPen, QWheelEvent
from PySide6.QtWidgets import QCheckBox, QDoubleSpinBox, QStyle, QStyleOptionButton, QStyleOptionSpinBox

PEN_PX = 1.6


class TickBox(QCheckBox):
    """A check box with a tick in it, so that its state is not told by colour alone."""

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self.isChecked():
            return
        option = QStyleOptionButton()
        self.initStyleOption(option)
        box = self.style().subElementRect(QStyle.SubElement.SE_CheckBoxIndicator, option, self)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.HighlightedText), PEN_PX))
        middle, unit = QRect(box).toRectF().center(), box.width() / 16.0
        corners = ((-4.0, 0.2), (-1.3, 3.0), (4.2, -3.4))
        painter.drawPolyline([QPointF(middle.x() + x * unit, middle.y() + y * unit) for x, y in corners])


class NumberBox(QDoubleSpinBox):
    """A number with a chevron for more and one for less; the wheel passes by unless the keys are on it."""

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        option = QStyleOptionSpinBox()
        self.initStyleOption(option)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.PlaceholderText), PEN_PX))
        for part, up in ((QStyle.SubControl.SC_SpinBoxUp, 1.8), (QStyle.SubControl.SC_SpinBoxDown, -1.8)):
            room = self.style().subControlRect(QStyle.ComplexControl.CC_SpinBox, option, part, self)
            x, y = room.toRectF().center().x(), room.toRectF().center().y() + up / 2
            painter.drawPolyline([QPointF(x - 3.5, y + up), QPointF(x, y - up), QPointF(x + 3.5, y + up)])

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()
