"""Measures a live run as a person would hear it, over a PulseAudio server of its own with null sinks.

    recording ─► noise ─► stage, left ─► mic ─► [ engine ] ─► virtual microphone          measure_live
                                                           └► heard ─► stage, right      the others

measure_live records `mic` and the virtual microphone side by side (engine.ears), as a call would record either: the
delay is how much later the same sound comes from the virtual one. The same is measured with nothing but the two device
ports in the engine's place, over the same virtual microphone, so that both went through as many parts of the server;
the path is the difference. The others play into `stage`, one sink of two channels, whose monitor is recorded as one
stream: left is what the microphone gave, right what came out.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine.artefacts import checked_file
from engine.delays import WINDOW_S, delays_heard, delays_over_time, gaps
from engine.devices import choose_input, choose_output
from engine.ears import RATE_HZ, Ears
from engine.live import Engine
from engine.paths import assets_dir
from engine.port_choice import port_for
from engine.ports import Wake
from engine.priority import hurry
from engine.pulse import PrivateServer
from engine.resample import FileResampler
from engine.ring import Ring
from engine.soundfiles import SoundReader
from engine.types import (
    NO_CAPTIONS,
    NO_WHISPER,
    Background,
    DeviceChange,
    DeviceError,
    EngineConfig,
    Event,
    Problem,
    Provider,
    Samples,
    Stats,
)
from engine.virtual_mic import MIC_NAME, MIC_SINK, PulseMic

STAGE_SINK, NOISE_SINK, HEARD_SINK, MIC_SOURCE = "stage", "noise", "heard", "mic"
MODULES = (
    f"module-null-sink sink_name={STAGE_SINK} rate={RATE_HZ} channels=2",
    f"module-remap-sink sink_name={NOISE_SINK} master={STAGE_SINK} remix=no channels=1"
    " channel_map=mono master_channel_map=front-left",
    f"module-remap-sink sink_name={HEARD_SINK} master={STAGE_SINK} remix=no channels=1"
    " channel_map=mono master_channel_map=front-right",
)
MIC_MODULE = "module-remap-source"
MIC_ARGUMENTS = (
    f"source_name={MIC_SOURCE} master={STAGE_SINK}.monitor remix=no channels=1"
    " channel_map=mono master_channel_map=front-left"
)
BLOCK_MS = EngineConfig().block_ms
SETTLE_S = 2.0
DIRECT_S = 4.0
LOOK_S = 0.4
CALM_S, AFTER_S = 15.0, 20.0  # before and after a load
BACK_MS = 3.0
DRAIN_S = 1.0  # what is still to be captioned at the end is not waited for


class Stage:
    """The private server with its sinks, a player into the microphone and a recorder of both sides."""

    def __init__(self) -> None:
        self.server = PrivateServer(MODULES)
        self._folder = tempfile.TemporaryDirectory(prefix="sottovoce-stage-")
        self._players: list[subprocess.Popen[bytes]] = []
        self._mic_module = 0

    def __enter__(self) -> Stage:
        self.server.start()
        try:
            self.plug_in()
        except DeviceError:
            self.server.stop()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        for player in self._players:
            _end(player)
        self.server.stop()
        self._folder.cleanup()

    def plug_in(self) -> None:
        """The microphone appears."""
        self._mic_module = self.server.load(MIC_MODULE, MIC_ARGUMENTS)

    def unplug(self) -> None:
        """The microphone disappears."""
        self.server.unload(self._mic_module)

    def play(self, x: Samples) -> None:
        """Begin to play x [N] at RATE_HZ where the microphone hears it."""
        path = Path(self._folder.name) / f"play{len(self._players)}.f32"
        x.astype("<f4").tofile(path)
        self._players.append(_tool("pacat", NOISE_SINK, 1, str(path)))

    def record(self, seconds: float, sink: str = STAGE_SINK, channels: int = 2) -> Samples:
        """Record the monitor of a sink for so long -> [N, channels]; for `stage` what went in and what came out."""
        return self._record(f"{sink}.monitor", seconds, channels)

    def record_source(self, source: str, seconds: float) -> Samples:
        """Record a source for so long -> [N]."""
        return self._record(source, seconds, 1)[:, 0]

    def record_while(self, action: Callable[[], None]) -> Samples:
        """Both sides from the moment the action begins until it has ended -> [N, 2]."""
        path = Path(self._folder.name) / "record.f32"
        recorder = _tool("parec", f"{STAGE_SINK}.monitor", 2, str(path))
        while not path.exists() or not path.stat().st_size:
            time.sleep(0.01)
        time.sleep(SETTLE_S)
        before = path.stat().st_size // 8
        action()
        _end(recorder)
        return _recorded(path, 2)[before:]

    def _record(self, source: str, seconds: float, channels: int) -> Samples:
        path = Path(self._folder.name) / "record.f32"
        recorder = _tool("parec", source, channels, str(path))
        time.sleep(seconds)
        _end(recorder)
        return _recorded(path, channels)


def _recorded(path: Path, channels: int) -> Samples:
    data = np.fromfile(path, dtype="<f4")
    return data[: len(data) // channels * channels].reshape(-1, channels)


def _tool(program: str, device: str, channels: int, path: str) -> subprocess.Popen[bytes]:
    options = ["--raw", "--format=float32le", f"--rate={RATE_HZ}", f"--channels={channels}", "--latency-msec=20"]
    try:
        return subprocess.Popen([program, "-d", device, *options, path], stderr=subprocess.DEVNULL)
    except OSError as error:
        raise DeviceError(f"{program} cannot be run; install it: sudo apt install pulseaudio-utils") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=5.0)


class _Direct(threading.Thread):
    """The two device ports alone, one ring between them, looked at every millisecond.

    What came while the sink was still waking would wait in front of it for ever. The engine leaves such sound out, so
    this does as well for the first SETTLE_S; else the baseline would be too long, and the engine's path too short.
    """

    def __init__(self, block_ms: float) -> None:
        super().__init__(name="sottovoce direct", daemon=True)
        self._in = port_for(choose_input(MIC_SOURCE, MIC_SINK), RATE_HZ, block_ms)
        self._out = port_for(choose_output(MIC_SINK), RATE_HZ, block_ms)
        self._ring, self._halt = Ring(RATE_HZ), threading.Event()

    def __enter__(self) -> _Direct:
        wake = Wake()
        self._out.start(self._ring, wake)
        try:
            self._in.start(self._ring, wake)
        except DeviceError:
            self._out.stop()
            raise
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._halt.set()
        self.join()
        self._in.stop()
        self._out.stop()

    def run(self) -> None:
        hurry()
        began_s = looked_s = time.monotonic()
        least, too_much = RATE_HZ, 0
        while not self._halt.wait(0.001):
            self._in.pump()
            too_much -= self._ring.skip(too_much)
            self._out.pump()
            least = min(least, self._ring.fill + self._out.pending)
            now_s = time.monotonic()
            if now_s > looked_s + LOOK_S and now_s < began_s + SETTLE_S:
                looked_s, least, too_much = now_s, RATE_HZ, least


def _direct_ms(block_ms: float) -> list[float]:
    """Delays without the engine, in ms."""
    with PulseMic(), Ears(MIC_SOURCE, MIC_NAME) as ears, _Direct(block_ms):
        time.sleep(SETTLE_S)
        began_s = time.monotonic()
        time.sleep(DIRECT_S)
        played, came = ears.stop()
    return delays_heard(played, came, began_s)


def demo_sound(rate_hz: int) -> Samples:
    """The shipped recording [N], mono, at this rate."""
    with SoundReader(checked_file(assets_dir(), "demo")) as reader:
        resampler = FileResampler(reader.sample_rate_hz, rate_hz)
        parts = [resampler.process(block.mean(axis=1)) for block in reader.blocks()]
    return np.concatenate([*parts, resampler.process(np.zeros(0, np.float32), last=True)]).astype(np.float32)


def stimulus(seconds: float) -> Samples:
    """The shipped recording at RATE_HZ, over and over."""
    return np.resize(demo_sound(RATE_HZ), round(seconds * RATE_HZ))


class _Load(threading.Thread):
    """Calm, then other programs that want more than the whole processor, then calm; hears the engine meanwhile."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        super().__init__(name="sottovoce load", daemon=True)
        self._engine, self._seconds = engine, seconds
        self.events: list[Stats | Problem | DeviceChange] = []
        self.dropouts: list[int] = []

    def run(self) -> None:
        self._listen(CALM_S)
        burners = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))
        ]
        try:
            self._listen(self._seconds)
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()
        self._listen(AFTER_S)

    def _listen(self, seconds: float) -> None:
        """Take events for so long, and note the dropouts by then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
            self.events += [e for e in self._engine.poll() if isinstance(e, Stats | Problem | DeviceChange)]
        self.dropouts.append(_dropouts(self.events))


def measure_overload(seconds: float = 30.0, provider: str = "auto") -> dict[str, Any]:
    """How a run with captions bears `seconds` of 100 % load by other programs, two for each core. Times in ms.

    Calm goes before it and comes after it. back_s: from the end of the load until the delay is what it was, within
    BACK_MS, and stays so; None for never. Raises DeviceError where PulseAudio is not installed.
    """
    background = Background.parse("keep")
    config = EngineConfig(MIC_SOURCE, HEARD_SINK, background, provider=Provider(provider), captions=True)
    whole_s = CALM_S + seconds + AFTER_S
    with Stage() as stage:
        stage.play(stimulus(whole_s + 60.0))
        with Engine(config) as engine:
            begun = _wait_settled(engine)
            load = _Load(engine, seconds)
            load.start()
            both = stage.record(whole_s)
            load.join()
            engine.stop(DRAIN_S)
    before, during, after = np.diff([_dropouts(begun), *load.dropouts]).tolist()
    told = [
        e.text if isinstance(e, Problem) else f"{e.what}: {e.device}" for e in load.events if not isinstance(e, Stats)
    ]
    return {
        "load_s": seconds,
        **load_figures(delays_over_time(both), CALM_S, CALM_S + seconds),
        "dropouts_before": before,
        "dropouts_under_load": during,
        "dropouts_after": after,
        "told": told,
    }


def load_figures(delays: list[tuple[float, float]], begin_s: float, end_s: float) -> dict[str, Any]:
    """(time in s, delay in ms) of a run that was under load from begin_s to end_s. Raises DeviceError without sound."""
    before, during, after = (
        [(t, d) for t, d in delays if first <= t < last]
        for first, last in ((0.0, begin_s - WINDOW_S), (begin_s, end_s), (end_s, float("inf")))
    )
    if not before or not after:
        raise DeviceError("no sound came through the null sinks; see what `sottovoce doctor` says")
    usual_ms = statistics.median(d for _, d in before)
    wrong = [t for t, d in after if d > usual_ms + BACK_MS]
    back_s: float | None = wrong[-1] + WINDOW_S - end_s if wrong else 0.0
    if wrong and wrong[-1] == after[-1][0]:
        back_s = None
    return {
        "delay_ms_before": usual_ms,
        "delay_ms_under_load_median": statistics.median(d for _, d in during) if during else None,
        "delay_ms_under_load_max": max((d for _, d in during), default=None),
        "delay_ms_after": statistics.median(d for _, d in after),
        "back_s": back_s,
    }


class Usage:
    """Processor time since it was made, in percent of one core, and memory: of a process (default: this one) and,
    apart, of its recogniser."""

    def __init__(self, process: int | None = None) -> None:
        self._own = psutil.Process(process)
        self._began, self._before = time.monotonic(), self._seconds()

    def _recogniser(self) -> list[psutil.Process]:
        found = []
        for child in self._own.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # one of the sound tools, which has just ended
                found += [child] if any("whisper_worker" in word for word in child.cmdline()) else []
        return found

    def _seconds(self) -> tuple[float, float]:
        own = self._own.cpu_times()
        others = [c.cpu_times() for c in self._recogniser()]
        return own.user + own.system, sum(t.user + t.system for t in others)

    def percent(self) -> tuple[float, float]:
        wall = time.monotonic() - self._began
        now = self._seconds()
        return tuple(100.0 * (b - a) / wall for a, b in zip(self._before, now))  # type: ignore[return-value]

    def rss_mb(self) -> tuple[float, float]:
        return self._own.memory_info().rss / 1e6, sum(c.memory_info().rss for c in self._recogniser()) / 1e6


def measure_live(
    seconds: float = 20.0, captions: bool = True, provider: str = "auto", block_ms: float = BLOCK_MS
) -> dict[str, Any]:
    """Run the engine for `seconds` into its virtual microphone and tell what it cost. Times in ms, memory in MB.

    block_ms: what the devices move at once. delay: from the microphone until it comes from the virtual one; direct: the
    same without the engine; path: the difference. dropouts: as the engine counts them; dropouts_why: a line about each;
    gaps_heard: in what came out, where what went in had none. percentages are of one core.
    Raises DeviceError where PulseAudio is not installed, and when no window of the sound could be matched.
    """
    background = Background.parse("keep")  # what comes out is what went in, so that the two can be matched
    wanted = Provider(provider)
    config = EngineConfig(MIC_SOURCE, None, background, provider=wanted, captions=captions, virtual_mic=True)
    config = replace(config, block_ms=block_ms)
    with Stage() as stage:
        stage.play(stimulus(seconds + DIRECT_S + 60.0))
        direct = _direct_ms(block_ms)
        with Engine(config) as engine, Ears(MIC_SOURCE, MIC_NAME) as ears:
            begun = _wait_settled(engine)
            usage = Usage()
            began_s = time.monotonic()
            time.sleep(seconds)
            cpu, rss = usage.percent(), usage.rss_mb()
            events = engine.poll()
            played, came = ears.stop()
            engine.stop(DRAIN_S)
    stats = next(e for e in reversed(events) if isinstance(e, Stats))
    dropouts = stats.dropouts - _dropouts(begun)
    problems = [e for e in [*begun, *events] if isinstance(e, Problem)]
    return {
        "seconds": seconds,
        "captions": captions and not any(problem.state in (NO_CAPTIONS, NO_WHISPER) for problem in problems),
        "provider": stats.provider,
        "block_ms": block_ms,
        **path_figures(delays_heard(played, came, began_s), direct),
        "algorithmic_latency_ms": stats.algorithmic_latency_ms,
        "delay_parts_ms": dict(stats.delay_parts_ms),
        "hop_ms_median": stats.hop_ms_median,
        "hop_ms_p99": stats.hop_ms_p99,
        "hop_ms_max": stats.hop_ms_max,
        "dropouts": dropouts,
        "dropouts_why": newest(stats.dropouts_why, dropouts),
        "closest": stats.closest or None,
        "gaps_heard": max(0, gaps(came.since(began_s)) - gaps(played.since(began_s))),
        "problems": [problem.text for problem in problems],
        "cpu_percent_sound": cpu[0],
        "cpu_percent_captions": cpu[1],
        "rss_mb": rss[0],
        "captions_rss_mb": rss[1],
    }


def newest(lines: Sequence[str], count: int) -> list[str]:
    """The last `count` of them, or as many as there are."""
    return list(lines)[-count:] if count > 0 else []


def path_figures(delays: list[float], direct: list[float]) -> dict[str, float]:
    """Delays in ms with the engine and without it. Raises DeviceError when there are none."""
    if not delays or not direct:
        raise DeviceError("no sound came through the null sinks; see what `sottovoce doctor` says")
    median_direct = statistics.median(direct)
    median, p99 = statistics.median(delays), float(np.percentile(delays, 99))
    return {
        "delay_ms_median": median,
        "delay_ms_p99": p99,
        "direct_ms_median": median_direct,
        "path_ms_median": median - median_direct,
        "path_ms_p99": p99 - median_direct,
        "windows": len(delays),
    }


def _wait_settled(engine: Engine) -> list[Event]:
    """Until the start is over: models warm, Whisper loaded, the reserve found. What was told by then."""
    told: list[Event] = []
    engine.wait_captions()
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        time.sleep(0.1)
        told += engine.poll()
    engine.clear_times()
    return told


def _dropouts(told: Sequence[Event]) -> int:
    """How many there were when it was last told."""
    return max((event.dropouts for event in told if isinstance(event, Stats)), default=0)
