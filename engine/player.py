"""Plays a sound and what was made of it, one at a time and as loud as each other, to compare the two by ear.

    two sounds ─► [ resample, level, cross-fade between the two, fade at every start and stop ] ─► ring ─► device

Both are read all the time, so that one is heard from the very sample at which the other is left.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from engine.devices import DeviceInfo, choose_output
from engine.mix import ACTIVE_FRAME, Ramp, active_level, active_rms, frame_powers
from engine.port_choice import port_for
from engine.ports import Port, Wake
from engine.resample import FileResampler
from engine.ring import Fifo, Ring
from engine.soundfiles import SoundReader
from engine.types import AudioFileError, DeviceError, Samples

LEVEL_HZ = 16000
BLOCK_MS = 10.0  # also the length of every fade
AHEAD_S = 0.15  # waits for the device: enough for a window that is busy, and soon over when the other is wanted
CHUNK_S = 0.1
LOOK_S = 0.005
RING_S = 0.5
UNTOLD_S = 0.1  # a device holds back more than it tells: a null sink of PulseAudio two blocks
HELD = 6
log = logging.getLogger(__name__)
OpenPort = Callable[[DeviceInfo], Port]


@dataclass(frozen=True)
class Recorded:
    """Mono sound in memory: samples [N]."""

    samples: Samples
    sample_rate_hz: int


class MemoryTrack:
    """The same as Track of sound that is in memory."""

    def __init__(self, sound: Recorded, sample_rate_hz: int) -> None:
        self.rms = active_rms(FileResampler(sound.sample_rate_hz, LEVEL_HZ).process(sound.samples, last=True))
        self._sound = FileResampler(sound.sample_rate_hz, sample_rate_hz).process(sound.samples, last=True)
        self._rate_hz, self._at = sample_rate_hz, 0
        self.duration_s = len(sound.samples) / sound.sample_rate_hz

    def seek(self, at_s: float) -> None:
        """Go on from there."""
        self._at = max(0, round(at_s * self._rate_hz))

    def read(self, count: int) -> Samples:
        """The next samples [count], fewer at the end only."""
        begin, self._at = self._at, self._at + count
        return self._sound[begin : self._at]

    def close(self) -> None: ...


class Track:
    """A sound file as mono at another rate, from any place. What cannot be read from its midst is first copied.

    rms: its level while there is something to hear. Raises AudioFileError.
    """

    def __init__(self, path: Path, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.rms = self._measure(path)
        self._sound = self._opened(path)
        self.duration_s = self._sound.frames / self._sound.samplerate
        self.seek(0.0)

    def _measure(self, path: Path) -> float:
        with SoundReader(path) as reader:
            down, rest = FileResampler(reader.sample_rate_hz, LEVEL_HZ), Fifo()
            powers = [np.zeros(1, dtype=np.float32)]
            for block in reader.blocks():
                rest.push(down.process(block.mean(axis=1)))
                powers.append(frame_powers(rest.pop(len(rest) // ACTIVE_FRAME * ACTIVE_FRAME)))
        return active_level(np.concatenate(powers))

    def _opened(self, path: Path) -> soundfile.SoundFile:
        try:
            sound = soundfile.SoundFile(path)
            if sound.seekable():
                return sound
            sound.close()
        except (soundfile.SoundFileError, TypeError):
            pass  # FFmpeg reads it, from its beginning only
        self._copy = tempfile.TemporaryDirectory(prefix="sottovoce-")
        copy = Path(self._copy.name) / "sound.wav"
        try:
            with SoundReader(path) as reader, soundfile.SoundFile(copy, "w", reader.sample_rate_hz, 1, "PCM_16") as to:
                for block in reader.blocks():
                    to.write(block.mean(axis=1))
            return soundfile.SoundFile(copy)
        except (soundfile.SoundFileError, OSError) as error:
            self._copy.cleanup()
            raise AudioFileError(f"{path} cannot be copied to be played; make room on the disk") from error

    def seek(self, at_s: float) -> None:
        """Go on from there."""
        self._resampler = FileResampler(self._sound.samplerate, self._rate_hz)
        self._waiting, self._over = Fifo(), False
        try:
            self._sound.seek(min(self._sound.frames, max(0, round(at_s * self._sound.samplerate))))
        except soundfile.SoundFileError:
            self._over = True  # cut off before it gets there

    def read(self, count: int) -> Samples:
        """The next samples [count], fewer at the end only."""
        while len(self._waiting) < count and not self._over:
            try:
                block = self._sound.read(round(CHUNK_S * self._sound.samplerate), dtype="float32", always_2d=True)
            except soundfile.SoundFileError:
                block = np.zeros((0, 1), dtype=np.float32)  # damaged: it is over here
            self._over = not len(block)
            self._waiting.push(self._resampler.process(np.nan_to_num(block.mean(axis=1)), last=self._over))
        return self._waiting.pop(count)

    def close(self) -> None:
        self._sound.close()
        if self._copy is not None:
            self._copy.cleanup()


def _track(source: Path | Recorded, sample_rate_hz: int) -> Track | MemoryTrack:
    return MemoryTrack(source, sample_rate_hz) if isinstance(source, Recorded) else Track(source, sample_rate_hz)


class Player:
    """Both sounds, and the thread that plays them. Every method returns at once but the constructor and `close`.

    output: a device's id, None for the default. failure: why it stopped, one line. Raises AudioFileError, DeviceError.
    """

    def __init__(
        self,
        original: Path | Recorded,
        result: Path | Recorded,
        output: str | None = None,
        open_port: OpenPort | None = None,
    ) -> None:
        self._device = choose_output(output)
        self._open_port = open_port or _open_port
        rate_hz = self.sample_rate_hz = self._device.sample_rate_hz
        self._block = round(rate_hz * BLOCK_MS / 1000.0)
        first = _track(original, rate_hz)
        with ExitStack() as undo:
            undo.callback(first.close)
            self._tracks = (first, _track(result, rate_hz))
            undo.pop_all()
        self._gains = _matched(first.rms, self._tracks[1].rms)
        self.duration_s = max(track.duration_s for track in self._tracks)
        self.failure: str | None = None
        self._of_result, self._loud = Ramp(0.0, self._block), Ramp(0.0, self._block)
        self._hears_result = self._wanted = False
        self._at = self._from = 0  # samples read, from the beginning; where reading last began
        self._ring: Ring | None = None
        self._port: Port | None = None
        self._heard_until_s = 0.0  # as long as nothing more is played
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._halt = Wake(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce player", daemon=True)
        self._thread.start()

    # Anyone's ---------------------------------------------------------------------------------------------------------

    @property
    def playing(self) -> bool:
        return self._wanted

    @property
    def over(self) -> bool:
        """Whether nothing is to be played any more, and nothing waits for the device."""
        return not self._wanted and self._port is None and self._commands.empty()

    @property
    def position_s(self) -> float:
        """What is heard now."""
        return max(self._from, self._at - self._queued()) / self.sample_rate_hz

    def play(self) -> None:
        """Go on, from the beginning when it was over."""
        self._do(self._begin)

    def pause(self) -> None:
        self._do(self._pause)

    def seek(self, at_s: float) -> None:
        """Go there, playing or not."""
        self._do(lambda: self._go(at_s))

    def listen_to(self, result: bool) -> None:
        """Hear the result or the original from now on."""
        self._hears_result = result

    def close(self) -> None:
        """End at once, and let go of device and files."""
        self._halt.set()
        self._wake.ring()
        self._thread.join()

    # The thread's -----------------------------------------------------------------------------------------------------

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        self._wake.ring()

    def _run(self) -> None:
        try:
            while not self._halt.is_set():
                self._wake.wait(LOOK_S if self._port is not None else 1.0)
                self._look()
        finally:
            self._give_port_back()
            for track in self._tracks:
                track.close()

    def _look(self) -> None:
        try:
            while not self._commands.empty():
                self._commands.get()()
            self._work()
        except DeviceError as error:
            self._fail(str(error))
        except Exception as error:  # top of a thread: whoever listens must learn why it is silent
            log.debug("the player failed", exc_info=error)
            self._fail(f"this cannot be played ({type(error).__name__}: {error}); open it again")

    def _work(self) -> None:
        if self._wanted and self._port is None:
            ring = self._ring = Ring(round(RING_S * self.sample_rate_hz))
            port = self._open_port(self._device)
            port.start(ring, self._wake)
            self._port = port
        port_now = self._port
        if port_now is None:
            return
        if not port_now.alive:
            self._fail("the output has gone; choose another, and play again")
            return
        self._fill()
        port_now.pump()
        if self._is_played_out(port_now):
            self._give_port_back()

    def _is_played_out(self, port: Port) -> bool:
        """Whether all has been heard; what the device holds back would be lost with it."""
        now_s = time.monotonic()
        if self._wanted or self._queued():
            self._heard_until_s = now_s + port.latency_ms / 1000.0 + UNTOLD_S
        return now_s >= self._heard_until_s

    def _fill(self) -> None:
        ring = self._ring
        assert ring is not None
        while self._wanted and self._queued() < AHEAD_S * self.sample_rate_hz:
            block = self._next(1.0)
            ring.write(block)
            if len(block) < self._block:
                self._wanted = False

    def _next(self, loud: float) -> Samples:
        """The next block of what is wanted, its loudness on the way to `loud`; shorter at the end only."""
        both = [track.read(self._block) for track in self._tracks]
        count = max(map(len, both))
        first, second = (
            np.pad(gain * sound, (0, count - len(sound))) for gain, sound in zip(self._gains, both, strict=True)
        )
        share = self._of_result.next(1.0 if self._hears_result else 0.0)
        share = share[:count] if isinstance(share, np.ndarray) else share
        gain = self._loud.next(loud)
        gain = gain[:count] if isinstance(gain, np.ndarray) else gain
        self._at += count
        mixed: Samples = (gain * (first + share * (second - first))).astype(np.float32)
        return mixed

    def _begin(self) -> None:
        if self._at >= self.duration_s * self.sample_rate_hz - self._block:
            self._go(0.0)
        self.failure, self._wanted = None, True

    def _pause(self) -> None:
        if self._wanted:
            self._fade_out()
        self._wanted = False

    def _go(self, at_s: float) -> None:
        if self._wanted:
            self._fade_out()
        at_s = min(max(0.0, at_s), self.duration_s)
        for track in self._tracks:
            track.seek(at_s)
        self._at = self._from = round(at_s * self.sample_rate_hz)
        self._loud = Ramp(0.0, self._block)

    def _fade_out(self) -> None:
        if self._ring is not None:
            self._ring.write(self._next(0.0))

    def _queued(self) -> int:
        """Samples on their way to the device."""
        ring, port = self._ring, self._port
        return (ring.fill if ring is not None else 0) + (port.pending if port is not None else 0)

    def _fail(self, text: str) -> None:
        self.failure, self._wanted = text, False
        self._give_port_back()

    def _give_port_back(self) -> None:
        port, self._port, self._ring = self._port, None, None
        self._loud = Ramp(0.0, self._block)
        if port is not None:
            port.stop()


def _matched(*levels: float) -> tuple[np.float32, ...]:
    """Gains that make these levels equal: the louder ones are turned down, so that nothing can clip."""
    least = min((level for level in levels if level > 0.0), default=1.0)
    return tuple(np.float32(least / level if level > 0.0 else 1.0) for level in levels)


def _open_port(device: DeviceInfo) -> Port:
    return port_for(device, device.sample_rate_hz, BLOCK_MS, HELD)
