"""One picture on a time axis: a heading above it, labels beside it, and as many of them as there is room for."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QMouseEvent, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from app.theme import Lut, Theme, scaled_font

WINDOW_S = 12.0
TICK_S = 2.0
AXIS_WIDTH = 46
RIGHT_MARGIN = 16  # room for half of the last label
HEAD_SPACING = 3
TICK_FONT = 0.85
LABEL_ROOM = 0.85  # of a line's height, from one label beside the picture to the next

Ticks = list[tuple[float, str]]  # row, label


def clock(time_s: float) -> str:
    """Seconds as 1:02.34."""
    minutes, seconds = divmod(max(0.0, time_s), 60.0)
    return f"{int(minutes)}:{seconds:05.2f}"


class TimedPlot(pg.PlotWidget):  # type: ignore[misc]  # pyqtgraph has no types
    """A plot that knows how long its paints keep the thread busy; the wheel belongs to the time axis, not to a zoom."""

    wheeled = Signal(int)
    clicked = Signal(QPointF)  # where, in the scene
    left = Signal()

    def __init__(self) -> None:
        super().__init__(background=None)
        self.paint_ms: deque[float] = deque(maxlen=300)

    def paintEvent(self, event: QPaintEvent) -> None:
        begin = time.thread_time()
        super().paintEvent(event)
        self.paint_ms.append(1000.0 * (time.thread_time() - begin))

    def wheelEvent(self, event: QWheelEvent) -> None:
        self.wheeled.emit(event.angleDelta().y() or event.angleDelta().x())
        event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        if event.button() is Qt.MouseButton.LeftButton:
            self.clicked.emit(self.mapToScene(event.position().toPoint()))

    def leaveEvent(self, event: QEvent) -> None:
        self.left.emit()
        super().leaveEvent(event)


class TimeView(QWidget):
    """One picture with a heading above it: time along the bottom, newest at the right, `rows` up the side."""

    hovered = Signal(float)  # seconds before the right edge; NaN when the pointer left
    clicked = Signal(float)  # the same

    def __init__(self, title: str, note: str, described: str) -> None:
        super().__init__()
        self.title = QLabel(title)
        self.title.setFont(scaled_font(0.95, bold=True))
        self.note = QLabel(note)
        self.readout = QLabel()
        for label in (self.note, self.readout):
            label.setFont(scaled_font(0.9))
            label.setProperty("tone", "muted")
        self.readout.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.readout.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.plot = TimedPlot()
        self.plot.setAccessibleName(title)
        self.plot.setAccessibleDescription(described)
        self.plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.plot.setMinimumHeight(1)  # the views share the height out
        self.image = pg.ImageItem(axisOrder="row-major")
        self.pointer = pg.InfiniteLine(angle=90, movable=False)
        self.pointer.hide()
        self.last_scene = QPointF()
        self._lut: Lut = np.zeros((256, 4), dtype=np.uint8)
        self._rows = 1
        self._ticks: Ticks = []
        self._arrange()
        self._prepare_plot()

    def _arrange(self) -> None:
        head = self.head = QHBoxLayout()
        head.setContentsMargins(AXIS_WIDTH + 2, 0, 4, 0)
        head.setSpacing(10)
        head.addWidget(self.title)
        head.addWidget(self.note)
        head.addWidget(self.readout, 1)  # takes what is left, so that a longer text needs no new layout
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(HEAD_SPACING)
        box.addLayout(head)
        box.addWidget(self.plot, 1)

    def _prepare_plot(self) -> None:
        item = self.plot.getPlotItem()
        item.addItem(self.image)
        item.addItem(self.pointer)
        item.setMenuEnabled(False)
        item.hideButtons()
        item.setMouseEnabled(False, False)
        item.setContentsMargins(0, 0, RIGHT_MARGIN, 0)
        item.setXRange(-WINDOW_S, 0.0, padding=0)
        item.showAxis("bottom", False)
        self._prepare_axis()
        left = item.getAxis("left")
        left.setWidth(AXIS_WIDTH)
        left.setStyle(tickLength=0, tickAlpha=0, tickFont=scaled_font(TICK_FONT))
        item.vb.sigResized.connect(lambda _: self._fit_ticks())
        self.plot.scene().sigMouseMoved.connect(self._moved)
        self.plot.clicked.connect(self._clicked)
        self.plot.left.connect(lambda: self.hovered.emit(float("nan")))

    def show_time_axis(self, shown: bool) -> None:
        """Label the time below this view, or do not."""
        self.plot.getPlotItem().showAxis("bottom", shown)

    def overhead_px(self, with_axis: bool) -> int:
        """How much of the height is heading, and labels of the time."""
        return self.head.sizeHint().height() + HEAD_SPACING + (self._axis_px() if with_axis else 0)

    def _axis_px(self) -> int:
        return round(self.fontMetrics().height() * 1.3)

    def _prepare_axis(self) -> None:
        axis = self.plot.getPlotItem().getAxis("bottom")
        seconds = np.arange(0.0, WINDOW_S + 0.1, TICK_S)
        axis.setTicks([[(-s, "now" if s == 0 else f"{s:.0f} s ago") for s in seconds if s < WINDOW_S]])
        axis.setStyle(tickLength=0, tickAlpha=0, tickFont=scaled_font(TICK_FONT), hideOverlappingLabels=False)
        axis.setHeight(self._axis_px())

    def set_rows(self, rows: int, ticks: Ticks) -> None:
        """How many rows the picture has, and the labels beside them, the most wanted first."""
        self._rows, self._ticks = rows, ticks
        self.plot.getPlotItem().setYRange(0, rows, padding=0)
        self._fit_ticks()

    def _fit_ticks(self) -> None:
        """The labels that fit above each other, each whole."""
        item = self.plot.getPlotItem()
        height, line = item.vb.height(), QFontMetricsF(scaled_font(TICK_FONT)).height()
        if height < line:
            item.getAxis("left").setTicks([[]])
            return
        kept: Ticks = []
        for row, label in self._ticks:
            at = min(max(row * height / self._rows, line / 2), height - line / 2)
            if all(abs(at - other) >= LABEL_ROOM * line for other, _ in kept):
                kept.append((at, label))
        item.getAxis("left").setTicks([[(at * self._rows / height, label) for at, label in kept]])

    def set_theme(self, theme: Theme) -> None:
        """Colours of frame and lettering."""
        self.plot.setBackground(theme.panel)
        item = self.plot.getPlotItem()
        item.vb.setBackgroundColor(theme.ramp[0])
        for name in ("left", "bottom"):
            axis = item.getAxis(name)
            axis.setPen(pg.mkPen(None))
            axis.setTickPen(pg.mkPen(None))
            axis.setTextPen(theme.muted)
        self.pointer.setPen(pg.mkPen(theme.text, width=1))

    def point_at(self, seconds: float) -> None:
        """Show the pointer's line at a time before the right edge; NaN hides it."""
        self.pointer.setVisible(not np.isnan(seconds))
        if not np.isnan(seconds):
            self.pointer.setPos(seconds)

    def row_at(self, scene: QPointF) -> int:
        """The row of the picture under a point of the scene."""
        return int(np.clip(self.plot.getPlotItem().vb.mapSceneToView(scene).y(), 0, self._rows - 1))

    def _moved(self, scene: QPointF) -> None:
        box = self.plot.getPlotItem().vb
        inside = box.sceneBoundingRect().contains(scene)
        self.last_scene = scene
        self.hovered.emit(float(box.mapSceneToView(scene).x()) if inside else float("nan"))

    def _clicked(self, scene: QPointF) -> None:
        box = self.plot.getPlotItem().vb
        if box.sceneBoundingRect().contains(scene):
            self.clicked.emit(float(box.mapSceneToView(scene).x()))

    def _paint(self, numbers: NDArray[Any]) -> None:
        """Show a picture of colours' numbers [columns, rows], rows from the bottom.

        They are looked up here, a word each: Qt is slower, and so are bytes one by one.
        """
        words = self._lut.view(np.uint32)[:, 0]
        picture = words[np.ascontiguousarray(numbers.T)].view(np.uint8).reshape(*numbers.T.shape, 4)
        self.image.setImage(picture, autoLevels=False, levels=None)
        self.image.setRect(QRectF(-WINDOW_S, 0.0, WINDOW_S, self._rows))
