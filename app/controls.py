"""Widgets of the left column: the switch, the devices, the meters and the background.

Each emits what the person wants and shows what it is told; none knows the engine.
"""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QWheelEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.boxes import QuietComboBox
from app.shortcut_keys import bind_button
from app.theme import DARK, Theme, scaled_font
from engine.types import BACKGROUND_DB_MAX, BACKGROUND_DB_MIN, Background, BackgroundMode

METER_FLOOR_DB = -60.0
HOT_DB = -3.0
PEAK_FALL_DB = 0.6  # per update
DROP_STEP = int(BACKGROUND_DB_MIN) - 1  # the slider's left end; BACKGROUND_DB_MIN to -1 are dB, 0 is keep
KEEP_STEP = int(BACKGROUND_DB_MAX)
SAME_PLACE = "Where I am"
KNOB_ROOM = 10.0  # from the middle of the slider's knob to the edge, with its ring


class PowerSwitch(QAbstractButton):
    """The one big switch: on, or bypass. Its second line says what that means now."""

    def __init__(self) -> None:
        super().__init__()
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._key = bind_button(self, "power")
        self._theme = DARK
        self._texts = ("Off", "")
        self.show_state("Off", "Nothing is heard or sent")
        self._key.changed.connect(lambda: self.show_state(*self._texts))

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self.update()

    def show_state(self, title: str, sentence: str) -> None:
        """Two lines of lettering; screen readers get both, and the keys."""
        self._texts = (title, sentence)
        self.setAccessibleName(f"Sottovoce: {title}")
        self.setAccessibleDescription(self._key.worded(f"{sentence} ({{}})"))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(240, round(self.fontMetrics().height() * 4.4))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5)
        on, theme = self.isChecked(), self._theme
        face = QColor(theme.accent if on else theme.raised)
        if self.underMouse():
            face = face.lighter(106) if theme.dark else face.darker(104)
        edge = theme.text if self.hasFocus() else (theme.accent if on else theme.line)
        painter.setPen(QPen(QColor(edge), 2.0 if self.hasFocus() else 1.0))
        painter.setBrush(face)
        painter.drawRoundedRect(area, 12, 12)
        ink = QColor(theme.on_accent if on else theme.text)
        self._paint_knob(painter, area, ink)
        self._paint_texts(painter, area, ink)

    def _paint_knob(self, painter: QPainter, area: QRectF, ink: QColor) -> None:
        """The sliding knob at the right."""
        height = min(26.0, area.height() * 0.4)
        track = QRectF(area.right() - height * 1.8 - 16, area.center().y() - height / 2, height * 1.8, height)
        painter.setPen(QPen(ink, 1.6))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(track, height / 2, height / 2)
        knob = height - 8
        x = track.right() - knob - 4 if self.isChecked() else track.left() + 4
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ink)
        painter.drawEllipse(QRectF(x, track.top() + 4, knob, knob))

    def _paint_texts(self, painter: QPainter, area: QRectF, ink: QColor) -> None:
        room = area.adjusted(16, 0, -86, 0)
        title, sentence = self._texts
        painter.setPen(ink)
        painter.setFont(scaled_font(1.35, bold=True))
        high = painter.fontMetrics().height()
        painter.setFont(scaled_font(0.9))
        lines = painter.boundingRect(room, int(Qt.TextFlag.TextWordWrap), sentence).height()
        top = area.center().y() - (high + lines) / 2
        painter.setFont(scaled_font(1.35, bold=True))
        painter.drawText(QRectF(room.left(), top, room.width(), high), Qt.AlignmentFlag.AlignVCenter, title)
        painter.setFont(scaled_font(0.9))
        painter.drawText(
            QRectF(room.left(), top + high, room.width(), lines + 2), int(Qt.TextFlag.TextWordWrap), sentence
        )


