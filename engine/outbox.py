"""What is on its way to the recogniser's process: frames in order, and a copy of those that are not final yet.

Where a process dies another takes its place, and is sent again all that the former one did not make final.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, BinaryIO

import numpy as np

from engine.types import Codes, Samples
from engine.vad import SAMPLE_RATE_HZ

FRAME = struct.Struct("<cQ")  # kind, length of the payload
AUDIO, GAP, RAW, TOKENS, FINISH = b"A", b"G", b"R", b"T", b"F"
CODES = struct.Struct("<QQ")  # first hop and rows, before the codes of a TOKENS frame
HOPS_PER_S = 50  # of tokens
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
        self._codes: list[Codes] = []  # [hops, K] each, one after the other from hop _first_hop on
        self._first_hop = 0
        self._raw: list[Samples] = []
        self._final_to = 0

    def add(self, samples: Samples, codes: Codes | None = None) -> None:
        """The next samples [N], and the tokens of the same sound [K, hops], which begins with a whole hop then."""
        with self._lock:
            if codes is not None:
                self._add_codes(codes, self.fed // (SAMPLE_RATE_HZ // HOPS_PER_S))
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
            self._final_to = max(self._final_to, final_to)
            while self._kept and self._kept[0][0] <= final_to and self._kept[0][1] != FINISH:
                self._kept.popleft()

    def begin_again(self, launch: Callable[[int], None]) -> None:
        """Send all that is kept once more, to the process that `launch` begins at the position where that starts."""
        with self._lock:
            self._drop_final()
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

    def _add_codes(self, codes: Codes, hop: int) -> None:
        if self._codes and hop != self._first_hop + sum(map(len, self._codes)):
            self._flush_piece()
        if not self._codes:
            self._first_hop = hop
        self._codes.append(np.asarray(codes, dtype=np.int16).T.copy())

    def _flush_piece(self) -> None:
        if self._codes:  # before their sound: nobody is to ask about it while they are on their way
            whole, self._codes = np.concatenate(self._codes), []
            self._post(TOKENS, CODES.pack(self._first_hop, whole.shape[1]) + whole.astype("<i2").tobytes())
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

    def _drop_final(self) -> None:
        """The front of the first piece, as far as it is final; a piece with tokens, which is short, stays whole."""
        if not self._kept or self._kept[0][1] != AUDIO:
            return
        end, kind, payload = self._kept.popleft()
        skipped = max(0, self._final_to - (end - len(payload) // 4))
        self._kept.appendleft((end, kind, payload[4 * skipped :]))

    def _start_of_kept(self) -> int:
        timed = next((frame for frame in self._kept if frame[1] != TOKENS), None)
        if timed is None:
            return self.fed - sum(map(len, self._piece))
        end, kind, payload = timed
        if kind == AUDIO:
            return end - len(payload) // 4
        return end - (struct.unpack("<Q", payload)[0] if kind == GAP else 0)


class Inbox:
    """The other end: reads frames on a thread of its own, so that the sending side never waits for the recogniser."""

    def __init__(self, stream: BinaryIO) -> None:
        self.frames: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._stream = stream
        threading.Thread(target=self._read, name="frames", daemon=True).start()

    def _read(self) -> None:
        while len(head := self._stream.read(FRAME.size)) == FRAME.size:
            kind, length = FRAME.unpack(head)
            payload = self._stream.read(length)
            if len(payload) < length:
                break
            self.frames.put((kind, payload))
        self.frames.put((b"", b""))

    def take(self, wait: bool) -> list[tuple[bytes, bytes]]:
        """All frames that are there; waits for one first if asked to."""
        taken = [self.frames.get()] if wait else []
        while not self.frames.empty():
            taken.append(self.frames.get())
        return taken


def codes_in(payload: bytes) -> tuple[int, Codes]:
    """What a TOKENS frame says: the first hop, and codes [hops, K]."""
    first, rows = CODES.unpack_from(payload)
    codes: Codes = np.frombuffer(payload, dtype="<i2", offset=CODES.size).reshape(-1, rows)
    return first, codes
