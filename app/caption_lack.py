"""Where the engine has no captions to give: the window says so and what to do. With Whisper they come by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from app.bridge import RunState
from app.model_words import lacking
from app.shortcut_keys import keys_of, native
from engine.sizes import canonical
from engine.types import NO_CAPTIONS, NO_WHISPER, Problem

if TYPE_CHECKING:
    from app.window import MainWindow

OFF = "Captions are off: the line above says why."


class CaptionLack(QObject):
    """Lives as long as the window. Nothing of this is a person's choice, so nothing of it is remembered."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._whisper = False  # it is Whisper that is not here
        self._said = ""
        window.bridge.problem.connect(self._take)
        window.bridge.no_captions.connect(self._engine_without)
        window.bridge.run_state.connect(self._go_on)
        window.models.arrived.connect(self._arrived)
        window.chosen.connect(self._chosen)

    def _take(self, problem: Problem) -> None:
        if problem.state == NO_WHISPER:
            window = self._window
            self._said = lacking(canonical(window.config.whisper), native(keys_of(window).now["models"]))
            window.message.say(self._said, offer_retry=False)
            self._whisper = True
            window.show_no_captions(self._said)
            self._show_noise()
        elif problem.state == NO_CAPTIONS:
            self._window.show_no_captions(OFF)

    def _engine_without(self, text: str) -> None:
        """The engine came up without captions alone."""
        self._window.show_no_captions(OFF)
        self._window.message.say(f"no captions: {text}", offer_retry=False)

    def _go_on(self, state: RunState) -> None:
        """Another engine runs, and still without Whisper."""
        if self._whisper and state in (RunState.ON, RunState.OFF):
            self._show_noise()

    def _show_noise(self) -> None:
        self._window.column.noise.set_captions(False, self._window.config.whisper, missing=True)

    def _arrived(self, size: str) -> None:
        """A size of Whisper is here: perhaps the one that was missing."""
        if self._whisper and size == canonical(self._window.config.whisper):
            self._switch_on()

    def _chosen(self, what: str) -> None:
        if what == "whisper" and self._whisper:  # another size, which is here
            self._switch_on()
        elif what == "captions":  # a person tries again, or does without
            self._whisper = False

    def _switch_on(self) -> None:
        if self._window.message.text() == self._said:
            self._window.message.hide()
        self._window.captions.switch.setChecked(True)
