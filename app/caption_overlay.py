"""Captions in a small frameless window over all others: the last two to four lines, in colours of their own.

Hidden it lays out nothing and draws nothing. Where lines break depends on the paragraph alone, and a line that was once
begun stays, so that words stand still while others come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from PySide6.QtCore import QPoint, QPointF, QRect, Qt, Signal
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QCloseEvent,
    QColor,
    QContextMenuEvent,
    QFont,
    QFontMetricsF,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QScreen,
    QShowEvent,
    QTextCharFormat,
    QTextLayout,
    QWheelEvent,
)
from PySide6.QtWidgets import QMenu, QSizeGrip, QWidget

from app.caption_text import NOTCH, ZOOM_STEP, CaptionText, qt_length
from app.shortcut_keys import bind
from app.theme import scaled_font

LEAST_LINES, MOST_LINES = 2, 4
PADDING, RADIUS = 14, 12
FONT_FACTOR, LEAST_ZOOM, MOST_ZOOM = 1.9, -5, 9
LINE_FACTOR = 1.25
SMALLEST_WIDTH, USUAL_WIDTH, EDGE = 240, 900, 48
NO_LINE = -1
STEP = 16  # pixels, by an arrow key
TENTATIVE_ALPHA = 0.68
OUTLINED_BELOW_PERCENT = 60  # a backdrop that lets more through leaves words that need an edge of its colour
OUTLINE = [QPointF(x, y) for x in (-1.5, 0.0, 1.5) for y in (-1.5, 0.0, 1.5) if x or y]
OPACITIES_PERCENT = (0, 25, 50, 75, 90, 100)
INKS = {"White": "#ffffff", "Yellow": "#ffe680", "Green": "#a5f0b4", "Cyan": "#a0ecf5", "Black": "#111111"}
BACKDROPS = {"Black": "#000000", "Grey": "#3a4046", "Blue": "#10203c", "White": "#ffffff"}
T = TypeVar("T")
MOVES = {
    Qt.Key.Key_Left: QPoint(-STEP, 0),
    Qt.Key.Key_Right: QPoint(STEP, 0),
    Qt.Key.Key_Up: QPoint(0, -STEP),
    Qt.Key.Key_Down: QPoint(0, STEP),
}
WAYLAND = (
    "On Wayland the desktop decides what stays on top: choose Always on Top in the overlay's window menu (Alt+Space), "
    "or let OBS capture that window."
)


@dataclass(frozen=True)
class Look:
    """How the overlay looks. opacity_percent: of the backdrop alone; the words are always whole."""

    ink: str = INKS["White"]
    backdrop: str = BACKDROPS["Black"]
    opacity_percent: int = 75
    zoom: int = 0


class Row(NamedTuple):
    """A line to show: its paragraph, the same in the colour of its edge, its number there; NO_LINE is left empty."""

    layout: QTextLayout
    edge: QTextLayout | None
    number: int


def desktop_note(platform: str) -> str:
    """What must be said about staying on top on this platform (QGuiApplication.platformName()); empty for nothing."""
    return WAYLAND if platform.startswith("wayland") else ""


class CaptionOverlay(QWidget):
    """The last lines of a CaptionText. Remembers place, size and look as long as it lives."""

    closed = Signal()  # the person closed it

    def __init__(self, text: CaptionText) -> None:
        super().__init__(None, Qt.WindowType.FramelessWindowHint | Qt.WindowType.WindowStaysOnTopHint)
        self.look = Look()
        self._text = text
        self._rows: list[Row] = []
        self._held = (-1, 0)  # the last paragraph's number, and how many lines it has had
        self._grabbed: QPoint | None = None
        self._placed = False
        self._wheel = 0
        self.setWindowTitle("Sottovoce captions")
        self.setAccessibleName("Captions over other windows")
        self.setAccessibleDescription("Arrow keys move it, with Shift they size it; the menu key sets its look")
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        bind(self, "larger_text", lambda: self._zoom(1))
        bind(self, "smaller_text", lambda: self._zoom(-1))
        bind(self, "usual_text", lambda: self.set_look(replace(self.look, zoom=0)))
        bind(self, "overlay", self.closed.emit)
        self._grip = QSizeGrip(self)
        self._grip.setStyleSheet("background: transparent; image: none;")
        self._grip.setToolTip("Drag to size")
        self._fit()
        text.shown.connect(self.refresh)
        text.replaced.connect(self.refresh)

    # Opening and closing ----------------------------------------------------------------------------------------------

    def open_overlay(self, screen: QScreen) -> None:
        """Show it where it was, at first at the bottom of this screen. It can be reached by the mouse again."""
        if not self._placed:
            room = screen.availableGeometry()
            width = min(USUAL_WIDTH, room.width() - 2 * EDGE)
            self.resize(width, self._height(3))
            self.move(room.center().x() - width // 2, room.bottom() - self.height() - EDGE)
            self._placed = True
        self.set_click_through(False)
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()

    @property
    def click_through(self) -> bool:
        """Whether the mouse reaches what lies below."""
        return bool(self.windowFlags() & Qt.WindowType.WindowTransparentForInput)

    def set_click_through(self, on: bool) -> None:
        """Let the mouse through to what lies below. Opening the overlay anew ends that."""
        if on == self.click_through:
            return
        place, visible = self.geometry(), self.isVisible()
        self.setWindowFlag(Qt.WindowType.WindowTransparentForInput, on)  # hides it
        self.setGeometry(place)
        self._grip.setVisible(not on)
        self.setVisible(visible)

    def set_look(self, look: Look) -> None:
        """Other colours or letters; the number of lines stays."""
        lines, zoomed = self.lines, look.zoom != self.look.zoom
        self.look = replace(look, zoom=min(max(LEAST_ZOOM, look.zoom), MOST_ZOOM))
        if zoomed:
            self._fit()
            self.set_lines(lines)
        self.refresh()

    @property
    def lines(self) -> int:
        """How many lines have room."""
        return min(max(LEAST_LINES, int((self.height() - 2 * PADDING + 1) / self._line_height())), MOST_LINES)

    def set_lines(self, lines: int) -> None:
        """Make it as high as this many lines; the lower edge stays."""
        height = self._height(lines)
        self.setGeometry(self.x(), self.y() + self.height() - height, self.width(), height)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    def closeEvent(self, event: QCloseEvent) -> None:
        """The desktop closes it, at the person's wish."""
        super().closeEvent(event)
        self.closed.emit()

    # Words ------------------------------------------------------------------------------------------------------------

    def shown_lines(self) -> list[str]:
        """The lines that are on the screen, oldest first; an empty one is kept for words that may come back."""
        return [_line_text(row) for row in self._rows]

    def refresh(self) -> None:
        """Lay out the newest words anew, where they are seen."""
        if not self.isVisible():
            return
        width = self.width() - 2.0 * PADDING
        font = self._font()
        rows: list[Row] = []
        outlined = self.look.opacity_percent < OUTLINED_BELOW_PERCENT
        paragraphs = self._text.last_paragraphs(self.lines)
        for at, (text, final) in enumerate(paragraphs):
            layout = _laid_out(text, final, font, width, _with_alpha(self.look.ink, TENTATIVE_ALPHA))
            edge = _laid_out(text, 0, font, width, QColor(self.look.backdrop)) if outlined else None
            rows += [Row(layout, edge, number) for number in range(layout.lineCount())]
            if at == len(paragraphs) - 1:
                rows += [Row(layout, edge, NO_LINE)] * self._held_back(layout.lineCount())
        self._rows = rows[-self.lines :]
        self.update()

    def _held_back(self, lines: int) -> int:
        """How many lines the last paragraph has lost since it was longest: tentative words went, others come."""
        number, most = self._held
        now = self._text.document().blockCount()
        most = max(lines, most) if number == now else lines
        self._held = (now, most)
        return most - lines

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        backdrop = _with_alpha(self.look.backdrop, max(self.look.opacity_percent, 1) / 100.0)  # nothing takes no mouse
        painter.setPen(QPen(QColor(128, 128, 128), 1.0) if self.hasFocus() else Qt.PenStyle.NoPen)
        painter.setBrush(backdrop)
        painter.drawRoundedRect(self.rect().adjusted(0, 0, -1, -1), RADIUS, RADIUS)
        painter.setPen(QColor(self.look.ink))
        height, top = self._line_height(), self.height() - PADDING - len(self._rows) * self._line_height()
        for at, row in enumerate(self._rows):
            if row.number == NO_LINE:
                continue
            place = QPointF(PADDING, top + at * height)
            if row.edge is not None:
                for offset in OUTLINE:
                    row.edge.lineAt(row.number).draw(painter, place + offset)
            row.layout.lineAt(row.number).draw(painter, place)

    # Mouse and keys ---------------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Drag it anywhere: the desktop moves it where it can."""
        if event.button() is not Qt.MouseButton.LeftButton:
            return
        if not self.windowHandle().startSystemMove():
            self._grabbed = event.globalPosition().toPoint() - self.pos()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._grabbed is not None:
            self.move(event.globalPosition().toPoint() - self._grabbed)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._grabbed = None

    def wheelEvent(self, event: QWheelEvent) -> None:
        """With Ctrl, the size of the letters."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._wheel += event.angleDelta().y()
            steps = int(self._wheel / NOTCH)
            self._wheel -= steps * NOTCH
            self._zoom(steps)

    def _zoom(self, steps: int) -> None:
        self.set_look(replace(self.look, zoom=self.look.zoom + steps))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, modifiers = Qt.Key(event.key()), event.modifiers()
        shift = bool(modifiers & Qt.KeyboardModifier.ShiftModifier)
        if key in MOVES:
            by = MOVES[key]
            if shift:
                self.resize(self.width() + by.x(), self.height() + by.y())
            else:
                self.move(self.pos() + by)
        elif key == Qt.Key.Key_Escape:
            self.closed.emit()
        else:
            super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        menu = self.menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(event.globalPos())

    def menu(self) -> QMenu:
        """All that can be set, by mouse or keyboard."""
        menu, look = QMenu(self), self.look
        self._offer(menu, "Lines", {str(n): n for n in range(LEAST_LINES, MOST_LINES + 1)}, self.lines, self.set_lines)
        self._offer(menu, "Letters", INKS, look.ink, lambda ink: self.set_look(replace(self.look, ink=ink)))
        self._offer(
            menu,
            "Backdrop",
            BACKDROPS,
            look.backdrop,
            lambda colour: self.set_look(replace(self.look, backdrop=colour)),
        )
        self._offer(
            menu,
            "Opacity of the backdrop",
            {f"{percent} %": percent for percent in OPACITIES_PERCENT},
            look.opacity_percent,
            lambda percent: self.set_look(replace(self.look, opacity_percent=percent)),
        )
        for label, zoom in (("Larger", look.zoom + 1), ("Smaller", look.zoom - 1), ("Usual size", 0)):
            menu.addAction(label).triggered.connect(
                lambda _=False, zoom=zoom: self.set_look(replace(self.look, zoom=zoom))
            )
        menu.addSeparator()
        through = menu.addAction("Let the mouse through, until opened anew")
        through.triggered.connect(lambda: self.set_click_through(True))
        menu.addAction("Close").triggered.connect(self.closed)
        return menu

    @staticmethod
    def _offer(menu: QMenu, title: str, choices: Mapping[str, T], now: T, choose: Callable[[T], None]) -> None:
        """A sub-menu of which one is chosen."""
        part = menu.addMenu(title)
        group = QActionGroup(part)
        for label, value in choices.items():
            action: QAction = part.addAction(label)
            action.setCheckable(True)
            action.setChecked(value == now)
            group.addAction(action)
            action.triggered.connect(lambda _=False, value=value: choose(value))

    # Sizes ------------------------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._held = (-1, 0)
        size = self._grip.sizeHint()
        self._grip.setGeometry(QRect(QPoint(self.width() - size.width(), self.height() - size.height()), size))
        if self.isVisible():
            self.refresh()

    def _font(self) -> QFont:
        return scaled_font(FONT_FACTOR * ZOOM_STEP**self.look.zoom)

    def _line_height(self) -> float:
        return QFontMetricsF(self._font()).height() * LINE_FACTOR

    def _height(self, lines: int) -> int:
        return round(lines * self._line_height()) + 2 * PADDING

    def _fit(self) -> None:
        """No smaller than two lines, no higher than four."""
        self.setMinimumSize(SMALLEST_WIDTH, self._height(LEAST_LINES))
        self.setMaximumHeight(self._height(MOST_LINES))


def _with_alpha(colour: str, alpha: float) -> QColor:
    made = QColor(colour)
    made.setAlphaF(alpha)
    return made


def _laid_out(text: str, from_: int, font: QFont, width: float, colour: QColor) -> QTextLayout:
    """A paragraph broken into lines of this width; from a place on it has the colour, before it the painter's."""
    layout = QTextLayout(text, font)
    coloured = QTextLayout.FormatRange()
    coloured.start, coloured.length = from_, qt_length(text) - from_
    coloured.format = QTextCharFormat()
    coloured.format.setForeground(colour)
    layout.setFormats([coloured])
    layout.beginLayout()
    while (line := layout.createLine()).isValid():
        line.setLineWidth(width)
        line.setPosition(QPointF(0.0, 0.0))
    layout.endLayout()
    return layout


def _line_text(row: Row) -> str:
    if row.number == NO_LINE:
        return ""
    line = row.layout.lineAt(row.number)
    units = row.layout.text().encode("utf-16-le", "surrogatepass")  # Qt counts in these
    begin = 2 * line.textStart()
    return units[begin : begin + 2 * line.textLength()].decode("utf-16-le", "surrogatepass").rstrip()
