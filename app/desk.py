"""Sound files and recordings in the window: what is dropped on it, what is recorded, what a crash left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton

from app.bridge import CommandThread
from app.console import clock
from app.record_bar import RecordBar, open_folder, short
from app.shortcut_keys import bind, keys_of
from app.theme import DARK, Theme
from engine.ports import NO_OUTPUT

if TYPE_CHECKING:
    from app.file_window import FileWindow
    from app.window import MainWindow
    from engine.unfinished import Repaired


class RecoveredBar(QFrame):
    """One calm line about recordings that were not completed, and a button that opens where they are."""

    def __init__(self, open_folder: Callable[[Path], None] = open_folder) -> None:
        super().__init__()
        self.setObjectName("card")
        self._open_folder, self._folder = open_folder, Path()
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.open, self.dismiss = QPushButton("Open folder"), QPushButton("Dismiss")
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 7, 8, 7)
        row.addWidget(self.label, 1)
        for button in (self.open, self.dismiss):
            button.setObjectName("quiet")
            row.addWidget(button)
        self.open.clicked.connect(lambda: self._open_folder(self._folder))
        self.dismiss.clicked.connect(self.hide)
        self.hide()

    def say(self, found: list[Repaired]) -> None:
        """Tell of them; nothing where there are none."""
        if not found:
            return
        last, more = found[-1], len(found) - 1
        self._folder = last.folder if not more else last.folder.parent
        text = f"A recording was cut off and has been completed: {clock(last.duration_s)[:-2]} in {short(last.folder)}"
        if more:
            text = f"{len(found)} recordings were cut off and have been completed, the last in {short(last.folder)}"
        self.label.setText(text)
        self.setAccessibleName(text)
        self.show()


def _repair() -> list[Repaired]:
    from engine.unfinished import repair_unfinished

    return repair_unfinished()


class Desk(QObject):
    """Belongs to the main window, which puts `recovered` and `bar` where they go."""

    def __init__(self, window: MainWindow, repair: Callable[[], list[Repaired]] = _repair) -> None:
        super().__init__(window)
        self._window, self._repair = window, repair
        self._theme: Theme = DARK
        self._search: CommandThread | None = None
        self.bar = RecordBar(window.bridge)
        self.recovered = RecoveredBar()
        self.files: FileWindow | None = None
        window.setAcceptDrops(True)
        window.installEventFilter(self)
        tip = "Clean sound files: choose them ({}), or drop them on this window"
        bind(window, "open_files", self.ask_for_files, tip, self.bar.files)
        self.bar.files.clicked.connect(self.show_files)
        window.bridge.not_recording.connect(lambda text: window.message.say(text, False))
        window.bridge.frame.connect(self._look)
        window.closing.connect(self._stop_files, Qt.ConnectionType.QueuedConnection)
        window.closed.connect(self._end)

    def begin(self) -> None:
        """Look for what an earlier run left open, beside everything else."""
        self._search = CommandThread()
        self._search.submit(self._repair, self.recovered.say, lambda text: self._window.message.say(text, False))
        self._search.finish()

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        if self.files is not None:
            self.files.set_theme(theme)

    def show_files(self) -> FileWindow:
        """The list of files, in front."""
        from app.file_window import FileWindow

        window = self._window
        if self.files is None:
            self.files = FileWindow(lambda: window.scenes, self.listening_output, lambda: window.config)
            self.files.set_theme(self._theme)
            keys_of(window).join(self.files)
        self.files.show()
        self.files.raise_()
        self.files.activateWindow()
        return self.files

    def ask_for_files(self) -> None:
        """Choose files for the list."""
        self.show_files().ask_for_files()

    def listening_output(self) -> str | None:
        """Where both sounds are compared: never into a call."""
        chosen = self._window.choices.output
        return None if chosen == NO_OUTPUT or self._window.devices.reaches_calls(chosen) else chosen

    def _look(self) -> None:
        if self._search is not None and not self._search.answers.empty():
            self._search.answers.get()()
            self._search = None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Files that are held over the window or let fall on it."""
        if isinstance(event, (QDragEnterEvent, QDragMoveEvent, QDropEvent)):
            return self._take(event)
        return super().eventFilter(watched, event)

    def _take(self, event: Any) -> bool:
        from app.file_window import dropped_files

        files = dropped_files(event)
        if files:
            event.acceptProposedAction()
            if event.type() == QEvent.Type.Drop:
                self.show_files().take(files)
        return bool(files)

    def _stop_files(self) -> None:
        """The main window has gone: what is worked on is stopped while the engine goes."""
        if self.files is not None:
            self.files.hide()
            self.files.batch.cancel_all()

    def _end(self) -> None:
        if self.files is not None:
            self.files.end()
            self.files.deleteLater()
            self.files = None
