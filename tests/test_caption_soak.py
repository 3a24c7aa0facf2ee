"""The captions' process does not grow with the lengths of sound that it is asked about, and a soak would show it.

Its processes are stand-ins that are started as the recogniser's own is: one has Whisper's decoder with few and random
weights, the other hears nothing and grows as much as it is told to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app import bench, cli
from engine import caption_soak
from engine import recognizer as module
from engine.caption_soak import measure_caption_soak
from engine.recognizer import Recognizer
from engine.types import Problem, SottovoceError

LENGTHS = 150
KEPT_MB = 10.0  # it was 30 while the code for every length was kept, and is 2

MANY_LENGTHS = """
import gc, json, os, sys
import numpy as np, psutil, torch, whisper
from engine.memory import return_free_memory
from engine.whisper_decoder import WhisperDecoder

def memory_mb():
    gc.collect()
    return_free_memory()
    return psutil.Process().memory_info().rss / 1e6

torch.manual_seed(0)
dims = whisper.model.ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)
decoder = WhisperDecoder(whisper.model.Whisper(dims).eval())
sound = np.zeros(16000 * 20, np.float32)
decoder.frames(sound)
before_mb = memory_mb()
for number in range({lengths}):
    decoder.frames(sound[: 3200 + 640 * number])
print(json.dumps({{"kind": "note", "text": str(memory_mb() - before_mb)}}))
print(json.dumps({{"kind": "finished"}}), flush=True)
"""

GROWING = """
import json, struct, sys
def tell(**message):
    print(json.dumps(message), flush=True)
tell(kind="ready")
head, at, kept = struct.Struct("<cQ"), 0, []
while len(frame := sys.stdin.buffer.read(head.size)) == head.size:
    kind, length = head.unpack(frame)
    sys.stdin.buffer.read(length)
    if kind == b"A":
        at += length // 4
        kept.append(b"x" * {bytes_a_piece})
        tell(kind="words", final=[["so", 0.0, 0.1, 0.9]], tentative=[], heard_to=at, final_to=at, language="en")
    if at >= {dies_at}:
        tell(kind="problem", text="out of memory")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Takes the script that is started in place of Whisper."""

    def use(text: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(text, encoding="utf-8")
        monkeypatch.setattr(module, "WORKER", (sys.executable, str(script)))
        monkeypatch.setenv("PYTHONPATH", str(Path(module.__file__).parents[1]))
        weights = module.Weights("base", script, "0" * 64, "a stand-in", "pt")
        monkeypatch.setattr(module, "require_weights", lambda name: weights)

    return use


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_soak, "demo_sound", lambda rate_hz: np.full(rate_hz, 0.1, np.float32))


def test_memory_does_not_grow_with_the_lengths_of_sound(stand_in: Callable[[str], None]) -> None:
    stand_in(MANY_LENGTHS.format(lengths=LENGTHS))
    recognizer = Recognizer("en")
    recognizer.start()
    assert recognizer.wait_done(120.0)
    notes = [event.text for event in recognizer.poll() if isinstance(event, Problem)]
    recognizer.stop()
    assert float(notes[0]) < KEPT_MB, "of code for lengths that will not come again"


def test_what_grows_shows_and_what_does_not_does_not(stand_in: Callable[[str], None]) -> None:
    growth_mb = []
    for bytes_a_piece in (0, 50_000):
        stand_in(GROWING.format(bytes_a_piece=bytes_a_piece, dies_at=1e9))
        done: list[float] = []
        figures = measure_caption_soak(2, done.append)
        assert done == [0.5, 1.0]
        assert figures["words"] > 400, "one a piece"
        growth_mb.append(figures["growth_mb"])
        assert figures["growth_mb_per_hour"] == pytest.approx(60.0 * figures["growth_mb"], abs=0.1)
    assert abs(growth_mb[0]) < 3.0
    assert growth_mb[1] == pytest.approx(12.0, abs=3.0)


def test_captions_that_die_are_told(stand_in: Callable[[str], None]) -> None:
    stand_in(GROWING.format(bytes_a_piece=0, dies_at=16_000))
    with pytest.raises(SottovoceError, match="out of memory"):
        measure_caption_soak(2, lambda done: None)


def test_the_command_tells_sound_and_captions(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.artefacts.load_models", lambda provider: provider)
    monkeypatch.setattr("engine.soak.measure_soak", lambda models, minutes, progress: {"minutes": minutes})
    monkeypatch.setattr(bench, "artefact_ids", dict)
    stand_in(GROWING.format(bytes_a_piece=0, dies_at=1e9))
    for found, told in ((module.require_weights("base"), {"soak", "captions"}), (None, {"soak"})):
        monkeypatch.setattr("engine.weights.find_weights", lambda found=found: found)
        assert cli.run(["bench", "soak", "--minutes", "2", "--json"]) == 0
        out, err = capsys.readouterr()
        figures = json.loads(out)
        assert set(figures) - {"machine", "artefacts"} == told
        assert all(figures[name]["minutes"] == 2 for name in told)
        assert ("models get base" in err) == (found is None)
