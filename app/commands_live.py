"""What needs sound devices or a window: gui, live, ctl, devices."""

from __future__ import annotations

import math
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import console
from app.live_view import LiveView
from app.logbook import Logbook
from engine.paths import SETTINGS_NAME, config_dir
from engine.types import DEFAULT_WHISPER, Background, CaptionTap, EngineConfig, Provider, SottovoceError, UsageError

if TYPE_CHECKING:
    from engine.control import Answer, ControlServer, Request
    from engine.live import Engine
    from engine.types import Event, Stats

POLL_S = 0.05
HURRY_S = 5.0  # who pressed Ctrl-C does not wait longer than this for the last captions


@dataclass(frozen=True)
class LiveRequest:
    """The options of `sottovoce live`."""

    input_id: str | None
    output_id: str | None
    virtual_mic: bool
    background: str
    level: bool
    captions: bool
    also: str | None
    language: str | None
    record: Path | None
    seconds: float | None
    provider: str
    whisper: str = DEFAULT_WHISPER
    tap: str = CaptionTap.ENHANCED
    adapter: bool = False


def positive_seconds(seconds: float | None) -> float:
    """A duration option as a number; without one, for ever. Raises UsageError."""
    if seconds is None:
        return math.inf
    if not seconds > 0:
        raise UsageError(f"--seconds is above zero, not {seconds:g}")
    return seconds


def load_ahead(provider: str | None) -> None:
    """Begin to load the networks before the settings are read, which takes as long as much of that."""
    from engine import artefacts

    artefacts.load_ahead(Provider(provider) if provider else _likely_provider())


def _likely_provider() -> Provider:
    """What the settings' file names, read without the checks; a wrong guess costs time alone."""
    try:
        return Provider(tomllib.loads((config_dir() / SETTINGS_NAME).read_text(encoding="utf-8"))["provider"])
    except (OSError, KeyError, ValueError):
        return Provider.AUTO


def live_run(request: LiveRequest, control: ControlServer | None) -> int:
    """Run, steered through `control`, until Ctrl-C, the end of the seconds, or the engine gives up (FAILED)."""
    seconds = positive_seconds(request.seconds)
    if request.also is not None and not request.captions:
        raise UsageError("--also is a second sound to caption; give --captions with it")
    if request.adapter and not request.captions:
        raise UsageError("--adapter is about captions; give --captions with it")
    config = EngineConfig(
        input=request.input_id,
        output=request.output_id,
        background=Background.parse(request.background),
        provider=Provider(request.provider),
        captions=request.captions,
        language=request.language,
        record_dir=str(request.record) if request.record else None,
        virtual_mic=request.virtual_mic,
        also=request.also,
        level=request.level,
        whisper=request.whisper,
        tap=CaptionTap(request.tap),
        adapter=request.adapter,
    )
    from engine.live import Engine

    logbook = Logbook("live")
    note = _noting(logbook, control, request.captions)
    engine, view = Engine(config), LiveView(request.captions, note, request.also is not None)
    try:
        return _run(engine, view, request, control, seconds)
    except SottovoceError as error:
        logbook.fault(str(error))
        raise
    finally:
        logbook.close()


def _noting(logbook: Logbook, control: ControlServer | None, captions: bool) -> Callable[[Event], None]:
    """What is done with every event: it is noted in the log, and told to who follows."""
    if control is None:
        return logbook.note
    control.tell_captions(captions)

    def note(event: Event) -> None:
        logbook.note(event)
        control.publish(event)

    return note


def open_control() -> ControlServer | None:
    """Ready for `sottovoce ctl`; None where there are no such sockets. Raises SottovoceError when one runs already."""
    from engine.control import ControlServer

    if sys.platform == "win32":
        return None
    control = ControlServer()
    control.open()
    return control


@contextmanager
def alone() -> Iterator[ControlServer | None]:
    """Ready for `sottovoce ctl`, as `open_control` says, and closed afterwards. To be asked for before all that takes
    long: another may run already."""
    control = open_control()
    try:
        yield control
    finally:
        if control is not None:
            control.close()


def _run(engine: Engine, view: LiveView, request: LiveRequest, control: ControlServer | None, seconds: float) -> int:
    engine.start()
    console.say(_running(request, engine.microphone))
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not _gave_up(view):
            time.sleep(POLL_S)
            view.take(engine.poll())
            if control is not None:
                control.pump(lambda asked: carry_out(engine, view, asked))
    except KeyboardInterrupt:
        engine.stop(HURRY_S)
        _finish(engine, view, request)
        return console.INTERRUPTED
    engine.stop()
    _finish(engine, view, request)
    return console.FAILED if _gave_up(view) else console.DONE


