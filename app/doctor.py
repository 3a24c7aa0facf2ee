"""`sottovoce doctor`: what is installed, loaded and found, and what to do about what is not."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from app import console
from engine.types import SottovoceError, UsageError

State = Literal["ok", "note", "missing"]
RUN_SETUP = "run ./run again, it installs what is pinned"
NEEDED_FREE_GB = 1.0
QT_LIBRARIES = ("xcb-cursor", "xkbcommon-x11", "xcb-icccm", "xcb-keysyms", "EGL")
QT_TRIAL = "from PySide6.QtGui import QGuiApplication as A; print(A([]).platformName())"
PACKAGES = (
    *("numpy", "torch", "openai-whisper", "PySide6-Essentials", "pyqtgraph", "sounddevice", "rtmixer", "soundfile"),
    *("av", "soxr", "typer", "rich", "platformdirs", "pydantic", "pysubs2", "matplotlib", "psutil", "websockets"),
    *("filelock", "tomlkit"),
)


@dataclass(frozen=True)
class Check:
    """One finding. state: ok, note (works, but less well) or missing (it is needed); do: what helps."""

    what: str
    state: State
    found: str
    do: str = ""


def doctor(as_json: bool = False, report: Path | None = None) -> int:
    """Run every check and print it; FAILED when something needed is missing. report: write it all to a file, too.

    Raises UsageError or SottovoceError when the report cannot be written.
    """
    if report is not None and report.exists():
        raise UsageError(f"{report} is there already; name another file")
    if report is not None and not report.parent.is_dir():
        raise UsageError(f"folder {report.parent} does not exist; make it first")
    checks: list[Check] = []
    for find in CHECKS:
        for check in find():
            checks.append(check)
            if not as_json:
                _print(check)
    missing = [c for c in checks if c.state == "missing"]
    if as_json:
        console.print_json({"ok": not missing, "checks": [asdict(c) for c in checks]})
    if report is not None:
        _write_report(report, checks)
    if missing:
        console.say(f"{len(missing)} needed: {', '.join(c.what for c in missing)}; do what is told beside each")
    return console.FAILED if missing else console.DONE


def _print(check: Check) -> None:
    print("\n".join(_lines(check)), flush=True)


def _lines(check: Check) -> list[str]:
    mark = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}[check.state]
    first = f"{mark}  {check.what:<18} {check.found}"
    return [first, f"{'':9}{'':<18} -> {check.do}"] if check.do else [first]


def _write_report(path: Path, checks: list[Check]) -> None:
    """The checks and the newest lines of the log; no sound and no words are in either."""
    from app.bench import machine
    from app.logbook import last_lines, without_name

    found = [without_name(line) for check in checks for line in _lines(check)]
    about = [f"{name}: {value}" for name, value in machine().items()]
    text = "\n".join(["Sottovoce, a report", *about, "", *found, "", "the last lines of the log", *last_lines()])
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise SottovoceError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    console.say(f"{path} holds the report; it has no sound and no words in it, read it before you send it")


def version_of(package: str) -> str | None:
    """The installed version, None where it is not installed. Nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} at {sys.executable}"
    old = sys.version_info < (3, 11)
    yield Check("python", "missing" if old else "ok", found, "install Python 3.11 or newer, then ./run" if old else "")
    yield Check("system", "ok", f"{platform.platform()}, {os.cpu_count()} cores")


def _packages() -> Iterator[Check]:
    versions = {name: version_of(name) for name in PACKAGES}
    absent = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{n} {v}" for n, v in versions.items() if v is not None)
    if absent:
        yield Check("packages", "missing", f"not installed: {', '.join(absent)}", RUN_SETUP)
    yield Check("packages", "ok", found)


def onnxruntime_check(cpu: str | None, gpu: str | None) -> Check:
    """The two packages hold the same files: with both, whichever came last half overwrites the other."""
    if cpu and gpu:
        do = "uninstall both onnxruntime and onnxruntime-gpu with pip, then run ./run again"
        return Check("onnxruntime", "missing", f"both onnxruntime {cpu} and onnxruntime-gpu {gpu} are installed", do)
    if cpu or gpu:
        return Check("onnxruntime", "ok", f"onnxruntime{'-gpu' if gpu else ''} {gpu or cpu}")
    return Check("onnxruntime", "missing", "not installed", RUN_SETUP)


def _onnxruntime() -> Iterator[Check]:
    check = onnxruntime_check(version_of("onnxruntime"), version_of("onnxruntime-gpu"))
    yield check
    if check.state == "ok":
        yield from _providers()


def _providers() -> Iterator[Check]:
    """Whether the networks load on each provider; a GPU that is not there is no fault."""
    from engine.artefacts import load_models
    from engine.types import Provider

    for provider in (Provider.CPU, Provider.CUDA, Provider.TENSORRT):
        try:
            models = load_models(provider)
        except SottovoceError as error:
            state: State = "missing" if provider is Provider.CPU else "note"
            yield Check(f"provider {provider}", state, console.one_line(error))
            continue
        info = models.info
        found = f"codec {info.codec_id[:12]}, {info.algorithmic_latency_ms():g} ms algorithmic latency"
        yield Check(f"provider {provider}", "ok", found)