class LevelMeter(QWidget):
    """A bar of RMS with a tick at the peak, -60 to 0 dBFS, and the figure beside it."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._rms_db = self._peak_db = METER_FLOOR_DB
        self._theme = DARK
        self.setAccessibleName(f"Level {title.lower()}")
        self.setToolTip(f"Level {title.lower()}: the bar is the mean, the tick the peak, in dB of full scale")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self.update()

    def show_level(self, rms_db: float, peak_db: float) -> None:
        """What was measured since the last time; the peak falls slowly."""
        self._rms_db = rms_db
        self._peak_db = max(peak_db, self._peak_db - PEAK_FALL_DB)
        self.update()

    def empty(self) -> None:
        """Nothing is measured any more."""
        self._rms_db = self._peak_db = METER_FLOOR_DB
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, round(self.fontMetrics().height() * 1.5))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(scaled_font(0.9))
        theme, metrics = self._theme, painter.fontMetrics()
        side, figure = metrics.horizontalAdvance("Out  "), metrics.horizontalAdvance("−60 dB ")
        painter.setPen(QColor(theme.muted))
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignVCenter), self._title)
        silent = self._rms_db <= METER_FLOOR_DB
        text = "silent" if silent else f"{self._rms_db:.0f} dB".replace("-", "−")
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight), text)
        bar = QRectF(side + 6, self.height() / 2 - 3, self.width() - side - figure - 14, 6)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.raised))
        painter.drawRoundedRect(bar, 3, 3)
        painter.setBrush(QColor(theme.warning if self._peak_db > HOT_DB else theme.accent))
        filled = QRectF(bar)
        filled.setWidth(bar.width() * _share(self._rms_db))
        painter.drawRoundedRect(filled, 3, 3)
        if self._peak_db > METER_FLOOR_DB:
            peak = bar.left() + bar.width() * _share(self._peak_db)
            painter.drawRoundedRect(QRectF(peak - 1, bar.top() - 3, 2, 12), 1, 1)


def _share(level_db: float) -> float:
    """Where on a meter a level stands, 0 to 1."""
    if not math.isfinite(level_db):
        return 0.0
    return min(1.0, max(0.0, 1.0 - level_db / METER_FLOOR_DB))


class GroundSlider(QSlider):
    """Drop at the left end, keep at the right, dB between; painted so that the filled part is what is left."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(DROP_STEP, KEEP_STEP)
        self.setSingleStep(1)
        self.setPageStep(6)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._theme = DARK

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, 30)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Only with the focus: a scroll past it must not change what others hear."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def paintEvent(self, event: QPaintEvent) -> None:
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        style = self.style()
        control = QStyle.ComplexControl.CC_Slider
        handle = style.subControlRect(control, option, QStyle.SubControl.SC_SliderHandle, self)
        knob = min(max(handle.center().x(), KNOB_ROOM), self.width() - KNOB_ROOM)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle, theme = self.height() / 2, self._theme
        track = QRectF(8, middle - 2.5, self.width() - 16, 5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.raised))
        painter.drawRoundedRect(track, 2.5, 2.5)
        painter.setBrush(QColor(theme.accent))
        painter.drawRoundedRect(QRectF(track.left(), track.top(), max(0.0, knob - track.left()), 5), 2.5, 2.5)
        radius = 9.0 if self.isSliderDown() else 8.0
        painter.setPen(QPen(QColor(theme.text if self.hasFocus() else theme.panel), 2))
        painter.drawEllipse(QRectF(knob - radius, middle - radius, 2 * radius, 2 * radius))

    def mousePressEvent(self, event: Any) -> None:
        """A click anywhere goes there."""
        if event.button() == Qt.MouseButton.LeftButton:
            span = max(1, self.width() - 16)
            at = QStyle.sliderValueFromPosition(DROP_STEP, KEEP_STEP, round(event.position().x()) - 8, span)
            self.setSliderPosition(at)
        super().mousePressEvent(event)


