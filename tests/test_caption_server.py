"""The server of captions: who may read, who may not, and that no reader is in another one's way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engine import caption_server
from engine.caption_server import QUEUE_MESSAGES, CaptionServer, Page
from engine.types import SottovoceError
from tests.fuzzing import draws, mutated

TOKEN = "t" * 32
WAIT_S = 20.0
PAGES = {"": Page("text/html; charset=utf-8", "<p>page</p>"), "a.js": Page("text/javascript; charset=utf-8", "1")}
HELLO = [{"type": "state", "state": "on", "said": ""}]


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1", port: int = 0, within_s: float | None = 60.0, **more: Any
) -> AsyncIterator[CaptionServer]:
    server = CaptionServer(host, port, TOKEN, PAGES, more.pop("greeting", lambda: HELLO), **more)
    await server.open()
    try:
        async with asyncio.timeout(within_s):
            yield server
    finally:
        await server.close()


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """The test on a loop of its own."""

    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


async def asked(
    server: CaptionServer, path: str, method: str = "GET", **headers: str | None
) -> tuple[int, dict[str, str], str]:
    """A request as a browser would send it, its headers changed or left out -> status, headers, body."""
    address, port = server.places[0]
    reader, writer = await asyncio.open_connection(address, port)
    told = {"Host": f"{address}:{port}"} | headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items() if value is not None)]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    first, *rest = head.split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body


def stream(server: CaptionServer, token: str = TOKEN, **options: Any) -> connect:
    address, port = server.places[0]
    return connect(f"ws://{address}:{port}/{token}/stream", proxy=None, **options)


async def message(client: ClientConnection) -> Any:
    async with asyncio.timeout(WAIT_S):
        return json.loads(await client.recv())


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not done():
            await asyncio.sleep(0.01)


@in_loop
async def test_the_page_comes_with_a_policy_that_lets_nothing_else_in() -> None:
    async with serving() as server:
        status, headers, body = await asked(server, f"/{TOKEN}/?size=40")
        assert (status, body) == (200, "<p>page</p>")
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://127")
        assert "unsafe" not in policy and "*" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in headers
        status, headers, _ = await asked(server, f"/{TOKEN}/a.js")
        assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
        status, headers, _ = await asked(server, f"/{TOKEN}?lines=3")
        assert (status, headers["Location"]) == (308, f"/{TOKEN}/?lines=3")


@in_loop
async def test_who_is_refused() -> None:
    async with serving() as server:
        port = server.places[0][1]
        own = f"/{TOKEN}/"
        for path in (
            "/",
            "/.",
            "*",
            "//",
            "/x",
            f"/{TOKEN[1:]}/",
            f"/{TOKEN}x/",
            f"/x/{TOKEN}/",
            f"/?{TOKEN}",
            "/a.js",
        ):
            assert (await asked(server, path))[0] == 403, path
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.2:{port}"):
            assert (await asked(server, own, Host=host))[0] == 403, host
        assert (await asked(server, own, Host=None))[0] == 403
        assert (await asked(server, own, Host=f"127.0.0.1:{port}\r\nHost: evil.example"))[0] == 403
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://localhost:{port}"):
            assert (await asked(server, own, Origin=origin))[0] == 403, origin
        assert (await asked(server, own, method="POST"))[0] == 405
        assert (await asked(server, own + "b.js"))[0] == 404
        assert (await asked(server, own + "../a.js"))[0] == 404
        assert (await asked(server, own + "stream"))[0] == 426
        assert (await asked(server, own, Host=f"localhost:{port}", Origin=f"http://localhost:{port}"))[0] == 200


@in_loop
async def test_the_stream_wants_the_token_and_no_foreign_page() -> None:
    async with serving() as server:
        port = server.places[0][1]
        for options in ({"token": "x" * 32}, {"origin": "http://evil.example"}, {"origin": "null"}):
            with pytest.raises(InvalidStatus) as refusal:
                await stream(server, **options)
            assert refusal.value.response.status_code == 403
        with pytest.raises(InvalidStatus):
            await connect(f"ws://evil.example:{port}/{TOKEN}/stream", host="127.0.0.1", port=port, proxy=None)
        async with stream(server, origin=f"http://127.0.0.1:{port}") as client:
            assert await message(client) == HELLO[0]


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = caption_server.hmac.compare_digest
    monkeypatch.setattr(caption_server.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))

    async def ask() -> None:
        async with serving() as server:
            assert (await asked(server, f"/{'x' * 32}/"))[0] == 403

    asyncio.run(ask())
    assert compared == [(b"x" * 32, TOKEN.encode())]


@in_loop
async def test_every_reader_gets_everything_in_order_and_a_late_one_what_was_last() -> None:
    said: list[dict[str, Any]] = []
    async with serving(greeting=lambda: said[-1:]) as server:
        async with stream(server) as early:
            await until(lambda: server.readers == 1)
            for number in range(300):
                said.append({"type": "captions", "number": number})
                server.tell(said[-1])
                if number % 20 == 0:
                    await asyncio.sleep(0)
                assert (await message(early))["number"] == number
            async with stream(server) as late:
                assert (await message(late))["number"] == 299
                server.tell({"type": "captions", "number": 300})
                assert [(await message(client))["number"] for client in (early, late)] == [300, 300]
        await until(lambda: server.readers == 0)
        assert server.dropped == 0


@in_loop
async def test_a_slow_reader_is_dropped_and_is_in_nobodys_way() -> None:
    async with serving() as server:
        address, port = server.places[0]
        _, writer = await asyncio.open_connection(address, port, limit=1024)  # never read
        head = (
            f"GET /{TOKEN}/stream HTTP/1.1\r\nHost: {address}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        writer.write(
            (head + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
        )
        async with stream(server) as client:
            await until(lambda: server.readers == 2)
            await message(client)
            sent = 0
            while not server.dropped:
                server.tell({"type": "captions", "number": sent, "text": "x" * 20_000})
                assert (await message(client))["number"] == sent  # at once, whatever becomes of the other
                sent += 1
                assert sent < 5_000
            assert sent > QUEUE_MESSAGES
            assert server.readers == 1
        writer.close()


@in_loop
async def test_readers_are_few_and_have_nothing_to_say() -> None:
    async with serving(most_readers=2) as server:
        async with stream(server) as first, stream(server):
            await until(lambda: server.readers == 2)
            async with stream(server) as third:
                with pytest.raises(ConnectionClosed) as refused:
                    await message(third)
                assert refused.value.rcvd is not None and refused.value.rcvd.code == 1013
            await message(first)
            await first.send("let me in")
            with pytest.raises(ConnectionClosed) as closed:
                await message(first)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
            await until(lambda: server.readers == 1)
        async with stream(server) as again:
            assert await message(again) == HELLO[0]


def test_connections_that_say_nothing_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_server, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(caption_server, "OPEN_S", 300.0)

    async def crowd() -> None:
        async with serving() as server:
            mute = [await asyncio.open_connection(*server.places[0]) for _ in range(5)]
            reader, writer = await asyncio.open_connection(*server.places[0])
            with contextlib.suppress(OSError):  # it may be reset
                assert await reader.read() == b""  # at once, not when it has waited too long
            for _, one in [*mute, (reader, writer)]:
                one.close()

    asyncio.run(crowd())


def test_junk_is_borne_without_a_word_and_words_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    async def speak() -> None:
        async with serving() as server:
            for junk in (b"\x00" * 64, b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /" + b"x" * 20_000, b"\xff\r\n"):
                reader, writer = await asyncio.open_connection(*server.places[0])
                writer.write(junk)
                writer.write_eof()
                await reader.read()
                writer.close()
            async with stream(server) as client:
                await message(client)
                server.tell({"type": "captions", "text": "a secret"})
                await message(client)

    asyncio.run(speak())
    told = [record for record in caplog.records if record.name == "sottovoce.serve"]
    assert told == []
    assert capsys.readouterr() == ("", "")


@in_loop
async def test_broken_requests_never_get_the_page() -> None:
    async with serving(within_s=None) as server:
        address, port = server.places[0]
        for draw in draws():
            token = TOKEN if draw.random() < 0.3 else "x" * 32
            head = f"GET /{token}/ HTTP/1.1\r\nHost: {address}:{port}\r\nOrigin: http://evil.example\r\n"
            raw = mutated(head.encode(), draw) + b"\r\n"
            reader, writer = await asyncio.open_connection(address, port)
            with contextlib.suppress(OSError):  # it may have hung up
                writer.write(raw)
                writer.write_eof()
                answer = await reader.read()
                wanted = TOKEN.encode() in raw and b"Origin: http://evil" not in raw
                assert wanted or b"<p>page" not in answer, raw
            writer.close()
        assert (await asked(server, f"/{TOKEN}/"))[0] == 200


@in_loop
async def test_the_end_is_told_and_waits_for_nobody() -> None:
    async with serving() as server:
        mute = await asyncio.open_connection(*server.places[0])
        async with stream(server) as client:
            await message(client)
            async with asyncio.timeout(WAIT_S):
                await server.close()
            with pytest.raises(ConnectionClosed):
                await message(client)
        mute[1].close()


@in_loop
async def test_what_is_taken_or_not_there_is_told() -> None:
    async with serving() as server:
        port = server.places[0][1]
        for host, number, told in [
            ("127.0.0.1", port, f"port {port} is taken"),
            ("192.0.2.1", 0, "no address 192.0.2.1"),
            ("nowhere.invalid", 0, "no address nowhere.invalid"),
            ("a..b", 0, "no address a..b"),
        ]:
            with pytest.raises(SottovoceError, match=told):
                await CaptionServer(host, number, TOKEN, PAGES, list).open()


@in_loop
async def test_addresses_for_this_machine_and_for_others() -> None:
    async with serving() as server:
        port = server.places[0][1]
        assert server.addresses == [f"http://127.0.0.1:{port}/{TOKEN}/"]
        assert server.is_local
    async with serving("0.0.0.0") as server:
        port = server.places[0][1]
        assert server.addresses[0] == f"http://127.0.0.1:{port}/{TOKEN}/"
        assert not server.is_local
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /{TOKEN}/ HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n".encode())
        assert b" 403 " in (await reader.read()).partition(b"\r\n")[0]
        writer.close()
    async with serving("localhost") as server:
        assert server.is_local
        assert all(address.startswith("http://localhost:") for address in server.addresses)
