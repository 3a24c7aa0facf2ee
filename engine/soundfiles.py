"""Sound files, block by block: read by libsndfile or, where that cannot, by FFmpeg; written beside and renamed.

Everything that can go wrong becomes an AudioFileError of one line. Memory does not grow with a file's length.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import soundfile

from engine.tokens import holds_tokens
from engine.types import AudioFileError, Samples, UsageError

if TYPE_CHECKING:
    import av

MAX_CHANNELS = 8
BLOCK_S = 1.0
WAV_LIMIT_BYTES = 4_000_000_000  # a RIFF size field ends a little later
FLOAT_SUBTYPES = {"FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
# extension -> container, and the encoding for integer and for float sources
FORMATS = {
    ".wav": ("WAV", "PCM_24", "FLOAT"),
    ".w64": ("W64", "PCM_24", "FLOAT"),
    ".rf64": ("RF64", "PCM_24", "FLOAT"),
    ".aiff": ("AIFF", "PCM_24", "FLOAT"),
    ".aif": ("AIFF", "PCM_24", "FLOAT"),
    ".caf": ("CAF", "PCM_24", "FLOAT"),
    ".au": ("AU", "PCM_24", "FLOAT"),
    ".flac": ("FLAC", "PCM_24", "PCM_24"),
    ".ogg": ("OGG", "VORBIS", "VORBIS"),
    ".oga": ("OGG", "VORBIS", "VORBIS"),
    ".opus": ("OGG", "OPUS", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III", "MPEG_LAYER_III"),
}


class SoundReader:
    """A sound file opened for one pass from its start.

    frames: as the file declares, None when it does not; integer: whether its samples are integers of up to 24 bits.
    Raises AudioFileError when there is nothing to read, and from `blocks` when a sample is not a finite number.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._require_file()
        self._sound: soundfile.SoundFile | None = None
        self._container: Any = None
        self._seconds: float | None = None
        self._broke_off = False
        try:
            self._sound = soundfile.SoundFile(self.path)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless format
            self._open_container(error)
        if self._sound is not None:
            self.sample_rate_hz, self.channels = int(self._sound.samplerate), int(self._sound.channels)
            self.frames: int | None = self._sound.frames if self._sound.seekable() else None
            self.integer = self._sound.subtype not in FLOAT_SUBTYPES and self._sound.subtype != "PCM_32"
        self.frames_read = 0
        if self.channels > MAX_CHANNELS:
            self.close()
            raise AudioFileError(f"{self.path} has {self.channels} channels; up to {MAX_CHANNELS} can be worked on")
        if self.frames == 0:
            self.close()
            raise AudioFileError(f"{self.path} holds no sound; choose a file that does")

    def _require_file(self) -> None:
        if self.path.is_dir():
            raise AudioFileError(f"{self.path} is a folder; name a sound file in it")
        if not self.path.exists():
            raise AudioFileError(f"{self.path} does not exist; check the name")
        try:
            if not self.path.is_file():  # a pipe can be opened once: who writes into it would find nobody there then
                return
            if self.path.stat().st_size == 0:
                raise AudioFileError(f"{self.path} is empty; choose a file that holds sound")
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise AudioFileError(f"{self.path} cannot be read ({error.strerror}); check its permissions") from error

    def _open_container(self, reason: Exception) -> None:
        """Through FFmpeg, for what libsndfile does not know (m4a, webm, film)."""
        import av  # late: few files need it, and a live run starts without

        try:
            self._container = av.open(str(self.path), metadata_errors="ignore")
            coding = self._container.streams.audio[0].codec_context
            self.sample_rate_hz, self.channels = int(coding.sample_rate), int(coding.channels)
        except (av.FFmpegError, AttributeError, IndexError, OSError, ValueError):  # AttributeError: of no known coding
            self.close()
            what = "is not a sound file that can be read; convert it to WAV first"
            if holds_tokens(self.path):
                what = "holds tokens and no sound; make sound of them with sottovoce decode"
            raise AudioFileError(f"{self.path} {what}") from reason
        self.frames, self.integer = None, False
        if self.sample_rate_hz <= 0 or self.channels <= 0:
            self.close()
            raise AudioFileError(f"{self.path} does not say how it is coded; convert it to WAV first")
        self._seconds = float(self._container.duration / av.time_base) if self._container.duration else None

    @property
    def duration_s(self) -> float | None:
        """As declared; None when unknown."""
        if self.frames is None:
            return self._seconds
        return self.frames / self.sample_rate_hz

    @property
    def warning(self) -> str | None:
        """What was amiss, once all blocks have been read."""
        if self._broke_off:
            return f"{self.path} is damaged: it can be read for {self.frames_read / self.sample_rate_hz:.2f} s only"
        if self.frames is None or self.frames_read == self.frames:
            return None
        return f"{self.path} ends early: {self.frames_read} of {self.frames} frames are there"

    def blocks(self) -> Iterator[Samples]:
        """All of the file in blocks [N, C] of about a second, float32 with full scale at 1."""
        source = self._from_sound() if self._sound is not None else self._from_container()
        for block in source:
            if not np.isfinite(block).all():
                bad = int(np.argmin(np.isfinite(block).all(axis=1))) + self.frames_read
                where = bad / self.sample_rate_hz
                raise AudioFileError(
                    f"{self.path} has a sample that is no finite number at {where:.3f} s; repair it first"
                )
            self.frames_read += len(block)
            yield block
        if self.frames_read == 0:
            raise AudioFileError(f"{self.path} holds no sound; choose a file that does")

    def _from_sound(self) -> Iterator[Samples]:
        assert self._sound is not None
        size = max(1, int(BLOCK_S * self.sample_rate_hz))
        try:
            while len(block := self._sound.read(size, dtype="float32", always_2d=True)):
                yield block
        except soundfile.SoundFileError as error:
            if self.frames_read == 0:
                raise AudioFileError(
                    f"{self.path} is damaged and cannot be read; repair or convert it first"
                ) from error

    def _from_container(self) -> Iterator[Samples]:
        import av

        stream = self._container.streams.audio[0]
        layout = stream.codec_context.layout
        same = av.AudioResampler(format="flt", layout=layout, rate=self.sample_rate_hz)
        waiting: list[Samples] = []
        try:
            for frame in self._container.decode(stream):
                waiting += [self._rows(f) for f in same.resample(frame)]
                if sum(map(len, waiting)) >= self.sample_rate_hz * BLOCK_S:
                    yield np.concatenate(waiting)
                    waiting.clear()
            waiting += [self._rows(f) for f in same.resample(None)]
        except av.FFmpegError as error:
            if self.frames_read == 0:
                raise AudioFileError(
                    f"{self.path} is damaged and cannot be read; repair or convert it first"
                ) from error
            self._broke_off = True
        if waiting:
            yield np.concatenate(waiting)

    def _rows(self, frame: av.AudioFrame) -> Samples:
        return frame.to_ndarray().astype(np.float32, copy=False).reshape(-1, self.channels)

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        for opened in (self._sound, self._container):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_target(source: str | Path, target: str | Path, force: bool) -> None:
    """Raise UsageError when `target` is the source itself, is there already and `force` is not given, or is no file
    that may be replaced; AudioFileError where its folder is missing."""
    source, target = Path(source), Path(target)
    if source.exists() and target.exists() and source.samefile(target):
        raise UsageError(f"{target} is the input itself; name another output")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no plain file; name another output")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; add --force to replace it")
    if not target.parent.is_dir():
        raise AudioFileError(f"folder {target.parent} does not exist; make it first")


