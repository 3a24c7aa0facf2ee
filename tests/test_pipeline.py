"""The sound path: any chunks give the same sound, lags are real, keep is exact, and only the background changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.artefacts import Models, load_models
from engine.hop import CODED_BACKGROUND_DB, HighShare
from engine.pipeline import HopOutput, LiveStream, Pipeline, Stream
from engine.types import Background, BackgroundMode, Codes, Provider, UsageError
from tests import tiny_models

RATES = [8000, 16000, 22050, 44100, 48000, 96000]
HOP = tiny_models.HOP


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(Provider.CPU, tiny_models.build(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def shipped() -> Models:
    return load_models(Provider.CPU)


@pytest.fixture(params=["tiny", "shipped"])
def models(request: pytest.FixtureRequest) -> Models:
    return request.getfixturevalue(request.param)


def _noise(rng: np.random.Generator, n: int, level: float = 0.1) -> np.ndarray:
    return np.clip(level * rng.standard_normal(n), -0.8, 0.8).astype(np.float32)


def _voice_like(rng: np.random.Generator, n: int, rate: int = 16000) -> np.ndarray:
    """Harmonics under an envelope that comes and goes, over a little noise."""
    t = np.arange(n) / rate
    tone = sum(np.sin(2 * np.pi * 130 * k * t + k) / k for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, None)
    return (0.06 * envelope * tone + 0.01 * rng.standard_normal(n)).astype(np.float32)


def _whole(models: Models, x: np.ndarray, rate: int, live: bool, text: str, **options: object) -> np.ndarray:
    stream = Stream(models, rate, live=live, background=Background.parse(text), **options)
    return np.concatenate([stream.process(x), stream.flush()])


def _hops(pipeline: Pipeline, x: np.ndarray) -> list[HopOutput]:
    return [pipeline.step(hop) for hop in x[: len(x) // HOP * HOP].reshape(-1, HOP)]


def _joined(hops: list[HopOutput], name: str) -> np.ndarray:
    return np.concatenate([getattr(hop, name) for hop in hops])


def _lag(reference: np.ndarray, output: np.ndarray) -> int:
    size = 2 * len(reference)
    spectrum = np.fft.rfft(output, size) * np.conj(np.fft.rfft(reference, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: len(reference)]))


# Chunks, lags, exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_any_chunks_give_the_same_sound_and_codes(
    models: Models, rate: int, live: bool, rng: np.random.Generator
) -> None:
    x = _voice_like(rng, rate // 2 + 123, rate)
    runs = []
    for sizes in (None, (1, 7, 300), (960, 5000), (333,)):
        codes: list[Codes] = []
        stream = Stream(models, rate, live=live, on_hop=lambda h, c=codes: c.extend((h.codes_s, h.codes_b)))
        out, at, turn = [], 0, 0
        while at < len(x):
            n = len(x) if sizes is None else sizes[turn % len(sizes)]
            out.append(stream.process(x[at : at + n]))
            at, turn = at + n, turn + 1
        out.append(stream.flush())
        runs.append((np.concatenate(out), np.concatenate(codes)))
    for sound, codes_now in runs[1:]:
        np.testing.assert_allclose(sound, runs[0][0], atol=1e-5)
        assert np.array_equal(codes_now, runs[0][1])


@pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
@pytest.mark.parametrize("rate", RATES)
def test_keep_is_the_delayed_original_bit_for_bit(
    models: Models, rate: int, live: bool, rng: np.random.Generator
) -> None:
    x = _noise(rng, rate // 2)
    stream = Stream(models, rate, live=live, background=Background(BackgroundMode.KEEP))
    y = np.concatenate([stream.process(x), stream.flush()])
    assert len(y) == len(x) + stream.lag_native
    assert np.array_equal(y[stream.lag_native :], x)
    assert not y[: stream.lag_native].any()


@pytest.mark.parametrize("rate", RATES)
def test_the_declared_lag_is_the_measured_one(tiny: Models, rate: int, rng: np.random.Generator) -> None:
    x = _noise(rng, rate)
    for text, options in (("drop", {}), ("-12", {}), ("drop", {"tokens_only": True})):
        stream = Stream(tiny, rate, live=True, background=Background.parse(text), **options)
        y = np.concatenate([stream.process(x), stream.flush()])[: len(x)]
        # tokens hold 10-sample means here, which sit half a segment late
        assert abs(_lag(x, y) - stream.lag_native) <= (5 * rate // 16000 + 1 if options else 0), (text, options)
        parts_ms = sum(ms for _, ms in stream.lag_parts_ms)
        assert stream.lag_native == pytest.approx(parts_ms * rate / 1000, abs=1e-6 * rate)


def test_lags_of_the_shipped_models(shipped: Models, rng: np.random.Generator) -> None:
    x = _voice_like(rng, 48000)
    for tokens_only in (False, True):
        pipeline = Pipeline(shipped, Background(BackgroundMode.KEEP), tokens_only=tokens_only)
        hops = _hops(pipeline, x)
        assert _lag(x, _joined(hops, "out")) == pipeline.lag
        assert np.array_equal(_joined(hops, "mixture")[pipeline.lag :], x[: len(x) - pipeline.lag])
    refined = Pipeline(shipped)
    assert refined.algorithmic_latency_ms == pytest.approx(1000 * (320 + refined.lag) / 16000)


def test_files_have_their_lag_removed(tiny: Models, rng: np.random.Generator) -> None:
    for rate in (11025, 16000, 44100, 48000):
        x = _noise(rng, rate)
        for options in ({}, {"refiner": False}):
            y = _whole(tiny, x, rate, False, "drop", **options)
            assert len(y) == len(x)
            assert abs(_lag(x, y)) <= (5 * rate // 16000 + 1 if options else 0)


@pytest.mark.parametrize("n", [0, 1, 2, 319, 961])
def test_short_sounds_come_back_whole(tiny: Models, n: int, rng: np.random.Generator) -> None:
    x = _noise(rng, n)
    assert np.array_equal(_whole(tiny, x, 48000, False, "keep"), x)
    assert len(_whole(tiny, x, 16000, False, "drop", tokens_only=True)) == n


def test_process_hop_saves_the_hop_that_process_waits_for(tiny: Models, rng: np.random.Generator) -> None:
    stream = LiveStream(tiny, 48000, background=Background(BackgroundMode.KEEP))
    x = _noise(rng, 960 * 20)
    y = np.concatenate([stream.process_hop(hop) for hop in x.reshape(-1, 960)])
    assert np.array_equal(y[stream.lag_hop_native :], x[: len(x) - stream.lag_hop_native])
    assert stream.lag_native - stream.lag_hop_native == 960


# The band above the models -------------------------------------------------------------------------------------------


def _band_rms(x: np.ndarray, rate: int, low_hz: float) -> float:
    spectrum = np.fft.rfft(x * np.hanning(len(x)))
    spectrum[: int(low_hz * len(x) / rate)] = 0
    return float(np.fft.irfft(spectrum).std())


@pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
@pytest.mark.parametrize("text", ["keep", "drop", "-6"])
def test_the_high_band_is_the_original_under_the_gain_of_what_lies_below(
    tiny: Models, live: bool, text: str, rng: np.random.Generator
) -> None:
    x = _noise(rng, 48000)
    heard: list[HopOutput] = []
    background = Background.parse(text)
    stream = Stream(tiny, 48000, live=live, on_hop=heard.append, background=background)
    y = np.concatenate([stream.process(x), stream.flush()])[stream.lag_native :]
    share = HighShare()
    shares = np.array([share.next(hop.speech, hop.background)[1] for hop in heard])
    gain = background.linear_gain
    curve = np.array([hop.high[-1] + hop.base for hop in heard])
    assert curve == pytest.approx(gain + (1 - gain) * shares, abs=1e-6)
    expected = float(np.sqrt(np.square(np.concatenate([hop.high + hop.base for hop in heard[5:-5]])).mean()))
    ratio = _band_rms(y[4800:], 48000, 9500) / _band_rms(x[4800:], 48000, 9500)
    assert ratio == pytest.approx(expected, rel=0.05)


def test_the_gain_of_the_high_band_is_the_voices_share_of_the_highest_sounds(rng: np.random.Generator) -> None:
    hiss = np.diff(_noise(rng, 321)).astype(np.float32)
    rumble = np.sin(2 * np.pi * 100 / 16000 * np.arange(320)).astype(np.float32)
    silence = np.zeros(320, np.float32)
    assert HighShare().next(hiss, silence) == pytest.approx([1.0, 1.0], abs=1e-3)
    assert HighShare().next(1e-3 * hiss, silence) == pytest.approx([1.0, 1.0], abs=1e-2)
    assert HighShare().next(silence, hiss) == pytest.approx([0.0, 0.0], abs=1e-3)
    even, faint = HighShare().next(hiss, hiss), HighShare().next(0.1 * hiss, hiss)
    assert even.min() > 0.7  # a voice that is no louder than its background is heard
    assert faint.max() < 0.02  # one 20 dB below it takes nothing along
    assert HighShare().next(silence, silence).tolist() == [0.0, 0.0]
    share = HighShare()
    share.next(hiss, rumble)
    assert share.next(hiss, rumble).min() > 0.98  # what is low says nothing of what is high


def test_tokens_only_has_nothing_above_its_band(tiny: Models, rng: np.random.Generator) -> None:
    x = _noise(rng, 48000)
    y = _whole(tiny, x, 48000, False, "keep", tokens_only=True)
    assert _band_rms(y, 48000, 9500) < 1e-3 * _band_rms(x, 48000, 9500)
    with_band = _whole(tiny, x, 48000, False, "keep", refiner=False)
    assert _band_rms(with_band, 48000, 9500) == pytest.approx(_band_rms(x, 48000, 9500), rel=0.05)


# What becomes of the background --------------------------------------------------------------------------------------


@pytest.fixture
def scene_of(rng: np.random.Generator) -> Callable[..., Codes]:
    def make(models: Models, n: int = 16000) -> Codes:
        return tiny_models.background_codes(models, _noise(rng, n, 0.2))

    return make


def test_drop_and_swap_change_the_background_tokens_and_nothing_else(
    models: Models, scene_of: Callable[..., Codes], rng: np.random.Generator
) -> None:
    x, codes = _voice_like(rng, 16000), scene_of(models, 8000)
    runs = {
        text: _hops(Pipeline(models, Background.parse(text), tokens_only=True, scenes=lambda _: codes), x)
        for text in ("keep", "drop", "swap:place")
    }
    for name in ("codes_s", "codes_b", "speech", "background"):
        for text in ("drop", "swap:place"):
            assert np.array_equal(_joined(runs["keep"], name), _joined(runs[text], name)), (name, text)
    blank = models.info.blank_b()
    for index, (keep, drop, swap) in enumerate(zip(*runs.values(), strict=True)):
        assert np.array_equal(keep.codes_b_out, keep.codes_b)
        assert np.array_equal(drop.codes_b_out, blank)
        assert np.array_equal(swap.codes_b_out, codes[:, index % codes.shape[1]])


def test_drop_is_the_speech_and_keep_is_both(models: Models, rng: np.random.Generator) -> None:
    x = _voice_like(rng, 16000)
    for text, gain in (("drop", 0.0), ("keep", 1.0), ("-20", 0.1)):
        for options, trim_db in (({}, 0.0), ({"tokens_only": True}, CODED_BACKGROUND_DB)):
            hops = _hops(Pipeline(models, Background.parse(text), **options), x)
            expected = _joined(hops, "speech") + np.float32(gain * 10 ** (trim_db / 20)) * _joined(hops, "background")
            np.testing.assert_allclose(_joined(hops, "out"), expected, atol=2e-5)


def test_swap_leaves_no_more_of_the_old_background_than_drop(
    models: Models, scene_of: Callable[..., Codes], rng: np.random.Generator
) -> None:
    x, codes = _voice_like(rng, 16000), scene_of(models)
    drop = _hops(Pipeline(models), x)
    swap = _hops(Pipeline(models, Background.parse("swap:rain"), scenes=lambda _: codes), x)
    np.testing.assert_allclose(_joined(swap, "out") - _joined(swap, "scene"), _joined(drop, "out"), atol=1e-6)
    assert _joined(swap, "scene").std() > 0


@pytest.mark.parametrize("gain_db", [0.0, -10.0])
def test_swapped_scene_has_the_old_backgrounds_level(
    models: Models, scene_of: Callable[..., Codes], gain_db: float, rng: np.random.Generator
) -> None:
    x, codes = _noise(rng, 16000 * 5, 0.05), scene_of(models, 32000)
    pipeline = Pipeline(models, Background(BackgroundMode.SWAP, gain_db, "rain"), scenes=lambda _: codes)
    hops = _hops(pipeline, x)[-100:]
    levels = [20 * np.log10(_joined(hops, name).std()) for name in ("scene", "background")]
    assert levels[0] - levels[1] == pytest.approx(gain_db, abs=1.0)


def test_a_scene_loops_without_a_click(shipped: Models, rng: np.random.Generator) -> None:
    rumble = np.cumsum(_noise(rng, 16000, 0.2))
    rumble = 0.2 * (rumble - np.convolve(rumble, np.ones(200) / 200, "same")) / rumble.std()
    codes = tiny_models.background_codes(shipped, rumble)
    pipeline = Pipeline(shipped, Background.parse("swap:rain"), scenes=lambda _: codes)
    scene = _joined(_hops(pipeline, _noise(rng, 16000 * 3, 0.05)), "scene")
    # a click is steep: it would stand out in the second difference of a sound that holds little but low frequencies
    steep = np.abs(np.diff(scene, 2))
    seams = np.zeros(len(steep), dtype=bool)
    for turn in (1, 2):
        at = turn * codes.shape[1] * HOP
        seams[at - HOP : at + 2 * HOP] = True
    assert steep[seams].max() < 1.2 * steep[HOP:][~seams[HOP:]].max()
    clicked = scene.copy()
    clicked[np.flatnonzero(seams)[HOP] :] += 3 * scene.std()
    assert np.abs(np.diff(clicked, 2)).max() > 1.2 * steep.max(), "this test would hear a click"


def test_changes_are_ramped(tiny: Models) -> None:
    t = np.arange(16000 * 3) / 16000
    x = (0.5 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)
    codes = tiny_models.background_codes(tiny, x)
    stream = LiveStream(tiny, 16000, background=Background(BackgroundMode.KEEP), scenes=lambda _: codes)
    out = []
    for index, hop in enumerate(x.reshape(-1, HOP)):
        for at, text in ((30, "drop"), (60, "-3"), (90, "keep")):
            if index == at:
                stream.set_background(Background.parse(text))
        stream.bypass = 120 <= index < 130
        out.append(stream.process_hop(hop))
    y = np.concatenate(out)
    steepest = np.abs(np.diff(x)).max()
    assert np.abs(np.diff(y))[200:].max() < 1.3 * steepest + 0.5 / HOP
    assert y[45 * HOP :][:HOP].std() == pytest.approx(0.75 * x[:HOP].std(), rel=0.02)
    assert np.array_equal(y[125 * HOP : 126 * HOP], x[125 * HOP - 160 : 126 * HOP - 160])


def test_a_scene_can_be_changed_and_left(
    tiny: Models, scene_of: Callable[..., Codes], rng: np.random.Generator
) -> None:
    scenes = {"a": scene_of(tiny), "b": scene_of(tiny)}
    pipeline = Pipeline(tiny, Background.parse("swap:a"), scenes=lambda name: scenes[name])
    x = _noise(rng, 16000)
    _hops(pipeline, x)
    pipeline.set_background(Background.parse("swap:a@-20"))
    quieter = _hops(pipeline, x)
    assert np.array_equal(quieter[0].codes_b_out, scenes["a"][:, 0]), "the same scene goes on"
    pipeline.set_background(Background.parse("swap:b"))
    starting = _hops(pipeline, x)
    assert not _joined(starting[1:8], "scene").any(), "its level is sought, a few frames at a time"
    assert np.array_equal(starting[8].codes_b_out, scenes["b"][:, 0])
    assert starting[10].scene.any()
    pipeline.set_background(Background.parse("keep"))
    fading = pipeline.step(x[:HOP]).scene
    assert fading.any()
    assert fading[-1] == 0.0
    assert not pipeline.step(x[:HOP]).scene.any()


# Requests that cannot be met -----------------------------------------------------------------------------------------


def test_unknown_scene_leaves_everything_as_it_was(tiny: Models, rng: np.random.Generator) -> None:
    pipeline = Pipeline(tiny, Background(BackgroundMode.KEEP))
    with pytest.raises(UsageError, match="no scene 'nowhere'"):
        pipeline.set_background(Background.parse("swap:nowhere"))
    assert pipeline.background.mode is BackgroundMode.KEEP
    x = _noise(rng, HOP)
    assert np.array_equal(pipeline.step(x).out[160:], x[:160])


def test_quantizers_leave_rows_out(tiny: Models, rng: np.random.Generator) -> None:
    x = _noise(rng, HOP * 20)
    coarse, fine = (_hops(Pipeline(tiny, tokens_only=True, quantizers=q), x) for q in (1, 2))
    assert (coarse[5].codes_s[33:] == -1).all()
    assert np.array_equal(coarse[5].codes_s[:33], fine[5].codes_s[:33])
    for wrong in (0, 3):
        with pytest.raises(UsageError, match="1 to 2"):
            Pipeline(tiny, quantizers=wrong)


def test_what_is_no_hop_and_no_device_rate_is_refused(tiny: Models) -> None:
    with pytest.raises(ValueError, match="320 samples"):
        Pipeline(tiny).step(np.zeros(319, np.float32))
    with pytest.raises(UsageError, match="live device runs at"):
        Stream(tiny, 11025, live=True)


def test_the_limiter_holds_minus_one_decibel(tiny: Models, rng: np.random.Generator) -> None:
    x = (1.5 * rng.standard_normal(48000)).astype(np.float32)
    for live in (True, False):
        y = _whole(tiny, x, 48000, live, "keep")
        assert np.abs(y).max() <= 10 ** (-1 / 20) + 1e-7


@pytest.mark.parametrize("background", ["keep", "drop", "-12"])
def test_the_refiner_may_rest_and_come_back_without_a_step_in_time_or_level(tiny: Models, background: str) -> None:
    """While it rests the decoded voice is heard, at the same lag; keep stays the original."""
    pipeline = Pipeline(tiny, Background.parse(background))
    hop = tiny.info.hop_samples
    t = np.arange(60 * hop) / tiny.info.sample_rate_hz
    x = (0.3 * np.sin(2 * np.pi * 50.0 * t)).astype(np.float32)
    out, voice = [], []
    for count, part in enumerate(x.reshape(-1, hop)):
        pipeline.refining = not 10 <= count < 30
        made = pipeline.step(part)
        out.append(made.out)
        voice.append(made.speech)
        np.testing.assert_allclose(made.speech + made.background, made.mixture, atol=0.02)
    resting = Pipeline(tiny, Background.parse(background))
    resting.refining = False
    rest = [resting.step(part) for part in x.reshape(-1, hop)]
    np.testing.assert_allclose(voice[25], rest[25].speech, atol=1e-6)  # tokens alone, with their own coarse steps
    assert not np.allclose(voice[5], rest[5].speech, atol=1e-3)
    assert not np.allclose(voice[45], rest[45].speech, atol=1e-3)
    steepest = np.abs(np.diff(_joined(rest, "out"))).max()
    assert np.abs(np.diff(np.concatenate(out))).max() <= steepest + 0.3 / hop
    if background == "keep":
        np.testing.assert_array_equal(np.concatenate(out)[pipeline.lag :], x[: len(x) - pipeline.lag])
