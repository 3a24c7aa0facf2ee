"""Following the captions of a running app: all of them, in order, and nobody who does not read holds it up."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import cli
from engine.control import Answer, ControlServer, Request, runtime_folder
from engine.followers import MOST_FOLLOWERS, RECAP_WORDS
from engine.types import OTHERS, SPEECH, Caption, Levels, Word
from tests.talker import Talker
from tests.test_control import owner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
__all__ = ["owner"]

WAIT_S = 20.0


def word(number: int) -> Word:
    return Word(f" word{number}", 0.4 * number, 0.4 * number + 0.3)


def caption(number: int, source: str = SPEECH) -> Caption:
    return Caption(0.4 * number, (word(number),), (word(number + 1), word(number + 2)), 1.0, source=source)


class Reader:
    """A program that follows."""

    def __init__(self, asked: bytes = b'{"do": "follow"}\n') -> None:
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.line.settimeout(WAIT_S)
        self.line.connect(str(runtime_folder() / "control"))
        self.line.sendall(asked)
        self._file = self.line.makefile("rb")

    def read(self) -> Any:
        """The next line; None at the end."""
        told = self._file.readline()
        return json.loads(told) if told.endswith(b"\n") else None

    def finals(self, count: int) -> list[str]:
        """So many final words."""
        words: list[str] = []
        while len(words) < count:
            told = self.read()
            words += [word["text"] for word in told.get("final", [])]
        return words

    def close(self) -> None:
        self._file.close()
        self.line.close()


class Running:
    """A server whose owner is the test: it turns the crank itself."""

    def __init__(self) -> None:
        self.server, self.readers = ControlServer(), list[Reader]()
        self.server.open()

    def turn(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not until():
            assert time.monotonic() < deadline
            self.server.pump(lambda request: Answer(True, "done"))
            time.sleep(0.002)

    def reader(self) -> Reader:
        before = len(self.server.followers)
        self.readers.append(Reader())
        self.turn(lambda: len(self.server.followers) > before)
        assert self.readers[-1].read()["ok"] is True
        return self.readers[-1]

    def close(self) -> None:
        self.server.close()
        for reader in self.readers:
            reader.close()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


def test_who_keeps_up_gets_everything_in_order(running: Running) -> None:
    running.server.tell_captions(True)
    readers = [running.reader() for _ in range(3)]
    assert [reader.read() for reader in readers] == [{"event": "state", "captions": True}] * 3
    got: list[list[str]] = [[], [], []]
    for block in range(40):
        for number in range(50 * block, 50 * block + 50):
            running.server.publish(Levels(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))  # nothing to them
            running.server.publish(caption(number))
        for words, reader in zip(got, readers):
            words += reader.finals(50)
    assert got == [[word(number).text for number in range(2000)]] * 3
    assert running.server.followers.dropped == 0


def test_an_event_says_who_spoke_what_and_when(running: Running) -> None:
    reader = running.reader()
    assert reader.read() == {"event": "state", "captions": False}
    running.server.publish(caption(3, OTHERS))
    assert reader.read() == {
        "event": "caption",
        "source": "others",
        "final": [{"text": " word3", "start_s": 1.2, "end_s": 1.5}],
        "tentative": [
            {"text": " word4", "start_s": 1.6, "end_s": 1.9},
            {"text": " word5", "start_s": 2.0, "end_s": 2.3},
        ],
        "lag_s": 1.0,
    }


def test_who_does_not_read_is_dropped_and_holds_nobody_up(running: Running) -> None:
    idle, reader = running.reader(), running.reader()
    longest_s, number = 0.0, 0
    while running.server.followers.dropped == 0:
        began = time.monotonic()
        running.server.publish(caption(number))
        longest_s, number = max(longest_s, time.monotonic() - began), number + 1
        assert reader.finals(1) == [word(number - 1).text]
        assert number < 50_000
    assert longest_s < 2.0
    assert number > 200  # a minute's worth at the least
    assert len(running.server.followers) == 1
    while idle.read() is not None:  # what had been sent is there, then the end
        pass
    running.server.publish(caption(number))
    assert reader.finals(1) == [word(number).text]


def test_a_newcomer_is_told_what_was_said_last(running: Running) -> None:
    running.server.tell_captions(True)
    for number in range(100):
        running.server.publish(caption(number, OTHERS if number >= 90 else SPEECH))
    reader = running.reader()
    told = [reader.read() for _ in range(6)]
    assert [event["event"] for event in told] == ["state", "recap"] + ["caption"] * 4
    said = [(event["source"], word["text"]) for event in told[2:] for word in event["final"]]
    wanted = [(OTHERS if n >= 90 else SPEECH, word(n).text) for n in range(100 - RECAP_WORDS, 100)]
    assert said == wanted
    assert [len(event["tentative"]) for event in told[2:]] == [0, 0, 2, 2]
    running.server.publish(caption(100))
    assert reader.finals(1) == [word(100).text]


def test_captions_that_come_and_go_are_told_once(running: Running) -> None:
    reader = running.reader()
    for on in (False, True, True, False, False):
        running.server.tell_captions(on)
    assert [reader.read()["captions"] for _ in range(3)] == [False, True, False]


def test_a_tail_goes_with_the_run_that_said_it(running: Running) -> None:
    reader = running.reader()
    reader.read()
    running.server.publish(caption(1, OTHERS))
    assert len(reader.read()["tentative"]) == 2
    running.server.drop_tails()
    running.server.drop_tails()
    assert reader.read() == {"event": "caption", "source": "others", "final": [], "tentative": [], "lag_s": 0.0}
    running.server.publish(caption(2))
    assert reader.finals(1) == [word(2).text]


def test_places_are_few_and_are_free_again(running: Running) -> None:
    readers = [running.reader() for _ in range(MOST_FOLLOWERS)]
    one_more = Reader()
    running.readers.append(one_more)
    answer: list[Any] = []
    one_more.line.settimeout(0.01)

    def refused() -> bool:
        try:
            answer.append(json.loads(one_more.line.recv(4096)))
        except TimeoutError:
            return False
        return True

    running.turn(refused)
    assert answer[0]["ok"] is False
    assert "too many" in answer[0]["said"]
    readers[0].close()
    readers[1].line.sendall(b"more\n")  # a follower has nothing to say
    running.turn(lambda: len(running.server.followers) == MOST_FOLLOWERS - 2)
    running.reader()


def test_others_are_answered_while_somebody_follows(owner: Talker) -> None:
    from engine.control import ask

    reader = Reader()
    assert reader.read()["ok"]
    assert all(ask(Request("status")).ok for _ in range(5))
    owner.server.close()
    while reader.read() is not None:
        pass
    reader.close()


def test_a_value_is_refused(owner: Talker) -> None:
    reader = Reader(b'{"do": "follow", "value": "x"}\n')
    assert "takes no value" in reader.read()["said"]
    assert reader.read() is None
    reader.close()


def test_who_waits_when_it_ends_is_let_go() -> None:
    running = Running()
    reader = Reader()  # nobody turns the crank
    time.sleep(0.2)
    running.close()
    assert reader.read() is None
    reader.close()


def test_ctl_sends_a_person_to_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ctl", "follow"]) == 2
    assert "sottovoce serve" in capsys.readouterr().err
