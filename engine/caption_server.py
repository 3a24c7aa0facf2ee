"""A small server of captions: a page, and a WebSocket over which it is told what is said.

    http://ADDRESS:PORT/TOKEN/            the page, and the files beside it
    ws://ADDRESS:PORT/TOKEN/stream        messages as in engine/caption_lines.py; a reader says nothing

Whoever knows the token may read; all others are refused, and so is a page of another origin and a name of this machine
that was not asked for (which is how a foreign page would reach a local server). A reader that does not keep up is
dropped and counted; it never keeps the others waiting. This is all of Sottovoce that listens on a network, and only
`sottovoce serve` starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from engine.types import SottovoceError

STREAM = "stream"
MOST_READERS = 16
MOST_CONNECTIONS = 64  # with those that fetch the page or have not said yet what they want
QUEUE_MESSAGES = 64
MOST_MESSAGE_BYTES = 1024  # nothing is read; this is for what comes all the same
OPEN_S, PING_S, CLOSE_S = 5.0, 10.0, 1.0
LOG = logging.getLogger("sottovoce.serve")
LOG.setLevel(logging.WARNING)  # below that the library writes down what it sends, which are a person's words
LOG.addFilter(lambda record: "handshake" not in record.getMessage())  # junk from a stranger is no fault of ours
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://{host}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Page:
    """A file as it is served; media_type as in Content-Type."""

    media_type: str
    text: str


@dataclass(eq=False)
class _Reader:
    connection: ServerConnection
    queue: asyncio.Queue[str]


class _Connection(ServerConnection):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.server.handler_tasks) > MOST_CONNECTIONS:
            self.transport.abort()


class CaptionServer:
    """Serves while it is open. pages: by name, "" the one at the address. greeting: messages for who comes new."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        pages: Mapping[str, Page],
        greeting: Callable[[], list[dict[str, Any]]],
        most_readers: int = MOST_READERS,
    ) -> None:
        self.dropped = 0  # readers that did not keep up
        self._host, self._port, self._token = host, port, token
        self._pages, self._greeting, self._most_readers = pages, greeting, most_readers
        self._readers: set[_Reader] = set()
        self._server: Server | None = None

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Address and port of every socket that listens."""
        assert self._server is not None
        return [listening.getsockname()[:2] for listening in self._server.sockets]

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return all(ipaddress.ip_address(address).is_loopback for address, _ in self.places)

    @property
    def addresses(self) -> list[str]:
        """What to open, the nearest first."""
        hosts: dict[str, None] = {}
        for address, port in self.places:
            names = _reachable(address) if ipaddress.ip_address(address).is_unspecified else [address]
            for name in names if _is_address(self._host) else [self._host]:
                hosts[f"{_bracketed(name)}:{port}"] = None
        return [f"http://{host}/{self._token}/" for host in hosts]

    async def open(self) -> None:
        """Raises SottovoceError when nothing can listen there."""
        try:
            self._server = await serve_websockets(
                self._stream,
                self._host,
                self._port,
                process_request=self._answer,
                create_connection=_Connection,
                compression=None,
                server_header=None,
                open_timeout=OPEN_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                close_timeout=CLOSE_S,
                max_size=MOST_MESSAGE_BYTES,
                logger=LOG,
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of the net's looks like that
            raise SottovoceError(self._why_not(error)) from error

    async def close(self) -> None:
        """Hang up on all and listen no more; may be called twice."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(TimeoutError):  # who has not said what they want is not waited for
            async with asyncio.timeout(2 * CLOSE_S):
                await self._server.wait_closed()
        self._server = None

    def tell(self, message: dict[str, Any]) -> None:
        """Send to every reader; waits for none. On the loop's thread."""
        text = json.dumps(message, ensure_ascii=False)
        for reader in list(self._readers):
            try:
                reader.queue.put_nowait(text)
            except asyncio.QueueFull:
                self.dropped += 1
                self._readers.discard(reader)
                reader.connection.transport.abort()

    # One connection ---------------------------------------------------------------------------------------------------

    async def _stream(self, connection: ServerConnection) -> None:
        if len(self._readers) >= self._most_readers:
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many readers; close a page")
            return
        reader = _Reader(connection, asyncio.Queue(QUEUE_MESSAGES))
        for message in self._greeting():  # with the next line in one step: nothing is lost between
            reader.queue.put_nowait(json.dumps(message, ensure_ascii=False))
        self._readers.add(reader)
        sending = asyncio.create_task(_send_all(reader))
        try:
            async for _ in connection:
                await connection.close(CloseCode.POLICY_VIOLATION, "there is nothing to say here")
        except ConnectionClosed:
            pass  # it went without a word
        finally:
            self._readers.discard(reader)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A page or a refusal; None lets the stream begin."""
        hosts = self._own_names(connection)
        if request.headers.get_all("Host") not in [[host] for host in hosts]:
            return _plain(connection, 403, "this address is not the one that sottovoce serve has told")
        host = request.headers["Host"]
        if request.headers.get_all("Origin") not in ([], [f"http://{host}"]):
            return _plain(connection, 403, "another page may not read this")
        path, _, query = request.path.partition("?")
        _, token, *names = path.split("/", 2) if path.count("/") else ("", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return _plain(connection, 403, "the link is not right; copy it again from sottovoce serve")
        if request.method != "GET":
            return _plain(connection, 405, "this can only be read")
        if names == [STREAM]:
            return None
        if not names:  # the last stroke was lost; what the page asks for is beside it
            response = _plain(connection, 308, "")
            response.headers["Location"] = f"/{self._token}/" + (f"?{query}" if query else "")
            return response
        page = self._pages.get(names[0])
        if page is None:
            return _plain(connection, 404, "there is no such page")
        return _served(connection, page, host)

    def _own_names(self, connection: ServerConnection) -> set[str]:
        """What a request may call this machine: the address it came to, and the name that was asked for."""
        address, port = connection.local_address[:2]
        names = {_bracketed(address), *([] if _is_address(self._host) else [self._host.lower()])}
        if ipaddress.ip_address(address).is_loopback:
            names.add("localhost")
        return {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    def _why_not(self, error: OSError | UnicodeError) -> str:
        if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no address {self._host}; give one that it has with --host, or leave it out"
        if error.errno == errno.EADDRINUSE:
            return f"port {self._port} is taken, perhaps by another sottovoce serve; give another one with --port"
        if error.errno == errno.EACCES:
            return f"port {self._port} is not for everybody; give one above 1023 with --port"
        return f"nothing can listen on {self._host}, port {self._port} ({error.strerror or error}); give others"


async def _send_all(reader: _Reader) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await reader.connection.send(await reader.queue.get())


def _plain(connection: ServerConnection, status: int, text: str) -> Response:
    return _guarded(connection.respond(status, text + "\n"), "invalid.invalid")


def _served(connection: ServerConnection, page: Page, host: str) -> Response:
    response = connection.respond(200, page.text)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = page.media_type
    return _guarded(response, host)


def _guarded(response: Response, host: str) -> Response:
    """With the headers that keep a page to itself."""
    response.headers["Content-Security-Policy"] = POLICY.format(host=host)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _reachable(unspecified: str) -> list[str]:
    """This machine's own addresses of that family, loopback first."""
    family = socket.AF_INET6 if ":" in unspecified else socket.AF_INET
    own: Iterable[str] = (a.address for all_of in psutil.net_if_addrs().values() for a in all_of if a.family == family)
    usable = [ipaddress.ip_address(address) for address in own if "%" not in address]
    return [str(address) for address in sorted(usable, key=lambda a: (not a.is_loopback, int(a)))]
