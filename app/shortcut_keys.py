"""Binds the shortcuts of the table to what they do: at once, with the keys in the tooltip, and changed at any time.

A button's own shortcut would act 100 ms late, because Qt shows the button going down first. Each binding belongs to
its widget and is heard while that can be seen and used; `WindowKeys` belongs to the main window and reaches them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QAction, QKeySequence, QShortcut
from PySide6.QtWidgets import QAbstractButton, QWidget

from app.shortcuts import SHORTCUTS, in_force

PORTABLE = QKeySequence.SequenceFormat.PortableText
NATIVE = QKeySequence.SequenceFormat.NativeText
WHERE = (" ({})", ", {}")  # where keys stand in a tooltip; where there are none, all of it goes


def sequences(keys: Iterable[str]) -> list[QKeySequence]:
    """Keys of the table as Qt has them."""
    return [QKeySequence.fromString(key, PORTABLE) for key in keys]


def native(keys: Iterable[str]) -> str:
    """Keys as they are written on this machine's keyboard; empty for none."""
    return " or ".join(each.toString(NATIVE) for each in sequences(keys))


class Binding(QObject):
    """The keys of one shortcut in one place. Made by `bind` and `bind_action`."""

    changed = Signal()

    def __init__(self, name: str, parent: QObject, give: Callable[[list[QKeySequence]], object]) -> None:
        super().__init__(parent)
        self.name = name
        self.keys = SHORTCUTS[name].keys
        self._give = give
        self._tip = ""
        self._shows: QWidget | None = None
        give(sequences(self.keys))

    def set_keys(self, keys: tuple[str, ...]) -> None:
        """From now on these keys, and no others."""
        if keys != self.keys:
            self.keys = keys
            self._give(sequences(keys))
            self._show()
            self.changed.emit()

    def set_tip(self, tip: str, shows: QWidget) -> None:
        """A tooltip that follows the keys, which stand where it says " ({})" or ", {}"."""
        self._tip, self._shows = tip, shows
        self._show()

    def worded(self, text: str) -> str:
        """The text with the keys of now."""
        keys = native(self.keys)
        for where in WHERE:
            text = text.replace(where, where.format(keys) if keys else "")
        return text

    def _show(self) -> None:
        if self._shows is not None:
            self._shows.setToolTip(self.worded(self._tip))


def bind(widget: QWidget, name: str, act: Callable[[], object], tip: str = "", shows: QWidget | None = None) -> Binding:
    """Call `act` when the keys of the shortcut are pressed in the widget's window, while the widget can be seen.

    tip: for `shows`, else the widget, with the keys where it says " ({})" or ", {}"; none where it is empty.
    """
    keys = QShortcut(widget)
    keys.setAutoRepeat(SHORTCUTS[name].repeats)
    keys.activated.connect(act)
    binding = Binding(name, widget, keys.setKeys)
    if tip:
        binding.set_tip(tip, shows or widget)
    return binding


def bind_button(button: QAbstractButton, name: str, tip: str = "") -> Binding:
    """Press the button by the shortcut's keys. Its tooltip is the table's sentence where there is no other."""
    return bind(button, name, button.click, tip or f"{SHORTCUTS[name].sentence} ({{}})")


def bind_action(action: QAction, name: str) -> Binding:
    """Give an action the keys of the shortcut, which a menu shows beside it."""
    action.setAutoRepeat(SHORTCUTS[name].repeats)
    return Binding(name, action, action.setShortcuts)


class WindowKeys(QObject):
    """The keys that are in force in a main window, and in the windows that belong to it."""

    changed = Signal()

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.now = in_force({})
        self._windows: list[QWidget] = [window]

    def use(self, changes: Mapping[str, str]) -> None:
        """The table with these changes, at once."""
        self.now = in_force(changes)
        for window in self._windows:
            self._tell(window)
        self.changed.emit()

    def join(self, window: QWidget) -> None:
        """Another window, which was made later, and lasts as long as this one."""
        self._windows.append(window)
        self._tell(window)

    def _tell(self, window: QWidget) -> None:
        for binding in window.findChildren(Binding):
            binding.set_keys(self.now[binding.name])


def keys_of(widget: QWidget) -> WindowKeys:
    """Those of the widget's window."""
    window = widget.window()
    return window.findChild(WindowKeys) or WindowKeys(window)
