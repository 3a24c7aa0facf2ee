"""Every runtime is given the same weights, pieces and rules, and is told apart by what it takes.

Whisper is a tiny one with random weights here, but in the last test.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import whisper

from engine.types import Samples
from engine.whisper_decoder import Past, WhisperDecoder
from models import runtimes
from models.runtimes import Runtime, Taken
from models.whisper_ct2 import Ct2Whisper, find_package
from models.whisper_onnx import OnnxDecoder

SECOND = 16_000
# openai-whisper leaves the file of its vocabulary to the collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
CLOSE = 0.05  # of a tensor's own size, that 8 bit may be off by


def tiny() -> whisper.model.Whisper:
    torch.manual_seed(0)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, 128, 2, 2, 51865, 448, 128, 2, 2)).eval()
    for side in (model.encoder, model.decoder):
        if isinstance(side.positional_embedding, torch.nn.Parameter):
            torch.nn.init.normal_(side.positional_embedding, std=0.1)
    return model


@pytest.fixture(scope="module")
def plain() -> WhisperDecoder:
    return WhisperDecoder(tiny(), int8=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> OnnxDecoder:
    return OnnxDecoder(tiny(), tmp_path_factory.mktemp("onnx"))


def noise(seconds: float) -> Samples:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * SECOND))).astype(np.float32)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@torch.inference_mode()
def test_the_exported_encoder_is_the_same_on_as_many_positions(plain: WhisperDecoder, exported: OnnxDecoder) -> None:
    for seconds in (0.7, 3.1):
        wanted = plain.encode(noise(seconds))
        assert wanted.shape[1] < 300
        assert 0.0 < off(exported.encode(noise(seconds)), wanted) < CLOSE


@torch.inference_mode()
def test_the_exported_step_remembers_what_came_before(plain: WhisperDecoder, exported: OnnxDecoder) -> None:
    features = plain.encode(noise(2.0))
    begun = [50258, 50259, 50359, 50363]
    past, wanted, other = exported.begin(features), plain.begin(features), exported.begin(features)

    def ahead(decoder: WhisperDecoder, past: Past, tokens: list[int]) -> torch.Tensor:
        return decoder.ahead(past, torch.tensor([tokens]), len(tokens))[0]

    whole = ahead(plain, wanted, [*begun, 11, 600])
    assert off(ahead(exported, past, begun), whole[:4]) < CLOSE
    ahead(exported, other, begun)
    assert off(ahead(exported, other, [700]), whole[4:5]) > CLOSE, "another token is something else"
    assert off(ahead(exported, past, [11]), whole[4:5]) < CLOSE
    assert off(ahead(exported, past, [600]), whole[5:]) < CLOSE
    assert past.length == wanted.length == 6
    assert off(past.attention[0], wanted.attention[0][:, :4]) < 2 * CLOSE


def test_the_shipped_decoding_runs_on_the_exported_graphs(exported: OnnxDecoder) -> None:
    heard = exported.transcribe(noise(1.0), [], "en", 5)
    assert heard.words
    assert all(word.end_s <= 1.5 for word in heard.words)


@torch.inference_mode()
def test_ctranslate2_has_the_same_weights_and_rules(plain: WhisperDecoder, tmp_path: Path) -> None:
    if (package := find_package()) is None:
        pytest.skip("ctranslate2 is not installed")
    other = Ct2Whisper(package, plain, tmp_path)
    features = other.encode(noise(2.0))
    assert off(torch.from_numpy(np.array(features)), plain.encode(noise(2.0))) < CLOSE
    tokens = other.decode(features, 7)
    assert len(tokens) <= 7
    assert not set(tokens) & set(other.banned)


def test_the_recording_is_cut_in_its_pauses_and_nothing_is_lost() -> None:
    sound = noise(20.0)
    for at in (6, 11, 17):
        sound[at * SECOND : at * SECOND + SECOND // 2] = 0.0
    pieces = runtimes.cut(sound, 8.0)
    np.testing.assert_array_equal(np.concatenate(pieces), sound)
    ends = np.cumsum([len(piece) for piece in pieces])[:-1] / SECOND
    assert ends == pytest.approx([6.25, 11.25, 17.25], abs=0.2)
    assert len(runtimes.cut(sound, 29.0)) == 1


def test_all_take_turns_at_every_piece() -> None:
    heard: list[tuple[str, int]] = []

    def told(title: str, tokens: list[int]) -> Runtime:
        def encode(sound: Samples) -> int:
            heard.append((title, len(sound)))
            return len(sound)

        return Runtime(title, encode, lambda features: [*tokens, features])

    pieces = [np.zeros(size, np.float32) for size in (10, 20, 30)]
    times = runtimes.measure([told("a", []), told("b", [5])], pieces, 2)
    assert heard[:2] == [("a", 10), ("b", 10)]  # these warm up and do not count
    rest = heard[2:]
    assert [size for _, size in rest] == [10, 10, 20, 20, 30, 30] * 2
    assert all({rest[at][0], rest[at + 1][0]} == {"a", "b"} for at in range(0, 12, 2))
    assert {title for title, _ in rest[::2]} == {"a", "b"}, "none is always the first"
    assert [taken.tokens for taken in times["b"]] == [(5, 10), (5, 20), (5, 30)] * 2


def test_what_a_piece_takes_is_what_is_told() -> None:
    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    def decode(features: object) -> list[int]:
        work(0.08)
        return [1, 2, 3]

    taken = runtimes.take(Runtime("slow", lambda sound: work(0.02), decode), noise(0.1))
    assert 20.0 <= taken.encode_ms < 60.0
    assert 80.0 <= taken.decode_ms < 160.0
    assert taken.token_ms == pytest.approx(taken.decode_ms / 4)


def test_the_table_tells_times_ratios_and_words() -> None:
    words = {1: "rain", 2: "fire", 3: "voice"}

    def to_text(tokens: Sequence[int]) -> str:
        return " ".join(words[token] for token in tokens)

    times = {
        "ours": [Taken(100.0, 30.0, (1, 2)), Taken(100.0, 20.0, (3,))] * 2,
        "other": [Taken(50.0, 60.0, (1, 1)), Taken(50.0, 40.0, (3,))] * 2,
    }
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in runtimes.as_table(times, 2, "Rain, fire. Voice.", to_text).splitlines()[2:]
    ]
    assert lines[0] == ["ours", "100", "10.0", "1.00", "1.00", "1.00", "0 of 3"]
    assert lines[1][:5] == ["other", "50", "20.0", "0.50", "2.00"]
    assert float(lines[1][5]) == pytest.approx((110 / 130 + 90 / 120) / 2, abs=0.01)
    assert lines[1][6] == "1 of 3"


def test_a_run_says_what_was_not_compared_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    monkeypatch.setattr(
        runtimes, "require_weights", lambda size: SimpleNamespace(path=tmp_path, format="pt", name=size)
    )
    monkeypatch.setattr(runtimes, "load_model", lambda path, format, name: tiny())
    monkeypatch.setattr(runtimes, "read_demo", lambda: (noise(3.0), "some words"))
    monkeypatch.setattr(runtimes, "find_package", lambda: None)
    monkeypatch.setattr(runtimes, "MOST_TOKENS", 3)
    assert runtimes.main(["--seconds", "2", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    titles = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")][2:]
    assert titles == [runtimes.SHIPPED, "torch float32", "ONNX Runtime int8"]
    assert "2 pieces, 3 s, 1 rounds" in out
    assert "CTranslate2 is not installed" in out
    assert not list((tmp_path / "runtimes").iterdir())


def test_without_weights_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runtimes.main(["--rounds", "1"]) == 1
    assert capsys.readouterr().err == "captions need Whisper base: run `sottovoce models get base`\n"


@pytest.mark.parametrize("wrong", [["--seconds", "1"], ["--seconds", "31"], ["--seconds", "nan"], ["--rounds", "0"]])
def test_what_cannot_be_measured_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        runtimes.main(wrong)
