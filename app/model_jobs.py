"""Work on the models, off the GUI thread: one thing at a time, with progress, a pause that loses nothing, and an end.

GUI thread     asks; a QTimer takes the newest progress and the answers, and emits signals
a thread       of its own for each thing that is done; the program's end waits for it, and it is told to hurry
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from app.bridge import CommandThread
from app.model_shelf import Inventory, Shelf
from engine.types import Provider, SottovoceError, Stopped

POLL_MS = 100
RATE_S = 4.0  # the speed is that of the last seconds


class Doing(StrEnum):
    """What is done with a model."""

    LOOK = "look"
    GET = "get"
    IMPORT = "import"
    REMOVE = "remove"
    DISCARD = "discard"


@dataclass(frozen=True)
class Job:
    """What is under way. name: the size (or file); done, total: bytes, 0 where they are not known.

    rate: bytes a second, 0 until that is known. stopping: told to stop, and not yet at its end.
    """

    doing: Doing
    name: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    stopping: bool = False

    @property
    def left_s(self) -> float | None:
        """How long it will still take, as things go."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total else None


@dataclass
class _Under:
    """One thread's work, and what it tells; `told` is replaced whole by the thread and read by the GUI."""

    halt: threading.Event = field(default_factory=threading.Event)
    told: tuple[str, int, int] = ("", 0, 0)
    discard: bool = False  # set by the GUI: stopped, what is there goes, too


@dataclass(frozen=True)
class _Outcome:
    """How it ended. text: what went wrong, empty where nothing did."""

    doing: Doing
    name: str
    text: str
    inventory: Inventory | None


class ModelJobs(QObject):
    """Every method returns at once.

    looked: an Inventory. moved: `job` has changed. done: what was finished and of what (Doing, name).
    failed: one sentence, and of what (name).
    """

    looked = Signal(object)
    moved = Signal()
    done = Signal(object, str)
    failed = Signal(str, str)

    def __init__(self, shelf: Shelf, provider: Callable[[], Provider], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._shelf, self._provider = shelf, provider
        self.job: Job | None = None
        self.inventory: Inventory | None = None
        self._under = _Under()
        self._closed = False
        self._seen: deque[tuple[float, int]] = deque()  # when so many bytes were there
        self._thread: CommandThread | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._poll)

    # What the person asks for -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """See anew what is here; `looked` follows. Nothing is asked while something else is under way."""
        self._begin(Job(Doing.LOOK), lambda under: "")

    def get(self, name: str) -> None:
        """Fetch a size, or go on with it."""

        def work(under: _Under) -> str:
            def tell(what: str, done: int, total: int) -> None:
                under.told = (what, done, total)

            try:
                self._shelf.get(name, tell, under.halt)
            except Stopped:
                if under.discard:
                    self._shelf.discard(name)
                raise
            return name

        self._begin(Job(Doing.GET, name, "connecting"), work)

    def pause(self) -> None:
        """Stop what is fetched or imported; what is there of a download is kept."""
        if self.job is not None and not self.job.stopping:
            self._under.halt.set()
            self._change(replace(self.job, stopping=True))

    def cancel(self, name: str) -> None:
        """Stop, and throw away what is there; also of a download that was paused."""
        if self.job is not None and self.job.name == name:
            self._under.discard = True
            self.pause()
            return

        def work(under: _Under) -> str:
            self._shelf.discard(name)
            return name

        self._begin(Job(Doing.DISCARD, name), work)

    def import_file(self, path: Path) -> None:
        """Take a size from a file."""
        job = Job(Doing.IMPORT, path.name, "checking the file")
        self._begin(job, lambda under: self._shelf.import_file(path, under.halt))

    def remove(self, name: str) -> None:
        """Remove a size from this machine."""

        def work(under: _Under) -> str:
            self._shelf.remove(name)
            return name

        self._begin(Job(Doing.REMOVE, name), work)

    def close(self) -> None:
        """No more of it: what is under way ends, what is there of a download is kept, nothing more is told."""
        self._closed = True
        self._under.halt.set()
        self._timer.stop()
        if self._thread is not None:
            self._thread.finish()

    def _begin(self, job: Job, work: Callable[[_Under], str]) -> None:
        if self.job is not None or self._closed:
            return
        self._under = under = _Under()
        self._seen.clear()
        self._thread = self._thread or CommandThread()
        provider = self._provider()
        self._thread.submit(lambda: self._work(job, under, work, provider), self._end, self._fail)
        self._change(job)
        self._timer.start(POLL_MS)

    # The thread -------------------------------------------------------------------------------------------------------

    def _work(self, job: Job, under: _Under, work: Callable[[_Under], str], provider: Provider) -> _Outcome:
        """Do it, then see what is here now."""
        doing, name, text = job.doing, job.name, ""
        try:
            name = work(under)
        except Stopped:
            doing = Doing.DISCARD if under.discard else Doing.LOOK
        except (SottovoceError, OSError) as error:
            text = str(error)
        if self._closed:
            return _Outcome(doing, name, text, None)
        try:
            return _Outcome(doing, name, text, self._shelf.look(provider))
        except (SottovoceError, OSError) as error:
            return _Outcome(doing, name, text or str(error), None)

    # GUI thread -------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        while self._thread is not None and not self._thread.answers.empty():
            self._thread.answers.get()()
        if self.job is not None:
            self._show_progress(self.job)

    def _show_progress(self, job: Job) -> None:
        what, done, total = self._under.told
        if not what:
            return
        now_s = time.monotonic()
        if what != job.what:
            self._seen.clear()
        self._seen.append((now_s, done))
        while now_s - self._seen[0][0] > RATE_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        rate = (done - before) / (now_s - since_s) if now_s > since_s else 0.0
        if (now := replace(job, what=what, done=done, total=total, rate=rate)) != job:
            self._change(now)

    def _end(self, outcome: _Outcome) -> None:
        self._timer.stop()
        self._change(None)
        if outcome.inventory is not None:
            self.inventory = outcome.inventory
            self.looked.emit(outcome.inventory)
        if outcome.text:
            self.failed.emit(outcome.text, outcome.name)
        elif outcome.doing is not Doing.LOOK:
            self.done.emit(outcome.doing, outcome.name)

    def _fail(self, text: str) -> None:
        self._end(_Outcome(Doing.LOOK, "", text, None))

    def _change(self, job: Job | None) -> None:
        self.job = job
        self.moved.emit()
