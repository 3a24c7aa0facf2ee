"""What a hop costs in a live run, ours beside the peers: `python -m models.pace [--seconds 10] [--rounds 3]`.

Every system is given 20 ms of 48 kHz sound every 20 ms, on one thread, and sleeps in between as it would in a call: its
caches are cold again when the next hop comes, which a real-time factor over a whole file does not see. Systems take
turns, so that what else the machine does meets all of them. What runs at 16 kHz is resampled there and back by the
live resampler, inside the time that is counted. NSNet2 is left out: its graph carries no state from frame to frame.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from engine.artefacts import load_models
from engine.pipeline import LiveStream
from engine.resample import LIVE_DELAY_S, LiveResampler
from engine.ring import Fifo
from engine.types import Provider, Samples, SottovoceError
from models.feed import voices
from models.peers import PEERS, Peer, load_peer
from models.tables import table
from models.training import status_of

RATE_HZ, HOP_S = 48_000, 0.02
HOP = round(HOP_S * RATE_HZ)
WITHOUT_STATE = ("noisy", "nsnet2")
WARM_HOPS = 25
Step = Callable[[Samples], object]
console = Console(stderr=True)


@dataclass(frozen=True)
class Pace:
    """One system: what takes a hop [HOP] at RATE_HZ, and by how much its output is late, resampling included."""

    title: str
    step: Step
    latency_ms: float


def ours() -> Pace:
    """The whole live path but for the devices: resampling, three networks, mixing, limiter."""
    stream = LiveStream(load_models(Provider.CPU), RATE_HZ)
    return Pace("Sottovoce, drop", stream.process_hop, sum(ms for _, ms in stream.lag_parts_ms))


def live(peer: Peer) -> Pace:
    """A peer in frames of its own size, between live resamplers where its rate is another."""
    step, frame, rate_hz = peer.start(), peer.frame, peer.info.rate_hz
    down, up = LiveResampler(RATE_HZ, rate_hz), LiveResampler(rate_hz, RATE_HZ)
    waiting = Fifo()

    def take(hop: Samples) -> None:
        waiting.push(down.process(hop))
        while len(waiting) >= frame:
            up.process(step(waiting.pop(frame)))

    resampling_ms = 2000.0 * LIVE_DELAY_S if rate_hz != RATE_HZ else 0.0
    return Pace(peer.info.title, take, peer.info.latency_ms + resampling_ms)


def hop_times_ms(step: Step, sound: Samples) -> list[float]:
    """How long each hop of `sound` [hops, HOP] takes, handed over every 20 ms."""
    taken, next_s = [], time.monotonic()
    for hop in sound:
        time.sleep(max(0.0, next_s - time.monotonic()))
        next_s += HOP_S
        begin = time.perf_counter()
        step(hop)
        taken.append(1000.0 * (time.perf_counter() - begin))
    return taken


def measure(paces: list[Pace], sound: Samples, rounds: int) -> dict[str, list[float]]:
    """Hop times in ms by title; each system has `sound` [hops, HOP] once a round."""
    times: dict[str, list[float]] = {pace.title: [] for pace in paces}
    turns = [pace for _ in range(rounds) for pace in paces]
    for pace in track(turns, "hops", console=console):
        hop_times_ms(pace.step, sound[:WARM_HOPS])
        times[pace.title] += hop_times_ms(pace.step, sound)
    return times


def noisy_voice(seconds: float) -> Samples:
    """Validation voices in a little noise, [hops, HOP]. Raises SottovoceError where there are none."""
    length = round(seconds / HOP_S) * HOP
    if not (said := voices("validation")[:20]):
        raise SottovoceError("there are no validation voices yet; run python -m models.data --minimal")
    clips = np.concatenate([clip.samples for clip in said]).astype(np.float32) / 32768.0
    raised = LiveResampler(16_000, RATE_HZ).process(clips)
    noise = 0.01 * np.random.default_rng(0).standard_normal(length).astype(np.float32)
    return (np.resize(raised, length) + noise).reshape(-1, HOP)


def as_table(paces: list[Pace], times: dict[str, list[float]]) -> str:
    """Markdown, a line a system."""
    rows = []
    for pace in paces:
        median, p99, worst = np.percentile(times[pace.title], (50, 99, 100))
        rows.append([pace.title, f"{median:.2f}", f"{p99:.2f}", f"{worst:.1f}", f"{pace.latency_ms:.0f}"])
    return table(["system", "20 ms take, ms: median", "p99", "worst", "added delay, ms"], rows)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.pace", description="What a hop costs in a live run.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of sound for each system in each round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    if not args.seconds >= 1.0 or args.rounds < 1:
        parser.error("--seconds and --rounds are 1 or more")

    def work() -> None:
        sound = noisy_voice(args.seconds)
        paces = [ours(), *(live(load_peer(name)) for name in PEERS if name not in WITHOUT_STATE)]
        print(as_table(paces, measure(paces, sound, args.rounds)))

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
