"""What the side thread hands to the recogniser: the sound of the tap, and the tokens where words come from them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine import side as module
from engine.artefacts import Models, load_models
from engine.hop import DROP, Pipeline
from engine.meters import LiveHop
from engine.side import LEFT_FOR_RECOGNISER, Side
from engine.types import CaptionTap, EngineConfig, Samples, UsageError
from tests.tiny_models import HOP, build


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models("cpu", build(tmp_path_factory.mktemp("tiny")))


class Recogniser:
    """Keeps what it is given."""

    def __init__(self, *_: object, **settings: Any) -> None:
        self.settings = settings
        self.fed: list[tuple[Samples, np.ndarray | None]] = []
        self.watched = self.left_out = 0

    def feed(self, samples: Samples, codes: np.ndarray | None = None) -> None:
        self.fed.append((samples, codes))

    def watch(self, samples: Samples) -> None:
        self.watched += len(samples)

    def leave_out(self, count: int) -> None:
        self.left_out += count


def captioned(tiny: Models, monkeypatch: pytest.MonkeyPatch, bridge: bool = True, **config: Any) -> Side:
    """A side with captions that nothing runs behind."""
    monkeypatch.setattr(module, "Recognizer", Recogniser)
    monkeypatch.setattr(module, "has_bridge", lambda: bridge)
    made = Side(EngineConfig(captions=True, **config), tiny.info, lambda event: None, lambda: "running", lambda: None)
    made.open(None)  # type: ignore[arg-type]  # no sound runs
    return made


def hops(tiny: Models, count: int) -> list[LiveHop]:
    pipeline, random = Pipeline(tiny, DROP), np.random.default_rng(1)
    found = []
    for number in range(count):
        sound = (0.1 * random.standard_normal(HOP)).astype(np.float32)
        models = pipeline.step(sound) if number != 2 else None  # they were out of service for a moment
        found.append(LiveHop(0.02 * number, sound, sound, sound, models, 0.0, 0.1))
    return found


def given(side: Side, some: list[LiveHop]) -> Recogniser:
    for hop in some:
        side.take(hop)
    side._drain_queue()
    assert isinstance(side.recognizer, Recogniser)
    return side.recognizer


def test_words_from_tokens_are_given_the_tokens_with_the_voice(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    some = hops(tiny, 5)
    recogniser = given(captioned(tiny, monkeypatch, tap=CaptionTap.TOKENS), some)
    assert recogniser.settings["codec_id"] == tiny.info.codec_id
    there = [hop for hop in some if hop.models is not None]
    assert len(recogniser.fed) == len(there) == 4
    assert recogniser.left_out == HOP  # silence stands for what has no tokens
    for hop, (heard, codes) in zip(there, recogniser.fed, strict=True):
        assert hop.models is not None
        assert codes is not None
        assert np.array_equal(codes, hop.models.codes_s[:, None])
        assert np.array_equal(heard, hop.models.speech)


def test_that_there_are_no_tokens_any_more_is_told_once(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    side = captioned(tiny, monkeypatch, tap=CaptionTap.TOKENS)
    problems: list[str] = []
    monkeypatch.setattr(side, "_problem", lambda text, state=None: problems.append(text))
    out = [hop._replace(models=None) for hop in hops(tiny, 3)]
    given(side, out)
    assert problems == []  # they may come back
    side._loop = SimpleNamespace(dead=True)  # type: ignore[assignment]
    given(side, out)
    assert len(problems) == 1
    assert "--from enhanced" in problems[0]


@pytest.mark.parametrize("tap", [CaptionTap.RAW, CaptionTap.ENHANCED])
def test_words_from_sound_are_given_no_tokens(tiny: Models, monkeypatch: pytest.MonkeyPatch, tap: CaptionTap) -> None:
    some = hops(tiny, 2)
    recogniser = given(captioned(tiny, monkeypatch, tap=tap), some)
    assert recogniser.settings["codec_id"] is None
    for hop, (heard, codes) in zip(some, recogniser.fed, strict=True):
        assert codes is None
        assert hop.models is not None
        mixed = hop.models.speech + LEFT_FOR_RECOGNISER * hop.models.background
        assert np.array_equal(heard, hop.heard if tap is CaptionTap.RAW else mixed)


@pytest.mark.parametrize("adapter", [False, True])
def test_words_come_through_the_quantiser_where_that_is_asked_for(
    tiny: Models, monkeypatch: pytest.MonkeyPatch, adapter: bool
) -> None:
    assert given(captioned(tiny, monkeypatch, adapter=adapter), hops(tiny, 1)).settings["adapter"] is adapter


def test_without_a_bridge_the_tokens_sound_is_heard_where_it_is_all_there_is(
    tiny: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = captioned(tiny, monkeypatch, bridge=False, tap=CaptionTap.TOKENS, tokens_only=True)
    recogniser = given(side, hops(tiny, 1))
    assert recogniser.settings["codec_id"] is None
    assert recogniser.fed[0][1] is None
    with pytest.raises(UsageError, match="no bridge"):
        captioned(tiny, monkeypatch, bridge=False, tap=CaptionTap.TOKENS)


def test_words_from_tokens_want_the_whisper_of_the_bridge(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="base alone"):
        captioned(tiny, monkeypatch, tap=CaptionTap.TOKENS, whisper="small")
