"""Prints where things are in the main window as this screen draws it: name, x, y, width, height on a line each."""

from __future__ import annotations

from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QApplication

from app.bridge import Bridge
from app.window import Choices, MainWindow
from engine.types import EngineConfig
from tests.fake_engine import FakeEngine
from tests.stage import RAIN


def main() -> None:
    app = QApplication([])
    app.setQuitOnLastWindowClosed(False)  # `closed` comes later
    bridge = Bridge(FakeEngine, list, lambda: [RAIN], dict)
    window = MainWindow(bridge, EngineConfig(captions=True), Choices())
    window.closed.connect(app.quit)
    window.background.set_places([RAIN])
    window.show()
    app.processEvents()
    things = {
        "input": window.input,
        "output": window.output,
        "slider": window.background.slider,
        "place": window.background.place,
        "voice_tokens": window.inside.voice,
    }
    for name, widget in things.items():
        at = widget.mapTo(window, QPoint(0, 0))
        print(name, at.x(), at.y(), widget.width(), widget.height())
    window.close()
    app.exec()


if __name__ == "__main__":
    main()
