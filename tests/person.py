"""A screen that nobody sees, and somebody at it with a mouse and a keyboard: Xvfb and xdotool.

There is no window manager: a window has the keys when it is given them, which a person does with a click on its title.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

PROGRAMS = ("Xvfb", "xdotool")
SIZE = (1600, 1000)
START_S = 30.0
BETWEEN_MS = "40"  # from one key to the next; a person is slower
XWD_COLOUR_BYTES = 12


def until(done: Callable[[], Any], wait_s: float, what: Callable[[], str] | str) -> Any:
    """What `done` gives as soon as it is true; fails with `what` when that takes too long."""
    deadline = time.monotonic() + wait_s
    while not (found := done()):
        if time.monotonic() > deadline:
            pytest.fail(f"after {wait_s:.0f} s still not: {what if isinstance(what, str) else what()}")
        time.sleep(0.1)
    return found


class Screen:
    """An X server of its own. `display`: its address; `picture`: what is on it now, [height, width, red green blue]."""

    def __init__(self, folder: Path) -> None:
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            pytest.skip(f"{' and '.join(missing)} not installed")
        self._folder = folder
        self.display = ""

    def __enter__(self) -> Self:
        read, write = os.pipe()
        size = f"{SIZE[0]}x{SIZE[1]}x24"
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-fbdir", str(self._folder)]
        self._server = subprocess.Popen([*command, "-nolisten", "tcp"], pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as told:
            number = told.readline().strip()
        if not number:
            self._server.wait()
            pytest.skip("Xvfb does not start here")
        self.display = f":{number}"
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.terminate()
        self._server.wait()

    def picture(self) -> NDArray[np.uint8]:
        """Xvfb keeps it in a file of the form that xwd writes."""
        data = (self._folder / "Xvfb_screen0").read_bytes()
        head = np.frombuffer(data[:100], dtype=">u4")
        start = int(head[0]) + XWD_COLOUR_BYTES * int(head[19])
        height, line = int(head[5]), int(head[12])
        pixels = np.frombuffer(data, np.uint8, height * line, start).reshape(height, line // 4, 4)
        return pixels[:, :, 2::-1]


class Person:
    """Somebody at the screen."""

    def __init__(self, screen: Screen) -> None:
        self._environment = dict(os.environ) | {"DISPLAY": screen.display}

    def _do(self, *words: str) -> str:
        done = subprocess.run(["xdotool", *words], env=self._environment, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def window(self, title: str) -> str:
        """A window of this title, without the program's name, that can be seen; empty where there is none."""
        name = f"^{title}( [^a-z].*)?$"  # a dash, and the program's name
        return self._do("search", "--onlyvisible", "--name", name).partition("\n")[0]

    def go_to(self, title: str, wait_s: float = START_S) -> None:
        """Wait for a window, and give it the keys."""

        def has_keys() -> bool:
            window = self.window(title)
            if window and self._do("getwindowfocus") != window:
                self._do("windowfocus", window)
            return bool(window) and self._do("getwindowfocus") == window

        until(has_keys, wait_s, f"the window {title} has the keys")

    def left(self, title: str) -> None:
        """Wait until a window has gone."""
        until(lambda: not self.window(title), START_S, f"the window {title} has gone")

    def keys(self, *keys: str) -> None:
        self._do("key", "--delay", BETWEEN_MS, *keys)

    def write(self, text: str) -> None:
        self._do("type", "--delay", BETWEEN_MS, text)

    def click(self, at: tuple[float, float]) -> None:
        self._do("mousemove", *map(str, map(round, at)), "click", "1")

    def drag(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move by way of the middle, let go."""
        middle = tuple((a + b) / 2 for a, b in zip(begin, end))
        self._do("mousemove", *map(str, map(round, begin)), "mousedown", "1")
        for at in (middle, end):
            time.sleep(0.1)
            self._do("mousemove", *map(str, map(round, at)))
        time.sleep(0.1)
        self._do("mouseup", "1")


def where_things_are(screen: Screen) -> dict[str, tuple[int, int, int, int]]:
    """x, y, width and height of what is in the main window, by name: from a twin of it, drawn on the same screen."""
    environment = dict(os.environ) | {"DISPLAY": screen.display, "QT_QPA_PLATFORM": "xcb"}
    command = [sys.executable, "-m", "tests.window_map"]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return {name: tuple(map(int, place)) for name, *place in map(str.split, done.stdout.splitlines())}  # type: ignore[misc]
