"""The evaluation's own machinery: rows that are kept, alignment, statistics and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pesq")
pytest.importorskip("pystoi")
pytest.importorskip("soxr")

from engine.types import Samples
from models import evaluate, metrics, tables
from models.evaluate import Item, Ledger
from models.systems import TAIL, Output, Sound, System, clean_system, padded
from models.testset import Mixture

LAG = 352


def item(name: str = "a", snr_db: float = 5.0, noise_class: str = "train", part: str = "mixtures") -> Item:
    """Two seconds of gliding tones in bursts, with white noise at about `snr_db`."""
    rng = np.random.default_rng(len(name))
    time_s = np.arange(32_000) / 16_000
    tone = sum(np.sin(2 * np.pi * (150 * k * time_s + 20 * np.sin(3 * time_s))) / k for k in range(1, 15))
    speech = (0.1 * tone * (np.sin(2 * np.pi * 2.5 * time_s) > -0.3)).astype(np.float32)
    noise = rng.standard_normal(len(speech)).astype(np.float32)
    noise *= np.float32(speech.std() / noise.std() * 10 ** (-snr_db / 20))
    return Item(part, Mixture(name, speech + noise, speech, noise, snr_db, noise_class, "two words"))


def late(gain_on_noise: float = 0.3, identity: str = "late 1") -> System:
    """A perfect separator that is LAG samples late and leaves some noise."""

    def run(sound: Sound) -> list[Output]:
        def delayed(part: Samples) -> Samples:
            return np.concatenate([np.zeros(LAG, np.float32), padded(part)])[: len(part) + TAIL]

        return [Output("late", delayed(sound.speech + gain_on_noise * sound.noise), 0.1, delayed(sound.noise))]

    return System("late", ("late",), identity, 42.0, 10, run)


def test_calibration_finds_the_lag_and_the_figures_follow() -> None:
    items = [item("a"), item("bb", 10.0), item("ccc", -5.0)]
    system, others = late(), evaluate.with_other(items)
    timing = evaluate.calibrate([system], items, others)["late"]
    assert timing.delay == LAG
    assert timing.rtf == pytest.approx(0.1 / 2.1)
    figures = evaluate.score(system.run(others(items[0]))[0], items[0], timing.delay)
    assert figures["si_sdri_db"] == pytest.approx(-20 * np.log10(0.3), abs=0.2)
    assert figures["background_si_sdr_db"] > 60


@pytest.fixture
def no_opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network of DNSMOS, which may not have been fetched."""
    monkeypatch.setattr(metrics, "dnsmos", lambda sound: metrics.Dnsmos(3.0, 3.0, 3.0))


@pytest.fixture(autouse=True)
def _quick(no_opinions: None) -> None:
    """Every test here goes without it."""


def test_rows_are_kept_and_measured_again_only_when_something_changed(tmp_path: Path) -> None:
    one = item()
    sound = evaluate.with_other([one])(one)
    calls: list[str] = []

    def counted(system: System) -> System:
        def run(given: Sound) -> list[Output]:
            calls.append(system.identity)
            return system.run(given)

        return System(system.name, system.rows, system.identity, 42.0, 10, run)

    def ledger() -> Ledger:
        return Ledger(tmp_path / "scores.csv", tmp_path / "peers.csv", ["clean"])

    evaluate.measure(counted(late()), one, sound, LAG, ledger(), None)
    evaluate.measure(counted(late()), one, sound, LAG, ledger(), None)
    assert calls == ["late 1"]
    evaluate.measure(counted(late(identity="late 2")), one, sound, LAG, ledger(), None)
    evaluate.measure(counted(late()), one, sound, LAG + 1, ledger(), None)
    assert calls == ["late 1", "late 2", "late 1"]
    assert not (tmp_path / "peers.csv").exists()
    evaluate.measure(clean_system(), one, sound, 0.0, ledger(), None)
    elsewhere = Ledger(tmp_path / "other.csv", tmp_path / "peers.csv", ["clean"])
    assert [row["system"] for row in elsewhere.rows.values()] == ["clean"]