def _artefacts() -> Iterator[Check]:
    from engine.artefacts import checked_file, read_manifest
    from engine.paths import assets_dir

    try:
        names = [str(row["name"]) for row in read_manifest(assets_dir())]
    except SottovoceError as error:
        yield Check("artefacts", "missing", console.one_line(error), "restore assets/ from its source")
        return
    good = 0
    for name in names:
        try:
            checked_file(assets_dir(), name)
            good += 1
        except SottovoceError as error:
            yield Check(f"artefact {name}", "missing", console.one_line(error), "restore assets/ from its source")
    yield Check("artefacts", "ok", f"{good} of {len(names)} match their sha256, in {assets_dir()}")


def _qt() -> Iterator[Check]:
    if sys.platform.startswith("linux"):
        absent = [name for name in QT_LIBRARIES if ctypes.util.find_library(name) is None]
        if absent:
            do = "sudo apt install libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libegl1"
            yield Check("Qt libraries", "note", f"not found: {', '.join(absent)}; the window may not open", do)
    screen = not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    environment = os.environ if screen else {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", QT_TRIAL], env=environment, capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        yield Check("window", "note", "Qt did not answer within 30 s", "check the screen, or use the command line")
        return
    if trial.returncode:
        last = console.one_line((trial.stderr.strip().splitlines() or ["Qt stopped without a word"])[-1])
        yield Check("window", "note", last, "install Qt's system libraries, or use the command line")
    elif not screen:
        yield Check("window", "note", "Qt loads; no screen here", "use sottovoce demo, live or enhance")
    else:
        yield Check("window", "ok", f"Qt opens on {trial.stdout.strip()}")


def _folders() -> Iterator[Check]:
    from engine.paths import cache_dir, config_dir

    for name, folder in (("cache folder", cache_dir()), ("settings folder", config_dir())):
        yield folder_check(name, folder)


def folder_check(name: str, folder: Path) -> Check:
    """Whether files can be made in `folder`, or in what would hold it, and the room there."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Check(name, "missing", f"{folder}: {error.strerror}", f"make {there} writable for yourself")
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb < NEEDED_FREE_GB:
        return Check(name, "note", f"{folder}, {free_gb:.1f} GB free", f"make room, {NEEDED_FREE_GB:g} GB or more")
    return Check(name, "ok", f"{folder}, {free_gb:.0f} GB free")


def portaudio_check() -> Check:
    """Whether it is there, and whether it is missed."""
    from engine.devices import on_pulse
    from engine.libpulse import usable

    library, do = ctypes.util.find_library("portaudio"), "sudo apt install libportaudio2"
    if not sys.platform.startswith("linux") or library is not None:
        return Check("PortAudio", "ok", library or "comes with the package sounddevice")
    if usable() and on_pulse():  # which needs nothing else
        return Check("PortAudio", "note", "not found; only used without a sound server", do)
    return Check("PortAudio", "missing", "not found; live use needs it", do)


def _sound() -> Iterator[Check]:
    from engine.devices import list_devices, on_pulse

    yield portaudio_check()
    if sys.platform.startswith("linux"):
        if on_pulse():
            yield Check("sound server", "ok", f"answers at {os.environ.get('PULSE_SERVER', 'its usual place')}")
        else:
            do = "pulseaudio --start, or log in where PulseAudio or PipeWire runs"
            yield Check("sound server", "note", "none answers; no live use, and no virtual microphone", do)
    try:
        found = [d for d in list_devices() if not d.is_own]
    except SottovoceError as error:
        yield Check("sound devices", "note", console.one_line(error), "sottovoce demo and enhance work without")
        return
    counts = {kind: sum(d.kind == kind and not d.is_monitor for d in found) for kind in ("input", "output")}
    do = "" if all(counts.values()) else "plug one in for live use; sottovoce demo and enhance work without"
    yield Check(
        "sound devices", "note" if do else "ok", f"{counts['input']} microphones, {counts['output']} outputs", do
    )


def _weights() -> Iterator[Check]:
    from engine.weights import DEFAULT_NAME, find_weights

    found = find_weights(DEFAULT_NAME)
    if found is None:
        do = f"sottovoce models get {DEFAULT_NAME}, or sottovoce models import FILE"
        yield Check("Whisper", "missing", "no weights here that can be trusted; captions need them", do)
    else:
        yield Check("Whisper", "ok", f"{found.name}, sha256 {found.sha256[:16]}, {found.source}, {found.path}")


def _voice_detector() -> Iterator[Check]:
    """It is installed beside the program, because what it says it needs is not needed for its network alone."""
    from engine.vad import model_path

    try:
        yield Check("voice detector", "ok", f"silero-vad {version_of('silero-vad')}, {model_path()}")
    except SottovoceError as error:
        found, _, do = console.one_line(error).partition("; ")
        yield Check("voice detector", "missing", f"{found}; captions need it", do)


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _packages,
    _onnxruntime,
    _artefacts,
    _weights,
    _voice_detector,
    _sound,
    _qt,
    _folders,
)
