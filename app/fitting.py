"""Windows no larger than the screen that they open on."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QWidget

TITLE_PX = 40  # the desktop's frame above a window


def open_within(window: QWidget, width: int, height: int) -> None:
    """Give a window that is not shown yet this size, or what its screen has room for."""
    room = window.screen().availableSize()
    window.resize(QSize(width, height).boundedTo(room - QSize(0, TITLE_PX)))


def fit_to_screen(window: QWidget) -> None:
    """Make a window that is too large for its screen as large as the screen; to be called before it is shown."""
    room = window.screen().availableSize()
    if window.width() > room.width() or window.height() + TITLE_PX > room.height():
        open_within(window, window.width(), window.height())
        window.setWindowState(window.windowState() | Qt.WindowState.WindowMaximized)
