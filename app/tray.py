"""The icon in the desktop's tray: what keeps a closed window within reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer
from PySide6.QtGui import QAction, QIcon
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from engine.paths import assets_dir

if TYPE_CHECKING:
    from app.window import MainWindow

AGAIN_MS = 2000  # a tray may come after us at login, and go before us
NO_TRAY = "This desktop has no tray: closing the window quits Sottovoce."


def has_tray() -> bool:
    """Whether the desktop shows tray icons now."""
    return QSystemTrayIcon.isSystemTrayAvailable()


class Tray(QObject):
    """Show, on or bypass, mute, quit. While it is wanted and there, closing the window only hides it."""

    def __init__(self, window: MainWindow, available: Callable[[], bool] = has_tray) -> None:
        super().__init__(window)
        self._window, self._available = window, available
        self._wanted = False
        self.menu = QMenu()
        self._action("Show", window.come_to_front)
        self.on = self._action("On", window.power.click, checkable=True)
        self.mute = self._action("Mute", window.column.mute.click, checkable=True)
        self.menu.addSeparator()
        self._action("Quit", self.quit)
        self.icon = QSystemTrayIcon(QIcon(str(assets_dir() / "icon.svg")), self)
        self.icon.setToolTip("Sottovoce")
        self.icon.setContextMenu(self.menu)
        self.icon.activated.connect(self._activated)
        self.menu.aboutToShow.connect(self.refresh)
        self._again = QTimer(self)
        self._again.setInterval(AGAIN_MS)
        self._again.timeout.connect(self._look)
        window.closing.connect(self.close)

    def _action(self, text: str, do: Callable[[], object], checkable: bool = False) -> QAction:
        action = self.menu.addAction(text)
        action.setCheckable(checkable)
        action.triggered.connect(lambda _=False: do())
        return action

    def set_wanted(self, wanted: bool) -> None:
        """Keep running behind the icon, or no longer; waits for a tray that comes later."""
        self._wanted = wanted
        self._look()

    def refresh(self) -> None:
        """The menu's marks as the window is."""
        self.on.setChecked(self._window.power.isChecked())
        self.mute.setChecked(self._window.column.mute.isChecked())

    def quit(self) -> None:
        """Close the window for good."""
        self._window.stays = False
        self._window.close()

    def close(self) -> None:
        """The icon goes with the window."""
        self._again.stop()
        self.icon.hide()
        self.menu.hide()

    def _look(self) -> None:
        there = self._wanted and self._available()
        self.icon.setVisible(there)
        if self._window.stays and not there and self._window.isHidden():  # nothing else would bring it back
            self._window.showMinimized()
        self._window.stays = there
        if self._wanted:
            self._again.start()
        else:
            self._again.stop()

    def _activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason is not QSystemTrayIcon.ActivationReason.Context:
            self._window.come_to_front()
