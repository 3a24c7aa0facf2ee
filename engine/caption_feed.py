"""Captions out of the running app, with or without a window: attaches to it, and again whenever it comes and goes.

    control socket ─► CaptionFeed.run ─► lines (engine/caption_lines.py) ─► tell(message)

Everything happens on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from engine.caption_lines import CAPTIONS_OFF, CaptionLines, Told, parse_event, state_message
from engine.control import FOLLOW, OWNER_S, PEER_S, Request, runtime_folder
from engine.types import SottovoceError

RETRY_S = 1.0
MOST_LINE_BYTES = 1 << 20
NOT_RUNNING = "Sottovoce is not running; captions appear when it starts"
NO_ANSWER = "the running Sottovoce does not answer; captions appear when it does"


class CaptionFeed:
    """What the running app says, as messages for pages: `tell` gets every new one, `greeting` is for who comes late."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], retry_s: float = RETRY_S) -> None:
        self.lines = CaptionLines()
        self.state, self.said = "waiting", ""  # until the first attempt there is nothing to say
        self._tell, self._retry_s = tell, retry_s

    def greeting(self) -> list[dict[str, Any]]:
        """The state and the last lines."""
        return [state_message(self.state, self.said), self.lines.everything()]

    async def run(self) -> None:
        """Follow whatever runs until cancelled. Raises SottovoceError where no app of this person can be reached."""
        path = runtime_folder() / "control"
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(path, limit=MOST_LINE_BYTES)
            except OSError:
                self._become("waiting", NOT_RUNNING)
            else:
                await self._follow(reader, writer)
            await asyncio.sleep(self._retry_s)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the app hangs up, or says what cannot be understood."""
        said = NOT_RUNNING
        try:
            writer.write(Request(FOLLOW).encode())
            async with asyncio.timeout(OWNER_S + PEER_S):
                refusal = _refusal(await reader.readline())
            if refusal:
                said = refusal
                return
            while (line := await reader.readline()).endswith(b"\n"):
                self._take(parse_event(line))
        except TimeoutError:
            said = NO_ANSWER
        except (OSError, ValueError):  # it went, or sent a line without an end
            pass
        except SottovoceError as error:
            said = str(error)
        finally:
            writer.close()
            self._become("waiting", said)

    def _take(self, told: Told) -> None:
        if told.event == "state":
            self._become(*("on", "") if told.captions else ("off", CAPTIONS_OFF))
        elif told.event == "recap":
            self._tell(self.lines.forget())
        else:
            self._tell(self.lines.add(told.source, told.final, told.tentative))

    def _become(self, state: str, said: str) -> None:
        if (state, said) == (self.state, self.said):
            return
        self.state, self.said = state, said
        if state != "on":
            self._tell(self.lines.drop_tails())
        self._tell(state_message(state, said))


def _refusal(answer: bytes) -> str:
    """Why the app does not let itself be followed; empty when it does. Raises OSError when it said nothing."""
    if not answer.endswith(b"\n"):
        raise OSError("hung up")
    try:
        told = json.loads(answer)
        return "" if told["ok"] is True else str(told["said"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SottovoceError("the running Sottovoce is of another version; start it and this again") from None
