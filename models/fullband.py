"""What becomes of the sound above 8 kHz, where the models do not hear: `python -m models.fullband [--out DIR]`.

Voices and noises as they were recorded, at 22 to 48 kHz, mixed at 48 kHz, 0 to 15 dB: four talkers and four noises of
the public test, for the report; or, to choose by, four validation talkers in hisses (`--split validation`). Ours runs
as it does live, peers at their own rate; each is aligned by a delay of its own.

    voice      level of 8 to 11 kHz where the voice has something there, against the clean voice's: below 0 dB is dull
    pauses     level above 8 kHz where nobody speaks, against the noisy input's: what is left of the hiss
    SDR gain   of 8 to 11 kHz against the clean voice
    BAK        DNSMOS's opinion of the background, on the band that it hears
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from rich.console import Console
from rich.markdown import Markdown
from scipy.signal import butter, sosfiltfilt

from engine.artefacts import load_models
from engine.pipeline import LiveStream
from engine.types import Background, Provider, Samples, SottovoceError
from models import metrics
from models.data import download_folder
from models.fetch import fetch, unpack
from models.peers import load_peer
from models.sources import SOURCES
from models.tables import table
from models.testset import active_level_db, level_db, local, manifest, prepare

RATE_HZ = 48_000
SECONDS = 6.0
SNRS_DB = (0.0, 5.0, 10.0, 15.0)
VOICE_BAND_HZ = (8_000.0, 11_000.0)  # what was recorded at 22 kHz ends there
PAUSE_BAND_HZ = (8_000.0, 20_000.0)
NOISES = {
    "restaurant": ("supertuxkart-data", "lenautile_restaurant"),
    "rain": ("flare-game", "rain"),
    "shower": ("plee-the-bear-data", "rain"),
    "water": ("onsen", "water"),
}
FRAME = RATE_HZ // 50
VOICED_DB, SILENT_DB = 15.0, 45.0  # below the loudest frames of the clean voice, in its high band and in all
PEERS = ("rnnoise", "deepfilternet3")  # those that work at 48 kHz
FIGURES = {"voice_db": "voice, dB", "pauses_db": "pauses, dB", "sdr_gain_db": "SDR gain, dB", "bak": "BAK"}

System = Callable[[Samples], Samples]


@dataclass(frozen=True)
class Item:
    """A mixture at 48 kHz and its parts, [N] each."""

    name: str
    voice: Samples
    noise: Samples

    @property
    def mixture(self) -> Samples:
        """What is heard."""
        return self.voice + self.noise


def public_items() -> Iterator[Item]:
    """Every talker with every noise, SNRs in turn. Raises SottovoceError when the sources cannot be had."""
    found = manifest()
    prepare(found)
    talkers: dict[str, list[Path]] = {}
    for file in found["files"]:
        if file["package"] == "fillets-ng-data-cs":
            talkers.setdefault(file["who"], []).append(local(file))
    length = round(SECONDS * RATE_HZ)
    for turn, who in enumerate(sorted(talkers)):
        voice = _in_a_row([sound for path in talkers[who] if len(sound := _native(path, 22_050))], length)
        for number, (kind, (package, part)) in enumerate(NOISES.items()):
            paths = [local(f) for f in found["files"] if f["package"] == package and part in f["path"]]
            snr_db = SNRS_DB[(turn + number) % len(SNRS_DB)]
            noise = np.resize(_native(paths[0], 44_100), length)
            yield _mixed(f"{who.rpartition('/')[2]}-{kind}", voice, noise, snr_db)


def validation_items() -> Iterator[Item]:
    """Validation talkers of hedgewars, at 44.1 kHz, each in white and in pink noise and nearly clean."""
    source = next(source for source in SOURCES if source.package.name == "hedgewars-data")
    talkers = source.options["validation"]
    assert isinstance(talkers, list)
    length, random = round(SECONDS * RATE_HZ), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as scratch:
        tree = unpack(source.package, fetch(source.package, download_folder()), Path(scratch))
        for turn, who in enumerate(talkers):
            files = sorted(tree.rglob(f"voices/{who}/*.ogg"))[::3]
            voice = _in_a_row([_native(path, 22_050) for path in files], length)
            white = random.standard_normal(length)
            spectrum = np.fft.rfft(white)
            pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 100.0)), length)
            for kind, noise, snr_db in (("white", white, SNRS_DB[turn]), ("pink", pink, 5.0), ("clean", white, 90.0)):
                yield _mixed(f"{who}-{kind}", voice, noise.astype(np.float32), snr_db)


def _mixed(name: str, voice: Samples, noise: Samples, snr_db: float) -> Item:
    noise = noise * np.float32(10 ** ((active_level_db(voice) - snr_db - level_db(noise)) / 20))
    scale = np.float32(0.5 / np.abs(voice + noise).max())
    return Item(f"{name}{snr_db:+.0f}", voice * scale, noise * scale)


def _native(path: Path, min_rate_hz: int) -> Samples:
    """A file as mono at 48 kHz, empty where it was recorded at less than `min_rate_hz`."""
    sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    if rate_hz < min_rate_hz:
        return np.zeros(0, np.float32)
    whole: Samples = soxr.resample(sound.mean(axis=1), rate_hz, RATE_HZ, "VHQ")
    return whole


def _in_a_row(sounds: list[Samples], length: int) -> Samples:
    """Half a second of silence before each, so that every mixture has pauses; repeated or cut to `length`."""
    pause = np.zeros(RATE_HZ // 2, np.float32)
    return np.resize(np.concatenate([part for sound in sounds for part in (pause, sound)]), length)


# Measuring ------------------------------------------------------------------------------------------------------------


def band(sound: Samples, edges_hz: tuple[float, float]) -> Samples:
    """What lies between two frequencies, without delay."""
    filtered: Samples = sosfiltfilt(butter(6, edges_hz, "bandpass", fs=RATE_HZ, output="sos"), sound)
    return filtered


def frame_power(sound: Samples) -> Samples:
    """Power of every 20 ms, [N] -> [T]."""
    return np.square(sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)).mean(1) + 1e-14


def measure(output: Samples, item: Item) -> dict[str, float]:
    """The figures of one aligned output [N]."""
    clean, heard, given = (band(x, VOICE_BAND_HZ) for x in (item.voice, output, item.mixture))
    power, whole = frame_power(clean), frame_power(item.voice)
    voiced = power > np.percentile(power, 98) * 10 ** (-VOICED_DB / 10)
    silent = whole < np.percentile(whole, 98) * 10 ** (-SILENT_DB / 10)
    left, before = (frame_power(band(x, PAUSE_BAND_HZ))[silent].mean() for x in (output, item.mixture))
    return {
        "voice_db": 10 * float(np.log10(frame_power(heard)[voiced].sum() / power[voiced].sum())),
        "pauses_db": 10 * float(np.log10(left / before)),
        "sdr_gain_db": metrics.sdr(heard, clean) - metrics.sdr(given, clean),
        "bak": metrics.dnsmos(soxr.resample(output, RATE_HZ, metrics.RATE_HZ, "VHQ").astype(np.float32)).bak,
    }


def systems(assets: Path | None) -> dict[str, System]:
    """The noisy input, ours, and the peers that can be had here."""
    models = load_models(Provider.CPU, assets)

    def ours(sound: Samples) -> Samples:
        stream = LiveStream(models, RATE_HZ, background=Background.parse("drop"))
        return np.concatenate([stream.process(sound), stream.flush()])

    found: dict[str, System] = {"noisy": lambda sound: sound, "ours": ours}
    for name in PEERS:
        try:
            found[name] = lambda sound, peer=load_peer(name): peer.run(sound, RATE_HZ).samples  # type: ignore[misc]
        except (SottovoceError, OSError) as problem:
            print(f"{name} is left out: {problem}", file=sys.stderr)
    return found


def aligned(system: System, chosen: list[Item]) -> Iterator[tuple[Item, Samples]]:
    """Every item's output, brought back by the median of what the outputs are late."""
    pad = np.zeros(RATE_HZ // 10, np.float32)
    outputs = [system(np.concatenate([item.mixture, pad])) for item in chosen]
    late = [metrics.find_delay(out, item.voice, longest=RATE_HZ // 10) for out, item in zip(outputs, chosen)]
    delay = metrics.fixed_delay(late)
    for item, out in zip(chosen, outputs):
        yield item, metrics.advance(out, delay, len(item.voice))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.fullband", description="Measure the sound above 8 kHz.")
    parser.add_argument("--out", type=Path, help="folder for fullband.json: the figures of every mixture")
    parser.add_argument("--split", choices=("public", "validation"), default="public")
    parser.add_argument("--assets", type=Path, help="folder of other artefacts, with their manifest.toml")
    args = parser.parse_args(arguments)
    try:
        chosen = list(public_items() if args.split == "public" else validation_items())
        rows: dict[str, list[dict[str, float]]] = {}
        for name, system in systems(args.assets).items():
            rows[name] = [measure(sound, item) for item, sound in aligned(system, chosen)]
    except SottovoceError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was measured to the end", file=sys.stderr)
        return 130
    lines = [
        [name, *(f"{metrics.bootstrap([r[f] for r in found]).mean:.2f}" for f in FIGURES)]
        for name, found in rows.items()
    ]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        named = {name: dict(zip([item.name for item in chosen], found)) for name, found in rows.items()}
        (args.out / "fullband.json").write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 120).print(
        Markdown(f"{len(chosen)} mixtures at 48 kHz\n\n{table(['system', *FIGURES.values()], lines)}")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
