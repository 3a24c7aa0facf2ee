"""`sottovoce gui`: opens the window, runs it to its end, and says how it went.

Order: is there a screen; Qt; the bridge (its thread lists devices and scenes); the window; when the devices are known
the engine starts. At the end the window goes first, then the engine, then Qt.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from app import console
from engine.control import AlreadyRunning, Request, ask
from engine.types import EngineConfig, Provider, Samples, SottovoceError

if TYPE_CHECKING:
    from PySide6.QtGui import QImage
    from PySide6.QtWidgets import QApplication

    from app.bridge import LiveEngine
    from app.window import MainWindow
    from engine.control import ControlServer
    from engine.ports import SourceInput

STOP_S = 15.0  # an engine that takes longer to stop is left behind
LOOP_PAUSE_S = 1.5
MOST_PICTURE_BYTES, MOST_COLOURS = 400_000, 256
LIKE_COLOURS = np.uint32(0xFFF0F8F0)  # colours that are equal in these bits look alike
ROUGHLY_LIKE = np.uint32(0xFFE0E0E0)  # the same where few colours must do
QT_PACKAGES = "libegl1 libgl1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libdbus-1-3"


def run_gui(
    demo: bool = False,
    quit_after_s: float | None = None,
    screenshot: Path | None = None,
    provider: Provider | None = None,
    captions: bool | None = None,
    size: tuple[int, int] | None = None,
) -> int:
    """The window until it is closed, or for `quit_after_s` -> exit status. What is None is as the settings have it.

    Run unattended it fails (1) when no sound went through the models or the picture could not be saved. Raises
    SottovoceError when no window can be opened.
    """
    unattended = quit_after_s is not None
    _want_screen(unattended)
    try:
        control = _control()
    except AlreadyRunning:
        if not unattended:
            return _show_the_other()
        control = None
    app = application()
    from app.bridge import Bridge
    from app.logbook import Logbook
    from app.remembering import Remembering, first_choices
    from app.settings_file import load
    from app.settings_store import SettingsStore
    from app.settings_use import window_config
    from app.steering import Steering
    from app.theme import ThemeChoice
    from app.tray import has_tray
    from app.window import MainWindow
    from engine.artefacts import load_ahead
    from engine.devices import list_devices
    from engine.residue import read_clouds
    from engine.scenes import list_scenes

    remembered, wrong = load()
    settings = remembered.settings
    bridge = Bridge(make_engine, list_devices, list_scenes, read_clouds)
    config, choices = window_config(settings, provider, captions), first_choices(settings, demo)
    load_ahead(config.provider)
    window = MainWindow(bridge, config, choices, ThemeChoice(settings.theme))
    if wrong:
        window.message.say(wrong, offer_retry=False)
    store = SettingsStore(remembered)
    store.follow()
    remembering = Remembering(window, store, has_tray if not unattended else lambda: False)
    if size is not None:
        window.resize(*size)
    if control is not None:
        Steering(window, control)
    logbook = Logbook("gui")
    for signal_of_bridge in (bridge.problem, bridge.device_change, bridge.stats):
        signal_of_bridge.connect(logbook.note)
    for line_of_bridge in (bridge.failed, bridge.no_captions):
        line_of_bridge.connect(logbook.fault)
    window.closed.connect(logbook.close)
    run = _Run(app, window, screenshot)
    window.begin()
    if unattended:
        window.show()
    else:
        remembering.show_window()
    return run.until_closed(quit_after_s)


def _control() -> ControlServer | None:
    """Ready for `sottovoce ctl`; None, with a warning, where that cannot be. Raises AlreadyRunning."""
    from app.commands_live import open_control

    try:
        return open_control()
    except AlreadyRunning:
        raise
    except SottovoceError as error:
        console.warn(f"sottovoce ctl will not reach this window: {error}")
        return None


def _show_the_other() -> int:
    """Bring the window that is open already to the front. Raises SottovoceError where what runs has none."""
    answer = ask(Request("show"))
    if not answer.ok:
        raise SottovoceError(answer.said)
    console.say("Sottovoce is open already; its window is in front now")
    return console.DONE


def make_engine(config: EngineConfig) -> LiveEngine:
    """The live engine, with the shipped recording in place of a microphone where that is asked for."""
    import dataclasses

    from app.column import DEMO_INPUT
    from engine.live import Engine

    if config.input != DEMO_INPUT:
        return Engine(config)
    return Engine(dataclasses.replace(config, input=None), source=demo_source())


def demo_source() -> SourceInput:
    """The shipped recording, over and over. Raises ArtefactError or AudioFileError."""
    from app.demo import shipped_recording
    from engine.ports import SourceInput
    from engine.resample import LIVE_RATES_HZ
    from engine.soundfiles import SoundReader

    path = shipped_recording()
    with SoundReader(path) as reader:
        rate_hz = reader.sample_rate_hz
    if rate_hz not in LIVE_RATES_HZ:
        raise SottovoceError(f"{path.name} has {rate_hz} Hz, which live sound cannot have; install Sottovoce again")
    return SourceInput("demo recording", rate_hz, _looped(path, rate_hz))


def _looped(path: Path, rate_hz: int) -> Iterator[Samples]:
    """Mono blocks of the recording, again and again with a pause between."""
    from engine.soundfiles import SoundReader

    while True:
        with SoundReader(path) as reader:
            for block in reader.blocks():
                yield block.mean(axis=1, dtype=np.float32)
        yield np.zeros(round(LOOP_PAUSE_S * rate_hz), dtype=np.float32)


def _want_screen(unattended: bool) -> None:
    """Raises where there is no screen; an unattended run draws into memory instead. Qt itself would abort."""
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM"):
        return
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    if not unattended:
        raise SottovoceError("there is no screen here; run: sottovoce demo, or sottovoce live")
    os.environ["QT_QPA_PLATFORM"] = "offscreen"


def application() -> QApplication:
    """The one QApplication. Raises SottovoceError where Qt's system libraries are missing."""
    try:
        from PySide6.QtGui import QIcon
        from PySide6.QtWidgets import QApplication
    except ImportError as error:
        raise SottovoceError(f"Qt does not load ({error}); install: sudo apt install {QT_PACKAGES}") from error
    from engine.paths import assets_dir

    existing = QApplication.instance()
    app = existing if isinstance(existing, QApplication) else QApplication(["sottovoce"])
    app.setApplicationName("sottovoce")
    app.setApplicationDisplayName("Sottovoce")
    app.setDesktopFileName("sottovoce")
    app.setWindowIcon(QIcon(str(assets_dir() / "icon.svg")))
    app.setQuitOnLastWindowClosed(False)  # the engine stops first
    return app


