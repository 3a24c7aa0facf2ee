"""Measures a live run as a person would hear it, over a PulseAudio server of its own with null sinks.

    recording ─► noise ─► stage, left ─► mic ─► [ engine ] ─► heard ─► stage, right

`stage` is one sink of two channels, and its monitor is recorded as one stream: left is what the microphone gave, right
what came out, on the same clock. The delay is where the two match best. The same is measured with nothing but the two
device ports in the engine's place; the path is the difference.
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
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine.artefacts import checked_file
from engine.devices import choose_input, choose_output
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
    Problem,
    Provider,
    Samples,
    Stats,
)

RATE_HZ = 48000
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
SETTLE_S = 2.0
DIRECT_S = 4.0
WINDOW_S, MAX_DELAY_S = 0.5, 0.5
GAP_MS = 1.0  # so much of nothing in the midst of sound is a gap that can be heard
CALM_S, AFTER_S = 15.0, 20.0  # before and after a load
BACK_MS = 3.0
DRAIN_S = 1.0  # what is still to be captioned at the end is not waited for
LIKENESS = 0.6  # a window counts when left and right match at least so well


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


def delays_ms(both: Samples) -> list[float]:
    """Delay of the right channel behind the left in each window of both [N, 2] in which the two match, in ms."""
    return [delay_ms for _, delay_ms in delays_over_time(both)]


def delays_over_time(both: Samples) -> list[tuple[float, float]]:
    """The same with the time in s at which each window begins."""
    size, reach = round(WINDOW_S * RATE_HZ), round(MAX_DELAY_S * RATE_HZ)
    found = []
    for start in range(0, len(both) - size - reach, size):
        part = both[start : start + size, 0].astype(np.float64)
        later = both[start : start + size + reach, 1].astype(np.float64)
        length = 1 << (len(later) + size).bit_length()
        spectrum = np.conj(np.fft.rfft(part, length)) * np.fft.rfft(later, length)
        match = np.fft.irfft(spectrum, length)[:reach]
        power = np.concatenate([[0.0], np.cumsum(later**2)])
        energy = np.sqrt((power[size : size + reach] - power[:reach]) * np.sum(part**2)) + 1e-9
        best = int(np.argmax(match / energy))
        if match[best] / energy[best] >= LIKENESS:
            found.append((start / RATE_HZ, 1000.0 * best / RATE_HZ))
    return found


def gaps(x: Samples) -> int:
    """How often x [N] at RATE_HZ is exactly nothing for GAP_MS or longer, its beginning and its end left out."""
    sounding = np.flatnonzero(x)
    return int(np.count_nonzero(np.diff(sounding) > GAP_MS * RATE_HZ / 1000.0))


def _direct_ms(stage: Stage, block_ms: float) -> list[float]:
    """Delays through the two device ports alone, one ring between them and a thread that looks every millisecond."""
    ring, wake, halt = Ring(RATE_HZ), Wake(), threading.Event()
    microphone = port_for(choose_input(MIC_SOURCE, HEARD_SINK), RATE_HZ, block_ms)
    heard = port_for(choose_output(HEARD_SINK), RATE_HZ, block_ms)

    def move() -> None:
        hurry()
        while not halt.wait(0.001):
            microphone.pump()
            heard.pump()

    mover = threading.Thread(target=move, name="sottovoce direct", daemon=True)
    try:
        heard.start(ring, wake)
        microphone.start(ring, wake)
        mover.start()
        time.sleep(SETTLE_S)
        return delays_ms(stage.record(DIRECT_S))
    finally:
        halt.set()
        if mover.ident is not None:
            mover.join()
        microphone.stop()
        heard.stop()


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
        self.dropouts.append(max((e.dropouts for e in self.events if isinstance(e, Stats)), default=0))


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
            ready = _wait_settled(engine)
            load = _Load(engine, seconds)
            load.start()
            both = stage.record(whole_s)
            load.join()
            engine.stop(DRAIN_S)
    before, during, after = np.diff([ready.dropouts if ready is not None else 0, *load.dropouts]).tolist()
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


def measure_live(seconds: float = 20.0, captions: bool = True, provider: str = "auto") -> dict[str, Any]:
    """Run the engine for `seconds` over null sinks and tell what it cost. Times in ms, memory in MB.

    delay: from microphone to output; direct: the same without the engine; path: the difference. dropouts: as the engine
    counts them; dropouts_why: a line about each; gaps_heard: in what came out, where what went in had none. percentages
    are of one core.
    Raises DeviceError where PulseAudio is not installed, and when no window of the sound could be matched.
    """
    background = Background.parse("keep")  # what comes out is what went in, so that the two can be matched
    config = EngineConfig(MIC_SOURCE, HEARD_SINK, background, provider=Provider(provider), captions=captions)
    with Stage() as stage:
        stage.play(stimulus(seconds + DIRECT_S + 60.0))
        direct = _direct_ms(stage, config.block_ms)
        with Engine(config) as engine:
            ready = _wait_settled(engine)
            usage = Usage()
            dropouts = ready.dropouts if ready is not None else 0
            both = stage.record(seconds)
            cpu, rss = usage.percent(), usage.rss_mb()
            events = engine.poll()
            engine.stop(DRAIN_S)
    stats = next(e for e in reversed(events) if isinstance(e, Stats))
    problems = [e for e in events if isinstance(e, Problem)]
    return {
        "seconds": seconds,
        "captions": captions and not any(problem.state in (NO_CAPTIONS, NO_WHISPER) for problem in problems),
        "provider": stats.provider,
        **path_figures(delays_ms(both), direct),
        "algorithmic_latency_ms": stats.algorithmic_latency_ms,
        "delay_parts_ms": dict(stats.delay_parts_ms),
        "hop_ms_median": stats.hop_ms_median,
        "hop_ms_p99": stats.hop_ms_p99,
        "hop_ms_max": stats.hop_ms_max,
        "dropouts": stats.dropouts - dropouts,
        "dropouts_why": newest(stats.dropouts_why, stats.dropouts - dropouts),
        "closest": stats.closest or None,
        "gaps_heard": max(0, gaps(both[:, 1]) - gaps(both[:, 0])),
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


def _wait_settled(engine: Engine) -> Stats | None:
    """Until the start is over: models warm, Whisper loaded, the reserve found. The last Stats by then."""
    last: Stats | None = None
    engine.wait_captions()
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        time.sleep(0.1)
        last = next((e for e in reversed(engine.poll()) if isinstance(e, Stats)), last)
    engine.clear_times()
    return last
