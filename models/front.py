"""The encoder's front: two small recurrent separators, one on the spectrum, one on a learned basis.

The shape is DTLN's (Westhausen and Meyer 2020), so that it can start from DTLN's weights. Here it runs every 160
samples on the newest 512, and two runs together are read out as one frame of the codec's coefficients: an estimate of
the voice from the learned basis, and a gate that lets the mixture through where it is the voice already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.transforms import dft_basis, inverse_dft_weight

State = dict[str, Tensor]


class TwoLayerLSTM(nn.Module):
    """Two LSTM layers with explicit state, packed as one tensor [4, B, H]: h1, c1, h2, c2."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.first = nn.LSTM(inputs, units, batch_first=True)
        self.second = nn.LSTM(units, units, batch_first=True)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, inputs], [4, B, H] -> [B, T, H], new state [4, B, H]."""
        x, (h1, c1) = self.first(x, (state[0:1], state[1:2]))
        x, (h2, c2) = self.second(x, (state[2:3], state[3:4]))
        return x, torch.cat([h1, c1, h2, c2])


class Front(nn.Module):
    """Frames of the mixture -> the voice's share of the codec's coefficients."""

    cosine: Tensor
    sine: Tensor
    weight: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bins = config.frame // 2 + 1
        self.units = config.front_units
        cosine, sine = dft_basis(config.frame)
        for name, basis in (("cosine", cosine), ("sine", sine), ("weight", inverse_dft_weight(config.frame))):
            self.register_buffer(name, basis, persistent=False)
        self.spectral = TwoLayerLSTM(bins, self.units)
        self.spectral_mask = nn.Linear(self.units, bins)
        self.analysis = nn.Linear(config.frame, config.front_basis, bias=False)
        self.norm = nn.LayerNorm(config.front_basis, eps=1e-7)
        self.learned = TwoLayerLSTM(config.front_basis, self.units)
        self.learned_mask = nn.Linear(self.units, config.front_basis)
        self.per_hop = config.hop // config.step
        self.read_out = nn.Linear(self.per_hop * config.front_basis, config.hop, bias=False)
        self.gate = nn.Linear(2 * self.per_hop * self.units, config.hop)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -2.2)

    def initial_state(self, batch: int) -> State:
        """Zeros: {"front_spectral", "front_learned"}: [4, B, H]."""
        return {f"front_{name}": torch.zeros(4, batch, self.units) for name in ("spectral", "learned")}

    def forward(self, frames: Tensor, mixture: Tensor, state: State) -> tuple[Tensor, State]:
        """Frames [B, T * per_hop, frame] and the mixture's coefficients [B, T, hop] -> the voice's [B, T, hop]."""
        basis, hidden, state = self.separate(frames, state)
        estimate = self.read_out(self._by_hop(basis))
        gate = torch.sigmoid(self.gate(self._by_hop(hidden)))
        return estimate + gate * (mixture - estimate), state

    def separate(self, frames: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """[B, T, frame] -> masked basis [B, T, front_basis], what both separators know [B, T, 2 H], new state."""
        real, imag = frames @ self.cosine, frames @ self.sine
        magnitude = (real.square() + imag.square() + 1e-12).sqrt()
        first, spectral = self.spectral(magnitude, state["front_spectral"])
        mask = torch.sigmoid(self.spectral_mask(first)) * self.weight
        basis = self.analysis((mask * real) @ self.cosine.T + (mask * imag) @ self.sine.T)
        second, learned = self.learned(self.norm(basis), state["front_learned"])
        masked = torch.sigmoid(self.learned_mask(second)) * basis
        return masked, torch.cat([first, second], dim=2), {"front_spectral": spectral, "front_learned": learned}

    def _by_hop(self, x: Tensor) -> Tensor:
        """[B, T * per_hop, C] -> [B, T, per_hop * C]: what one hop has to say, side by side."""
        return x.unflatten(1, (-1, self.per_hop)).flatten(2)


def load_dtln(front: Front, weights: Mapping[str, np.ndarray]) -> None:
    """Copy DTLN's weights (MIT, Westhausen) in, all but its last layer; keys are those of its two ONNX graphs behind "m1/" and "m2/"."""
    first = np.concatenate([weights["m1/lstm_4_B"], weights["m1/lstm_5_B"]])
    with torch.no_grad():
        _fill_onnx_lstm(front.spectral.first, weights["m1/lstm_4_W"][0], weights["m1/lstm_4_R"][0], first[0])
        _fill_onnx_lstm(front.spectral.second, weights["m1/lstm_5_W"][0], weights["m1/lstm_5_R"][0], first[1])
        _copy(front.spectral_mask.weight, weights["m1/dense_2/kernel:0"].T)
        _copy(front.spectral_mask.bias, weights["m1/dense_2/bias:0"])
        _copy(front.analysis.weight, weights["m2/conv1d_2/kernel:0"][:, :, 0])
        prefix, suffix = "m2/model_2/", "/ReadVariableOp/resource:0"
        norm = f"{prefix}instant_layer_normalization_1/"
        _copy(front.norm.weight, weights[f"{norm}mul{suffix}"])
        _copy(front.norm.bias, weights[f"{norm}add_1{suffix}"])
        for layer, name in ((front.learned.first, "lstm_6"), (front.learned.second, "lstm_7")):
            _copy(layer.weight_ih_l0, weights[f"{prefix}{name}/MatMul{suffix}"].T)
            _copy(layer.weight_hh_l0, weights[f"{prefix}{name}/MatMul_1{suffix}"].T)
            _copy(layer.bias_ih_l0, weights[f"{prefix}{name}/BiasAdd{suffix}"])
            nn.init.zeros_(layer.get_parameter("bias_hh_l0"))
        _copy(front.learned_mask.weight, weights[f"{prefix}dense_3/Tensordot/Reshape_1:0"].T)
        _copy(front.learned_mask.bias, weights[f"{prefix}dense_3/BiasAdd{suffix}"])


def _copy(target: Tensor | nn.Module, source: np.ndarray) -> None:
    assert isinstance(target, Tensor)
    if tuple(target.shape) != source.shape:
        raise ValueError(f"weights of shape {source.shape} do not fit {tuple(target.shape)}")
    target.copy_(torch.from_numpy(np.ascontiguousarray(source)))


def _fill_onnx_lstm(layer: nn.LSTM, w: np.ndarray, r: np.ndarray, b: np.ndarray) -> None:
    """ONNX orders the gates i o f c, torch i f c o."""

    def reorder(x: np.ndarray) -> np.ndarray:
        i, o, f, c = np.split(x, 4)
        return np.concatenate([i, f, c, o])

    _copy(layer.weight_ih_l0, reorder(w))
    _copy(layer.weight_hh_l0, reorder(r))
    bias_w, bias_r = np.split(b, 2)
    _copy(layer.bias_ih_l0, reorder(bias_w))
    _copy(layer.bias_hh_l0, reorder(bias_r))
