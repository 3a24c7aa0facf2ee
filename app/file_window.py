"""The window of sound files: a list that is worked off, what is wanted of them, and both sounds to compare.

It stands beside the main window and does nothing to the sound that runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QModelIndex, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.batch import OPEN, Batch, Item, ItemState, Wishes
from app.console import clock
from app.controls import BackgroundControl, section_label
from app.fitting import open_within
from app.listening import Listening, OpenPlayer, open_player
from app.painted import TickBox
from app.theme import Theme
from engine.types import Background, EngineConfig

SIZE, SMALLEST = (860, 520), (720, 400)
SIDE_WIDTH = 250
LOOK_MS = 500
BAR_PX = 7
SOUNDS = (
    "Sound and film (*.wav *.flac *.mp3 *.ogg *.opus *.m4a *.aac *.aiff *.aif *.caf *.w64 *.mp4 *.mkv *.webm *.mov)"
)
FILE, DONE, STATE = range(3)
BESIDE = "Beside each file"


def dropped_files(event: QDragEnterEvent | QDropEvent) -> list[Path]:
    """The files on this machine that are held over a window, or let fall."""
    return [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]


def words_of(item: Item) -> str:
    """How a file stands, for a person."""
    if item.state is ItemState.WAITING:
        return "Waiting"
    if item.state is ItemState.STOPPING:
        return "Stopping …"
    if item.state is ItemState.WORKING:
        left_s = item.left_s
        return "Begun" if left_s is None else f"{clock(left_s)[:-2]} left"
    text = item.text.replace(str(item.source), item.source.name)
    if item.state is ItemState.FAILED:
        return text if text.startswith(item.source.name) else text[:1].upper() + text[1:]
    name = item.result.name if item.result is not None else ""
    if item.state is ItemState.STOPPED:
        return f"Stopped; {name} holds the first {clock(item.sound_s)}" if name else text or "Stopped; nothing kept"
    return f"{name} — {text}" if text else name


def style_sheet(t: Theme) -> str:
    """Of what only this window has."""
    return f"""
QTableWidget {{ background: {t.panel}; border: 1px solid {t.line}; border-radius: 8px; padding: 4px;
  selection-background-color: {t.raised}; selection-color: {t.text}; }}
