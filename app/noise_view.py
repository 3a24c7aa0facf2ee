"""Which noise is around: the live point among the clouds of the kinds, its name, and how much is left over in time.

Fed by Residue events, one a second while captions run; empty and quiet without them. Where the pictures are held still
it shows what was around then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from app.clouds import CloudLike, outline
from app.controls import section_label
from app.theme import DARK, Theme, scaled_font
from app.timeline import KNOWN_S, Timeline
from engine.types import DEFAULT_WHISPER, RESIDUE_STEP_S, Residue

TRAIL = 8  # former points that are still seen
ENERGY_S = 12.0
GAP_S = 1.6  # between two events the line goes on
REPLAYED = round(ENERGY_S) + 1  # events that fill the line: they come once a second
ENERGY_DB = (-18.0, 3.0)  # what the line spans: residues of unit vectors have at most 6 dB
SURE = 0.5  # below it the kind is said with a question mark
MARGIN = 10.0
TITLES = {"clean": "Quiet", "voices": "Other voices", "unknown": "Mixed or unknown"}
NO_CAPTIONS = "Turn captions on to see it"
NO_WHISPER = "Get Whisper under Models"
LISTENING = "Listening"
OTHER_WHISPER = "Only with Whisper base"
UNKNOWN_THEN = "Not known of then"


def title_of(kind: str) -> str:
    """A kind of noise, for people."""
    return TITLES.get(kind, kind.capitalize())


class NoisePlane(QWidget):
    """The plane of kinds: a cloud each, the latest points among them, and below it the residue's energy over time."""

    def __init__(self) -> None:
        super().__init__()
        self._theme = DARK
        self._outlines: dict[str, list[tuple[float, float]]] = {}
        self._frame = QRectF(-1.0, -1.0, 2.0, 2.0)  # what of the plane is seen
        self.points: deque[tuple[float, float]] = deque(maxlen=TRAIL)
        self.energies_db: deque[float] = deque(maxlen=round(ENERGY_S / RESIDUE_STEP_S))
        self.kind, self._last_s = "", 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(80)
        self.setAccessibleName("Kinds of noise")

    def sizeHint(self) -> QSize:
        return QSize(200, 104)

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self.update()

    @property
    def has_clouds(self) -> bool:
        """Whether it is known where the kinds lie."""
        return bool(self._outlines)

    def set_clouds(self, clouds: Mapping[str, CloudLike]) -> None:
        """Where the kinds lie; the plane is fitted to two standard deviations of all of them."""
        self._outlines = {name: [(x, y) for x, y in outline(cloud).T.tolist()] for name, cloud in clouds.items()}
        if clouds:
            means = np.array([cloud.mean for cloud in clouds.values()])
            spread = np.array([np.sqrt(np.diag(cloud.covariance)) for cloud in clouds.values()])
            low, high = (means - 2 * spread).min(0), (means + 2 * spread).max(0)
            self._frame = QRectF(QPointF(*low), QPointF(*high))
        self.update()

    def show_residue(self, residue: Residue) -> None:
        """One event more."""
        if abs(residue.time_s - self._last_s) > GAP_S:
            self.energies_db.clear()
        self._last_s = residue.time_s
        self.kind = residue.noise_class
        self.points.append(residue.point)
        self.energies_db.extend(residue.energy_db)
        self.update()

    def clear(self) -> None:
        """Nothing is known any more."""
        self.kind = ""
        self.points.clear()
        self.energies_db.clear()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(QPen(QColor(self._theme.line), 1.0))
        painter.setBrush(QColor(self._theme.panel))
        painter.drawRoundedRect(area, 8, 8)
        strip = min(30.0, area.height() / 4)
        plane = area.adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN - strip)
        painter.save()
        painter.setClipRect(area)
        for name, line in self._outlines.items():
            self._paint_cloud(painter, plane, line, name == self.kind)
        self._paint_points(painter, plane)
        painter.restore()
        self._paint_energy(painter, QRectF(plane.left(), area.bottom() - strip - 4, plane.width(), strip))

    def _placed(self, plane: QRectF, point: tuple[float, float]) -> QPointF:
        """A point of the plane on the screen; one far outside is held at the edge."""
        x = (point[0] - self._frame.left()) / max(self._frame.width(), 1e-6)
        y = (point[1] - self._frame.top()) / max(self._frame.height(), 1e-6)
        across, up = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
        return QPointF(plane.left() + across * plane.width(), plane.bottom() - up * plane.height())

    def _paint_cloud(self, painter: QPainter, plane: QRectF, line: list[tuple[float, float]], here: bool) -> None:
        corners = [self._placed(plane, point) for point in line]
        colour = QColor(self._theme.accent if here else self._theme.muted)
        edge, face = QColor(colour), QColor(colour)
        edge.setAlphaF(0.9 if here else 0.35)
        face.setAlphaF(0.22 if here else 0.08)
        painter.setPen(QPen(edge, 1.0))
        painter.setBrush(face)
        painter.drawPolygon(QPolygonF(corners))

    def _paint_points(self, painter: QPainter, plane: QRectF) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        for age, point in enumerate(reversed(self.points)):
            colour = QColor(self._theme.text)
            colour.setAlphaF(1.0 if age == 0 else 0.4 * (1.0 - age / TRAIL))
            painter.setBrush(colour)
            size = 4.5 if age == 0 else 2.5
            painter.drawEllipse(self._placed(plane, point), size, size)

    def _paint_energy(self, painter: QPainter, strip: QRectF) -> None:
        if len(self.energies_db) < 2:
            return
        low, high = ENERGY_DB
        step = strip.width() / (ENERGY_S / RESIDUE_STEP_S)
        line = QPolygonF()
        for age, level_db in enumerate(reversed(self.energies_db)):
            share = min(max((level_db - low) / (high - low), 0.0), 1.0)
            line.append(QPointF(strip.right() - age * step, strip.bottom() - share * strip.height()))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(self._theme.accent), 1.2))
        painter.drawPolyline(line)


