"""Whether any program listens to the virtual microphone. The sound server tells, so that it is known at once."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from engine.pulse import connection
from engine.types import DeviceError
from engine.virtual_mic import MIC_NAME, MIC_SINK

LISTEN_S = 0.5  # at the latest then it is asked whether the watch should end
RETRY_S = 1.0
SOURCES = (MIC_NAME, f"{MIC_SINK}.monitor")
log = logging.getLogger(__name__)


def listeners() -> int:
    """Programs that record from the virtual microphone now. Raises DeviceError when no server answers."""
    with connection() as pulse:
        return _count(pulse)


def _count(pulse: Any) -> int:
    """Streams of programs; those that belong to the microphone's own modules are none."""
    ours = [source for source in pulse.source_list() if source.name in SOURCES]
    modules = {source.owner_module for source in ours}
    streams = [s for s in pulse.source_output_list() if s.source in {source.index for source in ours}]
    return sum(stream.owner_module not in modules for stream in streams)


class ClientWatch:
    """Calls `changed` with True or False from a thread of its own: when it may have changed, and every LISTEN_S.

    While no server answers it is True: who cannot know keeps working.
    """

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce clients", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """May be called twice, and before start."""
        self._halt.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._halt.is_set():
            try:
                with connection() as pulse:
                    self._watch(pulse)
            except DeviceError as error:
                log.debug("the sound server does not tell who listens: %s", error)
                self._changed(True)
                self._halt.wait(RETRY_S)
            except Exception:  # top of a thread: without this watch the sound goes on as if somebody listened
                log.exception("the watch over the virtual microphone's listeners failed")
                self._changed(True)
                return

    def _watch(self, pulse: Any) -> None:
        import pulsectl

        def stop_listening(event: object) -> None:
            raise pulsectl.PulseLoopStop

        pulse.event_mask_set("source_output")
        pulse.event_callback_set(stop_listening)
        with contextlib.suppress(pulsectl.PulseDisconnected):
            while not self._halt.is_set():
                self._changed(_count(pulse) > 0)
                pulse.event_listen(timeout=LISTEN_S)
