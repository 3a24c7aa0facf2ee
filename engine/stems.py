"""The voice alone and the background alone of a sound file, each into a file of its own at the models' rate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.artefacts import CodecInfo
from engine.hop import HopOutput
from engine.ring import Fifo
from engine.soundfiles import SoundWriter
from engine.types import Samples, SottovoceError


@dataclass(frozen=True)
class StemPaths:
    """Where the two go; neither is there yet."""

    speech: Path
    background: Path


class Stems:
    """Hears every hop of every channel and writes what all channels have; in line with the sound they are taken from.

    lag: samples at the start that come from before the sound; frames: how many there will be, where that is known.
    Raises AudioFileError when the disk refuses.
    """

    def __init__(
        self, paths: StemPaths, info: CodecInfo, channels: int, lag: int, integer: bool, frames: int | None = None
    ) -> None:
        self.sample_rate_hz = info.sample_rate_hz
        self._to_skip = [lag] * channels
        self._waiting = [(Fifo(), Fifo()) for _ in range(channels)]
        self._writers: list[SoundWriter] = []
        self._finished: list[Path] = []
        try:
            for path in (paths.speech, paths.background):
                self._writers.append(SoundWriter(path, info.sample_rate_hz, channels, integer, frames))
        except SottovoceError:
            self.discard()
            raise

    def listener(self, channel: int) -> Callable[[HopOutput], None]:
        """What a channel's stream is to tell of its hops."""

        def hear(hop: HopOutput) -> None:
            skip = min(self._to_skip[channel], len(hop.speech))
            self._to_skip[channel] -= skip
            for waiting, sound in zip(self._waiting[channel], (hop.speech, hop.background)):
                waiting.push(sound[skip:])

        return hear

    def write(self, up_to: int | None = None) -> None:
        """Write what is there, `up_to` so many frames in all: the rest is what flushing a stream brought forth."""
        there = min(len(speech) for speech, _ in self._waiting)
        count = there if up_to is None else min(there, up_to - self._writers[0].frames)
        for number, writer in enumerate(self._writers):
            writer.write(_together([pair[number].pop(max(0, count)) for pair in self._waiting]))

    def finish(self) -> None:
        """Give both their names."""
        for writer in self._writers:
            writer.finish()
            self._finished.append(writer.path)

    def discard(self) -> None:
        """Leave nothing, even where they had their names already."""
        for writer in self._writers:
            writer.discard()
        for path in self._finished:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _together(columns: Sequence[Samples]) -> Samples:
    return np.stack(columns, axis=1)
