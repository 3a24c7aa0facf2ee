"""What every training here does alike: a step, its rate, which pairs go together, its log, and how it is stopped."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.types import SottovoceError

WARMUP_STEPS, GRAD_CLIP = 100, 1.0
T = TypeVar("T")


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, grad_clip: float = GRAD_CLIP) -> float:
    """One step down the loss, whose value is returned; a loss or a gradient that is no number changes nothing."""
    optimizer.zero_grad()
    loss.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    value = loss.item()
    if math.isfinite(value) and math.isfinite(norm.item()):
        optimizer.step()
    return value


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """How large the next steps are; a group with a "share" of its own takes so much of that."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def rate_at(step: int, done: float, warmup_steps: int = WARMUP_STEPS) -> float:
    """Share of the full rate: warm-up in so many steps, and a cosine over the run (`done`: 0..1) down to a fiftieth."""
    return min(1.0, (step + 1) / warmup_steps) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16, so that it pays."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_bfloat16(device: torch.device) -> torch.autocast:
    """What is computed there within it is in bfloat16, where that pays."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type != "cpu" or has_bfloat16())


def alike(ordered: Sequence[T], count: int, near: int, random: np.random.Generator) -> list[T]:
    """So many of `near` that lie side by side in what is ordered by length: little of a batch is not there then."""
    first = int(random.integers(max(1, len(ordered) - near + 1)))
    found = range(first, min(first + near, len(ordered)))
    return [ordered[i] for i in random.choice(found, min(count, len(found)), replace=False)]


def log_row(path: Path, row: Mapping[str, Any]) -> None:
    """Print a row of figures, and write it behind what is in the log."""
    line = json.dumps(row)
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM both raise KeyboardInterrupt; a shell hands its background jobs a SIGINT that is ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def status_of(work: Callable[[], object], stopped: str = "") -> int:
    """Do the work on one thread -> the command's exit status; what is wrong is told, and `stopped` after Ctrl-C."""
    stop_on_signals()
    torch.set_num_threads(1)
    try:
        work()
    except (SottovoceError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if stopped:
            print(stopped, file=sys.stderr)
        return 130
    return 0
