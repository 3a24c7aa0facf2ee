"""What is on its way to the recogniser's process: frames in order, and a copy of those that are not final yet.

Where a process dies another takes its place, and is sent again all that the former one did not make final.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

import numpy as np

from engine.types import Samples
from engine.vad import SAMPLE_RATE_HZ

FRAME = struct.Struct("<cQ")  # kind, length of the payload
AUDIO, GAP, RAW, FINISH = b"A", b"G", b"R", b"F"
SEND_S, SEND_RAW_S = 0.1, 0.5  # sound is sent in pieces of about this length


class Outbox:
    """Filled from one thread, emptied from another. fed: samples since the start, the one clock.

    Sound is 16 kHz mono float32.
    """

    def __init__(self) -> None:
        self.fed = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._unsent: deque[tuple[bytes, bytes]] = deque()
        self._kept: deque[tuple[int, bytes, bytes]] = deque()  # (position, kind, payload) not final yet
        self._piece: list[Samples] = []
        self._raw: list[Samples] = []

    def add(self, samples: Samples) -> None:
        """The next samples [N]."""
        with self._lock:
            self.fed += len(samples)
            self._piece.append(np.asarray(samples, dtype=np.float32).copy())
            if sum(map(len, self._piece)) >= SEND_S * SAMPLE_RATE_HZ:
                self._flush_piece()

    def leave_out(self, count: int) -> None:
        """Silence stands for the next `count` samples."""
        with self._lock:
            self._flush_piece()
            self.fed += count
            self._post(GAP, struct.pack("<Q", count))

    def add_raw(self, samples: Samples) -> None:
        """The microphone's own samples [N], up to where the others are; nobody asks for them a second time."""
        self._raw.append(np.asarray(samples, dtype=np.float32).copy())
        if sum(map(len, self._raw)) >= SEND_RAW_S * SAMPLE_RATE_HZ:
            with self._lock:
                self._flush_raw()

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            self._flush_piece()
            self._flush_raw()
            self._post(FINISH, b"")

    def let_go(self, final_to: int) -> None:
        """Forget sound that will not be asked for again."""
        with self._lock:
            while self._kept and self._kept[0][0] <= final_to and self._kept[0][1] != FINISH:
                self._kept.popleft()

    def begin_again(self, launch: Callable[[int], None]) -> None:
        """Send all that is kept once more, to the process that `launch` begins at the position where that starts."""
        with self._lock:
            self._unsent = deque((kind, payload) for _, kind, payload in self._kept)
            launch(self._start_of_kept())

    def send(self, pipe: IO[bytes], wanted: Callable[[], bool]) -> None:
        """Write frames for as long as this process is the one that is wanted. Raises OSError when the pipe breaks."""
        while wanted():
            with self._lock:
                frame = self._unsent.popleft() if self._unsent and wanted() else None
                if frame is None:
                    self._wake.clear()
            if frame is None:
                self._wake.wait(1.0)
                continue
            pipe.write(FRAME.pack(frame[0], len(frame[1])) + frame[1])
            pipe.flush()

    def wake(self) -> None:
        """Let whoever sends see that it is wanted no more."""
        self._wake.set()

    # The lock is held -------------------------------------------------------------------------------------------------

    def _flush_piece(self) -> None:
        if self._piece:
            samples = np.concatenate(self._piece)
            self._piece = []
            self._post(AUDIO, samples.astype("<f4").tobytes())

    def _flush_raw(self) -> None:
        if self._raw:
            whole, self._raw = np.concatenate(self._raw), []
            self._unsent.append((RAW, struct.pack("<Q", self.fed) + whole.astype("<f4").tobytes()))
            self._wake.set()

    def _post(self, kind: bytes, payload: bytes) -> None:
        """Queue a frame and keep it until it is final."""
        self._kept.append((self.fed, kind, payload))
        self._unsent.append((kind, payload))
        self._wake.set()

    def _start_of_kept(self) -> int:
        if not self._kept:
            return self.fed - sum(map(len, self._piece))
        end, kind, payload = self._kept[0]
        if kind == AUDIO:
            return end - len(payload) // 4
        return end - (struct.unpack("<Q", payload)[0] if kind == GAP else 0)
