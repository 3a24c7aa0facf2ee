"""`sottovoce serve` as a person meets it: the program, its page in a real browser, and a run that it follows."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from PIL import Image
from websockets.sync.client import connect

from app import cli
from app.commands_serve import TOKEN, link_token, pages, told_dropped
from engine.control import runtime_folder
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage, stimulus
from engine.types import OTHERS
from engine.weights import find_weights
from tests.browser import Browser, browser
from tests.command_line import only_line, program
from tests.pulse import stage
from tests.talker import Talker

__all__ = ["browser", "stage"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no running app to attach to there")
WAIT_S = 60.0
LATEST_S = 180.0  # words of a live run
STATE = "document.getElementById('state').textContent"
FINAL = "[...document.querySelectorAll('#captions .final')].map((s) => s.textContent).join(' / ')"
TAIL = "[...document.querySelectorAll('#captions .tentative')].map((s) => s.textContent).join(' / ')"


class Serve:
    """`sottovoce serve` in a process of its own."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self.process = program(["serve", "--port", str(port), *arguments])
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        return int(self.address.split("/")[2].rpartition(":")[2])

    def stop(self, with_signal: int = signal.SIGINT) -> tuple[int, str]:
        """Exit status and what was said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said

    @contextmanager
    def stream(self, wait_s: float = WAIT_S) -> Iterator[Callable[[], Any]]:
        """Gives the messages, one at a call, each of which waits so long at most."""
        with connect(self.address.replace("http:", "ws:") + "stream", proxy=None) as line:
            yield lambda: json.loads(line.recv(timeout=wait_s))


@pytest.fixture
def served() -> Iterator[Serve]:
    made = Serve()
    yield made
    made.stop()


# The program ----------------------------------------------------------------------------------------------------------


def test_it_tells_its_address_waits_and_ends_with_ctrl_c(served: Serve) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[A-Za-z0-9_-]{32}/", served.address)
    with urlopen(served.address, timeout=WAIT_S) as page:
        assert b"captions.js" in page.read()
    with served.stream() as told:
        messages = [told(), told()]
        assert (messages[0]["type"], messages[0]["state"]) == ("state", "waiting")
        assert messages[1] == {"type": "captions", "reset": True, "lines": [], "tentative": {}}
        while not any("not running" in message.get("said", "") for message in messages):
            messages.append(told())
        with Talker() as talker:
            talker.say("A secret word", "tail")
            while messages[-1].get("tentative") != {"speech": "tail"}:
                messages.append(told())
            lines = [line for message in messages for line in message.get("lines", [])]
            assert {"type": "state", "state": "on", "said": ""} in messages
            assert lines[-1] == {"id": 0, "source": "speech", "text": "A secret word"}
    status, said = served.stop()
    assert status == 130
    assert "Sottovoce is not running" in said and "OBS" in said
    assert "secret" not in said and "Traceback" not in said
    with pytest.raises(OSError):  # noqa: PT011  # nobody listens any more
        socket.create_connection(("127.0.0.1", served.port), timeout=1.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["told to stop", "the terminal's end"])
def test_it_ends_however_it_is_told(served: Serve, number: int) -> None:
    with served.stream() as told:
        told()
        assert served.stop(number)[0] == 130


def test_the_address_stays_and_a_new_one_may_be_had() -> None:
    first = Serve()
    assert first.stop()[0] == 130
    for arguments, same in ([], True), (["--new-link"], False):
        again = Serve(*arguments)
        assert (again.address.split("/")[3] == first.address.split("/")[3]) is same
        again.stop()


def test_one_object_of_json() -> None:
    process = program(["serve", "--port", "0", "--json"])
    assert process.stdout is not None
    told = ""
    while not told.endswith("}\n"):
        told += process.stdout.readline()
    figures = json.loads(told)
    assert figures["local"] is True
    assert figures["addresses"] == [figures["address"]]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=WAIT_S)[0] == ""


def test_others_on_the_network_are_warned_of() -> None:
    serve = Serve("--host", "0.0.0.0")
    status, said = serve.stop()
    assert status == 130
    assert sum("others on the network can read along" in line for line in said.splitlines()) == 1


def test_a_port_that_is_taken_is_told_in_one_line(served: Serve) -> None:
    second = program(["serve", "--port", str(served.port)])
    out, err = second.communicate(timeout=WAIT_S)
    assert (second.returncode, out) == (1, "")
    assert "--port" in only_line(err)
    assert cli.run(["serve", "--port", "70000"]) == 2


def test_a_place_that_others_may_enter_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    runtime_folder().chmod(0o755)
    assert cli.run(["serve", "--port", "0"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "open to others" in only_line(err)


def test_the_link_is_kept_for_the_person_alone(own_settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, path = link_token(False), own_settings / "serve-link"
    assert TOKEN.fullmatch(kept) and link_token(False) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)  # others may have read it
    assert link_token(False) != kept
    path.write_text("short\n")
    assert TOKEN.fullmatch(link_token(False))
    assert [file.name for file in own_settings.iterdir()] == ["serve-link"]
    assert capsys.readouterr() == ("", "")


def test_without_a_place_for_it_the_link_is_for_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOTTOVOCE_CONFIG", str(tmp_path / "file"))
    assert TOKEN.fullmatch(link_token(False))
    assert "this run only" in only_line(capsys.readouterr().err)


def test_readers_that_were_dropped_are_counted_in_words() -> None:
    assert told_dropped(1).startswith("1 reader did not keep up and was dropped")
    assert told_dropped(2).startswith("2 readers did not keep up and were dropped")


def test_an_installed_copy_holds_the_page(checkout: Path) -> None:
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]
    assert settings["package-data"]["app"] == ["page/*"]
    assert set(pages()) == {"", "captions.css", "captions.js"}
    for page in pages().values():
        assert "//" not in page.text.replace("// ", "")  # nothing from elsewhere
        assert "innerHTML" not in page.text


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_is_said(served: Serve, browser: Browser) -> None:
    browser.open(served.address)
    browser.until(STATE, lambda text: "not running" in text)
    with Talker() as talker:
        talker.say("Keep <b>quiet</b>", "please &amp; go")
        browser.until(FINAL, lambda text: text == "Keep <b>quiet</b>")
        assert browser.value(TAIL) == "please &amp; go"
        assert browser.value(STATE) == ""
        talker.say("please.")
        talker.say("Who?", source=OTHERS)
        browser.until(FINAL, lambda text: text == "Keep <b>quiet</b> please. / Who?")
        assert browser.value(TAIL) == ""
        assert browser.value("document.querySelector('#captions .others').textContent") == "Who?"
        look = "getComputedStyle(document.querySelector('.final')).opacity"
        talker.say("", "perhaps")
        browser.until(TAIL, lambda text: text == "perhaps")
        tail = "getComputedStyle(document.querySelector('.tentative')).opacity"
        assert float(browser.value(look)) == 1.0 > float(browser.value(tail)) > 0.4
    browser.until(STATE, lambda text: "not running" in text)
    assert all(address.split("/")[2] == served.address.split("/")[2] for address in browser.asked), browser.asked
    assert browser.says == []


def test_the_page_is_clear_where_there_is_no_text(served: Serve, browser: Browser) -> None:
    with Talker() as talker:
        talker.say("Hello there")
        browser.open(served.address)
        browser.until(FINAL, lambda text: text == "Hello there")
        picture = Image.open(io.BytesIO(browser.picture())).convert("RGBA")
    assert picture.getpixel((5, 5)) == (0, 0, 0, 0)
    bounds = picture.getbbox()
    assert bounds is not None and bounds[1] > picture.height // 2  # at the foot
    assert (255, 255, 255, 255) in {colour for _, colour in picture.getcolors(1 << 20)}


def test_the_page_looks_as_the_address_says(served: Serve, browser: Browser) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    with Talker() as talker:
        talker.say(text)
        browser.open(served.address + "?size=20&colour=ff8000&lines=3&background=000080&position=top")
        browser.until(FINAL, lambda found: "word59" in found)
        box = "document.getElementById('captions').getBoundingClientRect()"
        assert browser.value(f"{box}.height") == pytest.approx(84.0, abs=1.0)
        assert browser.value(f"{box}.top") < 20.0
        last = "document.querySelector('#captions p:last-child').getBoundingClientRect().bottom"
        assert browser.value(f"{box}.bottom - {last}") == pytest.approx(0.0, abs=1.0)  # the newest is what is seen
        assert browser.value("getComputedStyle(document.getElementById('box')).color") == "rgb(255, 128, 0)"
        shown = browser.value("getComputedStyle(document.querySelector('.said')).backgroundColor")
        assert shown == "rgb(0, 0, 128)"
        browser.open(served.address + "?size=60&lines=20&position=top")  # more than there is room for
        browser.until(FINAL, lambda found: "word59" in found)
        assert browser.value(f"{last} - innerHeight") <= 0.0
        browser.open(served.address + "?size=huge&lines=-1&colour=url(x)&position=%3Cb%3E&background=;}&status=off")
        browser.until(FINAL, lambda found: "word59" in found)
        assert browser.value("getComputedStyle(document.getElementById('box')).fontSize") == "36px"
        assert browser.value("getComputedStyle(document.getElementById('box')).color") == "rgb(255, 255, 255)"
    assert browser.says == []


def test_the_page_comes_back_by_itself(served: Serve, browser: Browser) -> None:
    browser.open(served.address)
    with Talker() as talker:
        talker.say("Before")
        browser.until(FINAL, lambda text: text == "Before")
        served.stop()
        browser.until(STATE, lambda text: "Waiting" in text)
        again = Serve(port=served.port)
        try:
            talker.say("and after")
            browser.until(FINAL, lambda text: text == "Before and after")
            assert browser.value(STATE) == ""
        finally:
            again.stop()


def test_what_has_faded_stays_so_until_there_are_new_words(served: Serve, browser: Browser) -> None:
    """Neither the end of a tail nor each attempt to reach a server that has gone brings old lines back."""
    browser.open(served.address + "?fade=0.5")
    gone = "captions.classList.contains('gone')"
    watch = f"new MutationObserver(() => drawn.push({gone})).observe(captions, {{childList: true}})"
    with Talker() as talker:
        talker.say("Hello", "there")
        browser.until(TAIL, lambda text: text == "there")
        browser.until(gone, bool)
        browser.value(f"window.drawn = []; {watch}")
    browser.until(TAIL, lambda text: text == "")
    assert browser.value(gone)
    with Talker() as talker:
        talker.say("Again")
        browser.until(FINAL, lambda text: "Again" in text)
        assert browser.value("drawn.at(-1)") is False
        browser.until(gone, bool)
        browser.value("drawn.length = 0")
        served.stop()
        browser.until("drawn.length", lambda drawn: drawn > 2)
    assert browser.value("drawn.every(Boolean)") and browser.value(FINAL).endswith("Again")


# A run ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.pulse
@pytest.mark.weights
@pytest.mark.parametrize("tap", ["enhanced", "tokens"])
def test_captions_of_a_live_run_over_a_sound_server(stage: Stage, served: Serve, tmp_path: Path, tap: str) -> None:
    if find_weights() is None:
        pytest.skip("Whisper's weights are not here; run sottovoce models get")
    words = tmp_path / "words"
    ends = ["--input", MIC_SOURCE, "--output", HEARD_SINK]
    with words.open("w") as out, served.stream(LATEST_S) as told:  # a busy machine gives captions up for a while
        arguments = [sys.executable, "-m", "app", "live", *ends, "--captions", "--from", tap, "--provider", "cpu"]
        environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        live = subprocess.Popen(arguments, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        try:
            stage.play(stimulus(120.0))
            lines: dict[int, str] = {}
            deadline = time.monotonic() + LATEST_S
            while sum(map(len, lines.values())) < 120:
                assert time.monotonic() < deadline and live.poll() is None
                message = told()
                lines.update((line["id"], line["text"]) for line in message.get("lines", []))
            everyone = [psutil.Process(live.pid), *psutil.Process(live.pid).children(recursive=True)]
            assert [one.net_connections("inet") for one in everyone] == [[]] * len(everyone)
        finally:
            live.send_signal(signal.SIGINT)
            live.wait(WAIT_S)
        while (message := told()).get("state") != "waiting":  # the last words come before the end
            lines.update((line["id"], line["text"]) for line in message.get("lines", []))
    assert live.returncode == 130
    printed = re.sub(r"^\[[^]]*\] ", "", words.read_text(), flags=re.MULTILINE)
    assert " ".join(lines.values()).split() == printed.split()
