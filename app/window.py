"""The main window: lays the widgets out and connects them to the bridge, nothing else.

What may block happens behind the bridge; this file only turns choices into an EngineConfig and events into widgets.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QCloseEvent, QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QMainWindow, QSplitter, QVBoxLayout, QWidget

from app.bridge import Bridge, RunState
from app.caption_lack import CaptionLack
from app.caption_view import CaptionView
from app.column import DEMO_INPUT, ControlColumn
from app.desk import Desk
from app.known_devices import VIRTUAL_OUTPUT, KnownDevices
from app.message_bar import MessageBar
from app.models_button import Models
from app.moments import Moments
from app.status_line import StatusLine
from app.theme import Theme, ThemeChoice, apply_theme, system_theme
from app.timeline import Timeline
from app.views import InsideView
from engine.ports import NO_OUTPUT
from engine.types import LOUDSPEAKERS, Background, DeviceChange, EngineConfig, Levels, Problem, Stats, Tokens

SIZE = (1280, 720)


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a person has chosen, apart from the engine's own settings."""

    input: str | None = None
    output: str | None = None
    on: bool = True
    settled: bool = False  # the output was chosen by a person, in this run or an earlier one
    for_calls: bool = False  # who wants the microphone for calls rather than that output, wherever there can be one


