"""A window on made-up engines, for tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.bridge import Bridge, RunState
from app.theme import ThemeChoice
from app.window import Choices, MainWindow
from engine.devices import INPUT, OUTPUT, DeviceInfo
from engine.types import EngineConfig
from tests.fake_engine import FakeEngine

WAIT_MS = 5000
REPAINT_MS = 12.0
MICROPHONE = DeviceInfo("mic", "Desk microphone", INPUT, default=True)
OTHER = DeviceInfo("other", "Headset", INPUT, default=False)
OWN = DeviceInfo("sottovoce", "Sottovoce", INPUT, default=False, is_own=True)
SPEAKER = DeviceInfo("spk", "Loudspeaker", OUTPUT, default=True)
RAIN = SimpleNamespace(name="rain", title="steady rain")


class Stage:
    """A window on made-up engines."""

    def __init__(
        self,
        qtbot: QtBot,
        devices: list[Any],
        choices: Choices,
        config: EngineConfig,
        clouds: dict[str, Any] | None = None,
        **fake: Any,
    ) -> None:
        self.qtbot, self.made = qtbot, list[FakeEngine]()

        def make(config: EngineConfig) -> FakeEngine:
            self.made.append(FakeEngine(config, **fake))
            return self.made[-1]

        self.bridge = Bridge(make, lambda: devices, lambda: [RAIN], lambda: clouds or {})
        self.window = MainWindow(self.bridge, config, choices, ThemeChoice.DARK)
        self.gone: list[bool] = []
        self.window.closed.connect(lambda: self.gone.append(True))
        self.window.show()
        self.window.begin()

    @property
    def engine(self) -> FakeEngine:
        return self.made[-1]

    def until_on(self) -> None:
        self.qtbot.waitUntil(lambda: self.bridge.state is RunState.ON, timeout=WAIT_MS)

    def close(self) -> None:
        self.window.close()
        self.qtbot.waitUntil(lambda: bool(self.gone), timeout=WAIT_MS)
        self.window.deleteLater()


def to_front(window: QWidget, qtbot: QtBot) -> None:
    """Keys reach the window that is active: what a person does with a click on its title."""
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT_MS)
