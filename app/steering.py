"""The window answers `sottovoce ctl`, and a second start of the window brings the first one to the front."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer

from app.bridge import RunState
from app.commands_live import stats_figures, told
from engine.control import Answer, ControlServer, Request
from engine.types import Background, BackgroundMode, Stats, UsageError

if TYPE_CHECKING:
    from app.window import MainWindow

PUMP_MS = 50


class Steering(QObject):
    """Carries out on the GUI thread what others ask, as if a person had done it in the window."""

    def __init__(self, window: MainWindow, server: ControlServer) -> None:
        super().__init__(window)
        self._window, self._server = window, server
        self._stats: Stats | None = None
        self._closing = False
        window.bridge.stats.connect(self._keep)
        window.bridge.caption.connect(server.publish)
        window.bridge.run_state.connect(self._forget)
        window.closing.connect(self._refuse)
        window.closed.connect(self.close)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._pump)
        self._timer.start(PUMP_MS)

    def close(self) -> None:
        """Take no more requests."""
        self._timer.stop()
        self._server.close()

    def _pump(self) -> None:
        self._server.tell_captions(self._window.config.captions)
        self._server.pump(self.carry_out)

    def _refuse(self) -> None:
        """The window has gone and the engine goes; until then no other may start."""
        self._closing = True

    def _keep(self, stats: Stats) -> None:
        self._stats = stats

    def _forget(self, state: RunState) -> None:
        if state is not RunState.ON:
            self._stats = None
        if state in (RunState.ON, RunState.OFF):  # the former engine has said its last words
            self._server.drop_tails()

    def carry_out(self, asked: Request) -> Answer:
        """Raises UsageError for what cannot be, and then nothing has changed."""
        window = self._window
        if self._closing:
            raise UsageError("Sottovoce is closing; start it again in a moment")
        if asked.do == "status":
            return told(self.figures())
        if asked.do == "show":
            window.come_to_front()
        elif asked.do == "resync":
            window.bridge.resync()
        elif asked.do == "bypass":
            window.set_on(not asked.on)
        elif asked.do == "mute":
            window.set_muted(asked.on)
        elif asked.do == "level":
            window.set_level(asked.on)
        elif asked.do in ("input", "output"):
            if asked.value not in window.devices.ids(asked.do):
                window.bridge.refresh_devices()  # it may have been plugged in a moment ago
                raise UsageError(f"there is no {asked.do} {asked.value} yet; try again, or see: sottovoce devices")
            window.choose(asked.do, asked.value)
        else:
            window.set_background(self._background(asked))
        return Answer(True, asked.do if asked.value is None else f"{asked.do} {asked.value}")

    def _background(self, asked: Request) -> Background:
        """What `background` or `scene` asks for; a scene alone comes at the level of the last swap."""
        now, value = self._window.config.background, asked.value or ""
        if asked.do == "background":
            wanted = Background.parse(value)
        else:
            wanted = Background(BackgroundMode.SWAP, now.gain_db if now.mode is BackgroundMode.SWAP else 0.0, value)
        places = [scene.name for scene in self._window.scenes]
        if wanted.scene is not None and wanted.scene not in places:
            raise UsageError(f"there is no scene {wanted.scene}; choose one of: {', '.join(places)}")
        return wanted

    def figures(self) -> dict[str, Any]:
        """How the run is doing, by name."""
        window = self._window
        figures: dict[str, Any] = {
            "state": self._stats.state if self._stats is not None else str(window.bridge.state),
            "background": str(window.config.background),
            "input": window.choices.input,
            "output": window.choices.output,
            "process": os.getpid(),
            "repaint_ms": round(window.inside.repaint_ms(), 2),
        }
        return figures | (stats_figures(self._stats) if self._stats is not None else {})
