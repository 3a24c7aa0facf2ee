"""Plays something to the person alone: a moment of the last five minutes, or a place before it is sent.

A moment is asked for by a click on a word or on a picture, and is the sound that the pictures are made of. All is
played on the chosen output, never into the virtual microphone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from PySide6.QtCore import QObject, QTimer, Signal

from app.bridge import CommandThread
from app.timeline import Timeline
from engine.types import Provider, Samples

LEAD_S, LENGTH_S = 0.25, 4.0  # a word's beginning is told late rather than early
LOOK_MS = 100


class Playing(Protocol):
    """What is needed of engine.player.Player."""

    failure: str | None

    @property
    def over(self) -> bool: ...
    def play(self) -> None: ...
    def listen_to(self, result: bool) -> None: ...
    def close(self) -> None: ...


Make = Callable[[], tuple[Samples, Samples, int]]  # what was heard, what was sent, and their rate in Hz
OpenPlayer = Callable[[Samples, Samples, int, str | None], Playing]
PlaceSound = Callable[[str, Provider], tuple[Samples, int]]


def open_player(heard: Samples, sent: Samples, sample_rate_hz: int, output: str | None) -> Playing:
    """The engine's. Raises SottovoceError."""
    from engine.player import Player, Recorded

    return Player(Recorded(heard, sample_rate_hz), Recorded(sent, sample_rate_hz), output)


def place_sound(name: str, provider: Provider) -> tuple[Samples, int]:
    """How a place sounds, [N], and the rate in Hz. Raises SottovoceError."""
    from engine.artefacts import shared_models
    from engine.scenes import scene_sound

    models = shared_models(provider)
    return scene_sound(models, name, LENGTH_S), models.info.sample_rate_hz


class Moments(QObject):
    """One sound at a time. output: gives the id of where to play, None for the default.

    `told` carries a sentence for a person.
    """

    told = Signal(str)

    def __init__(
        self,
        timeline: Timeline,
        output: Callable[[], str | None],
        parent: QObject,
        open_player: OpenPlayer = open_player,
        place_sound: PlaceSound = place_sound,
    ) -> None:
        super().__init__(parent)
        self._timeline, self._output = timeline, output
        self._open_player, self._place_sound = open_player, place_sound
        self._commands: CommandThread | None = None
        self._player: Playing | None = None  # the command thread's, while it plays
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)

    def hear(self, at_s: float, sent: bool = True) -> bool:
        """Play from `at_s` on the engine's clock, what was sent or what was heard; False where it is not held."""
        sound = self._timeline.moment(max(0.0, at_s - LEAD_S), LENGTH_S)
        if sound is None:
            self.told.emit("that moment is no longer kept; the last five minutes are, since the sound was last started")
            return False
        rate_hz = self._timeline.sample_rate_hz
        self._begin(lambda: (*sound, rate_hz), sent)
        return True

    def hear_place(self, name: str, provider: Provider) -> None:
        """Play how a place sounds; only the person hears it."""

        def make() -> tuple[Samples, Samples, int]:
            sound, rate_hz = self._place_sound(name, provider)
            return sound, sound, rate_hz

        self._begin(make, sent=True)

    def _begin(self, make: Make, sent: bool) -> None:
        output = self._output()
        self._commands = self._commands or CommandThread()
        self._commands.submit(lambda: self._play(make, output, sent), lambda _: None, self.told.emit)
        self._timer.start()

    def close(self) -> None:
        """Be silent, and end what runs for it."""
        self._timer.stop()
        if self._commands is not None:
            self._commands.submit(self._end, lambda _: None, lambda _: None)
            self._commands.finish()
            self._commands = None

    def _look(self) -> None:
        commands, player = self._commands, self._player
        while commands is not None and not commands.answers.empty():
            commands.answers.get()()
        if player is None or commands is None:
            return
        if player.failure is not None:
            self.told.emit(player.failure)
        if player.over or player.failure is not None:
            self._player = None
            self._timer.stop()
            commands.submit(player.close, lambda _: None, lambda _: None)

    # Command thread: devices may take their time ----------------------------------------------------------------------

    def _play(self, make: Make, output: str | None, sent: bool) -> None:
        self._end()
        player = self._open_player(*make(), output)
        player.listen_to(sent)
        player.play()
        self._player = player

    def _end(self) -> None:
        player, self._player = self._player, None
        if player is not None:
            player.close()
