"""The window and its settings: what a person changes is kept, what is kept is applied, and the dialog opens.

A microphone brings along what was last used with it. Applying a setting that is already so changes nothing, so that
window and settings may tell each other without end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication

from app import desktop
from app.bridge import RunState
from app.column import DEMO_INPUT
from app.controls import quiet_button
from app.fitting import fit_to_screen
from app.known_devices import VIRTUAL_OUTPUT
from app.settings import Microphone, Settings
from app.settings_controls import Offers
from app.settings_dialog import SettingsDialog
from app.settings_here import language_here
from app.settings_store import SettingsStore
from app.settings_use import recording_folder, spoken
from app.shortcut_keys import bind, keys_of
from app.shortcut_view import show_shortcuts
from app.theme import ThemeChoice, system_theme
from app.tray import NO_TRAY, Tray, has_tray
from app.window import Choices, MainWindow
from engine.types import Background, Provider, SottovoceError

SOUND = ("background", "level")  # remembered for each microphone
FOLLOWS = dict.fromkeys(SOUND, SOUND) | {"output": ("output", "virtual_microphone")}  # what a setting may change
WELCOME = "Choose {microphone} as the microphone in your calls, and the others hear you clean. "
WELCOME += "Everything else goes on hearing your own microphone as it is."
NO_ENTRIES = "This system has no autostart folder; use its own login items."
NO_VIRTUAL = "Here it needs a virtual cable: install BlackHole (macOS) or VB-CABLE (Windows)."


def first_choices(settings: Settings, demo: bool = False) -> Choices:
    """The devices to begin with, as they were left; the window puts a default in place of one that has gone."""
    if demo:
        return Choices(DEMO_INPUT)
    for_calls = settings.virtual_microphone
    settled = not for_calls or "output" in settings.model_fields_set
    return Choices(settings.input or None, settings.output or None, settled=settled, for_calls=for_calls)


class Remembering(QObject):
    """Keeps a window and a store alike, as long as the window lives."""

    def __init__(self, window: MainWindow, store: SettingsStore, tray_there: Callable[[], bool] = has_tray) -> None:
        super().__init__(window)
        self._window, self._store, self._tray_there = window, store, tray_there
        self._listed = False
        self._applied = ""  # the setting that the window takes up just now
        self._dialog: SettingsDialog | None = None
        self.tray = Tray(window, tray_there)
        self.button = quiet_button("Settings", "", shortcut="settings")
        self.button.clicked.connect(self.open_dialog)
        layout = window.status.layout()
        assert layout is not None
        layout.addWidget(self.button)
        bind(window, "shortcuts", lambda: show_shortcuts(window))
        bind(window, "quit", self.tray.quit)
        self._use_keys()
        store.shortcuts_changed.connect(self._use_keys)
        window.column.level.setChecked(window.config.level)
        self._scale_captions()
        window.captions.text.zoomed.connect(lambda scale: store.set(caption_scale=round(scale, 3)))
        window.desk.bar.set_base(recording_folder(store.settings))
        window.desk.bar.moved.connect(lambda folder: store.set(recording_folder=folder))
        self.tray.set_wanted(store.settings.keep_in_tray)
        window.chosen.connect(self._keep)
        window.bridge.devices.connect(self._use_listing)
        window.bridge.scenes.connect(self._check_place)
        window.bridge.run_state.connect(self._welcome)
        window.closing.connect(store.close)
        if store.settings.autostart and not desktop.autostarts():  # the desktop's own tools have taken it away
            store.set(autostart=False)
        store.changed.connect(self._take_up)
        store.failed.connect(self._tell)

    def show_window(self) -> None:
        """Open the window, or leave it out of the way, as the settings say."""
        if QGuiApplication.platformName() != "offscreen":  # its screen is small, and nobody sees it
            fit_to_screen(self._window)
        if not self._store.settings.start_minimised:
            self._window.show()
        elif self._window.stays:
            self._window.bridge.set_hidden(True)
        else:
            self._window.showMinimized()

    def open_dialog(self) -> None:
        """The dialog of all settings, over the window."""
        if self._dialog is None:
            window = self._window
            offers = Offers(self._offered, lambda: window.scenes)
            self._dialog = SettingsDialog(
                self._store, offers, self._unavailable(), window.bridge.refresh_devices, window
            )
            window.closing.connect(self._dialog.close)
        self._dialog.set_theme(system_theme(ThemeChoice(self._store.settings.theme)))
        self._dialog.set_unavailable(self._unavailable())
        self._dialog.open_in_front()

    @property
    def dialog(self) -> SettingsDialog | None:
        """The dialog, once it was opened."""
        return self._dialog

    def _unavailable(self) -> dict[str, str]:
        """What does nothing on this desktop, and why."""
        reasons = (
            ("keep_in_tray", self._tray_there(), NO_TRAY),
            ("autostart", desktop.HAS_ENTRIES, NO_ENTRIES),
            ("virtual_microphone", self._window.devices.virtual_mic is not None, NO_VIRTUAL),
        )
        return {name: why for name, there, why in reasons if not there}

    def _offered(self, end: str) -> list[tuple[str, object]]:
        """The devices that may be remembered: what the window offers, without what is no device of the machine."""
        box = self._window.input if end == "input" else self._window.output
        rows = [(box.itemText(i), box.itemData(i) or "") for i in range(box.count())]
        return [(text, data) for text, data in rows if data not in (DEMO_INPUT, VIRTUAL_OUTPUT)]

    # From the window to the settings ----------------------------------------------------------------------------------

    def _keep(self, what: str) -> None:
        if self._applied not in FOLLOWS.get(what, (what,)):  # else the window follows the settings; nobody chose
            self._choose(what)
        config = self._window.config
        if what in SOUND and (microphone := self._microphone()):
            used = Microphone(background=str(config.background), level=config.level)
            self._store.remember_microphone(microphone, used)
        if what == "input":
            self._use_microphone()

    def _choose(self, what: str) -> None:
        """A person chose something in the window."""
        choices, config, store = self._window.choices, self._window.config, self._store
        if what == "input" and choices.input != DEMO_INPUT:
            store.set(input=choices.input or "")
        elif what == "output" and choices.output == VIRTUAL_OUTPUT:
            store.set(virtual_microphone=True)
        elif what == "output":
            store.set(virtual_microphone=False, output=choices.output or "")
        elif what == "captions":
            store.set(captions=config.captions)
        elif what == "whisper":
            store.set(whisper=config.whisper)
        elif what == "caption_others":
            store.set(caption_others=config.also is not None)
        elif what in SOUND:
            store.set(**{what: str(config.background) if what == "background" else config.level})

    def _microphone(self) -> str:
        """The id of the microphone in use; empty where that is not known, or none is."""
        chosen = self._window.choices.input
        if chosen == DEMO_INPUT:
            return ""
        return chosen or self._window.devices.default_input

    def _use_microphone(self) -> None:
        """Bring back what was last used with the microphone that is in use now."""
        used = self._store.remembered.microphones.get(self._microphone())
        if used is not None:
            self._set_sound(used.background, used.level)

    def _use_listing(self, _: list[Any]) -> None:
        """The window has taken it by now."""
        if not self._listed:
            self._listed = True
            self._use_microphone()
        if self._dialog is not None:
            self._dialog.set_unavailable(self._unavailable())

    def _check_place(self, scenes: list[Any]) -> None:
        """A place that is remembered and no longer shipped would keep the engine from starting."""
        place = self._window.config.background.scene
        if place is not None and place not in [scene.name for scene in scenes]:
            self._window.set_background(Background())
            self._tell(f"there is no place {place} any more; the background is dropped")

    # From the settings to the window ----------------------------------------------------------------------------------

    def _welcome(self, state: RunState) -> None:
        """At the first start, when a microphone is cleaned for calls and there is nothing else to say."""
        choices, message = self._window.choices, self._window.message
        for_calls = choices.output == VIRTUAL_OUTPUT and choices.input != DEMO_INPUT
        if self._store.settings.welcome and state is RunState.ON and for_calls and not message.text():
            message.say(WELCOME.format(microphone=self._window.devices.virtual_mic), offer_retry=False)
            self._store.set(welcome=False)

    def _take_up(self, name: str) -> None:
        self._applied = name
        try:
            self._apply(name)
        finally:
            self._applied = ""

    def _apply(self, name: str) -> None:
        window, settings = self._window, self._store.settings
        if name == "input":
            window.choose("input", settings.input or None)
        elif name in ("output", "virtual_microphone"):
            virtual = settings.virtual_microphone and window.devices.virtual_mic is not None
            window.choose("output", VIRTUAL_OUTPUT if virtual else settings.output or None)
        elif name in ("background", "level"):
            self._set_sound(settings.background, settings.level)
        elif name == "captions":
            window.captions.switch.setChecked(settings.captions)
        elif name == "caption_others":
            window.captions.others.setChecked(settings.caption_others)
        elif name == "whisper":
            window.set_whisper(settings.whisper)
        elif name == "caption_scale":
            self._scale_captions()
        elif name in ("caption_language", "provider"):
            self._restart(name)
        elif name == "recording_folder":
            window.desk.bar.set_base(recording_folder(settings))
        elif name == "theme":
            self._set_theme(ThemeChoice(settings.theme))
        elif name == "keep_in_tray":
            self.tray.set_wanted(settings.keep_in_tray)
        elif name == "autostart":
            self._set_autostart(settings.autostart)

    def _set_sound(self, background: str, level: bool) -> None:
        window, wanted = self._window, Background.parse(background)
        places = [scene.name for scene in window.scenes]
        if wanted.scene is not None and places and wanted.scene not in places:
            self._tell(f"there is no place {wanted.scene}; choose another")
        elif window.config.background != wanted:
            window.set_background(wanted)
        if window.config.level != level:
            window.set_level(level)

    def _restart(self, name: str) -> None:
        """What only a new engine takes up: the language, while there are captions, and where the models run."""
        window, settings = self._window, self._store.settings
        before = window.config
        if name == "provider":
            window.config = dataclasses.replace(before, provider=Provider(settings.provider))
        else:
            window.config = dataclasses.replace(before, language=spoken(language_here(settings.caption_language)))
        needed = name == "provider" or before.captions
        if needed and window.config != before and window.bridge.state is not RunState.OFF:
            window.start()

    def _use_keys(self) -> None:
        keys_of(self._window).use(self._store.remembered.shortcuts)

    def _scale_captions(self) -> None:
        self._window.captions.text.set_scale(self._store.settings.caption_scale)

    def _set_theme(self, choice: ThemeChoice) -> None:
        self._window.set_theme(choice)
        if self._dialog is not None:
            self._dialog.set_theme(system_theme(choice))

    def _set_autostart(self, on: bool) -> None:
        try:
            desktop.autostart(on)
        except SottovoceError as error:
            self._store.set(autostart=not on)
            self._tell(str(error))

    def _tell(self, text: str) -> None:
        self._window.message.say(text, offer_retry=False)
        if self._dialog is not None:
            self._dialog.say(text)
