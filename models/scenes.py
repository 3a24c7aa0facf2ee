"""Make the places that a background can be swapped for: `python -m models.scenes`.

Each is 20 s of sound built here from noise, resonances and events, all of it periodic by construction, so that its
tokens loop without a seam; then our own background quantiser turns it into a token bank in assets/scenes. Nothing is
sampled from anywhere, so the licence is the project's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.paths import assets_dir
from engine.token_writer import SvtWriter
from engine.tokens import SvtHeader
from models.checkpoint import Bundle, load_shipped
from models.export import codec_id
from models.manifest import update_row

RATE_HZ = 16_000
LOOP_S = 20
LENGTH = RATE_HZ * LOOP_S
LEVEL = 0.05  # RMS; the engine sets the level it is heard at

Array = NDArray[Any]
Random = np.random.Generator


def coloured(random: Random, response: Callable[[Array], Array]) -> Array:
    """Periodic noise whose spectrum is `response` of the frequency in Hz; unit RMS, [LENGTH]."""
    spectrum = np.fft.rfft(random.standard_normal(LENGTH)) * response(np.fft.rfftfreq(LENGTH, 1 / RATE_HZ) + 1.0)
    x = np.fft.irfft(spectrum, LENGTH)
    return x / np.sqrt(np.mean(x**2))


def slow(random: Random, fastest_hz: float, depth: float) -> Array:
    """A periodic gain that wanders around one, no faster than `fastest_hz`."""
    wave = coloured(random, lambda f: np.where((f > 1.01) & (f < fastest_hz + 1), 1 / np.sqrt(f), 0.0))
    return np.exp(depth * wave)


def band(low_hz: float, high_hz: float) -> Callable[[Array], Array]:
    """Band-pass response with 12 dB an octave on both sides."""
    return lambda f: 1 / (1 + (low_hz / f) ** 2) / (1 + (f / high_hz) ** 2)


def scatter(random: Random, events: int, make: Callable[[Random], Array]) -> Array:
    """`events` short sounds at random moments of the loop, wrapped around its end."""
    out = np.zeros(LENGTH)
    for _ in range(events):
        sound = make(random)
        at = int(random.integers(LENGTH))
        out[np.arange(at, at + len(sound)) % LENGTH] += sound
    return out


def ring(random: Random, low_hz: float, high_hz: float, decay_s: float, bend: float = 0.0) -> Array:
    """A decaying tone between two frequencies; `bend` is how far its pitch moves."""
    time = np.arange(round(6 * decay_s * RATE_HZ)) / RATE_HZ
    pitch = np.exp(random.uniform(np.log(low_hz), np.log(high_hz)))
    phase = 2 * np.pi * pitch * (time + bend * time**2 / (2 * decay_s))
    return random.exponential(1.0) * np.sin(phase + random.uniform(0, 6.28)) * np.exp(-time / decay_s)


def rain(random: Random) -> Array:
    """Steady rain on leaves and pavement."""
    hiss = coloured(random, band(700, 5500)) * slow(random, 0.5, 0.15)
    drops = scatter(random, 9000, lambda r: ring(r, 900, 6500, r.uniform(0.0008, 0.004)))
    puddles = scatter(random, 500, lambda r: ring(r, 350, 1400, r.uniform(0.006, 0.02), bend=0.4))
    return hiss + 1.1 * drops + 0.6 * puddles + 0.5 * coloured(random, band(80, 400))


def sea(random: Random) -> Array:
    """Waves on a beach, one every six to seven seconds."""
    phase = np.arange(LENGTH) / LENGTH * 3 % 1.0
    swell = np.exp(-(((phase - 0.45) / 0.16) ** 2)) + 0.7 * np.exp(-(((phase - 0.62) / 0.22) ** 2))
    foam = coloured(random, band(1200, 6000)) * swell**1.6
    body = coloured(random, band(120, 900)) * (0.25 + swell)
    return body * slow(random, 1.0, 0.1) + 0.8 * foam + 0.25 * coloured(random, band(40, 200))


def wind(random: Random) -> Array:
    """Gusts around a house."""
    gusts = slow(random, 0.7, 0.6)
    low = coloured(random, band(40, 250)) * gusts
    whistles = sum(coloured(random, band(f * 0.93, f * 1.07)) * slow(random, 1.5, 0.9) for f in (420, 640, 980))
    return low + 0.35 * whistles * gusts + 0.2 * coloured(random, band(800, 3000)) * gusts**2


def fire(random: Random) -> Array:
    """An open fire: a low roar and crackling wood."""
    roar = coloured(random, band(50, 320)) * slow(random, 3.0, 0.25)
    crackle = scatter(random, 700, lambda r: ring(r, 1500, 7000, r.uniform(0.0004, 0.002)) * r.exponential(2.0))
    pops = scatter(random, 40, lambda r: 4 * ring(r, 300, 1200, r.uniform(0.003, 0.01)))
    return roar + 1.6 * crackle + pops + 0.3 * coloured(random, band(1500, 6000)) * slow(random, 4.0, 0.4)


def night(random: Random) -> Array:
    """A warm night: crickets near and far, some air."""
    time = np.arange(LENGTH) / RATE_HZ
    out = 0.5 * coloured(random, band(150, 900)) * slow(random, 0.4, 0.2)
    for _ in range(7):
        pitch = round(random.uniform(3600, 5200) * LOOP_S) / LOOP_S  # whole periods in the loop
        chirps = round(random.uniform(1.2, 2.6) * LOOP_S) / LOOP_S
        pulses = np.clip(np.sin(2 * np.pi * round(28 * LOOP_S) / LOOP_S * time), 0, 1)
        on = np.clip(np.sin(2 * np.pi * chirps * time + random.uniform(0, 6.28)) * 3, 0, 1)
        out = out + random.uniform(0.2, 1.2) * np.sin(2 * np.pi * pitch * time) * pulses * on
    return out


def cafe(random: Random) -> Array:
    """A room full of talk one cannot follow, with cups and spoons."""
    murmur = np.zeros(LENGTH)
    for _ in range(24):
        syllables = np.clip(coloured(random, lambda f: np.where((f > 2) & (f < 7), 1.0, 0.0)), 0, None) ** 1.5
        pitch = random.uniform(95, 230)
        drift = np.cumsum(pitch * slow(random, 2.0, 0.08))
        buzz = np.sign(np.sin(2 * np.pi * drift / RATE_HZ)) * 0.5 + 0.2 * random.standard_normal(LENGTH)
        formant = np.fft.rfftfreq(LENGTH, 1 / RATE_HZ) + 1.0
        shape = sum(
            band(f * 0.85, f * 1.15)(formant) * g
            for f, g in ((random.uniform(350, 750), 1.0), (random.uniform(1000, 2200), 0.5), (2800, 0.2))
        )
        murmur += np.fft.irfft(np.fft.rfft(buzz * syllables) * shape, LENGTH) * random.uniform(0.3, 1.0)
    cups = scatter(random, 26, lambda r: ring(r, 1800, 6500, r.uniform(0.015, 0.035)))
    murmur = murmur / np.sqrt(np.mean(murmur**2))
    return murmur + 0.8 * cups + 0.3 * coloured(random, band(100, 500))


PLACES: dict[str, tuple[str, Callable[[Random], Array]]] = {
    "rain": ("Steady rain", rain),
    "sea": ("Waves on a beach", sea),
    "wind": ("Wind around the house", wind),
    "fire": ("An open fire", fire),
    "night": ("Crickets at night", night),
    "cafe": ("A busy café", cafe),
}


def loop_codes(bundle: Bundle, sound: Array) -> torch.Tensor:
    """Background codes [T, K] of a periodic sound, as if it had always been playing."""
    c = bundle.config
    x = torch.from_numpy(sound / np.sqrt(np.mean(sound**2)) * LEVEL).float()[None]
    joined = torch.cat([x[:, -c.overlap :], x], dim=1)
    frames = joined.unfold(1, c.hop + c.overlap, c.hop)[0]
    coefficients = frames @ bundle.codec.encoder.basis
    return torch.cat([bundle.codec.encoder.background.encode(part) for part in coefficients.split(256)])


@torch.no_grad()
def main() -> None:
    """Write every scene's token bank with the codebooks of the shipped graphs."""
    bundle = load_shipped()
    c = bundle.config
    folder = assets_dir() / "scenes"
    folder.mkdir(exist_ok=True)
    sizes_s, sizes_b = (tuple(c.row_sizes(n)) for n in (c.speech_stages, c.background_stages))
    for number, (name, (title, make)) in enumerate(PLACES.items()):
        codes = loop_codes(bundle, make(np.random.default_rng(100 + number))).numpy().T
        header = SvtHeader(
            codec_id(bundle),
            c.sample_rate_hz,
            c.hop,
            sizes_s,
            sizes_b,
            rows_s=0,
            rows_b=len(sizes_b),
            gain_rows=c.bands,
            title=title,
        )
        path = folder / f"{name}.svt"
        writer = SvtWriter(path, header)
        writer.write(np.zeros((0, codes.shape[1]), np.int64), codes)
        writer.close()
        update_row(
            name=name,
            file=f"scenes/{name}.svt",
            kind="scene",
            license="MIT",
            title=title,
            ancestors=[],
            data=["made here from noise and resonances"],
            command="python -m models.scenes",
            manifest=assets_dir() / "manifest.toml",
        )
        print(f"{name}: {codes.shape[1]} frames, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
