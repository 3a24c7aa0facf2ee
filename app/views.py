"""A look inside: what was heard and what is sent, and the tokens between them, on one time axis.

The views pull from a Timeline at their own rate and touch only the columns that are on screen. Newest is at the right.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QMouseEvent, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from app.shortcut_keys import bind_button
from app.theme import (
    CODE_COLOURS,
    DIM_STEPS,
    NO_CODE,
    SWAPPED,
    Lut,
    Theme,
    background_lut,
    ramp_lut,
    scaled_font,
    voice_lut,
)
from app.timeline import BANDS, ColumnRing, Timeline, mel

WINDOW_S = 12.0
TICK_S = 2.0
AXIS_WIDTH = 46
RIGHT_MARGIN = 16  # room for half of the last label
LEAST_BOOK = 32  # codes a row is taken to have until more are seen
CUT_PART = 0.4  # of a line: a label that is nearer to the edge would be cut
FREQUENCY_TICKS_HZ = (500, 1000, 2000, 4000)

Picture = NDArray[np.uint8]
TREATED_TEXT = {0: "kept", DIM_STEPS: "dropped", SWAPPED: "swapped for another place's"}


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
        self.plot.setMinimumHeight(36)
        self.image = pg.ImageItem(axisOrder="row-major")
        self.pointer = pg.InfiniteLine(angle=90, movable=False)
        self.pointer.hide()
        self.last_scene = QPointF()
        self._lut: Lut = np.zeros((256, 4), dtype=np.uint8)
        self._rows = 1
        self._ticks: list[tuple[float, str]] = []
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
        box.setSpacing(3)
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
        left = item.getAxis("left")
        left.setWidth(AXIS_WIDTH)
        left.setStyle(tickLength=0, tickAlpha=0, tickFont=scaled_font(0.85))
        item.vb.sigResized.connect(self._show_ticks)
        self.plot.scene().sigMouseMoved.connect(self._moved)
        self.plot.clicked.connect(self._clicked)
        self.plot.left.connect(lambda: self.hovered.emit(float("nan")))

    def show_time_axis(self) -> None:
        """Label the time below this view."""
        axis = self.plot.getPlotItem().getAxis("bottom")
        seconds = np.arange(0.0, WINDOW_S + 0.1, TICK_S)
        axis.setTicks([[(-s, "now" if s == 0 else f"{s:.0f} s ago") for s in seconds if s < WINDOW_S]])
        axis.setStyle(tickLength=0, tickAlpha=0, tickFont=scaled_font(0.85), hideOverlappingLabels=False)
        axis.setHeight(round(self.fontMetrics().height() * 1.3))
        self.plot.getPlotItem().showAxis("bottom", True)

    def set_rows(self, rows: int, ticks: list[tuple[float, str]]) -> None:
        """How many rows the picture has, and the labels beside them."""
        self._rows = rows
        item = self.plot.getPlotItem()
        item.setYRange(0, rows, padding=0)
        self._ticks = ticks
        self._show_ticks()

    def _show_ticks(self) -> None:
        """As many labels as there is room for."""
        item = self.plot.getPlotItem()
        row_px = item.vb.boundingRect().height() / self._rows
        line_px = QFontMetricsF(scaled_font(0.85)).height()
        shown: list[tuple[float, str]] = []
        for at, text in self._ticks:
            inside = min(at, self._rows - at) * row_px >= CUT_PART * line_px
            if inside and all(abs(at - other) * row_px >= line_px for other, _ in shown):
                shown.append((at, text))
        item.getAxis("left").setTicks([shown])

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

    def _paint(self, picture: Picture) -> None:
        """Show a picture [rows, columns, RGBA], rows from the bottom. Colours are looked up here: Qt is slower."""
        self.image.setImage(picture, autoLevels=False, levels=None)
        self.image.setRect(QRectF(-WINDOW_S, 0.0, WINDOW_S, self._rows))


class SpectrogramView(TimeView):
    """A spectrogram; `ring` finds its columns in the timeline."""

    def __init__(self, title: str, note: str, ring: Callable[[Timeline], ColumnRing]) -> None:
        super().__init__(title, note, f"Spectrogram, {note}")
        self._ring = ring
        top = float(mel(8000.0))
        ticks = [(float(mel(hz)) / top * BANDS, f"{hz / 1000:g} kHz") for hz in FREQUENCY_TICKS_HZ]
        self.set_rows(BANDS, ticks[1:])

    def set_theme(self, theme: Theme) -> None:
        super().set_theme(theme)
        self._lut = ramp_lut(theme.ramp)

    def refresh(self, timeline: Timeline, end: int, count: int) -> None:
        """Show `count` columns before number `end`."""
        self._paint(self._lut[self._ring(timeline).view(end, count).T])

    def tell(self, timeline: Timeline, column: int, scene: QPointF) -> str:
        """What is under the pointer."""
        share = (self.row_at(scene) + 0.5) / BANDS
        hz = 700.0 * (10.0 ** (share * float(mel(8000.0)) / 2595.0) - 1.0)
        return f"{clock(column * timeline.hop_s)}   {hz:,.0f} Hz"


class RasterView(TimeView):
    """Codes as colours, quantizers by frames, the first quantizer at the top."""

    def __init__(self, title: str, note: str, ring: Callable[[Timeline], ColumnRing | None], treated: bool) -> None:
        super().__init__(title, note, f"Tokens, {note}; point at one for its code and time")
        self._ring = ring
        self._treated = treated
        self._books = np.zeros(0, dtype=np.int64)

    def set_theme(self, theme: Theme) -> None:
        super().set_theme(theme)
        self._lut = background_lut(theme) if self._treated else voice_lut(theme)

    def refresh(self, timeline: Timeline, end: int, count: int) -> None:
        """Show `count` frames before number `end`."""
        ring = self._ring(timeline)
        if ring is None:
            self.image.clear()
            return
        codes = ring.view(end, count).astype(np.int64)
        treated = (
            timeline.treated.view(end, count).astype(np.int64) if self._treated else np.zeros((count, 1), np.int64)
        )
        self._fit(codes)
        colours = np.where(codes < 0, NO_CODE, codes * CODE_COLOURS // self._books)
        index = treated * (CODE_COLOURS + 1) + colours
        self._paint(self._lut[index.T[::-1]])

    def tell(self, timeline: Timeline, column: int, scene: QPointF) -> str:
        """What is under the pointer."""
        ring = self._ring(timeline)
        if ring is None:
            return ""
        row = ring.rows - 1 - self.row_at(scene)
        code = int(ring.view(column + 1, 1)[0, row])
        words = [clock(column * timeline.hop_s), f"quantizer {row + 1}", f"code {code}" if code >= 0 else "left out"]
        if self._treated:
            words.append(_treated_text(int(timeline.treated.view(column + 1, 1)[0, 0])))
        return "   ".join(words)

    def _fit(self, codes: NDArray[np.int64]) -> None:
        """Grow what each row's codebook is taken to hold, by powers of two, so that colours rarely change."""
        if len(self._books) != codes.shape[1]:
            self._books = np.full(codes.shape[1], LEAST_BOOK, dtype=np.int64)
            rows = codes.shape[1]
            self.set_rows(rows, [(rows * 0.9, "1"), (rows * 0.1, str(rows))])
        most = codes.max(axis=0)
        while (short := most >= self._books).any():
            self._books[short] *= 2


