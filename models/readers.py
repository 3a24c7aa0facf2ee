"""How each package is read: which files are sound, who speaks in them, what is said, and which class a noise is.

A reader gets the folder of each unpacked package and yields items; it decides nothing about bans, which are asked
for every item when shards are made (models/shards.py).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from models.sources import Item, Split

SOUND_SUFFIXES = {".ogg", ".wav", ".flac", ".mp3", ".opus", ".oga"}

Trees = dict[str, Path]  # package name -> folder it is unpacked in

# First match wins; the path inside the package, in lower case, is searched.
CLASS_RULES: tuple[tuple[str, str], ...] = tuple(
    (re.compile(pattern).pattern, name)
    for pattern, name in (
        (r"/(music|tunes)/", "music"),
        (
            r"windmill|sawmill|/mill|benchsaw|sawing|/saw|smith|anvil|weav|loom|industry|mine\d|substation|machine",
            "machine",
        ),
        (r"workshop|hammer|drill|recycle|stonecut|woodcut|mining|brickmak|furnace|bak(ery|er)", "machine"),
        (r"/hum\.|electro|vapour|pneumatic", "machine"),
        (r"wind(?!ow)|blizzard|snowstorm", "wind"),
        (r"rain(?!bow|forest)|thunder|storm", "rain"),
        (r"water|/sea|river|creek|ocean|/wave|harbor|lake|beach|stream|fountain|droplet", "water"),
        (r"[/_](fire|flames?|campfire)(_fire|_large|_small)?\d*\.|burning", "fire"),
        (r"engine|traffic|trafic|_cars|helicopter|motor|vehicle|dirttrack|skid|tyre", "traffic"),
        (
            r"crowd|croud|market|(?<!lin)city|commune|school|residential|shanty|amb_(port|trade)|applause|audience"
            r"|stadium|people",
            "crowd",
        ),
        (r"bird|forest|swamp|jungle|country|/day|night|sunny|desertday|owl|raven|cricket|frog|animals|farm", "nature"),
        (r"parkland|green\d|hawk|wolf|insect|cicada|cycada|amazon|meadow", "nature"),
    )
)


def read(reader: str, package: str, trees: Trees, options: dict[str, object]) -> Iterator[Item]:
    """Run one reader by name; `trees` holds the unpacked folder of the package and of its companions."""
    if reader == "neural":  # the voices import this module's neighbours, so they are reached for here
        from models.voices import read_neural

        yield from read_neural(package, trees, **options)  # type: ignore[arg-type]
        return
    yield from READERS[reader](package, trees, **options)


def sound_files(root: Path) -> list[Path]:
    """Every sound file under `root` that is a real file, in a fixed order."""
    return sorted(
        p for p in root.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES and p.is_file() and not p.is_symlink()
    )


def _inside(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


# --- speech ---------------------------------------------------------------------------------------------------


def festvox_ru(package: str, trees: Trees) -> Iterator[Item]:
    """One Russian reader; the plus sign of the transcripts marks stress and is dropped."""
    root = trees[package]
    prompts = next(root.rglob("txt.done.data")).read_text(encoding="utf-8")
    said = {m[1]: m[2].replace("+", "") for m in re.finditer(r'^\(\s*(\S+)\s+"(.*)"\s*\)', prompts, re.MULTILINE)}
    for file in sound_files(root):
        if file.stem in said:
            yield Item(file, _inside(root, file), "speech", f"{package}/nsh", "", said[file.stem], "train")


def fillets(
    package: str, trees: Trees, language: str, splits: dict[str, Split], other: Split | None = None
) -> Iterator[Item]:
    """Dialogues of the fish; the script's font is the speaker. Lines whose speaker is unknown are left out.

    `splits` gives the split of a font, `other` that of every further font (None: left out).
    """
    root = trees[package]
    script = trees["fillets-ng-data"]
    lines = _fillets_lines(script, language)
    for file in sound_files(root):
        font, text = lines.get((file.parent.parent.name, file.stem), ("", ""))
        split = splits.get(font, other)
        if font and font != "font_both" and split:
            yield Item(file, _inside(root, file), "speech", f"{package}/{font}", "", text, split)


def _fillets_lines(script: Path, language: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(level, file stem) -> (font, what is said)."""
    line = re.compile(r'dialogId\("([^"]+)",\s*"([^"]*)".*?\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)', re.DOTALL)
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for lua in sorted(script.rglob(f"dialogs_{language}.lua")):
        for match in line.finditer(lua.read_text(encoding="utf-8", errors="replace")):
            found[lua.parent.name, match[1]] = (match[2], match[3].replace('\\"', '"'))
    return found


