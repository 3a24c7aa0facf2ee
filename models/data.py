"""Fetch and make the sound that the models are trained on.

    python -m models.data              everything: fetch, unpack, convert, write shards; done parts are kept
    python -m models.data --minimal    the smallest set that training can start from (about 5 hours of speech)
    python -m models.data --list       what there is, and what has been made
    python -m models.data --verify     check every shard and every download against its hash

The shards lie in the cache folder (SOTTOVOCE_CACHE moves it) below data/. Ctrl-C is safe: run it again to go on.
Training reads them through load(split, kind).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine.paths import cache_dir
from engine.types import SottovoceError, UsageError
from models.denylist import denylist
from models.fetch import fetch, sha256_of, unpack
from models.readers import read
from models.shards import Clip, Tally, is_done, load, make, manifests, shard_folder
from models.sources import SOURCES, Item, Package, Source, by_name, packages

__all__ = ["Clip", "load", "main"]


def download_folder() -> Path:
    """Where fetched packages are kept; made when asked for the first time."""
    folder = cache_dir() / "data" / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def hashes_had(folder: Path, besides: str) -> set[str]:
    """The hashes of every sound file that already lies in a shard of a source other than `besides`."""
    tables = (json.loads(manifest.read_text(encoding="utf-8")) for manifest in manifests(folder))
    return {row["source_sha256"] for table in tables if table["source"] != besides for row in table["clips"]}


def build(source: Source, bar: Progress) -> Tally:
    """Fetch, unpack and convert one source; what is unpacked is removed again, the download is kept."""
    folder = shard_folder()
    (folder / f"done-{source.name}.json").unlink(missing_ok=True)
    unpacked = cache_dir() / "data" / "unpacked" / source.name
    unpacked.mkdir(parents=True, exist_ok=True)
    trees: dict[str, Path] = {}
    try:
        for package in (source.package, *source.companions):
            archive = _fetch_shown(package, bar)
            if source.reader != "neural":  # voices unpack their tools themselves, once for all
                trees[package.name] = unpack(package, archive, unpacked)
        items: Iterable[Item] = read(source.reader, source.package.name, trees, source.options)
        total = source.options.get("count")  # of sentences; voices make them one by one
        if not isinstance(total, int):
            items = found = list(items)
            total = len(found)
        task = bar.add_task(f"{source.name}: making", total=total)
        tally = make(source, items, denylist(), hashes_had(folder, source.name), folder, lambda: bar.advance(task))
        bar.remove_task(task)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return tally


def _fetch_shown(package: Package, bar: Progress) -> Path:
    task = bar.add_task(f"{package.name}: fetching", total=package.size_bytes)
    try:
        return fetch(package, download_folder(), "train", lambda done: bar.update(task, completed=done))
    finally:
        bar.remove_task(task)


def build_all(sources: tuple[Source, ...], console: Console) -> int:
    """Make what is not there yet; a source that fails is told and the others go on. Returns the exit status."""
    failed = 0
    columns = (
        TextColumn("{task.description:44}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        for source in sources:
            if is_done(source, denylist(), shard_folder()):
                continue
            try:
                tally = build(source, bar)
            except SottovoceError as problem:
                console.print(f"{source.name}: {problem}", style="red", highlight=False)
                failed += 1
                continue
            console.print(
                f"{source.name}: {tally.kept} clips, {tally.denied} denied, {tally.unusable} unusable, "
                f"{tally.repeated} had already",
                highlight=False,
            )
    return 1 if failed else 0


def verify(console: Console) -> int:
    """Check downloads and shards against their hashes, and name what is wrong. Returns the exit status."""
    wrong = 0
    for package in packages(SOURCES):
        for file in download_folder().glob(f"{package.name}_*"):
            if sha256_of(file) != package.sha256:
                wrong += 1
                console.print(f"{file.name} is damaged: delete it and run python -m models.data", highlight=False)
    checked = manifests(shard_folder())
    for manifest in checked:
        table = json.loads(manifest.read_text(encoding="utf-8"))
        sound = manifest.with_suffix(".npy")
        if not sound.is_file() or sha256_of(sound) != table["sha256"]:
            wrong += 1
            mark = f"done-{table['source']}.json"
            (shard_folder() / mark).unlink(missing_ok=True)
            console.print(f"{sound.name} is damaged: run python -m models.data to make it again", highlight=False)
    console.print(f"{len(checked)} shards checked, {wrong} wrong", highlight=False)
    return 1 if wrong else 0


def show(console: Console) -> None:
    """What there is: one line per source, then minutes per split, kind and class or speaker count."""
    table = Table("source", "licence", "minimal", "made")
    for source in SOURCES:
        made = "yes" if is_done(source, denylist(), shard_folder()) else "no"
        table.add_row(source.name, source.package.licence, "yes" if source.minimal else "", made)
    console.print(table)
    sums = Table("split", "kind", "class", "clips", "speakers", "minutes")
    for (split, kind, name), (clips, speakers, minutes) in sorted(totals().items()):
        sums.add_row(split, kind, name, str(clips), str(speakers), f"{minutes:.1f}")
    console.print(sums)


def totals(folder: Path | None = None) -> dict[tuple[str, str, str], tuple[int, int, float]]:
    """(split, kind, class) -> (clips, speakers, minutes) of what has been made; speech has an empty class."""
    clips: Counter[tuple[str, str, str]] = Counter()
    minutes: Counter[tuple[str, str, str]] = Counter()
    who: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for manifest in manifests(folder or shard_folder()):
        table = json.loads(manifest.read_text(encoding="utf-8"))
        for row in table["clips"]:
            key = (table["split"], table["kind"], row["class_name"])
            clips[key] += 1
            minutes[key] += row["length"] / 16000 / 60
            who[key].add(row["speaker"])
    return {key: (clips[key], len(who[key] - {""}), minutes[key]) for key in clips}


def chosen(only: list[str], minimal: bool) -> tuple[Source, ...]:
    """The sources that were asked for, in the table's order; raises UsageError for a name that is not there."""
    unknown = [name for name in only if by_name(name) is None]
    if unknown:
        raise UsageError(f"no source is called {unknown[0]}; python -m models.data --list shows the names")
    return tuple(s for s in SOURCES if (not only or s.name in only) and (not minimal or s.minimal))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.data", description="Fetch and make the training sound.")
    parser.add_argument("--minimal", action="store_true", help="only the smallest set that training can start from")
    parser.add_argument("--only", nargs="+", default=[], metavar="SOURCE", help="only these sources")
    parser.add_argument("--list", action="store_true", help="show the sources and what has been made")
    parser.add_argument("--verify", action="store_true", help="check downloads and shards against their hashes")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        if options.list:
            show(console)
            return 0
        if options.verify:
            return verify(console)
        return build_all(chosen(options.only, options.minimal), console)
    except UsageError as problem:
        print(problem, file=sys.stderr)
        return 2
    except SottovoceError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