class _Run:
    """From the window's opening to the exit status."""

    def __init__(self, app: QApplication, window: MainWindow, screenshot: Path | None) -> None:
        from PySide6.QtCore import QTimer

        self._app, self._window, self._screenshot = app, window, screenshot
        self._status = console.DONE
        self._interrupted = False
        self._patience = QTimer(singleShot=True, interval=round(1000 * STOP_S))
        self._patience.timeout.connect(self._give_up)
        window.closed.connect(app.quit)
        window.closing.connect(self._patience.start)

    def until_closed(self, quit_after_s: float | None) -> int:
        from PySide6.QtCore import QTimer

        before = {number: signal.signal(number, self._on_interrupt) for number in console.STOPS}
        hook, sys.excepthook = sys.excepthook, self._on_bug
        if quit_after_s is not None:
            QTimer.singleShot(round(1000 * quit_after_s), self._finish_unattended)
        try:
            self._app.exec()
        finally:
            self._patience.stop()  # it would end the next run of this process
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.excepthook = hook
        return console.INTERRUPTED if self._interrupted else self._status

    def _finish_unattended(self) -> None:
        """Time is up: save the picture, see that there was something to see, close."""
        if self._screenshot is not None:
            self._window.inside.refresh()
            picture = self._window.grab().toImage()
            if not save_picture(picture, self._screenshot):
                console.say(f"{self._screenshot} cannot be written; choose another folder")
                self._status = console.FAILED
        if not self._window.tokens_seen:
            reason = self._window.message.text() or "no sound went through the models; try a longer --quit-after"
            console.say(reason)
            self._status = console.FAILED
        self._window.close()

    def _give_up(self) -> None:
        console.warn("the engine did not stop in time and was left behind")
        self._app.quit()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C in the terminal, or the desktop's end; Python sees it at the next poll of the bridge."""
        self._interrupted = True
        self._window.stays = False
        self._window.close()

    def _on_bug(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """What a slot raised: one line in the window and on standard error; the window stays."""
        console.tell_of_bugs(kind, error, trace)
        self._status = console.FAILED
        self._window.message.say(f"something went wrong in the window ({error}); if it stays so, start it again", False)


def save_picture(picture: QImage, path: Path, colours: int | None = None) -> bool:
    """Save as PNG, with so many colours, or with 256 where it would be large. False when it cannot be written."""
    from PySide6.QtGui import QImage

    image = picture.convertToFormat(QImage.Format.Format_RGB32)
    data = _png(image)
    if colours is not None or len(data) > MOST_PICTURE_BYTES:
        table = _frequent_colours(image, colours or MOST_COLOURS)
        data = _png(image.convertToFormat(QImage.Format.Format_Indexed8, table))
    try:
        path.write_bytes(data)
    except OSError:
        return False
    return True


def _png(image: QImage) -> bytes:
    from PySide6.QtCore import QBuffer

    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG", 0)  # type: ignore[call-overload]  # quality 0: the smallest file, nothing is lost
    return bytes(buffer.data().data())


def _frequent_colours(image: QImage, most: int) -> list[int]:
    """At most so many colours (0xAARRGGBB): the most frequent groups of like ones, each by its most frequent member."""
    pixels, counts = np.unique(np.frombuffer(image.constBits(), dtype=np.uint32), return_counts=True)
    order = np.argsort(-counts)
    pixels, counts = pixels[order], counts[order]
    like = LIKE_COLOURS if most >= MOST_COLOURS else ROUGHLY_LIKE
    _, first, group = np.unique(pixels & like, return_index=True, return_inverse=True)
    share = np.bincount(group, weights=counts)
    return [int(pixels[first[i]]) for i in np.argsort(-share)[:most]]
