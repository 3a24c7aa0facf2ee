"""The voice detector: our way of running silero's network hears voices where they are and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from engine import vad
from engine.paths import assets_dir
from engine.types import ArtefactError
from engine.vad import SAMPLE_RATE_HZ, WINDOW, SileroVad, probabilities


def demo_speech(seconds: float) -> np.ndarray:
    """The beginning of the shipped demo recording at 16 kHz: a second of rain, then a voice in it."""
    sound, rate_hz = soundfile.read(assets_dir() / "demo.ogg", dtype="float32", always_2d=True)
    return soxr.resample(sound[:, 0], rate_hz, SAMPLE_RATE_HZ)[: int(seconds * SAMPLE_RATE_HZ)].astype(np.float32)


def test_a_voice_is_heard_in_noise_and_noise_is_not(rng: np.random.Generator) -> None:
    chances = probabilities(demo_speech(8.0))
    assert np.mean(chances[: int(0.8 * SAMPLE_RATE_HZ) // WINDOW] > 0.5) < 0.2
    assert np.mean(chances[int(1.5 * SAMPLE_RATE_HZ) // WINDOW :] > 0.5) > 0.6
    assert np.mean(probabilities(np.zeros(4 * SAMPLE_RATE_HZ, np.float32)) > 0.5) == 0.0
    noise = 0.05 * rng.standard_normal(4 * SAMPLE_RATE_HZ).astype(np.float32)
    assert np.mean(probabilities(noise) > 0.5) < 0.05


def test_one_window_at_a_time_gives_what_a_whole_recording_gives() -> None:
    sound = demo_speech(3.0)
    detector = SileroVad()
    whole = probabilities(sound, detector)
    detector.reset()
    single = [detector(sound[at : at + WINDOW]) for at in range(0, len(sound) - WINDOW + 1, WINDOW)]
    np.testing.assert_array_equal(whole, np.array(single, dtype=np.float32))


def test_another_version_of_the_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "MODEL_SHA256", "0" * 64)
    with pytest.raises(ArtefactError, match=r"run ./run again"):
        SileroVad()


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Path:
        raise vad.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(vad.importlib.metadata, "distribution", nothing)
    with pytest.raises(ArtefactError, match="pip install --no-deps silero-vad"):
        vad.model_path()
