"""The window, walked through as a person would: with mouse and keyboard, and ears at the output.

The real program and models run in a process of their own, on a screen and a sound server of their own. Nothing is set
but by clicks and keys; `sottovoce ctl status` is only read.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2
import pytest
import soundfile
from numpy.typing import NDArray

from engine.control import Request, ask
from engine.ears import RATE_HZ
from engine.livebench import HEARD_SINK, MIC_SOURCE, Stage
from engine.paths import assets_dir, cache_dir
from engine.pulse import list_pulse
from engine.types import Samples, SottovoceError
from engine.virtual_mic import MIC_NAME
from engine.weights import find_weights
from tests.command_line import program
from tests.person import Person, Screen, until, where_things_are
from tests.pulse import stage

__all__ = ["stage"]
pytestmark = [pytest.mark.slow, pytest.mark.pulse]
WAIT_S = 60.0  # on a machine that does much else; most of it takes a second
RAIN_S = 20.0  # so long the shipped recording speaks in the rain
LISTEN_S = 4.0
FRAME, WINDOW = RATE_HZ // 50, RATE_HZ // 2
KEEPS_UP_S = 4.0  # a recording waits a little longer than this for its last words
ASK_AGAIN_S = 5.0
RECORD_S = 2.0  # somebody speaks in it
MOVED = 0.02  # of the pixels
MAIN = "Sottovoce"


@dataclass
class Walk:
    """Somebody in front of the running window. words: Whisper is there."""

    process: subprocess.Popen[str]
    person: Person
    screen: Screen
    stage: Stage
    home: Path
    places: dict[str, tuple[int, int, int, int]]
    words: bool
    keeps_up: bool = True  # captions were not far behind at the end of the recording

    def middle(self, name: str) -> tuple[float, float]:
        x, y, width, height = self.places[name]
        return x + width / 2, y + height / 2

    def area(self, name: str) -> NDArray[np.uint8]:
        """What is seen there now."""
        x, y, width, height = self.places[name]
        return self.screen.picture()[y : y + height, x : x + width].copy()

    def open_list(self, name: str) -> None:
        """Click on a box, and wait for its list under it."""
        x, y, width, height = self.places[name]
        under = (slice(y + height, y + height + 60), slice(x, x + width // 2))
        before = self.screen.picture()[under].copy()
        self.person.click(self.middle(name))
        until(lambda: _changed(before, self.screen.picture()[under]) > 0.5, WAIT_S, f"the list of {name} is open")

    def status(self) -> dict[str, Any]:
        """Empty while nobody answers."""
        assert self.process.poll() is None, self.process.communicate()
        try:
            return ask(Request("status")).status
        except SottovoceError:
            return {}

    def until_status(self, **wanted: str) -> None:
        self.until(lambda: wanted.items() <= self.status().items(), f"{wanted}")

    def until(self, done: Any, what: str) -> Any:
        """Wait for something that the running sound brings about."""

        def why() -> str:
            status = self.status()
            if status.get("given_up"):
                pytest.skip(f"too much else runs on this machine: {what} was waited for, and the engine gave up parts")
            return f"{what}; the status is {status}"

        return until(done, WAIT_S, why)

    def listen(self, done: Any, what: str) -> Heard:
        """Listen until it sounds so; a machine that is full may break the sound now and then."""
        heard: list[Heard] = []

        def again() -> bool:
            heard.append(Heard(self.stage.record(LISTEN_S)))
            return bool(done(heard[-1]))

        self.until(again, what)
        return heard[-1]


class Heard:
    """What the microphone gave and what came out, from both [N, 2]. Levels in dB of full scale."""

    def __init__(self, both: Samples) -> None:
        frames = both[: len(both) // FRAME * FRAME].reshape(-1, FRAME, 2)
        levels_db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
        self.pauses_in_db, self.pauses_out_db = map(float, np.percentile(levels_db, 10, axis=0))
        self.voice_in_db, self.voice_out_db = map(float, np.percentile(levels_db, 90, axis=0))
        self.likeness = _likeness_of_pauses(both)

    def __str__(self) -> str:
        return (
            f"pauses {self.pauses_in_db:.0f} -> {self.pauses_out_db:.0f} dB,"
            f" voice {self.voice_in_db:.0f} -> {self.voice_out_db:.0f} dB, pauses alike {self.likeness:.2f}"
        )


def _likeness_of_pauses(both: Samples) -> float:
    """How well what came out matches what went in where that was quietest, at the best delay: 0 to 1."""
    starts = range(0, len(both) - 2 * WINDOW, WINDOW // 4)
    quietest = sorted(starts, key=lambda at: float(np.square(both[at : at + WINDOW, 0]).sum()))[:4]
    found = []
    for at in quietest:
        part, later = both[at : at + WINDOW, 0], both[at : at + 2 * WINDOW, 1]
        match = np.fft.irfft(np.conj(np.fft.rfft(part, 4 * WINDOW)) * np.fft.rfft(later, 4 * WINDOW))[:WINDOW]
        power = np.concatenate([[0.0], np.cumsum(np.square(later, dtype=np.float64))])
        energy = np.sqrt((power[WINDOW : 2 * WINDOW] - power[:WINDOW]) * np.square(part).sum()) + 1e-9
        found.append(float((match / energy).max()))
    return float(np.median(found)) if found else 0.0


def spoken(path: Path) -> set[str]:
    """The words of a subtitle file."""
    text = " ".join(line.plaintext for line in pysubs2.load(str(path)))
    return {word.strip(".,").lower() for word in text.split()}


def loudness_db(path: Path) -> float:
    """Of a whole sound file, in dB of full scale."""
    return float(10 * np.log10(np.square(soundfile.read(path)[0]).mean() + 1e-10))


@pytest.fixture(scope="module")
def said() -> set[str]:
    return {word.strip(".,").lower() for word in (assets_dir() / "demo.txt").read_text("utf-8").split()}


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    folder = tmp_path / "screen"
    folder.mkdir()
    with Screen(folder) as running:
        yield running


@pytest.fixture
def walk(screen: Screen, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    """The window has been started, with nothing remembered, and somebody speaks in the rain."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    (home / "tmp").mkdir(parents=True)
    weights = find_weights()
    if weights is not None:  # to be read, at another place than the one that is kept
        ours = weights.path.is_relative_to(cache_dir())
        link = cache / weights.path.relative_to(cache_dir()) if ours else home / ".cache/whisper" / weights.path.name
        link.parent.mkdir(parents=True)
        link.symlink_to(weights.path)
        if (note := weights.path.with_suffix(".json")).is_file():
            link.with_suffix(".json").symlink_to(note)
    for name in set(os.environ) - {"XDG_RUNTIME_DIR"}:  # no folders, no theme and no dialogs of this desktop
        if name.startswith(("SOTTOVOCE_", "XDG_", "DBUS_", "QT_")):
            monkeypatch.delenv(name)
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "SOTTOVOCE_CACHE": str(cache)}
    places = where_things_are(screen)
    sound, _ = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", frames=round(RAIN_S * RATE_HZ))
    stage.play(np.tile(sound, 60))
    with program(["gui"], env=own | {"DISPLAY": screen.display, "QT_QPA_PLATFORM": "xcb"}) as process:
        try:
            yield Walk(process, Person(screen), screen, stage, home, places, weights is not None)
        finally:
            process.kill()