class NoiseView(QWidget):
    """Heading, the kind's name with its confidence, and the plane."""

    def __init__(self, captions: bool) -> None:
        super().__init__()
        self.timeline: Timeline | None = None  # keeps what was told, for `show_time`
        self._still_s: float | None = None  # what is shown, where it is not what is heard now
        self.title, self.answer, self.plane = section_label("Noise"), QLabel(), NoisePlane()
        self.answer.setFont(scaled_font(0.95, bold=True))
        self.answer.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.answer.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.plane.setToolTip(
            "What the recogniser's tokens leave over tells the kind of noise. Each cloud is a kind, the point is what "
            "is heard now; the line below is how much is left over, of the last 12 seconds."
        )
        head = QHBoxLayout()
        head.addWidget(self.title)
        head.addWidget(self.answer, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        box.addLayout(head)
        box.addWidget(self.plane, 1)
        self._forget = QTimer(self)
        self._forget.setSingleShot(True)
        self._forget.setInterval(round(1000.0 * KNOWN_S))
        self._forget.timeout.connect(self._show_nothing)
        self.set_captions(captions)

    def set_theme(self, theme: Theme) -> None:
        self.plane.set_theme(theme)

    def set_captions(self, on: bool, whisper: str = DEFAULT_WHISPER, missing: bool = False) -> None:
        """Without captions, or with another size of Whisper, nobody listens for it. What was known is forgotten.

        missing: there are no captions because this Whisper is not on this machine.
        """
        known = whisper == DEFAULT_WHISPER
        without = NO_WHISPER if missing else NO_CAPTIONS
        self._on, self._idle = on and known, LISTENING if on and known else without if known else OTHER_WHISPER
        self._forget.stop()
        if self._still_s is None:
            self._show_nothing()

    def show_residue(self, residue: Residue) -> None:
        """One event more; an engine that is on its way out may still have one."""
        if self.timeline is not None:
            self.timeline.add_noise(residue)
        if self._still_s is not None:
            if residue.time_s <= self._still_s:  # it was told late
                self.show_time(self._still_s)
        elif self._on:
            self._forget.start()
            self._add(residue)

    def show_time(self, at_s: float | None) -> None:
        """What was around at a time on the engine's clock, of the last five minutes; None: what is, from now on."""
        timeline = self.timeline
        assert timeline is not None
        self._still_s = at_s
        self._forget.stop()
        self._show_nothing()
        if at_s is None and not self._on:
            return
        told = timeline.noise_until(timeline.head * timeline.hop_s if at_s is None else at_s, REPLAYED)
        for residue in told:
            self._add(residue)
        if told and at_s is None:
            self._forget.start()

    def _show_nothing(self) -> None:
        self.plane.clear()
        self._answer(self._idle if self._still_s is None else UNKNOWN_THEN, "muted")

    def _add(self, residue: Residue) -> None:
        self.plane.show_residue(residue)
        name, share = title_of(residue.noise_class), round(100.0 * residue.confidence)
        self._answer(f"{name} {share} %" if residue.confidence >= SURE else f"{name}? {share} %", "")

    def _answer(self, text: str, tone: str) -> None:
        self.answer.setText(text)
        self.answer.setToolTip(text)
        self.plane.setAccessibleDescription(text)
        if self.answer.property("tone") != tone:
            self.answer.setProperty("tone", tone)
            self.answer.style().unpolish(self.answer)
            self.answer.style().polish(self.answer)
