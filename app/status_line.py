"""The one line at the bottom: what the engine is doing, with tooltips that explain each part."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QWidget

from app.bridge import RunState
from app.theme import DARK, Theme, scaled_font
from engine.types import Stats

HIGH_LOAD = 0.8
LATE_CAPTIONS_S = 8.0
MARGIN_PX, SPACING_PX, NARROW_SPACING_PX = 16, 22, 14
NARROW_PX = 700
DOING = "What the engine is doing"
STATE_TEXT = {
    "running": "Cleaning",
    "idle": "Resting",
    "bypass": "Bypass",
    "muted": "Muted",
    "waiting": "Waiting for a device",
    "stopped": "Stopped",
}
RUN_TEXT = {
    RunState.OFF: "Off",
    RunState.STARTING: "Starting …",
    RunState.STOPPING: "Stopping …",
    RunState.ON: "Waiting for sound …",
}
PROVIDER_TEXT = {"cpu": "CPU", "cuda": "GPU (CUDA)", "tensorrt": "GPU (TensorRT)"}


class Dot(QWidget):
    """A small round light; its meaning stands in words beside it."""

    def __init__(self) -> None:
        super().__init__()
        self._colour = QColor("grey")

    def set_colour(self, colour: str) -> None:
        self._colour = QColor(colour)
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(10, 10)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._colour)
        painter.drawEllipse(QRectF((self.width() - 8) / 2, (self.height() - 8) / 2, 8, 8))


class StatusLine(QWidget):
    """State, delay, dropouts, load, provider, captions' lag; what has no room is told by the state's tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self._theme = DARK
        self._stats: Stats | None = None
        self._run_state = RunState.OFF
        self._captions = False
        self.dot = Dot()
        self.state = QLabel()
        self.delay, self.dropouts, self.load, self.provider, self.captions = (QLabel() for _ in range(5))
        self._figures = (self.delay, self.captions, self.dropouts, self.load, self.provider)  # the most wanted first
        self._row = row = QHBoxLayout(self)
        row.setContentsMargins(MARGIN_PX, 5, MARGIN_PX, 7)
        first = QHBoxLayout()
        first.setSpacing(7)
        first.addWidget(self.dot)
        first.addWidget(self.state)
        row.addLayout(first)
        for label in (self.delay, self.dropouts, self.load, self.captions):
            row.addWidget(label)
        row.addStretch(1)
        row.addWidget(self.provider)
        for label in (self.state, self.delay, self.dropouts, self.load, self.captions, self.provider):
            label.setFont(scaled_font(0.9))
        self._show()

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self._show()

    def set_captions(self, on: bool) -> None:
        """Whether there are captions to tell the lag of."""
        self._captions = on
        self._show()

    def show_run_state(self, state: RunState) -> None:
        """What the bridge is doing; the engine's own figures are gone when it is not on."""
        self._run_state = state
        if state is not RunState.ON:
            self._stats = None
        self._show()

    def show_stats(self, stats: Stats) -> None:
        """The engine's latest figures."""
        self._stats = stats
        self._show()

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _show(self) -> None:
        stats = self._stats
        state = RUN_TEXT[self._run_state] if stats is None else STATE_TEXT.get(stats.state, stats.state)
        _say(self.state, state, self.state.toolTip() or DOING, "text")
        self.dot.set_colour(self._dot_colour())
        if stats is not None:
            self._show_figures(stats)
        self._fit()

    def _fit(self) -> None:
        """Show the figures that there is room for: what warns first, then the more wanted."""
        known = self._stats is not None
        told = [label for label in self._figures if known and (self._captions or label is not self.captions)]
        spacing = SPACING_PX if self.width() > NARROW_PX else NARROW_SPACING_PX
        self._row.setSpacing(spacing)
        left, shown = self._room_px(spacing), set[QLabel]()
        for label in sorted(told, key=lambda label: label.property("tone") != "warning"):
            left -= label.sizeHint().width() + spacing
            if left >= 0:
                shown.add(label)
        for label in self._figures:
            label.setVisible(label in shown)
        left_out = [label.text() for label in told if label not in shown]
        _say(self.state, self.state.text(), ". ".join([DOING, *left_out]), "text")

    def _room_px(self, spacing: int) -> int:
        """What the figures may take of the width."""
        items = [item for at in range(self._row.count()) if (item := self._row.itemAt(at)) is not None]
        others = [item for item in items if item.widget() not in set[Any](self._figures)]
        for item in others:
            item.invalidate()  # or it has the size of a former state
        return self.width() - 2 * MARGIN_PX - sum(item.sizeHint().width() + spacing for item in others)

    def _show_figures(self, s: Stats) -> None:
        lines = [f"{name}: {ms:.1f} ms" for name, ms in s.delay_parts_ms]
        tip = "From your voice to what is sent:\n" + "\n".join(lines)
        _say(self.delay, f"Delay {s.delay_ms:.0f} ms", tip, "muted")
        tip = "How often sound was missing or came too late since the start. More load means more of them."
        _say(self.dropouts, f"Dropouts {s.dropouts}", tip, "warning" if s.dropouts else "muted")
        tip = (
            f"Compute time over sound time. One hop takes {s.hop_ms_median:.1f} ms (median), {s.hop_ms_p99:.1f} ms "
            f"(99 of 100), {s.hop_ms_max:.1f} ms (longest)."
        )
        _say(self.load, f"Load {100 * s.load:.0f} %", tip, "warning" if s.load > HIGH_LOAD else "muted")
        tip = "From the newest sound to the captions. Captions may lag; your sound never waits for them."
        late = s.caption_lag_s > LATE_CAPTIONS_S
        _say(self.captions, f"Captions {s.caption_lag_s:.1f} s behind", tip, "warning" if late else "muted")
        tip = f"Where the models run: {s.provider}. Everything stays on this machine."
        _say(self.provider, PROVIDER_TEXT.get(s.provider.lower(), s.provider), tip, "muted")

    def _dot_colour(self) -> str:
        if self._stats is None:
            return self._theme.muted
        if self._stats.state in ("running", "idle"):
            return self._theme.accent
        return self._theme.warning


def _say(label: QLabel, text: str, tip: str, tone: str) -> None:
    """Set text, tooltip and tone, each only when it changed: a style that is set anew is worked out anew."""
    if label.text() != text:
        label.setText(text)
        label.setAccessibleName(text)
    if label.toolTip() != tip:
        label.setToolTip(tip)
        label.setAccessibleDescription(tip)
    if label.property("tone") != tone:
        label.setProperty("tone", tone)
        label.style().unpolish(label)
        label.style().polish(label)
