"""The quantisers' search with int8 codebooks: the choices of the search in floats, whatever the level of its input."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from engine.artefacts import load_onnx
from models.codec import Codec, Encoder
from models.config import ModelConfig
from models.export import export_part
from models.integer_search import search_in_integers, with_integer_search
from models.quantize import GRID, BandQuantizer, encode_together, search_books

CONFIG = replace(ModelConfig(), codebook=64, front_units=64)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """An encoder with codebooks over the whole of the grid: nothing fitted, so every residual stays large."""
    torch.manual_seed(0)
    encoder = Codec(CONFIG).encoder
    for quantizer in (encoder.speech, encoder.background):
        for band in range(CONFIG.bands):
            book = quantizer.books(band)
            book.copy_(torch.randint(-127, 128, book.shape) / GRID)
    return encoder


def ties(quantizers: list[BandQuantizer], frames: list[Tensor]) -> int:
    return sum(quantizer.count_ties(part, 1e-5) for quantizer, part in zip(quantizers, frames, strict=True))


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0])
def test_it_finds_what_the_search_in_floats_finds(encoder: Encoder, level: float) -> None:
    quantizers = [encoder.speech, encoder.background]
    for _ in range(20):
        frames = [level * torch.randn(1, CONFIG.hop) for _ in quantizers]
        wanted = encode_together(quantizers, frames, search_books)
        got = encode_together(quantizers, frames, search_in_integers)
        differing = sum(int((a != b).sum()) for a, b in zip(wanted, got, strict=True))
        assert differing <= ties(quantizers, frames)


def test_an_entry_itself_is_found_in_the_first_stage(encoder: Encoder) -> None:
    shapes = torch.cat([encoder.speech.books(band)[0, 17] for band in range(CONFIG.bands)])[None].repeat(2, 1)
    found = search_in_integers([encoder.speech, encoder.background], shapes)
    at = 0
    for group in encoder.speech.groups:
        assert found[at][: len(group)].tolist() == [[17]] * len(group)
        at += CONFIG.speech_stages


class _Search(nn.Module):
    """The least that can be exported: coefficients of a hop -> codes."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = CONFIG, encoder

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"last": torch.zeros(batch, CONFIG.hop)}

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        pair = [self.encoder.speech, self.encoder.background]
        codes = encode_together(pair, [x, state["last"]], self.encoder.search)
        return codes[0][None], codes[1][None], {"last": x}


def test_the_exported_graph_multiplies_int8_alone_and_finds_the_same(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "search.onnx"
    export_part(_Search(encoder), {"x": torch.zeros(1, CONFIG.hop)}, ["codes_s", "codes_b"], {}, path)
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == CONFIG.speech_stages * len(encoder.speech.groups)
    model, last = load_onnx(path), torch.zeros(1, CONFIG.hop)
    for x in 0.1 * torch.randn(30, 1, CONFIG.hop):
        got = model.step(x=x.numpy())
        wanted = encode_together([encoder.speech, encoder.background], [x, last])
        found = [torch.from_numpy(got[name]).reshape(1, -1) for name in ("codes_s", "codes_b")]
        differing = sum(int((a != b).sum()) for a, b in zip(wanted, found, strict=True))
        assert differing <= ties([encoder.speech, encoder.background], [x, last])
        last = x


def test_only_what_is_exported_searches_in_integers(encoder: Encoder) -> None:
    part = copy.deepcopy(encoder)
    with_integer_search(nn.ModuleDict({"part": part}))
    assert part.search is search_in_integers and encoder.search is search_books