def _treated_text(step: int) -> str:
    return TREATED_TEXT.get(step, "turned down")


class InsideView(QFrame):
    """All views above each other on one time axis, with pause and a scroll back through five minutes.

    asked: somebody wants to hear from a time on, in seconds on the engine's clock, what was sent or what was heard.
    """

    asked = Signal(float, bool)

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.setObjectName("card")
        self.timeline = timeline
        self.refresh_ms: deque[float] = deque(maxlen=300)
        self._end: int | None = None  # the right edge; None follows the newest
        self._shown: tuple[int, int] = (-1, -1)
        self._pointed: tuple[TimeView, float] | None = None
        self._source_note = "from the microphone"
        self.heard = SpectrogramView("Heard", "from the microphone", lambda t: t.heard)
        self.sent = SpectrogramView("Sent", "to the output", lambda t: t.sent)
        self.voice = RasterView("Voice tokens", "what is said, and by whom", lambda t: t.voice, False)
        self.background = RasterView("Background tokens", "the world around it", lambda t: t.background, True)
        self.views: tuple[SpectrogramView | RasterView, ...] = (self.heard, self.sent, self.voice, self.background)
        self.live = QToolButton()
        self._arrange()

    def _arrange(self) -> None:
        self.live.setObjectName("quiet")
        self.live.setText("Pause")
        self.live.setCheckable(True)
        tip = "Hold the pictures still ({}). Turn the wheel over them to go back, up to 5 minutes."
        bind_button(self.live, "pause_pictures", tip)
        self.live.setAccessibleName("Pause the pictures")
        self.live.toggled.connect(self._pause)
        self.live.setParent(self)
        box = QVBoxLayout(self)
        box.setContentsMargins(8, 10, 10, 8)
        box.setSpacing(8)
        for view, share in zip(self.views, (5, 5, 4, 4)):
            box.addWidget(view, share)
            view.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
            view.hovered.connect(lambda s, v=view: self._hover(v, s))
            view.plot.wheeled.connect(self._scroll)
            view.clicked.connect(lambda s, v=view: self.asked.emit(self._time_of(s), v is not self.heard))
        self.heard.head.addWidget(self.live)
        self.views[-1].show_time_axis()

    def set_theme(self, theme: Theme) -> None:
        """Colours of every view."""
        for view in self.views:
            view.set_theme(theme)
        self._shown = (-1, -1)

    def set_source_note(self, note: str) -> None:
        """Say where the sound comes from."""
        self._source_note = note
        self._note_time()

    def set_background_note(self, background: str, title: str = "") -> None:
        """Say in words what becomes of the background tokens."""
        step_text = {"keep": "kept", "drop": "dropped"}.get(background)
        if step_text is None:
            step_text = (
                f"swapped for {title.lower()}"
                if background.startswith("swap:")
                else f"turned down by {background.lstrip('-')} dB"
            )
        self.background.note.setText(step_text)

    def refresh(self) -> None:
        """Repaint what changed; nothing when nothing is new or nobody can see it."""
        end = self.timeline.head if self._end is None else self._end
        mark = (id(self.timeline.heard), end)
        if mark == self._shown or not self.isVisible() or self.window().isMinimized():
            return
        begin = time.thread_time()
        self._shown = mark
        count = round(WINDOW_S / self.timeline.hop_s)
        for view in self.views:
            view.refresh(self.timeline, end, count)
        self._tell()
        self.refresh_ms.append(1000.0 * (time.thread_time() - begin))

    def repaint_ms(self) -> float:
        """Median of the GUI thread's own time for a frame: making the pictures and painting them all."""
        if not self.refresh_ms:
            return 0.0
        paints = sum(float(np.median(view.plot.paint_ms)) for view in self.views if view.plot.paint_ms)
        return float(np.median(self.refresh_ms)) + paints

    def _pause(self, paused: bool) -> None:
        self._end = self.timeline.head if paused else None
        self.live.setText("Back to now" if paused else "Pause")
        self._note_time()
        self.refresh()

    def _scroll(self, angle: int) -> None:
        """Turn the wheel: a second per notch, into the past or back."""
        step = round(angle / 120.0 / self.timeline.hop_s)
        end = (self.timeline.head if self._end is None else self._end) - step
        if end >= self.timeline.head:
            self.live.setChecked(False)
            return
        self.live.setChecked(True)
        self._scroll_to(end)

    def _scroll_to(self, end: int) -> None:
        least = min(self.timeline.tail + round(WINDOW_S / self.timeline.hop_s), self.timeline.head)
        self._end = max(end, least)
        self._note_time()
        self.refresh()

    def show_moment(self, at_s: float) -> None:
        """Hold the pictures still with this time in the middle, on the engine's clock."""
        half = round(WINDOW_S / 2 / self.timeline.hop_s)
        end = round(at_s / self.timeline.hop_s) + half
        self.live.setChecked(True)
        self._scroll_to(min(end, self.timeline.head))
        for view in self.views:
            view.point_at(at_s - self._time_of(0.0))

    def _time_of(self, seconds: float) -> float:
        """The engine's clock at a time before the right edge."""
        end = self.timeline.head if self._end is None else self._end
        return end * self.timeline.hop_s + seconds

    def _note_time(self) -> None:
        at = "" if self._end is None else f", paused at {clock(self._end * self.timeline.hop_s)}"
        self.heard.note.setText(self._source_note + at)

    def _hover(self, view: TimeView, seconds: float) -> None:
        self._pointed = None if np.isnan(seconds) else (view, seconds)
        for each in self.views:
            each.point_at(seconds)
        self._tell()

    def _tell(self) -> None:
        """Code and time under the pointer, above the view that it is in."""
        for view in self.views:
            text = ""
            if self._pointed is not None and self._pointed[0] is view:
                end = self.timeline.head if self._end is None else self._end
                column = int(np.floor(end + self._pointed[1] / self.timeline.hop_s))
                if self.timeline.tail <= column < self.timeline.head:
                    text = view.tell(self.timeline, column, view.last_scene)
            view.readout.setText(text)
