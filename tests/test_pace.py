"""Every system gets every sample of every hop, in frames of its own size and rate, and as often as the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.types import Samples, SottovoceError
from models import pace
from models.peers import Peer, PeerInfo

SECOND = np.ones((50, pace.HOP), dtype=np.float32)


class Ear:
    """A peer that gives back what it hears, and keeps it."""

    def __init__(self, rate_hz: int, frame: int) -> None:
        self.heard: list[Samples] = []
        self.peer = Peer(PeerInfo("ear", "Ear", None, rate_hz, 20.0, 0, "-"), frame, self._start)

    def _start(self) -> Callable[[Samples], Samples]:
        def step(frame: Samples) -> Samples:
            self.heard.append(frame)
            return frame

        return step


@pytest.mark.parametrize(("rate_hz", "frame"), [(48_000, 480), (16_000, 128), (16_000, 256)])
def test_a_peer_hears_all_in_frames_of_its_own(rate_hz: int, frame: int) -> None:
    ear = Ear(rate_hz, frame)
    step = pace.live(ear.peer).step
    for hop in SECOND:
        step(hop)
    assert {len(part) for part in ear.heard} == {frame}
    assert rate_hz - frame < sum(map(len, ear.heard)) <= rate_hz
    assert np.concatenate(ear.heard)[rate_hz // 10 :] == pytest.approx(1.0, abs=1e-3)


def test_resampling_counts_as_delay() -> None:
    assert pace.live(Ear(48_000, 480).peer).latency_ms == 20.0
    assert pace.live(Ear(16_000, 128).peer).latency_ms == 25.0


def test_all_have_their_turn_in_every_round() -> None:
    hops: dict[str, int] = {"a": 0, "b": 0}

    def counted(name: str) -> pace.Pace:
        def step(hop: Samples) -> None:
            hops[name] += 1

        return pace.Pace(name, step, 1.0)

    paces = [counted("a"), counted("b")]
    times = pace.measure(paces, SECOND[:3], 2)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 6, "b": 6}
    assert hops == {"a": 12, "b": 12}  # the first ones of each turn warm up and do not count
    lines = pace.as_table(paces, times).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b"]


def test_what_a_hop_takes_is_what_is_told() -> None:
    def slow(hop: Samples) -> None:
        end = pace.time.perf_counter() + 0.004
        while pace.time.perf_counter() < end:
            pass

    assert min(pace.hop_times_ms(slow, SECOND[:5])) >= 4.0


def test_without_voices_it_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "voices", lambda split: [])
    with pytest.raises(SottovoceError, match=r"models\.data"):
        pace.noisy_voice(1.0)
