"""What models there are, as the window shows them, and what can be done with them. All of it may block.

The engine is loaded when it is first asked, on the thread that asks: the window begins without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from engine.sizes import SIZES, Size
from engine.types import ArtefactError, Provider

Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all (0: not known)


class Presence(StrEnum):
    """What there is of a size of Whisper on this machine."""

    HERE = "here"
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"
    ABSENT = "absent"


@dataclass(frozen=True)
class NetworkRow:
    """A sound network that ships with the program. problem: a sentence, empty when its sha256 is the manifest's."""

    name: str
    file: str
    size_bytes: int
    sha256: str
    license: str
    ancestors: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class SizeRow:
    """A size of Whisper, and what is here of it. done_bytes: on the disk, or so far of an unfinished download."""

    size: Size
    presence: Presence
    done_bytes: int = 0
    path: str = ""
    sha256: str = ""
    source: str = ""
    verified: bool = True


@dataclass(frozen=True)
class Inventory:
    """Everything there is. provider, why: where the sound networks run and for which reason; empty where they fail."""

    networks: tuple[NetworkRow, ...]
    sizes: tuple[SizeRow, ...]
    codec_id: str = ""
    provider: str = ""
    why: str = ""

    def row(self, name: str) -> SizeRow | None:
        """The size of that name."""
        return next((row for row in self.sizes if row.size.name == name), None)


class Shelf(Protocol):
    """What the window needs of the models. Every method may block, and raises SottovoceError with one sentence."""

    def look(self, provider: Provider) -> Inventory: ...

    def get(self, name: str, progress: Progress, halt: threading.Event) -> None: ...

    def import_file(self, path: Path, halt: threading.Event) -> str: ...

    def discard(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...


class EngineShelf:
    """The models of this machine."""

    def look(self, provider: Provider) -> Inventory:
        """Everything, with every sha256 compared: seconds where large files are here."""
        from engine.weights import official_models

        offered = official_models()
        sizes = tuple(_size_row(size) for size in SIZES.values() if size.name in offered)
        networks = _networks()
        try:
            from engine.artefacts import shared_models

            models = shared_models(provider)
        except ArtefactError as error:
            return Inventory(networks, sizes, why=str(error))
        return Inventory(networks, sizes, models.info.codec_id, models.provider, models.why)

    def get(self, name: str, progress: Progress, halt: threading.Event) -> None:
        """Fetch a size and verify it."""
        from engine.weights import get_weights

        get_weights(name, progress, halt)

    def import_file(self, path: Path, halt: threading.Event) -> str:
        """Take a size from a file; its name."""
        from engine.weights import import_weights

        return import_weights(path, halt).name

    def discard(self, name: str) -> None:
        """Throw away what an unfinished download has left."""
        from engine.weights import discard_unfinished

        discard_unfinished(name)

    def remove(self, name: str) -> None:
        """Remove a size, and all that is left of one."""
        from engine.weights import remove_weights

        remove_weights(name)


def _size_row(size: Size) -> SizeRow:
    from engine.weights import find_weights, places, unfinished_bytes

    found = find_weights(size.name)
    if found is not None:
        done = found.path.stat().st_size
        return SizeRow(size, Presence.HERE, done, str(found.path), found.sha256, found.source, found.verified)
    if damaged := [path for path in places(size.name) if path.exists()]:
        return SizeRow(size, Presence.DAMAGED, path=str(damaged[0]))
    done = unfinished_bytes(size.name)
    return SizeRow(size, Presence.UNFINISHED if done else Presence.ABSENT, done)


def _networks() -> tuple[NetworkRow, ...]:
    from engine.artefacts import checked_file, read_manifest
    from engine.paths import assets_dir

    rows = []
    for table in read_manifest(assets_dir()):
        if table.get("kind") != "model":
            continue
        problem, name, path = "", str(table["name"]), assets_dir() / str(table.get("file", ""))
        try:
            checked_file(assets_dir(), name)
        except ArtefactError as error:
            problem = str(error)
        size = path.stat().st_size if path.is_file() else 0
        about = (str(table.get("sha256", "")), str(table.get("license", "")), tuple(table.get("ancestors", ())))
        rows.append(NetworkRow(name, str(path), size, *about, problem))
    return tuple(rows)