QTableWidget:focus {{ border-color: {t.accent}; }}
QTableWidget::item {{ padding: 5px; }}
QHeaderView::section {{ background: {t.panel}; color: {t.muted}; border: none; padding: 5px 8px; }}
QProgressBar {{ background: {t.line}; border: none; border-radius: 3px; max-height: {BAR_PX}px; }}
QProgressBar::chunk {{ background: {t.accent}; border-radius: 3px; }}
QPushButton {{ background: {t.raised}; border: 1px solid {t.line}; border-radius: 6px; padding: 5px 11px; }}
QPushButton:hover {{ border-color: {t.muted}; }}
QPushButton:focus {{ border-color: {t.accent}; }}
QPushButton:disabled {{ color: {t.faint}; background: transparent; }}
QPushButton#main:enabled {{ background: {t.accent}; color: {t.on_accent}; }}
QLabel#drop {{ color: {t.muted}; border: 1px dashed {t.faint}; border-radius: 8px; }}
QSlider#place::groove {{ background: {t.raised}; height: 5px; border-radius: 2px; }}
QSlider#place::sub-page {{ background: {t.accent}; border-radius: 2px; }}
QSlider#place::handle {{ background: {t.accent}; width: 14px; height: 14px; margin: -5px 0; border-radius: 7px; }}
QSlider#place::handle:focus {{ background: {t.text}; }}
QSlider#place::sub-page:disabled, QSlider#place::handle:disabled {{ background: {t.line}; }}
QCheckBox:focus {{ color: {t.accent}; }}
"""


class FileWindow(QWidget):
    """What goes on in the main window is asked for when it is needed: the places when this one is shown, provider,
    language and Whisper's size when work begins, the output (an id, None for the default) when a comparison does.
    `batch` may be one that works on made-up files.
    """

    def __init__(
        self,
        places: Callable[[], list[Any]],
        output: Callable[[], str | None],
        config: Callable[[], EngineConfig],
        batch: Batch | None = None,
        open_player: OpenPlayer = open_player,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setObjectName("page")
        self.setWindowTitle("Sound files — Sottovoce")
        self.setAcceptDrops(True)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.batch = batch or Batch(parent=self)
        self._places, self._config = places, config
        self._folder: Path | None = None
        self.background = BackgroundControl(Background())
        self.background.sentence.hide()
        self.stems = TickBox("Voice and background alone")
        self.stems.setToolTip("Two more files: the voice alone and the background alone, at 16 kHz")
        self.captions = TickBox("Captions (SRT)")
        self.captions.setToolTip("One more file: what is said, with times; takes about as long again")
        self.where = QLabel(BESIDE)
        self.where.setWordWrap(True)
        self.choose, self.beside = QPushButton("Choose folder …"), QPushButton(BESIDE)
        self.add, self.start = QPushButton("Add files …"), QPushButton("Clean")
        self.stop, self.clear = QPushButton("Stop"), QPushButton("Clear finished")
        self.table = self._made_table()
        self.empty = QLabel("Drop sound files here, or add them.")
        self.empty.setObjectName("drop")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setWordWrap(True)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setProperty("tone", "warning")
        self.message.hide()
        self.listening = Listening(output, open_player)
        self.start.setObjectName("main")
        self._arrange()
        self._connect()
        self.add.setFocus()
        self.setMinimumSize(*SMALLEST)
        open_within(self, *SIZE)
        self._show_all()

    def _made_table(self) -> QTableWidget:
        table = QTableWidget(0, 3)
        table.setHorizontalHeaderLabels(["File", "Done", "Result"])
        table.verticalHeader().hide()
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(True)
        table.setTabKeyNavigation(False)
        table.setAccessibleName("Sound files")
        header = table.horizontalHeader()
        header.setSectionResizeMode(FILE, QHeaderView.ResizeMode.Interactive)
        header.setSectionResizeMode(DONE, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(STATE, QHeaderView.ResizeMode.Stretch)
        header.resizeSection(FILE, 160)
        header.resizeSection(DONE, 84)
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        return table

    def _arrange(self) -> None:
        side = QVBoxLayout()
        side.setSpacing(7)
        side.addWidget(self.background)
        side.addSpacing(8)
        side.addWidget(section_label("Also write"))
        side.addWidget(self.stems)
        side.addWidget(self.captions)
        side.addSpacing(8)
        side.addWidget(section_label("Where to"))
        side.addWidget(self.where)
        side.addWidget(self.choose)
        side.addWidget(self.beside)
        side.addStretch(1)
        left = QWidget()
        left.setLayout(side)
        left.setFixedWidth(max(SIDE_WIDTH, round(self.fontMetrics().averageCharWidth() * 36)))
        side.setContentsMargins(0, 0, 6, 0)
        right = QVBoxLayout()
        right.addWidget(self.message)
        right.addWidget(self.empty, 1)
        right.addWidget(self.table, 1)
        buttons = QHBoxLayout()
        for button in (self.add, self.start, self.stop, self.clear):
            buttons.addWidget(button)
        buttons.addStretch(1)
        right.addLayout(buttons)
        right.addWidget(self.listening)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 14, 16, 12)
        row.setSpacing(16)
        row.addWidget(left)
        row.addLayout(right, 1)

    def _connect(self) -> None:
        self.add.clicked.connect(self.ask_for_files)
        self.start.clicked.connect(self._wish)
        self.start.clicked.connect(self.batch.start)
        self.start.clicked.connect(self._show_all)
        self.stop.clicked.connect(self._stop)
        self.clear.clicked.connect(self._clear)
        self.choose.clicked.connect(self._choose_folder)
        self.beside.clicked.connect(lambda: self.set_folder(None))
        self.background.changed.connect(self._wish)
        self.stems.toggled.connect(self._wish)
        self.captions.toggled.connect(self._wish)
        self.batch.changed.connect(self._show_item)
        self.batch.finished.connect(self._show_all)
        self.table.itemSelectionChanged.connect(self._show_pair)
        self.listening.failed.connect(self.say)
        self._timer = QTimer(self)  # time left goes on between two words from the work
        self._timer.timeout.connect(self._show_working)
        self._timer.start(LOOK_MS)
        self._wish()

    def set_theme(self, theme: Theme) -> None:
        self.background.set_theme(theme)
        self.setStyleSheet(style_sheet(theme))

    # What the person does ---------------------------------------------------------------------------------------------

    def take(self, sources: Sequence[Path]) -> None:
        """Put files into the list; folders are told to be none."""
        self.message.hide()
        folders = [path for path in sources if path.is_dir()]
        if folders:
            self.say(f"{folders[0]} is a folder; drop the sound files in it")
        self.batch.add([path for path in sources if path not in folders])
        self._show_all()

    def ask_for_files(self) -> None:
        """Let a person choose."""
        names, _ = QFileDialog.getOpenFileNames(self, "Sound files to clean", "", f"{SOUNDS};;All files (*)")
        if names:
            self.take([Path(name) for name in names])

    def set_folder(self, folder: Path | None) -> None:
        """Where results go; None is beside each file."""
        self._folder = folder
        self.where.setText(BESIDE if folder is None else str(folder))
        self._wish()

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Where the results go", str(self._folder or ""))
        if chosen:
            self.set_folder(Path(chosen))

    def _wish(self) -> None:
        config = self._config()
        self.batch.wishes = Wishes(
            str(self.background.background()),
            self.stems.isChecked(),
            self.captions.isChecked(),
            self._folder,
            config.provider.value,
            config.language,
            config.whisper,
        )

    def _stop(self) -> None:
        self.batch.cancel_all()
        self._show_all()

    def _clear(self) -> None:
        self.batch.remove_closed()
        self._show_all()

    def say(self, text: str) -> None:
        """A line about what went wrong that belongs to no file."""
        self.message.setText(text[:1].upper() + text[1:])
        self.message.show()

    # What is shown ----------------------------------------------------------------------------------------------------

    def _show_all(self) -> None:
        items = self.batch.items
        self._drop_gone(items)
        for item in items[self.table.rowCount() :]:
            self._append(item)
        for item in items:
            self._show_item(item)
        self.empty.setVisible(not items)
        self.table.setVisible(bool(items))
        self.listening.setVisible(bool(items))
        self._show_buttons()

    def _drop_gone(self, items: Sequence[Item]) -> None:
        """Rows that are in the list no more go, all others stay as they are, the chosen one chosen."""
        chosen = self._item_at(self.table.currentRow())
        if chosen is not None and chosen not in items:
            self.table.setCurrentIndex(QModelIndex())  # else its neighbour would be chosen in its place
        for row in reversed(range(self.table.rowCount())):
            if self._item_at(row) not in items:
                self.table.removeRow(row)

    def _append(self, item: Item) -> None:
        row = self.table.rowCount()
        self.table.insertRow(row)
        name = QTableWidgetItem(item.source.name)
        name.setData(Qt.ItemDataRole.UserRole, item)
        name.setToolTip(str(item.source))
        bar = QProgressBar()
        bar.setRange(0, 1000)
        bar.setTextVisible(False)
        bar.setFixedHeight(BAR_PX)
        bar.setAccessibleName(f"Progress of {item.source.name}")
        self.table.setItem(row, FILE, name)
        room = QWidget()
        middle = QVBoxLayout(room)
        middle.setContentsMargins(5, 0, 12, 0)
        middle.addWidget(bar)
        self.table.setCellWidget(row, DONE, room)
        self.table.setItem(row, STATE, QTableWidgetItem())

    def _item_at(self, row: int) -> Item | None:
        cell = self.table.item(row, FILE)
        return cell.data(Qt.ItemDataRole.UserRole) if cell is not None else None

    def _show_item(self, item: Item) -> None:
        row = next((row for row in range(self.table.rowCount()) if self._item_at(row) is item), None)
        if row is not None:
            self.progress(row).setValue(round(1000 * item.part))
            words, cell = words_of(item), self.table.item(row, STATE)
            if cell is not None and cell.text() != words:
                cell.setText(words)
                cell.setToolTip(words)
        self._show_buttons()

    def progress(self, row: int) -> QProgressBar:
        """The bar of a row."""
        bar = self.table.cellWidget(row, DONE).findChild(QProgressBar)
        assert bar is not None
        return bar

    def _show_working(self) -> None:
        for item in self.batch.items:
            if item.state is ItemState.WORKING:
                self._show_item(item)

    def _show_buttons(self) -> None:
        states = {item.state for item in self.batch.items}
        self.start.setEnabled(ItemState.WAITING in states and not self.batch.running)
        self.stop.setEnabled(self.batch.running or ItemState.WORKING in states)
        self.clear.setEnabled(any(state not in OPEN for state in states))
        self._show_pair()

    def _show_pair(self) -> None:
        """Offer the chosen file to be heard; where none is chosen what plays now, or else the newest result."""
        row = self.table.currentRow()
        item = self._item_at(row) if row >= 0 else None
        items = self.batch.items if item is None else [item]
        pairs = [(item.source, item.result) for item in items if item.result is not None]
        heard = self.listening.heard
        self.listening.show_pair(heard if heard in pairs else pairs[-1] if pairs else None)

    # Coming and going -------------------------------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if dropped_files(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.take(dropped_files(event))
        event.acceptProposedAction()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.background.set_places(self._places())
        self.background.place.setItemText(0, "As it was")
        self._wish()

    def closeEvent(self, event: QCloseEvent) -> None:
        """The list and its work stay; only the comparison is over."""
        self.listening.close_player()
        super().closeEvent(event)

    def end(self) -> None:
        """The program ends: stop, and keep what was done."""
        self.listening.close_player()
        self._timer.stop()
        self.batch.close()
        self.close()
