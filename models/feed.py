"""Training clips that the frozen parts have already heard, made in processes of their own.

The codec is fixed while the refiner learns, so each mixture goes through it once, in a worker, and is then drawn from
a pool several times. The pool holds the latest clips; what a worker makes takes the place of the oldest.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.multiprocessing as processes
from numpy.typing import NDArray
from torch import Tensor

from engine.types import SottovoceError
from models.checkpoint import Bundle, load_bundle
from models.mixing import MixConfig, Mixer
from models.quantize import BandQuantizer
from models.shards import Clip, load

HISSING = ("tuxpaint-stamps-default", "klettres-data")  # their hiss would be taught as part of the voice
SIGNALS = 4  # mixture, voice, decoded voice, decoded background
FIRST_BATCHES = 12  # before the first clip is drawn
REUSE = 3.0  # how often a clip is drawn in the mean: what few clips say is soon learned by heart


def voices(split: Literal["train", "validation"]) -> list[Clip]:
    """Speech without the hissing sources."""
    return [clip for clip in load(split, "speech") if not clip.source.startswith(HISSING)]


def training_clips() -> tuple[list[Clip], list[Clip]]:
    """Voices and backgrounds to train on. Raises SottovoceError where there are none."""
    clips = voices("train"), load("train", "background")
    if not all(clips):
        raise SottovoceError("there are no training shards yet; run python -m models.data --minimal")
    return clips


def through_tokens(bundle: Bundle, mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtures [B, N] -> the front's voice, decoded voice and background, [B, N] each, late by token_lag."""
    codec, device = bundle.codec, mixture.device

    def zeros(part: Any) -> dict[str, Tensor]:
        return {k: v.to(device) for k, v in part.initial_state(len(mixture)).items()}

    speech, rest, _ = codec.encoder.project(mixture, zeros(codec.encoder))
    front, _, _ = codec.decoder.synthesise(speech, rest, zeros(codec.decoder))
    shape = speech.shape[:2]

    def decoded(quantizer: BandQuantizer, part: Tensor) -> Tensor:
        return quantizer.decode(quantizer.encode(part.flatten(0, 1))).unflatten(0, shape)

    tokens_s, tokens_b = decoded(codec.encoder.speech, speech), decoded(codec.encoder.background, rest)
    voice, background, _ = codec.decoder.synthesise(tokens_s, tokens_b, zeros(codec.decoder))
    return front, voice, background


@torch.no_grad()
def _produce(made: Any, checkpoint: Path, mix: MixConfig, rows: int, seed: int) -> None:
    """A worker: its seed, the CPU seconds it has used and a batch [rows, SIGNALS, N] in half precision, until ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's
    torch.set_num_threads(1)
    bundle = load_bundle(checkpoint)
    mixer = Mixer(*training_clips(), mix, seed)
    while True:
        mixture, voice = mixer.batch(rows)
        _, speech, background = through_tokens(bundle, torch.from_numpy(mixture))
        batch = np.stack([mixture, voice, speech.numpy(), background.numpy()], axis=1).astype(np.float16)
        while True:
            with suppress(queue.Full):
                made.put((seed, time.process_time(), batch), timeout=5.0)
                break
            if (trainer := multiprocessing.parent_process()) is None or not trainer.is_alive():
                return


@dataclass
class Feed:
    """The pool and its workers; a context manager."""

    checkpoint: Path
    mix: MixConfig
    rows: int  # clips a batch
    pool_clips: int
    workers: int
    seed: int

    def __enter__(self) -> Feed:
        context = processes.get_context("spawn")
        self._made = context.Queue(maxsize=4)
        self._random = np.random.default_rng(self.seed)
        self._pool: NDArray[np.float16] = np.zeros((0, SIGNALS, 0), np.float16)
        self.made_clips = self._drawn = 0
        self._cpu_s: dict[int, float] = {}
        self._processes = [
            context.Process(
                target=_produce,
                args=(self._made, self.checkpoint, self.mix, self.rows, self.seed * 1000 + n),
                daemon=True,
            )
            for n in range(self.workers)
        ]
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the workers have used, up to each one's latest batch."""
        return sum(self._cpu_s.values())

    def _take(self, patience_s: float) -> bool:
        """Put one batch into the pool, in place of the oldest where it is full; False when none came in time.

        Raises SottovoceError when a worker has ended.
        """
        try:
            worker, cpu_s, batch = self._made.get(timeout=patience_s)
        except queue.Empty:
            if not all(process.is_alive() for process in self._processes):
                raise SottovoceError("a process that makes training clips has ended; see what it said above") from None
            return False
        self._cpu_s[worker] = cpu_s
        if not len(self._pool):  # pages come as they are written
            self._pool = np.zeros((max(self.pool_clips // len(batch), 1) * len(batch), *batch.shape[1:]), np.float16)
        at = self.made_clips % len(self._pool)
        self._pool[at : at + len(batch)] = batch
        self.made_clips += len(batch)
        return True

    def draw(self) -> Tensor:
        """Mixtures, voices, decoded voices and backgrounds, [SIGNALS, rows, N]."""
        self._drawn += self.rows
        while self.made_clips < max(FIRST_BATCHES * self.rows, self._drawn / REUSE):
            self._take(patience_s=1.0)
        while self._take(patience_s=0.001):
            pass
        chosen = self._random.choice(min(self.made_clips, len(self._pool)), self.rows, replace=False)
        return torch.from_numpy(self._pool[chosen].astype(np.float32)).transpose(0, 1).contiguous()
