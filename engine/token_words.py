"""Words from the codec's voice tokens: the bridge, and its frames by position. Sound only tells when somebody speaks.

    codes [T, K] ─► bridge.onnx ─► frames as of Whisper's convolutions ─► blocks (whisper_blocks) ─► Whisper's decoder

The graph is stepped as tokens come, each hop once, however often the recogniser asks; it is `lookahead` frames late.
What it makes hangs on the tokens alone. Where in a window a frame lies is added when a window is asked for. The blocks
are the bridge's own: the graph holds what is added to Whisper's to make them, and Whisper's encoder is not run for the
words, only for the noise around where that is watched. It belongs to one codec and one size of Whisper, and names both.
"""

from __future__ import annotations

import functools
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.answers import Decoder
from engine.artefacts import FORMAT_VERSION, STATE_IN, STATE_OUT, Array, Session, checked_file, read_manifest
from engine.listener import LIVE, OFFLINE, Listener, Pace, Update
from engine.paths import assets_dir
from engine.types import ArtefactError, Codes, Samples
from engine.vad import SAMPLE_RATE_HZ, Detector

ROLE = "bridge"
LATE, PLACES = "lookahead_frames", "places"  # in the metadata
OWN = "own."  # outputs: what is added to Whisper's blocks, by its names
REINSTALL = "install Sottovoce again"
STEP = SAMPLE_RATE_HZ // 50  # samples of a frame
LONG_GAP = 200  # frames without tokens after which the bridge begins anew

State = dict[str, Array]


def has_bridge() -> bool:
    """Whether the artefacts hold the graph at all."""
    return any(row.get("name") == ROLE and row.get("kind") == "model" for row in read_manifest(assets_dir()))


def bridge_path(folder: Path | None = None) -> Path:
    """The graph's file. Raises ArtefactError when it is missing or damaged."""
    return checked_file(folder or assets_dir(), ROLE)


