"""Which noise is in a recording: the recogniser's process asked about sound alone, without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from engine.artefacts import Models
from engine.mix import active_rms
from engine.recognizer import POLL_S, Recognizer
from engine.residue import ResidueReader
from engine.scenes import ScenePlayer, load_scene
from engine.types import ArtefactError, Problem, Residue, Samples, SottovoceError
from engine.vad import SAMPLE_RATE_HZ

PIECE = SAMPLE_RATE_HZ // 2
LEAD_S = 10.0  # how far a file may run ahead


def residue_of(sound: Iterable[Samples], progress: Callable[[float], None] | None = None) -> Iterator[Residue]:
    """What is left over of a recording, 16 kHz mono in pieces of any length: an event a second where it sounds.

    Constant memory. Raises ArtefactError where Whisper or the residue's graph is missing, SottovoceError when the
    recogniser fails.
    """
    recognizer = Recognizer(None, live=False, residue=True)
    if ResidueReader().recogniser != recognizer.model:
        raise ArtefactError("noises are told apart with another Whisper than this installation has; install it again")
    recognizer.start()
    try:
        recognizer.wait_ready()
        for piece in sound:
            for at in range(0, len(piece), PIECE):
                part = piece[at : at + PIECE]
                recognizer.leave_out(len(part))
                recognizer.watch(part)
                while recognizer.running and recognizer.lag_s > LEAD_S:
                    yield from _told(recognizer, progress)
                    time.sleep(POLL_S)
                yield from _told(recognizer, progress)
        recognizer.end()
        while not recognizer.wait_done(0.25):
            yield from _told(recognizer, progress)
        yield from _told(recognizer, progress)
    finally:
        recognizer.stop()


def _told(recognizer: Recognizer, progress: Callable[[float], None] | None) -> list[Residue]:
    events = recognizer.poll()
    if progress:
        progress(recognizer.heard_s)
    for event in events:
        if isinstance(event, Problem):  # a process that died was given no sound a second time
            raise SottovoceError(event.text)
    if not recognizer.ready and recognizer.heard_s == 0.0 and not recognizer.running:
        raise SottovoceError("the recogniser did not start; run sottovoce doctor")
    return [event for event in events if isinstance(event, Residue)]


def placed(sound: Samples, scene: str, models: Models, snr_db: float) -> Samples:
    """A voice [N] at 16 kHz in one of the shipped places, so many dB above it. Raises UsageError for no such place."""
    player = ScenePlayer(models, load_scene(scene, codec_id=models.info.codec_id), 0.0)
    hops = -(-len(sound) // models.info.hop_samples)
    noise = np.concatenate([player.next()[1] for _ in range(hops)])[: len(sound)]
    rms = float(np.sqrt(np.square(noise).mean()))
    gain = np.float32(active_rms(sound) * 10.0 ** (-snr_db / 20.0) / max(rms, 1e-6))
    mixed: Samples = (sound + noise * gain).astype(np.float32)
    return mixed
