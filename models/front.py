"""The encoder's front: DTLN (Westhausen and Meyer 2020), a pretrained separator in two stages, run inside our hop.

DTLN hears 512 samples every 128, puts a mask on the spectrum and then a mask on a learned basis, and overlap-adds what
it makes of them. Five of its steps fill two of our hops: the first hop of a pair holds two of them, the second three.

    pair of hops   |<────────── 320 ──────────>|<────────── 320 ──────────>|
    steps end at           |128      |256          |384      |512      |640
                                          the first hop ends 64 samples after its last step: the lag is 384 + 64

So that one graph serves both hops, a hop always computes three steps and keeps the third only where there is one.

DTLN's masks depend on how loud its input is, and 20 dB below what it was trained on they close on the voice, too. So it
hears every frame at a steady level, by a slow gain that is taken back from what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.transforms import dft_basis, inverse_dft_weight

State = dict[str, Tensor]

LEVEL_TARGET = 0.045  # RMS that DTLN hears, about -27 dBFS
LEVEL_START = 0.02
LEVEL_RISE = 0.2  # share of the way up to a louder hop: 100 ms
LEVEL_FALL = 0.0033  # and down to a quieter one, in the logarithm: 6 s
LEVEL_GAIN = (0.25, 40.0)


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
    """One hop of the mixture -> one hop of the voice, `config.front_lag` samples later."""

    cosine: Tensor
    sine: Tensor
    weight: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bins = config.frame // 2 + 1
        self.config = config
        cosine, sine = dft_basis(config.frame)
        for name, basis in (("cosine", cosine), ("sine", sine), ("weight", inverse_dft_weight(config.frame))):
            self.register_buffer(name, basis, persistent=False)
        self.spectral = TwoLayerLSTM(bins, config.front_units)
        self.spectral_mask = nn.Linear(config.front_units, bins)
        self.analysis = nn.Linear(config.frame, config.front_basis, bias=False)
        self.norm = nn.LayerNorm(config.front_basis, eps=1e-7)
        self.learned = TwoLayerLSTM(config.front_basis, config.front_units)
        self.learned_mask = nn.Linear(config.front_units, config.front_basis)
        self.synthesis = nn.Linear(config.front_basis, config.frame, bias=False)

    def initial_state(self, batch: int) -> State:
        """Phase [1] (1 in the second hop of a pair), sum [B, front_lag], and each pair of LSTMs' [4, B, H]."""
        c = self.config
        states = {f"front_{name}": torch.zeros(4, batch, c.front_units) for name in ("spectral", "learned")}
        states["front_level"] = torch.zeros(batch, 1)  # in the logarithm, above LEVEL_START
        return {"front_phase": torch.zeros(1), "front_sum": torch.zeros(batch, c.front_lag), **states}

    def forward(self, newest: Tensor, state: State) -> tuple[Tensor, State]:
        """Newest samples [B, front_lag + hop] of the mixture, the last `hop` new -> voice [B, hop], new state."""
        c = self.config
        second = state["front_phase"] > 0.5
        level = self._level(newest[:, -c.hop :], state["front_level"])
        gain = (LEVEL_TARGET / LEVEL_START * torch.exp(-level)).clamp(*LEVEL_GAIN)
        newest = newest * gain
        frames = torch.where(second, self._frames(newest, 256, 128), self._frames(newest, 192, 64))
        voices, kept = self._separate(frames, state)
        last, after = self._separate(self._frames(newest, 0), kept)
        placed = torch.where(
            second, self._placed(voices, 256, 128) + self._placed(last, 0), self._placed(voices, 192, 64)
        )
        total = nn.functional.pad(state["front_sum"], (0, c.hop)) + placed / gain
        new = {"front_level": level} | {name: torch.where(second, after[name], kept[name]) for name in after}
        return total[:, : c.hop], {"front_phase": 1.0 - state["front_phase"], "front_sum": total[:, c.hop :], **new}

    def _level(self, hop: Tensor, level: Tensor) -> Tensor:
        """Follow the level of the louder hops: up within 100 ms, down over 6 s. [B, hop], [B, 1] -> [B, 1]."""
        heard = 0.5 * torch.log(hop.square().mean(1, keepdim=True) / LEVEL_START**2 + 1e-6)
        return level + torch.where(heard > level, LEVEL_RISE, LEVEL_FALL) * (heard - level)

    def _frames(self, newest: Tensor, *before: int) -> Tensor:
        """The frames that end so many samples before the hop's end, [B, n, frame]."""
        end, size = newest.shape[1], self.config.frame
        return torch.stack([newest[:, end - b - size : end - b] for b in before], dim=1)

    def _placed(self, frames: Tensor, *before: int) -> Tensor:
        """The inverse: frames [B, n, frame] added up where they belong in [B, front_lag + hop]."""
        room = self.config.front_lag + self.config.hop - self.config.frame
        parts = [nn.functional.pad(frames[:, i], (room - b, b)) for i, b in enumerate(before)]
        return torch.stack(parts).sum(0)

    def _separate(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """DTLN proper: frames of the mixture [B, n, frame] -> what to overlap-add [B, n, frame], LSTM states."""
        real, imag = frames @ self.cosine, frames @ self.sine
        magnitude = (real.square() + imag.square() + 1e-12).sqrt()
        hidden, spectral = self.spectral(magnitude, state["front_spectral"])
        mask = torch.sigmoid(self.spectral_mask(hidden)) * self.weight
        basis = self.analysis((mask * real) @ self.cosine.T + (mask * imag) @ self.sine.T)
        hidden, learned = self.learned(self.norm(basis), state["front_learned"])
        voices = self.synthesis(torch.sigmoid(self.learned_mask(hidden)) * basis)
        return voices, {"front_spectral": spectral, "front_learned": learned}


def load_dtln(front: Front, weights: Mapping[str, np.ndarray]) -> None:
    """Copy DTLN's weights (MIT, Westhausen) in; keys are those of its two ONNX graphs behind "m1/" and "m2/"."""
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
        _copy(front.synthesis.weight, weights["m2/conv1d_3/kernel:0"][:, :, 0])
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
