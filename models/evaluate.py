"""Measure our artefacts, as people get them, beside the peers, on the same mixtures in one run.

    python -m models.evaluate --out DIR                  everything, on the public test: all three parts
    python -m models.evaluate --out DIR --fast           40 of the mixtures, spread over SNRs and noises
    python -m models.evaluate --out DIR --split validation --peers noisy,dtln
    python -m models.evaluate --out DIR --assets OTHER   artefacts from another folder
    python -m models.evaluate --out DIR --wer            with Whisper base's word errors (slow)
    python -m models.evaluate --out DIR --parts babble   one part of the test, beside another run elsewhere, say
    python -m models.evaluate recognizer --out DIR       the recogniser alone (models/evaluate_words.py)

DIR then holds scores.csv (a row per file and system), tables.md, readme.md (the tables of the README), summary.json and
scores.png. Ctrl-C keeps what was measured; the same command goes on from DIR/scores.csv. A row is measured again only
when the sound, the artefacts or the delay changed. What peers got is kept in the cache too, so that another DIR need
not measure them again.

Every system is aligned by one delay of its own: the median over some files of the lag of its output behind the clean
speech, to a fraction of a sample. Real-time factors are CPU time over audio time on one thread, from those same files,
measured anew in every run; compare them within one run only.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from engine.paths import cache_dir
from engine.types import Samples, SottovoceError, UsageError
from models import evaluate_words, metrics, tables
from models.code_counts import CodeCounts
from models.peers import PEERS
from models.readme_tables import readme
from models.systems import Ours, Output, Sound, System, clean_system, our_systems, peer_system
from models.testset import Mixture, Part, build

VERSION = 1  # of the figures: rows of another version are measured again
CALIBRATION_FILES = 8
FAST_FILES = 40
PARTS: dict[str, tuple[Part, ...]] = {"public": ("mixtures", "room", "babble"), "validation": ("validation",)}
ABOUT = ("file", "part", "snr_db", "noise_class", "system", "key")
COLUMNS = (*ABOUT, *tables.FIGURES, *tables.PROBES, "wer_errors", "wer_words")
WITHOUT_OPINIONS = ("keep-", "speech-", "clean-in")  # rows that need no DNSMOS
console = Console(stderr=True)


@dataclass(frozen=True)
class Item:
    """A mixture and the part of the test it belongs to."""

    part: str
    mixture: Mixture


@dataclass(frozen=True)
class Timing:
    """What calibration found of a system: its delay in samples and its real-time factor on one thread."""

    delay: float
    rtf: float


# Rows that were measured ----------------------------------------------------------------------------------------------


class Ledger:
    """Rows by key, read from CSV files and appended to them as they are measured; the last row of a key counts."""

    def __init__(self, path: Path, shared: Path, peers: Sequence[str]) -> None:
        self._path, self._shared, self._peers = path, shared, set(peers)
        self.rows = _read(shared)
        self._own = _read(path)
        self.rows |= self._own

    def add(self, row: tables.Row) -> None:
        """Remember a row and write it down at once."""
        self.rows[row["key"]] = row
        for file in (self._path, self._shared) if row["system"] in self._peers else (self._path,):
            _append(file, row)

    def rewrite(self, rows: Iterable[tables.Row], parts: Sequence[str]) -> None:
        """Leave only these rows in the run's own file, each once, and what it held of other parts."""
        beside = self._path.with_suffix(".part")
        beside.unlink(missing_ok=True)
        for row in (*rows, *(row for row in self._own.values() if row["part"] not in parts)):
            _append(beside, row)
        if beside.exists():
            beside.replace(self._path)


def _read(file: Path) -> dict[str, tables.Row]:
    with suppress(FileNotFoundError), file.open(newline="", encoding="utf-8") as stream:
        # a run that was killed may have left half a line
        return {row["key"]: dict(row) for row in csv.DictReader(stream) if row.get("key") and None not in row.values()}
    return {}


def _append(file: Path, row: tables.Row) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)


# Measuring ------------------------------------------------------------------------------------------------------------