class TokenBridge:
    """The graph, loaded. rows: how many rows of the voice's codes it reads; lookahead: frames that it is late.

    codec_id, recogniser: whose tokens it takes and whose frames it gives; places: [N, width], N the longest window;
    own: what `engine.whisper_blocks.merged` makes its blocks of. Raises ArtefactError when the file is missing or not
    what its name says.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ArtefactError(f"model file {path} is missing; {REINSTALL}")
        self._session = Session(path)
        metadata = self._session.metadata
        if metadata.get("role") != ROLE or metadata.get("format_version") != FORMAT_VERSION:
            raise ArtefactError(f"{path} is no bridge of this version; {REINSTALL}")
        try:
            self.codec_id, self.recogniser = metadata["codec_id"], metadata["recogniser"]
            self.lookahead, gain_rows = int(metadata[LATE]), int(metadata["gain_rows"])
            longest, hop = int(metadata[PLACES]), int(metadata["hop_samples"])
            self.rows = int(self._session.shapes["codes"][1])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} does not say what it holds ({error}); {REINSTALL}") from error
        if not any(name.startswith(OWN) for name in self._session.outputs):
            raise ArtefactError(f"{path} has no blocks of its own; {REINSTALL}")
        if hop != STEP:
            raise ArtefactError(f"{path} has hops of {hop} samples, Whisper's frames are {STEP}; {REINSTALL}")
        self.blank = np.full(self.rows, -1, np.int64)
        self.blank[:gain_rows] = 0
        self._states = [name for name in self._session.inputs if name.startswith(STATE_IN)]
        self._given = ["frames", *(STATE_OUT + name.removeprefix(STATE_IN) for name in self._states)]
        once = self._session.run({"codes": self.blank[None], "at": np.arange(longest), **self.first_state()})
        self.places: Samples = once["places"]
        self.own = {name.removeprefix(OWN): value for name, value in once.items() if name.startswith(OWN)}

    @property
    def width(self) -> int:
        return int(self.places.shape[1])

    def first_state(self) -> State:
        """Before the first token."""
        return {name: np.zeros(self._session.shapes[name], np.float32) for name in self._states}

    def run(self, codes: NDArray[np.int64], state: State) -> tuple[Samples, State]:
        """Codes [T, rows], at least one frame -> frames [T, width] without places, `lookahead` late; the new state."""
        feeds = {"codes": codes, "at": np.zeros(1, np.int64), **state}
        frames, *new = self._session.raw.run(self._given, feeds)
        return frames, dict(zip(self._states, new, strict=True))


class TokenFrames:
    """One stream of tokens as Whisper's frames, kept by position; `at` is where the next window begins, in samples.

    Positions are samples at 16 kHz on the recogniser's clock; hop n of tokens lies at n * STEP.
    """

    def __init__(self, bridge: TokenBridge) -> None:
        self.bridge, self.at = bridge, 0
        self._state, self._skip = bridge.first_state(), bridge.lookahead
        self._next: int | None = None  # the hop that comes next
        self._chunks: deque[tuple[int, Samples]] = deque()  # first frame, frames [n, width]

    @functools.cached_property
    def _silence(self) -> Samples:
        """[width]: what stands where no tokens came."""
        blanks = np.tile(self.bridge.blank, (LONG_GAP, 1))
        found: Samples = self.bridge.run(blanks, self.bridge.first_state())[0][-1]
        return found

    def feed(self, first: int, codes: Codes) -> None:
        """Codes [T, K] of the hops from `first` on; hops that were there before are left out, others are silence."""
        after = first if self._next is None else self._next
        codes = codes[max(0, after - first) :]
        if not len(codes):
            return
        first = max(first, after)
        if first - after > LONG_GAP:
            self._run(np.tile(self.bridge.blank, (self.bridge.lookahead, 1)), after)
            self._state, self._skip = self.bridge.first_state(), self.bridge.lookahead
        elif first > after:
            self._run(np.tile(self.bridge.blank, (first - after, 1)), after)
        self._run(codes[:, : self.bridge.rows].astype(np.int64), first)
        self._next = first + len(codes)

    def _run(self, codes: NDArray[np.int64], first: int) -> None:
        """Step over hops from `first` on, and keep the frames that are done."""
        frames, self._state = self.bridge.run(np.ascontiguousarray(codes), self._state)
        skipped = min(self._skip, len(frames))
        self._skip -= skipped
        if skipped < len(frames):
            self._chunks.append((first - self.bridge.lookahead + skipped, frames[skipped:]))

    def window(self, count: int, trailing_s: float) -> Samples:
        """Frames [n, width] of `count` samples from `at` on and of silence after them, as of Whisper's convolutions.

        No more than the longest window. What has not come yet is silence.
        """
        first, last = self.at // STEP, -(-(self.at + count) // STEP)
        silent = int(np.ceil(trailing_s * SAMPLE_RATE_HZ / STEP))
        end = self._next if self._next is not None else last
        after, _ = self.bridge.run(np.tile(self.bridge.blank, (self.bridge.lookahead + silent, 1)), self._state)
        spoken = np.tile(self._silence, (last - first, 1))
        for start, frames in (*self._chunks, (end - self.bridge.lookahead + self._skip, after[self._skip :])):
            low, high = max(start, first), min(start + len(frames), last)
            if low < high:
                spoken[low - first : high - first] = frames[low - start : high - start]
        whole = np.concatenate([spoken, after[self.bridge.lookahead :]])[: len(self.bridge.places)]
        found: Samples = whole + self.bridge.places[: len(whole)]
        return found

    def ask_from(self, place: int) -> None:
        """The window that is asked for next begins at this position, in samples."""
        self.at = place

    def forget(self, before: int) -> None:
        """Nothing before this position, in samples, will be asked for."""
        while self._chunks and (self._chunks[0][0] + len(self._chunks[0][1])) * STEP <= before:
            self._chunks.popleft()


class TokenListener(Listener):
    """A listener whose decoder is given a stream of tokens in place of the sound; the sound tells when somebody speaks.

    What the decoder is asked about begins at `frames.at`.
    """

    def __init__(
        self,
        decoder: Decoder,
        detector: Detector,
        frames: TokenFrames,
        language: str | None = None,
        pace: Pace = OFFLINE,
        start: int = 0,
    ) -> None:
        super().__init__(decoder, detector, language, pace, start, frames.ask_from)
        self._frames = frames

    def advance(self) -> Update | None:
        """As the listener's own; frames that will not be asked for are let go."""
        update = super().advance()
        self._frames.forget(self._sound.start)
        return update


def open_frames(codec_id: str | None, recogniser: str) -> TokenFrames | None:
    """Frames of this codec's tokens for this size of Whisper; None where there is no codec. Raises ArtefactError."""
    if codec_id is None:
        return None
    bridge = TokenBridge(bridge_path())
    if codec_id != bridge.codec_id:
        raise ArtefactError(f"the bridge from tokens to words is of another codec than the tokens are; {REINSTALL}")
    if recogniser != bridge.recogniser:
        raise ArtefactError(f"words from tokens come with Whisper {bridge.recogniser} alone, not with {recogniser}")
    return TokenFrames(bridge)


def open_listener(
    decoder: Decoder, detector: Detector, frames: TokenFrames | None, language: str | None, live: bool, start: int
) -> Listener:
    """Who listens to a sound, or where there are frames, to its tokens."""
    if frames is None:
        return Listener(decoder, detector, language, LIVE if live else OFFLINE, start)
    return TokenListener(decoder, detector, frames, language, LIVE if live else OFFLINE, start)
