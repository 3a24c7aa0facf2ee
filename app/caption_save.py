"""Saving the captions: the dialog, and the writing on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue

from PySide6.QtCore import QDir, QObject, QStandardPaths, QTimer, Signal
from PySide6.QtWidgets import QFileDialog, QWidget

from app.caption_history import Kept
from engine.captions import FORMATS, format_named, write_captions
from engine.types import SottovoceError

POLL_MS = 50
FILTERS = {
    "Subtitles (*.srt)": "srt",
    "Web subtitles (*.vtt)": "vtt",
    "Plain text (*.txt)": "txt",
    "Words with their times (*.json)": "json",
}


class CaptionSaver(QObject):
    """Asks where to, and writes there; both without holding up the window."""

    saved = Signal(str)  # the path of the file that is there now
    failed = Signal(str)  # one sentence

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._window = parent
        self._answers: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._under_way = 0
        self._folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
        self._filter = next(iter(FILTERS))
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._drain)

    def ask(self, take: Callable[[], tuple[Kept, str | None]]) -> QFileDialog:
        """Show the dialog. take: the words and their language, at the moment a name was chosen."""
        dialog = QFileDialog(self._window, "Save captions")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters(list(FILTERS))
        dialog.selectNameFilter(self._filter)
        dialog.setDirectory(self._folder if Path(self._folder).is_dir() else QDir.homePath())
        dialog.selectFile(default_name(datetime.now(), FILTERS[self._filter]))
        dialog.filterSelected.connect(lambda chosen: _rename(dialog, FILTERS[chosen]))
        dialog.accepted.connect(lambda: self._chosen(dialog, take))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()
        return dialog

    def write(self, words: Kept, language: str | None, path: Path, format: str) -> None:
        """Write a file on a thread of its own; `saved` or `failed` follows. The program's end waits for it."""

        def work() -> None:
            try:
                write_captions(words, path, format, language)
            except SottovoceError as error:
                text = str(error)
                self._answers.put(lambda: self.failed.emit(text))
            else:
                self._answers.put(lambda: self.saved.emit(str(path)))

        self._under_way += 1
        threading.Thread(target=work, name="sottovoce-save").start()
        self._timer.start(POLL_MS)

    def _chosen(self, dialog: QFileDialog, take: Callable[[], tuple[Kept, str | None]]) -> None:
        chosen = Path(dialog.selectedFiles()[0])
        self._folder, self._filter = str(chosen.parent), dialog.selectedNameFilter() or self._filter
        target = with_extension(chosen, FILTERS[self._filter])
        if target != chosen and target.exists():  # the dialog asked about another name
            self.failed.emit(f"{target} is there already; choose it in the dialog to replace it, or another name")
            return
        words, language = take()
        self.write(words, language, target, format_named(target) or FILTERS[self._filter])

    def _drain(self) -> None:
        while not self._answers.empty():
            self._under_way -= 1
            self._answers.get()()
        if not self._under_way:
            self._timer.stop()


def default_name(now: datetime, format: str) -> str:
    """A name that sorts by time and is legal everywhere."""
    return f"captions {now:%Y-%m-%d %H.%M}.{format}"


def with_extension(path: Path, format: str) -> Path:
    """The path with the format's extension, where it has none of a caption format."""
    return path if format_named(path) in FORMATS else path.with_name(f"{path.name}.{format}")


def _rename(dialog: QFileDialog, format: str) -> None:
    """Another format was chosen: the name follows."""
    chosen = Path(dialog.selectedFiles()[0]) if dialog.selectedFiles() else Path(default_name(datetime.now(), format))
    bare = chosen.with_suffix("") if format_named(chosen) else chosen
    dialog.selectFile(f"{bare.name}.{format}")
