"""The settings in their file, settings.toml: read value by value, written beside and renamed, shared by processes.

A write carries only what changed, so that two processes lose nothing of each other's; what this version does not know
stays in the file. A file that is broken is kept as settings.toml.bad-DATE, and what is right in it is taken over.
What only a write needs is imported by it: a live run reads the file before its first sound.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from app import console, shortcuts
from app.settings import ROWS, Microphone, Preset, Remembered, Settings, checked, own_preset_name
from engine.paths import SETTINGS_NAME, config_dir
from engine.types import SottovoceError, UsageError

if TYPE_CHECKING:
    import tomlkit
    from filelock import FileLock

LOCK_WAIT_S = 5.0
MOST_SPARES = 1000
MICROPHONES, PRESETS, SHORTCUTS = "microphones", "presets", "shortcuts"

Entry = TypeVar("Entry", bound=BaseModel)

# Where in the file -> the new value; None takes it away, with all that lies under it.
Changes = dict[tuple[str, ...], Any]


def settings_path() -> Path:
    """The file, whether it is there or not."""
    return config_dir() / SETTINGS_NAME


def load() -> tuple[Remembered, str]:
    """What is remembered, and a sentence for a person where something in the file was wrong (else empty).

    Never raises: where nothing can be read, everything is as it came.
    """
    try:
        return read()
    except OSError as error:
        where = settings_path()
        return Remembered(), f"the settings cannot be read ({_reason(error)}); check the permissions of {where}"


def told() -> Remembered:
    """As `load`; what is wrong there is told on standard error."""
    remembered, line = load()
    if line:
        console.warn(line)
    return remembered


def read() -> tuple[Remembered, str]:
    """As `load`, but raises OSError where the file cannot be read."""
    path = settings_path()
    values, broken = _values(_text(path))
    remembered, wrong = understood(values)
    if not (broken or wrong):
        return remembered, _slip(path, values)
    what = "not well formed" if broken else f"wrong in {', '.join(map('.'.join, wrong[:5]))}"
    try:
        with _lock(path):
            kept = _set_right(path)
    except OSError as error:
        return remembered, f"the settings file is {what}, and cannot be set right ({_reason(error)}); see {path}"
    rest = f"; the old file is kept as {kept.name}" if kept else ""
    return remembered, f"the settings file was {what}: what is right in it is used{rest}"


def _slip(path: Path, values: Mapping[str, Any]) -> str:
    """A sentence where a setting's name is written in another way, and so is not one; else empty."""
    for name in values:
        meant = name.replace("-", "_").casefold()
        if name not in ROWS and meant in ROWS:
            return f"{name} in {path} is not read; a file calls it {meant}"
    return ""


def write(changes: Changes) -> None:
    """Put changes into the file and leave the rest of it as it is. Raises SottovoceError, and then it is as it was."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = settings_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            _set_right(path)
            document = tomlkit.parse(_text(path))
            for where, value in changes.items():
                _put(document, where, value)
            _replace(path, tomlkit.dumps(document))
    except (OSError, TOMLKitError) as error:
        reason = _reason(error) if isinstance(error, OSError) else str(error)
        raise SottovoceError(
            f"the settings could not be saved ({reason}); see that {path.parent} has room and may be written"
        ) from error


def understood(values: Mapping[str, Any]) -> tuple[Remembered, list[tuple[str, ...]]]:
    """Values as they are meant, and where a wrong one stands. Unknown settings are a newer version's, and not wrong;
    an unknown shortcut is, so that a slip of the pen is told.
    """
    wrong: list[tuple[str, ...]] = []
    chosen: dict[str, Any] = {}
    for name in ROWS.keys() & values.keys():
        try:
            chosen[name] = checked(name, values[name])
        except UsageError:
            wrong.append((name,))
    microphones = _entries(values, MICROPHONES, Microphone, wrong)
    presets = _entries(values, PRESETS, Preset, wrong)
    for name in list(presets):
        try:
            own_preset_name(name)
        except UsageError:
            wrong.append((PRESETS, name))
            del presets[name]
    keys = _shortcuts(values, wrong)
    return Remembered(Settings(**chosen), microphones, presets, keys), sorted(wrong)


def _entries(
    values: Mapping[str, Any], table: str, kind: type[Entry], wrong: list[tuple[str, ...]]
) -> dict[str, Entry]:
    rows = values.get(table, {})
    if not isinstance(rows, dict):
        wrong.append((table,))
        return {}
    entries = {}
    for name, row in rows.items():
        try:
            entries[name] = kind.model_validate(row)
        except (ValidationError, UsageError):
            wrong.append((table, name))
    return entries


def _shortcuts(values: Mapping[str, Any], wrong: list[tuple[str, ...]]) -> dict[str, str]:
    rows = values.get(SHORTCUTS, {})
    if not isinstance(rows, dict):
        wrong.append((SHORTCUTS,))
        return {}
    changes, not_so = shortcuts.understood(rows)
    wrong += [(SHORTCUTS, name) for name in not_so]
    return changes


def _text(path: Path) -> str:
    """The file's text, whatever its bytes; empty where there is none. Raises OSError."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return ""