def test_words_are_added_to_rows_that_lack_them(tmp_path: Path) -> None:
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper")
    one = item()
    sound = evaluate.with_other([one])(one)
    ledger = Ledger(tmp_path / "scores.csv", tmp_path / "peers.csv", [])
    evaluate.measure(late(), one, sound, LAG, ledger, None)
    (before,) = ledger.rows.values()
    evaluate.measure(late(), one, sound, LAG, ledger, lambda samples: "two birds")
    (after,) = Ledger(tmp_path / "scores.csv", tmp_path / "peers.csv", []).rows.values()
    assert (after["wer_errors"], after["wer_words"]) == ("1", "2")
    assert float(after["estoi"]) == before["estoi"]


def test_a_half_written_line_is_measured_again(tmp_path: Path) -> None:
    one = item()
    path = tmp_path / "scores.csv"
    evaluate.measure(late(), one, evaluate.with_other([one])(one), LAG, Ledger(path, path, []), None)
    path.write_text(path.read_text() + "b,mixtures,5.0,tr")
    assert len(Ledger(path, tmp_path / "none.csv", []).rows) == 1


def test_a_part_of_the_items_stands_for_all() -> None:
    items = [item(f"{snr}{kind}{n}", snr, kind) for snr in (-5.0, 5.0) for kind in ("train", "pub") for n in range(5)]
    few = evaluate.spread(items, 4)
    assert len({(i.mixture.snr_db, i.mixture.noise_class) for i in few}) == 4
    assert len(evaluate.spread(items, None)) == len(items)


def test_summary_tables_and_picture(tmp_path: Path) -> None:
    rows = []
    for snr in (-5.0, 5.0):
        for n in range(6):
            row = {"file": f"{n}", "part": "mixtures", "snr_db": snr, "noise_class": "train", "estoi": ""}
            rows.append({**row, "system": "ours", "si_sdr_db": f"{snr + 7 + n / 10}", "si_sdri_db": 7 + n / 10})
            rows[-1] |= {"wer_errors": 1, "wer_words": 4}
            rows.append({**row, "system": "probes", "foreign_si_sdr_db": snr})
    parts = tables.summarise(rows, ["noisy", "ours", "probes"])
    ours = parts["mixtures"]["ours"]
    assert ours["all"]["si_sdri_db"][0] == pytest.approx(7.25)
    assert ours["all"]["wer_percent"] == 25.0
    assert list(ours["by_snr"]) == ["-5", "5"] and ours["by_snr"]["5"]["si_sdri_db"][3] == 6
    assert "estoi" not in ours["all"]
    summary = {"machine": {}, "artefacts": {}, "systems": {}, "parts": parts}
    text = tables.markdown(json.loads(json.dumps(summary)))
    assert "| ours | 7.2 ±" in text or "| ours | 7.3 ±" in text
    assert "| dB lost with another file's tokens | 7.2 |" in text
    tables.picture(summary, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 5_000


def test_wrong_use_is_told_and_exits_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--out", str(tmp_path), "--peers", "noisy,none"])
    assert stop.value.code == 2
    assert "unknown peer none" in capsys.readouterr().err


def test_parts_are_chosen_from_the_whole_public_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert evaluate.parse([*out, "--parts", "babble,room"]).parts == ("room", "babble")
    for wrong in (["--parts", "bable"], ["--parts", "room", "--fast"], ["--parts", "room", "--split", "validation"]):
        with pytest.raises(SystemExit):
            evaluate.parse([*out, *wrong])
    assert "--parts" in capsys.readouterr().err


def test_what_was_measured_of_other_parts_stays(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    first = evaluate.Ledger(path, tmp_path / "shared.csv", ["dtln"])
    for part in ("room", "babble"):
        first.add({"key": part, "part": part, "system": "ours", "file": "a"})
    again = evaluate.Ledger(path, tmp_path / "shared.csv", ["dtln"])
    again.rewrite([{"key": "new", "part": "babble", "system": "ours", "file": "a"}], ["babble"])
    assert set(evaluate.Ledger(path, tmp_path / "shared.csv", []).rows) == {"new", "room"}
