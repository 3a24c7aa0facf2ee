"""The residue's graph: as torch has it, what the watch makes of it, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine import residue
from engine.residue import ResidueReader, ResidueWatch
from engine.types import ArtefactError, SottovoceError
from models import export_words
from models.export_words import clouds, fisher_plane, load_shipped, make_honest, snap, summaries, write
from models.manifest import update_row
from models.noise_vq import NoiseVq, Sampling, VqConfig
from models.word_pairs import KINDS, Heard

WIDTH, RATE_HZ = 16, 16_000
FRAMES = 160


def pair(kind: int, seed: int) -> Heard:
    """Frames that lean to a side of their kind's own."""
    random = np.random.default_rng(seed)
    frames = random.standard_normal((FRAMES, WIDTH)) + 3.0 * np.eye(WIDTH)[kind]
    return Heard(frames.astype(np.float16), frames.astype(np.float16), np.array([1]), kind, 5.0, "en")


@pytest.fixture(scope="module")
def pairs() -> list[Heard]:
    return [pair(number % 3, number) for number in range(60)]


@pytest.fixture(scope="module")
def model() -> NoiseVq:
    torch.manual_seed(0)
    made = NoiseVq(VqConfig(width=WIDTH, latent=8, codes=32, heads=2, classes=len(KINDS), rank=2)).eval()
    snap(made)
    return made


