"""A second sound that is captioned and nothing else: what the others in a call say, from a monitor of the loudspeakers.

    monitor ─► ring ─► [ side thread: to 16 kHz ] ─► a recogniser of its own ─► captions labelled OTHERS

It is never mixed with the microphone. Its clock is held to the engine's, so that the words of both can be put in order:
where sound is missing silence stands for it, and while the engine's own clock stands still nothing is captioned.
"""

from __future__ import annotations

import time

import numpy as np

from engine.device_port import DevicePort
from engine.devices import INPUT, DeviceInfo, choose_input, choose_output, list_devices
from engine.level import SILENCE_PEAK
from engine.port_choice import port_for
from engine.ports import Wake
from engine.recognizer import Recognizer, Told
from engine.resample import FileResampler
from engine.ring import Ring
from engine.types import DEFAULT_WHISPER, LOUDSPEAKERS, OTHERS, DeviceError, Problem, Samples, UsageError
from engine.vad import SAMPLE_RATE_HZ

BLOCK_MS, HELD = 20.0, 5
RING_S = 2.0
QUIET_AFTER_S = 2.0
ADRIFT_S = 0.3  # a difference to the engine's clock that is made up for
RETRY_S = 2.0
STALL_S = 2.5  # see engine.endpoints


def choose_companion(wanted: str) -> DeviceInfo:
    """The device whose sound is captioned too. Raises DeviceError or UsageError."""
    if wanted != LOUDSPEAKERS:
        return choose_input(wanted)
    output = choose_output(None)
    for device in list_devices():
        if device.kind == INPUT and device.monitor_of == output.id:
            return device
    raise DeviceError(f"what {output.name} plays cannot be heard here; choose a device: sottovoce devices")


class Companion:
    """`work` is the engine's side thread's; all else its owner's, before the thread begins or after it has ended."""

    def __init__(self, wanted: str, language: str | None, whisper: str = DEFAULT_WHISPER) -> None:
        self._wanted = wanted
        self._recognizer = Recognizer(language, model=whisper, source=OTHERS)
        self._port: DevicePort | None = None
        self._ring, self._resampler = Ring(1), FileResampler(1, 1)
        self._fed = 0  # samples at 16 kHz on the engine's clock
        self._quiet = 0
        self._told_gone = False
        self._tried_s, self._moved_s = float("-inf"), 0.0
        self._blocks = -1

    @property
    def pid(self) -> int | None:
        """The process of its recogniser."""
        return self._recognizer.pid

    def open(self) -> None:
        """Raises UsageError or ArtefactError. The device is looked for by `work`, and may come and go."""
        self._recognizer.start()

    def _connect(self, device: DeviceInfo) -> None:
        port = port_for(device, device.sample_rate_hz, BLOCK_MS, HELD)
        ring = Ring(round(RING_S * device.sample_rate_hz))
        port.start(ring, Wake())
        self._port, self._ring = port, ring
        self._resampler = FileResampler(device.sample_rate_hz, SAMPLE_RATE_HZ)
        self._blocks, self._moved_s = -1, time.monotonic()

    def _disconnect(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.stop()

    @property
    def lag_s(self) -> float:
        return self._recognizer.lag_s

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether its Whisper is loaded within this time."""
        return self._recognizer.wait_ready(timeout_s)

    def work(self, time_s: float, paused: bool) -> list[Told]:
        """Hand on what came since the last call. time_s: the engine's clock; paused: what is said now is left out."""
        told = self._watch(time_s)
        if self._port is not None:
            self._port.pump()
        sound = self._ring.read(self._ring.fill)[:, 0]
        now = round(time_s * SAMPLE_RATE_HZ)
        if len(sound):
            ahead = self._fed - now > ADRIFT_S * SAMPLE_RATE_HZ
            self._feed(self._resampler.process(sound), paused or ahead)
        behind = now - self._fed
        if behind > ADRIFT_S * SAMPLE_RATE_HZ:
            self._leave_out(behind)
        return told + self._recognizer.poll()

    def _feed(self, heard: Samples, paused: bool) -> None:
        """Sound [N] at 16 kHz; a long silence, and what is not to be captioned, only as a length."""
        if not len(heard):
            return
        self._quiet = self._quiet + len(heard) if np.abs(heard).max() <= SILENCE_PEAK else 0
        if paused or self._quiet > QUIET_AFTER_S * SAMPLE_RATE_HZ:
            return  # the clock is made up for as soon as it is adrift
        self._recognizer.feed(heard)
        self._fed += len(heard)

    def _leave_out(self, count: int) -> None:
        self._recognizer.leave_out(count)
        self._fed += count

    def _watch(self, time_s: float) -> list[Told]:
        """Notice that the device went, or that another is meant now, and look for it again now and then."""
        now_s = time.monotonic()
        if self._port is not None and self._port.blocks != self._blocks:
            self._blocks, self._moved_s = self._port.blocks, now_s
        if self._port is not None and now_s - self._moved_s > STALL_S:
            self._disconnect()
        if now_s - self._tried_s < RETRY_S:
            return []
        self._tried_s = now_s
        try:
            device = choose_companion(self._wanted)
            if self._port is None or self._port.device != device.id:
                self._disconnect()
                self._connect(device)
        except (DeviceError, UsageError) as error:
            self._disconnect()
            first, self._told_gone = not self._told_gone, True
            return [Problem(time_s, f"the others are not captioned for now: {error}", "captions")] if first else []
        self._told_gone = False
        return []

    def end(self) -> None:
        """No more sound; does not wait for the last words."""
        self._disconnect()
        self._recognizer.end()

    def finish(self, drain_s: float) -> list[Told]:
        """Its last words, waited for so long at most."""
        self.end()
        return self._recognizer.finish(drain_s)

    def stop(self) -> None:
        """Give everything back at once."""
        self._disconnect()
        self._recognizer.stop()
