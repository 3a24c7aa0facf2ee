"""The model files: found, checked against the manifest, loaded, and stepped with their state carried.

The only importer of onnxruntime. A network here is a black box with named inputs: what begins with `state_in.` is
handed back on the next step from the output `state_out.` of the same name. All else is told by the file's metadata.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import functools
import hashlib
import json
import logging
import time
import tomllib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from engine.memory import return_free_memory
from engine.paths import assets_dir as default_assets_dir
from engine.paths import cache_dir
from engine.types import ArtefactError, Provider, UsageError

FORMAT_VERSION = "1"
ROLES = ("encoder", "decoder", "refiner")
STATE_IN, STATE_OUT = "state_in.", "state_out."
PROVIDER_NAMES = {
    Provider.CPU: "CPUExecutionProvider",
    Provider.CUDA: "CUDAExecutionProvider",
    Provider.TENSORRT: "TensorrtExecutionProvider",
}
TRIAL_HOPS = 20
REINSTALL = "install Sottovoce again, or restore assets/ from its source"

# onnxruntime's exceptions have no common base of their own
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)
) + (RuntimeError, ValueError)
LOAD_ERRORS: tuple[type[Exception], ...] = (ArtefactError, *ORT_ERRORS)
ort.set_default_logger_severity(4)  # a machine without a GPU is not worth a page of warnings
log = logging.getLogger(__name__)
Array = NDArray[Any]


class Session:
    """One ONNX file in ONNX Runtime: one thread, no spinning, on the provider asked for or not at all.

    inputs, outputs: names in order; shapes and dtypes of the inputs by name; metadata: the file's own key-value map.
    """

    def __init__(self, path: Path, provider: Provider = Provider.CPU) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # a recurrent state that fades in silence would otherwise end in numbers that cost a hundred times the time
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self.path, self.provider = path, provider
        self.raw = _open(path, provider, options)
        self.inputs = [i.name for i in self.raw.get_inputs()]
        self.outputs = [o.name for o in self.raw.get_outputs()]
        self.shapes: dict[str, list[Any]] = {i.name: i.shape for i in self.raw.get_inputs()}
        self.dtypes = {i.name: _dtype(i.type) for i in self.raw.get_inputs()}
        self.metadata: dict[str, str] = dict(self.raw.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name."""
        return dict(zip(self.outputs, self.raw.run(self.outputs, dict(feeds)), strict=True))


def _dtype(onnx_type: str) -> np.dtype[Any]:
    names = {"float": "float32", "double": "float64"}
    inner = onnx_type.removeprefix("tensor(").removesuffix(")")
    return np.dtype(names.get(inner, inner))


def _open(path: Path, provider: Provider, options: ort.SessionOptions) -> ort.InferenceSession:
    wanted = PROVIDER_NAMES[provider]
    chain: list[Any] = [(wanted, _provider_options(provider))]
    if provider is not Provider.CPU:
        chain.append(PROVIDER_NAMES[Provider.CPU])
    try:
        session = ort.InferenceSession(str(path), options, providers=chain)
    except ORT_ERRORS as error:
        raise ArtefactError(f"{path} cannot be loaded ({_first_line(error)}); {REINSTALL}") from error
    if session.get_providers()[0] != wanted:
        raise ArtefactError(f"ONNX Runtime did not load {provider} on this machine; use --provider cpu or auto")
    return session


def _provider_options(provider: Provider) -> dict[str, str]:
    if provider is not Provider.TENSORRT:
        return {}
    folder = _engine_cache()
    folder.mkdir(parents=True, exist_ok=True)
    return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}


def _engine_cache() -> Path:
    return cache_dir() / "tensorrt"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


