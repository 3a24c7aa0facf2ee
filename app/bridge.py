"""The only meeting point of Qt and the engine.

    GUI thread       a QTimer at 30 Hz drains engine.poll() and the answers of the commands, and emits typed signals
    command thread   makes, starts, sets and stops the engine, lists devices and scenes: all that may block

The engine never calls Qt and the command thread never emits: it leaves answers in a queue that the timer drains.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from queue import SimpleQueue
from typing import Any, Protocol

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from engine.types import (
    ArtefactError,
    Background,
    Caption,
    DeviceChange,
    EngineConfig,
    Event,
    Levels,
    Problem,
    RecordingChange,
    Residue,
    SottovoceError,
    Stats,
    Tokens,
)

POLL_MS = 33
HIDDEN_POLL_MS = 200
DRAIN_S = 2.0  # how long captions may catch up when the engine goes down
LOG = logging.getLogger("sottovoce.window")


class LiveEngine(Protocol):
    """What the window needs of engine.live.Engine."""

    def start(self) -> None: ...

    def poll(self) -> list[Event]: ...

    def set(
        self,
        *,
        background: Background | str | None = None,
        bypass: bool | None = None,
        muted: bool | None = None,
        input: str | None = None,
        output: str | None = None,
        watched: bool | None = None,
        level: bool | None = None,
    ) -> None: ...

    def resync(self) -> None: ...

    def record(self, folder: str) -> None: ...

    def end_recording(self) -> None: ...

    def stop(self, drain_s: float = ...) -> None: ...


EngineFactory = Callable[[EngineConfig], LiveEngine]
Answer = Callable[[], None]


class RunState(StrEnum):
    """What the command thread has brought the engine to."""

    OFF = "off"
    STARTING = "starting"
    ON = "on"
    STOPPING = "stopping"


class CommandThread:
    """Runs commands one after another, off the GUI thread; what they return is handed to `then` on the GUI thread."""

    def __init__(self) -> None:
        self.answers: SimpleQueue[Answer] = SimpleQueue()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sottovoce-commands", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        """Queue `work`; afterwards `then(result)` or `failed(one line)` waits among the answers."""
        self._jobs.put(lambda: self._do(work, then, failed))

    def finish(self) -> None:
        """Let the thread end when what is queued is done."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for what is queued, and for the thread's end, but no longer than this."""
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _do(self, work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        try:
            result = work()
        except (SottovoceError, OSError) as error:
            text = str(error)
            self.answers.put(lambda: failed(text))
        except Exception as error:  # top of a thread: the person must learn of it
            LOG.exception("a command failed")
            text = f"something went wrong in the engine ({type(error).__name__}: {error}); switch it on again"
            self.answers.put(lambda: failed(text))
        else:
            self.answers.put(lambda: then(result))


class Bridge(QObject):
    """Typed signals out of the engine, commands into it. Every method returns at once.

    Signals carry one event each, but run_state (RunState), devices (list of DeviceInfo), scenes (list of SceneInfo),
    clouds (name -> Cloud), failed (a line for a person) and closed (the engine is down and the thread has ended).
    """

    levels = Signal(Levels)
    tokens = Signal(Tokens)
    residue = Signal(Residue)
    caption = Signal(Caption)
    stats = Signal(Stats)
    device_change = Signal(DeviceChange)
    problem = Signal(Problem)
    recording = Signal(RecordingChange)
    not_recording = Signal(str)  # a recording could not be begun or ended; the line says why
    run_state = Signal(object)
    devices = Signal(list)
    scenes = Signal(list)
    clouds = Signal(dict)
    failed = Signal(str)
    no_captions = Signal(str)  # the engine runs, but without captions; the line says why
    frame = Signal()  # after each poll: time to repaint
    closed = Signal()

    def __init__(
        self,
        make_engine: EngineFactory,
        list_devices: Callable[[], list[Any]],
        list_scenes: Callable[[], list[Any]],
        read_clouds: Callable[[], dict[str, Any]] = dict,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._read_clouds = read_clouds
        self._make_engine = make_engine
        self._list_devices = list_devices
        self._list_scenes = list_scenes
        self._engine: LiveEngine | None = None  # GUI thread's view; written when a command has been answered
        self._owned: LiveEngine | None = None  # command thread's view; nobody else touches it
        self._pending: dict[str, Any] = {}  # settings not yet taken by the command thread; under _pending_lock
        self._pending_lock = threading.Lock()
        self._commands = CommandThread()
        self._asked = 0  # how often to start or stop was asked for: only the newest counts; GUI thread writes
        self._closing = self._hidden = False
        self.state = RunState.OFF
        self._signals: dict[type, Any] = {
            Tokens: self.tokens,
            Caption: self.caption,
            Residue: self.residue,
            DeviceChange: self.device_change,
            Problem: self.problem,
            RecordingChange: self.recording,
        }
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.poll)
        self._timer.start(POLL_MS)

    # Commands ---------------------------------------------------------------------------------------------------------

    def start(self, config: EngineConfig) -> None:
        """Bring up an engine with these settings, in place of one that runs. Of several in a row the last one wins."""
        self._asked += 1
        number = self._asked
        self._to_state(RunState.STARTING)
        self._commands.submit(
            lambda: self._replace(config, number),
            lambda engine: self._started(engine, number),
            lambda text: self._start_failed(text, number),
        )

    def stop(self) -> None:
        """Take the engine down."""
        self._asked += 1
        self._to_state(RunState.STOPPING)
        self._commands.submit(self._take_down, lambda _: self._stopped(), self._stop_failed)

    def set(self, **changes: Any) -> None:
        """Change settings of the running engine. A slider may call this at any rate: the latest values win."""
        with self._pending_lock:
            queued = bool(self._pending)
            self._pending.update(changes)
        if not queued:
            self._commands.submit(self._apply_pending, lambda _: None, self.failed.emit)

    def resync(self) -> None:
        """Throw away what waits in buffers: the delay is at its smallest again."""
        self._commands.submit(self._resync, lambda _: None, self.failed.emit)

    def record(self, folder: str) -> None:
        """Begin a recording in mid-run; `recording` tells when it has begun."""
        self._commands.submit(lambda: self._record(folder), lambda _: None, self.not_recording.emit)

    def end_recording(self) -> None:
        """End it; `recording` tells when it can be played."""
        self._commands.submit(lambda: self._record(None), lambda _: None, self.not_recording.emit)

    def refresh_devices(self) -> None:
        """List devices; `devices` is emitted when they are known, empty after a failure."""
        self._commands.submit(self._list_devices, self.devices.emit, self._no_devices)

    def refresh_scenes(self) -> None:
        """List scenes; `scenes` is emitted when they are known."""
        self._commands.submit(self._list_scenes, self.scenes.emit, self.failed.emit)

    def refresh_clouds(self) -> None:
        """Find out where the kinds of noise lie; `clouds` is emitted when that is known, empty where it never is."""
        self._commands.submit(self._read_clouds, self.clouds.emit, lambda _: self.clouds.emit({}))

    def close(self) -> None:
        """Take the engine down and end the thread; `closed` is emitted when both are done."""
        if self._closing:
            return
        self._closing = True
        self.stop()
        self._commands.finish()

    def set_hidden(self, hidden: bool) -> None:
        """Nobody looks: poll seldom, and let the sound rest when no program listens. No event is lost by that."""
        self._timer.setInterval(HIDDEN_POLL_MS if hidden else POLL_MS)
        self._hidden = hidden
        self.set(watched=not hidden)

    # GUI thread -------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Drain answers and events, emit them; meters: only the newest."""
        while not self._commands.answers.empty():
            self._commands.answers.get()()
        if self._engine is not None:
            self._emit_events(self._engine.poll())
        self.frame.emit()
        if self._closing and not self._commands.alive and self._commands.answers.empty():
            self._timer.stop()
            self.closed.emit()

    def _emit_events(self, events: list[Event]) -> None:
        newest: dict[type, Event] = {}
        for event in events:
            signal = self._signals.get(type(event))
            if signal is None:
                newest[type(event)] = event
            else:
                signal.emit(event)
        if Levels in newest:
            self.levels.emit(newest[Levels])
        if Stats in newest:
            self.stats.emit(newest[Stats])

    def _started(self, engine: LiveEngine | None, number: int) -> None:
        if engine is None or number != self._asked:  # what was asked for meanwhile takes its place
            return
        if self._engine is not None:
            self._emit_events(self._engine.poll())  # the last words of the one before
        self._engine = engine
        self.set(watched=not self._hidden)
        self._to_state(RunState.ON)

    def _start_failed(self, text: str, number: int) -> None:
        if number != self._asked:
            return
        self._engine = None
        self._to_state(RunState.OFF)
        self.failed.emit(text)

    def _no_devices(self, text: str) -> None:
        self.devices.emit([])
        self.failed.emit(text)

    def _stopped(self) -> None:
        if self._engine is not None:
            self._emit_events(self._engine.poll())  # the last words
        self._engine = None
        self._to_state(RunState.OFF)

    def _stop_failed(self, text: str) -> None:
        self._stopped()
        self.failed.emit(text)

    def _to_state(self, state: RunState) -> None:
        self.state = state
        self.run_state.emit(state)

    # Command thread ---------------------------------------------------------------------------------------------------

    def _replace(self, config: EngineConfig, number: int) -> LiveEngine | None:
        """Another engine in place of the one that runs; None where by then something else was asked for."""
        self._take_down()
        if number != self._asked:
            return None
        try:
            self._owned = self._started_engine(config)
        except ArtefactError as error:
            if not config.captions:
                raise
            text = str(error)  # perhaps only what captions need is missing
            self._owned = self._started_engine(dataclasses.replace(config, captions=False))
            self._commands.answers.put(lambda: self.no_captions.emit(text))
        return self._owned

    def _started_engine(self, config: EngineConfig) -> LiveEngine:
        engine = self._make_engine(config)
        engine.start()  # an engine that cannot start cleans up after itself
        return engine

    def _take_down(self) -> None:
        engine, self._owned = self._owned, None
        if engine is not None:
            engine.stop(DRAIN_S)

    def _resync(self) -> None:
        if self._owned is not None:
            self._owned.resync()

    def _record(self, folder: str | None) -> None:
        if self._owned is not None and folder is not None:
            self._owned.record(folder)
        elif self._owned is not None:
            self._owned.end_recording()

    def _apply_pending(self) -> None:
        with self._pending_lock:
            changes, self._pending = self._pending, {}
        if self._owned is not None and changes:
            self._owned.set(**changes)
