"""The soak: simulated hours end as they began, and what it measures would show if they did not."""

from __future__ import annotations

import numpy as np
import pytest

from app import cli
from engine.artefacts import Models, load_models
from engine.fill import FillControl
from engine.soak import Soak, measure_soak, minutes_of
from engine.types import Provider, SottovoceError
from tests import tiny_models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


def test_two_clocks_that_differ_do_not_make_the_delay_drift(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.soak.DRIFT_PPM", 1000.0)  # 60 ms a minute
    monkeypatch.setattr("engine.soak.STALL_EVERY_S", 1e9)
    fractions: list[float] = []
    figures = measure_soak(tiny, 4, fractions.append)
    assert fractions == [0.25, 0.5, 0.75, 1.0]
    assert abs(figures["drift_hops"]) < 0.75
    assert figures["splices"] > 10
    assert figures["dropouts"] <= 2
    assert figures["objects_growth"] < 1000


def test_a_delay_that_nobody_holds_shows_as_drift(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.soak.DRIFT_PPM", 1000.0)
    monkeypatch.setattr("engine.soak.STALL_EVERY_S", 1e9)
    monkeypatch.setattr(FillControl, "next", lambda self, waiting: 0)
    assert measure_soak(tiny, 3, lambda done: None)["drift_hops"] > 3.0


def test_a_stall_breaks_the_output_and_the_delay_comes_back(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.soak.STALL_EVERY_S", 70.0)
    soak = Soak(tiny)
    rows = [soak.minute() for _ in range(3)]
    assert rows[0]["dropouts"] == 0
    assert rows[1]["dropouts"] >= 1
    assert rows[2]["delay_ms"] < rows[0]["delay_ms"] + 25.0


def test_models_that_die_are_told(tiny: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    soak = Soak(tiny)
    soak.loop.stream.pipeline._delay.process = lambda x: x * np.nan  # type: ignore[method-assign]
    with pytest.raises(SottovoceError, match="sottovoce doctor"):
        soak.minute()


@pytest.mark.parametrize(("heard", "told"), [(3, [1.0, 2.0, 3.0]), (1, None)])
def test_who_stops_it_gets_the_minutes_until_then(heard: int, told: list[float] | None) -> None:
    minutes = iter([{"minute": float(n + 1)} for n in range(heard)])

    def minute() -> dict[str, float]:
        if (row := next(minutes, None)) is None:
            raise KeyboardInterrupt
        return row

    fractions: list[float] = []
    if told is None:
        with pytest.raises(KeyboardInterrupt):
            minutes_of(minute, 5, fractions.append)
    else:
        assert [row["minute"] for row in minutes_of(minute, 5, fractions.append)] == told
        assert fractions == pytest.approx([0.2, 0.4, 0.6])


def test_fewer_than_two_minutes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "soak", "--minutes", "1"]) == 2
    assert "two or more" in capsys.readouterr().err