class StreamModel(Session):
    """A session with the state of one stream. `step` moves it one hop on; `clone` starts another stream."""

    def __init__(self, path: Path, provider: Provider = Provider.CPU) -> None:
        super().__init__(path, provider)
        self.output_names = [n for n in self.outputs if not n.startswith(STATE_OUT)]
        self.input_names = [n for n in self.inputs if not n.startswith(STATE_IN)]
        self._states = [n for n in self.inputs if n.startswith(STATE_IN)]
        # results come in this order: what is wanted, then the states in the order in which they are fed again
        self._fetch = self.output_names + [STATE_OUT + n.removeprefix(STATE_IN) for n in self._states]
        missing = [n for n in self._fetch if n not in self.outputs]
        if missing:
            raise ArtefactError(f"{path} never gives {missing[0]} back; {REINSTALL}")
        self._feeds: dict[str, Array] = {}
        self.reset()

    @property
    def session(self) -> Session:
        """The loaded network, without regard to this stream's state."""
        return self

    def reset(self) -> None:
        """Back to the state before the first hop."""
        self._feeds = {n: np.zeros(self.shapes[n], dtype=self.dtypes[n]) for n in self._states}

    def clone(self) -> StreamModel:
        """A new stream from the start; the loaded network is shared."""
        other = copy.copy(self)
        other.reset()
        return other

    def step(self, **inputs: Array) -> dict[str, Array]:
        """One hop: inputs by name -> outputs by name; states are carried inside."""
        feeds = self._feeds
        feeds.update(inputs)
        results = self.raw.run(self._fetch, feeds)
        split = len(self.output_names)
        feeds.update(zip(self._states, results[split:], strict=True))
        return dict(zip(self.output_names, results[:split], strict=True))


def load_onnx(path: str | Path, provider: Provider = Provider.CPU) -> StreamModel:
    """Open any ONNX file, ours or not, unchecked. One without `state_in.` inputs has no state to carry: use `run`.

    Raises ArtefactError when it is missing or damaged.
    """
    if not Path(path).is_file():
        raise ArtefactError(f"model file {path} is missing; {REINSTALL}")
    return StreamModel(Path(path), provider)


@dataclass(frozen=True)
class CodecInfo:
    """What the host needs to know of the networks. Lags in samples at sample_rate_hz; sizes: codes in each row."""

    codec_id: str
    sample_rate_hz: int
    hop_samples: int
    lag_tokens: int
    lag_refined: int
    sizes_s: tuple[int, ...]
    sizes_b: tuple[int, ...]
    gain_rows: int
    rows_per_stage: int
    stages: int

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    def algorithmic_latency_ms(self, refined: bool = True) -> float:
        """Hop and lag together."""
        return 1000.0 * (self.hop_samples + (self.lag_refined if refined else self.lag_tokens)) / self.sample_rate_hz

    def blank_s(self) -> NDArray[np.int64]:
        """One frame [K_s] of speech codes that decodes to digital silence."""
        return self._blank(len(self.sizes_s))

    def blank_b(self) -> NDArray[np.int64]:
        """One frame [K_b] of background codes that decodes to digital silence."""
        return self._blank(len(self.sizes_b))

    def _blank(self, rows: int) -> NDArray[np.int64]:
        codes = np.full(rows, -1, dtype=np.int64)
        codes[: self.gain_rows] = 0
        return codes

    def kept_rows(self, quantizers: int | None) -> int:
        """Rows left in each stream when the first `quantizers` stages are kept; one stream may have fewer at all.

        None keeps all. Raises UsageError when there are not that many.
        """
        if quantizers is None:
            return max(len(self.sizes_s), len(self.sizes_b))
        if not 1 <= quantizers <= self.stages:
            raise UsageError(f"quantizers go from 1 to {self.stages}, not {quantizers}; choose one of these")
        return self.gain_rows + quantizers * self.rows_per_stage


