"""`sottovoce bench`: speed, delay and memory of what people run, measured in processes of their own.

Each figure is the median of three runs with nothing else running; what else the machine was doing is printed beside it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app import console
from engine.types import Samples, SottovoceError, UsageError

RUNS = 3
DEVICE_RATE_HZ = 48_000
BLOCK_MS = 10
MIN_BLOCK_MS, MAX_BLOCK_MS = 1.0, 50.0
CODEC_SECONDS = 20.0
MEMORY_SECONDS = (10.0, 600.0)
SOAK_MINUTES, OVERLOAD_SECONDS, IDLE_SECONDS, START_SECONDS, WINDOW_SECONDS = 10.0, 30.0, 20.0, 8.0, 600.0
LIST_CHARS = 100  # a longer list has a line for each of its figures
VERSIONS = ("sottovoce", "numpy", "onnxruntime-gpu", "onnxruntime", "soxr", "sounddevice")


def bench(
    what: str,
    seconds: float | None,
    as_json: bool,
    provider: str,
    minutes: float | None = None,
    block_ms: float | None = None,
) -> int:
    """Measure and print; `seconds` replaces the usual length, `minutes` that of the soak, `block_ms` live's block.

    Raises UsageError or SottovoceError.
    """
    if block_ms is not None and (what != "live" or not MIN_BLOCK_MS <= block_ms <= MAX_BLOCK_MS):
        raise UsageError(f"--block-ms is for `bench live`, and from {MIN_BLOCK_MS:g} to {MAX_BLOCK_MS:g}")
    figures: dict[str, Any]
    if what == "codec":
        figures = {"codec": measure_codec(seconds or CODEC_SECONDS, provider)}
        figures["memory"] = measure_memory((10.0, seconds or 60.0))
    elif what == "memory":
        figures = {"memory": measure_memory((MEMORY_SECONDS[0], seconds or MEMORY_SECONDS[1]))}
    elif what == "soak":
        figures = soak(minutes or SOAK_MINUTES, provider, as_json)
    elif what == "overload":
        from engine.livebench import measure_overload

        figures = {"overload": measure_overload(seconds or OVERLOAD_SECONDS, provider)}
    elif what == "idle":
        from engine.idlebench import measure_idle

        figures = {"idle": measure_idle(seconds or IDLE_SECONDS, provider)}
    elif what == "window":
        from app.windowbench import measure_window

        with console.progress("window", as_json) as advance:
            figures = {"window": measure_window(seconds or WINDOW_SECONDS, provider, advance)}
    elif what == "start":
        from app.startbench import measure_start

        figures = {"start": measure_start(seconds or START_SECONDS, provider)}
    else:
        from engine.livebench import BLOCK_MS as LIVE_BLOCK_MS
        from engine.livebench import measure_live

        figures = {"live": measure_live(seconds or 20.0, provider=provider, block_ms=block_ms or LIVE_BLOCK_MS)}
    result = {"machine": machine(), "artefacts": artefact_ids(), **figures}
    if as_json:
        console.print_json(result)
    else:
        print("\n".join(lines(result)))
    return console.DONE


def soak(minutes: float, provider: str, quiet: bool) -> dict[str, Any]:
    """Simulated minutes of a live run: its sound, then its captions, where Whisper is here; or those until it was
    stopped. Raises UsageError or SottovoceError."""
    from engine.artefacts import load_models
    from engine.caption_soak import measure_caption_soak
    from engine.soak import measure_soak
    from engine.weights import find_weights

    if not minutes >= 2:
        raise UsageError(f"--minutes is two or more, not {minutes:g}")
    with console.progress("soak", quiet) as advance:
        figures = {"soak": measure_soak(load_models(provider), minutes, advance)}
    if figures["soak"]["minutes"] < round(minutes):  # stopped
        return figures
    if find_weights() is None:
        console.warn("captions are left out: run `sottovoce models get base` to have them measured, too")
        return figures
    with console.progress("captions", quiet) as advance:
        return figures | {"captions": measure_caption_soak(minutes, advance)}


def machine() -> dict[str, Any]:
    """What was measured on: processor, system, versions, and how busy it was."""
    from app.doctor import version_of

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in VERSIONS if (version := version_of(name))},
        "load_before": load,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def artefact_ids() -> dict[str, str]:
    """codec_id, and the sha256 of each network as the manifest has it."""
    from engine.artefacts import ROLES, read_manifest, shared_models
    from engine.paths import assets_dir
    from engine.types import Provider

    hashes = {str(row["name"]): str(row["sha256"])[:16] for row in read_manifest(assets_dir()) if row["name"] in ROLES}
    return {"codec_id": shared_models(Provider.CPU).info.codec_id[:16], **hashes}


def lines(result: dict[str, Any], indent: str = "") -> list[str]:
    """Nested figures as `name  value` lines."""
    shown: list[str] = []
    for name, value in result.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            shown += [f"{indent}{title}", *lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            shown.append(f"{indent}{title}")
            shown += [f"{indent}  " + ", ".join(f"{k} {_figure(v)}" for k, v in row.items()) for row in value]
        elif isinstance(value, list) and sum(len(str(row)) for row in value) > LIST_CHARS:
            shown += [f"{indent}{title}", *(f"{indent}  {_figure(row)}" for row in value)]
        else:
            shown.append(f"{indent}{title:<26} {_figure(value)}")
    return shown


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_figure(v) for v in value)
    return str(value)


# Speed ----------------------------------------------------------------------------------------------------------------


def measure_codec(seconds: float, provider: str) -> dict[str, Any]:
    """Real-time factor of everything but captions, at 48 kHz in live blocks, on one core, in a process of its own."""
    return run_child("codec", str(seconds), provider)


def time_stream(seconds: float, provider: str) -> dict[str, Any]:
    """RUNS passes of `seconds` of sound through a live stream, on the core this process is pinned to."""
    from engine.artefacts import load_models
    from engine.pipeline import Stream
    from engine.types import Background

    models = load_models(provider)
    sound = bench_sound(seconds, DEVICE_RATE_HZ)
    block = DEVICE_RATE_HZ * BLOCK_MS // 1000
    walls, cpus, blocks = [], [], []
    for _ in range(RUNS):
        stream = Stream(models, DEVICE_RATE_HZ, live=True, background=Background.parse("drop"))
        wall, cpu = time.perf_counter(), time.process_time()
        for at in range(0, len(sound) - block + 1, block):
            start = time.perf_counter()
            stream.process(sound[at : at + block])
            blocks.append(1000.0 * (time.perf_counter() - start))
        walls.append((time.perf_counter() - wall) / seconds)
        cpus.append((time.process_time() - cpu) / seconds)
    return {
        "seconds": seconds,
        "sample_rate_hz": DEVICE_RATE_HZ,
        "provider": models.provider,
        "real_time_factor": statistics.median(walls),
        "real_time_factor_runs": walls,
        "cpu_time_factor": statistics.median(cpus),
        # a hop is worked on in one block of several, so the longest blocks are what a device must wait for
        "block_ms_p99": float(np.percentile(blocks, 99)),
        "block_ms_max": max(blocks),
        "algorithmic_latency_ms": models.info.algorithmic_latency_ms(),
        "peak_memory_mb": own_peak_mb(),
    }


def bench_sound(seconds: float, rate_hz: int) -> Samples:
    """[N] a voice-like buzz with pauses, over noise: the work does not depend on what is heard, only on how long."""
    generator = np.random.default_rng(1)
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * 140 * k * times) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 1.5 * times) > 0)
    return (0.05 * buzz + 0.02 * generator.standard_normal(len(times))).astype(np.float32)


# Memory ---------------------------------------------------------------------------------------------------------------


def measure_memory(lengths_s: Sequence[float]) -> list[dict[str, float]]:
    """Peak resident memory of `sottovoce enhance` for files of several lengths, and how fast it was."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as folder:
        for seconds in lengths_s:
            path = Path(folder) / "in.wav"
            write_long_wav(path, seconds)
            start = time.perf_counter()
            figures = run_child("enhance", str(path), str(Path(folder) / "out.wav"), "--force")
            rows.append({"seconds": seconds, **figures, "wall_s": time.perf_counter() - start})
    return rows


