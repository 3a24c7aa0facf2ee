"""Steering a running app: its own socket alone, nothing that comes over it breaks it, and one app at a time."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import cli
from app.commands_live import carry_out
from app.live_view import LiveView
from engine.control import (
    COMMANDS,
    MAX_REQUEST_BYTES,
    MAX_VALUE_CHARS,
    Answer,
    ControlServer,
    Request,
    ask,
    checked_request,
    parse_request,
    runtime_folder,
)
from engine.types import Background, SottovoceError, UsageError
from tests.fuzzing import ODD, mutated, run
from tests.talker import Talker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")


@pytest.fixture
def owner() -> Iterator[Talker]:
    with Talker() as running:
        yield running


def send(raw: bytes, hang_up: bool = True) -> Any:
    """Raw bytes to the running app -> its answer, None when it gave none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(20.0)
        line.connect(str(runtime_folder() / "control"))
        try:
            line.sendall(raw)
            if hang_up:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it had read enough and hung up
        data = b""
        try:
            while more := line.recv(65536):
                data += more
        except ConnectionResetError:
            pass  # it closed with some of ours unread; the answer was sent before
    return json.loads(data.split(b"\n", 1)[0]) if data else None  # who follows gets more


# Requests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [("background", "swap:rain@-6"), ("scene", "rain"), ("bypass", "on"), ("mute", "off"), ("resync", None)],
    ids=lambda asked: asked[0],
)
def test_a_request_survives_the_way(asked: tuple[str, str | None]) -> None:
    request = checked_request(*asked)
    assert parse_request(request.encode().rstrip(b"\n")) == request


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "one line of JSON"),
        (b"\xff\xfe", "one line of JSON"),
        (b"[" * 4000, "one line of JSON"),
        (b"1" * 4090, "one line of JSON"),
        (b"[1]", "one line of JSON"),
        (b'{"do": "status", "more": 1}', "one line of JSON"),
        (b'{"do": ["status"]}', "say one of"),
        (b'{"do": "format"}', "say one of"),
        (b'{"do": "status", "value": "x"}', "takes no value"),
        (b'{"do": "bypass"}', "takes on or off"),
        (b'{"do": "bypass", "value": "yes"}', "on or off"),
        (b'{"do": "input", "value": 3}', "takes ID"),
        (b'{"do": "scene", "value": "a\\u0000b"}', "takes NAME"),
        (b'{"do": "scene", "value": "\\ud800"}', "takes NAME"),
        (b'{"do": "scene", "value": "' + b"x" * (MAX_VALUE_CHARS + 1) + b'"}', "takes NAME"),
        (b'{"do": "scene", "value": "' + b"x" * MAX_REQUEST_BYTES + b'"}', "at most"),
    ],
    ids=range(16),
)
def test_what_is_no_request_is_refused_in_one_line(line: bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refusal:
        parse_request(line)
    assert "\n" not in str(refusal.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(sorted(COMMANDS)) | st.text(max_size=12)
almost = st.dictionaries(st.sampled_from(["do", "value", "x"]), names | values, max_size=3).map(
    lambda made: json.dumps(made).encode()
)


@settings(deadline=None)
@given(st.binary(max_size=MAX_REQUEST_BYTES + 64) | almost)
def test_whatever_comes_is_a_request_or_refused(line: bytes) -> None:
    told, request = "", None
    try:
        request = parse_request(line)
    except UsageError as refusal:
        told = str(refusal)
    assert "\n" not in told
    if request is None:
        assert told
        return
    assert request.do in COMMANDS
    assert (request.value is not None) == bool(COMMANDS[request.do])
    assert parse_request(request.encode().rstrip(b"\n")) == request


def broken_request(draw: random.Random) -> bytes:
    """Bytes of any kind, or nearly a request."""
    if draw.random() < 0.2:
        return draw.randbytes(draw.choice((1, 16, MAX_REQUEST_BYTES, 2 * MAX_REQUEST_BYTES)))
    asked = {"do": draw.choice((*COMMANDS, draw.choice(ODD))), "value": draw.choice(("", "on", "rain", *ODD))}
    return mutated(json.dumps(asked).encode(), draw) or b"\n"


def test_whatever_comes_is_answered_in_one_line_and_the_next_one_too(owner: Talker) -> None:
    def one(draw: random.Random) -> None:
        owner.asked.clear()
        told = send(broken_request(draw))
        assert told is not None
        assert set(told) == {"ok", "said", "status"}
        assert "\n" not in told["said"]
        assert ask(Request("status")).ok

    run(one, few=60)


# The socket -----------------------------------------------------------------------------------------------------------


def test_it_is_the_persons_own(owner: Talker) -> None:
    folder = runtime_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o600
    assert stat.S_ISSOCK((folder / "control").stat().st_mode)


def test_a_folder_that_others_may_enter_is_refused() -> None:
    runtime_folder().chmod(0o755)
    with pytest.raises(SottovoceError, match="open to others"):
        ControlServer().open()


def test_a_name_that_is_too_long_for_a_socket_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    server = ControlServer()
    with pytest.raises(SottovoceError, match="XDG_RUNTIME_DIR"):
        server.open()
    server.close()


def test_an_endless_line_is_cut_off(owner: Talker) -> None:
    told = send(b"x" * 3_000_000)
    assert told is None or not told["ok"]
    assert ask(Request("status")).ok


def test_who_says_nothing_keeps_nobody_waiting_for_ever(owner: Talker) -> None:
    assert send(b"", hang_up=False)["ok"] is False
    assert ask(Request("status")).ok


def test_who_hangs_up_early_does_no_harm(owner: Talker) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(str(runtime_folder() / "control"))
            line.sendall(b'{"do": "status"}\n')
    assert ask(Request("status")).status == {"state": "running"}


def test_what_the_engine_refuses_is_the_answer(owner: Talker) -> None:
    answer = ask(Request("scene", "nowhere"))
    assert not answer.ok
    assert "choose one of" in answer.said


def test_only_one_runs_and_a_killed_one_is_no_obstacle(owner: Talker) -> None:
    with pytest.raises(SottovoceError, match=rf"running already \(process {os.getpid()}\)"):
        ControlServer().open()
    assert ask(Request("status")).ok  # it was not disturbed
    owner.server.close()
    code = (
        "import os, signal; from engine.control import ControlServer; ControlServer().open();"
        " os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert killed.returncode < 0
    assert (runtime_folder() / "control").exists()
    with pytest.raises(SottovoceError, match="not running"):
        ask(Request("status"))
    with Talker():
        assert ask(Request("status")).ok
    assert not (runtime_folder() / "control").exists()


def test_an_owner_that_stops_says_so() -> None:
    server = ControlServer()
    server.open()
    told: list[Answer] = []
    asking = threading.Thread(target=lambda: told.append(ask(Request("status"))))
    asking.start()
    time.sleep(0.3)  # nobody pumps
    server.close()
    asking.join()
    assert told[0].ok is False
    assert "start it again" in told[0].said


# The command ----------------------------------------------------------------------------------------------------------


class Steered:
    """An engine that keeps what is set."""

    state, background, devices = "running", Background.parse("drop"), ("mic", None)

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def set(self, **change: Any) -> None:
        if change.get("background") == "loud":
            raise UsageError("background is keep, drop, a gain in dB, or swap:SCENE[@DB]; not 'loud'")
        self.calls.append(change)

    def resync(self) -> None:
        self.calls.append({"resync": True})


def test_ctl_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    engine, view = Steered(), LiveView(False)
    view.stats = SimpleNamespace(
        time_s=1.0,
        delay_ms=90.0,
        hop_ms_median=5.0,
        hop_ms_p99=6.0,
        hop_ms_max=7.0,
        load=0.2,
        dropouts=1,
        dropouts_why=("1 at 0.5 s: the input came late",),
        closest="",
        given_up=("captions",),
        caption_lag_s=0.0,
    )  # type: ignore[assignment]
    with Talker(carry_out=lambda request: carry_out(engine, view, request)):  # type: ignore[arg-type]
        wanted = [["background", "-12"], ["scene", "rain"], ["bypass", "on"], ["mute", "off"], ["output", "x y"]]
        assert [cli.run(["ctl", *words]) for words in [*wanted, ["resync"]]] == [0] * 6
        assert engine.calls == [
            {"background": "-12"},
            {"scene": "rain"},
            {"bypass": True},
            {"muted": False},
            {"output": "x y"},
            {"resync": True},
        ]
        capsys.readouterr()
        assert cli.run(["ctl", "status", "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["background"] == "drop"
        assert figures["given_up"] == ["captions"]
        assert figures["dropouts_why"] == ["1 at 0.5 s: the input came late"] and figures["closest"] is None
        assert figures["output"] is None
        assert cli.run(["ctl", "background", "loud"]) == 1
        assert cli.run(["ctl", "bypass", "maybe"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
    assert cli.run(["ctl", "status"]) == 1
    assert "sottovoce live" in capsys.readouterr().err


def test_a_second_live_says_that_one_is_running_before_it_loads_anything(
    owner: Talker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.commands_live.load_ahead", lambda provider: pytest.fail("the networks are loaded"))
    assert cli.run(["live", "--seconds", "1"]) == 1
    assert "running already" in capsys.readouterr().err