def test_a_person_speaks_sees_steers_records_exports_and_quits(walk: Walk, said: set[str]) -> None:
    person = walk.person
    person.go_to(MAIN, WAIT_S)
    walk.until_status(state="running", output="virtual:")
    assert MIC_NAME in {device.name for device in list_pulse()}
    choose_devices(walk)
    see_tokens_move(walk)
    listen_to_every_background(walk)
    look_at_dialogs(walk)
    pull_the_microphone(walk)
    captioned = walk.words and captions_come(walk)
    if captioned:
        save_captions(walk, said)
    clean_a_file(walk)
    quit_while_recording(walk, said)
    if walk.words and not captioned:
        pytest.skip("all but captions was seen; the engine gave those up, because too much else runs on this machine")


def choose_devices(walk: Walk) -> None:
    """From the open lists, by keys: the last but one of each is ours, before the demo and before nowhere."""
    for name, device in (("input", MIC_SOURCE), ("output", HEARD_SINK)):
        walk.open_list(name)
        walk.person.keys("End", "Up", "Return")
        walk.until_status(state="running", **{name: device})
    walk.until(lambda: MIC_NAME not in {device.name for device in list_pulse()}, "the virtual microphone goes away")


def see_tokens_move(walk: Walk) -> None:
    before = walk.area("voice_tokens")
    walk.until(lambda: _changed(before, walk.area("voice_tokens")) > MOVED, "the tokens move")


def captions_come(walk: Walk) -> bool:
    """Ask for them until there are words to save; False where the engine makes room for the sound."""
    wanted = time.monotonic() + WAIT_S
    while not walk.person.window("Save captions"):
        if time.monotonic() > wanted:
            assert "captions" in walk.status().get("given_up", []), "no words come, and nothing says why"
            return False
        walk.person.keys("ctrl+s")
        again = time.monotonic() + ASK_AGAIN_S
        while not walk.person.window("Save captions") and time.monotonic() < again:
            time.sleep(0.1)
    return True


