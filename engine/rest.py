"""What a sound loop does of its own while there is nothing but silence to hear: as little as can be.

    sound ─► silence ─► hop by hop at rest ─► left with the device, told some hops at once ─► sound

In silence nothing is given to the output either, which plays nothing by itself: each look at 20 ms of silence costs
what it touches. In time, and in what is told of it, all is as if every hop had been moved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from engine.level import LOUDEST, SILENCE_PEAK
from engine.ports import Port
from engine.ring import Ring
from engine.types import Samples

REST_HOPS = 10  # of silence are told at once
REST_PUMP_HOPS = 50  # while nothing is given to the output, it is looked at so seldom


class Rest:
    """ring: where sound comes from. tell: takes each hop [hop] of a rest and its peak, in order.

    may_rest: whether a hop of silence leaves everything as it is, and nothing comes out; muted: whatever comes is as
    good as silence. on: the last hop was one of a rest. untold: samples of silence that went by and were not told.
    moved: whether any were there when this was last looked at.
    """

    def __init__(self, hop: int, lag: int, ring: Ring, tell: Callable[[Samples, float], None]) -> None:
        self._hop, self._ring, self._tell = hop, ring, tell
        self._still: deque[Samples] = deque(maxlen=-(-lag // hop))  # the last hops at rest
        self._count = self._pump_at = 0  # hops, and at how many the output is looked at
        self._passing = self.moved = False
        self.untold = 0
        self.silence = np.zeros(hop, dtype=np.float32)
        self._silent_bytes = self.silence.tobytes()  # to be told from sound with less than a look at each sample

    @property
    def on(self) -> bool:
        return bool(self._still)

    def take(self, x: Samples, muted: bool) -> bool:
        """Rest for a hop x [hop] if it is silence; whether it is."""
        peak = 0.0 if x.tobytes() == self._silent_bytes else float(max(x.max(), -x.min()))
        silent = peak <= (LOUDEST if muted else SILENCE_PEAK)
        if silent:
            self._rest(self.silence if muted else x, peak)
        return silent

    def end(self) -> list[Samples]:
        """It is over: the last of the silence, for what delays the original to hear."""
        still = list(self._still)
        self._still.clear()
        self._count = self._pump_at = 0
        return still

    def is_output_due(self) -> bool:
        """Whether the output is to be looked at now: always, while there is no rest."""
        if self._count < self._pump_at:
            return False
        self._pump_at = self._count + REST_PUMP_HOPS if self._count else 0
        return True

    def passes_over(self, port: Port | None, may_rest: Callable[[], bool], muted: bool) -> bool:
        """Whether nothing but digital silence came: it is left with the device, and told some hops at once.

        What is done for each hop costs more than all else at rest.
        """
        self.moved = False
        if not self._still or port is None or not port.tells_silence:
            if self._passing:  # the device has gone
                self._tell_passed(True)
            return False
        if not (self._passing or self._begins_passing(may_rest, muted)):
            return False
        frames, sound_follows = port.pass_silence()
        self.untold += frames
        self.moved = frames > 0
        if sound_follows or self.untold >= REST_HOPS * self._hop:
            self._tell_passed(sound_follows)
        return not sound_follows

    def _begins_passing(self, may_rest: Callable[[], bool], muted: bool) -> bool:
        """Whether silence may be passed over from now on; what is no whole hop yet in the ring must be silence, too."""
        if muted or not may_rest():
            self._tell_passed(True)
            return False
        left = self._ring.read(self._ring.fill)
        if left.any():
            self._ring.write(left)
            return False
        self.untold += len(left)
        self._passing = True
        return True

    def _tell_passed(self, sound_follows: bool) -> None:
        """Rest for the hops that were passed over; what is no whole hop comes before the sound that follows."""
        self._passing = False
        while self.untold >= self._hop:
            self.untold -= self._hop
            self._rest(self.silence, 0.0)
        if sound_follows and self.untold:
            self._ring.write(np.zeros(self.untold, dtype=np.float32))
            self.untold = 0

    def _rest(self, x: Samples, peak: float) -> None:
        self._still.append(x)
        self._count += 1
        self._tell(x, peak)
