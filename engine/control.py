"""Steering a live run from another program of the same person: one line of JSON asked, one line answered.

    sottovoce ctl … ─► socket ─► ControlServer's thread ─► queue ─► the engine's owner, in `pump`
                    ◄─ answer ◄─────────────────────────────────────┘

The socket is a file in the person's own runtime folder that nobody else may open; nothing listens on any network. A
lock beside it is held while the app runs, so that what a killed run left behind is told from a run that lives.

A request is {"do": NAME, "value": TEXT}, the value left out where there is none; see COMMANDS. The answer is
{"ok": true, "said": one line, "status": {...}} or {"ok": false, "said": why not}. After `follow` the connection stays
open, and captions come over it; see engine/followers.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from engine.followers import MOST_FOLLOWERS, Followers
from engine.types import Caption, Event, SottovoceError, UsageError

MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 65536
MAX_VALUE_CHARS = 256
PEER_S = 2.0  # who is connected and says nothing does not keep others waiting longer
OWNER_S = 10.0  # within so long the engine's owner does what was asked
POLL_S = 0.1
BACKLOG = 64
FOLLOW = "follow"
COMMANDS = {
    "background": "WHAT: keep, drop, a gain in dB, or swap:SCENE[@DB]",
    "scene": "NAME: the place to swap the background for",
    "bypass": "on or off",
    "mute": "on or off",
    "level": "on or off",
    "input": "ID of a microphone",
    "output": "ID of an output",
    "resync": "",
    "show": "",
    "status": "",
    FOLLOW: "",
}
SWITCHES = ("bypass", "mute", "level")


class AlreadyRunning(SottovoceError):
    """Another run of this person holds the lock; it answers."""


@dataclass(frozen=True)
class Request:
    """What is asked: a name of COMMANDS, and its value where it takes one."""

    do: str
    value: str | None = None

    @property
    def on(self) -> bool:
        return self.value == "on"

    def encode(self) -> bytes:
        return json.dumps({"do": self.do} | ({"value": self.value} if self.value is not None else {})).encode() + b"\n"


def checked_request(do: object, value: object = None) -> Request:
    """Raises UsageError, in one sentence, for what is no request."""
    if not isinstance(do, str) or do not in COMMANDS:
        said = ", ".join(name for name in COMMANDS if name != FOLLOW)  # that one is for programs
        raise UsageError(f"there is no such command; say one of: {said}")
    wanted = COMMANDS[do]
    if not wanted:
        if value is not None:
            raise UsageError(f"{do} takes no value; leave it out")
        return Request(do)
    if not isinstance(value, str) or not value or len(value) > MAX_VALUE_CHARS or not value.isprintable():
        raise UsageError(f"{do} takes {wanted}")
    if do in SWITCHES and value not in ("on", "off"):
        raise UsageError(f"{do} is on or off")
    return Request(do, value)


def parse_request(line: bytes) -> Request:
    """One line as it came. Raises UsageError for anything that is no request."""
    if len(line) > MAX_REQUEST_BYTES:
        raise UsageError(f"a request has at most {MAX_REQUEST_BYTES} bytes; write a shorter one")
    try:
        asked = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, numbers too long, lists too deep
        raise UsageError('a request is one line of JSON such as {"do": "status"}') from None
    if not isinstance(asked, dict) or not asked.keys() <= {"do", "value"}:
        raise UsageError('a request is one line of JSON such as {"do": "status"}')
    return checked_request(asked.get("do"), asked.get("value"))


@dataclass(frozen=True)
class Answer:
    """said: one line for a person; status: figures by name, for `status` alone."""

    ok: bool
    said: str
    status: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps({"ok": self.ok, "said": self.said, "status": self.status}).encode() + b"\n"


TOO_MANY = Answer(False, "too many programs read the captions; close one of them, such as a sottovoce serve")


def runtime_folder() -> Path:
    """Where socket and lock lie; made when missing. Raises SottovoceError when others may write to it."""
    if sys.platform == "win32":
        raise SottovoceError("a running app cannot be steered from outside on Windows; use its window")
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "sottovoce" if base else Path(tempfile.gettempdir()) / f"sottovoce-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SottovoceError(f"{folder} cannot be made ({error.strerror}); set XDG_RUNTIME_DIR to your own") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SottovoceError(f"{folder} is open to others; remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    return folder


class ControlServer:
    """Takes requests while it is open. `pump` is called by the engine's owner, often; it alone touches the engine.

    The owner tells what followers are to know, too: `publish` the engine's events, `tell_captions` whether there are
    any, `drop_tails` when another run begins. None of them waits for anybody.

    `open` raises AlreadyRunning when another run of this person holds the lock, and SottovoceError when the folder
    cannot be used.
    """

    def __init__(self) -> None:
        self._lock: IO[str] | None = None
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._waiting: queue.SimpleQueue[tuple[Request, queue.SimpleQueue[Answer]]] = queue.SimpleQueue()
        self._newcomers: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self.followers = Followers()
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sottovoce control", daemon=True)

    def open(self) -> None:
        folder = runtime_folder()
        self._lock = _locked(folder / "lock")
        self._path = folder / "control"
        try:
            self._path.unlink(missing_ok=True)  # whoever left it is gone: the lock is ours
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen(BACKLOG)
            self._socket.settimeout(POLL_S)
        except OSError as error:
            self.close()
            reason = error.strerror or error
            raise SottovoceError(f"{self._path} cannot be opened ({reason}); set XDG_RUNTIME_DIR elsewhere") from error
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; may be called twice."""
        self._halt.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while not self._newcomers.empty():
            self._newcomers.get().close()
        self.followers.close()
        if self._path is not None and self._lock is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def pump(self, carry_out: Callable[[Request], Answer]) -> None:
        """Carry out what was asked since the last call. What carry_out raises as SottovoceError is the answer."""
        while not self._waiting.empty():
            request, answers = self._waiting.get()
            try:
                answers.put(carry_out(request))
            except SottovoceError as error:
                answers.put(Answer(False, str(error)))
        self.followers.look_after()
        while not self._newcomers.empty():
            self._welcome(self._newcomers.get())

    def publish(self, event: Event) -> None:
        """Tell followers what the engine says, where it is for them."""
        if isinstance(event, Caption):
            self.followers.publish(event)

    def tell_captions(self, on: bool) -> None:
        """Tell followers whether captions are written, when that has changed."""
        self.followers.tell_captions(on)

    def drop_tails(self) -> None:
        """Tell followers that what was tentative will not become final: the run that said it has ended."""
        self.followers.drop_tails()

    def _welcome(self, peer: socket.socket) -> None:
        if not self.followers.full:
            self.followers.add(peer, Answer(True, "captions follow").encode())
            return
        with peer, contextlib.suppress(OSError):
            peer.setblocking(False)
            peer.send(TOO_MANY.encode())

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._socket is not None
        while not self._halt.is_set():
            with contextlib.suppress(OSError):  # nobody came, or they went before they were answered
                self._attend(self._socket.accept()[0])

    def _attend(self, peer: socket.socket) -> None:
        """Answer one peer and hang up, or hand it to the owner when it follows."""
        with contextlib.ExitStack() as at_end:
            at_end.enter_context(peer)
            peer.settimeout(PEER_S)
            if not _is_ours(peer):
                return
            try:
                request = parse_request(_read_line(peer, MAX_REQUEST_BYTES))
            except UsageError as error:
                answer = Answer(False, str(error))
            else:
                if request.do == FOLLOW and self._newcomers.qsize() < MOST_FOLLOWERS:
                    self._newcomers.put(peer)
                    at_end.pop_all()
                    return
                answer = TOO_MANY if request.do == FOLLOW else self._answer(request)
            peer.sendall(answer.encode())

    def _answer(self, request: Request) -> Answer:
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._waiting.put((request, answers))
        for _ in range(round(OWNER_S / POLL_S)):
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=POLL_S)
            if self._halt.is_set():
                return Answer(False, "Sottovoce is stopping; start it again")
        return Answer(False, "Sottovoce is busy; try again in a moment")