@dataclass(frozen=True)
class Models:
    """The three networks, loaded once; each stream takes clones of them. why: the reason for this provider."""

    encoder: StreamModel
    decoder: StreamModel
    refiner: StreamModel
    metadata: CodecInfo
    provider: str
    why: str = "it was asked for"

    @property
    def info(self) -> CodecInfo:
        return self.metadata


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The tables of manifest.toml; raises ArtefactError when it is missing or cannot be read."""
    path = folder / "manifest.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["artefact"]
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {REINSTALL}") from None
    except (OSError, KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read ({_first_line(error)}); {REINSTALL}") from error
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ArtefactError(f"{path} holds no list of artefacts; {REINSTALL}")
    return tables


def checked_file(folder: Path, name: str) -> Path:
    """The path of an artefact by its manifest name, its sha256 verified."""
    for table in read_manifest(folder):
        if table.get("name") == name:
            break
    else:
        raise ArtefactError(f"{folder / 'manifest.toml'} knows no artefact {name!r}; {REINSTALL}")
    path = folder / str(table.get("file", ""))
    if not path.is_file():
        raise ArtefactError(f"model file {path} is missing; {REINSTALL}")
    if sha256_of(path) != table.get("sha256"):
        raise ArtefactError(f"{path} is damaged (its sha256 is not the manifest's); {REINSTALL}")
    return path


_ahead: dict[tuple[Provider, Path], Future[Models]] = {}  # what `load_ahead` began and nobody has asked for yet


def load_models(provider: Provider | str = Provider.AUTO, assets_dir: str | Path | None = None) -> Models:
    """Check and load encoder, decoder and refiner.

    AUTO takes CUDA, or TensorRT once its engines are built, when it loads and a hop is faster there, else the CPU.
    A provider named and not loaded is an ArtefactError, as is a file that is missing, damaged, or of another format
    or codec.
    """
    folder = Path(assets_dir) if assets_dir is not None else default_assets_dir()
    paths = {role: checked_file(folder, role) for role in ROLES}
    wanted = Provider(provider)
    if wanted is Provider.AUTO:
        return _fastest(paths)
    if wanted is not Provider.CPU:
        _require_gpu(wanted)
    return _load(paths, wanted)


@functools.lru_cache(maxsize=4)
def shared_models(provider: Provider = Provider.AUTO) -> Models:
    """The shipped models, loaded once per process. Raises as `load_models` does."""
    begun = _ahead.get((provider, default_assets_dir()))
    try:
        return begun.result() if begun is not None else load_models(provider)
    finally:  # a wrong guess goes, too; and not before: who asks meanwhile waits for the same
        _ahead.clear()


def load_ahead(provider: Provider) -> None:
    """Begin to load the shipped models on a thread of its own; who asks for them first waits, and is told what fails.

    For the start of a program, which has other things to do meanwhile.
    """
    loader = ThreadPoolExecutor(1, "sottovoce models")
    _ahead[provider, default_assets_dir()] = loader.submit(load_models, provider)
    loader.shutdown(wait=False)


def _load(paths: Mapping[str, Path], provider: Provider) -> Models:
    models = {}
    for role, path in paths.items():
        models[role] = load_onnx(path, provider)
        _check(role, models[role])
        return_free_memory()
    ids = {m.metadata["codec_id"] for m in models.values()}
    if len(ids) != 1:
        raise ArtefactError(f"the model files belong to different codecs ({', '.join(sorted(ids))}); {REINSTALL}")
    return Models(models["encoder"], models["decoder"], models["refiner"], _info(models), provider.value)


def _check(role: str, model: StreamModel) -> None:
    path, metadata = model.path, model.metadata
    if metadata.get("format_version") != FORMAT_VERSION:
        found = metadata.get("format_version", "none")
        raise ArtefactError(f"{path} has format version {found}, this program reads {FORMAT_VERSION}; {REINSTALL}")
    if metadata.get("role") != role:
        raise ArtefactError(f"{path} is a {metadata.get('role')}, not the {role}; {REINSTALL}")


def _info(models: Mapping[str, StreamModel]) -> CodecInfo:
    try:
        encoder, decoder, refiner = (models[role].metadata for role in ROLES)
        info = CodecInfo(
            codec_id=encoder["codec_id"],
            sample_rate_hz=int(encoder["sample_rate_hz"]),
            hop_samples=int(encoder["hop_samples"]),
            lag_tokens=int(decoder["output_lag_samples"]),
            lag_refined=int(refiner["output_lag_samples"]),
            sizes_s=tuple(json.loads(encoder["codes_s_sizes"])),
            sizes_b=tuple(json.loads(encoder["codes_b_sizes"])),
            gain_rows=int(encoder["gain_rows"]),
            rows_per_stage=int(encoder["rows_per_stage"]),
            stages=int(encoder["stages"]),
        )
        _require_reason(info)
        return info
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ArtefactError(f"the model files' metadata are not right ({_first_line(error)}); {REINSTALL}") from error


def _require_reason(info: CodecInfo) -> None:
    """Raises ValueError when a number is none that a codec can have."""
    sizes = (*info.sizes_s, *info.sizes_b)
    counts = (info.sample_rate_hz, info.hop_samples, info.rows_per_stage, info.stages, *sizes)
    if not all(type(value) is int and 0 < value < 1 << 20 for value in counts):
        raise ValueError("a rate, a size or a count")
    if not all(0 <= value < 1 << 20 for value in (info.lag_tokens, info.lag_refined, info.gain_rows)):
        raise ValueError("a lag or the number of gains")


def _require_gpu(provider: Provider) -> None:
    """Raise unless `provider` can be there at all; asked before loading, because ONNX Runtime prints pages when not."""
    if PROVIDER_NAMES[provider] not in ort.get_available_providers():
        raise ArtefactError(f"this onnxruntime has no {provider}; install onnxruntime-gpu, or use --provider cpu")
    try:
        ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
    except OSError:
        raise ArtefactError(f"{provider} needs an NVIDIA GPU and its driver; use --provider cpu or auto") from None
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA libraries that came as Python packages


def _fastest(paths: Mapping[str, Path]) -> Models:
    best = _load(paths, Provider.CPU)
    best_s: float | None = None
    why = []
    candidates = [Provider.CUDA]
    if any(_engine_cache().glob("*.engine")):  # building them takes minutes: only --provider tensorrt does that
        candidates.append(Provider.TENSORRT)
    for provider in candidates:
        try:
            _require_gpu(provider)
            candidate = _load(paths, provider)
            seconds = _hop_time_s(candidate)
        except LOAD_ERRORS as error:
            log.debug("%s is not used: %s", provider, error)
            why.append(_first_line(error).split(";")[0])
            continue
        best_s = _hop_time_s(best) if best_s is None else best_s
        log.debug("a hop takes %.2f ms on %s, %.2f ms on %s", 1e3 * seconds, provider, 1e3 * best_s, best.provider)
        why.append(f"a hop takes {1e3 * seconds:.1f} ms on {provider}, {1e3 * best_s:.1f} ms on {best.provider}")
        if seconds < best_s:
            best, best_s = candidate, seconds
    return dataclasses.replace(best, why="; ".join(why))


def _hop_time_s(models: Models) -> float:
    """Median time of encoder, decoder and refiner over a few hops of noise, the first left out as warm-up."""
    encoder, decoder, refiner = models.encoder.clone(), models.decoder.clone(), models.refiner.clone()
    noise = np.random.default_rng(0).standard_normal((TRIAL_HOPS, 1, models.info.hop_samples)).astype(np.float32) * 0.1
    times = []
    for hop in noise:
        start = time.perf_counter()
        codes = encoder.step(hop=hop)
        sound = decoder.step(codes_s=codes["codes_s"], codes_b=codes["codes_b"], gains=np.ones(2, np.float32))
        refiner.step(mixture=hop, speech=sound["speech"], background=sound["background"])
        times.append(time.perf_counter() - start)
    return float(np.median(times[TRIAL_HOPS // 4 :]))
