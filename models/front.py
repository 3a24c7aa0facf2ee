"""The encoder's front: DeepFilterNet3 in its form without look-ahead (Schröter et al. 2023), at 16 kHz, hop by hop.

DeepFilterNet hears 20 ms every 10 ms: an encoder over 32 ERB bands and the lowest 96 bins, a decoder that gives a gain
to each ERB band, and one that gives each of the lowest bins a complex filter over its last five frames. It was trained
at 48 kHz with 50 Hz a bin; a frame of 320 samples at 16 kHz has the very same bins, and those above 8 kHz are empty.
Two of its frames fill a hop, and its output is complete 160 samples late.

Its gains depend on how loud its input is, and 12 dB below what it was trained on they begin to close on the voice. So
its features are taken from the sound at a steady level, by a slow gain that the sound itself never meets.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.transforms import dft_basis, frames_of, inverse_dft_weight, overlap_add

State = dict[str, Tensor]

LEVEL_TARGET = 0.2  # RMS of the louder hops that the features see, -14 dBFS; between the two best of five on validation
LEVEL_START = 0.02
LEVEL_TOP = math.log(LEVEL_TARGET / LEVEL_START)
LEVEL_RISE = 0.2  # share of the way up to a louder hop: 100 ms
LEVEL_FALL = 0.0033  # and down to a quieter one, in the logarithm: 6 s
LEVEL_GAIN = (0.25, 100.0)

HOP_FRAMES = 2  # a hop's frames are averaged in one product
NORM_DECAY = 0.99  # of DeepFilterNet's running means: 1 s at 100 frames a second
ERB_BANDS = 32
ERB_NARROWEST = 2  # bins
ERB_RATE_HZ, ERB_FRAME = 48_000, 960  # where the bands are cut
DEEP_BINS = 96
QUIETEST = 1e-9  # mean magnitude of a bin below which it is digital silence
TAPS = 5
CHANNELS = 64


def erb_widths() -> list[int]:
    """Bins of 50 Hz in each of the bands from 0 to 24 kHz, as libdf cuts them (Glasberg and Moore 1990)."""
    scale = 24.7 * 9.265
    last = 9.265 * math.log1p(ERB_RATE_HZ / 2 / scale)
    widths, previous, over = [], 0, 0
    for band in range(1, ERB_BANDS + 1):
        edge_hz = scale * (math.exp(last * band / ERB_BANDS / 9.265) - 1)
        edge = round(edge_hz / (ERB_RATE_HZ / ERB_FRAME))
        width = max(ERB_NARROWEST, edge - previous - over)
        over = max(0, ERB_NARROWEST - (edge - previous - over))
        widths.append(width)
        previous = edge
    widths[-1] += ERB_FRAME // 2 + 1 - sum(widths)
    return widths


def vorbis_window(frame: int) -> Tensor:
    """[frame]: its square, overlapped by half, sums to one."""
    sine = torch.sin(math.pi * (torch.arange(frame, dtype=torch.float64) + 0.5) / frame)
    return torch.sin(0.5 * math.pi * sine.square())


class TimeConv(nn.Module):
    """Causal convolution over (time, bins), a 1 x 1 one behind it where it is separable, and an activation."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        pad, alone = kernel[1] // 2, groups == 1
        self.past = kernel[0] - 1
        self.spread = nn.Conv2d(inputs, outputs, kernel, (1, stride), (0, pad), groups=groups, bias=alone)
        self.point = None if alone else nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, T, F] and what came before it [B, C, past, F] -> [B, C', T, F / stride], new history."""
        joined = torch.cat([history, x], dim=2)
        out = self.spread(joined)
        return out if self.point is None else self.point(out), joined[:, :, joined.shape[2] - history.shape[2] :]


class Upward(nn.Module):
    """Twice the bins: a transposed depthwise convolution and a 1 x 1 one; no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.ConvTranspose2d(
            CHANNELS, CHANNELS, (1, 3), (1, 2), (0, 1), (0, 1), groups=CHANNELS, bias=False
        )
        self.point = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, F] -> [B, C, T, 2 F]."""
        return torch.relu(self.point(self.spread(x)))


class Grouped(nn.Module):
    """A linear layer whose inputs and outputs fall into groups that do not mix."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, groups * inputs] -> [B, T, groups * outputs]."""
        groups, inputs, _ = self.weight.shape
        if x.shape[1] > HOP_FRAMES:  # one product a group; the other way each frame would have a copy of the weights
            return torch.einsum("btgi,gio->btgo", x.unflatten(2, (groups, inputs)), self.weight).flatten(2)
        rows = x.unflatten(2, (groups, 1, inputs))  # in a graph it takes half the time of an Einsum node
        return (rows @ self.weight).flatten(2, 4)


class DeepFilterNet(nn.Module):
    """The network proper: features -> gains of the ERB bands and filters of the lowest bins."""

    def __init__(self, units: int) -> None:
        super().__init__()
        c = CHANNELS
        self.erb_0 = TimeConv(1, c, (3, 3))
        self.erb_1 = TimeConv(c, c, (2, 3), stride=2, groups=c)
        self.erb_2 = TimeConv(c, c, (2, 3), stride=2, groups=c)
        self.erb_3 = TimeConv(c, c, (2, 3), groups=c)
        self.deep_0 = TimeConv(2, c, (3, 3), groups=2)
        self.deep_1 = TimeConv(c, c, (2, 3), stride=2, groups=c)
        self.deep_in = Grouped(16, 192, 32)
        self.embed_in, self.embed_out = Grouped(16, 32, 32), Grouped(16, 32, 32)
        self.embed_gru = nn.GRU(units, units, 1, batch_first=True)
        self.gain_in, self.gain_out = Grouped(16, 32, 32), Grouped(16, 32, 32)
        self.gain_gru = nn.GRU(units, units, 2, batch_first=True)
        self.paths = nn.ModuleList([nn.Conv2d(c, c, 1, groups=c) for _ in range(4)])
        self.up_3 = TimeConv(c, c, (2, 3), groups=c)
        self.up_2, self.up_1 = Upward(), Upward()
        self.gain = TimeConv(c, 1, (2, 3))
        self.filter_in, self.filter_skip = Grouped(8, 64, 64), Grouped(16, 32, 32)
        self.filter_gru = nn.GRU(units, units, 3, batch_first=True)
        self.filter_path = TimeConv(c, 2 * TAPS, (TAPS, 1), groups=2)
        self.filter_out = Grouped(16, 32, DEEP_BINS * 2 * TAPS // 16)

    def initial_state(self, batch: int) -> State:
        """Zeros, by the name of the layer they belong to."""
        c, units = CHANNELS, self.embed_gru.hidden_size
        past = {
            "erb_0": (1, 2, 32),
            "erb_1": (c, 1, 32),
            "erb_2": (c, 1, 16),
            "erb_3": (c, 1, 8),
            "deep_0": (2, 2, DEEP_BINS),
            "deep_1": (c, 1, DEEP_BINS),
            "up_3": (c, 1, 8),
            "gain": (c, 1, 32),
            "filter_path": (c, TAPS - 1, DEEP_BINS),
        }
        layers = {"embed_gru": 1, "gain_gru": 2, "filter_gru": 3}
        return {name: torch.zeros(batch, *shape) for name, shape in past.items()} | {
            name: torch.zeros(count, batch, units) for name, count in layers.items()
        }

    def forward(self, erb: Tensor, deep: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Features [B, 1, T, 32] and [B, 2, T, 96] -> gains [B, T, 32], filters [B, TAPS * 2, T, 96], new state."""
        new: State = {}

        def conv(name: str, x: Tensor) -> Tensor:
            out, new[name] = self.get_submodule(name)(x, state[name])
            return out

        def gru(name: str, x: Tensor) -> Tensor:
            out, new[name] = self.get_submodule(name)(x, state[name])
            return out

        relu = torch.relu
        e0 = relu(conv("erb_0", erb))
        e1 = relu(conv("erb_1", e0))
        e2 = relu(conv("erb_2", e1))
        e3 = relu(conv("erb_3", e2))
        c0 = relu(conv("deep_0", deep))
        c1 = relu(conv("deep_1", c0))
        both = e3.permute(0, 2, 3, 1).flatten(2) + relu(self.deep_in(c1.permute(0, 2, 3, 1).flatten(2)))
        embedding = relu(self.embed_out(gru("embed_gru", relu(self.embed_in(both)))))

        inner = relu(self.gain_out(gru("gain_gru", relu(self.gain_in(embedding)))))
        inner = inner.unflatten(2, (8, CHANNELS)).permute(0, 3, 1, 2)
        up = relu(conv("up_3", relu(self.paths[3](e3)) + inner))
        up = self.up_2(relu(self.paths[2](e2)) + up)
        up = self.up_1(relu(self.paths[1](e1)) + up)
        gains = torch.sigmoid(conv("gain", relu(self.paths[0](e0)) + up))[:, 0]

        hidden = gru("filter_gru", relu(self.filter_in(embedding))) + self.filter_skip(embedding)
        filters = torch.tanh(self.filter_out(hidden)).unflatten(2, (DEEP_BINS, 2 * TAPS)).permute(0, 3, 1, 2)
        return gains, filters + relu(conv("filter_path", c0)), new


class Front(nn.Module):
    """Hops of the mixture -> hops of the voice, `config.front_lag` samples later."""

    analysis: Tensor
    inverse: Tensor
    to_erb: Tensor
    from_erb: Tensor
    erb_start: Tensor
    deep_start: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        frame = config.front_frame
        window = vorbis_window(frame)[:, None]
        cosine, sine = dft_basis(frame)
        bins = frame // 2 + 1
        to_erb, from_erb = torch.zeros(bins, ERB_BANDS), torch.zeros(ERB_BANDS, bins)
        edges = [sum(erb_widths()[:n]) for n in range(ERB_BANDS + 1)]
        for band, (a, b) in enumerate(pairwise(edges)):
            to_erb[a:b, band], from_erb[band, a:b] = 1.0 / (b - a), 1.0
        analysis = window * torch.stack([cosine, sine]).double() / frame  # [2, frame, bins]
        constants = {
            "analysis": analysis.float(),
            "inverse": inverse_dft_weight(frame) * frame**2,  # libdf divides by the frame on the way in
            "to_erb": to_erb,
            "from_erb": from_erb,
            "erb_start": torch.linspace(-60.0, -90.0, ERB_BANDS),
            "deep_start": torch.linspace(0.001, 0.0001, DEEP_BINS),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.network = DeepFilterNet(config.front_units)

    def initial_state(self, batch: int) -> State:
        """Zeros: the followed level in the logarithm above LEVEL_START, the running means above where they start, the
        last spectra, the sound of the last frame and the network's own."""
        c = self.config
        half = c.front_frame // 2
        own = {
            "level": torch.zeros(batch, 1),
            "erb_mean": torch.zeros(batch, ERB_BANDS),
            "deep_mean": torch.zeros(batch, DEEP_BINS),
            "heard": torch.zeros(batch, half),
            "spectra": torch.zeros(batch, 2, TAPS - 1, DEEP_BINS),
            "tail": torch.zeros(batch, half),
        }
        return {f"front_{name}": value for name, value in (own | self.network.initial_state(batch)).items()}

    def forward(self, mixture: Tensor, state: State) -> tuple[Tensor, State]:
        """Mixture [B, T * hop] -> voice [B, T * hop], new state."""
        kept = {name.removeprefix("front_"): value for name, value in state.items() if name.startswith("front_")}
        half = self.config.front_frame // 2
        new: State = {}
        frames, new["heard"] = frames_of(kept["heard"], mixture, 2 * half, half)
        bins = self.analysis.shape[2]
        analysis = self.analysis.transpose(0, 1).flatten(1)  # one matrix of a graph is laid out when it loads, not two
        spectrum = (frames @ analysis).unflatten(2, (2, bins)).transpose(1, 2)  # [B, 2, T, bins]
        gain, new["level"] = self._level(mixture, kept["level"])
        erb, deep = self._features(spectrum * gain[:, None], kept, new)
        gains, filters, inner = self.network(erb, deep, kept)
        low, new["spectra"] = _filtered(spectrum[..., :DEEP_BINS], filters, kept["spectra"])
        high = (gains @ self.from_erb[:, DEEP_BINS:])[:, None] * spectrum[..., DEEP_BINS:]
        synthesis = (self.analysis * self.inverse).transpose(1, 2).flatten(0, 1)  # worked out when a graph loads
        pieces = torch.cat([low, high], dim=3).transpose(1, 2).flatten(2) @ synthesis
        voice, new["tail"] = overlap_add(kept["tail"], pieces, half)
        return voice, {f"front_{name}": value for name, value in (new | inner).items()}

    def _level(self, mixture: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Follow the level of the louder hops: up within 100 ms, down over 6 s.

        [B, T * hop], [B, 1] -> gain of each frame [B, T * frames per hop, 1] (of all frames where T is 1), new level.
        """
        gains = []
        per_hop = 2 * self.config.hop // self.config.front_frame
        for hop in mixture.split(self.config.hop, dim=1):
            heard = 0.5 * torch.log(hop.square().mean(1, keepdim=True) / LEVEL_START**2 + 1e-6)
            level = level + torch.where(heard > level, LEVEL_RISE, LEVEL_FALL) * (heard - level)
            gains.append(torch.exp(LEVEL_TOP - level).clamp(*LEVEL_GAIN))
        every = torch.stack(gains, dim=1)
        return every if len(gains) == 1 else every.repeat_interleave(per_hop, dim=1), level

    def _features(self, spectrum: Tensor, kept: State, new: State) -> tuple[Tensor, Tensor]:
        """Spectra [B, 2, T, bins] -> ERB levels [B, 1, T, 32] and lowest bins [B, 2, T, 96], less their means."""
        power = spectrum.square().sum(1)
        erb = 10.0 * torch.log10(power @ self.to_erb + 1e-10) - self.erb_start
        means = _running(erb, kept["erb_mean"])
        erb, new["erb_mean"] = (erb - means) / 40.0, means[:, -1]
        magnitude = (power[:, :, :DEEP_BINS] + 1e-20).sqrt()
        means = _running(magnitude - self.deep_start, kept["deep_mean"])
        new["deep_mean"] = means[:, -1]
        # in digital silence the mean goes to zero, and rounding may take it below
        steady = (means + self.deep_start).clamp_min(QUIETEST).sqrt()
        return erb[:, None], spectrum[..., :DEEP_BINS] / steady[:, None]


def _filtered(spectrum: Tensor, filters: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Complex filters [B, TAPS * 2, T, 96] over the last frames of spectra [B, 2, T, 96] -> [B, 2, T, 96], new past.

    (a + ib) x = a x + b ix, so what is filtered is put beside the same turned by 90 degrees, and all products are one.
    """
    x = torch.cat([past, spectrum], dim=2)
    count, frames = x.shape[2], spectrum.shape[2]
    turned = x[:, [1, 0]] * torch.tensor([-1.0, 1.0], device=x.device)[:, None, None]
    first = torch.arange(TAPS)[:, None] + torch.tensor([0, count])  # of each tap, plain and turned
    at = (first.flatten()[:, None] + torch.arange(frames)).to(x.device)
    taps = torch.cat([x, turned], dim=2)[:, :, at]  # [B, 2, TAPS * 2, T, 96]
    return (taps * filters[:, None]).sum(2), x[:, :, count - (TAPS - 1) :]


def _running(x: Tensor, mean: Tensor) -> Tensor:
    """DeepFilterNet's exponential mean of [B, T, C], from what it was [B, C]: [B, T, C]."""
    if x.shape[1] <= HOP_FRAMES:
        age = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
        share = (1.0 - NORM_DECAY) * torch.where(age >= 0, NORM_DECAY ** age.clamp_min(0), 0.0)
        old = NORM_DECAY ** (torch.arange(x.shape[1])[:, None] + 1.0)
        return torch.cat([old, share], dim=1).to(x) @ torch.cat([mean[:, None], x], dim=1)
    means = []
    for frame in x.unbind(1):
        mean = mean + (frame - mean) * (1.0 - NORM_DECAY)
        means.append(mean)
    return torch.stack(means, dim=1)