class MainWindow(QMainWindow):
    """The one window. `config` holds the engine's settings; input, output and virtual_mic come from the choices."""

    closing = Signal()  # the window has gone, the engine goes
    closed = Signal()  # both are gone
    chosen = Signal(str)  # what a person, or who steers for them, has changed: input, output, background, level, ...

    def __init__(
        self,
        bridge: Bridge,
        config: EngineConfig,
        choices: Choices,
        theme: ThemeChoice = ThemeChoice.SYSTEM,
    ) -> None:
        super().__init__()
        self.bridge, self.config, self.choices = bridge, config, choices
        self._begun = True  # False from begin() until the first listing of devices
        self._theme_choice = theme
        self.devices = KnownDevices()
        self.scenes: list[Any] = []
        self._muted = False
        self.stays = False  # closing only hides the window: a tray icon brings it back
        self.tokens_seen = 0
        self.timeline = Timeline()
        self.message = MessageBar()
        self.inside = InsideView(self.timeline)
        self.captions = CaptionView(config.captions, config.also is not None)
        self.column = column = ControlColumn(config.background, config.captions)
        self.power, self.background = column.power, column.background
        self.input, self.output = column.input, column.output
        self.level_in, self.level_out = column.level_in, column.level_out
        self.status = StatusLine()
        self.models = Models(lambda: self.config, self)
        column.head.addWidget(self.models.button)
        self.desk = Desk(self)
        self.moments = Moments(self.timeline, self.desk.listening_output, self)
        self.setWindowTitle("Sottovoce")
        self.resize(*SIZE)
        self._arrange()
        self._connect()
        self.lack = CaptionLack(self)
        self._show_choices()
        self._show_background()
        self._tell_captions(config.captions)
        self.set_theme()

    # Layout -----------------------------------------------------------------------------------------------------------

    def _arrange(self) -> None:
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.setHandleWidth(10)
        split.addWidget(self.inside)
        split.addWidget(self.captions)
        split.setStretchFactor(0, 4)
        split.setStretchFactor(1, 1)
        split.setSizes([490, 162])
        right = QVBoxLayout()
        right.setContentsMargins(14, 14, 14, 2)
        right.setSpacing(10)
        right.addWidget(self.message)
        right.addWidget(self.desk.recovered)
        right.addWidget(split, 1)
        right.addWidget(self.desk.bar)
        right.addWidget(self.status)
        page = QWidget()
        page.setObjectName("page")
        row = QHBoxLayout(page)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.column)
        row.addLayout(right, 1)
        self.setCentralWidget(page)

    def _connect(self) -> None:
        bridge, column = self.bridge, self.column
        bridge.levels.connect(self._show_levels)
        bridge.tokens.connect(self._take_tokens)
        bridge.caption.connect(self.captions.show_caption)
        bridge.residue.connect(column.noise.show_residue)
        column.noise.timeline = self.timeline
        self.inside.looked_at.connect(column.noise.show_time)
        bridge.clouds.connect(self._show_clouds)
        bridge.stats.connect(self._show_stats)
        bridge.problem.connect(self._show_problem)
        bridge.device_change.connect(self._device_changed)
        bridge.run_state.connect(self._show_run_state)
        bridge.devices.connect(self._list_devices)
        bridge.scenes.connect(self._list_scenes)
        bridge.failed.connect(self._show_failure)
        bridge.frame.connect(self.inside.refresh)
        bridge.closed.connect(self.closed)
        self.power.clicked.connect(self._switch)
        column.mute.clicked.connect(self.set_muted)
        column.level.clicked.connect(self.set_level)
        column.resync.clicked.connect(bridge.resync)
        self.input.chosen.connect(lambda device: self.choose("input", device))
        self.output.chosen.connect(lambda device: self.choose("output", device))
        for box in (self.input, self.output):
            box.looked_at.connect(bridge.refresh_devices)
        self.background.changed.connect(self.set_background)
        self.captions.wanted.connect(self._set_captions)
        self.captions.others_wanted.connect(self._set_others)
        self.captions.text.asked.connect(self._hear_word)
        self.inside.asked.connect(self.moments.hear)
        self.background.place_asked.connect(lambda name: self.moments.hear_place(name, self.config.provider))
        self.moments.told.connect(lambda text: self.message.say(text, offer_retry=False))
        self.closing.connect(self.moments.close)
        self.captions.told.connect(lambda text: self.message.say(text, offer_retry=False))
        self.closing.connect(self.captions.close_overlay)
        self.closing.connect(self.models.close_all)
        self.models.wanted.connect(self.set_whisper)
        self.models.told.connect(lambda text: self.message.say(text, offer_retry=False))
        self.message.again.connect(self.start)
        QGuiApplication.styleHints().colorSchemeChanged.connect(lambda _: self.set_theme())

    def set_theme(self, choice: ThemeChoice | None = None) -> None:
        """Take the colours chosen, or the system's."""
        self._theme_choice = choice or self._theme_choice
        theme: Theme = system_theme(self._theme_choice)
        app = QGuiApplication.instance()
        assert app is not None
        apply_theme(app, theme)  # type: ignore[arg-type]  # there is no window without a QApplication
        self.column.set_theme(theme)
        self.inside.set_theme(theme)
        self.captions.set_theme(theme)
        self.status.set_theme(theme)
        self.desk.set_theme(theme)

    # What the person does ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """List devices and scenes; when they are known, choose sensibly and start."""
        self._begun = False
        self.bridge.refresh_scenes()
        self.bridge.refresh_devices()
        self.desk.begin()

    def _first_choices(self) -> None:
        """The default microphone into that for calls; never by itself into a loudspeaker, it would howl."""
        can_virtual = self.devices.virtual_mic is not None
        if self.choices.for_calls and can_virtual:
            self.choices = dataclasses.replace(self.choices, output=None, settled=False)
        self._forget_gone()
        if self.choices.input is None and not self.devices.has_microphone:
            self.choices = dataclasses.replace(self.choices, input=DEMO_INPUT)
            self.message.say("No microphone was found: the demo recording plays. Plug one in and choose it.", False)
        if self.choices.input == DEMO_INPUT or self.choices.settled:
            pass  # to the loudspeaker: a recording cannot howl
        elif can_virtual:
            self.choices = dataclasses.replace(self.choices, output=VIRTUAL_OUTPUT)
        else:
            self.message.say("Choose where the clean sound goes, then switch on; headphones avoid an echo.", False)
            return
        self._avoid_howl()
        self.start()

    def _avoid_howl(self) -> None:
        """In place of an input that hears the output, the default; a person learns of it."""
        heard = self.choices.input
        if heard is not None and heard in self.devices.hearing(self.choices.output):
            self.choices = dataclasses.replace(self.choices, input=None)
            self.message.say(f"{self.devices.name(heard)} hears that output; the default microphone is used.", False)

    def _forget_gone(self) -> None:
        """In place of a remembered device that is not there, the default; a person learns of it."""
        choices = self.choices
        if choices.input not in (None, DEMO_INPUT, *self.devices.ids("input")):
            self.choices = dataclasses.replace(self.choices, input=None)
            self.message.say(f"{choices.input} is not there; the default microphone is used.", False)
        if choices.output not in (None, VIRTUAL_OUTPUT, NO_OUTPUT, *self.devices.ids("output")):
            self.choices = dataclasses.replace(self.choices, output=None, settled=False)
            self.message.say(f"{choices.output} is not there; another output is used.", False)

    def start(self) -> None:
        """Bring the engine up with what is chosen now."""
        virtual = self.choices.output == VIRTUAL_OUTPUT
        output = None if virtual else self.choices.output
        config = dataclasses.replace(self.config, input=self.choices.input, output=output, virtual_mic=virtual)
        self.bridge.start(dataclasses.replace(config, muted=self._muted))

    def _switch(self) -> None:
        """On or bypass; from a standstill it starts."""
        if self.bridge.state is RunState.OFF:
            self.choices = dataclasses.replace(self.choices, on=True)
            self.start()
            self._show_power()
        else:
            self.set_on(self.power.isChecked())

    def set_on(self, on: bool) -> None:
        """Clean the sound, or let it pass as it is; while nothing runs, how it will start."""
        self.choices = dataclasses.replace(self.choices, on=on)
        self.bridge.set(bypass=not on)
        self._show_power()

    def set_muted(self, muted: bool) -> None:
        """Send silence instead of the voice, and say so as long as it lasts."""
        self._muted = muted
        self.column.mute.setChecked(muted)
        self.bridge.set(muted=muted)
        self._show_power()

    def set_level(self, on: bool) -> None:
        """Bring the voice to a steady level, or leave it as it is."""
        self.config = dataclasses.replace(self.config, level=on)
        self.column.level.setChecked(on)
        self.bridge.set(level=on)
        self.chosen.emit("level")

    def come_to_front(self) -> None:
        """Out of the taskbar and over other windows, as far as the desktop lets a window do that."""
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()

    def choose(self, end: str, device: str | None) -> None:
        """Another device. Plain devices are changed in mid-run, our own sources and sinks by a new start."""
        before = getattr(self.choices, end)
        if before == device:
            return
        changes: dict[str, Any] = {end: device}
        self.choices = asked = dataclasses.replace(self.choices, **changes)
        if end == "output":
            self._avoid_howl()
        self._show_choices()
        special = {DEMO_INPUT, VIRTUAL_OUTPUT, None}  # None, the default, means "no change" to a running engine
        if self.bridge.state is not RunState.ON or before in special or device in special or self.choices != asked:
            self.start()
        else:
            self.bridge.set(**changes)
        self.chosen.emit(end)

    def set_background(self, background: Background) -> None:
        """Change what becomes of the background, and show it."""
        self.background.show_background(background)
        self.config = dataclasses.replace(self.config, background=background)
        self.bridge.set(background=background)
        self._show_background()
        self.chosen.emit("background")

    def _set_captions(self, on: bool) -> None:
        self.config = dataclasses.replace(self.config, captions=on)
        self._tell_captions(on)
        if self.bridge.state is not RunState.OFF:
            self.start()
        self.chosen.emit("captions")

    def _set_others(self, on: bool) -> None:
        """Caption what the loudspeakers play, too, or no longer."""
        self.config = dataclasses.replace(self.config, also=LOUDSPEAKERS if on else None)
        if self.bridge.state is not RunState.OFF:
            self.start()
        self.chosen.emit("caption_others")

    def _hear_word(self, start_s: float) -> None:
        start_s -= self.captions.history.shift_s  # shown words are on the clock of the window's first run
        if self.moments.hear(start_s):
            self.inside.show_moment(start_s)

    def set_whisper(self, size: str) -> None:
        """The size of Whisper that captions use, from their next start on."""
        self.config = dataclasses.replace(self.config, whisper=size)
        self.models.show_chosen()
        self.chosen.emit("whisper")

    # What the engine tells --------------------------------------------------------------------------------------------

    def _show_levels(self, levels: Levels) -> None:
        self.level_in.show_level(levels.input_rms_db, levels.input_peak_db)
        self.level_out.show_level(levels.output_rms_db, levels.output_peak_db)

    def _take_tokens(self, tokens: Tokens) -> None:
        self.tokens_seen += tokens.codes_s.shape[1]
        self.timeline.add(tokens)

    def _show_stats(self, stats: Stats) -> None:
        self.status.show_stats(stats)
        self._show_power(stats.state)
        if stats.state == "waiting":
            self._empty_meters()

    def _show_problem(self, problem: Problem) -> None:
        stopped = problem.state == "stopped"
        self.message.say(problem.text, offer_retry=stopped)
        if stopped:
            self.bridge.stop()

    def _show_failure(self, text: str) -> None:
        self.message.say(text, offer_retry=self.bridge.state is RunState.OFF)

    def _device_changed(self, change: DeviceChange) -> None:
        if change.device == NO_OUTPUT:
            self.choices = dataclasses.replace(self.choices, output=NO_OUTPUT)
            self.output.setAccessibleDescription(change.what)
        else:
            self.message.say(f"{change.what}: {self.devices.name(change.device)}", offer_retry=False)
        self.bridge.refresh_devices()

    def show_no_captions(self, why: str) -> None:
        """The engine has none to give, which is nobody's choice. why: a sentence for the empty panel."""
        self.config = dataclasses.replace(self.config, captions=False)
        self.captions.show_unavailable(why)
        self._tell_captions(False)

    def _show_run_state(self, state: RunState) -> None:
        if state is RunState.ON and (self._muted or not self.choices.on):
            self.bridge.set(bypass=not self.choices.on, muted=self._muted)
        if state is RunState.ON and not self.column.noise.plane.has_clouds:  # not before: the sound comes first
            self.bridge.refresh_clouds()
        if state in (RunState.ON, RunState.OFF):  # the former engine has said its last words
            self.captions.end_run()
            if state is RunState.ON:
                self.captions.text.forget_times()
            self.column.noise.set_captions(self.config.captions, self.config.whisper)
        if state is RunState.OFF:
            self._empty_meters()
        self.status.show_run_state(state)
        self._show_power()

    def _empty_meters(self) -> None:
        for meter in (self.level_in, self.level_out):
            meter.empty()

    def _list_devices(self, devices: list[Any]) -> None:
        self.devices.take(devices)
        if not self._begun:
            self._begun = True
            self._first_choices()
        self._show_choices()

    def _tell_captions(self, on: bool) -> None:
        self.status.set_captions(on)
        self.desk.bar.set_captions(on)
        self.column.noise.set_captions(on, self.config.whisper)

    def _show_clouds(self, clouds: dict[str, Any]) -> None:
        self.column.noise.plane.set_clouds(clouds)
        self.column.noise.setVisible(bool(clouds))

    def _list_scenes(self, scenes: list[Any]) -> None:
        self.scenes = scenes
        self.background.set_places(scenes)
        self._show_background()

    # Words and marks --------------------------------------------------------------------------------------------------

    def _show_power(self, state: str = "") -> None:
        run = self.bridge.state
        if run is RunState.STARTING:
            texts = (True, "Starting …", "Waking the models")
        elif run is RunState.STOPPING:
            texts = (False, "Stopping …", "Finishing what is under way")
        elif run is RunState.OFF:
            texts = (False, "Off", "Nothing is heard or sent")
        elif self._muted:
            texts = (self.choices.on, "Muted", "Others hear nothing from you")
        elif state == "bypass" or not self.choices.on:
            texts = (False, "Bypass", "Sound passes as it is")
        elif state == "waiting":
            texts = (True, "Waiting", "For a device that went away")
        elif state == "idle":
            texts = (True, "On", "Resting until there is something to hear")
        else:
            texts = (True, "On", "Cleaning your sound")
        self.power.setChecked(texts[0])
        self.power.show_state(texts[1], texts[2])

    def _show_choices(self) -> None:
        """Fill the device boxes from the last listing."""
        self.column.show_devices(self.devices, self.choices.input, self.choices.output)
        source = "from the demo recording" if self.choices.input == DEMO_INPUT else "from the microphone"
        self.inside.set_source_note(source)

    def _show_background(self) -> None:
        self.inside.set_background_note(str(self.config.background), self.background.place.currentText())

    # Coming and going -------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.bridge.set_hidden(self.isMinimized())

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.bridge.set_hidden(True)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.WindowStateChange:
            self.bridge.set_hidden(self.isMinimized())

    def closeEvent(self, event: QCloseEvent) -> None:
        """The window goes at once; `closed` follows when the engine is down."""
        if self.stays:
            event.ignore()
            self.hide()
            return
        self.bridge.close()
        self.closing.emit()
        event.accept()
