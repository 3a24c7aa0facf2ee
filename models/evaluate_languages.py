"""Captions of other languages: the part `languages` of `python -m models.evaluate recognizer`; and the pairs of voices
and validation noise by which captions are judged where the public test must not be asked.

The Dutch talker is a validation one; the voices of the other languages were heard in training.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from engine.captions import join_words
from engine.listener import LIVE, OFFLINE
from engine.types import SottovoceError
from models.evaluate_words import ENHANCED, PLAIN_WHISPER, heard_live, taps_of
from models.metrics import Listen, WordErrors, word_error_rate, word_errors
from models.shards import Clip, load
from models.word_pairs import Pair, PairMaker, language_of

LANGUAGES, PAIRS, SNR_DB, SEED = ("cs", "ru", "nl"), 40, (0.0, 15.0), 11
console = Console(stderr=True)


def talkers_of(language: str) -> list[Clip]:
    """Validation voices of a language with their words, or training ones where there are no others."""
    for split in ("validation", "train"):
        if found := [clip for clip in load(split, "speech") if language_of(clip) == language]:
            return found
    raise SottovoceError(f"there is no {language} sound yet; run python -m models.data")


def in_noise(maker: PairMaker, language: str, count: int, snr_db: tuple[float, float]) -> Iterator[Pair]:
    """So many pairs of a language at such levels, the same ones each time."""
    random = np.random.default_rng(SEED)
    drawn = (maker.draw(random, language) for _ in itertools.count())
    yield from itertools.islice((pair for pair in drawn if snr_db[0] <= pair.snr_db <= snr_db[1]), count)


def languages(noises: Sequence[Clip], decoder: Any, listen: Listen) -> dict[str, Any]:
    """Word errors in percent of PAIRS pairs of each language: a file, live, and by `listen` (plain Whisper)."""
    found: dict[str, Any] = {}
    for language in LANGUAGES:
        maker = PairMaker([*talkers_of(language), *load("validation", "speech")], noises)
        counts: dict[str, list[WordErrors]] = defaultdict(list)
        for pair in track(in_noise(maker, language, PAIRS, SNR_DB), language, PAIRS, console=console):
            for name, sound in (("clean", pair.clean), ("noisy", pair.noisy)):
                heard = taps_of(sound)[ENHANCED]
                paces = {"file": OFFLINE, "live": LIVE}
                texts = {how: join_words(heard_live(heard, pace, decoder, language)[0]) for how, pace in paces.items()}
                for how, text in (texts | {PLAIN_WHISPER: listen(sound, language)}).items():
                    counts[f"{language}, {name}, {how}"].append(word_errors(text, pair.text, language))
        for title, errors in counts.items():
            found[title] = word_error_rate(errors).row()
    return found
