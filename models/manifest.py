"""Read and write assets/manifest.toml: one [[artefact]] table per file that ships.

Every maker of an asset (export, scenes, demo) records its own rows here; rows of others are kept as they are.

    update_row(name="demo", file="demo.ogg", kind="demo", license="CC-BY-SA-3.0", command="python -m models.demo")

Fields: name, file, kind, sha256 (computed here), license, ancestors, data, command; for models also sample_rate_hz,
hop_samples and output_lag_samples; for scenes also title. Any further field is written as given.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parent.parent / "assets"
MANIFEST = ASSETS / "manifest.toml"
KINDS = ("model", "scene", "demo", "icon", "picture", "log")
FIRST_FIELDS = ("name", "file", "kind", "title", "sha256", "license", "ancestors", "data", "command")
HEADER = "# What ships in this folder: where it comes from and under which licence. Written by models/manifest.py.\n"

Row = dict[str, Any]


def load(path: Path = MANIFEST) -> list[Row]:
    """All rows, in file order; an absent file holds none."""
    if not path.exists():
        return []
    rows: list[Row] = tomllib.loads(path.read_text(encoding="utf8")).get("artefact", [])
    return rows


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def update_row(*, name: str, file: str, kind: str, license: str, manifest: Path = MANIFEST, **fields: Any) -> Row:
    """Add or replace the row of one file, which must lie beside the manifest; returns the row as written.

    Rows are found by their name. Raises ValueError for an unknown kind and for a name that a row of another kind has,
    FileNotFoundError where there is no such file.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; not {kind!r}")
    digest = sha256_of(manifest.parent / file)
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    given: Row = {"name": name, "file": file, "kind": kind, "license": license, **fields, "sha256": digest}
    row = {key: given[key] for key in FIRST_FIELDS if key in given}
    row |= {key: value for key, value in given.items() if key not in row}
    with _locked(manifest):
        rows = load(manifest)
        same = [i for i, old in enumerate(rows) if old.get("name") == name]
        if same and rows[same[0]].get("kind") != kind:
            raise ValueError(f"{name!r} is a {rows[same[0]].get('kind')} already; a {kind} wants a name of its own")
        if same:
            rows[same[0]] = row
        else:
            rows.append(row)
        _write(manifest, rows)
    return row


@contextmanager
def _locked(manifest: Path) -> Iterator[None]:
    # Makers may run side by side; the lock lies on the folder, so that nothing is left behind in it.
    handle = os.open(manifest.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, rows: list[Row]) -> None:
    text = HEADER + "".join("\n[[artefact]]\n" + _table(row) for row in rows)
    assert tomllib.loads(text).get("artefact", []) == rows, "the manifest does not read back as written"
    beside = path.with_suffix(".toml.part")
    beside.write_text(text, encoding="utf8")
    beside.replace(path)


def _table(row: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in row.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        if len(value) > 1 and all(isinstance(item, str) for item in value):
            return "[\n" + "".join(f"  {_value(item)},\n" for item in value) + "]"
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_string(str(key))} = {_value(item)}" for key, item in value.items()) + " }"
    raise TypeError(f"the manifest cannot hold {type(value).__name__}")


def _string(text: str) -> str:
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    if any(ord(char) < 32 for char in out):
        raise ValueError("control characters have no place in the manifest")
    return f'"{out}"'
