"""How long a person waits between starting `sottovoce live` and the first sound."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.ears import RATE_HZ
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage
from engine.paths import assets_dir
from engine.types import Samples, SottovoceError

WARM_RUNS = 3
LOUD = 1e-4
NOISE_LEVEL = 0.02
SLOW_PACKAGES = ("numpy", "onnxruntime", "sounddevice", "torch", "whisper")


def measure_start(seconds: float, provider: str) -> dict[str, Any]:
    """Seconds from the start of the process until sound comes out of it, captions on, over a private sound server;
    each run takes `seconds`.

    cold_s: the system's cache of files had forgotten programs and models, but for what is in use elsewhere just then,
    None where that cannot be done; warm_s: the median of the runs that follow. Raises DeviceError where PulseAudio is
    not installed, SottovoceError when no sound comes.
    """
    with Stage() as stage:
        noise = np.random.default_rng(0).standard_normal(round((WARM_RUNS + 1) * (seconds + 8.0) * RATE_HZ))
        stage.play((NOISE_LEVEL * noise).astype(np.float32))
        forgotten = forget_files()
        times = [first_sound_s(stage.record_while(lambda: _run(seconds, provider))) for _ in range(WARM_RUNS + 1)]
    return {"cold_s": times[0] if forgotten else None, "warm_s": statistics.median(times[1:]), "warm_runs_s": times[1:]}


def _run(seconds: float, provider: str) -> None:
    command = ["live", "--input", MIC_SOURCE, "--output", HEARD_SINK, "--background", "keep", "--captions"]
    command += ["--provider", provider, "--seconds", f"{seconds:g}"]
    done = subprocess.run(
        [sys.executable, "-m", "app", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SottovoceError(f"live did not run: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}")


def first_sound_s(both: Samples) -> float:
    """[N, 2], what went in and what came out -> seconds until the latter is loud. Raises SottovoceError."""
    loud = np.flatnonzero(np.abs(both[:, 1]) > LOUD)
    if not len(loud):
        raise SottovoceError("live ran and no sound came; see its log (sottovoce doctor)")
    return float(loud[0]) / RATE_HZ


def forget_files() -> bool:
    """Have the system forget the files that a start reads, as after a boot; whether it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return False
    packages = [Path(p) / name for p in sys.path for name in SLOW_PACKAGES if (Path(p) / name).is_dir()]
    for folder in (*packages, assets_dir()):
        for path in folder.rglob("*"):
            if path.is_file() and os.access(path, os.R_OK):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
