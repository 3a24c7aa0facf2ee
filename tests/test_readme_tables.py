"""The README's tables, made from a summary."""

from __future__ import annotations

from typing import Any

from models.readme_tables import readme

FOUND = {"si_sdri_db": [7.66, 7.0, 8.0, 5], "pesq_wb": [1.823, 1, 2, 5], "estoi": [0.8216, 0.8, 0.9, 5]}


def summary(systems: list[str]) -> dict[str, Any]:
    statistics = {"all": {**FOUND, "wer_percent": 20.18}, "by_snr": {"-5": FOUND, "0": {}}, "by_class": {}}
    return {
        "systems": {name: {"latency_ms": 40.0, "rtf": 0.187, "kbps": 27.6} for name in systems},
        "parts": {"mixtures": dict.fromkeys(systems, statistics), "babble": dict.fromkeys(systems, statistics)},
    }


def test_one_line_for_each_system_ours_first() -> None:
    first = readme(summary(["ours", "tokens-4", "keep-4", "clean", "probes", "gtcrn", "noisy"])).split("\n\n")[0]
    lines = first.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [
        "noisy input",
        "**Sottovoce**, drop",
        "**Sottovoce**, tokens only, 27.6 kbit/s",
        "GTCRN",
    ]
    assert lines[3] == "| **Sottovoce**, drop | 7.7 | 1.82 | .822 |  | 20.2 | 40 | .187 |"


def test_what_was_not_measured_is_left_empty() -> None:
    text = readme(summary(["ours"]))
    assert "| drop: ESTOI (input) | .822 |  |" in text
    assert readme(summary(["gtcrn"])) == ""
    stopped = summary(["ours", "gtcrn"])
    for systems in stopped["parts"].values():
        del systems["ours"]  # the run ended before its first row
    assert readme(stopped) == ""
