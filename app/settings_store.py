"""The settings of a running window: in memory at once, in the file a moment later and off the GUI thread.

A slider may set a value at any rate; what has changed is written when it has stood still for a moment. Where a write
fails, the settings hold in memory, a person is told once, and what was not written goes with the next write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from app import settings_file
from app.bridge import CommandThread
from app.settings import PRESETS, Microphone, Preset, Remembered, Settings, changed, own_preset_name
from app.settings_file import MICROPHONES, Changes
from engine.types import UsageError

STILL_MS = 400
ANSWER_MS = 100
WRITE_S = 3.0  # a disk that takes longer at the end is not waited for


class SettingsStore(QObject):
    """What is remembered. `changed` carries the name of each setting that has a new value, `failed` a line to show."""

    changed = Signal(str)
    presets_changed = Signal()
    failed = Signal(str)

    def __init__(self, remembered: Remembered, write: Callable[[Changes], None] = settings_file.write) -> None:
        super().__init__()
        self.remembered = remembered
        self._write = write
        self._waiting: Changes = {}
        self._under_way: Changes = {}
        self._told = ""
        self._thread: CommandThread | None = CommandThread()
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
        name = own_preset_name(name)
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

    def close(self) -> None:
        """Write what is not written yet, and end the thread."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        if changes := self._waiting:
            thread.submit(lambda: self._write(changes), lambda _: None, self.failed.emit)
        thread.finish()
        thread.join(WRITE_S)
        self._still.stop()
        self._answers.stop()
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
        self._answers.start()

    def _take_answers(self) -> None:
        while self._thread is not None and not self._thread.answers.empty():
            self._thread.answers.get()()

    def _written(self) -> None:
        self._under_way, self._told = {}, ""
        self._answers.stop()

    def _not_written(self, text: str) -> None:
        self._waiting = _after(self._under_way, self._waiting)
        self._under_way = {}
        self._answers.stop()
        if text != self._told:
            self._told = text
            self.failed.emit(f"{text}; until Sottovoce ends they hold all the same")


def _same(before: Settings, after: Settings, name: str) -> bool:
    """Nothing to write: the value is the same, and was chosen before, too."""
    return name in before.model_fields_set and getattr(before, name) == getattr(after, name)


def _after(former: Changes, later: Mapping[tuple[str, ...], Any]) -> Changes:
    """Changes in the order in which they hold: what is taken away or set anew later is not set before."""
    gone = [where for where, value in later.items() if value is None]
    kept = {w: v for w, v in former.items() if w not in later and not any(w[: len(under)] == under for under in gone)}
    return kept | dict(later)
