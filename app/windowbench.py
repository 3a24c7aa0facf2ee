"""A long run of the window as people use it: captions and every view on, over a private sound server of null sinks."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil

from engine.control import Request, ask
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage, delays_ms, gaps, stimulus
from engine.types import SottovoceError

LOOK_S = 10.0
HEARD_S = 30.0  # of the beginning and of the end are recorded and compared
READY_S = 60.0
SETTLE_S = 20.0  # Whisper is loaded by then, and the reserve found
END_S = 15.0


def measure_window(seconds: float, provider: str, progress: Callable[[float], None]) -> dict[str, Any]:
    """Let the window run for `seconds`, never less than what is recorded of it. Times in ms, memory in MB.

    dropouts: since it had settled; gaps_heard: in what came out at the beginning and at the end, where what went in had
    none; hop_ms_max: the worst since the start; growth: of memory, from the first look to the last; percentages are of
    one core. Raises DeviceError where PulseAudio is not installed, SottovoceError when the window does not come up.
    """
    seconds = max(seconds, 2 * HEARD_S + LOOK_S)
    with Stage() as stage:
        stage.play(stimulus(seconds + READY_S + SETTLE_S + 60.0))
        with _window(provider) as process:
            for do, value in (("input", MIC_SOURCE), ("output", HEARD_SINK), ("background", "keep")):
                _steer(do, value)
            time.sleep(SETTLE_S)
            looks, began_s = [_look(process)], time.monotonic()
            first = stage.record(HEARD_S)
            while (past_s := time.monotonic() - began_s) < seconds - HEARD_S:
                time.sleep(min(LOOK_S, max(0.1, seconds - HEARD_S - past_s)))
                looks.append(_look(process))
                progress(past_s / seconds)
            last = stage.record(HEARD_S)
            looks.append(_look(process))
    delays = [delays_ms(first), delays_ms(last)]
    if not all(delays):
        raise SottovoceError("no sound came through the window's run; see its log (sottovoce doctor)")
    return figures(looks, time.monotonic() - began_s, [statistics.median(part) for part in delays]) | {
        "gaps_heard": sum(max(0, gaps(both[:, 1]) - gaps(both[:, 0])) for both in (first, last))
    }


def figures(looks: list[dict[str, Any]], seconds: float, delays: list[float]) -> dict[str, Any]:
    """What the looks at a run of so many seconds and the delays at its beginning and end come to."""
    first, last = looks[0], looks[-1]
    wall_s = max(1e-3, last["at_s"] - first["at_s"])
    return {
        "seconds": seconds,
        "dropouts": last["dropouts"] - first["dropouts"],
        "given_up": sorted({name for look in looks for name in look["given_up"]}),
        "hop_ms_median": statistics.median(look["hop_ms_median"] for look in looks),
        "hop_ms_p99": max(look["hop_ms_p99"] for look in looks),
        "hop_ms_max": last["hop_ms_max"],
        "delay_ms_first": delays[0],
        "delay_ms_last": delays[1],
        "cpu_percent": 100.0 * (last["cpu_s"] - first["cpu_s"]) / wall_s,
        "cpu_percent_captions": 100.0 * (last["captions_cpu_s"] - first["captions_cpu_s"]) / wall_s,
        "rss_mb_first": first["rss_mb"],
        "rss_mb_last": last["rss_mb"],
        "growth_mb": last["rss_mb"] - first["rss_mb"],
        "growth_mb_per_hour": _per_hour([look["at_s"] for look in looks], [look["rss_mb"] for look in looks]),
        "captions_growth_mb": last["captions_rss_mb"] - first["captions_rss_mb"],
    }


def _per_hour(times_s: list[float], values: list[float]) -> float:
    """Slope of a straight line through the values."""
    return 3600.0 * float(np.polyfit(np.array(times_s) - times_s[0], values, 1)[0]) if len(values) > 1 else 0.0


@contextmanager
def _window(provider: str) -> Iterator[psutil.Process]:
    """The window in a process of its own, with settings and a socket of its own; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-window-") as folder:
        own = {"XDG_RUNTIME_DIR": folder, "SOTTOVOCE_CONFIG": folder, "SOTTOVOCE_LOGS": folder}
        if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
            own["QT_QPA_PLATFORM"] = "offscreen"
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            with subprocess.Popen([sys.executable, "-m", "app", "gui", "--provider", provider]) as child:
                try:
                    _wait_until_it_answers(child)
                    yield psutil.Process(child.pid)
                finally:
                    _end(child)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _wait_until_it_answers(child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if "dropouts" in ask(Request("status")).status:
                return
        except SottovoceError:
            pass  # not yet
        time.sleep(0.5)
    raise SottovoceError("the window did not come up; try: sottovoce gui")


def _steer(do: str, value: str) -> None:
    answer = ask(Request(do, value))
    if not answer.ok:
        raise SottovoceError(answer.said)


def _look(process: psutil.Process) -> dict[str, Any]:
    """The run's own status, and what it costs, its recogniser apart."""
    answer = ask(Request("status"))
    children = [c for c in process.children(recursive=True) if any("whisper_worker" in part for part in c.cmdline())]
    used, captions = process.cpu_times(), [child.cpu_times() for child in children]
    return answer.status | {
        "at_s": time.monotonic(),
        "cpu_s": used.user + used.system,
        "captions_cpu_s": sum(each.user + each.system for each in captions),
        "rss_mb": process.memory_info().rss / 1e6,
        "captions_rss_mb": sum(child.memory_info().rss for child in children) / 1e6,
    }