def stamps(package: str, trees: Trees, languages: dict[str, Split]) -> Iterator[Item]:
    """Descriptions of Tux Paint's stamps, mostly one volunteer per language; clipped languages are not listed."""
    root = trees[package]
    for file in sound_files(root):
        name, _, language = file.stem.rpartition("_desc_")
        if name and language in languages:
            text = _stamp_text(file.with_name(f"{name}.txt"), language)
            yield Item(file, _inside(root, file), "speech", f"{package}/{language}", "", text, languages[language])


def _stamp_text(file: Path, language: str) -> str:
    if not file.is_file():
        return ""
    mark = f"{language}.utf8="
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.removeprefix(mark).strip() for line in lines if line.startswith(mark)), "")


def words(package: str, trees: Trees, pattern: str, skip: str = "", validation: tuple[str, ...] = ()) -> Iterator[Item]:
    """Short recordings whose speaker is a part of the path: the group `speaker` of `pattern`, searched in the path.

    Paths that match `skip` are left out; speakers named in `validation` go there, all others to training.
    """
    root = trees[package]
    for file in sound_files(root):
        path = _inside(root, file)
        match = re.search(pattern, path)
        if match and not (skip and re.search(skip, path)):
            who = match["speaker"]
            split: Split = "validation" if who in validation else "train"
            yield Item(file, path, "speech", f"{package}/{who}", "", "", split)


# --- background -----------------------------------------------------------------------------------------------


def background(
    package: str, trees: Trees, include: str = "", events: str = "", force: str = "", archive: str = ""
) -> Iterator[Item]:
    """Noises by file name (CLASS_RULES), among the paths that match `include`.

    Paths that match `events` and no rule become class "events" (short sounds); `force` names one class for all.
    `archive` is a zip file in the package to look into instead of the package itself.
    """
    root = trees[package]
    if archive:
        root = _unzip_some(root / archive, include)
    for file in sound_files(root):
        path = _inside(root, file)
        if re.search(include, path):
            name = force or class_of(path) or ("events" if events and re.search(events, path) else "")
            if name:
                yield Item(file, path, "background", "", name)


def hedgewars(package: str, trees: Trees, validation: tuple[str, ...]) -> Iterator[Item]:
    """Voice sets (one speaker each) and music from one package."""
    yield from words(package, trees, r"/Sounds/voices/(?P<speaker>[^/]+)/", validation=validation)
    yield from background(package, trees, include=r"/Music/")


def class_of(path: str) -> str:
    """The background class that a path tells, or an empty text."""
    low = "/" + path.lower()
    return next((name for pattern, name in CLASS_RULES if re.search(pattern, low)), "")


def _unzip_some(archive: Path, include: str) -> Path:
    """Unpack the members whose path matches, in a folder beside the archive."""
    into = archive.with_suffix(".unzipped")
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if re.search(include, name):
                packed.extract(name, into)
    return into


def unzip(archive: Path, into: Path) -> None:
    """Unpack a wheel or another zip file below `into`; names that lead out of it are refused by zipfile."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(into)


READERS: dict[str, Callable[..., Iterator[Item]]] = {
    "festvox_ru": festvox_ru,
    "fillets": fillets,
    "stamps": stamps,
    "words": words,
    "background": background,
    "hedgewars": hedgewars,
}
NAMED_BY_RULE = ("background", "hedgewars")  # readers of noises
