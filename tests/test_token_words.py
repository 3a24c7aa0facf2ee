"""Tokens as Whisper's frames: by position, over gaps, for a listener that knows nothing of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.answers import Hypothesis
from engine.artefacts import shared_models
from engine.captions import Heard
from engine.listener import LIVE, OFFLINE
from engine.livebench import demo_sound
from engine.recognizer import recognise_file
from engine.taps import token_pieces
from engine.token_words import (
    LONG_GAP,
    STEP,
    TokenBridge,
    TokenFrames,
    TokenListener,
    has_bridge,
    open_frames,
    open_listener,
)
from engine.types import ArtefactError, Provider, SottovoceError
from engine.vad import SAMPLE_RATE_HZ, WINDOW
from engine.whisper_decoder import TRAILING_S
from models.bridge import PLACES, Bridge
from models.checkpoint import Bundle
from models.export_bridge import write
from models.manifest import update_row
from tests.test_models_bridge import CODEC, CONFIG, as_trained, filled, pair, some_codes

BUNDLE = filled(Bundle.new(CODEC))


@pytest.fixture(scope="module")
def model() -> Bridge:
    return as_trained(CONFIG, BUNDLE, seed=3)


@pytest.fixture(scope="module")
def assets(model: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    write(model, BUNDLE, [pair(1)], folder / "bridge.onnx")
    row = {"name": "bridge", "file": "bridge.onnx", "kind": "model", "license": "MIT"}
    update_row(manifest=folder / "manifest.toml", **row)
    return folder


@pytest.fixture(scope="module")
def bridge(assets: Path) -> TokenBridge:
    return TokenBridge(assets / "bridge.onnx")


@torch.no_grad()
def whole(model: Bridge, codes: np.ndarray) -> np.ndarray:
    """What the bridge makes of a whole stream, without places."""
    late = CONFIG.lookahead
    stream = torch.cat([torch.from_numpy(codes).long(), model.blank().repeat(late, 1)])[None]
    frames: np.ndarray = model(stream, model.initial_state(1))[0][0, late:].numpy()
    return frames


def codes_of(count: int, seed: int = 2) -> np.ndarray:
    """[T, all rows] int16, as they come over the pipe."""
    return some_codes(count, seed).numpy().astype(np.int16)


@pytest.mark.parametrize("sizes", [[1], [5, 1, 20], [60]])
def test_a_window_is_cut_out_of_the_stream(model: Bridge, bridge: TokenBridge, sizes: list[int]) -> None:
    codes = codes_of(60)
    frames, at = TokenFrames(bridge), 0
    while at < len(codes):
        size = sizes[at % len(sizes)]
        frames.feed(at, codes[at : at + size])
        at += size
    frames.at = 20 * STEP + 5
    window = frames.window(30 * STEP, 0.1)
    assert window.shape == (31 + 5, CONFIG.width)  # a frame that is begun is there, and a tenth of a second after it
    told = whole(model, codes[:, : bridge.rows])
    np.testing.assert_allclose(window[:31], told[20:51] + bridge.places[:31], atol=1e-3)


def test_the_end_of_what_came_is_there_before_more_comes(model: Bridge, bridge: TokenBridge) -> None:
    codes = codes_of(40)
    frames = TokenFrames(bridge)
    frames.feed(0, codes)
    asked = frames.window(40 * STEP, 0.2)
    told = whole(model, np.concatenate([codes[:, : bridge.rows], np.tile(bridge.blank, (10, 1))]))
    np.testing.assert_allclose(asked, told + bridge.places[:50], atol=1e-3)
    more = codes_of(20, seed=7)
    frames.feed(40, more)  # asking changed nothing
    both = whole(model, np.concatenate([codes, more])[:, : bridge.rows])
    np.testing.assert_allclose(frames.window(60 * STEP, 0.0), both + bridge.places[:60], atol=1e-3)


def test_hops_that_did_not_come_are_silence_and_those_that_come_twice_count_once(
    model: Bridge, bridge: TokenBridge
) -> None:
    codes = codes_of(50)
    frames = TokenFrames(bridge)
    frames.feed(0, codes[:20])
    frames.feed(10, codes[10:20])
    frames.feed(30, codes[30:])
    filled = codes[:, : bridge.rows].astype(np.int64)
    filled[20:30] = bridge.blank
    np.testing.assert_allclose(frames.window(50 * STEP, 0.0), whole(model, filled) + bridge.places[:50], atol=1e-3)


def test_after_a_long_gap_the_bridge_begins_anew(model: Bridge, bridge: TokenBridge) -> None:
    codes, later = codes_of(30), 30 + LONG_GAP + 1000
    frames = TokenFrames(bridge)
    frames.feed(0, codes)
    frames.feed(later, codes)
    told = whole(model, codes[:, : bridge.rows])
    frames.at = 10 * STEP
    np.testing.assert_allclose(frames.window(20 * STEP, 0.0), told[10:30] + bridge.places[:20], atol=1e-3)
    frames.at = later * STEP
    np.testing.assert_allclose(frames.window(30 * STEP, 0.0), told + bridge.places[:30], atol=1e-3)
    frames.at = (later - 500) * STEP
    silent = frames.window(20 * STEP, 0.0) - bridge.places[:20]
    assert np.ptp(silent, axis=0).max() < 1e-5


def test_what_nobody_asks_for_any_more_is_let_go(bridge: TokenBridge) -> None:
    frames = TokenFrames(bridge)
    for at in range(0, 600, 10):
        frames.feed(at, codes_of(10, seed=at))
        frames.forget(max(0, at - 50) * STEP)
    assert sum(len(chunk) for _, chunk in frames._chunks) < 75


def test_no_window_is_longer_than_its_places(bridge: TokenBridge) -> None:
    frames = TokenFrames(bridge)
    frames.feed(0, codes_of(PLACES + 10))
    assert frames.window((PLACES + 10) * STEP, 0.5).shape == (PLACES, CONFIG.width)


class Detector:
    """Hears a voice wherever there is any sound."""

    def __call__(self, window: np.ndarray) -> float:
        assert len(window) == WINDOW
        return 0.9 if np.abs(window).max() > 0.01 else 0.0

    def reset(self) -> None:
        pass


class Reader:
    """Takes the windows that it is asked about, and says one word of each."""

    def __init__(self, frames: TokenFrames) -> None:
        self.frames = frames
        self.asked: list[tuple[int, int, np.ndarray]] = []

    def transcribe(
        self, samples: np.ndarray, prefix: Sequence[int], language: str | None, most_tokens: int
    ) -> Hypothesis:
        self.asked.append((self.frames.at, len(samples), self.frames.window(len(samples), 0.5)))
        words = () if prefix else (Heard("word", 0.5, 0.9, 0.9, (7,)),)
        return Hypothesis(words, "en")


@pytest.mark.parametrize("pace", [LIVE, OFFLINE])
def test_the_decoder_is_given_the_frames_of_what_the_listener_asks_about(
    model: Bridge, bridge: TokenBridge, pace: object
) -> None:
    spoken = np.zeros(12 * SAMPLE_RATE_HZ, np.float32)
    for start_s in (1, 5, 9):
        spoken[start_s * SAMPLE_RATE_HZ : (start_s + 1) * SAMPLE_RATE_HZ] = 0.1
    codes = codes_of(len(spoken) // STEP)
    told = whole(model, codes[:, : bridge.rows])
    frames = TokenFrames(bridge)
    reader = Reader(frames)
    listener = TokenListener(reader, Detector(), frames, "en", pace)  # type: ignore[arg-type]
    words = []
    for at in range(0, len(codes), 5):
        frames.feed(at, codes[at : at + 5])
        listener.feed(spoken[at * STEP : (at + 5) * STEP])
        while (update := listener.advance()) is not None:
            words += update.final
    listener.finish()
    while (update := listener.advance()) is not None:
        words += update.final
    assert len(words) == 3
    for at, count, window in reader.asked:
        first, last = at // STEP, -(-(at + count) // STEP)
        settled = last - first - CONFIG.lookahead  # what had its look ahead when it was asked for
        expected = told[first : first + settled] + bridge.places[:settled]
        np.testing.assert_allclose(window[:settled], expected, atol=1e-3)
    assert len({at for at, _, _ in reader.asked}) >= 3


def test_only_tokens_of_its_own_codec_and_whisper_are_taken(
    assets: Path, bridge: TokenBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(assets))
    assert has_bridge()
    assert open_frames(None, "base") is None
    frames = open_frames(bridge.codec_id, "base")
    assert frames is not None
    listener = open_listener(Reader(frames), Detector(), frames, "en", False, 0)
    assert isinstance(listener, TokenListener)
    assert listener.pace == OFFLINE
    with pytest.raises(ArtefactError, match="another codec"):
        open_frames("0" * 64, "base")
    with pytest.raises(ArtefactError, match="base alone"):
        open_frames(bridge.codec_id, "small")


def test_places_hold_the_longest_segment_and_the_silence_after_it() -> None:
    """Also the longer silence that is given where Whisper loops."""
    for pace in (LIVE, OFFLINE):
        assert (pace.max_s + TRAILING_S[0]) * 50 <= PLACES


@pytest.mark.weights
@pytest.mark.skipif(not has_bridge(), reason="the artefacts hold no bridge from tokens to words")
def test_a_file_is_captioned_from_its_tokens() -> None:
    """That there are words, in their places; how many of them are right is told by models.evaluate."""
    models = shared_models(Provider.CPU)
    sound = demo_sound(SAMPLE_RATE_HZ)[: 12 * SAMPLE_RATE_HZ]
    words = recognise_file(token_pieces(models, [sound]), "en", codec_id=models.info.codec_id)
    starts = [w.start_s for w in words]
    assert len(starts) > 10
    assert starts == sorted(starts)
    assert all(0.5 < w.end_s <= len(sound) / SAMPLE_RATE_HZ + 0.1 for w in words)
    with pytest.raises(SottovoceError, match="another codec"):
        recognise_file([(np.zeros(320, np.float32), np.zeros((60, 1), np.int16))], "en", codec_id="0" * 64)
