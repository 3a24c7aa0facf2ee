"""The models' place in the window: a quiet button, which tells of a download, and the dialog behind it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QToolButton, QWidget

from app import model_words as words
from app.controls import quiet_button
from app.model_jobs import Doing, ModelJobs
from app.model_shelf import EngineShelf, Shelf
from app.models_dialog import ModelsDialog
from app.shortcut_keys import bind_button
from app.theme import scaled_font
from engine.types import EngineConfig

LABEL = "Models"
TIP = "What listens and cleans: Whisper's sizes, and the networks of the sound ({})"


class Models(QWidget):
    """What the window has of the models. Nothing is loaded, looked at or opened before a person asks.

    wanted: the size that captions shall use. arrived: a size that is here from now on. told: a sentence for who does
    not see the dialog.
    """

    wanted = Signal(str)
    arrived = Signal(str)
    told = Signal(str)

    def __init__(self, config: Callable[[], EngineConfig], parent: QWidget, shelf: Shelf | None = None) -> None:
        super().__init__(parent)
        self._parent, self._config = parent, config
        self.hide()
        self.button: QToolButton = quiet_button(LABEL, "", "Models")
        self._keys = bind_button(self.button, "models", TIP)
        self.button.setFont(scaled_font(0.9))
        self.button.setProperty("narrow", True)
        self.button.clicked.connect(self.open)
        self.jobs = ModelJobs(shelf or EngineShelf(), lambda: config().provider, self)
        self.jobs.moved.connect(self._show_job)
        self.jobs.failed.connect(self._tell_failed)
        self.jobs.done.connect(self._tell_done)
        self.dialog: ModelsDialog | None = None

    def open(self) -> None:
        """Show the dialog, over the window."""
        if self.dialog is None:
            self.dialog = ModelsDialog(self.jobs, self._config, self._parent)
            self.dialog.wanted.connect(self.wanted)
        self.dialog.show()
        self.dialog.raise_()
        self.dialog.activateWindow()

    def show_chosen(self) -> None:
        """The size that captions use was chosen, here or elsewhere."""
        if self.dialog is not None:
            self.dialog.show_chosen()

    def close_all(self) -> None:
        """The window goes: so does the dialog. What is there of a download is kept."""
        self.jobs.close()
        if self.dialog is not None:
            self.dialog.close()

    def _show_job(self) -> None:
        job = self.jobs.job
        text = words.brief(job) or LABEL
        if self.button.text() != text:
            self.button.setText(text)
            known = text != LABEL
            self.button.setAccessibleName(f"{LABEL}: {text}" if known else LABEL)
            tip = f"{job.name}: {words.progress(job)}" if job is not None and known else TIP
            self._keys.set_tip(tip, self.button)

    def _seen(self) -> bool:
        return self.dialog is not None and self.dialog.isVisible()

    def _tell_failed(self, text: str, name: str) -> None:
        if not self._seen():
            self.told.emit(text)

    def _tell_done(self, doing: Doing, name: str) -> None:
        if doing in (Doing.GET, Doing.IMPORT):
            self.arrived.emit(name)
        if not self._seen():
            self.told.emit(words.finished(doing, name, self._config()))