def _changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """The share of the pixels."""
    return float((before != after).any(axis=2).mean())


def listen_to_every_background(walk: Walk) -> None:
    """Dropped, kept, and swapped for another place; recorded from the first to the last."""
    person, slider = walk.person, walk.places["slider"]
    dropped = walk.listen(lambda h: h.pauses_out_db < h.pauses_in_db - 12 and h.voice_out_db > -45, "noise is dropped")
    person.keys("ctrl+r")
    x, y = slider[0] + 9, slider[1] + slider[3] / 2
    person.drag((x, y), (x + slider[2], y))
    walk.until_status(background="keep")
    walk.listen(lambda h: abs(h.pauses_out_db - h.pauses_in_db) < 3 and h.likeness > 0.8, "noise is kept")
    walk.open_list("place")
    person.keys("Home", "Down", "Return")
    walk.until_status(background="swap:cafe")
    walk.listen(lambda h: h.pauses_out_db > dropped.pauses_out_db + 10 and h.likeness < 0.5, "another place is heard")
    walk.keeps_up = walk.status().get("caption_lag_s", 0.0) < KEEPS_UP_S
    person.keys("ctrl+r")
    recorded = until(lambda: list((walk.home / "Music" / "Sottovoce").glob("*/output.wav")), WAIT_S, "a recording")
    until(lambda: soundfile.info(recorded[0]).duration > 2 * LISTEN_S, WAIT_S, "the recording is complete")


def look_at_dialogs(walk: Walk) -> None:
    """Opened and closed by keys; the main window has the keys again."""
    for key, title in (("F1", "Shortcuts"), ("ctrl+comma", "Settings"), ("ctrl+shift+w", "Models")):
        walk.person.keys(key)
        walk.person.go_to(title)
        walk.person.keys("Escape")
        walk.person.left(title)
        walk.person.go_to(MAIN)


def pull_the_microphone(walk: Walk) -> None:
    walk.stage.unplug()
    walk.until_status(state="waiting")
    walk.stage.plug_in()
    walk.until_status(state="running", input=MIC_SOURCE)


def save_captions(walk: Walk, said: set[str]) -> None:
    """In the dialog that is open: a name, and Return."""
    target = walk.home / "words.srt"
    walk.person.go_to("Save captions")
    walk.person.keys("ctrl+a")
    walk.person.write(str(target))
    walk.person.keys("Return")
    until(target.exists, WAIT_S, "the captions are saved")
    walk.person.go_to(MAIN)
    assert len(spoken(target) & said) >= 2, spoken(target)


def clean_a_file(walk: Walk) -> None:
    """Open files, choose one, press Clean."""
    source = walk.home / "talk.wav"
    sound, _ = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", frames=2 * RATE_HZ)
    soundfile.write(source, sound, RATE_HZ)
    walk.person.keys("ctrl+o")
    walk.person.go_to("Sound files to clean")
    walk.person.write(str(source))
    walk.person.keys("Return")
    walk.person.left("Sound files to clean")
    walk.person.go_to("Sound files")
    walk.person.keys("Tab", "space")
    cleaned = walk.home / "talk.sottovoce.wav"
    until(cleaned.exists, WAIT_S, "the file is clean")
    assert soundfile.info(cleaned).frames == len(sound)
    walk.person.go_to(MAIN)


def quit_while_recording(walk: Walk, said: set[str]) -> None:
    """What is recorded is complete, and nothing is left behind."""
    folder = walk.home / "Music" / "Sottovoce"
    walk.person.keys("ctrl+r")
    until(lambda: len(list(folder.glob("*/input.wav"))) == 2, WAIT_S, "a second recording")
    time.sleep(RECORD_S)
    walk.person.keys("ctrl+q")
    said_at_end = walk.process.communicate(timeout=WAIT_S)
    assert (walk.process.returncode, *said_at_end) == (0, "", "")
    assert not [device.name for device in list_pulse() if device.is_own]
    assert list((walk.home / "tmp").iterdir()) == []
    first, second = sorted(folder.iterdir())
    for part in (first, second):
        for name in ("input", "output", "speech", "background"):
            assert loudness_db(part / f"{name}.wav") > -50, (part, name)
        assert (part / "tokens.svt").stat().st_size > 0
    input_s, output_s = (soundfile.info(first / f"{name}.wav").duration for name in ("input", "output"))
    assert input_s == output_s
    if walk.words and walk.keeps_up:
        assert len(spoken(first / "captions.srt") & said) >= 3
