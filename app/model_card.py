"""One size of Whisper in the dialog: what it needs, what is here of it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QApplication, QFrame, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app import model_words as words
from app.model_jobs import Doing, Job
from app.model_shelf import Presence, SizeRow
from app.theme import scaled_font

STEPS = 1000  # of the bar


def quiet(text: str, name: str, tip: str = "") -> QPushButton:
    """A button without a frame that Return presses only when it has the focus. name: for screen readers."""
    button = QPushButton(text)
    button.setObjectName("quiet")
    button.setAccessibleName(name)
    button.setToolTip(tip)
    button.setAutoDefault(False)
    return button


class SizeCard(QFrame):
    """Shows what it is told; each signal is what the person wants done with this size."""

    get = Signal(str)
    pause = Signal()
    cancel = Signal(str)
    use = Signal(str)
    remove = Signal(str)

    def __init__(self, row: SizeRow) -> None:
        super().__init__()
        self.setObjectName("card")
        self.row, self.name = row, row.size.name
        self._job: Job | None = None
        self._chosen = self._asking = False
        self.title, self.mark, self.facts, self.state = QLabel(self.name), QLabel("in use"), QLabel(), QLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, STEPS)
        self.bar.setAccessibleName(f"Progress of Whisper {self.name}")
        whisper = f"Whisper {self.name}"
        self.get_button = quiet("Get", f"Get {whisper}", "Download it; its sha256 is checked before it is used")
        self.pause_button = quiet("Pause", f"Pause {whisper}", "Stop for now; what is here is kept")
        self.cancel_button = quiet("Cancel", f"Cancel {whisper}", "Stop, and remove what is here of it")
        self.use_button = quiet("Use", f"Use {whisper}", "Caption with it, from the next start of captions on")
        self.remove_button = quiet("Remove", f"Remove {whisper}")
        self.really_button = quiet("Remove it", f"Remove {whisper} now")
        self.keep_button = quiet("Keep it", f"Keep {whisper}")
        self._buttons: list[QWidget] = [self.use_button, self.get_button, self.pause_button, self.cancel_button]
        self._buttons += [self.remove_button, self.really_button, self.keep_button]
        self.setAccessibleName(whisper)
        self._arrange()
        self._connect()
        self._show()

    def _arrange(self) -> None:
        self.title.setFont(scaled_font(1.0, bold=True))
        self.mark.setProperty("tone", "accent")
        self.facts.setText(words.facts(self.row.size))
        self.facts.setProperty("tone", "muted")
        for label in (self.facts, self.state):
            label.setWordWrap(True)
            label.setFont(scaled_font(0.92))
        head = QHBoxLayout()
        head.addWidget(self.title)
        head.addWidget(self.mark)
        head.addStretch(1)
        for button in self._buttons:
            head.addWidget(button)
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 8, 8, 10)
        box.setSpacing(3)
        box.addLayout(head)
        for widget in (self.facts, self.state, self.bar):
            box.addWidget(widget)

    def _connect(self) -> None:
        self.get_button.clicked.connect(lambda: self.get.emit(self.name))
        self.pause_button.clicked.connect(self.pause)
        self.cancel_button.clicked.connect(lambda: self.cancel.emit(self.name))
        self.use_button.clicked.connect(lambda: self.use.emit(self.name))
        self.remove_button.clicked.connect(lambda: self._ask(True))
        self.keep_button.clicked.connect(lambda: self._ask(False))
        self.really_button.clicked.connect(self._remove)

    @property
    def last_button(self) -> QWidget:
        """The last of the card for who goes through it by keyboard."""
        return self._buttons[-1]

    def show_row(self, row: SizeRow, chosen: bool) -> None:
        """What is here now. chosen: captions use it."""
        self.row, self._chosen, self._asking = row, chosen, False
        self._show()

    def show_chosen(self, chosen: bool) -> None:
        """Whether captions use it."""
        self._chosen = chosen
        self._show()

    def show_job(self, job: Job | None) -> None:
        """What is under way, with this size or another."""
        self._job = job
        self._show()

    def _ask(self, asking: bool) -> None:
        self._asking = asking
        self._show()
        (self.keep_button if asking else self.remove_button).setFocus()

    def _remove(self) -> None:
        self._asking = False
        self.remove.emit(self.name)

    def _mine(self) -> Job | None:
        job = self._job
        return job if job is not None and job.name == self.name and job.doing is not Doing.IMPORT else None

    def _show(self) -> None:
        """Show what is known; who is here by keyboard stays here, whatever goes away."""
        focused = QApplication.focusWidget()
        inside = focused is not None and (focused is self or self.isAncestorOf(focused))
        self._show_buttons()
        if not inside or (focused in self._buttons and focused.isVisible() and focused.isEnabled()):
            return
        there: Iterator[QWidget] = (button for button in self._buttons if button.isVisible() and button.isEnabled())
        next(there, self).setFocus()

    def _show_buttons(self) -> None:
        mine, here = self._mine(), self.row.presence
        getting = mine is not None and mine.doing is Doing.GET
        unfinished = here is Presence.UNFINISHED
        self.mark.setVisible(self._chosen)
        self.get_button.setText("Resume" if unfinished else "Get")
        self.get_button.setAccessibleName(f"{self.get_button.text()} Whisper {self.name}")
        standing = mine is None and not self._asking
        shown = {
            self.use_button: standing and here is Presence.HERE and not self._chosen,
            self.get_button: standing and here in (Presence.ABSENT, Presence.UNFINISHED),
            self.pause_button: getting,
            self.cancel_button: getting or (standing and unfinished),
            self.remove_button: standing and here in (Presence.HERE, Presence.DAMAGED),
            self.really_button: self._asking and mine is None,
            self.keep_button: self._asking and mine is None,
        }
        for button, visible in shown.items():
            button.setVisible(visible)
        self._enable(mine)
        self._say(mine)

    def _enable(self, mine: Job | None) -> None:
        busy = self._job is not None
        for button in (self.get_button, self.remove_button, self.really_button):
            button.setEnabled(not busy)
        self.get_button.setToolTip(
            "Something else is under way; wait for it, or pause it"
            if busy
            else "Download it; its sha256 is checked before it is used"
        )
        used = self._chosen and self.row.presence is Presence.HERE
        if used:
            self.remove_button.setEnabled(False)
        self.remove_button.setToolTip(
            "Captions use it; choose Use at another size first" if used else "Remove it from this machine"
        )
        self.pause_button.setEnabled(mine is not None and not mine.stopping)
        self.cancel_button.setEnabled(not busy or (mine is not None and not mine.stopping))

    def _say(self, mine: Job | None) -> None:
        getting = mine is not None and mine.doing is Doing.GET
        self.bar.setVisible(getting)
        if mine is not None and getting:
            self.bar.setValue(round(STEPS * mine.done / mine.total) if mine.total else 0)
            text = words.progress(mine)
        elif mine is not None:
            text = "Removing …"
        elif self._asking:
            room = words.megabytes(self.row.done_bytes)
            shared = " Other programs that use this file fetch it again." if self.row.path.endswith(".pt") else ""
            text = f"Remove {self.row.path} ({room})?{shared}"
        else:
            text = words.state(self.row)
        self.state.setText(text)
        self.state.setToolTip(self.row.path)
        self.bar.setAccessibleDescription(text)
        calm = self.row.presence is not Presence.DAMAGED and (self.row.verified or self._asking)
        tone = "" if calm or mine is not None else "warning"
        if self.state.property("tone") != tone:
            self.state.setProperty("tone", tone)
            self.state.style().unpolish(self.state)
            self.state.style().polish(self.state)
