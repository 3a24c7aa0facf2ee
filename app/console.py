"""What the command line says: one line for a failure, warnings, progress on a terminal, and the exit statuses.

Standard output belongs to results (captions, tables, one JSON object); everything else goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
# Ctrl-C, the end of the desktop's session, the terminal's end
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Advance(Protocol):
    """Moves a progress bar: the fraction done, 0 to 1, and what is being done when that has changed."""

    def __call__(self, fraction: float, title: str | None = None) -> None: ...


def one_line(text: object) -> str:
    """The text with line breaks and runs of blanks closed up."""
    return " ".join(str(text).split())


def say(text: object) -> None:
    """One line on standard error."""
    print(f"sottovoce: {one_line(text)}", file=sys.stderr, flush=True)


def warn(text: object) -> None:
    """A warning on standard error; the exit status stays as it is."""
    say(f"warning: {one_line(text)}")


def print_json(values: Mapping[str, Any] | list[Any]) -> None:
    """One object on standard output."""
    print(json.dumps(values, ensure_ascii=False, indent=2, default=str), flush=True)


def quiet_libraries() -> None:
    """Libraries may warn of what only a programmer can change; a person is told through `say`.

    SOTTOVOCE_DEBUG=1 brings everything back.
    """
    if os.environ.get("SOTTOVOCE_DEBUG"):
        logging.basicConfig(level=logging.DEBUG)
        return
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING, format="sottovoce: warning: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def tell_of_bugs(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The interpreter's last resort (sys.excepthook): a bug is one line too, unless it is being looked for."""
    if os.environ.get("SOTTOVOCE_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    what = f"{kind.__name__}: {one_line(error)[:200]}"
    say(f"this is a bug ({what}); run again with SOTTOVOCE_DEBUG=1 and report what it prints")


@contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Advance]:
    """A bar on standard error while the block runs, on a terminal only; the block calls it with the fraction done."""
    if quiet or not sys.stderr.isatty():
        yield lambda fraction, title=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=1.0)
        yield lambda fraction, title=None: bars.update(task, completed=min(1.0, fraction), description=title)


def clock(seconds: float) -> str:
    """75.3 -> '1:15.3'."""
    minutes, rest = divmod(max(0.0, seconds), 60.0)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
