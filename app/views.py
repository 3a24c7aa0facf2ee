"""A look inside: what was heard and what is sent, and the tokens between them, on one time axis.

The views pull from a Timeline at their own rate and touch only the columns that are on screen. Newest is at the right.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QSizePolicy, QToolButton, QVBoxLayout

from app.shortcut_keys import bind_button
from app.theme import (
    CODE_COLOURS,
    DIM_STEPS,
    NO_CODE,
    SWAPPED,
    Theme,
    background_lut,
    ramp_lut,
    voice_lut,
)
from app.time_view import WINDOW_S, TimeView, clock
from app.timeline import BANDS, ColumnRing, Timeline, mel

SHARES = (5, 5, 4, 4)  # of the height, for the pictures
LEAST_PICTURE_PX = 26  # where there is no room for so much of each, the lower ones are left out
LEAST_BOOK = 32  # codes a row is taken to have until more are seen
FREQUENCY_TICKS_HZ = (1000, 4000, 2000)  # the first ones are left where there is no room for all
TREATED_TEXT = {0: "kept", DIM_STEPS: "dropped", SWAPPED: "swapped for another place's"}


class SpectrogramView(TimeView):
    """A spectrogram; `ring` finds its columns in the timeline."""

    def __init__(self, title: str, note: str, ring: Callable[[Timeline], ColumnRing]) -> None:
        super().__init__(title, note, f"Spectrogram, {note}")
        self._ring = ring
        top = float(mel(8000.0))
        ticks = [(float(mel(hz)) / top * BANDS, f"{hz / 1000:g} kHz") for hz in FREQUENCY_TICKS_HZ]
        self.set_rows(BANDS, ticks)

    def set_theme(self, theme: Theme) -> None:
        super().set_theme(theme)
        self._lut = ramp_lut(theme.ramp)

    def refresh(self, timeline: Timeline, end: int, count: int) -> None:
        """Show `count` columns before number `end`."""
        self._paint(self._ring(timeline).view(end, count))

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
        self._books = np.zeros(0, dtype=np.int32)

    def set_theme(self, theme: Theme) -> None:
        super().set_theme(theme)
        self._lut = background_lut(theme) if self._treated else voice_lut(theme)

    def refresh(self, timeline: Timeline, end: int, count: int) -> None:
        """Show `count` frames before number `end`."""
        ring = self._ring(timeline)
        if ring is None:
            self.image.clear()
            return
        codes = ring.view(end, count).astype(np.int32)
        self._fit(codes)
        numbers = np.where(codes < 0, NO_CODE, codes * CODE_COLOURS // self._books)
        if self._treated:
            numbers += timeline.treated.view(end, count).astype(np.int32) * (CODE_COLOURS + 1)
        self._paint(numbers[:, ::-1])

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

    def _fit(self, codes: NDArray[np.int32]) -> None:
        """Grow what each row's codebook is taken to hold, by powers of two, so that colours rarely change."""
        if len(self._books) != codes.shape[1]:
            self._books = np.full(codes.shape[1], LEAST_BOOK, dtype=np.int32)
            rows = codes.shape[1]
            self.set_rows(rows, [(rows - 0.5, "1"), (0.5, str(rows))])
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
    looked_at = Signal(object)  # a time on the engine's clock, None for now: what else is shown is of that time, too

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.setObjectName("card")
        self.timeline = timeline
        self.refresh_ms: deque[float] = deque(maxlen=300)
        self._end: int | None = None  # the right edge; None follows the newest
        self._shown: tuple[int, int] = (-1, -1)
        self._shared_px = 0  # the height that the pictures have shared out among them
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
        self._box = box = QVBoxLayout(self)
        box.setContentsMargins(8, 10, 10, 8)
        box.setSpacing(8)
        for view in self.views:
            box.addWidget(view)
            view.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
            view.hovered.connect(lambda s, v=view: self._hover(v, s))
            view.plot.wheeled.connect(self._scroll)
            view.clicked.connect(lambda s, v=view: self.asked.emit(self._time_of(s), v is not self.heard))
        self.heard.head.addWidget(self.live)

    def minimumSizeHint(self) -> QSize:
        """Room for one picture."""
        return QSize(super().minimumSizeHint().width(), self._overhead_px(1) + LEAST_PICTURE_PX)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._share_out()
        if self._shared_px != self.height():  # what was hidden made room, and this was asked for within itself
            self._share_out()

    def _share_out(self) -> None:
        """As many pictures as have room, from the top; those with the same share are equally high."""
        height = self.height()
        fitting = (n for n in range(len(self.views), 1, -1) if self._picture_px(n) >= n * LEAST_PICTURE_PX)
        count = next(fitting, 1)
        room, whole = self._picture_px(count), sum(SHARES[:count])
        for at, (view, share) in enumerate(zip(self.views, SHARES)):
            last = at == count - 1
            view.show_time_axis(last)
            self._box.setStretch(at, max(1, view.overhead_px(last) + room * share // whole))
            view.setVisible(at < count)
        self._shared_px, self._shown = height, (-1, -1)

    def _overhead_px(self, count: int) -> int:
        """What is no picture of the height of so many views."""
        margins, gaps = self._box.contentsMargins(), (count - 1) * self._box.spacing()
        views = sum(view.overhead_px(at == count - 1) for at, view in enumerate(self.views[:count]))
        return margins.top() + margins.bottom() + gaps + views

    def _picture_px(self, count: int) -> int:
        return self.height() - self._overhead_px(count)

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
        if self._end is not None and self._end > self.timeline.head:  # another run has begun: that moment is gone
            self.live.setChecked(False)
        end = self.timeline.head if self._end is None else self._end
        mark = (id(self.timeline.heard), end)
        if mark == self._shown or not self.isVisible() or self.window().isMinimized():
            return
        begin = time.thread_time()
        self._shown = mark
        count = round(WINDOW_S / self.timeline.hop_s)
        for view in self.views:
            if view.isVisible():  # one that has given way is painted when it comes back
                view.refresh(self.timeline, end, count)
        self._tell()
        self.refresh_ms.append(1000.0 * (time.thread_time() - begin))

    def repaint_ms(self) -> float:
        """Median of the GUI thread's own time for a frame: making the pictures and painting them all."""
        if not self.refresh_ms:
            return 0.0
        shown = [view.plot.paint_ms for view in self.views if view.isVisible() and view.plot.paint_ms]
        paints = sum(float(np.median(times)) for times in shown)
        return float(np.median(self.refresh_ms)) + paints

    def _pause(self, paused: bool) -> None:
        self._end = self.timeline.head if paused else None
        self.live.setText("Back to now" if paused else "Pause")
        self._note_time()
        self.looked_at.emit(self._time_of(0.0) if paused else None)
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
        self.looked_at.emit(self._time_of(0.0))
        self.refresh()

    def show_moment(self, at_s: float) -> None:
        """Hold the pictures still with this time in the middle, on the engine's clock."""
        half = round(WINDOW_S / 2 / self.timeline.hop_s)
        end = round(at_s / self.timeline.hop_s) + half
        self.live.setChecked(True)
        self._scroll_to(min(end, self.timeline.head))
        for view in self.views:
            view.point_at(at_s - self._time_of(0.0))
        self.looked_at.emit(at_s)

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
