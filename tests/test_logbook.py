"""The log of live runs: what matters for a fault is in it, what is private is not, and it does not grow."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app import cli, logbook
from app.logbook import NAME, Logbook, last_lines
from engine import recognizer
from engine.artefacts import shared_models
from engine.paths import log_dir
from engine.types import Caption, DeviceChange, Problem, Stats, Word
from engine.weights import Weights
from tests import tiny_models
from tests.fake_sound import plugged_in

PARTS = (("device in", 20.0), ("compute", 3.0))


def stats(time_s: float, dropouts: int) -> Stats:
    return Stats(time_s, "running", "cpu", 40.0, 90.0, PARTS, 3.0, 5.0, 9.0, 0.2, dropouts, 1.0)


def test_faults_and_figures_are_in_it_and_words_are_not() -> None:
    book = Logbook("live")
    book.note(Problem(1.0, "the microphone is gone", "silence"))
    book.note(DeviceChange(2.0, "lost", "mic"))
    book.note(Caption(3.0, (Word("secret", 0.0, 1.0),), (Word("whisper", 1.0, 2.0),), 0.5))
    logging.getLogger("engine.side").warning("the disk is odd")
    logging.getLogger("engine.side").info("nothing of note")
    book.close()
    text = (log_dir() / NAME).read_text()
    for wanted in ("live begins", "the microphone is gone", "device lost: mic", "the disk is odd", "ends"):
        assert wanted in text
    for private in ("secret", "whisper", "nothing of note"):
        assert private not in text


def test_figures_come_once_a_minute_and_with_every_break() -> None:
    book = Logbook("live")
    for second, dropouts in enumerate((0, 0, 0, 1, 1, 2)):
        book.note(stats(float(second), dropouts))
    book.close()
    lines = [line for line in last_lines() if "delay" in line]
    assert [line.split("dropouts ")[1][0] for line in lines] == ["0", "1", "2"]


def test_why_sound_broke_is_in_it_once() -> None:
    book = Logbook("live")
    for count in (1, 1, 2, 2):
        lines = tuple(f"{number} at {number}.5 s: the input came late" for number in range(1, count + 1))
        book.note(replace(stats(3.0, count), dropouts_why=lines))
    book.close()
    told = [line for line in last_lines() if "came late" in line]
    assert [line.partition("dropout ")[2][0] for line in told] == ["1", "2"]


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "MAX_BYTES", 2000)
    book = Logbook("live")
    for number in range(500):
        book.note(DeviceChange(float(number), "lost", "mic"))
    book.close()
    sizes = [path.stat().st_size for path in log_dir().iterdir()]
    assert len(sizes) == 3 and max(sizes) <= 2000
    assert "499.0 s" in last_lines()[-2]


def test_where_none_can_be_written_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOTTOVOCE_LOGS", str(tmp_path / "file" / "logs"))
    book = Logbook("live")
    book.note(Problem(1.0, "text", "state"))
    book.close()
    assert last_lines() == []


def test_a_report_holds_checks_and_log_and_no_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.doctor.CHECKS", ())
    home = tmp_path / "home" / "somebody"
    monkeypatch.setattr(Path, "home", lambda: home)
    book = Logbook("live")
    book.note(Problem(1.0, f"{home}/x cannot be written", "running"))
    book.close()
    path = tmp_path / "report.txt"
    assert cli.run(["doctor", "--report", str(path)]) == 0
    text = path.read_text()
    assert "~/x cannot be written" in text and "somebody" not in text and "processor" in text
    assert cli.run(["doctor", "--report", str(path)]) == 2
    assert "already" in capsys.readouterr().err


# A whole run ----------------------------------------------------------------------------------------------------------

SECRETS = ("quixotic", "marmalade", "zeppelin")  # final, tentative, and in the recogniser's last words
SAMPLE = 0.87654321  # one in every block of the microphone's
GOSSIP = """
import json, struct, sys, time
def tell(**message):
    sys.stdout.write(json.dumps(message) + chr(10)); sys.stdout.flush()
start, head = json.loads(sys.argv[1])["start"], struct.Struct("<cQ")
tell(kind="ready")
at = start
while len(frame := sys.stdin.buffer.read(head.size)) == head.size:
    kind, length = head.unpack(frame)
    payload = sys.stdin.buffer.read(length)
    at += length // 4 if kind == b"A" else 0
    final, tentative = ([[word, at / 16000, at / 16000 + 0.1, 0.9]] for word in {words!r})
    tell(kind="words", final=final, tentative=tentative, heard_to=at, final_to=at, language="en")
    if at > start + 16000:
        raise KeyError({last!r} + " and more of it")
"""


@pytest.fixture
def gossip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices and networks that are made up, and a recogniser that says SECRETS and dies of them, twice."""
    script = tmp_path / "worker.py"
    script.write_text(GOSSIP.format(words=SECRETS[:2], last=SECRETS[2]), encoding="utf-8")
    monkeypatch.setattr(recognizer, "WORKER", (sys.executable, str(script)))
    weights = Weights("base", script, "0" * 64, "a stand-in", "pt")
    monkeypatch.setattr(recognizer, "require_weights", lambda name: weights)
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tiny_models.build(tmp_path / "assets")))
    plugged_in(monkeypatch).faults.broken = SAMPLE
    shared_models.cache_clear()


def test_nothing_that_was_said_or_sounded_is_in_the_log_or_the_report(
    gossip: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("app.doctor.CHECKS", ())
    caplog.set_level(logging.DEBUG)
    record = tmp_path / "r"
    assert cli.run(["live", "--captions", "--seconds", "6", "--record", str(record), "--provider", "cpu"]) == 0
    shared_models.cache_clear()
    out, err = capsys.readouterr()
    assert SECRETS[0] in out and SECRETS[0] in (record / "captions.srt").read_text()
    assert "stopped twice" in err
    assert cli.run(["doctor", "--report", str(tmp_path / "report.txt")]) == 0
    told = [path.read_text() for path in (*log_dir().iterdir(), tmp_path / "report.txt")]
    assert len(told) == 2
    for text in told:
        assert "live begins" in text and "stopped twice (KeyError" in text
        for private in (*SECRETS, str(SAMPLE)[:6]):
            assert private not in text
        assert max(map(len, text.splitlines())) < 1000  # a hop of sound would be longer
