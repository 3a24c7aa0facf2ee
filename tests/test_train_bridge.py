"""Training the bridge: blocks that come back, batches, that a handful is learned and Whisper is left as it is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from engine.types import SottovoceError
from engine.whisper_blocks import merged, run_blocks
from engine.whisper_decoder import encode_mel, stem_of
from models import token_pairs, train_bridge
from models.bridge import Bridge, BridgeConfig
from models.bridge_blocks import grown
from models.checkpoint import Bundle
from models.config import ModelConfig
from models.token_pairs import TokenPair, make_block, read_blocks, sources_of, voice_codes
from models.train_bridge import Asked, Hearer, Losses, Training, batch_of, load_trained, losses, stored_pairs
from models.train_words import IGNORED, Words
from models.word_pairs import Pair
from tests.test_models_bridge import filled
from tests.test_train_words import STARTS, WIDTH, hash_of

CODEC = ModelConfig(codebook=32)
CONFIG = BridgeConfig(width=WIDTH, inner=32, hidden=48, kernel=3, dilations=(1, 2), lookahead=2, own=1, rank=4)
END = 39


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return filled(Bundle.new(CODEC))


@pytest.fixture
def whisper() -> Whisper:
    torch.manual_seed(5)
    model = Whisper(ModelDimensions(8, 60, WIDTH, 2, 1, 40, 32, WIDTH, 2, 1)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.1)
    torch.nn.init.normal_(model.decoder.token_embedding.weight, std=0.5)
    return model


@pytest.fixture
def model(bundle: Bundle, whisper: Whisper) -> Bridge:
    """As training begins."""
    torch.manual_seed(1)
    made = Bridge(CONFIG, CODEC)
    made.take_books(bundle.codec.encoder.speech)
    made.own.take(whisper.encoder)
    return made


def stirred(model: Bridge) -> Bridge:
    """As after a training: its blocks are Whisper's no more."""
    with torch.no_grad():
        for weight in model.own.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    return model


def hearer(whisper: Whisper) -> Hearer:
    words = Words(whisper, STARTS)
    return Hearer(whisper.encoder, words)


def pairs(count: int = 24) -> list[TokenPair]:
    """Sounds of four levels, five frames each, at lengths of their own; frames that go with the level."""
    random = np.random.default_rng(1)
    (stems, sounds), found = random.standard_normal((2, 4, WIDTH)), list[TokenPair]()
    for number in range(count):
        said = random.integers(4, size=5 + number % 3).repeat(5)
        codes = np.full((len(said), CODEC.bands * (1 + CODEC.speech_stages)), -1, np.int16)
        codes[:, : CODEC.bands] = 20 + 10 * said[:, None]
        tokens = np.array([10 + number % 3, END], np.int32)
        frames = (each[said].astype(np.float16) for each in (stems, sounds))
        found.append(TokenPair(codes, *frames, tokens, "ru" if number % 4 else "en", 5.0))
    return found


def test_a_batch_is_filled_up_with_silence(whisper: Whisper, model: Bridge) -> None:
    some = pairs(3)
    batch = batch_of(some, Words(whisper, STARTS), model.blank())
    assert batch.codes.shape == (3, 35, CONFIG.rows(CODEC))
    assert batch.words.clean.shape == (3, 35, WIDTH)
    assert batch.words.there.sum(1).tolist() == [25, 30, 35]
    assert batch.codes[0, :25].tolist() == some[0].codes[:, : CONFIG.rows(CODEC)].tolist()
    assert batch.codes[0, 25:].tolist() == [model.blank().tolist()] * 10
    told = [token for token in batch.words.targets[1].tolist() if token != IGNORED]
    assert told == some[1].tokens.tolist()


def test_a_handful_of_pairs_is_learned_and_whisper_is_left_as_it_is(
    whisper: Whisper, model: Bridge, tmp_path: Path
) -> None:
    before = hash_of(whisper)
    some = pairs(12)
    training = Training(model, hearer(whisper), some, some, tmp_path)
    first = training.judge()
    for _ in range(100):
        training.one_step(1.0, Asked(frames=False))
    stem = training.judge()["stem"]
    assert stem < 0.3 * first["stem"]
    for _ in range(150):
        training.one_step(1.0, Asked())
    after = training.judge()
    assert after["distance"] < 0.9 * first["distance"]
    assert hash_of(whisper) == before
    assert not any(parameter.requires_grad for parameter in whisper.parameters())


