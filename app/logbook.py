"""The log of live runs, for who looks for a fault later: devices, delays, load, what failed. Never sound, never words.

It lies in the cache folder of logs, in files that replace each other, so that it stays small.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from engine.paths import log_dir
from engine.types import DeviceChange, Event, Problem, Stats

NAME = "sottovoce.log"
MAX_BYTES, OLDER_FILES = 500_000, 2
STATS_EVERY_S = 60.0
SHOWN_LINES = 300
LOG = logging.getLogger("sottovoce.live")


class Logbook:
    """A log while it is open; where it cannot be written, there is none and nothing else changes."""

    def __init__(self, command: str) -> None:
        self._handler: logging.Handler | None = None
        self._stats_at_s = 0.0
        self._dropouts = 0
        self._why: tuple[str, ...] = ()
        try:
            log_dir().mkdir(parents=True, exist_ok=True)
            handler = RotatingFileHandler(
                log_dir() / NAME, maxBytes=MAX_BYTES, backupCount=OLDER_FILES, encoding="utf-8"
            )
        except OSError:
            return
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        handler.addFilter(lambda record: record.name == LOG.name or record.levelno >= logging.WARNING)
        self._handler = handler
        logging.getLogger().addHandler(handler)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False  # to this file alone
        LOG.addHandler(handler)
        LOG.info("%s begins on %s, Python %s", command, platform.platform(), platform.python_version())

    def note(self, event: Event) -> None:
        """Write down what may matter of an event."""
        if isinstance(event, Problem):
            LOG.warning("%.1f s: %s [%s]", event.time_s, event.text, event.state)
        elif isinstance(event, DeviceChange):
            LOG.info("%.1f s: device %s: %s", event.time_s, event.what, event.device)
        elif isinstance(event, Stats):
            self._note_stats(event)

    def fault(self, text: str) -> None:
        """Write down why something could not be done."""
        LOG.warning(text)

    def _note_stats(self, s: Stats) -> None:
        """Once a minute, and whenever sound broke; and why it broke, once."""
        for line in s.dropouts_why:
            if line not in self._why:
                LOG.warning("dropout %s", line)
        self._why = s.dropouts_why
        now_s = time.monotonic()
        if s.dropouts == self._dropouts and now_s - self._stats_at_s < STATS_EVERY_S:
            return
        self._dropouts, self._stats_at_s = s.dropouts, now_s
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in s.delay_parts_ms)
        hop = f"hop {s.hop_ms_median:.1f} / {s.hop_ms_p99:.1f} / {s.hop_ms_max:.1f} ms"
        more = (
            f"load {100 * s.load:.0f} %, dropouts {s.dropouts}, captions {s.caption_lag_s:.1f} s behind, {s.provider}"
        )
        LOG.info("%.1f s: %s, delay %.0f ms (%s), %s, %s", s.time_s, s.state, s.delay_ms, parts, hop, more)
        if s.closest:
            LOG.info("the closest to a dropout in a minute: %s", s.closest)

    def close(self) -> None:
        """May be called twice."""
        if self._handler is not None:
            LOG.info("ends")
            for logger in (LOG, logging.getLogger()):
                logger.removeHandler(self._handler)
            LOG.propagate = True
            self._handler.close()
            self._handler = None


def last_lines() -> list[str]:
    """The newest lines of the log without the person's home folder; devices have the names the system gives them."""
    lines: list[str] = []
    for number in range(OLDER_FILES, -1, -1):
        path = log_dir() / (f"{NAME}.{number}" if number else NAME)
        if path.is_file():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [without_name(line) for line in lines[-SHOWN_LINES:]]


def without_name(text: str) -> str:
    """The text without the person's home folder."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > len(os.sep) else text
