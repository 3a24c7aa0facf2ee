"""A process that works on one sound file, so that the live sound of the window's process never waits for it.

    argument   the job as JSON (engine.file_jobs.FileJob)
    output     lines of JSON: {"part": 0 to 1} now and then, last {"outcome": {...}} or {"failed": "one line"}
    input      its end, or anything in it, is Ctrl-C: what was done so far is kept. So it goes when its parent goes.

It goes after everything else by itself; whoever starts it may say so to the system before it has begun.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.file_jobs import Outcome

WORKER = (sys.executable, "-m", "engine.file_worker")
TELL_S = 0.1


def tell(**message: Any) -> None:
    """One line to whoever listens; where nobody does any more, the input has ended, too, and that is heeded."""
    with contextlib.suppress(OSError):
        print(json.dumps(message, ensure_ascii=True), flush=True)


class Teller:
    """Tells how far it is, but not for every block."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def __call__(self, part: float) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + TELL_S
            tell(part=round(part, 4))


def _heed() -> None:
    """Interrupt the work when the other side says so or has gone. Reads past Python's own buffer, which a thread that
    is left behind at the end would hold."""
    os.read(0, 1)
    _thread.interrupt_main()  # does nothing once interrupts are ignored


def main() -> int:
    """The process: 0 when the job was done or stopped, 1 when it failed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    outcome: Outcome | None = None
    failed = ""
    try:
        threading.Thread(target=_heed, name="heed", daemon=True).start()
        from engine.file_jobs import FileJob, run_job
        from engine.priority import stand_back
        from engine.types import SottovoceError

        stand_back(os.getpid())
        try:
            outcome = run_job(FileJob(**json.loads(sys.argv[1])), Teller())
        except SottovoceError as error:
            failed = " ".join(str(error).split())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        pass  # before there was anything to keep, or when all was done
    if failed:
        tell(failed=failed)
    elif outcome is not None:
        tell(outcome=asdict(outcome))
    else:
        tell(outcome={"sound_s": 0.0, "stopped": True, "warnings": [], "real_time_factor": 0.0})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
