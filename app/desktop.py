"""The desktop's menu and its login: .desktop files and the icon in the person's XDG folders.

Only files that carry our mark are replaced or removed: what somebody else wrote under the same name stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from app import console
from engine.paths import assets_dir
from engine.types import SottovoceError, UsageError

NAME = "sottovoce.desktop"
MARK = "X-Sottovoce-Entry=true"
VALIDATOR, VALIDATE_S = "desktop-file-validate", 10.0
HAS_ENTRIES = sys.platform.startswith("linux")


def desktop_entry(install: bool, remove: bool) -> int:
    """`sottovoce gui --install-desktop-entry` or `--remove-desktop-entry`. Raises UsageError, SottovoceError."""
    if install and remove:
        raise UsageError("choose one of --install-desktop-entry and --remove-desktop-entry")
    if install:
        console.say(f"Sottovoce is among your programs now ({install_entry()})")
    elif remove_entry():
        console.say("Sottovoce is no longer among your programs")
    else:
        console.say("there was no entry to remove")
    return console.DONE


def entry_path() -> Path:
    """Where the desktop looks for programs."""
    return _folder("XDG_DATA_HOME", ".local/share") / "applications" / NAME


def icon_path() -> Path:
    """Where the desktop looks for icons."""
    return _folder("XDG_DATA_HOME", ".local/share") / "icons" / "hicolor" / "scalable" / "apps" / "sottovoce.svg"


def autostart_path() -> Path:
    """Where the desktop looks for what starts at login."""
    return _folder("XDG_CONFIG_HOME", ".config") / "autostart" / NAME


def install_entry() -> Path:
    """Write the menu's entry and the icon. Raises SottovoceError, and then there is no new entry."""
    _want_entries()
    path, icon = entry_path(), icon_path()
    _want_ours(path)
    _write(icon, (assets_dir() / "icon.svg").read_text(encoding="utf-8"))
    _write(path, entry_text())
    if problem := validated(path):
        console.warn(problem)
    return path


def remove_entry() -> bool:
    """Take the menu's entry and the icon away; False where there was none. Raises SottovoceError."""
    _want_entries()
    if not _remove(entry_path()):
        return False
    icon_path().unlink(missing_ok=True)
    return True


def autostart(on: bool) -> None:
    """Open the window at login, or no longer. Raises SottovoceError."""
    if on == autostarts():
        return
    _want_entries()
    if on:
        _want_ours(autostart_path())
        _write(autostart_path(), entry_text())
    else:
        _remove(autostart_path())


def autostarts() -> bool:
    """Whether our entry is among what starts at login."""
    try:
        return HAS_ENTRIES and MARK in autostart_path().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False


def entry_text() -> str:
    """The entry, for the environment that this process runs from. Raises SottovoceError."""
    command, folder = _command()
    lines = [
        "[Desktop Entry]",
        "Type=Application",
        "Version=1.0",
        "Name=Sottovoce",
        "GenericName=Microphone noise remover",
        "Comment=Hear the voice, keep or drop the world around it, and read what is said",
        f"Exec={' '.join(map(quoted, command))}",
        f"TryExec={_escaped(command[0])}",
        "Icon=sottovoce",
        "Terminal=false",
        "Categories=AudioVideo;Audio;",
        "Keywords=microphone;noise;captions;voice;",
        "StartupNotify=true",
        "StartupWMClass=sottovoce",
        MARK,
    ]
    if folder is not None:
        lines.insert(-1, f"Path={_escaped(str(folder))}")
    return "\n".join(lines) + "\n"


def quoted(argument: str) -> str:
    """One argument of an Exec line, as the desktop entry specification wants it: quotes, then the string's escapes."""
    inside = argument.replace("%", "%%")
    for sign in ("\\", '"', "`", "$"):
        inside = inside.replace(sign, "\\" + sign)
    return '"' + inside.replace("\\", "\\\\") + '"'


def validated(path: Path) -> str:
    """What desktop-file-validate has against the file; empty where it has nothing, or is not installed."""
    validator = shutil.which(VALIDATOR)
    if validator is None:
        return ""
    try:
        done = subprocess.run([validator, str(path)], capture_output=True, text=True, timeout=VALIDATE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return console.one_line(done.stdout + done.stderr) if done.returncode else ""


def _command() -> tuple[list[str], Path | None]:
    """What opens the window, and the folder where that must be run (a checkout that is not installed)."""
    script = Path(sys.executable).with_name("sottovoce")
    if os.access(script, os.X_OK):
        parts, folder = [str(script), "gui"], None
    else:
        parts, folder = [sys.executable, "-m", "app", "gui"], Path(__file__).resolve().parent.parent
    for text in (*parts, str(folder or "")):
        if not text.isprintable() or "=" in parts[0]:
            raise SottovoceError(f"{text!r} cannot stand in a desktop entry; install Sottovoce in another folder")
    return parts, folder


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")


def _folder(variable: str, usual: str) -> Path:
    """An XDG base folder; a relative one does not count, as the specification says."""
    chosen = os.environ.get(variable, "")
    return Path(chosen) if os.path.isabs(chosen) else Path.home() / usual


def _want_entries() -> None:
    if not HAS_ENTRIES:
        raise SottovoceError("this system has no desktop entries; use its own menu or login items")


def _want_ours(path: Path) -> None:
    """Raises SottovoceError where a file of somebody else lies there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise SottovoceError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if MARK not in text.splitlines():
        raise SottovoceError(f"{path} was not written by Sottovoce and stays; move it away and try again")


def _remove(path: Path) -> bool:
    if not path.exists():
        return False
    _want_ours(path)
    try:
        path.unlink()
    except OSError as error:
        raise SottovoceError(f"{path} cannot be removed ({error.strerror}); check its permissions") from error
    return True


def _write(path: Path, text: str) -> None:
    """Beside and renamed. Raises SottovoceError."""
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise SottovoceError(f"{path} cannot be written ({error.strerror}); make room or check permissions") from error
