"""A second sound is captioned beside the microphone, labelled, in order with it, and never mixed with it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.caption_text import CaptionText
from app.live_view import LiveView
from engine.artefacts import CodecInfo
from engine.companion import ADRIFT_S, Companion, choose_companion
from engine.livebench import NOISE_SINK
from engine.pulse import PrivateServer
from engine.recorder import CAPTIONS_NAME, OTHERS_NAME, Recorder
from engine.types import OTHERS, Caption, DeviceError, Problem, Samples, UsageError, Word
from tests.pulse import MIC_SOURCE, pulse_server, stage

__all__ = ["pulse_server", "stage"]
RATE_HZ = 16_000
WAIT_S = 10.0


class Ears:
    """In the recogniser's place: counts what it is given."""

    def __init__(self, language: str | None, model: str, source: str) -> None:
        self.source, self.fed, self.left_out = source, 0, 0
        self.loudest = 0.0
        self.started = self.stopped = False
        self.lag_s = 0.0

    def start(self) -> None:
        self.started = True

    def feed(self, heard: Samples) -> None:
        self.fed += len(heard)
        self.loudest = max(self.loudest, float(np.abs(heard).max()))

    def leave_out(self, count: int) -> None:
        self.left_out += count

    def poll(self) -> list[Caption | Problem]:
        return []

    def end(self) -> None: ...

    def finish(self, timeout_s: float) -> list[Caption | Problem]:
        self.stop()
        return []

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.companion.Recognizer", Ears)


@pytest.fixture
def companion(stage: Any) -> Iterator[Companion]:
    stage.play((0.05 * np.random.default_rng(1).standard_normal(48_000 * 30)).astype(np.float32))
    companion = Companion(f"{NOISE_SINK}.monitor", "en")
    companion.open()
    yield companion
    companion.finish(0.0)


def ears_of(companion: Companion) -> Ears:
    return companion._recognizer  # type: ignore[return-value]


def run(companion: Companion, seconds: float, paused: bool = False, start_s: float = 0.0) -> list[Caption | Problem]:
    """Let it work for so long, as the side thread does; the engine's clock goes with the wall."""
    told, begin = [], time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        told += companion.work(start_s + now, paused)
        time.sleep(0.02)
    return told


def test_what_is_played_is_heard_on_the_engines_clock(companion: Companion) -> None:
    ears, begin = ears_of(companion), time.monotonic()
    while ears.fed < 1.0 * RATE_HZ:  # a null sink may take two seconds to begin
        now_s = time.monotonic() - begin
        assert now_s < WAIT_S
        companion.work(now_s, False)
        time.sleep(0.02)
    assert ears.source == OTHERS and ears.loudest > 0.05
    assert ears.fed + ears.left_out == pytest.approx(now_s * RATE_HZ, abs=(ADRIFT_S + 0.3) * RATE_HZ)


def test_paused_only_the_length_of_the_sound_goes_on(companion: Companion) -> None:
    run(companion, 1.5, paused=True)
    assert ears_of(companion).fed == 0
    assert ears_of(companion).left_out == pytest.approx(1.5 * RATE_HZ, abs=(ADRIFT_S + 0.1) * RATE_HZ)


def test_silence_costs_the_recogniser_nothing(stage: Any) -> None:
    companion = Companion(f"{NOISE_SINK}.monitor", "en")
    companion.open()
    try:
        run(companion, 5.0)
        assert ears_of(companion).fed < 3.0 * RATE_HZ
        assert ears_of(companion).left_out > 1.5 * RATE_HZ
    finally:
        companion.finish(0.0)


