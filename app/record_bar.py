"""The line above the status: record what runs, for how long, and where all of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QResizeEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QLabel, QSizePolicy

from app.bridge import Bridge, RunState
from app.console import clock
from app.controls import quiet_button
from app.settings_use import default_folder, planned_folder
from app.shortcut_keys import bind_button
from app.theme import scaled_font
from engine.types import Levels, RecordingChange

KEPT = "microphone, what is sent, voice, background, tokens"
LOOK_MS = 1000


def short(path: Path) -> str:
    """The path with ~ for the person's home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def open_folder(folder: Path) -> None:
    """In the desktop's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


class Elided(QLabel):
    """One line that is shortened at its end where there is no room; the whole of it is its tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def say(self, text: str) -> None:
        if text != self._whole:
            self._whole = text
            self.setToolTip(text)
            self.setAccessibleName(text)
            self._fit()

    def whole(self) -> str:
        """All of the line."""
        return self._whole

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideRight, max(0, self.width() - 2)))


class RecordBar(QFrame):
    """Begins and ends recordings through the bridge. What is recorded goes on in another part when the sound must begin
    anew, because a device or the captions were changed.
    """

    moved = Signal(str)  # a person chose another folder for recordings

    def __init__(self, bridge: Bridge, open_folder: Callable[[Path], None] = open_folder) -> None:
        super().__init__()
        self._bridge, self._open_folder = bridge, open_folder
        self.base = default_folder()
        self._kept = KEPT
        self._wanted = False  # a person wants to record
        self._folder: Path | None = None  # of this recording, its first part
        self._part, self._asked = 1, ""  # the folder of its newest part
        self._running: RecordingChange | None = None
        self._last: RecordingChange | None = None
        self._now_s = 0.0
        self.record = quiet_button("Record", "", checkable=True)
        self._key = bind_button(self.record, "record")
        self.time = QLabel()
        self.time.setFont(scaled_font(1.0, bold=True))
        self.time.setProperty("tone", "accent")
        self.notice = Elided()
        self.notice.setProperty("tone", "muted")
        self.notice.setFont(scaled_font(0.9))
        self.show_folder = quiet_button("Open folder", "Open the folder of the last recording")
        self.change = quiet_button("Folder …", "Choose where recordings are kept", "Folder for recordings")
        self.files = quiet_button("Files …", "", "Open sound files")
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 0, 8, 0)
        row.setSpacing(10)
        for widget in (self.record, self.time, self.notice, self.show_folder, self.change, self.files):
            row.addWidget(widget, 1 if widget is self.notice else 0)
        self.record.clicked.connect(self._toggle)
        self.show_folder.clicked.connect(self._show_last)
        self.change.clicked.connect(self._choose)
        bridge.recording.connect(self._changed)
        bridge.not_recording.connect(self._refused)
        bridge.run_state.connect(self._run_changed)
        bridge.levels.connect(self._tick)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._show)
        self._timer.start(LOOK_MS)
        self._show()

    def set_base(self, folder: Path) -> None:
        """Where the next recordings get a folder of their own."""
        self.base = folder
        self._show()

    def set_captions(self, on: bool) -> None:
        """Whether there are captions to be kept."""
        self._kept = f"{KEPT}, captions" if on else KEPT
        self._show()

    # What the person does ---------------------------------------------------------------------------------------------

    def _toggle(self) -> None:
        if self._wanted:
            self._wanted = False
            self._bridge.end_recording()
        elif self._bridge.state is RunState.ON:
            self._wanted, self._part, self._last = True, 1, None
            self._folder = planned_folder(self.base)
            self._ask(self._folder)
        self._show()

    def _ask(self, folder: Path) -> None:
        self._asked = str(folder)
        self._bridge.record(self._asked)

    def _choose(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Where recordings are kept", str(self.base))
        if chosen:
            self.set_base(Path(chosen))
            self.moved.emit(chosen)

    def _show_last(self) -> None:
        if self._last is not None:
            self._open_folder(Path(self._last.folder))

    # What the engine tells --------------------------------------------------------------------------------------------

    def _changed(self, change: RecordingChange) -> None:
        if change.duration_s is None:
            self._running = change
            self._now_s = change.time_s
        else:
            self._last = change
            # one that fails at its first sound ends without having begun
            if change.folder == (self._running.folder if self._running is not None else self._asked):
                self._running = None
                self._wanted = self._wanted and self._bridge.state is RunState.STARTING
        self._show()

    def _refused(self, text: str) -> None:
        self._wanted = self._running is not None
        self._show()

    def _run_changed(self, state: RunState) -> None:
        """An engine that goes takes its recording to its end; with the next one another part begins."""
        if state in (RunState.STOPPING, RunState.OFF):
            self._wanted = False
        if state is RunState.OFF:
            self._running = None
        if state is RunState.ON and self._wanted and self._folder is not None:
            self._running = None
            self._part += 1
            self._ask(self._folder.with_name(f"{self._folder.name} part {self._part}"))
        self._show()

    def _tick(self, levels: Levels) -> None:
        self._now_s = levels.time_s
        if self._running is not None:
            self._show_time()

    # What is shown ----------------------------------------------------------------------------------------------------

    def _show_time(self) -> None:
        running = self._running
        text = clock(self._now_s - running.begun_s)[:-2] if running is not None else "0:00"
        if self.time.text() != text:
            self.time.setText(text)
            self.time.setAccessibleName(f"Recorded {text}")

    def _show(self) -> None:
        on = self._bridge.state is RunState.ON
        self.record.setChecked(self._wanted)
        self.record.setEnabled(on or self._wanted)
        text = "Stop recording" if self._wanted else "Record"
        self.record.setText(f"{'■' if self._wanted else '●'} {text}")
        self.record.setAccessibleName(text)
        tip = f"{text} ({{}})" if on or self._wanted else "Switch the sound on to record it"
        self._key.set_tip(tip, self.record)
        self.time.setVisible(self._wanted)
        self._show_time()
        self.notice.say(self._notice())
        self.show_folder.setVisible(self._last is not None and not self._wanted)
        self.change.setVisible(not self._wanted)

    def _notice(self) -> str:
        if self._wanted:
            folder = Path(self._running.folder) if self._running is not None else self._folder
            return f"Recording into {short(folder or self.base)}: {self._kept}"
        if self._last is not None:
            return f"Saved {clock(self._last.duration_s or 0.0)[:-2]} in {short(Path(self._last.folder))}"
        return f"Records into {short(self.base)}: {self._kept}"
