"""Make the demo recording: `python -m models.demo` writes assets/demo.ogg and assets/demo.txt.

No free recording of clear English may be shipped that is not also held out, so a neural voice speaks, and says so.
The background is real: rain, then a forge (a fire and an anvil), one into the other. The speech keeps its own level;
the background follows it at SNR_DB, measured on active speech.

    speech        ▁▁▂▅▃▁▅▂▁▃▅▁▂▅▁▁▃▅▂▁▅▃▁▂▅▁▁▁
    background    rain ─────────╳───────── forge
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from engine.paths import cache_dir
from engine.soundfiles import SoundWriter
from models.denylist import denylist
from models.fetch import fetch, unpack
from models.manifest import ASSETS, sha256_of, update_row
from models.shards import split_of
from models.sources import package_for_test
from models.testset import active_level_db
from models.voices import synthesise

Samples = NDArray[np.float32]

RATE_HZ = 48_000
VOICE = "hibari"
VOICE_CREDIT = "a neural voice: hibari-tts 0.2.1, Apache-2.0"
LEAD_S, PAUSE_S, FADE_S = 1.2, 0.4, 1.5
SNR_DB = 4.0
SPEECH_DB = -27.0  # active level; leaves room for peaks and keeps the file small

RAIN_TEXT = (
    "Good morning. This is a synthetic voice, speaking to you from a garden in the rain.",
    "The rain is loud, and the words are easy to lose.",
    "A small program listens on this computer, and divides what it hears into two streams of numbers.",
    "One of them holds the voice. The other one holds the weather.",
)
FORGE_TEXT = (
    "Now we step into a workshop, where the fire is roaring and a hammer strikes the anvil.",
    "This noise is of a different kind, but the voice should stay as clear as before.",
    "You can keep the background, turn it down, remove it, or put another place around me.",
    "Thank you for listening, and have a quiet day.",
)


@dataclass(frozen=True)
class Noise:
    """One real recording inside a package, with what its licence asks us to say."""

    package: str
    path: str
    class_name: str
    gain_db: float
    credit: str


RAIN = (
    Noise(
        "megaglest-data",
        "usr/share/games/megaglest/tilesets/birch_forest/sounds/rain.ogg",
        "rain",
        0.0,
        "rain by the MegaGlest team (Titus Tscharntke and others), CC-BY-SA-3.0",
    ),
)
FORGE = (
    Noise(
        "minetest-data",
        "usr/share/games/minetest/games/minetest_game/mods/fire/sounds/fire_large.ogg",
        "fire",
        0.0,
        "fire by Dynamicell, freesound 17548, CC-BY-3.0",
    ),
    Noise(
        "flare-game",
        "usr/share/games/flare/mods/fantasycore/soundfx/environment/anvil_loop.ogg",
        "machine",
        -3.0,
        "anvil from Flare (Clint Bellanger and others), CC-BY-SA-3.0",
    ),
)


def speech(lines: tuple[str, ...]) -> Samples:
    """The lines one after the other with pauses, at RATE_HZ and SPEECH_DB; ends in a pause."""
    parts = []
    for line in lines:
        said, rate_hz = synthesise(line, VOICE)
        parts += [soxr.resample(said, rate_hz, RATE_HZ, "VHQ"), np.zeros(round(PAUSE_S * RATE_HZ), np.float32)]
    joined = np.concatenate(parts)
    return joined * np.float32(10 ** ((SPEECH_DB - active_level_db(soxr.resample(joined, RATE_HZ, 16_000))) / 20))


def read_noise(noise: Noise, folder: Path) -> Samples:
    """One recording at RATE_HZ, mono, unit RMS times its gain; refused unless training may hear it too."""
    if ban := denylist().clip(noise.package, noise.path, "background", "", noise.class_name):
        raise SystemExit(f"{noise.path} is held out ({ban.why}); choose another recording in models/demo.py")
    package = package_for_test(noise.package)
    downloads = cache_dir() / "data" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    place = folder / package.name
    if not place.is_dir():
        unpack(package, fetch(package, downloads), folder)
    sound, rate_hz = soundfile.read(place / noise.path, dtype="float32", always_2d=True)
    mono = sound.mean(axis=1)
    if split_of(sha256_of(place / noise.path)) != "train":
        raise SystemExit(f"{noise.path} chooses checkpoints; choose another recording in models/demo.py")
    x = soxr.resample(mono, rate_hz, RATE_HZ, "VHQ")
    return (x / np.sqrt(np.mean(x**2)) * 10 ** (noise.gain_db / 20)).astype(np.float32)


def lengthen(x: Samples, length: int) -> Samples:
    """Loop a recording to `length` samples; the seams are crossfaded at equal power."""
    fade = min(RATE_HZ // 2, len(x) // 4)
    rise = np.sin(np.linspace(0, np.pi / 2, fade)).astype(np.float32)
    out = x.copy()
    while len(out) < length:
        seam = out[-fade:] * rise[::-1] + x[:fade] * rise
        out = np.concatenate([out[:-fade], seam, x[fade:]])
    return out[:length]


def background(noises: tuple[Noise, ...], folder: Path, length: int) -> Samples:
    """Some recordings at once, SNR_DB below the speech, [length]."""
    mixed = np.sum([lengthen(read_noise(noise, folder), length) for noise in noises], axis=0)
    level = 10 ** ((SPEECH_DB - SNR_DB) / 20)
    return (mixed / np.sqrt(np.mean(mixed**2)) * level).astype(np.float32)


def join(first: Samples, second: Samples) -> Samples:
    """One sound into the next, over FADE_S at equal power."""
    fade = round(FADE_S * RATE_HZ)
    rise = np.sin(np.linspace(0, np.pi / 2, fade)).astype(np.float32)
    return np.concatenate([first[:-fade], first[-fade:] * rise[::-1] + second[:fade] * rise, second[fade:]])


def compose(make_background: Callable[[tuple[Noise, ...], int], Samples]) -> Samples:
    """The whole recording, float32 mono at RATE_HZ."""
    lead, fade = (np.zeros(round(s * RATE_HZ), np.float32) for s in (LEAD_S, FADE_S))
    rain, forge = speech(RAIN_TEXT), speech(FORGE_TEXT)
    voice = np.concatenate([lead, rain, fade, forge, lead])
    outside = make_background(RAIN, len(lead) + len(rain) + len(fade))
    inside = make_background(FORGE, len(voice) - len(outside) + len(fade))
    return voice + join(outside, inside)


def main() -> None:
    """Write the recording, what is said in it, and its row in the manifest."""
    with tempfile.TemporaryDirectory() as name:
        mixture = compose(lambda noises, length: background(noises, Path(name), length))
    peak = float(np.abs(mixture).max())
    if peak >= 1.0:
        raise SystemExit(f"the mixture clips ({peak:.2f}); lower SPEECH_DB in models/demo.py")
    place = ASSETS / "demo.ogg"
    writer = SoundWriter(place, RATE_HZ, channels=1)
    writer.write(mixture)
    writer.finish()
    (ASSETS / "demo.txt").write_text("\n".join((*RAIN_TEXT, *FORGE_TEXT)) + "\n", encoding="utf8")
    update_row(
        name="demo",
        file=place.name,
        kind="demo",
        license="CC-BY-SA-3.0",
        ancestors=[VOICE_CREDIT],
        data=[f"{noise.package}: {noise.path} ({noise.credit})" for noise in (*RAIN, *FORGE)],
        command="python -m models.demo",
        sample_rate_hz=RATE_HZ,
        duration_s=round(len(mixture) / RATE_HZ, 3),
        snr_db=SNR_DB,
    )
    size_mb = place.stat().st_size / 1e6
    print(f"{place.name}: {len(mixture) / RATE_HZ:.1f} s, peak {20 * np.log10(peak):.1f} dBFS, {size_mb:.2f} MB")


if __name__ == "__main__":
    main()