def test_a_device_that_goes_is_told_once_and_found_again(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.companion.RETRY_S", 0.2)
    monkeypatch.setattr("engine.companion.STALL_S", 0.5)
    companion = Companion(MIC_SOURCE, "en")
    companion.open()
    try:
        run(companion, 1.0)
        stage.unplug()
        told = run(companion, 3.0, start_s=1.0)
        assert [type(event) for event in told] == [Problem] and MIC_SOURCE in told[0].text  # type: ignore[union-attr]
        stage.plug_in()
        before = ears_of(companion).fed
        stage.play(np.full(48_000 * 20, 0.01, np.float32))
        run(companion, 4.0, start_s=4.0)
        assert ears_of(companion).fed > before
    finally:
        companion.finish(0.0)


def test_speakers_means_what_the_default_output_plays(pulse_server: PrivateServer) -> None:
    assert choose_companion("speakers").id == "speaker.monitor"
    with pytest.raises(DeviceError, match="nowhere"):
        choose_companion("nowhere")


def test_our_own_microphone_is_no_other(pulse_server: PrivateServer) -> None:
    pulse_server.load("module-null-sink", "sink_name=sottovoce_sink")
    with pytest.raises(UsageError, match="own microphone"):
        choose_companion("sottovoce_sink.monitor")


def test_when_another_output_becomes_the_default_that_one_is_heard(
    pulse_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.companion.RETRY_S", 0.2)
    companion = Companion("speakers", "en")
    companion.open()
    try:
        run(companion, 0.5)
        assert companion._port is not None and companion._port.device == "speaker.monitor"
        pulse_server.load("module-null-sink", "sink_name=headset rate=48000 channels=1")
        subprocess.run(["pactl", "set-default-sink", "headset"], check=True)
        run(companion, 1.0, start_s=0.5)
        assert companion._port is not None and companion._port.device == "headset.monitor"
    finally:
        companion.finish(0.0)


def test_while_the_engines_clock_stands_still_nothing_is_captioned(companion: Companion) -> None:
    run(companion, 3.0)
    fed = ears_of(companion).fed
    for _ in range(150):
        companion.work(3.0, False)
        time.sleep(0.02)
    assert ears_of(companion).fed < fed + 1.0 * RATE_HZ  # of three seconds that were played


def test_without_such_a_device_the_rest_goes_on_and_it_is_told(pulse_server: PrivateServer) -> None:
    companion = Companion("nowhere", "en")
    companion.open()
    told = run(companion, 0.3)
    companion.finish(0.0)
    assert len(told) == 1 and "nowhere" in told[0].text  # type: ignore[union-attr]


# Where its captions go ------------------------------------------------------------------------------------------------


def caption(source: str, start_s: float, *final: str, tail: str = "") -> Caption:
    words = tuple(Word(text, start_s + 0.2 * k, start_s + 0.2 * k + 0.1) for k, text in enumerate(final))
    tentative = tuple(Word(text, start_s + 2.0, start_s + 2.1) for text in tail.split())
    return Caption(start_s, words, tentative, 0.5, "en", source)


def test_in_the_window_each_has_its_paragraphs_and_its_tail(qtbot: Any) -> None:
    text = CaptionText()
    qtbot.addWidget(text)
    text.show_caption(caption("speech", 0.0, "good", "morning", tail="all"))
    text.show_caption(caption(OTHERS, 0.5, "hello", tail="there"))
    assert text.final_text == "good morning\nOthers: hello"
    assert "there" in text.tentative_text and "all" in text.tentative_text
    text.show_caption(caption(OTHERS, 1.0, "there"))
    text.show_caption(caption("speech", 1.2, "all"))
    assert text.toPlainText() == "good morning\nOthers: hello there\nYou: all"
    assert not text.tentative_text


def test_tails_stay_right_when_the_oldest_paragraphs_go(qtbot: Any) -> None:
    text = CaptionText(most_paragraphs=3)
    qtbot.addWidget(text)
    for number in range(5):
        text.show_caption(caption("speech", 10.0 * number, f"p{number}", tail="ma"))
    text.show_caption(caption("speech", 60.0, "done"))
    assert text.toPlainText().splitlines() == ["p3", "p4", "done"]


def test_what_nobody_will_finish_is_taken_away(qtbot: Any) -> None:
    text = CaptionText()
    qtbot.addWidget(text)
    text.show_caption(caption(OTHERS, 0.0, "hello", tail="every"))
    text.drop_tails()
    text.show_caption(caption("speech", 1.0, "good"))
    assert text.toPlainText() == "Others: hello\nYou: good"


def test_on_a_terminal_every_line_says_who_spoke(capsys: pytest.CaptureFixture[str]) -> None:
    view = LiveView(show_captions=True, labelled=True)
    view.take(
        [
            caption("speech", 0.0, "Good", "morning."),
            caption(OTHERS, 0.5, "Hello", "there."),
        ]
    )
    view.take([caption("speech", 2.0, "Well.")])
    view.close()
    assert capsys.readouterr().out.splitlines() == [
        "[0:00.0] you: Good morning.",
        "[0:00.5] others: Hello there.",
        "[0:02.0] you: Well.",
    ]
    assert [word.text for word in view.words] == ["Good", "morning.", "Well."]


def test_a_recording_keeps_both_apart(tmp_path: Path) -> None:
    info = CodecInfo("x" * 64, RATE_HZ, 320, 80, 160, (64, 8), (64, 8), 1, 1, 1)
    recorder = Recorder(tmp_path / "r", info, 48_000, (0, 0), None, captions=True)
    recorder.caption(caption("speech", 0.0, "mine"))
    recorder.caption(caption(OTHERS, 0.0, "theirs"))
    recorder.close()
    assert "mine" in (tmp_path / "r" / CAPTIONS_NAME).read_text()
    assert "theirs" in (tmp_path / "r" / OTHERS_NAME).read_text()
    assert "theirs" not in (tmp_path / "r" / CAPTIONS_NAME).read_text()
