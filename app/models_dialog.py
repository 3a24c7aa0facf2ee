"""The dialog of the models: which Whisper captions use, which others can be had, and the networks of the sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QDir, Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QDialog, QFileDialog, QFrame, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app import model_words as words
from app.controls import section_label
from app.fitting import open_within
from app.model_card import SizeCard, quiet
from app.model_jobs import Doing, Job, ModelJobs
from app.model_shelf import Inventory
from app.theme import scaled_font
from engine.sizes import canonical
from engine.types import EngineConfig

SIZE = (820, 640)
CHARS = 96  # wide enough for this many, however large the desktop writes
FILTERS = ["Whisper models (*.pt *.bin *.safetensors)", "All files (*)"]


class ModelsDialog(QDialog):
    """Shows an Inventory and the job under way; `wanted` is the size that captions shall use."""

    wanted = Signal(str)

    def __init__(self, jobs: ModelJobs, config: Callable[[], EngineConfig], parent: QWidget | None = None) -> None:
        """config: what captions are asked for now."""
        super().__init__(parent)
        self.jobs, self._config = jobs, config
        self.cards: dict[str, SizeCard] = {}
        self.setWindowTitle("Models")
        self.setObjectName("models")
        self.line, self.use_line, self.machine = QLabel("Looking at what is here …"), QLabel(), QLabel()
        self.import_button = quiet("Import a file …", "Import a Whisper model from a file", "Take a model from a file")
        self.import_button.setToolTip(
            "An openai-whisper checkpoint (.pt) or CTranslate2's model.bin, in half precision"
        )
        self.import_button.clicked.connect(self.ask_for_file)
        self.stop_button = quiet("Stop", "Stop the import")
        self.stop_button.clicked.connect(jobs.pause)
        self.close_button = quiet("Close", "Close", "Downloads go on")
        self.close_button.clicked.connect(self.close)
        self._sizes, self._networks = QVBoxLayout(), QVBoxLayout()
        self._arrange()
        open_within(self, max(SIZE[0], CHARS * self.fontMetrics().averageCharWidth()), SIZE[1])
        jobs.looked.connect(self._show_inventory)
        jobs.moved.connect(self._show_job)
        jobs.failed.connect(lambda text, _: self.say(text, "warning"))
        jobs.done.connect(lambda doing, name: self.say(words.finished(doing, name, self._config())))
        if jobs.inventory is not None:
            self._show_inventory(jobs.inventory)
        self._show_job()

    # Layout -----------------------------------------------------------------------------------------------------------

    def _arrange(self) -> None:
        for label in (self.line, self.use_line, self.machine):
            label.setWordWrap(True)
        self.line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.line.setProperty("tone", "muted")
        self.machine.setProperty("tone", "muted")
        self._sizes.setSpacing(6)
        self._networks.setSpacing(6)
        page = QWidget()
        page.setObjectName("page")
        box = QVBoxLayout(page)
        box.setContentsMargins(0, 0, 8, 0)
        box.addWidget(section_label("Whisper, for captions"))
        box.addWidget(self.use_line)
        box.addLayout(self._sizes)
        box.addSpacing(12)
        box.addWidget(section_label("Networks of the sound"))
        box.addWidget(self.machine)
        box.addLayout(self._networks)
        box.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(page)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scroll = scroll
        foot = QHBoxLayout()
        for button in (self.import_button, self.stop_button):
            foot.addWidget(button)
        foot.addStretch(1)
        foot.addWidget(self.close_button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(18, 14, 10, 10)
        outer.setSpacing(10)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.line)
        outer.addLayout(foot)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.jobs.look()

    # What is told -----------------------------------------------------------------------------------------------------

    def say(self, text: str, tone: str = "muted") -> None:
        """One sentence at the foot: what was done, or what went wrong."""
        text = text[:1].upper() + text[1:]
        self.line.setText(text)
        self.line.setAccessibleName(text)
        self.line.setProperty("tone", tone)
        self.line.style().unpolish(self.line)
        self.line.style().polish(self.line)

    @property
    def _chosen(self) -> str:
        return canonical(self._config().whisper)

    def show_chosen(self) -> None:
        """Captions shall use another size."""
        for card in self.cards.values():
            card.show_chosen(card.name == self._chosen)
        if self.jobs.inventory is not None:
            self.use_line.setText(words.in_use(self._chosen, self.jobs.inventory))
        self.say(words.chosen(self._config()))

    def _show_inventory(self, inventory: Inventory) -> None:
        if not self.cards:
            self._fill(inventory)
            self.say("")
        for row in inventory.sizes:
            if row.size.name in self.cards:
                self.cards[row.size.name].show_row(row, row.size.name == self._chosen)
        self.use_line.setText(words.in_use(self._chosen, inventory))
        self.machine.setText(words.machine(inventory))

    def _fill(self, inventory: Inventory) -> None:
        for row in inventory.sizes:
            card = SizeCard(row)
            card.get.connect(self._get)
            card.pause.connect(self.jobs.pause)
            card.cancel.connect(self.jobs.cancel)
            card.remove.connect(self.jobs.remove)
            card.use.connect(self.wanted)
            self.cards[card.name] = card
            self._sizes.addWidget(card)
        last_in_chain = list(self.cards.values())[-1].last_button
        for network in inventory.networks:
            name, about = QLabel(network.name.capitalize()), QLabel(words.network(network))
            name.setFont(scaled_font(1.0, bold=True))
            about.setToolTip(f"{network.file}\nsha256 {network.sha256}")
            about.setProperty("tone", "warning" if network.problem else "")
            origin = QLabel(words.ancestors(network))
            origin.setProperty("tone", "muted")
            for label in (name, about, origin):
                label.setWordWrap(True)
                self._networks.addWidget(label)
            for label in (about, origin):
                label.setFont(scaled_font(0.92))
        for button in (self.import_button, self.stop_button, self.close_button):  # after what stands above them
            QWidget.setTabOrder(last_in_chain, button)
            last_in_chain = button

    def _show_job(self) -> None:
        job: Job | None = self.jobs.job
        importing = job is not None and job.doing is Doing.IMPORT
        self.import_button.setEnabled(job is None)
        self.stop_button.setVisible(importing)
        if job is not None and importing:
            self.say(f"{job.name}: {words.progress(job)}")
        for card in self.cards.values():
            card.show_job(job)

    # What the person asks for -----------------------------------------------------------------------------------------

    def _get(self, name: str) -> None:
        self.say("")
        self.jobs.get(name)

    def ask_for_file(self) -> QFileDialog:
        """Show the dialog for the file to import."""
        dialog = QFileDialog(self, "Import a Whisper model")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilters(FILTERS)
        dialog.setDirectory(QDir.homePath())
        dialog.fileSelected.connect(lambda path: self.jobs.import_file(Path(path)))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()
        return dialog
