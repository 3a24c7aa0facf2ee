"""What the long run of the window comes to, and what is said when there is no window."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from app.windowbench import _wait_until_it_answers, figures
from engine.types import SottovoceError


def look(at_s: float, **other: Any) -> dict[str, Any]:
    usual = {
        "dropouts": 2, "dropouts_why": ["1", "2"], "closest": None, "given_up": [],
        "hop_ms_median": 5.0, "hop_ms_p99": 7.0, "hop_ms_max": 12.0, "repaint_ms": 4.0,
        "rss_mb": 300.0 + at_s / 3600.0, "captions_rss_mb": 400.0,
    }  # fmt: skip
    return usual | {"at_s": at_s} | other


def test_figures_are_those_since_the_first_look() -> None:
    looks = [
        look(10.0),
        look(20.0, hop_ms_p99=9.0, given_up=["captions"], closest="near"),
        look(30.0, dropouts=3, dropouts_why=["1", "2", "3"], hop_ms_max=15.0, closest="near"),
    ]
    found = figures(looks, [100.0, 101.5], (50.0, 10.0))
    assert found["dropouts"] == 1 and found["dropouts_why"] == ["3"] and found["closest"] == ["near"]
    assert found["given_up"] == ["captions"]
    assert (found["hop_ms_median"], found["hop_ms_p99"], found["hop_ms_max"]) == (5.0, 9.0, 15.0)
    assert (found["delay_ms_first"], found["delay_ms_last"]) == (100.0, 101.5)
    assert found["repaint_ms_median"] == 4.0
    assert found["cpu_percent"] == pytest.approx(50.0)
    assert found["cpu_percent_captions"] == pytest.approx(10.0)
    assert found["growth_mb_per_hour"] == pytest.approx(1.0)


def test_what_captions_give_back_for_a_moment_is_no_growth() -> None:
    needed = (400.0, 450.0, 400.0, 450.0, 420.0, 450.0)
    looks = [look(10.0 * number, captions_rss_mb=needed[number % 6] + number / 3) for number in range(60)]
    found = figures(looks, [100.0, 101.5], (50.0, 10.0))
    assert found["captions_growth_mb"] == pytest.approx(18.0)
    assert found["captions_growth_mb_per_hour"] == pytest.approx(120.0)  # a third of one every ten seconds


def test_a_window_that_does_not_come_up_is_told() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as child:
        child.wait()
        with pytest.raises(SottovoceError, match="did not come up"):
            _wait_until_it_answers(child)
