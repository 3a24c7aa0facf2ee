"""Every keyboard shortcut of the windows, in one table: name, keys as they come, and a sentence for a person.

Keys are written in Qt's portable form, such as Ctrl+Shift+M (on macOS Ctrl is the Command key); several that do the
same are parted by "; ". What a person changed is a mapping of names to such texts, an empty one for a shortcut that is
off. Nothing here knows Qt, so that the settings' file and the command line may read it.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.types import UsageError

PREFIX = "shortcut."  # before its name, among the settings of the command line
APART = "; "
MODIFIERS = ("Meta", "Ctrl", "Alt", "Shift")  # in the order in which Qt writes them
NAMED = [f"F{number}" for number in range(1, 25)]
NAMED += ["Ins", "Pause", "Print", "ScrollLock", "Help", "Back", "Forward", "Microphone Mute", "Volume Mute"]
NAMED += ["Media Play", "Media Stop", "Media Record", "Toggle Media Play/Pause"]
# With any modifiers these move, choose, close and delete, in text and between controls.
TOOLKIT_KEYS = ["Up", "Down", "Left", "Right", "Home", "End", "PgUp", "PgDown", "Return", "Enter", "Tab", "Backtab"]
TOOLKIT_KEYS += ["Space", "Esc", "Backspace", "Del", "Menu"]
TOOLKIT = {"Ctrl+A", "Ctrl+C", "Ctrl+V", "Ctrl+X", "Ctrl+Y", "Ctrl+Z", "Ctrl+Shift+Z", "Ctrl+Ins", "Shift+Ins"}
TOOLKIT |= {"Shift+F10", "Alt+F4", "Ctrl+Q"}
WINDOW, FILES = "window", "files"  # where a shortcut is heard; the same keys may mean one thing in each


@dataclass(frozen=True)
class Shortcut:
    """What keys do. repeats: again and again while they are held."""

    name: str
    label: str
    sentence: str
    keys: tuple[str, ...]
    place: str = WINDOW
    repeats: bool = False

    @property
    def text(self) -> str:
        """Its keys as they come, as one text."""
        return APART.join(self.keys)


SHORTCUTS = {
    each.name: each
    for each in (
        Shortcut("power", "On or bypass", "Clean the sound, or let it through as it is", ("Ctrl+B",)),
        Shortcut("mute", "Mute", "Send silence instead of your voice", ("Ctrl+M",)),
        Shortcut("level", "Level", "Bring your voice to a steady level", ("Ctrl+L",)),
        Shortcut("resync", "Resync", "Bring the delay back to its smallest", ("Ctrl+Shift+R",)),
        Shortcut("record", "Record", "Begin or end a recording", ("Ctrl+R",)),
        Shortcut("open_files", "Open files", "Choose sound files to clean", ("Ctrl+O",)),
        Shortcut("pause_pictures", "Pause the pictures", "Hold the pictures still, or go on", ("Ctrl+P",)),
        Shortcut("captions", "Captions", "Listen for words", ("Ctrl+T",)),
        Shortcut("overlay", "Overlay", "Captions in a small window over all others", ("Ctrl+Shift+O",)),
        Shortcut("find", "Find", "Find in the captions", ("Ctrl+F",)),
        Shortcut("find_next", "Next match", "Go to the next match", ("F3",), repeats=True),
        Shortcut("find_previous", "Match before", "Go to the match before", ("Shift+F3",), repeats=True),
        Shortcut("save_captions", "Save captions", "Save as SRT, VTT, TXT or JSON", ("Ctrl+S",)),
        Shortcut("copy_captions", "Copy captions", "Put all final words on the clipboard", ("Ctrl+Shift+C",)),
        Shortcut("undo_clear", "Undo", "Bring back what was cleared", ("Ctrl+Z",)),
        Shortcut("newest_words", "Newest words", "Back to the newest words", ("Ctrl+End",)),
        Shortcut("larger_text", "Larger text", "Write captions larger", ("Ctrl++", "Ctrl+="), repeats=True),
        Shortcut("smaller_text", "Smaller text", "Write captions smaller", ("Ctrl+-",), repeats=True),
        Shortcut("usual_text", "Usual text size", "Write captions in their usual size", ("Ctrl+0",)),
        Shortcut("settings", "Settings", "Everything that is remembered", ("Ctrl+,",)),
        Shortcut("models", "Models", "Whisper's sizes, and the networks of the sound", ("Ctrl+Shift+W",)),
        Shortcut("shortcuts", "Shortcuts", "Show all shortcuts as they are now", ("F1",)),
        Shortcut("quit", "Quit", "Complete what is recorded, and quit", ("Ctrl+Q",)),
        Shortcut("play", "Play", "Play or pause a file that was cleaned", ("P",), FILES),
        Shortcut("compare", "Compare", "From the original to the result and back", ("A",), FILES),
    )
}
FIXED = (
    ("Esc", "Close the search, the overlay, a dialog"),
    ("Return", "Hear the word at the cursor; in the search the next match, with Shift the one before"),
    ("Up, Down, Left, Right", "Move the overlay, with Shift size it"),
)


def parsed(text: str) -> tuple[str, ...]:
    """Keys in the order and case in which Qt writes them; none for an empty text. Raises UsageError."""
    return tuple(dict.fromkeys(map(_one, text.strip().split(APART)))) if text.strip() else ()


def _one(text: str) -> str:
    """One combination; its last part may be the plus itself."""
    parts = re.fullmatch(r"((?:[A-Za-z]+\+)*)(.+)", text.strip())
    known = {key.casefold(): key for key in (*NAMED, *TOOLKIT_KEYS)}
    held = {part.capitalize() for part in parts[1].split("+")[:-1]} if parts else set()
    key = known.get(parts[2].casefold(), parts[2].upper()) if parts else ""
    plain = len(key) == 1 and key.isprintable() and not key.isspace() and key.isascii() | key.isalpha()
    if not (plain or key in known.values()) or not held <= set(MODIFIERS):
        raise UsageError(f"{text.strip()!r} names no keys; write them as Ctrl+Shift+M, or nothing for none")
    return "+".join((*(name for name in MODIFIERS if name in held), key))


def shortcut(name: str) -> Shortcut:
    """The shortcut of that name, with or without PREFIX; raises UsageError for one that there is not."""
    key = name.strip().removeprefix(PREFIX).replace("-", "_")
    if key in SHORTCUTS:
        return SHORTCUTS[key]
    near = difflib.get_close_matches(key, SHORTCUTS, 1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "see: sottovoce settings list"
    raise UsageError(f"there is no shortcut {key!r}; {hint}")


def in_force(changes: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The keys of every shortcut, with these changes. Raises UsageError for keys that cannot be read."""
    return {name: parsed(changes[name]) if name in changes else known.keys for name, known in SHORTCUTS.items()}


