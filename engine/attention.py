"""Whether anybody wants the sound of the virtual microphone: a listening program, a recording, a person who looks on.

While nobody does the devices rest (engine.endpoints).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.clients import ClientWatch

REST_AFTER_S = 3.0  # without a listener; programs let go of a microphone for a moment when they change settings


class Attention:
    """rest: called from a thread of its own with whether the devices may rest, at every change and now and then.

    recording: what is heard is recorded; watched: somebody looks on. Both are set by anyone, and keep the devices open.
    """

    def __init__(self, rest: Callable[[bool], None]) -> None:
        self.recording = self.watched = False
        self._rest = rest
        self._wanted_s = 0.0
        self._clients: ClientWatch | None = None

    def start(self) -> None:
        """From now on; until it is started nothing rests."""
        self._wanted_s = time.monotonic()
        self._clients = ClientWatch(self._heard)
        self._clients.start()

    def stop(self) -> None:
        """May be called twice, and before start."""
        if self._clients is not None:
            self._clients.stop()

    def _heard(self, by_somebody: bool) -> None:
        if by_somebody or self.watched or self.recording:
            self._wanted_s = time.monotonic()
        self._rest(time.monotonic() - self._wanted_s > REST_AFTER_S)
