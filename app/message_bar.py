"""The bar above the views: what went wrong, calmly, and the one thing to do."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton


class MessageBar(QFrame):
    """A calm line about what went wrong and the one thing to do. Says one thing at a time, the newest."""

    again = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("message")
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.retry = QPushButton("Try again")
        self.dismiss = QPushButton("Dismiss")
        for button in (self.retry, self.dismiss):
            button.setObjectName("quiet")
        self.retry.clicked.connect(self._try_again)
        self.dismiss.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 7, 8, 7)
        row.addWidget(self.label, 1)
        row.addWidget(self.retry)
        row.addWidget(self.dismiss)
        self.hide()

    def say(self, text: str, offer_retry: bool) -> None:
        """Show a line; `offer_retry` adds the button that starts the engine again."""
        text = text[:1].upper() + text[1:]
        self.label.setText(text)
        self.setAccessibleName(f"Message: {text}")
        self.retry.setVisible(offer_retry)
        self.show()

    def text(self) -> str:
        """What it says now; empty when it is not shown."""
        return "" if self.isHidden() else self.label.text()

    def _try_again(self) -> None:
        self.hide()
        self.again.emit()
