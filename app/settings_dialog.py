"""The settings as a dialog, built from the table. What is chosen holds at once; there is nothing to confirm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.controls import BackgroundControl, quiet_button, section_label
from app.fitting import open_within
from app.settings import MOST_NAME_CHARS, ROWS, Preset, Row, preset, shown
from app.settings_controls import Control, Offers, make_control
from app.settings_store import SettingsStore
from app.shortcut_view import ShortcutSection
from app.theme import Theme, scaled_font
from engine.types import UsageError

SIZE = (720, 660)
CHARS = 95  # wide enough for this many, however large the desktop writes


class SettingsDialog(QDialog):
    """Sections, rows, presets. `unavailable` says of some settings why they do nothing here; those are greyed."""

    def __init__(
        self,
        store: SettingsStore,
        offers: Offers,
        unavailable: dict[str, str],
        look_again: Callable[[], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._store, self._unavailable = store, unavailable
        self._look_again = look_again  # lists devices anew, when the dialog opens
        self.setWindowTitle("Settings")
        self.setObjectName("settings")
        self.controls: dict[str, Control] = {}
        self.sentences: dict[str, QLabel] = {}
        self.resets: dict[str, QToolButton] = {}
        self.line = QLabel()
        self.line.setWordWrap(True)
        self.line.setProperty("tone", "warning")
        self.line.hide()
        self._make_buttons()
        for row in ROWS.values():
            self.controls[row.name] = make_control(row, partial(self._pick, row.name), offers)
            tip = f"Back to {self._default_text(row)}"
            self.resets[row.name] = button = quiet_button("Reset", tip, f"Reset {row.label}")
            button.clicked.connect(partial(self._reset, row.name))
        self.shortcuts = ShortcutSection(store, self._try)
        self._arrange()
        open_within(self, max(SIZE[0], CHARS * self.fontMetrics().averageCharWidth()), SIZE[1])
        self.setSizeGripEnabled(True)
        store.changed.connect(self._show)
        store.presets_changed.connect(self._fill_menu)
        store.failed.connect(self.say)
        self.show_all()

    # Layout -----------------------------------------------------------------------------------------------------------

    def _make_buttons(self) -> None:
        self.presets = quiet_button("Presets", "Background, level and captions for a purpose", "Take a preset")
        self.presets.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self.presets)
        self.forget_menu = QMenu("Forget a preset", self.menu)
        self.presets.setMenu(self.menu)
        self.name = QLineEdit()
        self.name.setPlaceholderText("Name for what is set now")
        self.name.setAccessibleName("Name of a new preset")
        self.name.setMinimumWidth(30 * self.fontMetrics().averageCharWidth())
        self.name.setMaxLength(MOST_NAME_CHARS)
        self.name.returnPressed.connect(self._save_preset)
        self.save = QPushButton("Save as preset")
        self.save.setObjectName("quiet")
        self.save.setAutoDefault(False)
        self.save.clicked.connect(self._save_preset)
        self.reset_all = QPushButton("Reset everything")
        self.reset_all.setObjectName("quiet")
        self.reset_all.setAutoDefault(False)
        self.reset_all.setToolTip("Every setting as it came; presets, microphones and shortcuts are kept")
        self.reset_all.clicked.connect(lambda: self._try(self._store.reset))
        self.done_button = QPushButton("Close")
        self.done_button.setObjectName("quiet")
        self.done_button.setAutoDefault(False)
        self.done_button.clicked.connect(self.close)
        self._fill_menu()

    def _arrange(self) -> None:
        head, foot = QHBoxLayout(), QHBoxLayout()
        head.addWidget(self.presets)
        head.addStretch(1)
        head.addWidget(self.name)
        head.addWidget(self.save)
        foot.addWidget(self.reset_all)
        foot.addStretch(1)
        foot.addWidget(self.done_button)
        self.area = QScrollArea()
        self.area.setWidget(self._page())
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        box = QVBoxLayout(self)
        box.setContentsMargins(18, 14, 12, 18)  # the grip for its size is in the corner
        box.setSpacing(10)
        box.addLayout(head)
        box.addWidget(self.line)
        box.addWidget(self.area, 1)
        box.addLayout(foot)

    def _page(self) -> QWidget:
        page = QWidget()
        page.setObjectName("page")
        grid = QGridLayout(page)
        grid.setContentsMargins(0, 0, 8, 0)
        grid.setHorizontalSpacing(18)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        at, group = 0, ""
        for row in ROWS.values():
            if row.group != group:
                group = row.group
                title = section_label(group)
                title.setFont(scaled_font(1.2, bold=True))
                title.setContentsMargins(0, 14 if at else 0, 0, 4)
                grid.addWidget(title, at, 0, 1, 3)
                at += 1
            at = self._add_row(grid, at, row)
        grid.addWidget(self.shortcuts, at, 0, 1, 3)
        grid.setRowStretch(at + 1, 1)
        return page

    def _add_row(self, grid: QGridLayout, at: int, row: Row) -> int:
        """Label, control and reset in one line, the sentence under them -> the next free line."""
        top = Qt.AlignmentFlag.AlignTop
        control = self.controls[row.name]
        label = QLabel(row.label)
        label.setContentsMargins(0, 6, 0, 0)
        label.setBuddy(control.focus)
        sentence = self.sentences[row.name] = QLabel(self._unavailable.get(row.name, row.sentence))
        sentence.setProperty("tone", "muted")
        sentence.setFont(scaled_font(0.9))
        sentence.setWordWrap(True)
        sentence.setContentsMargins(0, 0, 0, 10)
        grid.addWidget(label, at, 0, top)
        grid.addWidget(control.widget, at, 1)
        grid.addWidget(self.resets[row.name], at, 2, top)
        grid.addWidget(sentence, at + 1, 1, 1, 2)
        label.setVisible(not control.says_itself)
        sentence.setVisible(not control.says_itself)
        grid.setRowMinimumHeight(at + 1, 16)
        return at + 2

    def _fill_menu(self) -> None:
        self.menu.clear()
        self.forget_menu.clear()
        for name in self._store.remembered.presets:
            self.menu.addAction(_menu_text(name)).triggered.connect(partial(self._take_preset, name))
        for name in self._store.remembered.own_presets:
            forget = partial(self._try, partial(self._store.delete_preset, name))
            self.forget_menu.addAction(_menu_text(name)).triggered.connect(lambda _=False, forget=forget: forget())
        if self._store.remembered.own_presets:
            self.menu.addSeparator()
            self.menu.addMenu(self.forget_menu)

    # What it shows ----------------------------------------------------------------------------------------------------

    def open_in_front(self) -> None:
        """Show it, over the window, with what is plugged in now."""
        self._look_again()
        self.show()
        self.raise_()
        self.activateWindow()

    def show_all(self) -> None:
        """Every control as the settings are, and what may be chosen as it is now."""
        for name in ROWS:
            self._show(name)

    def set_unavailable(self, unavailable: dict[str, str]) -> None:
        """Show all anew, now that other settings do nothing here."""
        self._unavailable = unavailable
        for name, sentence in self.sentences.items():
            sentence.setText(unavailable.get(name, ROWS[name].sentence))
        self.show_all()

    def say(self, text: str) -> None:
        """A line that stays until the next change."""
        self.line.setText(text[:1].upper() + text[1:])
        self.line.setAccessibleName(text)
        self.line.show()

    def set_theme(self, theme: Theme) -> None:
        for control in self.controls.values():
            if isinstance(control.widget, BackgroundControl):
                control.widget.set_theme(theme)

    def _show(self, name: str) -> None:
        settings, row = self._store.settings, ROWS[name]
        value = getattr(settings, name)
        self.controls[name].show(value)
        self.controls[name].widget.setEnabled(name not in self._unavailable)
        self.resets[name].setEnabled(value != row.default)
        used = settings.virtual_microphone and "virtual_microphone" not in self._unavailable
        self.controls["output"].widget.setEnabled(not used)

    def _default_text(self, row: Row) -> str:
        return shown(row.default) or "the default"

    # What the person does ---------------------------------------------------------------------------------------------

    def _pick(self, name: str, value: Any) -> None:
        """A person knows a setting by its label."""
        self._try(lambda: self._store.set(**{name: value}), (name, ROWS[name].label))
        self._show(name)

    def _reset(self, name: str) -> None:
        self._try(lambda: self._store.reset(name))
        self._show(name)

    def _take_preset(self, name: str) -> None:
        self._try(lambda: self._store.set(**preset(self._store.remembered, name).model_dump()))

    def _save_preset(self) -> None:
        now = self._store.settings
        kept = Preset(background=now.background, level=now.level, captions=now.captions)
        if self._try(lambda: self._store.save_preset(self.name.text(), kept)):
            self.name.clear()

    def _try(self, change: Callable[[], object], call: tuple[str, str] = ("", "")) -> bool:
        """Make a change; what may not be is said in a line, with the second of `call` in place of the first."""
        self.line.hide()
        try:
            change()
        except UsageError as error:
            self.say(str(error).replace(*call, 1))
            return False
        return True


def _menu_text(name: str) -> str:
    return name.replace("&", "&&")
