"""`python -m app.pictures FOLDER`: pictures of the real windows at work on the shipped recording, with no screen.

The window is taken some seconds after its background was dropped, once captions keep up; the files are cleaned as a
person would do it. Settings are the usual ones, not the person's. Letters are those of this machine.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app import console
from engine.types import Background, EngineConfig, SottovoceError

if TYPE_CHECKING:
    from PySide6.QtWidgets import QWidget

    from app.remembering import Remembering
    from app.window import MainWindow

BEFORE, AFTER = "keep", "drop"
BEGUN_S, CHANGED_S = 14.0, 6.0  # of the sound, before the change at least, and from it to the picture
LATE_S = 4.0  # how far captions may be behind
LIMIT_S = 240.0
SETTLE_S = 0.3
FILE_S = 8.0  # of the recording are in a file
FILES_SIZE = (800, 420)
FILE_PART = 0.4  # of the second file is done when the list is taken
COLOURS = 80
NAMES = ("window", "files", "settings")
NO_WHISPER = "Whisper's weights are not here, so these pictures have no captions; for those: sottovoce models get base"


def take(folder: Path, names: tuple[str, ...] = NAMES) -> list[Path]:
    """Write NAME.png for each name -> their paths. Raises SottovoceError where a window does not come to its work."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    made = []
    with tempfile.TemporaryDirectory(prefix="sottovoce-pictures-") as own:
        for name in ("SOTTOVOCE_CONFIG", "SOTTOVOCE_LOGS", "XDG_RUNTIME_DIR"):
            os.environ[name] = own
        if "window" in names or "settings" in names:
            made += _take_window(folder, names)
        if "files" in names:
            made.append(_take_files(folder, Path(own)))
    return made


def _take_window(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The main window at work, and the settings over it."""
    window, remembering = _opened()
    closed: list[bool] = []
    window.closed.connect(lambda: closed.append(True))
    made = []
    try:
        if "window" in names:
            _play_to(window, BEGUN_S)
            window.set_background(Background.parse(AFTER))
            _play_to(window, _played_s(window) + CHANGED_S)
            window.message.dismiss.click()
            _settle()
            made.append(_saved(window, folder, "window"))
        if "settings" in names:
            remembering.open_dialog()
            assert remembering.dialog is not None
            _settle()
            made.append(_saved(remembering.dialog, folder, "settings"))
    finally:
        window.close()
        _until(lambda: bool(closed), "the engine does not stop")
    return made


def _opened() -> tuple[MainWindow, Remembering]:
    """The main window with the shipped recording in place of a microphone, and all that belongs to it."""
    from app.bridge import Bridge
    from app.column import DEMO_INPUT
    from app.gui import application, make_engine
    from app.remembering import Remembering
    from app.settings_file import load
    from app.settings_store import SettingsStore
    from app.settings_use import window_config
    from app.theme import ThemeChoice
    from app.window import Choices, MainWindow
    from engine.devices import list_devices
    from engine.ports import NO_OUTPUT
    from engine.residue import read_clouds
    from engine.scenes import list_scenes

    application()
    bridge = Bridge(make_engine, list_devices, list_scenes, read_clouds)
    remembered = load()[0]
    config = window_config(remembered.settings, None, _can_caption())
    config = dataclasses.replace(config, background=Background.parse(BEFORE))
    window = MainWindow(bridge, config, Choices(DEMO_INPUT, NO_OUTPUT, settled=True), ThemeChoice.DARK)
    remembering = Remembering(window, SettingsStore(remembered), lambda: True)
    window.show()
    window.begin()
    return window, remembering


def _play_to(window: MainWindow, at_s: float) -> None:
    """Wait until so much was played, and captions keep up. Raises SottovoceError when the engine gives up."""
    from app.bridge import RunState

    late_s = [LATE_S]
    window.bridge.stats.connect(lambda stats: late_s.append(stats.caption_lag_s))

    def there() -> bool:
        if window.bridge.state is RunState.OFF and (text := window.message.text()):
            raise SottovoceError(text[:1].lower() + text[1:])
        told = bool(window.captions.text.final_text and window.column.noise.plane.kind)
        return _played_s(window) >= at_s and (not window.config.captions or (told and late_s[-1] < LATE_S))

    _until(there, "sound or captions do not come; see sottovoce doctor, or wait until this machine has less to do")


def _played_s(window: MainWindow) -> float:
    return window.timeline.head * window.timeline.hop_s


def _take_files(folder: Path, own: Path) -> Path:
    """The window of sound files: one is done and can be compared, one is under way."""
    from app.batch import ItemState
    from app.demo import shipped_recording
    from app.file_window import FileWindow
    from app.gui import application
    from app.theme import DARK, apply_theme
    from engine.scenes import list_scenes

    apply_theme(application(), DARK)
    sources = [own / "in the garden.flac", own / "at the forge.flac"]
    for source in sources:
        _cut(shipped_recording(), source)
    window = FileWindow(list_scenes, lambda: None, EngineConfig)
    window.set_theme(DARK)
    window.resize(*FILES_SIZE)
    window.show()
    try:
        window.take(sources)
        window.stems.click()
        window.start.click()
        first, second = window.batch.items
        _until(lambda: second.part >= FILE_PART or second.state is ItemState.FAILED, "the files are not cleaned")
        if second.state is ItemState.FAILED or first.state is not ItemState.DONE:
            raise SottovoceError(first.text or second.text)
        window.table.selectRow(0)
        window.listening.which.click()
        _settle()
        return _saved(window, folder, "files")
    finally:
        window.end()


def _cut(recording: Path, target: Path) -> None:
    """The first FILE_S of a recording as a file of its own."""
    from engine.soundfiles import SoundReader, SoundWriter

    with SoundReader(recording) as reader:
        left = round(FILE_S * reader.sample_rate_hz)
        writer = SoundWriter(target, reader.sample_rate_hz, 1)
        for block in reader.blocks():
            writer.write(block[:left].mean(axis=1))
            left -= len(block)
            if left <= 0:
                break
        writer.finish()


def _can_caption() -> bool:
    """Whether a real Whisper can write what is said; where not, a person learns of it."""
    from engine.weights import find_weights

    found = find_weights() is not None
    if not found:
        console.say(NO_WHISPER)
    return found


def _until(true: Callable[[], bool], otherwise: str) -> None:
    """Let the windows live until something is so. Raises SottovoceError when that takes too long."""
    from app.gui import application

    deadline = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > deadline:
            raise SottovoceError(otherwise)
        application().processEvents()
        time.sleep(0.005)


def _settle() -> None:
    """What was just shown has its place."""
    end_s = time.monotonic() + SETTLE_S
    _until(lambda: time.monotonic() > end_s, "")


def _saved(window: QWidget, folder: Path, name: str) -> Path:
    from app.gui import save_picture

    path = folder / f"{name}.png"
    if not save_picture(window.grab().toImage(), path, COLOURS):
        raise SottovoceError(f"{path} cannot be written; choose another folder")
    return path


def main(arguments: list[str]) -> int:
    """FOLDER [NAME ...] -> exit status."""
    if not arguments or not Path(arguments[0]).is_dir() or not set(arguments[1:]) <= set(NAMES):
        console.say(f"name a folder that is there, and what to take: {', '.join(NAMES)}")
        return console.WRONG_USE
    try:
        for path in take(Path(arguments[0]), tuple(arguments[1:]) or NAMES):
            console.say(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except SottovoceError as error:
        console.say(error)
        return console.FAILED
    return console.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
