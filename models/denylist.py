"""The denylist: which packages, recordings and speakers may be fetched and trained on.

It is read from denylist.toml and asked at two places only: before a package is fetched, and for every clip
before it is written into a shard.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from engine.types import SottovoceError

DENYLIST_FILE = Path(__file__).with_name("denylist.toml")
_FIELDS = ("packages", "paths", "kinds", "speakers", "classes")

Use = Literal["test", "reserved"]


class DeniedError(SottovoceError):
    """A package was asked for that this use may not fetch."""


@dataclass(frozen=True)
class Entry:
    """One ban; an empty tuple means that the field is not asked."""

    use: Use
    why: str
    packages: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def matches(self, package: str, path: str, kind: str, speaker: str, class_name: str) -> bool:
        """True when every field that the entry names matches."""
        values = (package, "/" + path, kind, speaker, class_name)
        patterns = (self.packages, self.paths, self.kinds, self.speakers, self.classes)
        return all(not some or _any_match(some, value) for some, value in zip(patterns, values, strict=True))

    @property
    def whole_package(self) -> bool:
        """True when the ban covers everything in the packages it names."""
        return bool(self.packages) and not (self.paths or self.kinds or self.speakers or self.classes)


class Denylist:
    """All bans, and the hash of the file they were read from."""

    def __init__(self, path: Path = DENYLIST_FILE) -> None:
        raw = path.read_bytes()
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.entries = tuple(_entry(table) for table in tomllib.loads(raw.decode())["entry"])

    def clip(self, package: str, path: str, kind: str, speaker: str = "", class_name: str = "") -> Entry | None:
        """The first ban that keeps this clip out of training and validation, or None."""
        return next((e for e in self.entries if e.matches(package, path, kind, speaker, class_name)), None)

    def check_fetch(self, package: str, purpose: Literal["train", "test"]) -> None:
        """Raise DeniedError unless `package` may be fetched for `purpose`; reserved packages never may."""
        for entry in self.entries:
            if not entry.whole_package or not _any_match(entry.packages, package):
                continue
            if entry.use == "reserved":
                raise DeniedError(f"{package} is reserved ({entry.why}); take it out of the list of sources")
            if purpose == "train":
                raise DeniedError(f"{package} is held out ({entry.why}); only models.testset may fetch it")


@cache
def denylist() -> Denylist:
    """The project's own denylist, read once."""
    return Denylist()


def _any_match(patterns: tuple[str, ...], value: str) -> bool:
    low = value.lower()
    return bool(value) and any(fnmatchcase(low, pattern.lower()) for pattern in patterns)


def _entry(table: dict[str, Any]) -> Entry:
    unknown = set(table) - {"use", "why", *_FIELDS}
    if unknown or table.get("use") not in ("test", "reserved") or not any(f in table for f in _FIELDS):
        raise SottovoceError(f"denylist.toml has an entry that bans nothing or is misspelt: {table}; mend the entry")
    lists: dict[str, tuple[str, ...]] = {field: tuple(table.get(field, ())) for field in _FIELDS}
    return Entry(use=table["use"], why=str(table.get("why", "")), **lists)
