"""Works on sound files one after another, each in a process of its own, and tells how far it is.

A process, not a thread: the live sound shares its interpreter with this window, and a file that is worked on as fast as
it can be would hold that interpreter when the sound wants it. The process goes after everything else.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QProcess, Signal

from engine.file_jobs import FileJob
from engine.file_worker import WORKER
from engine.priority import stand_back
from engine.types import DEFAULT_WHISPER

END_WAIT_MS = 5000
TELLING_PART = 0.03  # before so much is done nothing is said of the time left


class ItemState(StrEnum):
    """Where a file stands."""

    WAITING = "waiting"
    WORKING = "working"
    STOPPING = "stopping"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


OPEN = (ItemState.WAITING, ItemState.WORKING, ItemState.STOPPING)


@dataclass(frozen=True)
class Wishes:
    """What a person wants of the files that have not begun.

    folder: None is beside the source; language: of the captions, None where it is told from the sound; whisper: the
    size that writes them.
    """

    background: str = "drop"
    stems: bool = False
    captions: bool = False
    folder: Path | None = None
    provider: str = "auto"
    language: str | None = None
    whisper: str = DEFAULT_WHISPER


@dataclass(eq=False)
class Item:
    """A file in the list. part: done, 0 to 1; text: what went wrong or was amiss; sound_s: what the result holds."""

    source: Path
    state: ItemState = ItemState.WAITING
    part: float = 0.0
    text: str = ""
    sound_s: float = 0.0
    job: FileJob | None = None
    began_s: float = field(default=0.0, repr=False)

    @property
    def left_s(self) -> float | None:
        """How long it will take yet; None before that can be told."""
        if self.state is not ItemState.WORKING or self.part < TELLING_PART:
            return None
        return (time.monotonic() - self.began_s) * (1.0 - self.part) / self.part

    @property
    def result(self) -> Path | None:
        """The sound that was made, where there is one."""
        done = self.state in (ItemState.DONE, ItemState.STOPPED) and self.sound_s > 0.0
        return Path(self.job.target) if done and self.job is not None else None


class Batch(QObject):
    """The list, in order. Works while `running`; what is added meanwhile takes its turn."""

    changed = Signal(object)  # an Item
    finished = Signal()  # nothing is left to do

    def __init__(self, command: tuple[str, ...] = WORKER, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._command = command
        self.items: list[Item] = []
        self.wishes = Wishes()
        self.running = False
        self._item: Item | None = None
        self._process: QProcess | None = None
        self._unread = b""
        self._told, self._number = False, 0

    def add(self, sources: list[Path]) -> list[Item]:
        """Put files at the end; those that wait or are worked on already are not taken a second time."""
        there = {item.source for item in self.items if item.state in OPEN}
        added = [Item(source) for source in dict.fromkeys(sources) if source not in there]
        self.items += added
        if self.running:
            self._next()
        return added

    def start(self) -> None:
        """Work off what waits."""
        self.running = True
        self._next()

    def cancel(self, item: Item) -> None:
        """Leave a file that waits; end one that is worked on and keep what was done so far."""
        if item is self._item:
            self._tell_to_stop()
        elif item.state is ItemState.WAITING:
            self._set(item, ItemState.STOPPED, "Not begun")

    def cancel_all(self) -> None:
        """The same for all of them."""
        self.running = False
        for item in self.items:
            self.cancel(item)

    def remove_closed(self) -> None:
        """Forget what is done with; the files stay."""
        self.items = [item for item in self.items if item.state in OPEN]

    def close(self) -> None:
        """Stop, and wait for a moment until what was done is complete."""
        self.cancel_all()
        if self._process is not None:
            self._process.waitForFinished(END_WAIT_MS)

    # One file ---------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        while self._item is None and self.running:
            item = next((item for item in self.items if item.state is ItemState.WAITING), None)
            if item is None:
                self.running = False
                self.finished.emit()
                return
            item.job = self._planned(item)
            if item.job is not None:
                self._item, item.began_s = item, time.monotonic()
                self._launch(item.job)
                self._set(item, ItemState.WORKING)

    def _planned(self, item: Item) -> FileJob | None:
        """None where that cannot be done, which is told."""
        wishes = self.wishes
        try:
            return FileJob.plan(
                item.source,
                wishes.folder,
                background=wishes.background,
                stems=wishes.stems,
                captions=wishes.captions,
                provider=wishes.provider,
                language=wishes.language,
                whisper=wishes.whisper,
            )
        except OSError as error:
            where = wishes.folder or item.source.parent
            self._set(item, ItemState.FAILED, f"{where} cannot be written to ({error.strerror}); choose another folder")
            return None

    def _launch(self, job: FileJob) -> None:
        process = self._process = QProcess(self)
        self._unread, self._told = b"", False
        process.setProgram(self._command[0])
        process.setArguments([*self._command[1:], json.dumps(job.to_dict())])
        process.setStandardErrorFile(QProcess.nullDevice())
        process.started.connect(self._begun)
        process.readyReadStandardOutput.connect(self._read)
        process.finished.connect(self._ended)
        process.errorOccurred.connect(self._not_started)
        process.start()

    def _begun(self) -> None:
        if self._process is not None:
            self._number = self._process.processId()
            stand_back(self._number)

    def _tell_to_stop(self) -> None:
        if self._item is not None and self._process is not None and self._item.state is ItemState.WORKING:
            self._set(self._item, ItemState.STOPPING)
            self._process.closeWriteChannel()

    def _read(self) -> None:
        if self._process is None:
            return
        *lines, self._unread = (self._unread + self._process.readAllStandardOutput().data()).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        item = self._item
        if item is None:
            return
        if "part" in message:
            item.part = float(message["part"])
            self.changed.emit(item)
            return
        self._told = True
        if "failed" in message:
            self._set(item, ItemState.FAILED, str(message["failed"]))
            return
        outcome = message["outcome"]
        item.sound_s = float(outcome["sound_s"])
        text = "; ".join(outcome["warnings"])
        self._set(item, ItemState.STOPPED if outcome["stopped"] else ItemState.DONE, text)

    def _not_started(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart and self._item is not None:
            self._set(self._item, ItemState.FAILED, "The work on it could not be begun; start Sottovoce again")
            self._let_go()

    def _ended(self) -> None:
        self._read()
        if self._item is not None:
            self._clear_up(self._item)
            if not self._told:
                self._set(self._item, ItemState.FAILED, "The work on it ended unexpectedly; try it again")
        self._let_go()

    def _clear_up(self, item: Item) -> None:
        """A process that was killed leaves what it had begun."""
        assert item.job is not None
        for path in Path(item.job.target).parent.glob(f".*.{self._number}.part.*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _let_go(self) -> None:
        process, self._process, self._item = self._process, None, None
        if process is not None:
            process.deleteLater()
        self._next()

    def _set(self, item: Item, state: ItemState, text: str = "") -> None:
        item.state, item.text = state, text
        if state is ItemState.DONE:
            item.part = 1.0
        self.changed.emit(item)