def write_long_wav(path: Path, seconds: float, rate_hz: int = DEVICE_RATE_HZ) -> None:
    """A 16-bit mono file of that length, written a second at a time."""
    second = (bench_sound(1.0, rate_hz) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        for _ in range(int(seconds)):
            file.writeframes(second)
        file.writeframes(second[: 2 * int(seconds % 1.0 * rate_hz)])


def own_peak_mb() -> float:
    """Peak resident memory of this process. Linux's own count starts at exec; getrusage's holds the parent's too."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import psutil

        info = psutil.Process().memory_info()
        return float(getattr(info, "peak_wset", info.rss)) / 1e6


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent


def run_child(kind: str, *arguments: str) -> dict[str, Any]:
    """Measure in a fresh process -> its figures. Raises SottovoceError with what it said when it failed."""
    command = [sys.executable, "-m", "app.bench", kind, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, cwd=_checkout(), check=False)
    if child.returncode:
        told = console.one_line(child.stderr).removeprefix("sottovoce: ")
        raise SottovoceError(told or "the measuring process stopped; run it again with nothing else running")
    figures: dict[str, Any] = json.loads(child.stdout)
    return figures


def _child(kind: str, *arguments: str) -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if kind == "enhance":
        from app.cli import run

        status = run([kind, *arguments])
        print(json.dumps({"peak_memory_mb": own_peak_mb()}))
        return status
    try:
        print(json.dumps(time_stream(float(arguments[0]), arguments[1])))
    except SottovoceError as error:
        console.say(error)
        return console.FAILED
    return console.DONE


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