def checked(name: str, text: str, changes: Mapping[str, str]) -> str:
    """The keys as they are kept, for a shortcut beside these changes; raises UsageError where they are not free."""
    known, keys = SHORTCUTS[name], _free_of_toolkit(name, text)
    for other, taken in in_force(changes).items():
        both = set(taken) & set(keys) if other != name and SHORTCUTS[other].place == known.place else ()
        for twice in both:
            raise UsageError(f"{twice} is taken by {SHORTCUTS[other].label}; choose other keys, or change those first")
    return APART.join(keys)


def _free_of_toolkit(name: str, text: str) -> tuple[str, ...]:
    keys = parsed(text)
    for key in keys:
        last = next((part for part in TOOLKIT_KEYS if key == part or key.endswith(f"+{part}")), None)
        if (last or key in TOOLKIT) and key not in SHORTCUTS[name].keys:
            raise UsageError(f"{key} always does the same in text and between controls; choose other keys")
    return keys


def changed(changes: Mapping[str, str], name: str, text: str) -> dict[str, str]:
    """The changes with this one, which is none where it is as it came. Raises UsageError."""
    kept = checked(name, text, changes)
    others = {other: keys for other, keys in changes.items() if other != name}
    return others if parsed(kept) == SHORTCUTS[name].keys else others | {name: kept}


def understood(rows: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """What a file changes, and the names that are wrong: unknown, unreadable, not free, or taken by another."""
    changes: dict[str, str] = {}
    wrong = []
    for name, text in rows.items():
        try:
            if name not in SHORTCUTS or not isinstance(text, str):
                raise UsageError(f"there is no shortcut {name!r}")
            keys = _free_of_toolkit(name, text)
        except UsageError:
            wrong.append(name)
        else:
            if keys != SHORTCUTS[name].keys:
                changes[name] = APART.join(keys)
    while (name := next(_twice(changes), "")) != "":  # back as it came; that may be in the way of another
        del changes[name]
        wrong.append(name)
    return changes, wrong


def _twice(changes: Mapping[str, str]) -> Iterator[str]:
    """Changed shortcuts whose keys another one has, too: of two that are changed, the later one in the table."""
    now = in_force(changes)
    for first, second in itertools.combinations(SHORTCUTS.values(), 2):
        if first.place == second.place and set(now[first.name]) & set(now[second.name]):
            yield second.name if second.name in changes else first.name
