"""The README's tables of quality, as `models.evaluate` writes them into DIR/readme.md."""

from __future__ import annotations

from typing import Any

from models.peers import PEERS
from models.tables import DECIMALS, table

COLUMNS = {
    "si_sdri_db": "SI-SDR gain, dB",
    "pesq_wb": "PESQ-WB",
    "estoi": "ESTOI",
    "ovrl": "DNSMOS OVRL",
    "wer_percent": "word errors, %",
}
BY_SNR = (
    ("drop: SI-SDR gain, dB", "ours", "si_sdri_db"),
    ("drop: ESTOI (input)", "ours", "estoi"),
    ("drop: OVRL (input)", "ours", "ovrl"),
    ("tokens only: ESTOI", "tokens", "estoi"),
    ("tokens only, keep: ESTOI", "keep", "estoi"),
)


def readme(summary: dict[str, Any]) -> str:
    """A table of every part that was measured, and one over SNR; nothing where there is nothing of ours."""
    parts = {part: systems for part, systems in summary["parts"].items() if "ours" in systems}
    known = summary["systems"]
    text = []
    for part, title in (("mixtures", "system"), ("babble", "other talkers as noise"), ("room", "in a room")):
        if part in parts:
            text.append(_systems(parts[part], known, title, full=part == "mixtures"))
    if "mixtures" in parts:
        text.append(_over_snr(parts["mixtures"]))
    return "\n".join(text)


def _cell(found: dict[str, Any], figure: str) -> str:
    value = found.get(figure)
    if value is None:
        return ""
    return f"{value:.1f}" if figure == "wer_percent" else _short(value[0], figure)


def _short(value: float, figure: str) -> str:
    text = f"{value:.{DECIMALS.get(figure, 1)}f}"
    return text.replace("0.", ".", 1) if figure == "estoi" else text


def _title(row: str, known: dict[str, Any]) -> str:
    if row == "ours":
        return "**Sottovoce**, drop"
    if row.startswith("tokens-"):
        return f"**Sottovoce**, tokens only, {known[row]['kbps']:.1f} kbit/s"
    return PEERS[row].title


def _systems(systems: dict[str, Any], known: dict[str, Any], title: str, full: bool) -> str:
    tokens = [row for row in systems if row.startswith("tokens-")][: 2 if full else 1]
    peers = [name for name in PEERS if name in systems and name != "noisy"]
    header = [title, *COLUMNS.values(), *(["delay, ms", "CPU time / time"] if full else [])]
    lines = []
    for row in [name for name in ("noisy", "ours", *tokens, *peers) if name in systems]:
        cells = [_title(row, known), *(_cell(systems[row]["all"], figure) for figure in COLUMNS)]
        if full:
            cells += [f"{known[row]['latency_ms']:.0f}", f"{known[row]['rtf']:.3f}".removeprefix("0")]
        lines.append(cells)
    return table(header, lines)


def _over_snr(systems: dict[str, Any]) -> str:
    snrs = list(systems["ours"]["by_snr"])
    lines = []
    for title, start, figure in BY_SNR:
        row = next((name for name in systems if name.partition("-")[0] == start), None)
        if row is None:
            continue
        cells = []
        for snr in snrs:
            cell = _cell(systems[row]["by_snr"].get(snr, {}), figure)
            if "(input)" in title and "noisy" in systems:
                cell += f" ({_cell(systems['noisy']['by_snr'].get(snr, {}), figure)})"
            cells.append(cell)
        lines.append([title, *cells])
    return table(["at", *(f"{snr} dB" for snr in snrs)], lines)
