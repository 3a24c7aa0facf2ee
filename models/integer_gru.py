"""A GRU for the exported graphs that reads its weights in int8 and is as exact as one in floats.

One frame at a time, a recurrent layer does little else than read its weights, and in int8 they are a quarter of the
bytes. Its inputs are not rounded to 8 bits: each is written with three digits of base 126, every digit is a row of one
integer product, and the rows are put together again, which is exact to 1e-6 of the largest input. A digit has 7 bits,
because the products of older processors (AVX2 without VNNI) overflow with 8.

    h ─► x 63, 63·126, 63·126² ─► round ─► less 126 × the row above ─► 3 rows of int8 ─► MatMulInteger ─► Σ of the rows
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

DIGITS, BASE, TOP, ZERO = 3, 126, 63, 64
LARGE_UNITS = 512  # from which on it is worth it: more nodes, fewer bytes
DOMAIN = "sottovoce"  # of the one operator that `in_integers` replaces
FAINTEST = 1e-6  # inputs below which the digits are of nothing


class _RowProduct(torch.autograd.Function):
    """Digits [M, N] (uint8, ZERO is zero) times the rows of a weight [K, N] whose rows lie on an int8 grid: [M, K]."""

    @staticmethod
    def forward(ctx: Any, digits: Tensor, weight: Tensor) -> Tensor:
        return (digits.float() - ZERO) @ weight.T

    @staticmethod
    def symbolic(g: Any, digits: Any, weight: Any) -> Any:
        out = g.op(f"{DOMAIN}::RowProduct", digits, weight)
        rows, count = digits.type().sizes()[0], weight.type().sizes()[0]
        out.setType(weight.type().with_sizes([rows, count]))
        return out


class IntegerGRU(nn.Module):
    """What an `nn.GRU` (batch first, one sequence) with weights on an int8 grid computes, frame by frame.

    Holds the very parameters of the GRU it is made of. For export: it has no gradient.
    """

    def __init__(self, gru: nn.GRU, frames: int) -> None:
        super().__init__()
        self.frames, self.layers = frames, gru.num_layers
        for name, parameter in gru.named_parameters():
            self.register_parameter(name, parameter)
        powers = TOP * float(BASE) ** torch.arange(DIGITS)
        one = torch.eye(DIGITS) - BASE * torch.diag(torch.ones(DIGITS - 1), -1)
        for count in {1, frames}:
            every = torch.eye(count)
            self.register_buffer(f"spread_{count}", torch.kron(every, powers[:, None]))
            self.register_buffer(f"borrow_{count}", torch.kron(every, one))
            self.register_buffer(f"gather_{count}", torch.kron(every, 1.0 / powers[None, :]))

    def _product(self, x: Tensor, scale: Tensor | None, kind: str, layer: int) -> Tensor:
        """x [M, N], at most one in size -> x * scale [M, 1] times a weight, plus its bias: [M, 3 * units]."""
        spread, borrow, gather = (self.get_buffer(f"{name}_{len(x)}") for name in ("spread", "borrow", "gather"))
        zero = torch.full((1,), float(ZERO))
        digits = torch.addmm(zero, borrow, torch.round(spread @ x)).to(torch.uint8)
        weight, bias = (self.get_parameter(f"{name}_{kind}_l{layer}") for name in ("weight", "bias"))
        rows = _RowProduct.apply(digits, weight)  # type: ignore[no-untyped-call]
        return torch.addmm(bias, gather if scale is None else gather * scale, rows)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [1, frames, N], state [layers, 1, units] -> outputs [1, frames, units], new state."""
        sequence, last = x[0], []
        for layer, hidden in enumerate(state[:, 0].split(1)):
            # what a layer puts out is at most one in size
            scale = None if layer else sequence.abs().amax(1, keepdim=True).clamp_min(FAINTEST)
            given = self._product(sequence if scale is None else sequence / scale, scale, "ih", layer)
            outputs = []
            for frame in range(self.frames):
                hidden = _gates(given[frame : frame + 1], self._product(hidden, None, "hh", layer), hidden)
                outputs.append(hidden)
            sequence = torch.cat(outputs)
            last.append(hidden)
        return sequence[None], torch.cat(last)[:, None]


def _gates(given: Tensor, own: Tensor, hidden: Tensor) -> Tensor:
    """Products of input and state [1, 3 * units], state [1, units] -> new state (Cho et al. 2014, as torch has it)."""
    units = hidden.shape[1]
    given_gates, given_new = given.split([2 * units, units], 1)
    own_gates, own_new = own.split([2 * units, units], 1)
    reset, update = torch.sigmoid(given_gates + own_gates).split(units, 1)
    new = torch.tanh(given_new + reset * own_new)
    return new + update * (hidden - new)


def with_integer_grus(part: nn.Module, frames: int) -> bool:
    """Put IntegerGRU in the place of every large GRU inside `part`; False where there is none."""
    large = [(n, m) for n, m in part.named_modules() if isinstance(m, nn.GRU) and m.hidden_size >= LARGE_UNITS]
    for name, module in large:
        parent, _, leaf = name.rpartition(".")
        setattr(part.get_submodule(parent), leaf, IntegerGRU(module, frames))
    return bool(large)


def in_integers(model: onnx.ModelProto) -> None:
    """Replace every RowProduct by an integer product with the weight as it is stored: `NAME.small`, `NAME.scale`."""
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    for opset in [o for o in model.opset_import if o.domain == DOMAIN]:
        model.opset_import.remove(opset)
    products = [node for node in graph.node if node.op_type == "RowProduct"]
    if not products:
        return
    graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "one"))
    graph.initializer.append(numpy_helper.from_array(np.array(ZERO, np.uint8), "digit_zero"))
    turned: set[str] = set()
    for node in products:
        digits, weight = node.input
        columns, scale = f"{weight}.columns", f"{weight}.row_scale"
        at = list(graph.node).index(node)
        if weight not in turned:
            turned.add(weight)
            row_scale = numpy_helper.to_array(stored[f"{weight}.scale"]).reshape(-1)
            graph.initializer.append(numpy_helper.from_array(row_scale, scale))
            graph.node.insert(at, helper.make_node("Transpose", [f"{weight}.small"], [columns], perm=[1, 0]))
        inputs = [digits, columns, "one", scale, "digit_zero"]
        made = helper.make_node("MatMulIntegerToFloat", inputs, list(node.output), domain="com.microsoft")
        graph.node.insert(list(graph.node).index(node), made)
        graph.node.remove(node)
    if all(o.domain != "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
