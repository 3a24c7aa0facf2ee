"""`sottovoce settings`: the tables of app/settings.py and app/shortcuts.py on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from app import console
from app.settings import (
    ROWS,
    Microphone,
    Preset,
    Remembered,
    Row,
    checked,
    own_preset_name,
    preset,
    preset_name,
    row,
    shown,
)
from app.settings_file import MICROPHONES, PRESETS, Changes, settings_path, told, write
from app.settings_file import SHORTCUTS as SHORTCUTS_TABLE
from app.settings_here import meant
from app.shortcuts import PREFIX, SHORTCUTS, Shortcut, changed, shortcut
from engine.types import UsageError

TAKES = {"list": (0, 0), "path": (0, 0), "reset": (0, 1), "preset": (0, 1), "set": (2, 2)}  # the others: one name
ONE_ROW = ("get", "set", "reset")


def settings(action: str, name: str | None, value: str | None, as_json: bool) -> int:
    """Raises UsageError for what there is not and what may not be, SottovoceError where it cannot be saved.

    as_json: what was asked for, or what is remembered after a change.
    """
    given = [part for part in (name, value) if part is not None]
    least, most = TAKES.get(action, (1, 1))
    if not least <= len(given) <= most:
        raise UsageError(f"settings {action} takes {('nothing', 'NAME', 'NAME and VALUE')[most]}")
    if action == "path":
        _tell(str(settings_path()), {"path": str(settings_path())}, as_json)
    elif action == "list":
        _list(told(), as_json)
    elif action == "preset" and name is None:
        _list_presets(told(), as_json)
    elif given and given[0].startswith(PREFIX) and action in ONE_ROW:
        _shortcut(action, shortcut(given[0]), value, as_json)
    elif given and action in ONE_ROW:
        _setting(action, row(given[0]), value, as_json)
    else:
        _several(action, name)
        if as_json:
            _list(told(), as_json)
    return console.DONE


def _tell(text: str, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.print_json(figures)
    else:
        print(text)


def _save(values: dict[str, Any]) -> None:
    """Into the file, and, for what lies elsewhere too, there first; None resets."""
    if "autostart" in values:
        from app.desktop import autostart

        autostart(bool(values["autostart"]))
    changes: Changes = {(name,): value for name, value in values.items()}
    if values.keys() & Microphone.model_fields.keys():
        changes[(MICROPHONES,)] = None  # what was used with each would take the place of what is chosen now
    write(changes)


def _setting(action: str, known: Row, value: str | None, as_json: bool) -> None:
    if action != "get":
        _save({known.name: None if value is None else meant(known.name, checked(known.name, value))})
    now = told().settings
    if as_json:
        console.print_json(_described(known, now))
    elif action == "get":
        print(shown(getattr(now, known.name)))


def _shortcut(action: str, known: Shortcut, value: str | None, as_json: bool) -> None:
    changes = told().shortcuts
    if action != "get":
        after = changed(changes, known.name, known.text if value is None else value)
        write({(SHORTCUTS_TABLE, known.name): after.get(known.name)})
    if as_json:
        console.print_json(_described_shortcut(known, told().shortcuts))
    elif action == "get":
        print(changes.get(known.name, known.text))


def _several(action: str, name: str | None) -> None:
    """All of them, or those of a preset."""
    remembered = told()
    if name is None:
        _save(dict.fromkeys(ROWS))
        gone: Changes = {(SHORTCUTS_TABLE, key): None for key in remembered.shortcuts}
        write(gone)
    elif action == "preset":
        _save(preset(remembered, name).model_dump())
    elif action == "save-preset":
        now = {part: getattr(remembered.settings, part) for part in Preset.model_fields}
        name = own_preset_name(name, remembered.own_presets)
        write({(PRESETS, name, part): value for part, value in now.items()})
    elif (known := preset_name(name, remembered.own_presets)) is not None:
        gone = {(PRESETS, known): None}
        write(gone)
    else:
        raise UsageError(f"there is no preset of your own named {name!r}")


def _list(remembered: Remembered, as_json: bool) -> None:
    now = remembered.settings
    if as_json:
        shortcuts = [_described_shortcut(known, remembered.shortcuts) for known in SHORTCUTS.values()]
        console.print_json([_described(known, now) for known in ROWS.values()] + shortcuts)
        return
    width = max(map(len, (*ROWS, *(PREFIX + name for name in SHORTCUTS))))
    for known in ROWS.values():
        value = shown(getattr(now, known.name))
        print(f"{known.name:<{width}}  {value or '-'}")
        print(f"{'':<{width}}    {known.sentence}")
    for keys in SHORTCUTS.values():
        print(f"{PREFIX + keys.name:<{width}}  {remembered.shortcuts.get(keys.name, keys.text) or '-'}")
        print(f"{'':<{width}}    {keys.sentence}")


def _described(known: Row, now: Any) -> dict[str, Any]:
    figures = dataclasses.asdict(known)
    return figures | {"value": getattr(now, known.name), "chosen": known.name in now.model_fields_set}


def _described_shortcut(known: Shortcut, changes: Mapping[str, str]) -> dict[str, Any]:
    texts = {"label": known.label, "sentence": known.sentence, "group": "Shortcuts", "kind": "shortcut"}
    value = changes.get(known.name, known.text)
    more = {"default": known.text, "value": value, "chosen": known.name in changes}
    return {"name": PREFIX + known.name} | texts | more


def _list_presets(remembered: Remembered, as_json: bool) -> None:
    if as_json:
        console.print_json({name: kept.model_dump() for name, kept in remembered.presets.items()})
        return
    for name, kept in remembered.presets.items():
        parts = (f"{part} {shown(value)}" for part, value in kept.model_dump().items())
        print(f"{name}: {', '.join(parts)}")
