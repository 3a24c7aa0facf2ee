"""The recogniser's process: words in order, again after it died, told when it cannot.

Most of it runs on a stand-in that speaks the protocol without Whisper. What is marked `weights` runs the real thing.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import soundfile
import soxr

from engine import noise_files
from engine import recognizer as module
from engine.captions import join_words
from engine.paths import assets_dir
from engine.recognizer import BEHIND, Recognizer, known_languages, recognise_file
from engine.types import OTHERS, SPEECH, Caption, Problem, Residue, SottovoceError, UsageError, Word
from engine.vad import SAMPLE_RATE_HZ

# The process, played by a script that speaks the protocol -------------------------------------------------------------

STAND_IN = """
import json, os, struct, sys, time
from pathlib import Path
folder, settings = Path({folder!r}), json.loads(sys.argv[1])
if (folder / "deaf").exists():
    time.sleep(60)
def tell(**message):
    sys.stdout.write(json.dumps(message) + chr(10)); sys.stdout.flush()
tell(kind="ready")
if (folder / "note").exists():
    tell(kind="note", text="no noises today")
at, head = settings["start"], struct.Struct("<cQ")
with (folder / "starts").open("a") as file:
    file.write(str(at) + chr(10))
while len(frame := sys.stdin.buffer.read(head.size)) == head.size:
    kind, length = head.unpack(frame)
    payload = sys.stdin.buffer.read(length)
    if kind == b"F":
        tell(kind="finished", heard_to=at); break
    if kind == b"R":
        time.sleep(0.02 if (folder / "slow").exists() else 0)
        (seen,), count = struct.unpack("<Q", payload[:8]), (length - 8) // 4
        tell(kind="residue", time_s=seen / 16000, noise_class="rain", confidence=count / 8000, energy_db=[-3.0],
             codes=[settings["residue"]], point=[1.0, 2.0])
        continue
    at += length // 4 if kind == b"A" else struct.unpack("<Q", payload)[0]
    deaths = sorted(folder.glob("die*"))
    if deaths and at >= 16000:
        if deaths[0].name.endswith("amid"):
            sys.stdout.write('{{"kind": "words", "fin'); sys.stdout.flush()
        deaths[0].unlink(); print("out of memory", file=sys.stderr, flush=True); os._exit(3)
    word = [str(at), (at - length // 4) / 16000, at / 16000, 0.9]
    tell(kind="words", final=[word], tentative=[], heard_to=at, final_to=at, language="en")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files tell the stand-in what to do: `deaf`, and one `die...` for each death, `...amid` a line."""
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN.format(folder=str(tmp_path)), encoding="utf-8")
    monkeypatch.setattr(module, "WORKER", (sys.executable, str(script)))
    weights = module.Weights("base", script, "0" * 64, "a stand-in", "pt")
    monkeypatch.setattr(module, "require_weights", lambda name: weights)
    return tmp_path


def feed_seconds(recognizer: Recognizer, seconds: float, wait_s: float = 0.0) -> None:
    for _ in range(int(seconds * 10)):
        recognizer.feed(np.full(1600, 0.1, np.float32))
        time.sleep(wait_s)


def words_of(events: Sequence[Caption | Problem]) -> list[str]:
    return [w.text for e in events if isinstance(e, Caption) for w in e.final]


def test_finish_drains_everything_that_was_fed(stand_in: Path) -> None:
    recognizer = Recognizer("en")
    recognizer.start()
    feed_seconds(recognizer, 3.0)
    recognizer.feed(np.zeros(7, np.float32))
    events = recognizer.finish()
    assert words_of(events) == [str(1600 * i) for i in range(1, 31)] + ["48007"]
    assert recognizer.lag_s == 0.0
    assert not recognizer.running
    captions = [e for e in events if isinstance(e, Caption)]
    assert all(c.lag_s >= 0 for c in captions)
    assert captions[-1].lag_s == 0.0
    recognizer.stop()


def test_what_is_watched_is_told_by_its_noise_in_time_with_what_is_fed(stand_in: Path) -> None:
    recognizer = Recognizer("en", residue=True)
    recognizer.start()
    assert recognizer.wait_ready()
    for _ in range(20):
        recognizer.feed(np.full(1600, 0.1, np.float32))
        recognizer.watch(np.full(1600, 0.2, np.float32))
    events = recognizer.finish()
    assert len(words_of(events)) == 20
    residues = [event for event in events if isinstance(event, Residue)]
    assert [event.time_s for event in residues] == [0.5, 1.0, 1.5, 2.0]
    assert residues[0] == Residue(0.5, "rain", 1.0, (-3.0,), (1,), (1.0, 2.0))


def test_nobody_watches_where_it_is_not_asked_for(stand_in: Path) -> None:
    recognizer = Recognizer("en")
    recognizer.start()
    assert recognizer.wait_ready()
    recognizer.watch(np.full(16_000, 0.2, np.float32))
    assert not any(isinstance(event, Residue) for event in recognizer.finish())


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_files, "ResidueReader", lambda: SimpleNamespace(recogniser="base"))


def test_all_of_a_long_recording_is_looked_at(stand_in: Path, reader: None) -> None:
    """Whatever the pieces, and although the stand-in is far slower than the disk."""
    (stand_in / "slow").touch()
    done_s: list[float] = []
    pieces = [np.full(size, 0.1, np.float32) for size in (100, 40_000, 23_900, 45 * SAMPLE_RATE_HZ, 1000)]
    events = list(noise_files.residue_of(pieces, done_s.append))
    total_s = sum(map(len, pieces)) / SAMPLE_RATE_HZ
    steps_s = np.diff([0.0, *(event.time_s for event in events)])
    assert steps_s.max() < 1.1
    assert events[-1].time_s == pytest.approx(total_s)
    assert done_s[-1] == pytest.approx(total_s)


def test_a_recogniser_that_cannot_tell_noises_is_no_silence(stand_in: Path, reader: None) -> None:
    (stand_in / "note").touch()
    with pytest.raises(SottovoceError, match="no noises today"):
        list(noise_files.residue_of([np.full(SAMPLE_RATE_HZ, 0.1, np.float32)]))


def test_another_whisper_than_the_residues_is_told(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_files, "ResidueReader", lambda: SimpleNamespace(recogniser="small"))
    with pytest.raises(SottovoceError, match="another Whisper"):
        list(noise_files.residue_of([np.zeros(100, np.float32)]))


@pytest.mark.parametrize("death", ["die1", "die1-amid"])
def test_a_death_is_survived_once_and_no_word_is_lost(stand_in: Path, death: str) -> None:
    (stand_in / death).touch()
    recognizer = Recognizer("en")
    recognizer.start()
    feed_seconds(recognizer, 3.0)
    events = recognizer.finish(20.0)
    assert words_of(events) == [str(1600 * i) for i in range(1, 31)]
    (problem,) = [e for e in events if isinstance(e, Problem)]
    assert "started again" in problem.text
    assert (stand_in / "starts").read_text().split() == ["0", "14400"]


@pytest.mark.parametrize(("source", "state"), [(SPEECH, "no captions"), (OTHERS, "captions")])
def test_the_second_death_ends_captions_and_says_why(stand_in: Path, source: str, state: str) -> None:
    for name in ("die1", "die2"):
        (stand_in / name).touch()
    recognizer = Recognizer("en", source=source)
    recognizer.start()
    feed_seconds(recognizer, 3.0)
    events = recognizer.finish(20.0)
    problems = [e for e in events if isinstance(e, Problem)]
    assert [p.state for p in problems] == ["captions restart", state]
    assert "out of memory" in problems[-1].text
    assert "\n" not in problems[-1].text
    recognizer.feed(np.zeros(1600, np.float32))  # does nothing, and does not fail


def test_a_recogniser_that_is_far_behind_is_told_and_never_waited_for(stand_in: Path) -> None:
    (stand_in / "deaf").touch()
    recognizer = Recognizer("en")
    recognizer.start()
    started = time.monotonic()
    feed_seconds(recognizer, 40.0)
    assert time.monotonic() - started < 2.0
    assert recognizer.lag_s == pytest.approx(40.0)
    assert recognizer.dropped == pytest.approx(10 * SAMPLE_RATE_HZ, abs=3200)
    assert [e.text for e in recognizer.poll() if isinstance(e, Problem)] == [BEHIND]
    recognizer.stop()


@pytest.mark.parametrize(
    ("complaint", "kept"),
    [
        ("can't open the model's file", "can't open the model's file"),
        ("KeyError: 'a secret'", "KeyError: ..."),
        ('ValueError: "it\'s secret" is no word', "ValueError: ... is no word"),
        ("no word: 'it's secret', said 'he'", "no word: ..., said ..."),
        ("cut off in 'it's sec", "cut off in ..."),
        ("KeyError: b'top secret'", "KeyError: ..."),
        (r"no: 'a \' \"secret\" one' at all", "no: ... at all"),
        (r'no: "a \" secret" at all', "no: ... at all"),
    ],
)
def test_what_is_quoted_stays_out_of_the_log_and_the_rest_does_not(complaint: str, kept: str) -> None:
    assert module.QUOTED.sub("...", complaint) == kept


def test_stop_ends_at_once_and_twice_is_fine(stand_in: Path) -> None:
    (stand_in / "deaf").touch()
    recognizer = Recognizer("en")
    recognizer.start()
    process = recognizer._process
    started = time.monotonic()
    recognizer.stop()
    recognizer.stop()
    assert time.monotonic() - started < 2.0
    assert process is not None
    assert process.returncode is not None
    with pytest.raises(UsageError):
        recognizer.start()


def test_a_file_waits_for_the_recogniser_instead_of_dropping(stand_in: Path) -> None:
    seen: list[float] = []
    pieces = (np.full(16_000, 0.1, np.float32) for _ in range(200))
    words = recognise_file(pieces, "en", progress=seen.append)
    assert [w.text for w in words] == [str(16_000 * i) for i in range(1, 201)]
    assert seen == sorted(seen)
    assert seen[-1] == 200.0


def test_words_are_there_while_more_of_a_file_comes_and_after_an_interrupt(stand_in: Path) -> None:
    """The sound may take longer to come than to be heard, so that nothing ever waits."""
    words: list[Word] = []
    seen: list[float] = []
    languages: list[str | None] = []

    def slow() -> Iterator[np.ndarray]:
        for _ in range(500):
            yield np.full(8_000, 0.1, np.float32)
            time.sleep(0.02)
            if words:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recognise_file(slow(), "en", progress=seen.append, words=words, found=languages.append)
    assert words[0].text == "8000"
    assert languages == ["en"]
    assert max(seen) > 0.0


def test_a_file_fails_in_one_line_when_the_recogniser_does(stand_in: Path) -> None:
    for name in ("die1", "die2"):
        (stand_in / name).touch()
    with pytest.raises(SottovoceError, match="stopped twice"):
        recognise_file(np.full(32_000, 0.1, np.float32), "en")


def test_an_unknown_language_is_refused_before_anything_starts() -> None:
    assert {"en", "cs", "ru", "ja"} <= known_languages()
    with pytest.raises(UsageError, match="knows no language 'klingon'"):
        Recognizer("klingon")


# Whisper itself -------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, str]:
    """The shipped demo recording at 16 kHz, and what is said in it."""
    sound, rate_hz = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", always_2d=True)
    said = (assets_dir() / "demo.txt").read_text(encoding="utf-8")
    return soxr.resample(sound[:, 0], rate_hz, SAMPLE_RATE_HZ).astype(np.float32), plain(said)


def test_word_times_follow_the_attention(rng: np.random.Generator) -> None:
    from engine.alignment import align

    edges = [0, 12, 30, 31, 55, 80]
    scores = rng.normal(0.0, 0.5, (3, 6, 100)).astype(np.float32)
    for row, (start, end) in enumerate(zip(edges, [*edges[1:], 100], strict=True)):
        scores[:, row, start:end] += 6.0
    found = align(scores)
    assert found == sorted(found)
    assert np.abs(np.array(found) - edges).max() <= 4
    assert align(scores[:, :, :4]) == sorted(align(scores[:, :, :4]))


@pytest.mark.weights
def test_a_file_is_captioned(demo: tuple[np.ndarray, str]) -> None:
    sound, said = demo
    languages: list[str | None] = []
    words = recognise_file(sound, None, found=languages.append)
    assert languages == ["en"]
    assert jiwer.wer(said, plain(join_words(words))) < 0.15
    starts = [w.start_s for w in words]
    assert starts == sorted(starts)
    assert words[-1].end_s <= len(sound) / SAMPLE_RATE_HZ
    assert words[0].start_s > 0.7, "the voice begins after a second of background"


@pytest.mark.weights
def test_a_file_is_captioned_from_the_quantisers_codes(demo: tuple[np.ndarray, str]) -> None:
    sound, said = demo[0][: 12 * SAMPLE_RATE_HZ], demo[1].split()
    plainly, coded = (plain(join_words(recognise_file(sound, "en", adapter=adapter))) for adapter in (False, True))
    assert coded != plainly, "the quantiser is heard"
    heard = coded.split()
    assert jiwer.wer(" ".join(said[: len(heard)]), coded) < 0.7
    assert len(heard) > 0.5 * len(plainly.split())


@pytest.mark.weights
def test_live_captions_say_the_same_and_final_words_never_change(demo: tuple[np.ndarray, str]) -> None:
    sound, said = demo
    sound = sound[: 12 * SAMPLE_RATE_HZ]
    recognizer = Recognizer("en")
    recognizer.start()
    assert recognizer.weights is not None
    assert len(recognizer.weights.sha256) == 64
    assert recognizer.wait_ready()
    events: list[Caption | Problem] = []
    for at in range(0, len(sound), 8000):
        recognizer.feed(sound[at : at + 8000])
        time.sleep(0.25)  # twice real time
        events += recognizer.poll()
    events += recognizer.finish()
    assert not [e for e in events if isinstance(e, Problem)]
    heard = plain(" ".join(words_of(events))).split()
    assert jiwer.wer(" ".join(said.split()[: len(heard)]), " ".join(heard)) < 0.25
    assert len(heard) > 15
    assert any(e.tentative for e in events if isinstance(e, Caption))
