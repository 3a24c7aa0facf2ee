"""A real Chromium without a screen, for tests of pages: opened on an address, asked what it shows."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

START_S = 60.0
ANSWER_S = 30.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-dev-shm-usage", "--remote-debugging-port=0", "--window-size=900,300", "about:blank",
)  # fmt: skip


class Browser:
    """One tab. `says` is what the page wrote to its console, complaints of its policy included; more: its options."""

    def __init__(self, program: str, folder: Path, *more: str) -> None:
        self.says: list[str] = []
        self.asked: list[str] = []  # addresses of all that it fetched
        self._program, self._folder, self._more = program, folder, more
        self._number = 0
        self._at_end = contextlib.ExitStack()

    def __enter__(self) -> Browser:
        with contextlib.ExitStack() as at_end:
            arguments = [self._program, *self._more, *OPTIONS, f"--user-data-dir={self._folder}"]
            own = dict(os.environ) | {"HOME": str(self._folder.parent)}  # not the person's
            process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own)
            at_end.callback(_end, process)
            address = self._tab_address(process)
            self._tab = at_end.enter_context(connect(address, max_size=None, compression=None, proxy=None))
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.command(f"{domain}.enable")
            self.command("Emulation.setDefaultBackgroundColorOverride", color={"r": 0, "g": 0, "b": 0, "a": 0})
            self._at_end = at_end.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._at_end.close()

    def _tab_address(self, process: subprocess.Popen[bytes]) -> str:
        port_file, deadline = self._folder / "DevToolsActivePort", time.monotonic() + START_S
        while not port_file.exists() or not port_file.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip("Chromium does not start here")
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=ANSWER_S) as tabs:
            return next(tab["webSocketDebuggerUrl"] for tab in json.load(tabs) if tab["type"] == "page")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._tab.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._tab.recv(timeout=ANSWER_S))
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        if told["method"] == "Network.requestWillBeSent":
            self.asked.append(told["params"]["request"]["url"])
        elif told["method"] == "Network.webSocketCreated":
            self.asked.append(told["params"]["url"])
        elif told["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.says.append(json.dumps(told["params"]))

    def open(self, address: str) -> None:
        self.command("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What the script is worth in the page."""
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True)["result"]
        return result.get("value")

    def until(self, script: str, done: Callable[[Any], bool], wait_s: float = 30.0) -> Any:
        """The script's worth once it is as wanted; while the page comes it is worth nothing."""
        deadline = time.monotonic() + wait_s
        while (found := self.value(script)) is None or not done(found):
            assert time.monotonic() < deadline, (found, self.says)
            time.sleep(0.05)
        return found

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def program() -> str:
    """Where Chromium is; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium here: sudo apt install chromium")
    return found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(program(), tmp_path / "profile") as made:
        yield made