def _values(text: str) -> tuple[dict[str, Any], bool]:
    """All values, or those of every line that can be read by itself; and whether the whole was broken."""
    try:
        return tomllib.loads(text), False
    except (tomllib.TOMLDecodeError, RecursionError):
        return _salvaged(text), True


def _salvaged(text: str) -> dict[str, Any]:
    """Line by line: a heading holds for the lines after it, a line that cannot be read is left out."""
    values: dict[str, Any] = {}
    here: tuple[str, ...] | None = ()
    for line in text.splitlines():
        heading = line.strip().startswith("[")
        try:
            read = tomllib.loads(line)
        except (tomllib.TOMLDecodeError, RecursionError):
            here = None if heading else here
            continue
        if heading:
            here = _only_path(read)
        elif here is not None:
            _merge(values, here, read)
    return values


def _only_path(read: dict[str, Any]) -> tuple[str, ...] | None:
    """The names in a heading such as [presets."My desk"]; None for an array of tables, which we have none of."""
    path: list[str] = []
    inner: Any = read
    while isinstance(inner, dict) and inner:
        name, inner = next(iter(inner.items()))
        path.append(name)
    return tuple(path) if isinstance(inner, dict) else None


def _merge(values: dict[str, Any], where: tuple[str, ...], read: dict[str, Any]) -> None:
    table: Any = values
    for name in where:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            return
    table.update(read)


def _set_right(path: Path) -> Path | None:
    """Under the lock: keep a broken file aside and put what is right of it in its place.

    Raises OSError, and then neither has been done.
    """
    import tomlkit

    text = _text(path)
    values, broken = _values(text)
    _, wrong = understood(values)
    if not (broken or wrong):
        return None
    document = _document(values) if broken else tomlkit.parse(text)
    for where in wrong:
        _put(document, where, None)
    kept = _spare(path)
    try:
        _replace(path, tomlkit.dumps(document))
    except OSError:
        kept.unlink(missing_ok=True)  # the next attempt makes another
        raise
    return kept


def _document(values: dict[str, Any]) -> tomlkit.TOMLDocument:
    import tomlkit

    document = tomlkit.document()
    for name, value in values.items():
        _put(document, (name,), value)
    return document


def _spare(path: Path) -> Path:
    """Copy the file to a name that is free. Raises OSError."""
    date = time.strftime("%Y-%m-%d")
    for number in range(1, MOST_SPARES):
        spare = path.with_name(f"{path.name}.bad-{date}" + (f"-{number}" if number > 1 else ""))
        try:
            with spare.open("xb") as copy:
                copy.write(path.read_bytes())
        except FileExistsError:
            continue
        except OSError:
            spare.unlink(missing_ok=True)
            raise
        return spare
    raise FileExistsError(0, "there are too many broken ones already", str(path))


def _put(document: Any, where: tuple[str, ...], value: Any) -> None:
    """Set one value in a document, or take it away; a table that is left empty goes too."""
    import tomlkit

    *tables, name = where
    table = document
    for outer in tables:
        if not isinstance(table.get(outer), dict):
            if value is None:
                return
            table[outer] = tomlkit.table(is_super_table=outer in (MICROPHONES, PRESETS))
        table = table[outer]
    if value is not None:
        if table.get(name) != value or type(table.get(name)) is not type(value):
            table[name] = value
    elif name in table:
        del table[name]
        if tables and not table:
            _put(document, tuple(tables), None)


def _replace(path: Path, text: str) -> None:
    """Write beside and rename, through a link to what it points at. Raises OSError, and then nothing has changed."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, name)
        os.replace(name, target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _lock(path: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_WAIT_S)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "another Sottovoce is writing them"
    return error.strerror or str(error)