def test_the_words_reach_every_weight_of_the_bridge(whisper: Whisper, model: Bridge, tmp_path: Path) -> None:
    frozen, some = hearer(whisper), pairs(6)
    training = Training(stirred(model), frozen, some, some, tmp_path)
    batch = batch_of(some, frozen.words, model.blank())
    losses(model, training.blocks, frozen.words, batch, training.measure, Asked()).words.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert all(float(weight.grad.abs().max()) > 0.0 for weight in model.parameters() if weight.grad is not None)
    assert all(weight.grad is None for weight in whisper.parameters())


@torch.no_grad()
def test_the_distance_is_none_for_whisper_and_one_for_its_mean(
    whisper: Whisper, model: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, some = hearer(whisper), pairs(9)
    training = Training(model, frozen, some, some, tmp_path)
    batch = batch_of(some, frozen.words, model.blank())
    stem, clean = batch.words.noisy, batch.words.clean
    monkeypatch.setattr(model, "whole", lambda codes: stem)
    monkeypatch.setattr(train_bridge, "run_blocks", lambda blocks, x, size: SimpleNamespace(left=clean))
    told = losses(model, training.blocks, frozen.words, batch, training.measure, Asked(words=None))
    assert float(told.distance) == float(told.stem) == 0.0
    stem_mean, mean = (train_bridge.frames_of(some, name).mean(0) for name in ("stem", "clean"))
    monkeypatch.setattr(model, "whole", lambda codes: stem_mean.expand_as(stem))
    left = mean.expand_as(clean)
    monkeypatch.setattr(train_bridge, "run_blocks", lambda blocks, x, size: SimpleNamespace(left=left))
    found = losses(model, training.blocks, frozen.words, batch, training.measure, Asked())
    assert float(found.distance) == pytest.approx(1.0, abs=0.02)
    assert float(found.stem) == pytest.approx(1.0, abs=0.02)
    assert float(found.words) > 0.0
    whole = train_bridge.STEM_WEIGHT * found.stem + found.distance + train_bridge.WORDS_WEIGHT * found.words
    assert float(found.total(Asked())) == pytest.approx(float(whole))
    assert float(found.total(Asked(frames=False))) == float(found.stem)


def test_a_step_cuts_time_into_blocks_of_the_length_that_is_asked(
    whisper: Whisper, model: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(model, hearer(whisper), pairs(6), pairs(6), tmp_path)
    sizes: list[int] = []

    def noted(blocks: object, x: torch.Tensor, size: int) -> object:
        sizes.append(size)
        return run_blocks(blocks, x, size=size)

    monkeypatch.setattr(train_bridge, "run_blocks", noted)
    for _ in range(20):
        training.joint_step(0.1)
    assert len(set(sizes)) > 2
    assert set(sizes) <= set(train_bridge.SIZES)


@torch.no_grad()
def test_training_begins_with_whispers_own_encoder(whisper: Whisper, model: Bridge) -> None:
    """Places are added before the blocks, and these are Whisper's, where its window is not longer than one of them."""
    mel = torch.randn(1, 8, 120)
    stem = stem_of(whisper.encoder, mel)
    heard = run_blocks(grown(whisper.encoder, model.own), stem + whisper.encoder.positional_embedding).left
    torch.testing.assert_close(heard, encode_mel(whisper.encoder, mel))
    torch.testing.assert_close(model.places(torch.arange(60)), whisper.encoder.positional_embedding)


@torch.no_grad()
def test_the_engine_grows_the_blocks_that_were_trained(whisper: Whisper, model: Bridge) -> None:
    before = hash_of(whisper)
    own = {name: weight.numpy() for name, weight in stirred(model).own.named_parameters()}
    x = torch.randn(1, 50, WIDTH)
    trained = run_blocks(grown(whisper.encoder, model.own), x, size=20).left
    torch.testing.assert_close(run_blocks(merged(whisper.encoder, own), x, size=20).left, trained)
    assert float((run_blocks(whisper.encoder, x, size=20).left - trained).abs().max()) > 0.1
    assert hash_of(whisper) == before


@torch.no_grad()
def test_what_reaches_the_decoder_is_the_length_of_its_keys_and_values(whisper: Whisper) -> None:
    hearing = Words(whisper, STARTS).hearing()
    frame = torch.randn(WIDTH)
    made = [
        getattr(block.cross_attn, part).weight @ frame for block in whisper.decoder.blocks for part in ("key", "value")
    ]
    length = float(torch.cat(made).square().sum())
    assert float((frame @ hearing).square().sum()) == pytest.approx(length, rel=0.01)


def test_a_run_goes_on_from_where_it_was(whisper: Whisper, model: Bridge, bundle: Bundle, tmp_path: Path) -> None:
    frozen, some = hearer(whisper), pairs(6)
    training = Training(model, frozen, some, some, tmp_path)
    assert not training.resume()
    training.one_step(1.0, Asked(words=None))
    training.report(1.0)
    again = Training(Bridge(CONFIG, CODEC), frozen, some, some, tmp_path)
    assert again.resume()
    assert again.step == 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    loaded = load_trained(tmp_path / "bridge.pt", bundle)
    assert torch.equal(loaded.enter.weight, model.enter.weight)
    other = Training(Bridge(BridgeConfig(width=WIDTH, inner=16), CODEC), frozen, some, some, tmp_path)
    with pytest.raises(SottovoceError, match="--fresh"):
        other.resume()
    again.run(0.0, 0.0)  # judges, logs and saves
    rows = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2
    assert rows[-1]["step"] >= 1
    assert {"stem", "distance", "words"} < set(rows[-1])


def test_the_convolutions_are_learned_alone_first(
    whisper: Whisper, model: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(model, hearer(whisper), pairs(6), pairs(6), tmp_path)
    asked: list[tuple[bool, float]] = []
    step = training.one_step

    def noted(rate: float, what: Asked) -> Losses:
        asked.append((what.frames, rate))
        return step(rate, what)

    monkeypatch.setattr(training, "one_step", noted)
    training.run(0.03, 0.01)
    kinds = [frames for frames, _ in asked]
    assert kinds == sorted(kinds)
    assert set(kinds) == {False, True}
    assert json.loads((tmp_path / "training.jsonl").read_text(encoding="utf-8"))["step"] == len(asked)


class Encoder:
    """Stands for the frozen one: a frame for 20 ms, with the level of the sound in it."""

    def stem(self, sound: np.ndarray) -> np.ndarray:
        return -self.frames(sound)

    def frames(self, sound: np.ndarray) -> np.ndarray:
        return np.full((-(-len(sound) // 320), 4), np.abs(sound).mean(), np.float16)

    def tokens(self, text: str, language: str) -> list[int]:
        return [len(text), END]


def test_blocks_hold_codes_as_a_sound_alone_gives_them(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    random = np.random.default_rng(2)
    drawn = [
        Pair(*(0.1 * random.standard_normal((2, length))).astype(np.float32), text, "en", "rain", 3.0)
        for length, text in ((6000, "one"), (3200, "three"), (4801, ""))
    ]
    with torch.no_grad():
        block = make_block(drawn, bundle, Encoder(), ["a-package", "another"])
    place = token_pairs.folder("train")
    place.mkdir(parents=True)
    (place / "0000.npz").write_bytes(block)
    back = list(read_blocks("train"))
    assert [len(pair.codes) for pair in back] == [19, 10, 16]
    for pair, each in zip(drawn, back, strict=True):
        assert each.clean.shape == (len(each.codes), 4)
        assert np.array_equal(each.stem, -each.clean)
        assert each.tokens.tolist() == [len(pair.text), END]
        assert np.array_equal(each.codes, voice_codes(bundle, [pair.noisy])[0])
        assert (each.language, each.snr_db) == ("en", 3.0)
    assert np.load(io.BytesIO(block))["codes"].dtype == np.int16
    assert len(stored_pairs("train")) == 3
    assert sources_of("train") == {"a-package", "another"}
    with pytest.raises(SottovoceError, match=r"token_pairs --split validation"):
        stored_pairs("validation")
    np.savez(place / "0001.npz", codes=np.zeros((1, 1)), frames=np.ones(1, int), counts=np.ones(1, int))
    for read in (stored_pairs, sources_of):
        with pytest.raises(SottovoceError, match="of another version; delete"):
            read("train")
