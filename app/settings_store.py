"""The settings of a running window: in memory at once, in the file a moment later and off the GUI thread.

A slider may set a value at any rate; what has changed is written when it has stood still for a moment. Where a write
fails, the settings hold in memory, a person is told once, and what was not written goes with the next write. What
another process writes, `sottovoce settings` say, is taken up as if it had been chosen here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import QFileSystemWatcher, QObject, QTimer, Signal

from app import settings_file, shortcuts
from app.bridge import CommandThread
from app.settings import PRESETS, Microphone, Preset, Remembered, Settings, changed, own_preset_name
from app.settings_file import MICROPHONES, SHORTCUTS, Changes, settings_path
from engine.types import UsageError

STILL_MS = 400
ANSWER_MS = 100
LOOK_MS = 150  # a write is several changes of the folder
WRITE_S = 3.0  # a disk that takes longer at the end is not waited for


class SettingsStore(QObject):
    """What is remembered. `changed` carries the name of each setting that has a new value, `failed` a line to show."""

    changed = Signal(str)
    presets_changed = Signal()
    shortcuts_changed = Signal()
    failed = Signal(str)

    def __init__(self, remembered: Remembered, write: Callable[[Changes], None] = settings_file.write) -> None:
        super().__init__()
        self.remembered = remembered
        self._write = write
        self._waiting: Changes = {}
        self._under_way: Changes = {}
        self._told = self._told_of_file = ""
        self._thread: CommandThread | None = CommandThread()
        self._asked = 0  # of the thread, and not answered yet
        self._watcher: QFileSystemWatcher | None = None
        self._look = QTimer(self)
        self._look.setSingleShot(True)
        self._look.setInterval(LOOK_MS)
        self._look.timeout.connect(self._begin_read)
        self._still = QTimer(self)
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self._still.timeout.connect(self._begin_write)
        self._answers = QTimer(self)
        self._answers.setInterval(ANSWER_MS)
        self._answers.timeout.connect(self._take_answers)

    @property
    def settings(self) -> Settings:
        return self.remembered.settings

    def follow(self) -> None:
        """From now on take up what others write into the file."""
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(lambda _: self._look.start())
        self._watch()

    def set(self, **values: Any) -> None:
        """Set some settings, all or none; raises UsageError for a value that may not be."""
        before, after = self.settings, changed(self.settings, values)
        self._keep(settings=after)
        self._later({(name,): getattr(after, name) for name in values if not _same(before, after, name)})
        for name in values:
            if getattr(before, name) != getattr(after, name):
                self.changed.emit(name)

    def reset(self, *names: str) -> None:
        """Bring settings back to how they came; without names, all of them."""
        before = self.settings
        names = names or tuple(Settings.model_fields)
        kept = {name: getattr(before, name) for name in before.model_fields_set - set(names)}
        self._keep(settings=Settings(**kept))
        self._later({(name,): None for name in names})
        for name in names:
            if getattr(before, name) != getattr(self.settings, name):
                self.changed.emit(name)

    def remember_microphone(self, device: str, used: Microphone) -> None:
        """Keep what is used with a microphone."""
        if self.remembered.microphones.get(device) == used:
            return
        self._keep(microphones=dict(self.remembered.microphones) | {device: used})
        self._later({(MICROPHONES, device, name): value for name, value in used.model_dump().items()})

    def save_preset(self, name: str, preset: Preset) -> str:
        """Keep a preset under a name, in place of a person's own of that name -> the name; raises UsageError."""
        name = own_preset_name(name, self.remembered.own_presets)
        self._keep(own_presets=dict(self.remembered.own_presets) | {name: preset})
        self._later({(settings_file.PRESETS, name, key): value for key, value in preset.model_dump().items()})
        self.presets_changed.emit()
        return name

    def delete_preset(self, name: str) -> None:
        """Forget a person's own preset; raises UsageError for one of ours, and for one that there is not."""
        if name not in self.remembered.own_presets:
            what = "comes with Sottovoce and stays" if name in PRESETS else "is not there"
            raise UsageError(f"the preset {name!r} {what}")
        self._keep(own_presets={key: kept for key, kept in self.remembered.own_presets.items() if key != name})
        self._later({(settings_file.PRESETS, name): None})
        self.presets_changed.emit()

    def set_shortcut(self, name: str, keys: str | None) -> None:
        """Other keys for a shortcut, none where the text is empty, as it came where it is None; raises UsageError."""
        text = shortcuts.SHORTCUTS[name].text if keys is None else keys
        self._use_shortcuts(shortcuts.changed(self.remembered.shortcuts, name, text))

    def reset_shortcuts(self) -> None:
        """Every shortcut as it came."""
        self._use_shortcuts({})

    def _use_shortcuts(self, changes: dict[str, str]) -> None:
        before = self.remembered.shortcuts
        if changes != before:
            self._keep(shortcuts=changes)
            names = [name for name in {**before, **changes} if before.get(name) != changes.get(name)]
            self._later({(SHORTCUTS, name): changes.get(name) for name in names})
            self.shortcuts_changed.emit()

    def close(self) -> None:
        """Write what is not written yet, and end the thread."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        if changes := self._waiting:
            thread.submit(lambda: self._write(changes), lambda _: None, self.failed.emit)
        thread.finish()
        thread.join(WRITE_S)
        for timer in (self._still, self._answers, self._look):
            timer.stop()
        while not thread.answers.empty():
            thread.answers.get()()

    def _keep(self, **parts: Any) -> None:
        self.remembered = dataclasses.replace(self.remembered, **parts)

    def _later(self, changes: Mapping[tuple[str, ...], Any]) -> None:
        if not changes:
            return
        self._waiting = _after(self._waiting, changes)
        self._still.start()

    def _begin_write(self) -> None:
        if self._under_way:
            self._still.start()
            return
        if not self._waiting or self._thread is None:
            return
        self._under_way, self._waiting = self._waiting, {}
        changes = dict(self._under_way)
        self._thread.submit(lambda: self._write(changes), lambda _: self._written(), self._not_written)
        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        self._asked += 1
        self._answers.start()

    def _take_answers(self) -> None:
        while self._thread is not None and not self._thread.answers.empty():
            self._asked -= 1
            self._thread.answers.get()()
        if not self._asked:
            self._answers.stop()

    def _written(self) -> None:
        self._under_way, self._told = {}, ""
        self._watch()  # the folder may be new

    def _not_written(self, text: str) -> None:
        self._waiting = _after(self._under_way, self._waiting)
        self._under_way = {}
        if text != self._told:
            self._told = text
            self.failed.emit(f"{text}; until Sottovoce ends they hold all the same")

    # What others write ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        folder = settings_path().parent
        if self._watcher is not None and not self._watcher.directories() and folder.is_dir():
            self._watcher.addPath(str(folder))

    def _begin_read(self) -> None:
        """A file that has gone, or cannot be read, changes nothing here."""
        if self._thread is not None and settings_path().is_file():
            self._thread.submit(settings_file.read, lambda result: self._take(*result), lambda _: None)
            self._wait_for_answer()

    def _take(self, found: Remembered, line: str) -> None:
        """What was read, but for what was changed here and is not in the file yet."""
        ours = {where[0] for where in (*self._under_way, *self._waiting)}
        before, now = self.settings, found.settings
        chosen = {name: before if name in ours else now for name in Settings.model_fields}
        taken = {name: getattr(of, name) for name, of in chosen.items() if name in of.model_fields_set}
        others_shortcuts = SHORTCUTS not in ours and found.shortcuts != self.remembered.shortcuts
        others_presets = settings_file.PRESETS not in ours and found.own_presets != self.remembered.own_presets
        self._keep(
            settings=Settings(**taken),
            microphones=self.remembered.microphones if MICROPHONES in ours else found.microphones,
            own_presets=found.own_presets if others_presets else self.remembered.own_presets,
            shortcuts=found.shortcuts if others_shortcuts else self.remembered.shortcuts,
        )
        for name in Settings.model_fields:
            if getattr(before, name) != getattr(self.settings, name):
                self.changed.emit(name)
        if others_presets:
            self.presets_changed.emit()
        if others_shortcuts:
            self.shortcuts_changed.emit()
        if line and line != self._told_of_file:  # the file is read after every change of our own, too
            self.failed.emit(line)
        self._told_of_file = line


def _same(before: Settings, after: Settings, name: str) -> bool:
    """Nothing to write: the value is the same, and was chosen before, too."""
    return name in before.model_fields_set and getattr(before, name) == getattr(after, name)


def _after(former: Changes, later: Mapping[tuple[str, ...], Any]) -> Changes:
    """Changes in the order in which they hold: what is taken away or set anew later is not set before."""
    gone = [where for where, value in later.items() if value is None]
    kept = {w: v for w, v in former.items() if w not in later and not any(w[: len(under)] == under for under in gone)}
    return kept | dict(later)
