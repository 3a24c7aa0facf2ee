"""The shortcuts for a person: a section of the settings where they are changed, and a list of them as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QKeySequenceEdit,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.controls import quiet_button, section_label
from app.fitting import open_within
from app.settings_store import SettingsStore
from app.shortcut_keys import PORTABLE, keys_of, native, sequences
from app.shortcuts import FIXED, SHORTCUTS, WINDOW, Shortcut, in_force
from app.theme import scaled_font

HOW = "Choose a field and press the keys; Off leaves a shortcut without any."
LIST_SIZE = (560, 600)
FIELD_CHARS = 26
IN_FILES = "In the window of sound files"
ALWAYS = "Always"


class Attempt(Protocol):
    """Make a change, and tell a person where it may not be -> whether it was made."""

    def __call__(self, change: Callable[[], object]) -> bool: ...


class KeyEdit(QKeySequenceEdit):
    """Takes one combination of keys. Escape is the dialog's, and Tab goes on to the next control."""

    given = Signal(str)  # keys, in the table's form
    left = Signal()  # without any

    def __init__(self) -> None:
        super().__init__()
        self.setMaximumSequenceLength(1)
        self.setFixedWidth(FIELD_CHARS * self.fontMetrics().averageCharWidth())
        line = self.findChild(QLineEdit)
        assert line is not None
        self.line = line
        self.editingFinished.connect(self._finish)

    def show_keys(self, keys: tuple[str, ...]) -> None:
        """The first of these, without telling anybody; there is room for one."""
        self.blockSignals(True)
        self.setKeySequence(sequences(keys)[0] if keys else QKeySequence())
        self.blockSignals(False)
        self.line.setPlaceholderText("Off" if not keys else "")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Ctrl alone, say, has emptied the field."""
        super().focusOutEvent(event)
        self.left.emit()

    def _finish(self) -> None:
        text = self.keySequence().toString(PORTABLE)
        if text:
            self.given.emit(text)
        else:
            self.left.emit()


class ShortcutSection(QWidget):
    """A row for each shortcut: what it does, its keys, off, and back to how it came. What is chosen holds at once."""

    def __init__(self, store: SettingsStore, attempt: Attempt) -> None:
        super().__init__()
        self._store, self._attempt = store, attempt
        self.edits: dict[str, KeyEdit] = {}
        self.offs: dict[str, QToolButton] = {}
        self.resets: dict[str, QToolButton] = {}
        self.sentences: dict[str, QLabel] = {}
        self.reset_all = quiet_button("Reset all", "Every shortcut as it came", "Reset all shortcuts")
        self.reset_all.clicked.connect(store.reset_shortcuts)
        self._arrange()
        store.shortcuts_changed.connect(self.show_all)
        self.show_all()

    def _arrange(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 14, 0, 8)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(8)
        grid.setColumnStretch(0, 1)
        title = section_label("Shortcuts")
        title.setFont(scaled_font(1.2, bold=True))
        grid.addWidget(title, 0, 0)
        grid.addWidget(self.reset_all, 0, 2, 1, 2, Qt.AlignmentFlag.AlignRight)
        grid.addWidget(_muted(HOW), 1, 0, 1, 4)
        for at, known in enumerate(SHORTCUTS.values(), 2):
            self._add_row(grid, at, known)

    def _add_row(self, grid: QGridLayout, at: int, known: Shortcut) -> None:
        name = known.name
        label, edit = QLabel(known.label), KeyEdit()
        label.setBuddy(edit)
        for widget in (edit, edit.line):
            widget.setAccessibleName(f"Keys of {known.label}")
            widget.setAccessibleDescription(known.sentence)
        edit.given.connect(partial(self._pick, name))
        edit.left.connect(partial(self._show, name))
        off = quiet_button("Off", "No keys for this", f"No keys for {known.label}")
        off.clicked.connect(lambda: self._pick(name, ""))
        reset = quiet_button("Reset", f"Back to {native(known.keys)}", f"Reset keys of {known.label}")
        reset.clicked.connect(lambda: self._pick(name, None))
        self.sentences[name] = _muted(known.sentence)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(label)
        words.addWidget(self.sentences[name])
        grid.addLayout(words, at, 0)
        for column, each in enumerate((edit, off, reset), 1):
            grid.addWidget(each, at, column)
        self.edits[name], self.offs[name], self.resets[name] = edit, off, reset

    def show_all(self) -> None:
        """Every row as the settings are."""
        for name in SHORTCUTS:
            self._show(name)
        self.reset_all.setEnabled(bool(self._store.remembered.shortcuts))

    def _show(self, name: str) -> None:
        """The field has room for one combination; others that do the same are told beside it."""
        known, changes = SHORTCUTS[name], self._store.remembered.shortcuts
        keys = in_force(changes)[name]
        self.edits[name].show_keys(keys)
        where = " (sound files)" if known.place != WINDOW else ""
        also = f"; also {native(keys[1:])}" if keys[1:] else ""
        self.sentences[name].setText(f"{known.sentence}{where}{also}")
        self.offs[name].setEnabled(bool(keys))
        self.resets[name].setEnabled(name in changes)

    def _pick(self, name: str, keys: str | None) -> None:
        self._attempt(lambda: self._store.set_shortcut(name, keys))
        self._show(name)


class ShortcutList(QDialog):
    """All shortcuts as they are now, to be read; Escape closes it."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._keys = keys_of(window)
        self.setObjectName("shortcuts")
        self.setWindowTitle("Shortcuts")
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setAccessibleName("Shortcuts")
        self.close_button = QPushButton("Close")
        self.close_button.setObjectName("quiet")
        self.close_button.clicked.connect(self.close)
        foot = QHBoxLayout()
        foot.addStretch(1)
        foot.addWidget(self.close_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(18, 14, 12, 12)
        box.addWidget(self.area, 1)
        box.addLayout(foot)
        open_within(self, *LIST_SIZE)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._keys.changed.connect(self.fill)
        self.fill()

    def rows(self) -> list[tuple[str, str, str]]:
        """Heading, keys, sentence; what is off is not told."""
        told = [
            ("Shortcuts" if each.place == WINDOW else IN_FILES, native(self._keys.now[each.name]), each.sentence)
            for each in SHORTCUTS.values()
            if self._keys.now[each.name]
        ]
        return told + [(ALWAYS, native(keys.split(", ")), sentence) for keys, sentence in FIXED]

    def fill(self) -> None:
        """Show them anew."""
        page = QWidget()
        page.setObjectName("page")
        grid = QGridLayout(page)
        grid.setContentsMargins(0, 0, 8, 0)
        grid.setHorizontalSpacing(24)
        grid.setColumnStretch(1, 1)
        heading = ""
        for title, keys, sentence in self.rows():
            if title != heading:
                heading = title
                label = section_label(title)
                label.setContentsMargins(0, 10 if grid.count() else 0, 0, 2)
                grid.addWidget(label, grid.rowCount(), 0, 1, 2)
            at = grid.rowCount()
            grid.addWidget(QLabel(keys), at, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(_muted(sentence), at, 1)
        grid.setRowStretch(grid.rowCount(), 1)
        self.area.setWidget(page)


def show_shortcuts(window: QWidget) -> ShortcutList:
    """The list, in front of the window."""
    found = window.findChild(ShortcutList) or ShortcutList(window)
    found.show()
    found.raise_()
    found.activateWindow()
    return found


def _muted(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("tone", "muted")
    label.setFont(scaled_font(0.9))
    label.setWordWrap(True)
    return label
