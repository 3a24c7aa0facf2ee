"""The front: its transform loses nothing, its bands are libdf's, and pretrained weights land where they belong."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from models.ancestors import _fill, _weighted
from models.config import ModelConfig
from models.front import DEEP_BINS, ERB_BANDS, TAPS, Front, TimeConv, erb_widths

CONFIG = ModelConfig()


class Open(nn.Module):
    """A network that lets everything through."""

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"nothing": torch.zeros(batch, 1)}

    def forward(self, erb: Tensor, deep: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        frames = erb.shape[2]
        filters = torch.zeros(len(erb), TAPS * 2, frames, DEEP_BINS)
        filters[:, 2 * (TAPS - 1)] = 1.0  # the newest frame, as it is
        return torch.ones(len(erb), frames, ERB_BANDS), filters, {"nothing": state["nothing"]}


def test_an_open_network_gives_the_sound_back_after_the_declared_lag() -> None:
    front = Front(CONFIG)
    front.network = Open()  # type: ignore[assignment]
    x = torch.randn(2, 10 * CONFIG.hop) * 0.1
    voice, _ = front(x, front.initial_state(2))
    assert torch.allclose(voice[:, CONFIG.front_lag :], x[:, : -CONFIG.front_lag], atol=1e-5)


def test_bands_are_those_the_weights_were_trained_with() -> None:
    widths = erb_widths()
    assert len(widths) == ERB_BANDS
    assert sum(widths) == 481
    assert widths == [2] * 13 + [5, 5, 7, 7, 8, 10, 12, 13, 15, 18, 20, 24, 28, 31, 37, 42, 50, 56, 67]


@pytest.mark.parametrize("gain", [0.1, 3.0])
def test_features_hardly_depend_on_how_loud_the_sound_is(gain: float) -> None:
    """The network hears the same sound at -20 dB and at +10 dB, once the level has been followed."""
    front = Front(CONFIG)
    heard: list[Tensor] = []

    class Listening(Open):
        def forward(
            self, erb: Tensor, deep: Tensor, state: dict[str, Tensor]
        ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            heard.append(deep)
            return super().forward(erb, deep, state)

    front.network = Listening()  # type: ignore[assignment]
    x = torch.randn(1, 1500 * CONFIG.hop) * 0.05
    for scale in (1.0, gain):
        front(x * scale, front.initial_state(1))
    first, second = (sound[:, :, -40:] for sound in heard)
    assert float((second.square().mean() / first.square().mean()).log10().abs()) < 0.05


def test_a_gru_from_onnx_computes_the_same_in_torch() -> None:
    """ONNX and torch order the gates differently."""
    units, frames = 8, 5
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 3 * units, units), "R": (1, 3 * units, units), "B": (1, 6 * units)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=units, linear_before_reset=1)],
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [frames, 1, units])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.standard_normal((frames, 1, units)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x})[0][:, 0, 0]
    layer = nn.GRU(units, units, batch_first=True)
    with torch.no_grad():
        _fill(layer, iter(_weighted(graph)))
        found = layer(torch.from_numpy(x).transpose(0, 1))[0][0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_weights_of_another_shape_are_refused() -> None:
    layer = TimeConv(1, 4, (3, 3))
    with pytest.raises(ValueError, match="do not fit"), torch.no_grad():
        _fill(layer, iter([("Conv", {"1": np.zeros((4, 2, 3, 3), np.float32)})]))
