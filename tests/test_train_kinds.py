"""Teaching kinds of noise alone: what moves and what stands still, what is kept, and what training goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import train_kinds
from models.noise_vq import NoiseVq, VqConfig
from models.train_kinds import FRAMES, LEAST_TOKENS, KindTraining, pieces, some_of, told, train
from models.word_pairs import CLEAN, KINDS, UNKNOWN, Heard

WIDTH = 16
CONFIG = VqConfig(width=WIDTH, latent=8, codes=16, heads=2, sampling="mean", classes=len(KINDS))


def windows(count: int, seed: int = 0) -> list[Heard]:
    """Voices, half of them in one of three noises that lean to a side of their own."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        kind = number % 4
        clean = random.standard_normal((60 + 10 * (number % 6), WIDTH))
        noisy = clean + (3.0 * np.eye(WIDTH)[kind] if kind else 0.0)
        found.append(Heard(clean.astype(np.float16), noisy.astype(np.float16), np.array([9]), kind, 5.0, "en"))
    return found


@pytest.fixture
def model() -> NoiseVq:
    torch.manual_seed(1)
    return NoiseVq(CONFIG)


def states(model: NoiseVq, *parts: str) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith(parts)}


def test_kinds_are_learned_and_codes_and_latent_decoder_stand_still(model: NoiseVq, tmp_path: Path) -> None:
    before, still = told(model.eval(), windows(80, 1)), states(model, "decoder.", "codebook.vectors")
    after = train(model, windows(200), windows(80, 1), 0.1, tmp_path)
    assert after["told"] > before["told"] + 0.3
    for name, value in states(model, "decoder.", "codebook.vectors").items():
        assert torch.equal(value, still[name]), name
    rows = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["kinds_step"] > 10
    assert max(row["told"] for row in rows) == after["told"] == told(model, windows(80, 1))["told"]


def test_what_is_kept_is_the_mean_of_the_way(model: NoiseVq) -> None:
    training = KindTraining(model, windows(40), np.random.default_rng(0))
    for _ in range(12):
        training.one_step(1.0)
    last, mean = states(model, "encoder."), states(training.averaged(), "encoder.")
    assert any(not torch.equal(last[name], mean[name]) for name in last)
    training.keep_mean()
    kept = states(model, "encoder.")
    assert all(torch.equal(kept[name], mean[name]) for name in mean)


def test_a_stop_saves_and_the_next_run_goes_on_from_there(
    model: NoiseVq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    real, steps = KindTraining.one_step, list[float]()

    def stopped(self: KindTraining, rate: float) -> float:
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(rate)
        return real(self, rate)

    monkeypatch.setattr(KindTraining, "one_step", stopped)
    train(model, windows(40), windows(20, 1), 5.0, tmp_path / "words")
    again = train_kinds.begin()
    assert again.config == CONFIG
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_training_that_makes_it_worse_changes_nothing(
    model: NoiseVq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(model, windows(200), windows(80, 1), 0.1, tmp_path)
    before = states(model, "")
    wrong = [Heard(w.clean, w.noisy, w.tokens, (w.kind + 1) % 4, 5.0, "en") for w in windows(100)]
    train(model, wrong, windows(80, 1), 0.05, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in states(model, "").items())


def test_stretches_are_of_tokens_that_are_there() -> None:
    there = torch.zeros(40, 50, dtype=torch.bool)
    for row in range(40):
        there[row, : 1 + row] = True
    mask = some_of(there, np.random.default_rng(2))
    assert not (mask & ~there).any()
    assert all(min(row + 1, LEAST_TOKENS) <= int(mask[row].sum()) <= row + 1 for row in range(40))
    assert len({int(mask[row].int().argmax()) for row in range(20, 40)}) > 5


def test_pieces_of_both_sounds_are_from_one_place() -> None:
    long = np.arange(3 * FRAMES, dtype=np.float16)[:, None].repeat(WIDTH, axis=1)
    pairs = [Heard(long, long + 1, np.array([9]), 0, 5.0, "en"), *windows(1)]
    clean, noisy, there = pieces(pairs, np.random.default_rng(3))
    assert clean.shape == noisy.shape == (2, FRAMES, WIDTH)
    assert torch.equal(noisy[0], clean[0] + 1)
    assert there.sum(1).tolist() == [FRAMES, 60]


def test_unknown_kinds_are_not_asked_and_clean_is_counted(model: NoiseVq) -> None:
    some = [window for window in windows(12) if window.kind]
    clean, unknown = (
        [Heard(w.clean, w.noisy, w.tokens, KINDS.index(kind), 5.0, "en") for w in some] for kind in (CLEAN, UNKNOWN)
    )
    found = told(model.eval(), [*clean, *unknown])
    assert set(found) == {"told", "clean_or_not", CLEAN}
    assert found["told"] == found["clean_or_not"] == found[CLEAN]


def test_without_windows_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    assert train_kinds.main([]) == 1
    assert "models.word_pairs --windows" in capsys.readouterr().err
