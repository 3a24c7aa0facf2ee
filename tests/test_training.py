"""Mixing, losses, and that a few steps of training learn something."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.mix import active_rms
from engine.types import SottovoceError
from models.checkpoint import Bundle, load_shipped, save_bundle
from models.config import ModelConfig
from models.feed import Feed, through_tokens
from models.losses import error_ratio_db, separation_loss, si_sdr_db
from models.mixing import RATE_HZ, MixConfig, Mixer
from models.perceptual import LoudnessDistance
from models.quantize import fit
from models.settings import read_settings
from models.shards import Clip
from models.train import learning_rate, loss_of, resumed

SETTINGS = Path(__file__).parent.parent / "models" / "train.toml"


def clips(kind: str, count: int) -> list[Clip]:
    random = np.random.default_rng(len(kind))
    made = []
    for number in range(count):
        time = np.arange(3 * RATE_HZ) / RATE_HZ
        if kind == "speech":  # a buzz that comes and goes
            tone = np.sign(np.sin(2 * np.pi * (110 + 30 * number) * time)) * (np.sin(2 * np.pi * 3 * time) > 0)
        else:
            tone = random.standard_normal(len(time)) * 0.3
        made.append(Clip((tone * 8000).astype(np.int16), f"{kind}{number}", f"class{number}", "test", ""))
    return made


@pytest.fixture
def mixer() -> Mixer:
    return Mixer(clips("speech", 3), clips("noise", 3), MixConfig(seconds=1.0), seed=3)


def test_same_seed_same_mixtures() -> None:
    pairs = [Mixer(clips("speech", 2), clips("noise", 2), MixConfig(seconds=1.0), seed=5).batch(4) for _ in range(2)]
    np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
    np.testing.assert_array_equal(pairs[0][1], pairs[1][1])


def test_mixtures_are_finite_never_clip_and_differ(mixer: Mixer) -> None:
    mixture, voice = mixer.batch(40)
    assert np.isfinite(mixture).all()
    assert np.isfinite(voice).all()
    assert np.abs(mixture).max() <= 1.0
    assert len({m.tobytes() for m in mixture}) == 40


def test_signal_to_noise_ratio_is_as_drawn() -> None:
    config = MixConfig(seconds=2.0, snr_db=(6.0, 6.0), babble=0, room=0, microphone=0, clean=0, no_voice=0)
    mixture, voice = Mixer(clips("speech", 2), clips("noise", 2), config, seed=1).batch(8)
    for m, v in zip(mixture, voice, strict=True):
        snr = 20 * np.log10(active_rms(v) / np.sqrt(np.mean((m - v) ** 2)))
        assert abs(snr - 6.0) < 0.2


def test_no_voice_means_silence_as_the_target() -> None:
    mixture, voice = Mixer(clips("speech", 2), clips("noise", 2), MixConfig(seconds=1.0, no_voice=1.0), seed=1).batch(4)
    assert not voice.any()
    assert mixture.any()


def test_losses_prefer_the_better_estimate() -> None:
    torch.manual_seed(0)
    voice = torch.randn(2, 16000) * 0.1
    mixture = voice + torch.randn(2, 16000) * 0.1
    near, far = voice + 0.01 * torch.randn(2, 16000), voice + 0.05 * torch.randn(2, 16000)
    ear = LoudnessDistance(16_000)
    assert separation_loss(near, voice, mixture, ear) < separation_loss(far, voice, mixture, ear)
    assert error_ratio_db(torch.zeros(2, 16000), torch.zeros(2, 16000), mixture) < -30  # silence is a legal target
    assert float(si_sdr_db(2.5 * near, voice).mean()) == pytest.approx(20.0, abs=0.5)  # scale-invariant


def test_training_on_one_batch_lowers_its_loss(mixer: Mixer) -> None:
    torch.manual_seed(1)
    config = replace(ModelConfig(), codebook=16, speech_stages=2, background_stages=1, refiner_units=32)
    bundle = Bundle.new(config)
    frames = torch.randn(400, config.hop) * 0.05
    for quantizer in (bundle.codec.encoder.speech, bundle.codec.encoder.background):
        fit(quantizer, frames, iterations=1)
    mixture, voice = (torch.from_numpy(x) for x in mixer.batch(2))
    with torch.no_grad():
        _, speech, background = through_tokens(bundle, mixture)
    clips = torch.stack([mixture, voice, speech, background])
    optimizer = torch.optim.AdamW(bundle.refiner.parameters(), lr=4e-3)
    losses = []
    for _ in range(6):
        loss = loss_of(bundle, clips, LoudnessDistance(16_000))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(p.grad is not None for p in bundle.refiner.parameters())


def test_learning_rate_warms_up_rests_and_comes_down() -> None:
    settings = replace(read_settings(SETTINGS), warmup_steps=10, decay_share=0.5)
    assert learning_rate(0, 0.0, settings) == pytest.approx(0.1)
    assert learning_rate(50, 0.4, settings) == 1.0
    assert learning_rate(50, 1.0, settings) == pytest.approx(0.05)


@pytest.mark.parametrize("change", ["sped = 1", "seed = 1.5", 'batch = "16"'])
def test_settings_refuse_what_they_do_not_know(change: str, tmp_path: Path) -> None:
    key = change.split(" = ")[0]
    lines = [line for line in SETTINGS.read_text().splitlines() if not line.startswith(f"{key} ")]
    (tmp_path / "bad.toml").write_text("\n".join([*lines, change]))
    with pytest.raises(ValueError, match=key):
        read_settings(tmp_path / "bad.toml")


@pytest.fixture
def feed(mixer: Mixer, tmp_path: Path) -> Iterator[Feed]:
    """A feed whose worker dies at once: its checkpoint is missing."""
    with Feed(tmp_path / "none.npz", mixer.config, rows=2, pool_clips=4, workers=1, seed=1) as feed:
        yield feed


def test_a_feed_whose_worker_died_says_so(feed: Feed) -> None:
    with pytest.raises(SottovoceError, match="has ended"):
        feed.draw()


class Ended:
    """A worker that is no more."""

    def is_alive(self) -> bool:
        return False

    terminate = join = is_alive


def test_a_feed_draws_from_the_latest_clips_and_none_too_often(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    made: queue.Queue[tuple[int, float, np.ndarray]] = queue.Queue()
    monkeypatch.setattr(feed, "_made", made)
    monkeypatch.setattr(feed, "_processes", [])
    for number in range(14):
        made.put((number % 2, 1.0 + number, np.full((2, 4, 320), number, np.float16)))
    drawn = torch.stack([feed.draw() for _ in range(42)])
    assert drawn.shape == (42, 4, 2, 320)
    assert set(drawn.unique().tolist()) == {12.0, 13.0}  # of all batches the pool holds two
    assert feed.made_clips == 28
    assert feed.cpu_s == 13.0 + 14.0  # of two workers, what each said last
    monkeypatch.setattr(feed, "_processes", [Ended()])
    with pytest.raises(SottovoceError, match="has ended"):
        feed.draw()  # another time would be one too many for what there is


def test_a_checkpoint_of_other_networks_is_kept_aside_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "full.npz"
    save_bundle(load_shipped(), small)
    assert resumed(tmp_path / "full.pt") is not None
    with np.load(small) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith("refiner.opinion.")}
    np.savez(small, **kept)
    assert resumed(tmp_path / "full.pt") is None
    assert "does not fit" in capsys.readouterr().out
    assert (tmp_path / "before.npz").exists()
    assert not small.exists()
