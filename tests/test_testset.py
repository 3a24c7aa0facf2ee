"""The public test: what the manifest promises, and that mixtures are rebuilt from it exactly."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from engine.types import SottovoceError
from models import testset, validation
from models.denylist import denylist
from models.fetch import sha256_of
from models.shards import Clip
from models.testset import active_level_db, assemble, build, fingerprint, in_room, lay, level_db, manifest

RATE_HZ = 16000
MIXTURES: list[dict[str, Any]] = manifest()["mixtures"]
FILES: list[dict[str, Any]] = manifest()["files"]


def of_part(part: str) -> list[dict[str, Any]]:
    return [row for row in MIXTURES if row["part"] == part]


# --- the committed manifest -----------------------------------------------------------------------------------


def test_classes_and_snrs_come_in_equal_parts() -> None:
    cells = Counter((row["noise_class"], row["snr_db"]) for row in of_part("mixtures"))
    assert len(cells) == 25
    assert set(cells.values()) == {8}
    rooms = of_part("room")
    assert set(Counter(row["snr_db"] for row in rooms).values()) == {8}
    assert set(Counter(row["noise_class"] for row in rooms).values()) == {8}
    assert Counter(row["snr_db"] for row in of_part("babble")) == {0: 20, 5: 20, 10: 20, 15: 20}
    assert len({row["name"] for row in MIXTURES}) == len(MIXTURES) == 320


def test_every_mixture_lasts_four_to_eight_seconds_and_says_something() -> None:
    for row in MIXTURES:
        assert 4.0 <= row["length"] / RATE_HZ <= 8.0
        assert len(row["transcript"]) > 3
        assert not set(row["transcript"]) & set("[]<>")


def test_every_voice_and_noise_of_the_test_is_banned_from_training() -> None:
    """The one check that keeps the test honest: the denylist knows each single file of it."""
    used = {int(p[0]): kind for row in MIXTURES for kind in ("speech", "noise") for p in row[kind]}
    for row in MIXTURES:
        if row["room"] is not None:
            used[row["room"]] = "noise"
    assert set(used) == set(range(len(FILES)))
    for index, use in used.items():
        file = FILES[index]
        voice = use == "speech" or file["who"] not in (*{r["noise_class"] for r in MIXTURES}, "room")
        place = (file["package"], file["path"], "speech" if voice else "background", file["who"] if voice else "")
        assert denylist().clip(*place) is not None, file


def test_nothing_in_the_test_is_reserved() -> None:
    for package in manifest()["packages"]:
        denylist().check_fetch(package["name"], "test")


def test_the_voice_is_always_allison() -> None:
    assert {FILES[int(p[0])]["who"] for row in MIXTURES for p in row["speech"]} == {"asterisk/allison"}


def test_babble_is_three_or_more_other_talkers_over_a_known_twin() -> None:
    first = {row["name"]: row for row in of_part("mixtures")}
    for row in of_part("babble"):
        talkers = {FILES[int(p[0])]["who"] for p in row["noise"]}
        assert len(talkers) >= 3
        assert "asterisk/allison" not in talkers
        assert row["speech"] == first[row["twin_of"]]["speech"]
        assert row["transcript"] == first[row["twin_of"]]["transcript"]


def test_noise_reaches_from_end_to_end() -> None:
    for row in MIXTURES:
        if row["noise_class"] in ("keyboard", "babble"):
            continue
        ends = [p[3] + p[2] for p in row["noise"]]
        starts = [p[3] for p in row["noise"]]
        assert min(starts) == 0
        assert max(ends) >= row["length"]
        assert all(start <= end for start, end in zip(starts[1:], ends, strict=False))


def test_snrs_are_what_the_names_say_where_the_sources_are_here() -> None:
    if not all(testset.local(file).is_file() for file in FILES):
        pytest.skip("the test's sources are not on this machine")
    for row in MIXTURES[::9]:
        item = assemble(row, FILES)
        noise = item.noise
        if row["room"] is not None:  # the noise proper, without the late room
            noise = lay(row["noise"], FILES, row["length"]) * np.float32(row["noise_gain"])
        assert active_level_db(item.speech) - level_db(noise) == pytest.approx(row["snr_db"], abs=0.02)
        assert np.abs(item.mixture).max() <= 0.951
        assert np.array_equal(item.mixture, item.speech + item.noise)
        assert fingerprint(item)[1] == pytest.approx(row["levels_db"], abs=0.05)


# --- a small test of our own ------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A manifest with two source files that lie in a cache of its own, committed beside it."""
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))
    monkeypatch.setattr(testset, "MANIFEST", tmp_path / "small.json")
    random = np.random.default_rng(1)
    files: list[dict[str, Any]] = []
    for name in ("voice.wav", "noise.wav"):
        row = {"package": "p", "path": name, "sha256": ""}
        place = testset.local(row)
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, random.standard_normal(RATE_HZ) * 0.1, RATE_HZ, subtype="PCM_16")
        files.append(row | {"sha256": sha256_of(place)})
    mixture: dict[str, Any] = {
        "name": "one", "part": "mixtures", "snr_db": 0, "noise_class": "wind", "transcript": "hello", "length": RATE_HZ,
        "speech": [[0, 0, RATE_HZ, 0, 0, 1]], "speech_gain": 0.5, "noise": [[1, 0, RATE_HZ, 0, 0, 1]],
        "noise_gain": 0.25, "room": None,
    }  # fmt: skip
    mixture["sha256"], mixture["levels_db"] = fingerprint(assemble(mixture, files))
    table: dict[str, Any] = {"packages": [], "files": files, "mixtures": [mixture]}
    testset.MANIFEST.write_text(json.dumps(table))
    manifest.cache_clear()
    testset.sound.cache_clear()
    yield table
    manifest.cache_clear()
    testset.sound.cache_clear()


