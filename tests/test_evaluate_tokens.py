"""Words from tokens beside words from sound: every way is given what it names, and its time is counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from engine.answers import Hypothesis
from engine.artefacts import load_models
from engine.captions import Heard
from engine.token_words import STEP, TokenBridge
from engine.vad import SAMPLE_RATE_HZ
from engine.whisper_blocks import BLOCK
from models import evaluate_tokens, evaluate_words
from models.evaluate_tokens import Clock, from_tokens, tokened
from models.evaluate_words import markdown
from models.testset import Mixture
from tests.tiny_models import HOP, SPEECH_SHARE, build

RATE_HZ = SAMPLE_RATE_HZ


class Bridge:
    """Gives each hop's frame as its codes say, a hop late."""

    rows, lookahead, width, longest = 5, 1, 5, 900
    blank = np.zeros(5, np.int64)
    places = np.zeros((900, 5), np.float32)

    def __init__(self, path: Path) -> None:
        assert path.name == "bridge.onnx"

    def first_state(self) -> dict[str, np.ndarray]:
        return {"past": np.zeros((1, 5), np.float32)}

    def run(self, codes: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        both = np.concatenate([state["past"], codes.astype(np.float32)])
        return both[:-1], {"past": both[-1:]}


class Blocks:
    """Leaves frames as they are."""

    sizes: ClassVar[list[int | None]] = []

    def __init__(self, encoder: str, size: int | None) -> None:
        assert encoder == "the bridge's"
        self.sizes.append(size)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return frames


class Detector:
    def __call__(self, window: np.ndarray) -> float:
        return 0.9 if np.abs(window).max() > 0.01 else 0.0

    def reset(self) -> None:
        pass


class Decoder:
    """Hears the one word `sound`, or `tokens` where it is given a window, which must hold the tokens' frames."""

    window = None
    own = "the bridge's"

    def __init__(self) -> None:
        self.windows: list[np.ndarray] = []

    def encode(self, samples: np.ndarray, trailing_s: float) -> None:
        pass

    def blocks(self, frames: np.ndarray) -> np.ndarray:
        raise AssertionError("each way takes blocks of its own")

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        if self.window is None:
            self.encode(samples, 0.5)
        else:
            self.windows.append(self.blocks(self.window(len(samples), 0.5)))
        word = Heard("tokens" if self.window is not None else "sound", 0.5, 0.9, 0.9, (1,))
        return Hypothesis((word,)[len(prefix) :], "en")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    models = load_models("cpu", build(tmp_path))
    monkeypatch.setattr(evaluate_tokens, "shared_models", lambda provider: models)
    monkeypatch.setattr(evaluate_tokens, "bridge_path", lambda: tmp_path / "bridge.onnx")
    monkeypatch.setattr(evaluate_tokens, "TokenBridge", Bridge)
    monkeypatch.setattr(Blocks, "sizes", [])
    monkeypatch.setattr(evaluate_tokens, "BlockEncoder", Blocks)
    for module in (evaluate_tokens, evaluate_words):
        monkeypatch.setattr(module, "SileroVad", Detector)
    return Decoder()


def mixture(seconds: float) -> Mixture:
    sound = np.full(round(seconds * RATE_HZ), 0.2, np.float32)
    return Mixture("one", sound, 0.5 * sound, 0.5 * sound, 0.0, "rain", "tokens")


def test_every_way_is_told_with_its_errors_and_its_time(parts: Decoder) -> None:
    found = from_tokens([mixture(1.0), mixture(1.0)], parts)
    assert found["utterances"] == 2
    assert found["clean, seconds"] == found["noisy, seconds"] == round(2 + 2 * evaluate_words.PAUSE_S)
    rows = {title: row for title, row in found.items() if isinstance(row, dict)}
    assert set(rows) == {
        "clean, sound, offline",
        "clean, sound of the tokens, offline",
        "clean, tokens, offline",
        "noisy, sound, offline",
        "noisy, sound of the tokens, offline",
        "noisy, tokens, offline",
        "noisy, sound, live",
        "noisy, tokens, live",
    }
    assert rows["clean, tokens, offline"]["word_errors_percent"] < rows["clean, sound, offline"]["word_errors_percent"]
    assert all(row["words"] == 2 and row["cpu_s"] >= row["frames_cpu_s"] >= 0.0 for row in rows.values())
    assert parts.window is None
    assert Blocks.sizes == [None, None, BLOCK]  # files whole, live in blocks
    table = markdown({"tokens": found})
    assert "noisy, tokens, live" in table
    assert "frames_cpu_s" in table
    levels = {float(level) for window in parts.windows for level in window[5:20, 0]}
    assert levels  # of the clean sound and of the noisy one
    assert max(levels) == np.ceil(SPEECH_SHARE * 0.2 * 63)


def test_a_sound_and_its_tokens_are_equally_long(parts: Decoder) -> None:
    spoken = tokened(np.full(10 * HOP, 0.1, np.float32))
    assert len(spoken.voice) == STEP * spoken.codes.shape[1]
    assert HOP == STEP
    assert TokenBridge is not evaluate_tokens.TokenBridge  # what stands in is ours


def test_a_clock_counts_what_goes_through_it() -> None:
    clock = Clock()
    count = clock.around(lambda top: sum(range(top)))
    assert count(2_000_000) == sum(range(2_000_000))
    assert clock.seconds > 0.0
    before = clock.seconds
    assert count(top=10) == 45
    assert clock.seconds >= before
