"""Whisper's size goes from the command line and the window's config through the engine to the recogniser's process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import run
from engine import companion, recognizer, side
from engine.artefacts import Models
from engine.recognizer import Recognizer
from engine.residue import ResidueReader
from engine.sizes import SIZES
from engine.types import DEFAULT_WHISPER, SPEECH, ArtefactError, Caption, EngineConfig, SottovoceError, UsageError
from engine.weights import Weights
from tests.live_run import memory_engine, noise, tiny

__all__ = ["tiny"]  # a fixture

TELLS_ITS_NAME = """
import json, struct, sys
settings = json.loads(sys.argv[1])
print(json.dumps({"kind": "ready"}), flush=True)
head = struct.Struct("<cQ")
while frame := sys.stdin.buffer.read(head.size):
    kind, length = head.unpack(frame)
    sys.stdin.buffer.read(length)
    if kind == b"F":
        word = [settings["name"] + " " + settings["format"], 0.0, 0.1, 0.9]
        told = {"final": [word], "tentative": [], "heard_to": 0, "final_to": 0, "language": "en"}
        print(json.dumps({"kind": "words", **told}), flush=True)
        print(json.dumps({"kind": "finished", "heard_to": 0}), flush=True)
        break
"""


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size is here, and a recogniser says which one it was given."""
    script = tmp_path / "worker.py"
    script.write_text(TELLS_ITS_NAME, encoding="utf-8")
    monkeypatch.setattr(recognizer, "WORKER", (sys.executable, str(script)))
    monkeypatch.setattr(
        recognizer, "require_weights", lambda name: Weights(name, script, "0" * 64, "a stand-in", "safetensors", False)
    )


def said(events: list[Any]) -> list[str]:
    return [word.text for event in events if isinstance(event, Caption) for word in event.final]


def test_the_process_is_given_the_size(names: None) -> None:
    made = Recognizer("en", model="small")
    made.start()
    assert said(made.finish()) == ["small safetensors"]
    assert made.weights is not None and not made.weights.verified


def test_a_live_run_asks_for_the_size_of_its_config(names: None, tiny: Models) -> None:
    engine, _ = memory_engine(tiny, noise(0.5), captions=True, whisper="small.en")
    engine.start()
    engine.stop()
    events = [event for event in engine.poll() if isinstance(event, Caption)]
    assert said(events) == ["small.en safetensors"]
    assert {event.source for event in events} == {SPEECH}
    assert EngineConfig().whisper == DEFAULT_WHISPER


def test_the_others_are_captioned_with_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(companion, "Recognizer", lambda *a, **k: asked.append((*a, k["model"])))
    side.Companion("speakers", "en", "small")
    assert asked == [("en", "small")]


def test_a_size_that_knows_english_alone_is_not_asked_for_another_language(names: None) -> None:
    with pytest.raises(ArtefactError, match=r"Whisper base.en knows English alone; use base for 'cs'"):
        Recognizer("cs", model="base.en").start()
    found = Recognizer(None, model="base.en")
    found.start()
    found.stop()


def test_a_size_that_nobody_knows_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="choose one of"):
        Recognizer("en", model="gigantic").start()


def test_the_residue_belongs_to_the_size_that_is_the_default() -> None:
    assert ResidueReader().recogniser == DEFAULT_WHISPER
    assert SIZES[DEFAULT_WHISPER].slowdown == 1.0


def test_live_hands_the_size_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[EngineConfig] = []

    class Unable:
        """An engine that cannot start."""

        def __init__(self, config: EngineConfig) -> None:
            asked.append(config)

        def start(self) -> None:
            raise SottovoceError("this is a test; nothing runs")

    monkeypatch.setattr("engine.live.Engine", Unable)
    assert run(["live", "--captions", "--whisper", "small"]) == 1
    assert run(["live", "--captions"]) == 1
    assert [config.whisper for config in asked] == ["small", "base"]
    assert "this is a test" in capsys.readouterr().err


def test_what_no_list_knows_is_marked_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Weights("small", tmp_path / "small.safetensors", "0" * 64, "mine.pt, imported", "safetensors", False)
    monkeypatch.setattr("engine.weights.known_weights", lambda: [("small", mine)])
    for arguments in (["models"], ["models", "verify"]):
        assert run(arguments) == 0
        assert "its sha256 is in no list; its structure was checked" in capsys.readouterr().out