def calibrate(systems: Sequence[System], items: Sequence[Item], others: Callable[[Item], Sound]) -> dict[str, Timing]:
    """Delay and speed of every row, from mixtures of 0 dB and better where there are such.

    Modes of one set of artefacts that declare the same latency share what the first of them showed.
    """
    clear = [item for item in items if item.mixture.snr_db >= 0.0] or list(items)
    chosen = clear[:: max(1, len(clear) // CALIBRATION_FILES)][:CALIBRATION_FILES]
    known: dict[tuple[str, float], Timing] = {}
    for system in systems:
        if (kind := (system.identity, system.latency_ms)) not in known:
            known[kind] = _timing(system, chosen, others)
    return {row: known[system.identity, system.latency_ms] for system in systems for row in system.rows}


def _timing(system: System, chosen: Sequence[Item], others: Callable[[Item], Sound]) -> Timing:
    delays, factors = [], []
    for item in chosen:
        first = system.run(others(item))[0]
        if first.sound is not None:
            delays.append(metrics.find_delay(first.sound, item.mixture.speech))
            factors.append(first.cpu_s / (len(first.sound) / metrics.RATE_HZ))
    return Timing(metrics.fixed_delay(delays), float(np.median(factors)))


def key_of(item: Item, row: str, system: System, delay: float) -> str:
    """Changes with anything that could change the row's figures."""
    digest = hashlib.sha256(f"{VERSION} {row} {system.identity} {delay:.2f} {item.part} {item.mixture.name} ".encode())
    digest.update(np.rint(item.mixture.mixture * 32767).astype("<i2").tobytes())
    return digest.hexdigest()[:20]


def score(output: Output, item: Item, delay: float) -> dict[str, float]:
    """The figures of one output after alignment."""
    figures = dict(output.figures)
    truth, length = item.mixture, len(item.mixture.mixture)
    if output.background is not None:
        figures["background_si_sdr_db"] = metrics.si_sdr(metrics.advance(output.background, delay, length), truth.noise)
    if output.sound is None:
        return figures
    sound = metrics.advance(output.sound, delay, length)
    figures["pesq_wb"], figures["estoi"] = metrics.pesq_wb(sound, truth.speech), metrics.estoi(sound, truth.speech)
    if output.row.startswith("keep-"):
        return {**figures, "whole_si_sdr_db": metrics.si_sdr(sound, truth.mixture)}
    if output.row != "clean":
        figures["si_sdr_db"] = metrics.si_sdr(sound, truth.speech)
        if not output.row.startswith(WITHOUT_OPINIONS):
            figures["si_sdri_db"] = figures["si_sdr_db"] - metrics.si_sdr(truth.mixture, truth.speech)
    if not output.row.startswith(WITHOUT_OPINIONS):
        opinion = metrics.dnsmos(sound)
        figures |= {"sig": opinion.sig, "bak": opinion.bak, "ovrl": opinion.ovrl}
    return figures


def measure(
    system: System, item: Item, sound: Sound, delay: float, ledger: Ledger, listen: metrics.Listen | None
) -> None:
    """Run one system on one mixture and write down the rows that are not there yet."""
    keys = {row: key_of(item, row, system, delay) for row in system.rows}
    text = item.mixture.transcript if listen else ""
    heard = {row for row in system.rows if text and system.captioned and row != "probes"}
    heard = {row for row in heard if not row.startswith(WITHOUT_OPINIONS)}
    missing = [
        r for r in keys if keys[r] not in ledger.rows or (r in heard and not ledger.rows[keys[r]].get("wer_words"))
    ]
    if not missing:
        return
    for output in system.run(sound):
        if output.row not in missing:
            continue
        row = ledger.rows.get(keys[output.row]) or {
            "file": item.mixture.name,
            "part": item.part,
            "snr_db": item.mixture.snr_db,
            "noise_class": item.mixture.noise_class,
            "system": output.row,
            "key": keys[output.row],
            **{name: round(value, 5) for name, value in score(output, item, delay).items() if np.isfinite(value)},
        }
        if listen and output.row in heard and output.sound is not None:
            words = metrics.word_errors(listen(metrics.advance(output.sound, delay, len(sound.mixture))), text)
            row = {**row, "wer_errors": words.errors, "wer_words": words.words}
        ledger.add(row)


def whisper_listener() -> metrics.Listen:
    """Whisper base on 30 s windows, greedy, for every system. Raises ArtefactError without weights."""
    import torch
    import whisper

    from engine.weights import require_weights
    from engine.whisper_decoder import load_model

    weights = require_weights("base")
    model = load_model(weights.path, weights.format, weights.name)

    def listen(samples: Samples, language: str = "en") -> str:
        options = whisper.DecodingOptions(language=language, temperature=0.0, without_timestamps=True, fp16=False)
        with torch.inference_mode():
            mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(torch.from_numpy(samples)), model.dims.n_mels)
            return str(whisper.decode(model, mel, options).text)

    return listen


# The run --------------------------------------------------------------------------------------------------------------


def spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """The items in an order where every SNR and noise comes round in its share, so that a beginning stands for all."""
    groups: dict[tuple[str, float, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.part, item.mixture.snr_db, item.mixture.noise_class), []).append(item)
    order = np.random.default_rng(7).permutation(len(groups))
    shuffled = [list(groups.values())[index] for index in order]
    places = [((turn + 0.5) / len(group), item) for group in shuffled for turn, item in enumerate(group)]
    return [item for _, item in sorted(places, key=lambda place: place[0])][:count]


def with_other(items: Sequence[Item]) -> Callable[[Item], Sound]:
    """What the systems are given: a mixture, and another of its part, repeated or cut to its length.

    The other one is half the part's list away, so give all items of a part: what is left out would change it.
    """
    parts: dict[str, list[str]] = {}
    known: dict[tuple[str, str], Mixture] = {}
    for item in items:
        parts.setdefault(item.part, []).append(item.mixture.name)
        known[item.part, item.mixture.name] = item.mixture

    def sound(item: Item) -> Sound:
        names = parts[item.part]
        other = known[item.part, names[(names.index(item.mixture.name) + len(names) // 2) % len(names)]]
        own, length = item.mixture, len(item.mixture.mixture)
        cut = (np.resize(part, length).astype(np.float32) for part in (other.mixture, other.noise))
        return Sound(own.mixture, own.speech, own.noise, *cut)

    return sound


def chosen_systems(names: Sequence[str], ours: Ours | None, counts: CodeCounts | None) -> list[System]:
    """The clean reference, the peers that can be had here, and ours; a peer that cannot be had is told and left out."""
    systems = [clean_system()]
    for name in names:
        try:
            systems.append(peer_system(name))
        except (SottovoceError, OSError) as problem:
            console.print(f"{name} is left out: {problem}", style="yellow", highlight=False)
    if ours is not None and counts is not None:
        systems += our_systems(ours, counts.count)
    return systems


def run(args: argparse.Namespace) -> int:
    """Measure what is missing, then write every table from all rows; returns the exit status."""
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    ours = None if args.no_ours else Ours(args.assets)
    counts = CodeCounts(out / "codes.npz", ours) if ours else None
    systems = chosen_systems(args.peers, ours, counts)
    listen = whisper_listener() if args.wer else None
    parts = [part for part in args.parts or PARTS[args.split] if not args.fast or part in ("mixtures", "validation")]
    everything = [Item(part, mixture) for part in PARTS[args.split] for mixture in build(part)]
    items = spread([item for item in everything if item.part in parts], FAST_FILES if args.fast else args.limit)
    if not items:
        raise UsageError("there is nothing to measure; give --limit 1 or more")
    ledger = Ledger(out / "scores.csv", cache_dir() / "evaluation" / "peers.csv", ["clean", *PEERS])
    others = with_other(everything)
    console.print("finding every system's delay and speed", highlight=False)
    timings = calibrate(systems, spread(everything, None), others)
    stopped = not _measure_all(systems, items, others, timings, ledger, counts, listen)
    rows = list(_rows_of(systems, items, timings, ledger))
    ledger.rewrite(rows, parts)
    write(out, rows, systems, timings, ours, counts)
    if stopped:
        console.print(f"stopped; {out} holds what was measured, the same command goes on", highlight=False)
    return 130 if stopped else 0


def _measure_all(
    systems: Sequence[System],
    items: Sequence[Item],
    others: Callable[[Item], Sound],
    timings: dict[str, Timing],
    ledger: Ledger,
    counts: CodeCounts | None,
    listen: metrics.Listen | None,
) -> bool:
    """All systems on one mixture, then the next; False when Ctrl-C ended it."""
    try:
        with Progress(console=console) as progress:
            for item in progress.track(items, description="measuring"):
                if counts:
                    counts.current = f"{item.part}/{item.mixture.name}"
                for system in _of(systems, item):
                    measure(system, item, others(item), timings[system.rows[0]].delay, ledger, listen)
    except KeyboardInterrupt:
        return False
    finally:
        if counts:
            counts.save()
    return True


def _of(systems: Sequence[System], item: Item) -> Iterator[System]:
    return (system for system in systems if not system.main_only or item.part in ("mixtures", "validation"))


def _rows_of(
    systems: Sequence[System], items: Sequence[Item], timings: dict[str, Timing], ledger: Ledger
) -> Iterator[tables.Row]:
    for item in items:
        for system in _of(systems, item):
            for row in system.rows:
                key = key_of(item, row, system, timings[row].delay)
                if key in ledger.rows:
                    yield ledger.rows[key]


def write(
    out: Path,
    rows: Sequence[tables.Row],
    systems: Sequence[System],
    timings: dict[str, Timing],
    ours: Ours | None,
    counts: CodeCounts | None,
) -> None:
    """tables.md, readme.md, summary.json and scores.png from the rows; the first goes to standard output, too."""
    summary = {
        "machine": {"processor": _processor(), "python": platform.python_version(), "threads": 1},
        "artefacts": _artefacts(ours),
        "systems": {row: _about(system, row, timings[row], ours) for system in systems for row in system.rows},
        "parts": tables.summarise(rows, [row for system in systems for row in system.rows]),
        "codes": counts.summary() if counts and counts.names else {},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    text = tables.markdown(summary)
    (out / "tables.md").write_text(text, encoding="utf-8")
    (out / "readme.md").write_text(readme(summary), encoding="utf-8")
    if rows:
        tables.picture(summary, out / "scores.png")
    Console(width=None if sys.stdout.isatty() else 200).print(Markdown(text))


def _about(system: System, row: str, timing: Timing, ours: Ours | None) -> dict[str, Any]:
    about = {"latency_ms": system.latency_ms, "delay": round(timing.delay, 2), "rtf": round(timing.rtf, 3)}
    about["parameters"] = system.parameters
    kind, _, depth = row.partition("-")
    if ours and depth.isdigit() and kind in ("tokens", "speech", "keep"):
        about["kbps"] = ours.kbps(int(depth))
    return about


def _artefacts(ours: Ours | None) -> dict[str, Any]:
    if ours is None:
        return {}
    info = ours.info
    lags = {"lag_refined": info.lag_refined, "lag_tokens": info.lag_tokens}
    return {"identity": ours.identity, "latency_ms": info.algorithmic_latency_ms(), **lags, "stages": info.stages}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def _parts(text: str) -> tuple[Part, ...]:
    chosen = tuple(part for part in PARTS["public"] if part in text.split(","))
    if len(chosen) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(PARTS['public'])}")
    return chosen


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description="Measure our artefacts and peers.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows, the tables and the picture")
    parser.add_argument("--split", choices=sorted(PARTS), default="public")
    parser.add_argument("--parts", type=_parts, help="only these of the public test's: mixtures,room,babble")
    parser.add_argument("--limit", type=int, help="only so many mixtures, spread over SNRs and noises")
    parser.add_argument("--fast", action="store_true", help=f"{FAST_FILES} mixtures without rooms and babble twins")
    parser.add_argument("--peers", type=lambda text: [p for p in text.split(",") if p], default=list(PEERS))
    parser.add_argument("--assets", type=Path, help="folder of other artefacts, with their manifest.toml")
    parser.add_argument("--no-ours", action="store_true", help="peers only")
    parser.add_argument("--wer", action="store_true", help="word errors of Whisper base, too")
    args = parser.parse_args(arguments)
    unknown = set(args.peers) - set(PEERS)
    if args.parts and (args.fast or args.split != "public"):
        parser.error("--parts chooses from the whole public test; leave --fast and --split out")
    if unknown:
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["recognizer"]:
        return evaluate_words.main(given[1:])
    args = parse(given)
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background of a shell the former is ignored otherwise
        signal.signal(number, signal.default_int_handler)
    try:
        return run(args)
    except SottovoceError as problem:
        print(problem, file=sys.stderr)
        return 2 if isinstance(problem, UsageError) else 1
    except KeyboardInterrupt:
        print("stopped before anything was measured", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
