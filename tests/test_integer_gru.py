"""GRUs for export with int8 weights: as exact as the ones in floats, whatever the level of their input."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from engine.artefacts import load_onnx
from models.checkpoint import snapped
from models.config import ModelConfig
from models.export import export_part
from models.integer_gru import LARGE_UNITS, IntegerGRU, with_integer_grus


@pytest.fixture(scope="module")
def gru() -> nn.GRU:
    torch.manual_seed(0)
    gru = nn.GRU(LARGE_UNITS, LARGE_UNITS, 2, batch_first=True)
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter.copy_(snapped(parameter * 3))
    return gru


class _Part(nn.Module):
    """The least that can be exported: one GRU over the two frames of a hop."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.config, self.gru = ModelConfig(), gru

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"gru": torch.zeros(2, batch, LARGE_UNITS)}

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        out, new = self.gru(x, state["gru"])
        return out, {"gru": new}


@pytest.mark.parametrize("level", [0.0, 1e-5, 1.0, 20.0])
def test_it_computes_what_the_gru_computes(gru: nn.GRU, level: float) -> None:
    state, mine = torch.zeros(2, 1, LARGE_UNITS), torch.zeros(2, 1, LARGE_UNITS)
    whole = IntegerGRU(gru, 2)
    with torch.no_grad():
        for x in level * torch.randn(20, 1, 2, LARGE_UNITS):
            wanted, state = gru(x, state)
            got, mine = whole(x, mine)
            assert torch.allclose(got, wanted, atol=2e-5 * max(1.0, level))
            assert torch.allclose(mine, state, atol=2e-5 * max(1.0, level))


def test_the_exported_graph_has_no_floats_to_read_and_computes_the_same(gru: nn.GRU, tmp_path: Path) -> None:
    example = {"x": torch.zeros(1, 2, LARGE_UNITS)}
    export_part(_Part(gru), example, ["y"], {}, tmp_path / "gru.onnx")
    graph = onnx.load(str(tmp_path / "gru.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert "GRU" not in kinds and kinds.count("MatMulIntegerToFloat") == 6
    assert (tmp_path / "gru.onnx").stat().st_size < 1.1 * sum(p.numel() for p in gru.parameters())
    model, state = load_onnx(tmp_path / "gru.onnx"), torch.zeros(2, 1, LARGE_UNITS)
    with torch.no_grad():
        for x in torch.randn(50, 1, 2, LARGE_UNITS):
            wanted, state = gru(x, state)
            assert abs(torch.from_numpy(model.step(x=x.numpy())["y"]) - wanted).max() < 2e-5


def test_small_ones_stay_as_they_are() -> None:
    part = nn.ModuleDict({"small": nn.GRU(64, 64), "large": nn.GRU(LARGE_UNITS, LARGE_UNITS)})
    assert with_integer_grus(part, 2) and not with_integer_grus(part["small"], 2)
    assert isinstance(part["small"], nn.GRU) and isinstance(part["large"], IntegerGRU)