def partial_path(target: Path) -> Path:
    """A name beside `target` for what is not finished; made exclusively so that two runs do not meet."""
    path = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise AudioFileError(f"{target} cannot be written ({error.strerror}); choose another place") from error
    return path


class SoundWriter:
    """A sound file in the making, beside its final name. `finish` moves it there, `discard` leaves no trace.

    The extension chooses the format; integer sources become 24-bit, others float, where the format has a choice.
    Raises UsageError for an extension that cannot be written, AudioFileError when the disk or the format refuses.
    """

    def __init__(
        self, path: str | Path, sample_rate_hz: int, channels: int, integer: bool = False, frames: int | None = None
    ) -> None:
        self.path, self.sample_rate_hz, self.channels = Path(path), sample_rate_hz, channels
        container, subtype = self._format(integer, frames)
        self.frames, self._moving = 0, False
        self._temp = partial_path(self.path)
        self._sound: soundfile.SoundFile | None = None
        try:
            self._sound = soundfile.SoundFile(self._temp, "w", sample_rate_hz, channels, subtype, format=container)
        except (soundfile.SoundFileError, ValueError) as error:
            self.discard()
            if self._can_hold(container, subtype):
                raise self._full() from error
            raise AudioFileError(
                f"{self.path.suffix} cannot hold {channels} channels at {sample_rate_hz} Hz; write .wav instead"
            ) from error

    def _can_hold(self, container: str, subtype: str) -> bool:
        """Whether the format takes such sound at all, asked without the disk."""
        try:
            soundfile.SoundFile(
                io.BytesIO(), "w", self.sample_rate_hz, self.channels, subtype, format=container
            ).close()
        except (soundfile.SoundFileError, ValueError):
            return False
        return True

    def _format(self, integer: bool, frames: int | None) -> tuple[str, str]:
        extension = self.path.suffix.lower()
        if extension not in FORMATS:
            raise UsageError(
                f"{self.path.name} has an extension that cannot be written; take one of {', '.join(FORMATS)}"
            )
        container, for_integer, for_float = FORMATS[extension]
        subtype = for_integer if integer else for_float
        size = (frames or 0) * self.channels * (3 if subtype == "PCM_24" else 4)
        return ("RF64" if container == "WAV" and size > WAV_LIMIT_BYTES else container), subtype

    def write(self, x: Samples) -> None:
        """Add x [N, C] (or [N] when there is one channel)."""
        assert self._sound is not None
        try:
            for start in range(0, len(x), 8192):  # libsndfile's Vorbis encoder takes its scratch space from the stack
                self._sound.write(x[start : start + 8192])
        except (soundfile.SoundFileError, OSError, AssertionError) as error:  # AssertionError: fewer written than given
            raise self._full() from error
        self.frames += len(x)

    def finish(self) -> None:
        """Close, check that all is there, and move it to its name; further calls do nothing."""
        assert self._sound is not None
        if self._moving and not self._temp.exists():  # a person interrupted just after it was there
            return
        try:
            self._sound.close()
            found = soundfile.info(str(self._temp))
            lossless = found.subtype not in FLOAT_SUBTYPES or found.subtype in ("FLOAT", "DOUBLE")
            if found.frames < self.frames and lossless:
                raise self._full()
            self._moving = True
            os.replace(self._temp, self.path)
        except (soundfile.SoundFileError, OSError) as error:
            raise self._full() from error

    def discard(self) -> None:
        """Close and delete; nothing is left."""
        with contextlib.suppress(soundfile.SoundFileError, OSError):
            if self._sound is not None:
                self._sound.close()
        with contextlib.suppress(OSError):
            self._temp.unlink(missing_ok=True)

    def _full(self) -> AudioFileError:
        return AudioFileError(
            f"{self.path} cannot be written to its end; make room on the disk or choose another place"
        )
