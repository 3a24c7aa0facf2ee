"""From rows of figures to what people read: tables, a machine-readable summary and a picture.

A row is one file under one system; every figure in a table is the mean over files with its 95 % bootstrap interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from models.metrics import WordErrors, bootstrap, word_error_rate

Row = dict[str, Any]
FIGURES = (
    "si_sdr_db",
    "si_sdri_db",
    "pesq_wb",
    "estoi",
    "sig",
    "bak",
    "ovrl",
    "background_si_sdr_db",
    "whole_si_sdr_db",
)
PROBES = ("foreign_si_sdr_db", "noise_left_db", "swap_speech_db", "swap_background_db", "swap_overall_db")
HEADINGS = {
    "si_sdr_db": "SI-SDR dB",
    "si_sdri_db": "SI-SDRi dB",
    "pesq_wb": "PESQ-WB",
    "estoi": "ESTOI",
    "sig": "SIG",
    "bak": "BAK",
    "ovrl": "OVRL",
    "background_si_sdr_db": "background SI-SDR dB",
    "whole_si_sdr_db": "SI-SDR to mixture dB",
    "wer_percent": "WER %",
}
DECIMALS = {"estoi": 3, "pesq_wb": 2, "sig": 2, "bak": 2, "ovrl": 2}
PART_TITLES = {
    "mixtures": "Public test, 200 mixtures",
    "room": "In a room",
    "babble": "Babble twins",
    "validation": "Validation",
}


def number(value: Any) -> float:
    """A figure out of a row, NaN where there is none."""
    return float(value) if value not in (None, "") else math.nan


def statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """{figure: [mean, low, high, files]} of some rows, and the word error rate over all their words, in percent."""
    found: dict[str, Any] = {}
    for figure in (*FIGURES, *PROBES):
        interval = bootstrap([number(row.get(figure)) for row in rows])
        if interval.count:
            found[figure] = [round(interval.mean, 4), round(interval.low, 4), round(interval.high, 4), interval.count]
    words = [(number(row.get("wer_errors")), number(row.get("wer_words"))) for row in rows]
    files = [WordErrors(int(errors), int(count)) for errors, count in words if math.isfinite(errors)]
    if sum(file.words for file in files):
        rate = word_error_rate(files)
        found["wer_percent"], found["wer_words"] = round(rate.percent, 2), rate.words
        found["wer_interval"] = [round(rate.low, 1), round(rate.high, 1)]
    return found


def summarise(rows: Sequence[Row], order: Sequence[str]) -> dict[str, Any]:
    """{part: {system: {"all": statistics, "by_snr": {...}, "by_class": {...}}}}, systems in `order`."""
    summary: dict[str, Any] = {}
    for part in dict.fromkeys(row["part"] for row in rows):
        summary[part] = {}
        for system in order:
            mine = [row for row in rows if row["part"] == part and row["system"] == system]
            if mine:
                summary[part][system] = {
                    "all": statistics(mine),
                    "by_snr": _split(mine, lambda row: f"{number(row['snr_db']):g}"),
                    "by_class": _split(mine, lambda row: str(row["noise_class"])),
                }
    return summary


def _split(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, Any]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: statistics(groups[name]) for name in sorted(groups, key=_natural)}


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


# Text -----------------------------------------------------------------------------------------------------------------


def markdown(summary: dict[str, Any]) -> str:
    """All tables as Markdown: the overall one of each part, one per figure over SNR and class, probes, codes."""
    parts: dict[str, Any] = summary["parts"]
    text = [f"# Evaluation\n\n{_provenance(summary)}\n"]
    for part, systems in parts.items():
        text.append(f"## {PART_TITLES.get(part, part)}\n")
        text.append(_overall(systems, summary["systems"]))
        for figure in (*FIGURES, "wer_percent"):
            if any(figure in found["all"] for found in systems.values()):
                text.append(f"### {HEADINGS[figure]} by SNR (dB) and noise\n\n{_by_group(systems, figure)}")
    text += [_probe_lines(parts), _code_lines(summary.get("codes", {}))]
    return "\n".join(line for line in text if line) + "\n"


def _provenance(summary: dict[str, Any]) -> str:
    lines = [f"- {key}: {value}" for key, value in summary["machine"].items()]
    lines += [f"- {key}: {value}" for key, value in summary["artefacts"].items()]
    return "\n".join(lines)


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(header)
    rows = [head, ["---"] * len(head), *map(list, lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cell(found: dict[str, Any], figure: str, interval: bool = True) -> str:
    if figure not in found:
        return ""
    if figure == "wer_percent":
        low, high = found["wer_interval"]
        return f"{found[figure]:.1f}" + (f" ({low:g} to {high:g})" if interval else "")
    mean, low, high, _ = found[figure]
    digits = DECIMALS.get(figure, 1)
    return f"{mean:.{digits}f}" + (f" ±{(high - low) / 2:.{digits}f}" if interval else "")


def _overall(systems: dict[str, Any], known: dict[str, Any]) -> str:
    figures = [f for f in FIGURES if any(f in found["all"] for found in systems.values())]
    header = ["system", *(HEADINGS[f] for f in figures), "WER %", "latency ms", "RTF", "parameters", "kbps"]
    lines = []
    for name, found in systems.items():
        if name == "probes":
            continue
        about = known.get(name, {})
        tail = [_cell(found["all"], "wer_percent"), f"{about.get('latency_ms', '')}", f"{about.get('rtf', '')}"]
        tail += [f"{about.get('parameters', '')}", f"{about.get('kbps', '')}"]
        lines.append([name, *(_cell(found["all"], f) for f in figures), *tail])
    return table(header, lines)


def _by_group(systems: dict[str, Any], figure: str) -> str:
    having = {name: found for name, found in systems.items() if figure in found["all"]}
    snrs = list(dict.fromkeys(key for found in having.values() for key in found["by_snr"]))
    classes = list(dict.fromkeys(key for found in having.values() for key in found["by_class"]))
    lines = []
    for name, found in having.items():
        cells = [_cell(found["by_snr"].get(key, {}), figure, interval=False) for key in snrs]
        cells += [_cell(found["by_class"].get(key, {}), figure, interval=False) for key in classes]
        lines.append([name, *cells])
    return table(["system", *snrs, *classes], lines)


def _probe_lines(parts: dict[str, Any]) -> str:
    for systems in parts.values():
        if "probes" in systems and "ours" in systems:
            probes, ours = systems["probes"]["all"], systems["ours"]["all"]
            lines = [[key, _cell(probes, key)] for key in PROBES if key in probes]
            if "foreign_si_sdr_db" in probes and "si_sdr_db" in ours:
                worse = ours["si_sdr_db"][0] - probes["foreign_si_sdr_db"][0]
                lines.append(["dB lost with another file's tokens", f"{worse:.1f}"])
            return "## Probes\n\n" + table(["figure", "value"], lines)
    return ""


def _code_lines(codes: dict[str, Any]) -> str:
    """One line for the levels and for each stage of a stream: the mean over its bands."""
    if not codes:
        return ""
    lines, bands = [], codes["bands"]
    for stream in ("speech", "background"):
        for start in range(0, len(codes[stream]), bands):
            rows = codes[stream][start : start + bands]
            name = f"stage {start // bands}" if start else "levels"
            bits, used = (sum(row[key] for row in rows) / len(rows) for key in ("entropy_bits", "used"))
            lines.append([f"{stream}, {name}", f"{rows[0]['size']}", f"{bits:.2f}", f"{100 * used:.0f}"])
    rates = ", ".join(f"{name}: {value} kbps" for name, value in codes["kbps"].items())
    return f"## Codes\n\n{rates}\n\n" + table([f"{bands} rows", "size", "entropy, bits", "used, %"], lines)


# Picture --------------------------------------------------------------------------------------------------------------


def picture(summary: dict[str, Any], path: Path) -> None:
    """The main figures over SNR, one line per system, of the first part that was measured."""
    from matplotlib.figure import Figure

    part, systems = next(iter(summary["parts"].items()))
    figures = [f for f in ("si_sdri_db", "pesq_wb", "estoi", "ovrl") if any(f in s["all"] for s in systems.values())]
    if not figures:
        return
    canvas = Figure(figsize=(4.2 * len(figures), 4.2), layout="constrained")
    axes = canvas.subplots(1, len(figures), squeeze=False)[0]
    shown = {n: s for n, s in systems.items() if not n.startswith(("speech-", "keep-", "clean", "probes"))}
    for axis, figure in zip(axes, figures, strict=True):
        for name, found in shown.items():
            points = [(float(snr), f[figure]) for snr, f in found["by_snr"].items() if figure in f]
            mean = [value[0] for _, value in points]
            spread = [[v[0] - v[1] for _, v in points], [v[2] - v[0] for _, v in points]]
            bold = name == "ours" or name.startswith("tokens")
            axis.errorbar([x for x, _ in points], mean, spread, label=name, lw=2.2 if bold else 1.0, marker="o", ms=3)
        axis.set(xlabel="SNR of the mixture, dB", title=HEADINGS[figure])
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    canvas.suptitle(PART_TITLES.get(part, part))
    canvas.savefig(path, dpi=110)
