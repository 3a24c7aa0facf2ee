"""How much of the background Whisper is to hear under the voice: the part `floor` of `python -m models.evaluate
recognizer`, by which `engine.types.LEFT_FOR_RECOGNISER_DB` is chosen.

Validation noise, and validation voices where a language has any; never the public test. One stream of each language is
parted once, and its background put back at every level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from engine.captions import join_words
from engine.listener import LIVE, OFFLINE
from engine.types import LEFT_FOR_RECOGNISER_DB
from models.evaluate_languages import in_noise, talkers_of
from models.evaluate_words import heard_live, in_a_row, more_than, parted
from models.metrics import WordErrors, word_error_rate, word_errors_in_parts
from models.shards import Clip, load
from models.tables import table
from models.word_pairs import Pair, PairMaker

FLOORS_DB = (0.0, -6.0, LEFT_FOR_RECOGNISER_DB, -15.0, -20.0, -np.inf)  # the sound as it came, to the voice alone
PAIRS, SNR_DB = {"en": 60, "ru": 40}, (-5.0, 15.0)
SHIPPED = f"{LEFT_FOR_RECOGNISER_DB:g} dB"
PACES = {"live": LIVE, "whole": OFFLINE}
console = Console(stderr=True)


def floors(noises: Sequence[Clip], decoder: Any) -> dict[str, Any]:
    """Word errors in percent of a stream of each language, live and whole, at each level of the background, and how
    many more they are than at the one that is shipped."""
    found: dict[str, Any] = {}
    for language, count in PAIRS.items():
        maker = PairMaker([*talkers_of(language), *load("validation", "speech")], noises)
        found |= _of_one(list(in_noise(maker, language, count, SNR_DB)), language, decoder)
    return found


def _of_one(pairs: Sequence[Pair], language: str, decoder: Any) -> dict[str, Any]:
    text = " ".join(pair.text for pair in pairs)
    voice, rest = parted(in_a_row([pair.noisy for pair in pairs]))
    errors: dict[tuple[str, float], list[WordErrors]] = {}
    for floor_db in FLOORS_DB:
        console.print(f"floor: {language}, {floor_db:g} dB", highlight=False)
        sound = voice + np.float32(10.0 ** (floor_db / 20.0)) * rest
        for name, pace in PACES.items():
            written = join_words(heard_live(sound, pace, decoder, language)[0])
            errors[name, floor_db] = word_errors_in_parts(written, text, language)
    return {
        f"{language}, {floor_db:g} dB, {name}": word_error_rate(parts).row()
        | more_than(parts, errors[name, LEFT_FOR_RECOGNISER_DB], SHIPPED)
        for (name, floor_db), parts in errors.items()
    }


def as_table(found: dict[str, Any]) -> str:
    """The figures as a table."""
    names = ("word_errors_percent", "interval", "words", f"over_{SHIPPED}", f"over_{SHIPPED}_interval")
    titles = ["background", *names[:3], f"more than at {SHIPPED}", "interval"]
    return table(titles, [[title, *(str(row[name]) for name in names)] for title, row in found.items()])
