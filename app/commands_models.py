"""`sottovoce models`: the shipped networks and Whisper's weights. Only `get` opens a network connection."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app import console
from engine.types import ArtefactError, UsageError

UNVERIFIED = " (its sha256 is in no list; its structure was checked)"


def models(action: str, what: str | None, as_json: bool) -> int:
    """Raises UsageError, ArtefactError."""
    if action == "get":
        return _get(what, as_json)
    if action == "import":
        return _import(what, as_json)
    if what is not None:
        raise UsageError(f"models {action} takes no name; leave {what!r} out")
    return _verify(as_json) if action == "verify" else _list(as_json)


def shipped() -> list[dict[str, Any]]:
    """A row for each file of the manifest: name, kind, file, sha256, licence, and whether it is there and undamaged."""
    from engine.artefacts import checked_file, read_manifest
    from engine.paths import assets_dir

    rows: list[dict[str, Any]] = []
    for row in read_manifest(assets_dir()):
        problem = ""
        try:
            checked_file(assets_dir(), row["name"])
        except ArtefactError as error:
            problem = console.one_line(error)
        rows.append(
            {key: row.get(key, "") for key in ("name", "kind", "file", "sha256", "license")} | {"problem": problem}
        )
    return rows


def whisper() -> list[dict[str, Any]]:
    """A row for each Whisper model that can be had: name, whether it is here, and from where."""
    from engine.weights import known_weights, places

    rows = []
    for name, found in known_weights():
        row: dict[str, Any] = {"name": name, "here": found is not None, "problem": ""}
        if found is not None:
            row |= {"path": str(found.path), "sha256": found.sha256, "source": found.source}
            row["verified"] = found.verified
        elif damaged := [path for path in places(name) if path.exists()]:
            row["problem"] = f"{damaged[0]} is damaged or unfinished; remove it and run sottovoce models get {name}"
        rows.append(row)
    return rows


def _list(as_json: bool) -> int:
    networks, weights = shipped(), whisper()
    if as_json:
        console.print_json({"shipped": networks, "whisper": weights})
        return console.DONE
    print("shipped with the program")
    for row in networks:
        print(f"  {row['name']:<16} {row['kind']:<8} {row['sha256'][:12]}  {row['problem'] or row['license']}")
    print("Whisper, for captions (sottovoce models get NAME)")
    for row in weights:
        here = "here" if row["here"] else "DAMAGED" if row["problem"] else "-"
        print(f"  {row['name']:<16} {here:<8} {row.get('sha256', '')[:12]}  {_source(row)}".rstrip())
    return console.DONE


def _source(row: dict[str, Any]) -> str:
    """Where weights are from, and a word about those that no list knows."""
    return f"{row.get('source', '')}{'' if row.get('verified', True) else UNVERIFIED}"


def _verify(as_json: bool) -> int:
    networks = shipped()
    weights = [row for row in whisper() if row["here"] or row["problem"]]
    bad = [row for row in networks + weights if row["problem"]]
    if as_json:
        console.print_json({"ok": not bad, "shipped": networks, "whisper": weights})
    else:
        for row in networks:
            print(f"{'DAMAGED' if row['problem'] else 'ok':<8} {row['file']}")
        for row in weights:
            unknown = "" if row.get("verified", True) else UNVERIFIED
            print(f"{'DAMAGED' if row['problem'] else 'ok':<8} {row.get('path', row['name'])}{unknown}")
        if not weights:
            console.warn("no Whisper weights are here, captions need them; run sottovoce models get base")
    for row in bad:
        console.say(row["problem"])
    return console.FAILED if bad else console.DONE


def _get(name: str | None, as_json: bool) -> int:
    from engine.weights import DEFAULT_NAME, get_weights

    name = name or DEFAULT_NAME
    with console.progress(f"Whisper {name}") as advance:

        def report(what: str, done: int, total: int) -> None:
            if total:
                advance(done / total, what)
            else:
                console.say(what)

        found = get_weights(name, report)
    return _tell(asdict(found), as_json)


def _import(file: str | None, as_json: bool) -> int:
    from engine.weights import import_weights

    if file is None:
        raise UsageError("models import needs a file; write sottovoce models import FILE")
    return _tell(asdict(import_weights(file)), as_json)


def _tell(weights: dict[str, Any], as_json: bool) -> int:
    if as_json:
        console.print_json(weights)
    else:
        print(f"Whisper {weights['name']}: {weights['path']} ({_source(weights)}, sha256 {weights['sha256'][:16]})")
    return console.DONE
