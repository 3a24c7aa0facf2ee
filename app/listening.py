"""Hears a file and what was made of it in turn: play, where, and one key from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget

from app.bridge import CommandThread
from app.console import clock
from app.controls import quiet_button

LOOK_MS = 50
STEPS_PER_S = 10
TIP = "Your microphone hears what your loudspeakers play: mute, or use headphones, while a call is on"


class Playing(Protocol):
    """What is needed of engine.player.Player."""

    duration_s: float
    failure: str | None

    @property
    def playing(self) -> bool: ...
    @property
    def position_s(self) -> float: ...
    def play(self) -> None: ...
    def pause(self) -> None: ...
    def seek(self, at_s: float) -> None: ...
    def listen_to(self, result: bool) -> None: ...
    def close(self) -> None: ...


OpenPlayer = Callable[[Path, Path, str | None], Playing]


def open_player(original: Path, result: Path, output: str | None) -> Playing:
    """The engine's. Raises SottovoceError; takes a while for long files."""
    from engine.player import Player

    return Player(original, result, output)


class Listening(QWidget):
    """output: gives the id of where to play, None for the default. `failed` carries a line for a person."""

    failed = Signal(str)

    def __init__(self, output: Callable[[], str | None], open_player: OpenPlayer = open_player) -> None:
        super().__init__()
        self._output, self._open_player = output, open_player
        self._pair: tuple[Path, Path] | None = None
        self._opened: tuple[Path, Path] | None = None  # what the player has, or is getting
        self._player: Playing | None = None
        self._owned: Playing | None = None  # the command thread's view
        self._commands: CommandThread | None = None
        self.play = quiet_button("Play", f"Play or pause ({{}}). {TIP}", shortcut="play")
        self.which = quiet_button("", "", shortcut="compare", checkable=True)
        self.place = QSlider(Qt.Orientation.Horizontal)
        self.place.setObjectName("place")
        self.place.setTracking(False)
        self.place.setAccessibleName("Position")
        self.place.setPageStep(5 * STEPS_PER_S)
        self.time = QLabel()
        self.time.setProperty("tone", "muted")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.play)
        row.addWidget(self.place, 1)
        row.addWidget(self.time)
        row.addWidget(self.which)
        self.play.clicked.connect(self._play_or_pause)
        self.which.toggled.connect(self._switch)
        self.place.valueChanged.connect(self._seek)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._look)
        self.show_pair(None)

    def show_pair(self, pair: tuple[Path, Path] | None) -> None:
        """Offer these, original and result, or nothing."""
        if pair == self._pair and pair is not None:
            return
        self._pair = pair
        self._let_go()
        for widget in (self.play, self.place, self.which):
            widget.setEnabled(pair is not None)
        self._show()

    @property
    def heard(self) -> tuple[Path, Path] | None:
        """The pair that plays, or is about to."""
        return self._opened if self._player is None or self._player.playing else None

    def close_player(self) -> None:
        """Be silent, and end what runs for it."""
        self._let_go()
        if self._commands is not None:
            self._commands.finish()
            self._commands = None
        self._timer.stop()

    # What the person does ---------------------------------------------------------------------------------------------

    def _play_or_pause(self) -> None:
        player = self._player
        if player is not None:
            (player.pause if player.playing else player.play)()
        elif self._pair is not None and self._opened != self._pair:
            pair, output = self._pair, self._output()
            self._opened = pair
            self._commands = self._commands or CommandThread()
            self._commands.submit(
                lambda: self._open(pair, output), lambda player: self._take(player, pair), self._not_opened
            )
            self._timer.start(LOOK_MS)
        self._show()

    def _switch(self, result: bool) -> None:
        if self._player is not None:
            self._player.listen_to(result)
        self._show()

    def _seek(self, step: int) -> None:
        if self._player is not None:
            self._player.seek(step / STEPS_PER_S)

    # What comes back --------------------------------------------------------------------------------------------------

    def _take(self, player: Playing, pair: tuple[Path, Path]) -> None:
        if pair != self._opened:  # another was chosen meanwhile
            return
        self._player = player
        self.place.blockSignals(True)
        self.place.setRange(0, round(player.duration_s * STEPS_PER_S))
        self.place.blockSignals(False)
        player.listen_to(self.which.isChecked())
        player.play()

    def _not_opened(self, text: str) -> None:
        self._opened = None
        self.failed.emit(text)
        self._show()

    def _look(self) -> None:
        commands = self._commands
        while commands is not None and not commands.answers.empty():
            commands.answers.get()()
        if self._player is not None and self._player.failure is not None:
            self.failed.emit(self._player.failure)
            self._let_go()
        self._show()

    def _show(self) -> None:
        player = self._player
        waiting = player is None and self._opened is not None
        text = "Opening …" if waiting else "Pause" if player is not None and player.playing else "Play"
        if self.play.text() != text:
            self.play.setText(text)
            self.play.setAccessibleName(f"{text} the comparison")
        which = "Hearing the result" if self.which.isChecked() else "Hearing the original"
        if self.which.text() != which:
            self.which.setText(which)
            self.which.setAccessibleName(which)
        at_s, all_s = (player.position_s, player.duration_s) if player is not None else (0.0, 0.0)
        self.time.setText(f"{clock(at_s)[:-2]} / {clock(all_s)[:-2]}" if player is not None else "")
        if not self.place.isSliderDown():
            self.place.blockSignals(True)
            self.place.setValue(round(at_s * STEPS_PER_S))
            self.place.blockSignals(False)

    def _let_go(self) -> None:
        if self._opened is not None and self._commands is not None:
            self._commands.submit(self._close_owned, lambda _: None, lambda _: None)
        self._player = self._opened = None

    # Command thread: files are read, and devices may take their time --------------------------------------------------

    def _open(self, pair: tuple[Path, Path], output: str | None) -> Playing:
        self._owned = self._open_player(*pair, output)
        return self._owned

    def _close_owned(self) -> None:
        player, self._owned = self._owned, None
        if player is not None:
            player.close()