def test_build_adds_speech_and_noise(small: dict[str, Any]) -> None:
    (item,) = build("mixtures")
    assert (item.name, item.transcript, item.snr_db, item.noise_class) == ("one", "hello", 0, "wind")
    assert item.mixture.dtype == np.float32
    assert np.array_equal(item.mixture, item.speech + item.noise)
    assert level_db(item.speech) - level_db(item.noise) == pytest.approx(6.0, abs=0.3)
    assert not list(build("room"))


def test_check_passes_and_finds_a_changed_source(small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert testset.main(["--check"]) == 0
    assert "1 bit for bit" in capsys.readouterr().out
    place = testset.local(small["files"][1])
    soundfile.write(place, np.zeros(RATE_HZ), RATE_HZ, subtype="PCM_16")
    testset.sound.cache_clear()
    assert testset.main(["--check"]) == 1
    said = capsys.readouterr()
    assert "noise.wav differs" in said.err
    assert "one differs" in said.err


def test_check_finds_a_changed_gain(small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    table = copy.deepcopy(small)
    table["mixtures"][0]["noise_gain"] *= 1.05
    testset.MANIFEST.write_text(json.dumps(table))
    manifest.cache_clear()
    assert testset.main(["--check"]) == 1


def test_a_file_of_another_content_is_refused(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(b"other")
    with pytest.raises(SottovoceError, match="is not the test's file"):
        testset._keep(tmp_path / "other.wav", tmp_path / "kept.wav", "0" * 64)
    assert not (tmp_path / "kept.wav").exists()


def test_a_missing_manifest_is_one_line(small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    testset.MANIFEST.unlink()
    manifest.cache_clear()
    assert testset.main(["--check"]) == 1
    assert "restore it" in capsys.readouterr().err


def test_pieces_fade_and_are_cut_at_the_end(small: dict[str, Any]) -> None:
    files = small["files"]
    whole = testset.sound(testset.local(files[0]))
    track = lay([[0, 100, 1000, 500, 0, 2.0]], files, 1200)
    assert np.array_equal(track[500:], 2 * whole[100:800])
    assert not track[:500].any()
    faded = lay([[0, 0, 4000, 0, 320, 1]], files, 4000)
    assert np.array_equal(faded[320:-320], whole[320:3680])
    assert abs(faded[0]) < 1e-6
    assert np.array_equal(testset.sound(testset.local(files[0])), whole)  # the cached source stays as it was


def test_a_room_keeps_the_direct_sound_in_place() -> None:
    dry = np.random.default_rng(2).standard_normal(4000).astype(np.float32)
    answer = np.zeros(3000, np.float32)
    answer[100], answer[500], answer[2000] = 0.5, 0.25, 0.1
    early, full = in_room(dry, answer)
    expected = dry.copy()
    expected[400:] += 0.5 * dry[:-400]
    assert np.allclose(early, expected, atol=1e-5)
    expected[1900:] += 0.2 * dry[:-1900]
    assert np.allclose(full, expected, atol=1e-5)


def test_active_level_does_not_count_pauses() -> None:
    sound = np.zeros(32000, np.float32)
    sound[:16000] = 0.1
    assert active_level_db(sound) == pytest.approx(-20.0, abs=0.05)
    assert level_db(sound) == pytest.approx(-23.0, abs=0.05)


def test_g722_is_read(tmp_path: Path) -> None:
    import av

    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.int16)
    with av.open(str(tmp_path / "a.g722"), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    got = testset.sound(tmp_path / "a.g722")
    assert len(got) == pytest.approx(RATE_HZ, abs=400)
    assert level_db(got[2000:14000]) == pytest.approx(level_db(tone[2000:14000] / np.float32(32768)), abs=0.2)


# --- validation -------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)

    def clip(kind: str, name: str, seconds: float) -> Clip:
        samples = (random.standard_normal(round(seconds * RATE_HZ)) * 2000).astype(np.int16)
        return Clip(samples, name if kind == "speech" else "", "" if kind == "speech" else name, "s", "word")

    clips = {
        "speech": [clip("speech", who, 1.5) for who in "abcd" for _ in range(3)],
        "background": [clip("background", name, 2.7) for name in ("rain", "wind", "events")],
    }
    monkeypatch.setattr(validation, "load", lambda split, kind: clips[kind] if split == "validation" else [])


def test_validation_is_the_same_twice_and_has_its_snrs(shards: None) -> None:
    first, second = list(build("validation")), list(build("validation"))
    assert len(first) == validation.COUNT
    assert {item.noise_class for item in first} == {"rain", "wind", "babble"}
    assert {item.snr_db for item in first if item.noise_class != "babble"} == set(validation.SNRS_DB)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.mixture, other.mixture)
        assert active_level_db(one.speech) - level_db(one.noise) == pytest.approx(one.snr_db, abs=0.05)
        assert np.array_equal(one.mixture, one.speech + one.noise)
        assert len(one.mixture) >= 4 * RATE_HZ


def test_validation_without_shards_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "load", lambda *_: [])
    with pytest.raises(SottovoceError, match=r"models\.data"):
        list(build("validation"))