def carry_out(engine: Engine, view: LiveView, asked: Request) -> Answer:
    """Do what `sottovoce ctl` asks. Raises SottovoceError for what cannot be, and then nothing has changed."""
    from engine.control import Answer

    if asked.do == "status":
        return told(status(engine, view))
    if asked.do == "show":
        raise UsageError("sottovoce live runs without a window; steer it with the other ctl commands, or stop it first")
    if asked.do == "resync":
        engine.resync()
    elif asked.do == "bypass":
        engine.set(bypass=asked.on)
    elif asked.do == "mute":
        engine.set(muted=asked.on)
    elif asked.do == "level":
        engine.set(level=asked.on)
    else:
        change: dict[str, Any] = {asked.do: asked.value}
        engine.set(**change)
    return Answer(True, asked.do if asked.value is None else f"{asked.do} {asked.value}")


def status(engine: Engine, view: LiveView) -> dict[str, Any]:
    """How the run is doing, by name."""
    source, sink = engine.devices
    figures: dict[str, Any] = {
        "state": engine.state,
        "background": str(engine.background),
        "input": source,
        "output": sink,
        "process": os.getpid(),
    }
    return figures | (stats_figures(view.stats) if view.stats is not None else {})


def stats_figures(stats: Stats) -> dict[str, Any]:
    """What of an engine's Stats goes into a status, rounded."""
    return {
        "time_s": round(stats.time_s, 1),
        "delay_ms": round(stats.delay_ms, 1),
        "hop_ms_median": round(stats.hop_ms_median, 2),
        "hop_ms_p99": round(stats.hop_ms_p99, 2),
        "hop_ms_max": round(stats.hop_ms_max, 2),
        "load": round(stats.load, 3),
        "dropouts": stats.dropouts,
        "dropouts_why": list(stats.dropouts_why),
        "closest": stats.closest or None,
        "given_up": list(stats.given_up),
        "caption_lag_s": round(stats.caption_lag_s, 1),
    }


def told(figures: dict[str, Any]) -> Answer:
    """Figures by name as the answer to `status`."""
    from engine.control import Answer

    return Answer(True, ", ".join(f"{name} {_shown(value)}" for name, value in figures.items()), figures)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "nothing"
    return "none" if value is None else str(value)


def ctl(do: str, value: str | None, as_json: bool) -> int:
    """Steer the running app. Raises UsageError for what is no request, SottovoceError when nobody runs."""
    from engine.control import FOLLOW, ask, checked_request

    if do == FOLLOW:
        raise UsageError("follow is for programs that stay connected; start one: sottovoce serve")
    answer = ask(checked_request(do, value))
    if not answer.ok:
        console.say(answer.said)
        return console.FAILED
    if as_json:
        console.print_json(answer.status or {"said": answer.said})
    else:
        print(answer.said)
    return console.DONE


def _running(request: LiveRequest, microphone: str | None) -> str:
    source = request.input_id or "the default microphone"
    if microphone is not None:
        return f"{source} is clean as the microphone {microphone} in other programs; Ctrl-C stops"
    return f"{source} is clean in {request.output_id or 'the default output'}; Ctrl-C stops"


def _gave_up(view: LiveView) -> bool:
    return any(problem.state == "stopped" for problem in view.problems)


def _finish(engine: Engine, view: LiveView, request: LiveRequest) -> None:
    """Show what came last, and say how it went."""
    view.take(engine.poll())
    view.close()
    for line in summary(view):
        console.say(line)
    if request.record is not None:
        console.say(f"recorded in {request.record}")


def summary(view: LiveView) -> list[str]:
    """How the run went, from its last Stats."""
    stats = view.stats
    if stats is None:
        return []
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in stats.delay_parts_ms)
    return [
        f"{console.clock(stats.time_s)} on {stats.provider}, {stats.dropouts} dropouts, load {100 * stats.load:.0f} %",
        *(f"dropout {line}" for line in stats.dropouts_why),
        f"delay {stats.delay_ms:.0f} ms ({parts})",
        f"a hop took {stats.hop_ms_median:.1f} ms median, {stats.hop_ms_p99:.1f} p99, {stats.hop_ms_max:.1f} at most",
    ]


def devices(as_json: bool) -> int:
    """Raises DeviceError."""
    from engine.devices import list_devices

    found = list_devices()
    if as_json:
        console.print_json({"devices": [asdict(device) for device in found]})
        return console.DONE
    for kind, title in (("input", "microphones (--input ID)"), ("output", "outputs (--output ID)")):
        print(title)
        rows = [d for d in found if d.kind == kind and not d.is_own]
        for d in rows:
            notes = [note for note, on in (("default", d.default), ("hears an output", d.is_monitor)) if on]
            print(f"  {d.id:<48} {d.name}{' (' + ', '.join(notes) + ')' if notes else ''}")
        if not rows:
            print("  none")
    return console.DONE


def gui(demo: bool, quit_after: float | None, screenshot: Path | None, provider: str | None) -> int:
    """Raises SottovoceError when the window cannot open."""
    from app.gui import run_gui

    if quit_after is not None:
        positive_seconds(quit_after)
    chosen = None if provider is None else Provider(provider)
    return run_gui(demo=demo, quit_after_s=quit_after, screenshot=screenshot, provider=chosen)