@pytest.fixture(scope="module")
def folder(model: NoiseVq, pairs: list[Heard], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("assets")
    write(model, pairs, place / "residue.onnx")
    row = {"name": "residue", "file": "residue.onnx", "kind": "model", "license": "MIT"}
    update_row(manifest=place / "manifest.toml", **row)
    return place


@torch.no_grad()
def test_the_graph_says_what_torch_says(folder: Path, model: NoiseVq, pairs: list[Heard]) -> None:
    reader = ResidueReader(folder)
    for length in (2, 50, FRAMES):
        frames = pairs[1].noisy[:length].astype(np.float32)
        there = torch.ones(1, length, dtype=torch.bool)
        quantised = model.quantise(torch.from_numpy(frames)[None], there)
        logits = model.classifier(quantised.residue, torch.ones(quantised.indices.shape, dtype=torch.bool))
        reading = reader.read(frames)
        np.testing.assert_array_equal(reading.codes, quantised.indices[0].numpy())
        np.testing.assert_allclose(reading.chances, logits[0].softmax(0).numpy(), atol=1e-4)
        energy = quantised.residue.square().sum(2)[0].numpy()
        np.testing.assert_allclose(10 ** (reading.energy_db / 10), energy, atol=1e-3)
    np.testing.assert_allclose(reader.codebook, model.codebook.vectors.numpy(), atol=1e-3)
    assert reader.kinds == KINDS
    assert reader.recogniser == "base"


def test_an_odd_frame_at_the_end_changes_nothing(folder: Path, pairs: list[Heard]) -> None:
    reader = ResidueReader(folder)
    frames = pairs[0].noisy.astype(np.float32)
    even, odd = reader.read(frames[:100]), reader.read(frames[:101])
    np.testing.assert_array_equal(even.codes, odd.codes)
    assert even.point == odd.point


def test_points_lie_in_their_kinds_clouds(folder: Path, pairs: list[Heard]) -> None:
    reader = ResidueReader(folder)
    assert set(reader.clouds) == set(KINDS[:3])
    for each in pairs[:6]:
        cloud = reader.clouds[KINDS[each.kind]]
        off = np.subtract(reader.read(each.noisy[:100].astype(np.float32)).point, cloud.mean)
        assert off @ np.linalg.inv(cloud.covariance) @ off < 16.0  # four standard deviations


def test_the_plane_parts_kinds_and_clouds_tell_where_they_are() -> None:
    random = np.random.default_rng(3)
    kinds = np.repeat([0, 1, 2], 200)
    x = random.standard_normal((600, 6)).astype(np.float32) * np.array([9, 9, 1, 1, 1, 9], np.float32)
    x[kinds == 1, 2] += 8
    x[kinds == 2, 3] += 8
    plane, centre = fisher_plane(x, kinds)
    points = (x - centre) @ plane
    found = clouds(points, kinds)
    within = np.mean([np.cov(points[kinds == kind].T) for kind in range(3)], axis=0)
    np.testing.assert_allclose(within, np.eye(2), atol=0.05)
    for a in range(3):
        for b in range(a):
            assert np.hypot(*np.subtract(found[KINDS[a]][:2], found[KINDS[b]][:2])) > 4
    assert clouds(points[:10], kinds[:10]) == {}


def test_a_long_sound_is_summed_up_in_pieces(model: NoiseVq) -> None:
    x, kinds = summaries(model, [pair(0, 1), pair(1, 2)])
    assert x.shape == (2, 16)  # of 3.2 s each one piece of 2 s is whole
    assert kinds.tolist() == [0, 1]


class TestWatch:
    @pytest.fixture
    def watch(self, folder: Path) -> ResidueWatch:
        return ResidueWatch(ResidueReader(folder))

    def test_it_is_time_every_second_where_there_is_sound(self, watch: ResidueWatch) -> None:
        noise = 0.1 * np.random.default_rng(0).standard_normal(RATE_HZ // 2).astype(np.float32)
        watch.feed(noise, 8000)
        assert watch.take() is None
        watch.feed(noise, 16_000)
        sound = watch.take()
        assert sound is not None
        assert len(sound) == RATE_HZ
        np.testing.assert_array_equal(sound[-8000:], noise)
        told = watch.look(pair(1, 5).noisy[:100].astype(np.float32))
        assert told.time_s == 1.0
        assert told.noise_class in KINDS
        assert 0.0 < told.confidence <= 1.0
        assert len(told.energy_db) == len(told.codes) == 25
        assert watch.take() is None

    def test_the_end_of_a_sound_may_be_shorter(self, watch: ResidueWatch) -> None:
        watch.feed(np.full(6400, 0.1, np.float32), 6400)
        assert watch.take() is None
        assert watch.take(last=True) is not None
        assert len(watch.look(pair(1, 5).noisy[:20].astype(np.float32)).codes) == 10

    def test_no_more_than_two_seconds_are_looked_at(self, watch: ResidueWatch) -> None:
        watch.feed(np.full(5 * RATE_HZ, 0.1, np.float32), 5 * RATE_HZ)
        sound = watch.take()
        assert sound is not None
        assert len(sound) == 2 * RATE_HZ

    def test_silence_is_no_noise(self, watch: ResidueWatch) -> None:
        watch.feed(np.zeros(3 * RATE_HZ, np.float32), 3 * RATE_HZ)
        assert watch.take() is None
        watch.feed(np.full(100, 0.1, np.float32), 3 * RATE_HZ + 100)
        assert watch.take() is None

    def test_what_is_told_is_the_mean_of_the_last_looks(self, watch: ResidueWatch) -> None:
        frames = [pair(kind, 9).noisy[:100].astype(np.float32) for kind in (0, 1)]
        alone = [watch.reader.read(each) for each in frames]
        told = []
        for number, each in enumerate(frames):
            watch.feed(np.full(RATE_HZ, 0.1, np.float32), RATE_HZ * (number + 1))
            assert watch.take() is not None
            told.append(watch.look(each))
        assert told[0].point == pytest.approx(alone[0].point)
        both = np.sqrt(np.prod([reading.chances for reading in alone], axis=0))
        assert told[1].noise_class == watch.reader.kinds[int(both.argmax())]
        assert told[1].confidence == pytest.approx(float((both / both.sum()).max()), abs=1e-4)
        assert told[1].point == pytest.approx(np.mean([reading.point for reading in alone], axis=0))
        assert told[1].codes == tuple(alone[1].codes[-25:].tolist())


def test_another_graph_under_its_name_is_refused(folder: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(folder / "residue.onnx"))
    del graph.metadata_props[:]
    graph.metadata_props.add(key="role", value="encoder")
    onnx.save(graph, str(tmp_path / "residue.onnx"))
    update_row(name="residue", file="residue.onnx", kind="model", license="MIT", manifest=tmp_path / "manifest.toml")
    with pytest.raises(ArtefactError, match="install"):
        ResidueReader(tmp_path)


def test_a_graph_that_differs_from_torch_is_not_written(
    model: NoiseVq, pairs: list[Heard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_words, "TOLERANCE", -1.0)
    with pytest.raises(SottovoceError, match="differs"):
        write(model, pairs, tmp_path / "residue.onnx")


def test_training_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SottovoceError, match="train_words"):
        export_words.load_trained(tmp_path / "vq.pt")


def test_artefacts_without_it_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.toml").write_text("artefact = []\n", encoding="utf-8")
    monkeypatch.setenv("SOTTOVOCE_ASSETS", str(tmp_path))
    assert not residue.has_residue()


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_chances_are_as_likely_as_they_can_be_and_no_kind_changes(
    model: NoiseVq, pairs: list[Heard], scale: float
) -> None:
    ours = copy.deepcopy(model)
    some = [
        replace(pair, kind=(pair.kind + (number % 5 == 0)) % 3) for number, pair in enumerate(pairs)
    ]  # not all can be told
    x, kinds = summaries(ours, some)
    with torch.no_grad():
        ours.classifier.decide.weight.zero_()
        ours.classifier.decide.bias.zero_()
        for row in range(3):
            ours.classifier.decide.weight[row] = torch.from_numpy(x[kinds == row].mean(0) - x.mean(0))
        for _ in range(5):
            make_honest(ours, some)
        before = ours.classifier.decide(torch.from_numpy(x))
        for weight in ours.classifier.decide.parameters():
            weight *= scale
        again = make_honest(ours, some)
        after = ours.classifier.decide(torch.from_numpy(x))
    assert again == pytest.approx(1.0 / scale, rel=0.05)
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert torch.allclose(after, before, rtol=0.06, atol=0.01)


@pytest.mark.parametrize("sampling", ["mean", "transformer"])
def test_training_goes_on_from_the_shipped_graph(sampling: Sampling, pairs: list[Heard], tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = VqConfig(width=WIDTH, latent=8, codes=32, heads=2, sampling=sampling, classes=len(KINDS), rank=2)
    model = NoiseVq(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # equal ones, such as zeros, would be stored once
            weight += 0.01 * torch.randn_like(weight)
    snap(model)
    write(model, pairs, tmp_path / "residue.onnx")
    back = load_shipped(tmp_path / "residue.onnx")
    assert back.config == model.config
    ours, theirs = model.state_dict(), back.state_dict()
    learned = ("encoder.", "classifier.", "decoder.", "codebook.vectors")
    for name in (name for name in ours if name.startswith(learned)):
        assert torch.equal(ours[name], theirs[name]), name
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "residue.onnx").read_bytes()[:5000])
    for wrong in ("cut.onnx", "none.onnx"):
        with pytest.raises(SottovoceError, match="install Sottovoce again"):
            load_shipped(tmp_path / wrong)
