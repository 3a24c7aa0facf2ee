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

from app.settings_file import write
from engine.control import Request, ask
from engine.delays import delays_ms, gaps
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage, Usage, newest, stimulus
from engine.soak import per_hour
from engine.types import SottovoceError

LOOK_S = 10.0
MINUTE_LOOKS = 6
HEARD_S = 30.0  # of the beginning and of the end are recorded and compared
READY_S = 60.0
SETTLE_S = 20.0  # Whisper is loaded by then, and the reserve found
WORDLESS_S = 60.0  # of a second run, without captions
END_S = 15.0


def measure_window(seconds: float, provider: str, progress: Callable[[float], None]) -> dict[str, Any]:
    """Let the window run for `seconds`, never less than what is recorded of it. Times in ms, memory in MB.

    dropouts: since it had settled, dropouts_why: a line about each of the newest; closest: what came nearest to one,
    minute by minute; gaps_heard: in what came out at the beginning and at the end, where what went in had
    none; hop_ms_max: the worst since the start; repaint_ms: of the GUI thread, for a frame of all pictures, those of
    the last ten seconds; growth: of memory, from the first look to the last, and of captions from the most of the first
    minute to that of the last; percentages are of one core, the one without captions from a shorter run of its own.
    Raises DeviceError where PulseAudio is not installed, SottovoceError when the window does not come up.
    """
    seconds = max(seconds, 2 * HEARD_S + LOOK_S)
    with Stage() as stage:
        stage.play(stimulus(seconds + WORDLESS_S + 2 * (READY_S + SETTLE_S) + 60.0))
        with _window(provider) as process:
            _steer_to_stage()
            usage, began_s = Usage(process), time.monotonic()
            looks = [_look(usage)]
            first = stage.record(HEARD_S)
            while (past_s := time.monotonic() - began_s) < seconds - HEARD_S:
                time.sleep(min(LOOK_S, max(0.1, seconds - HEARD_S - past_s)))
                looks.append(_look(usage))
                progress(past_s / (seconds + WORDLESS_S))
            last = stage.record(HEARD_S)
            looks.append(_look(usage))
            cpu = usage.percent()
        with _window(provider, captions=False) as process:
            _steer_to_stage()
            usage = Usage(process)
            time.sleep(WORDLESS_S)
            wordless, _ = usage.percent()
    delays = [delays_ms(first), delays_ms(last)]
    if not all(delays):
        raise SottovoceError("no sound came through the window's run; see its log (sottovoce doctor)")
    return figures(looks, [statistics.median(part) for part in delays], cpu) | {
        "gaps_heard": sum(max(0, gaps(both[:, 1]) - gaps(both[:, 0])) for both in (first, last)),
        "cpu_percent_without_captions": wordless,
    }


def figures(looks: list[dict[str, Any]], delays: list[float], cpu_percent: tuple[float, float]) -> dict[str, Any]:
    """What two looks or more, the delays at the beginning and the end, and the window's and its recogniser's processor
    time come to."""
    first, last = looks[0], looks[-1]
    return {
        "seconds": last["at_s"] - first["at_s"],
        "dropouts": last["dropouts"] - first["dropouts"],
        "dropouts_why": newest(last["dropouts_why"], last["dropouts"] - first["dropouts"]),
        "closest": list(dict.fromkeys(look["closest"] for look in looks if look["closest"] is not None)),
        "given_up": sorted({name for look in looks for name in look["given_up"]}),
        "hop_ms_median": statistics.median(look["hop_ms_median"] for look in looks),
        "hop_ms_p99": max(look["hop_ms_p99"] for look in looks),
        "hop_ms_max": last["hop_ms_max"],
        "repaint_ms_median": statistics.median(look["repaint_ms"] for look in looks),
        "delay_ms_first": delays[0],
        "delay_ms_last": delays[1],
        "cpu_percent": cpu_percent[0],
        "cpu_percent_captions": cpu_percent[1],
        "rss_mb_first": first["rss_mb"],
        "rss_mb_last": last["rss_mb"],
        "growth_mb": last["rss_mb"] - first["rss_mb"],
        "growth_mb_per_hour": per_hour([look["at_s"] for look in looks], [look["rss_mb"] for look in looks]),
        "captions_growth_mb": _most_mb(looks[-MINUTE_LOOKS:]) - _most_mb(looks[:MINUTE_LOOKS]),
        "captions_growth_mb_per_hour": _captions_per_hour(looks),
    }


def _captions_per_hour(looks: list[dict[str, Any]]) -> float:
    """The slope of a line through the most of each minute, of two minutes or more; else through all looks."""
    minutes = [looks[at : at + MINUTE_LOOKS] for at in range(0, len(looks), MINUTE_LOOKS)]
    parts = minutes if len(minutes) > 1 else [[look] for look in looks]
    return per_hour([part[0]["at_s"] for part in parts], [_most_mb(part) for part in parts])


def _most_mb(looks: list[dict[str, Any]]) -> float:
    """Of the captions' process, which gives free memory back now and then, and wants it again for a long sentence."""
    return float(max(look["captions_rss_mb"] for look in looks))


@contextmanager
def _window(provider: str, captions: bool = True) -> Iterator[int]:
    """The window in a process of its own, with settings and a socket of its own; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-window-") as folder:
        own = {"XDG_RUNTIME_DIR": folder, "SOTTOVOCE_CONFIG": folder, "SOTTOVOCE_LOGS": folder}
        if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
            own["QT_QPA_PLATFORM"] = "offscreen"
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            write({("captions",): captions})
            with subprocess.Popen([sys.executable, "-m", "app", "gui", "--provider", provider]) as child:
                try:
                    _wait_until_it_answers(child)
                    yield child.pid
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


def _steer_to_stage() -> None:
    """Have the window hear what is played, and let it settle."""
    for do, value in (("input", MIC_SOURCE), ("output", HEARD_SINK), ("background", "keep")):
        _steer(do, value)
    time.sleep(SETTLE_S)


def _steer(do: str, value: str) -> None:
    answer = ask(Request(do, value))
    if not answer.ok:
        raise SottovoceError(answer.said)


def _look(usage: Usage) -> dict[str, Any]:
    """The run's own status, and its memory."""
    rss_mb, captions_rss_mb = usage.rss_mb()
    status = ask(Request("status")).status
    return status | {"at_s": time.monotonic(), "rss_mb": rss_mb, "captions_rss_mb": captions_rss_mb}