def _locked(path: Path) -> IO[str]:
    """The lock, held until it is closed, our process number in it. Raises AlreadyRunning when another holds it."""
    import fcntl

    try:
        lock = path.open("a+", encoding="ascii")
    except OSError as error:
        raise SottovoceError(f"{path} cannot be written ({error.strerror}); remove it and start again") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        number = lock.read(16).strip()
        lock.close()
        runs = f"Sottovoce is running already (process {number or 'unknown'})"
        raise AlreadyRunning(f"{runs}; steer it with sottovoce ctl, or stop it first") from None
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _is_ours(peer: socket.socket) -> bool:
    """Whether the same person (or root) is at the other end, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder's mode keeps others out
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (os.getuid(), 0)


def _read_line(peer: socket.socket, most: int) -> bytes:
    """Up to the end of the line or of what comes, and no more than a little beyond `most` bytes."""
    data = bytearray()
    with contextlib.suppress(TimeoutError):
        while b"\n" not in data and len(data) <= most:
            more = peer.recv(most + 1 - len(data))
            if not more:
                break
            data += more
    return bytes(data).partition(b"\n")[0]


def ask(request: Request) -> Answer:
    """Send a request to the running app. Raises SottovoceError when there is none, or it does not answer."""
    path = runtime_folder() / "control"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(OWNER_S + PEER_S)
            line.connect(str(path))
            line.sendall(request.encode())
            told = json.loads(_read_line(line, MAX_ANSWER_BYTES))
    except (FileNotFoundError, ConnectionRefusedError):
        raise SottovoceError("Sottovoce is not running; start it: sottovoce live") from None
    except (OSError, ValueError) as error:
        raise SottovoceError("the running Sottovoce does not answer; stop it and start it again") from error
    return Answer(bool(told["ok"]), str(told["said"]), dict(told["status"]))