class BackgroundControl(QWidget):
    """From drop through dB to keep, and a place to swap to; `changed` carries the Background that is wanted."""

    changed = Signal(Background)
    place_asked = Signal(str)  # to hear a place by its name, before it is sent

    def __init__(self, background: Background, hears_places: bool = False) -> None:
        super().__init__()
        self._theme, self._hears_places = DARK, hears_places
        self._placed_before = False
        self._own_step = DROP_STEP  # where the slider stood before a place was chosen
        self.value = QLabel()
        self.value.setFont(scaled_font(1.0, bold=True))
        self.value.setProperty("tone", "accent")
        self.slider = GroundSlider()
        self.slider.setAccessibleName("Background")
        self.slider.setToolTip("How much of the background is left: drop, dB, or keep (arrow keys, Home, End)")
        self.place = QuietComboBox()
        self.place.setAccessibleName("Place")
        self.place.setToolTip("Put your voice in another place: its sound replaces the background")
        self.place.addItem(SAME_PLACE, None)
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.hear = quiet_button("Hear …", "Hear how a place sounds; nobody else does", "Hear a place")
        self.hear.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.hear.setMenu(QMenu(self.hear))
        self.hear.hide()  # until there are places
        self._arrange()
        self.show_background(background)
        self.slider.valueChanged.connect(self._slid)
        self.place.activated.connect(lambda _: self._placed())

    def _arrange(self) -> None:
        head = QHBoxLayout()
        head.addWidget(section_label("Background"))
        head.addStretch(1)
        head.addWidget(self.value)
        ends = QHBoxLayout()
        for text in ("Drop", "Keep"):
            label = QLabel(text)
            label.setProperty("tone", "muted")
            label.setFont(scaled_font(0.9))
            ends.addWidget(label)
            if text == "Drop":
                ends.addStretch(1)
        self.sentence.setProperty("tone", "muted")
        self.sentence.setFont(scaled_font(0.9))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(5)
        box.addLayout(head)
        box.addWidget(self.slider)
        box.addLayout(ends)
        box.addSpacing(8)
        beside = QHBoxLayout()
        beside.addWidget(section_label("Place"))
        beside.addStretch(1)
        beside.addWidget(self.hear)
        box.addLayout(beside)
        box.addWidget(self.place)
        box.addWidget(self.sentence)

    def set_theme(self, theme: Theme) -> None:
        self.slider.set_theme(theme)

    def set_places(self, scenes: list[Any]) -> None:
        """Offer these places (SceneInfo); the one chosen stays chosen."""
        chosen = self.place.currentData()
        self.place.clear()
        self.place.addItem(SAME_PLACE, None)
        menu = self.hear.menu()
        menu.clear()
        for scene in scenes:
            title = scene.title[:1].upper() + scene.title[1:]
            self.place.addItem(title, scene.name)
            menu.addAction(title).triggered.connect(lambda _=False, name=scene.name: self.place_asked.emit(name))
        self.hear.setVisible(self._hears_places and bool(scenes))
        self.place.setCurrentIndex(max(0, self.place.findData(chosen)))
        self._describe()  # a place that was remembered has its title now

    def background(self) -> Background:
        """What is wanted now."""
        step, scene = self.slider.value(), self.place.currentData()
        if step == DROP_STEP:
            return Background(BackgroundMode.DROP)
        if scene is not None:
            return Background(BackgroundMode.SWAP, float(step), scene)
        if step == KEEP_STEP:
            return Background(BackgroundMode.KEEP)
        return Background(BackgroundMode.GAIN, float(step))

    def show_background(self, background: Background) -> None:
        """Set the controls without telling anybody."""
        steps = {BackgroundMode.DROP: DROP_STEP, BackgroundMode.KEEP: KEEP_STEP}
        self.slider.blockSignals(True)
        self.slider.setValue(steps.get(background.mode, round(background.gain_db)))
        self.slider.blockSignals(False)
        if background.scene is not None and self.place.findData(background.scene) < 0:
            self.place.addItem(background.scene.capitalize(), background.scene)
        self.place.setCurrentIndex(max(0, self.place.findData(background.scene)))
        self._describe()

    def _slid(self) -> None:
        self._describe()
        self.changed.emit(self.background())

    def _placed(self) -> None:
        """A place is chosen at the old background's level; going back brings the old setting back."""
        self.slider.blockSignals(True)
        if self.place.currentData() is None:
            self.slider.setValue(self._own_step)
        elif not self._placed_before:
            self._own_step = self.slider.value()
            self.slider.setValue(KEEP_STEP)
        self.slider.blockSignals(False)
        self._slid()

    def _describe(self) -> None:
        """Value and sentence in words."""
        step, scene = self.slider.value(), self.place.currentData()
        self._placed_before = scene is not None
        title = self.place.currentText()
        if step == DROP_STEP:
            texts = ("Drop", "Only your voice is sent.")
        elif scene is not None:
            level = "as loud as the world around you was" if step == KEEP_STEP else "quieter than the world around you"
            texts = (f"{step} dB".replace("-", "−"), f"Your voice with {title.lower()}, {level}.")
        elif step == KEEP_STEP:
            texts = ("Keep", "The microphone as it is, voice and background.")
        else:
            texts = (f"{step} dB".replace("-", "−"), "Your voice, and the background turned down.")
        self.value.setText(texts[0])
        self.sentence.setText(texts[1])
        self.slider.setAccessibleDescription(f"{texts[0]}. {texts[1]}")


def section_label(text: str) -> QLabel:
    """A small heading in the column."""
    label = QLabel(text)
    label.setFont(scaled_font(0.95, bold=True))
    return label


def quiet_button(text: str, tip: str, name: str = "", shortcut: str = "", checkable: bool = False) -> QToolButton:
    """A button without a frame. name: for screen readers, where the text alone says too little.

    shortcut: one of the table's, with its sentence for a tip where there is no other.
    """
    button = QToolButton()
    button.setObjectName("quiet")
    button.setText(text)
    button.setToolTip(tip)
    button.setAccessibleName(name or text)
    if shortcut:
        bind_button(button, shortcut, tip)
    button.setCheckable(checkable)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return button
