"""What runs is followed as it comes and goes, and a page is told in between why nothing is heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.caption_feed import NOT_RUNNING, CaptionFeed
from engine.caption_lines import CAPTIONS_OFF
from engine.control import runtime_folder
from engine.types import OTHERS
from tests.talker import Talker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
WAIT_S = 20.0


class Page:
    """What a page makes of the messages."""

    def __init__(self) -> None:
        self.feed = CaptionFeed(self.take, retry_s=0.02)
        self.lines: dict[int, str] = {}
        self.tails: dict[str, str] = {}
        self.states: list[tuple[str, str]] = []

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "state":
            self.states.append((message["state"], message["said"]))
            return
        if message["reset"]:
            self.lines.clear()
        self.lines.update((line["id"], line["text"]) for line in message["lines"])
        self.tails = message["tentative"]

    @property
    def text(self) -> str:
        return " / ".join(self.lines.values())

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    made = Page()
    following = asyncio.create_task(made.feed.run())
    try:
        yield made
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


def test_an_app_that_comes_goes_and_comes_again() -> None:
    async def run() -> None:
        async with page() as seen:
            await seen.until(lambda: seen.states == [("waiting", NOT_RUNNING)])
            assert seen.feed.greeting()[0] == {"type": "state", "state": "waiting", "said": NOT_RUNNING}
            with Talker() as talker:
                talker.say("Keep quiet", "please")
                await seen.until(lambda: seen.text == "Keep quiet" and seen.tails == {"speech": "please"})
                talker.say("please.")
                talker.say("Who?", source=OTHERS)
                await seen.until(lambda: seen.text == "Keep quiet please. / Who?")
                talker.say("", "me")
                await seen.until(lambda: seen.tails.get("speech") == "me")
            await seen.until(lambda: seen.feed.state == "waiting" and not seen.tails)
            assert seen.text == "Keep quiet please. / Who?"  # a page keeps what was said
            with Talker() as talker:
                talker.say("Again")
                await seen.until(lambda: seen.text.endswith("Again"))
        assert seen.states[:4] == 2 * [("waiting", NOT_RUNNING), ("on", "")]

    asyncio.run(run())


def test_what_was_said_before_is_caught_up_with_once() -> None:
    async def run() -> None:
        with Talker() as talker:
            talker.say("One two three")
            for _ in range(2):  # the second time it is told all of it again
                async with page() as seen:
                    await seen.until(lambda: seen.text == "One two three")
                    seen.feed._tell = lambda message: None
            async with page() as seen:
                await seen.until(lambda: seen.text == "One two three")
                talker.server.followers._peers[0].shutdown(2)  # the connection breaks, the app lives
                talker.say("four")
                await seen.until(lambda: seen.text.endswith("four"))
                assert seen.text == "One two three four"

    asyncio.run(run())


def test_captions_that_are_off_are_told_and_come_by_themselves() -> None:
    async def run() -> None:
        with Talker(captions=False) as talker:
            async with page() as seen:
                await seen.until(lambda: seen.states == [("off", CAPTIONS_OFF)])
                talker.captions(True)
                talker.say("Here", "we")
                await seen.until(lambda: seen.text == "Here" and seen.tails == {"speech": "we"})
                talker.captions(False)
                await seen.until(lambda: seen.states[-1][0] == "off" and not seen.tails)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ok": False, "said": "there is no such command", "status": {}}, "there is no such command"),
        ([], "another version"),
        (None, NOT_RUNNING),
    ],
    ids=["refused", "junk", "hung up"],
)
def test_an_app_that_does_not_speak_the_language_is_asked_again(answer: Any, said: str) -> None:
    asked = 0

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readline()
        if answer is not None:
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(attend, runtime_folder() / "control")
        async with server, page() as seen:
            await seen.until(lambda: asked > 3)
        assert said in seen.feed.said
        assert len(seen.states) <= 1  # told once, not every time

    asyncio.run(run())


def test_a_stranger_on_the_line_does_no_harm() -> None:
    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        with contextlib.suppress(OSError):
            writer.write(b'{"ok": true, "said": "", "status": {}}\n')
            writer.write(b"x" * 3_000_000)
            await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(attend, runtime_folder() / "control")
        async with page() as seen:
            await asyncio.sleep(0.2)
            server.close()
            (runtime_folder() / "control").unlink(missing_ok=True)
            with Talker() as talker:
                talker.say("Fine")
                await seen.until(lambda: seen.text == "Fine")

    asyncio.run(run())
