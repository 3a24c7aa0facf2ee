"""A server on this machine that gives one file, well or badly: ranges, cuts, wrong bytes, refusals."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """Gives `data` at any path. Settings may be changed between requests.

    cut: so many bytes of each answer, then the connection is closed. ranges: whether a part may be asked for. status:
    answered instead of the file. hold: waits there, after `hold_at` bytes of an answer, until it is set.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.cut, self.ranges, self.status = data, 0, True, 0
        self.hold: threading.Event | None = None
        self.hold_at = 0
        self.asked: list[str | None] = []  # the Range of each request
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if self.status or start >= len(self.data):
            request.send_response(self.status or 416)
            request.end_headers()
            return
        body = self.data[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        body = body[: self.cut] if self.cut else body
        try:
            if self.hold is not None:
                request.wfile.write(body[: self.hold_at])
                request.wfile.flush()
                self.hold.wait()
                body = body[self.hold_at :]
            request.wfile.write(body)
        except OSError:
            pass  # who asked has gone

    def _handler(self) -> Any:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
