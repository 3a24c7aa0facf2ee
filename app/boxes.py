"""Boxes to choose from: one that suits the window, and one of devices, which come and go."""

from __future__ import annotations

from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QEnterEvent, QFocusEvent, QPainter, QPaintEvent, QPalette, QPen, QWheelEvent
from PySide6.QtWidgets import QComboBox, QStyle, QStyledItemDelegate, QStyleOptionComboBox, QStylePainter

GONE = " (gone)"
MOST_WIDTH = 640
LIST_EDGES = 24  # beside the text of a list: its edges and its scroll bar


class QuietComboBox(QComboBox):
    """A combo box with a small chevron, which the style sheet alone cannot draw; the wheel passes by."""

    def __init__(self) -> None:
        super().__init__()
        self.setItemDelegate(QStyledItemDelegate(self))  # the usual one does not read the style sheet

    def showPopup(self) -> None:
        """The list is as wide as what is in it."""
        view = self.view()
        view.setMinimumWidth(min(MOST_WIDTH, view.sizeHintForColumn(0) + LIST_EDGES))
        super().showPopup()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        option.currentText = self.fontMetrics().elidedText(
            self.currentText(), Qt.TextElideMode.ElideRight, field.width() - 6
        )
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.PlaceholderText), 1.6))
        x, y = self.width() - 16.0, self.height() / 2
        painter.drawPolyline([QPointF(x - 4, y - 2), QPointF(x, y + 2), QPointF(x + 4, y - 2)])

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class DeviceBox(QuietComboBox):
    """A choice of devices by name; data is the device's id. `chosen` is emitted only when a person chooses."""

    chosen = Signal(object)
    looked_at = Signal()  # somebody is about to choose: time to see what is plugged in

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self._names: dict[object, str] = {}  # of all that was ever offered
        self.activated.connect(lambda _: self.chosen.emit(self.currentData()))

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.looked_at.emit()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.looked_at.emit()

    def showPopup(self) -> None:
        self.looked_at.emit()
        super().showPopup()

    def show_choices(self, choices: list[tuple[str, object]], current: object) -> None:
        """Offer (name, data) pairs with one of them chosen; one that has gone stays, and says so."""
        self._names |= {data: text.removesuffix(GONE) for text, data in choices}
        if isinstance(current, str) and current not in (data for _, data in choices):
            choices = [*choices, (f"{self._names.get(current, current)}{GONE}", current)]
        is_new = [(self.itemText(i), self.itemData(i)) for i in range(self.count())] != choices
        is_open = is_new and self.view().isVisible()
        pointed_at = self.itemData(self.view().currentIndex().row())
        if is_open:
            self.hidePopup()
        if is_new:
            self._fill(choices)
        self.setCurrentIndex(max(0, self.findData(current)))
        self.setToolTip(self.currentText())
        if is_open:
            self._open_again(pointed_at)

    def _fill(self, choices: list[tuple[str, object]]) -> None:
        self.clear()
        for text, data in choices:
            self.addItem(text, data)
            self.setItemData(self.count() - 1, text, Qt.ItemDataRole.ToolTipRole)

    def _open_again(self, pointed_at: object) -> None:
        """The list had the size of the former one; who was about to choose goes on where they were."""
        super().showPopup()
        row = self.findData(pointed_at)
        if row >= 0:
            self.view().setCurrentIndex(self.model().index(row, self.modelColumn()))
