"""Writes a live run to disk as it goes, so that it can be played whatever ends the run.

    input.wav       what the microphone gave, at the device's rate
    output.wav      what was played, at the same rate and in line with it
    speech.wav      the voice alone, at the models' rate
    background.wav  what was taken away from it
    tokens.svt      both token streams, with the words
    captions.srt    the words that are final; captions-others.srt those of a second sound that was captioned

Sound headers are brought up to date every second, token blocks stand on their own, and captions are replaced whole:
when the program is killed at most the last second is missing. The recorder starts no thread; the engine calls it from
one that may wait.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from engine.artefacts import CodecInfo
from engine.captions import write_captions
from engine.files import header_for
from engine.token_writer import SvtWriter
from engine.types import OTHERS, AudioFileError, Caption, Codes, Samples, SottovoceError, UsageError, Word

UPDATE_S = 1.0
WAV_NAMES = ("input.wav", "output.wav", "speech.wav", "background.wav")
TOKENS_NAME, CAPTIONS_NAME, OTHERS_NAME = "tokens.svt", "captions.srt", "captions-others.srt"
NAMES = (*WAV_NAMES, TOKENS_NAME, CAPTIONS_NAME, OTHERS_NAME)
SAMPLE_BYTES = 3  # 24 bits
RIFF_LIMIT = 0xFFFFFFFF
RATE_AT = 60  # where a header has the sample rate
HEADER_BYTES = 80  # RIFF, a chunk that holds the sizes when they outgrow RIFF, the format, and the data's own head


class WavWriter:
    """A mono 24-bit WAV that is whole after every `update`; it becomes RF64 when it grows beyond 4 GB.

    Raises AudioFileError when it cannot be written; what was written before then is kept and playable.
    """

    def __init__(self, path: Path, sample_rate_hz: int) -> None:
        self.path, self.sample_rate_hz = path, sample_rate_hz
        self.frames = 0
        try:
            self._file: BinaryIO = path.open("wb", buffering=0)
            try:
                self._file.write(self._header())
            except OSError:
                self._file.close()
                raise
        except OSError as error:
            raise self._failed(error) from error

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """A file of such a writer that was not closed, with all that had been written to it."""
        writer = cls.__new__(cls)
        writer.path = path
        try:
            writer._file = path.open("r+b", buffering=0)
            head = writer._file.read(HEADER_BYTES)
            if (
                len(head) < HEADER_BYTES
                or head[:4] not in (b"RIFF", b"RF64")
                or head[RATE_AT - 12 : RATE_AT - 8] != b"fmt "
            ):
                writer._file.close()
                raise AudioFileError(f"{path} is no recording of Sottovoce; leave it as it is")
            writer.sample_rate_hz = int.from_bytes(head[RATE_AT : RATE_AT + 4], "little")
            writer.frames = (path.stat().st_size - HEADER_BYTES) // SAMPLE_BYTES
            writer._cut()
        except OSError as error:
            raise writer._failed(error) from error
        return writer

    def write(self, x: Samples) -> None:
        """Add x [N], full scale at 1; what is beyond is clipped."""
        scaled = np.clip(np.rint(x.astype(np.float64) * 2.0**23), -(2**23), 2**23 - 1).astype("<i4")
        data = scaled[:, None].view(np.uint8)[:, :SAMPLE_BYTES].tobytes()
        try:
            while data:  # a disk that fills up may take a part first
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):  # the disk itself may have gone
                self._cut()
            raise self._failed(error) from error
        self.frames += len(x)

    def update(self) -> None:
        """Make the header say what is there; the length of the file does not change, so a full disk does no harm."""
        try:
            end = self._file.tell()
            self._file.seek(0)
            self._file.write(self._header())
            self._file.seek(end)
        except OSError as error:
            raise self._failed(error) from error

    def close(self, frames: int | None = None) -> None:
        """Complete the file, given that many frames (silence at the end, or cut) if told; further calls do nothing."""
        if self._file.closed:
            return
        try:
            with self._file:
                if frames is not None and frames > self.frames:
                    self.write(np.zeros(frames - self.frames, dtype=np.float32))
                elif frames is not None:
                    self.frames = frames
                    self._cut()
                self.update()
        except OSError as error:
            raise self._failed(error) from error

    def _cut(self) -> None:
        """Forget what is beyond `frames`, such as the part of a block that a full disk still took."""
        end = HEADER_BYTES + self.frames * SAMPLE_BYTES
        self._file.truncate(end)
        self._file.seek(end)

    def _header(self) -> bytes:
        size = self.frames * SAMPLE_BYTES
        whole = size + (size & 1) + HEADER_BYTES - 8
        large = whole > RIFF_LIMIT
        sizes = struct.pack("<QQQI", whole, size, self.frames, 0) if large else bytes(28)
        rate = self.sample_rate_hz
        return b"".join(
            [
                struct.pack("<4sI4s", b"RF64" if large else b"RIFF", RIFF_LIMIT if large else whole, b"WAVE"),
                struct.pack("<4sI", b"ds64" if large else b"JUNK", 28) + sizes,
                struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES),
                struct.pack("<4sI", b"data", RIFF_LIMIT if large else size),
            ]
        )

    def _failed(self, error: OSError) -> AudioFileError:
        return AudioFileError(f"{self.path} cannot be written ({error.strerror}); make room or record elsewhere")


@dataclass(frozen=True)
class HopRecord:
    """One hop of a live run. input, output: at the device's rate; speech, background: at the models'; codes: [K]."""

    input: Samples
    output: Samples
    speech: Samples
    background: Samples
    codes_s: Codes | NDArray[np.int64]
    codes_b: Codes | NDArray[np.int64]


class Recorder:
    """All files of one run in `folder`, which is made when missing.

    title: what the tokens call themselves. skip: for output, speech and background the samples at their start that
    come from before the run (their lag). An earlier recording there is a UsageError, what cannot be made an
    AudioFileError or TokenFileError; then nothing of it is left. Every later failure is a SottovoceError: then `close`
    keeps what is there.
    """

    def __init__(
        self,
        folder: str | Path,
        info: CodecInfo,
        sample_rate_hz: int,
        skip: tuple[int, int],
        quantizers: int | None = None,
        captions: bool = False,
        title: str = "",
    ) -> None:
        self.folder = Path(folder)
        made = self._make_room()
        self._info, self._skip = info, [0, skip[0], skip[1], skip[1]]
        rates = (sample_rate_hz, sample_rate_hz, info.sample_rate_hz, info.sample_rate_hz)
        self._tracks: list[WavWriter] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self._leave_nothing, made)
            for name, rate_hz in zip(WAV_NAMES, rates):
                self._tracks.append(WavWriter(self.folder / name, rate_hz))
            header = header_for(info, quantizers, source_rate_hz=sample_rate_hz, title=title)
            self._tokens = SvtWriter(self.folder / TOKENS_NAME, header)
            undo.pop_all()
        self._words: dict[str, list[Word]] = {CAPTIONS_NAME: [], OTHERS_NAME: []}
        self._unwritten_words = {CAPTIONS_NAME} if captions else set[str]()
        self._since_update_s = 0.0
        self._hop_s = info.hop_samples / info.sample_rate_hz
        self._language: str | None = None

    def _make_room(self) -> bool:
        """Whether the folder was missing."""
        missing = not self.folder.exists()
        if recorded_files(self.folder):
            raise UsageError(f"{self.folder} holds a recording already; name another folder, or move it away")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise AudioFileError(f"{self.folder} cannot be written to ({reason}); name another folder") from error
        return missing

    def _leave_nothing(self, made: bool) -> None:
        """What stayed would be taken for a recording, and the folder be refused the next time."""
        with contextlib.suppress(SottovoceError):
            _try_all([track.close for track in self._tracks])
        with contextlib.suppress(OSError):
            for path in recorded_files(self.folder):  # none was there before
                path.unlink()
            if made:
                self.folder.rmdir()

    @property
    def sample_rate_hz(self) -> int:
        """Of input and output."""
        return self._tracks[0].sample_rate_hz

    @property
    def duration_s(self) -> float:
        return self._tracks[0].frames / self._tracks[0].sample_rate_hz

    def write(self, hop: HopRecord) -> None:
        """Add one hop to every file."""
        sounds = (hop.input, hop.output, hop.speech, hop.background)
        for number, (track, sound) in enumerate(zip(self._tracks, sounds)):
            skip = min(self._skip[number], len(sound))
            self._skip[number] -= skip
            track.write(sound[skip:])
        self._tokens.write(hop.codes_s, hop.codes_b)
        self._since_update_s += self._hop_s
        if self._since_update_s >= UPDATE_S:
            self._since_update_s = 0.0
            self._update()

    def caption(self, caption: Caption) -> None:
        """Take the words that are final now."""
        self._language = caption.language or self._language
        if not caption.final:
            return
        ours = caption.source != OTHERS
        name = CAPTIONS_NAME if ours else OTHERS_NAME
        self._words[name].extend(caption.final)
        self._unwritten_words.add(name)
        if ours:
            self._tokens.words(caption.final)

    def _update(self) -> None:
        for track in self._tracks:
            track.update()
        self.write_new_words()

    def write_new_words(self) -> None:
        """Bring the caption files up to date."""
        while self._unwritten_words:
            name = self._unwritten_words.pop()
            write_captions(self._words[name], self.folder / name, "srt", self._language)

    def close_sound(self, frames: int) -> None:
        """Complete the sound files as `close` does; words may still come. Raises the first failure."""
        _try_all(self._closing_tracks(frames))

    def _closing_tracks(self, frames: int) -> list[Callable[[], None]]:
        source_hz = self._tracks[0].sample_rate_hz
        return [partial(t.close, round(frames * t.sample_rate_hz / source_hz)) for t in self._tracks]

    def close(self, frames: int | None = None) -> None:
        """Complete every file; the first failure is raised after all have been tried.

        frames: what the input really had, where the last hop was filled up; each sound file is given that length.
        """
        total = self._tracks[0].frames if frames is None else frames
        _try_all([*self._closing_tracks(total), partial(self._tokens.close, total), self.write_new_words])


def _try_all(steps: Sequence[Callable[[], None]]) -> None:
    """Do every step, whatever becomes of the others; the first failure is raised."""
    failures: list[SottovoceError] = []
    for step in steps:
        try:
            step()
        except SottovoceError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def recorded_files(folder: str | Path) -> list[Path]:
    """The files of a recording that are there."""
    return [Path(folder) / name for name in NAMES if (Path(folder) / name).exists()]
