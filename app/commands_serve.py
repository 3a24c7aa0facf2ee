"""`sottovoce serve`: a page of live captions for OBS and for a second screen. Nothing else here opens a network."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import console
from engine.paths import config_dir
from engine.types import SottovoceError

if TYPE_CHECKING:
    from engine.caption_server import CaptionServer, Page

TOKEN_BYTES = 24
TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FRONT = "captions.html"


def serve(host: str, port: int, new_link: bool, as_json: bool) -> int:
    """Serve until Ctrl-C. Raises SottovoceError when nothing can listen there, or no app can be attached to here."""
    from engine.control import runtime_folder

    runtime_folder()
    return asyncio.run(_serve(host, port, link_token(new_link), as_json))


async def _serve(host: str, port: int, token: str, as_json: bool) -> int:
    from engine.caption_feed import CaptionFeed
    from engine.caption_server import CaptionServer

    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(message: dict[str, Any]) -> None:
        server.tell(message)
        if message["type"] == "state":
            console.say(message["said"] or "captions come in")

    feed = CaptionFeed(tell)
    server = CaptionServer(host, port, token, pages(), feed.greeting)
    await server.open()
    following = asyncio.create_task(feed.run())
    try:
        for number in console.STOPS:  # in place of an exception in the midst of the loop
            loop.add_signal_handler(number, stopped.set)
        _tell_address(server, as_json)
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({stopping, following}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if following.done():
            following.result()  # raises why
    finally:
        following.cancel()
        await asyncio.wait({following})
        await server.close()
    if server.dropped:
        console.say(told_dropped(server.dropped))
    return console.INTERRUPTED


def told_dropped(count: int) -> str:
    """A line about readers that were too slow."""
    if count == 1:
        return "1 reader did not keep up and was dropped; it may have come back"
    return f"{count} readers did not keep up and were dropped; they may have come back"


def _tell_address(server: CaptionServer, as_json: bool) -> None:
    if as_json:
        console.print_json({"address": server.addresses[0], "addresses": server.addresses, "local": server.is_local})
    else:
        print(*server.addresses, sep="\n", flush=True)
        console.say("paste the address into OBS as a browser source; Ctrl-C stops")
    if not server.is_local:
        console.warn("others on the network can read along with this link, and what they read is not encrypted")


def pages() -> dict[str, Page]:
    """The page and what lies beside it, by the names under which they are served."""
    from engine.caption_server import Page

    served = {}
    for path in sorted((Path(__file__).parent / "page").iterdir()):
        if path.suffix in MEDIA_TYPES:
            page = Page(f"{MEDIA_TYPES[path.suffix]}; charset=utf-8", path.read_text(encoding="utf-8"))
            served["" if path.name == FRONT else path.name] = page
    return served


def link_token(new: bool) -> str:
    """The secret part of the address: the same at every start, so that OBS finds it again, unless a new one is wanted.

    It lies in the settings where nobody else can read it; where that cannot be, it is good for one run.
    """
    path = config_dir() / "serve-link"
    try:
        if not new and not path.stat().st_mode & 0o077:
            kept = path.read_text(encoding="ascii").strip()
            if TOKEN.fullmatch(kept):
                return kept
    except (OSError, ValueError):
        pass  # there is none yet, or it is of no use
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        _keep(path, token)
    except OSError as error:
        if new:
            raise SottovoceError(
                f"{path} cannot be written ({error.strerror}); make room or check its folder"
            ) from None
        console.warn(f"{path} cannot be written ({error.strerror}); this address is good for this run only")
    return token


def _keep(path: Path, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".serve-link", dir=path.parent)  # the person's own from the first byte on
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(token + "\n")
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
