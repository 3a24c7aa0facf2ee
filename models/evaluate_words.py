"""What the recogniser is worth: `python -m models.evaluate recognizer --out DIR [--parts kinds,streaming]`.

    kinds       validation pairs: how often the kind of noise is told from the residue, clean told from noisy, and how
                many tokens are the same in noise as without, over SNR
    streaming   public test, a stream of all its utterances (an hour's work): live against offline word errors, and
                when words are final, of the noisy sound, of what captions hear, and of the voice alone
    languages   Czech, Russian and Dutch, clean and in validation noise: as `caption` hears a file, and live, beside
                plain Whisper (evaluate_languages)
    floor       English and Russian in validation noise, with more and less of the background left (evaluate_floor)
    coverage    public test at 0 dB: how much of the time of the words, where the voice sounds, a word is written about
    silence     ten minutes of validation noise and music, nobody speaking: words made up
    tokens      public test, all its utterances in a row: words from the voice's tokens beside those from sound
                (evaluate_tokens)
    adapter     public test, 40 utterances in a row: words through the quantiser inside Whisper and without, from sound
                and from tokens (evaluate_adapter)
    unseen      public test: how the residue parts kinds of noise it was never taught, beside a plain quantiser's, and
                how many tokens are the same in noise as without (separability)

Here the recogniser is as captions run it. `models.evaluate --wer` has word errors of all systems after plain Whisper.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from engine.artefacts import shared_models
from engine.captions import join_words
from engine.hop import Pipeline
from engine.listener import LIVE, OFFLINE, Listener, Pace
from engine.mix import ACTIVE_FRAME, frame_powers, is_active
from engine.residue import ResidueReader, ResidueWatch
from engine.side import LEFT_FOR_RECOGNISER
from engine.token_words import TokenBridge, bridge_path, has_bridge
from engine.types import Background, Provider, Samples, SottovoceError, Word
from engine.vad import SileroVad
from models.metrics import Listen, WordErrors, word_error_rate, word_errors, word_errors_in_parts
from models.separability import as_table as unseen_table
from models.separability import unseen
from models.shards import RATE_HZ, Clip, load, to_float
from models.tables import table
from models.testset import Mixture, build
from models.training import status_of
from models.word_pairs import CLEAN, KIND_OF, KINDS, UNKNOWN, Pair, PairMaker, pairs_of

PARTS = ("kinds", "streaming", "languages", "floor", "coverage", "silence", "tokens", "adapter", "unseen")
PIECE = RATE_HZ // 10
PLAIN_WHISPER, ENHANCED = "plain Whisper", "noisy, enhanced"
COVER_S = 0.3  # a word may be written so much beside its place and still cover it
BLOCKS = 6  # of validation pairs
PAUSE_S, UTTERANCES = 1.2, 40
SILENCE = "silence"  # as a kind of what is heard while nobody speaks
SILENT_S, STRETCH_S = 600.0, 20.0
SNR_BANDS_DB = ((-np.inf, -100.0), (-100.0, 0.0), (0.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, 100.0))
console = Console(stderr=True)


# Kinds of noise -------------------------------------------------------------------------------------------------------


def kinds(pairs: Sequence[Pair], reader: ResidueReader, decoder: Any) -> dict[str, Any]:
    """Percent of pairs whose kind is told, how sure that was said to be, of those told clean or not rightly, and of
    equal tokens; and over SNR.

    The kind is what a live run would show at the pair's end, from two seconds at a time.
    """
    rows = []
    for pair in track(pairs, "kinds", console=console):
        noisy, clean = (reader.read(decoder.frames(sound)).codes for sound in (pair.noisy, pair.clean))
        equal = float(np.mean(noisy == clean)) if np.isfinite(pair.snr_db) else np.nan
        rows.append((pair.snr_db, KIND_OF[pair.noise], *shown_at_the_end(pair.noisy, reader, decoder), equal))
    known = [row for row in rows if row[1] != UNKNOWN]
    by_snr: dict[str, Any] = {}
    for low, high in SNR_BANDS_DB:
        if band := [row for row in known if low <= row[0] < high and row[1] != CLEAN]:
            name = "no voice" if high < 0 and low < -100 else f"{low:g} to {high:g} dB"
            by_snr[name] = _shares(band)
    by_kind = {kind: _shares([row for row in known if row[1] == kind]) for kind in sorted({row[1] for row in known})}
    return {"all": _shares(rows), "without unknown": _shares(known), "by_snr": by_snr, "by_kind": by_kind}


def shown_at_the_end(sound: Samples, reader: ResidueReader, decoder: Any) -> tuple[str, float]:
    """The kind of noise that is shown when a sound [N] has been heard, and how sure it is said to be, 0 to 1; clean
    where nothing was to be told."""
    watch, told, sure = ResidueWatch(reader), CLEAN, 1.0
    for end in range(PIECE, len(sound) + PIECE, PIECE):
        watch.feed(sound[end - PIECE : end], min(end, len(sound)))
        if (taken := watch.take(last=end >= len(sound))) is not None:
            shown = watch.look(decoder.frames(taken))
            told, sure = shown.noise_class, shown.confidence
    return told, sure


def _shares(rows: Sequence[tuple[float, str, str, float, float]]) -> dict[str, Any]:
    right = np.mean([kind == told for _, kind, told, *_ in rows])
    parted = np.mean([(kind == CLEAN) == (told == CLEAN) for _, kind, told, *_ in rows])
    sure = np.mean([row[3] for row in rows])
    equal = [row[4] for row in rows if np.isfinite(row[4])]
    shares = {"kind": right, "said to be sure": sure, "clean or not": parted} | (
        {"equal tokens": np.mean(equal)} if equal else {}
    )
    return {name: round(100.0 * float(value), 1) for name, value in shares.items()} | {"pairs": len(rows)}


# Streaming ------------------------------------------------------------------------------------------------------------


def stream_of(mixtures: Sequence[Mixture], name: str) -> tuple[Samples, str]:
    """The mixtures' `mixture` or `speech` in a row with pauses, and all that is said."""
    sound = in_a_row([getattr(mixture, name) for mixture in mixtures])
    return sound, " ".join(mixture.transcript for mixture in mixtures)


def in_a_row(sounds: Sequence[Samples]) -> Samples:
    """One sound of several, a pause after each."""
    pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
    return np.concatenate([part for sound in sounds for part in (sound, pause)])


def heard_live(sound: Samples, pace: Pace, decoder: Any, language: str = "en") -> tuple[list[Word], list[float]]:
    """Words of a sound that comes in real time, and how long after its end each was final.

    The clock is the sound's own: the processor time that the recogniser takes is added, so nothing has to be waited
    for, and other programs on the machine do not count.
    """
    return heard_by(Listener(decoder, SileroVad(), language, pace), sound)


def heard_by(
    listener: Listener, sound: Samples, coming: Callable[[int], object] = lambda place: None
) -> tuple[list[Word], list[float]]:
    """As `heard_live`, by this listener; coming: called with how far the sound will be there, before it is."""
    words, delays_s = list[Word](), list[float]()
    now_s, ended = 0.0, False
    while True:
        due = min(len(sound), int(now_s * RATE_HZ))
        if due > listener.fed_to:
            coming(due)
            listener.feed(sound[listener.fed_to : due])
        began = time.process_time()
        update = listener.advance()
        now_s += time.process_time() - began
        if update is not None:
            words += update.final
            delays_s += [now_s - word.end_s for word in update.final]
        elif ended:
            return words, delays_s
        elif listener.fed_to >= len(sound):
            listener.finish()
            ended = True
        else:
            now_s = max(now_s, (listener.fed_to + PIECE) / RATE_HZ)


def parted(mixture: Samples) -> tuple[Samples, Samples]:
    """The voice and the background of a noisy sound [N], a lag late, whole hops of it."""
    models = shared_models(Provider.CPU)
    pipeline, hop = Pipeline(models, Background.parse("drop")), models.info.hop_samples
    steps = [pipeline.step(x) for x in mixture[: len(mixture) // hop * hop].reshape(-1, hop)]
    voice = np.concatenate([step.speech for step in steps])
    return voice, np.concatenate([step.background for step in steps])


def taps_of(mixture: Samples) -> dict[str, Samples]:
    """What the recogniser may be given of a noisy sound [N]: itself, what captions hear, and the voice alone."""
    voice, rest = parted(mixture)
    return {"noisy": mixture, ENHANCED: voice + LEFT_FOR_RECOGNISER * rest, "noisy, voice alone": voice}


def streaming(mixtures: Sequence[Mixture], decoder: Any, listen: Listen) -> dict[str, Any]:
    """Word errors in percent of one stream, live and offline, clean and noisy; and the words' delays in seconds.

    listen: plain Whisper, which is given each utterance by itself.
    """
    found: dict[str, Any] = {"utterances": len(mixtures)}
    for title, part in (("clean", "speech"), ("noisy", "mixture")):
        said = track(mixtures, f"plain Whisper, {title}", console=console)
        errors = [word_errors(listen(getattr(item, part)), item.transcript) for item in said]
        found[f"{title}, {PLAIN_WHISPER}"] = word_error_rate(errors).row()
    clean, text = stream_of(mixtures, "speech")
    sounds = {"clean": clean, "clean, enhanced": taps_of(clean)[ENHANCED]}
    for title, sound in (sounds | taps_of(stream_of(mixtures, "mixture")[0])).items():
        console.print(f"streaming: {title}", highlight=False)
        words, delays_s = heard_live(sound, LIVE, decoder)
        live = word_errors_in_parts(join_words(words), text)
        offline = word_errors_in_parts(join_words(heard_live(sound, OFFLINE, decoder)[0]), text)
        row = word_error_rate(live).row() | more_than(live, offline)
        if delays_s:
            row |= {"final_s_median": round(float(np.median(delays_s)), 2)}
            row |= {"final_s_p95": round(float(np.percentile(delays_s, 95)), 2)}
        found |= {f"{title}, live": row, f"{title}, offline": word_error_rate(offline).row()}
    return found


def more_than(parts: Sequence[WordErrors], others: Sequence[WordErrors], than: str = "offline") -> dict[str, Any]:
    """How many percent more words are wrong in parts of a stream than in the same parts heard otherwise, called so."""
    more = word_error_rate(
        [WordErrors(part.errors - other.errors, part.words) for part, other in zip(parts, others, strict=True)]
    ).row()
    return {f"over_{than}": more["word_errors_percent"], f"over_{than}_interval": more["interval"]}


# Speech that is left out ----------------------------------------------------------------------------------------------


def covered(spoken: Sequence[Word], written: Sequence[Word], sounding: NDArray[np.bool_]) -> float:
    """Percent of the time of the spoken words in which a word was written, COVER_S to either side of it.

    sounding: for each 20 ms whether the voice sounds there; a word's time may reach into the pause beside it, by the
    words' own times, and that is not counted.
    """
    said, about = np.zeros_like(sounding), np.zeros_like(sounding)
    for word in spoken:
        said[_frame(word.start_s) : _frame(word.end_s)] = True
    for word in written:
        about[_frame(word.start_s - COVER_S) : _frame(word.end_s + COVER_S)] = True
    said &= sounding
    return 100.0 * float(np.sum(said & about)) / max(1, int(np.sum(said)))


def _frame(time_s: float) -> int:
    return max(0, round(time_s * RATE_HZ / ACTIVE_FRAME))


def sounding_of(mixtures: Sequence[Mixture]) -> NDArray[np.bool_]:
    """For each 20 ms of `stream_of` them whether the voice alone sounds: each is measured by its own loudest."""
    sounds, place = np.zeros(len(stream_of(mixtures, "speech")[0]) // ACTIVE_FRAME + 1, np.bool_), 0.0
    for mixture in mixtures:
        active = is_active(frame_powers(mixture.speech))
        sounds[_frame(place) : _frame(place) + len(active)] = active[: len(sounds) - _frame(place)]
        place += len(mixture.speech) / RATE_HZ + PAUSE_S
    return sounds


def coverage(mixtures: Sequence[Mixture], decoder: Any) -> dict[str, Any]:
    """How much of the time of the words of one stream is written about, live; the words' times are those of the clean
    sound."""
    spoken, _ = heard_live(stream_of(mixtures, "speech")[0], OFFLINE, decoder)
    written, _ = heard_live(taps_of(stream_of(mixtures, "mixture")[0])[ENHANCED], LIVE, decoder)
    share = covered(spoken, written, sounding_of(mixtures))
    return {"utterances": len(mixtures), "words": len(spoken), "covered_percent": round(share, 1)}


# Nobody speaks --------------------------------------------------------------------------------------------------------


def nobody_speaks(clips: Sequence[Clip], seconds: float, seed: int = 5) -> Iterator[Samples]:
    """Stretches of every kind of noise in turn, at many levels, and of silence, until so many seconds are full."""
    random = np.random.default_rng(seed)
    names = itertools.cycle([*sorted({clip.class_name for clip in clips}), SILENCE])
    left = round(seconds * RATE_HZ)
    while left > 0:
        name, longest = next(names), min(left, round(STRETCH_S * RATE_HZ))
        piece = np.zeros(longest, np.float32)
        if own := [clip for clip in clips if clip.class_name == name]:
            sound = to_float(own[int(random.integers(len(own)))].samples)
            start = int(random.integers(max(1, len(sound) - round(STRETCH_S * RATE_HZ) + 1)))
            part = sound[start : start + longest]
            rms = float(np.sqrt(np.square(part).mean()))
            piece = (part * np.float32(10 ** (random.uniform(-45.0, -20.0) / 20) / max(rms, 1e-5))).clip(-1.0, 1.0)
        yield piece
        left -= len(piece)


def silence(clips: Sequence[Clip], decoder: Any) -> dict[str, Any]:
    """Words in SILENT_S of noise and music without a voice."""
    sound = np.concatenate(list(nobody_speaks(clips, SILENT_S)))
    words, _ = heard_live(sound, LIVE, decoder)
    return {"seconds": round(len(sound) / RATE_HZ), "words": len(words), "text": join_words(words)[:300]}


# The command ----------------------------------------------------------------------------------------------------------


def whisper_decoder(adapting: bool = False) -> Any:
    """Whisper base as captions use it, and the bridge's blocks for tokens; adapting: through its quantiser, too. Raises
    ArtefactError without its weights, or where an artefact is damaged."""
    from engine.adapter import Adapter
    from engine.weights import require_weights
    from engine.whisper_blocks import merged
    from engine.whisper_decoder import WhisperDecoder, load_model

    weights = require_weights("base")
    model = load_model(weights.path, weights.format, weights.name)
    own = merged(model.encoder, TokenBridge(bridge_path()).own) if has_bridge() else None
    return WhisperDecoder(model, own=own, adapter=Adapter(model.encoder, "base") if adapting else None)


def markdown(found: dict[str, Any]) -> str:
    """The figures as tables."""
    text = []
    if "kinds" in found:
        groups = {"all": found["kinds"]["all"], "without unknown": found["kinds"]["without unknown"]}
        groups |= {f"noisy, {name}": row for name, row in found["kinds"]["by_snr"].items()}
        groups |= found["kinds"]["by_kind"]
        names: tuple[str, ...] = ("pairs", "kind", "said to be sure", "clean or not", "equal tokens")
        lines = [[title, *(f"{row[name]:g}" if name in row else "" for name in names)] for title, row in groups.items()]
        text.append(table(["validation", *names], lines))
    if "streaming" in found:
        rows = {name: row for name, row in found["streaming"].items() if isinstance(row, dict)}
        names = ("word_errors_percent", "interval", "words", "final_s_median", "final_s_p95")
        names += ("over_offline", "over_offline_interval")
        lines = [[title, *(str(row.get(name, "")) for name in names)] for title, row in rows.items()]
        text.append(table(["stream", *names], lines))
    if "languages" in found:
        lines = [
            [name, f"{row['word_errors_percent']:g}", str(row["interval"]), str(row["words"])]
            for name, row in found["languages"].items()
        ]
        text.append(table(["language", "word_errors_percent", "interval", "words"], lines))
    if "floor" in found:
        from models.evaluate_floor import as_table as floor_table

        text.append(floor_table(found["floor"]))
    if "coverage" in found:
        text.append(
            "at 0 dB {covered_percent} % of the time of {words} words is written about\n".format(**found["coverage"])
        )
    if "silence" in found:
        text.append("{seconds} s without a voice: {words} words {text}\n".format(**found["silence"]))
    if "tokens" in found:
        text.append(word_table(found["tokens"], ("written", "cpu_s", "frames_cpu_s")))
    if "adapter" in found:
        text.append(word_table(found["adapter"], ("written",)))
    if "unseen" in found:
        text.append(unseen_table(found["unseen"]))
    return "\n".join(text)


def measure(parts: Sequence[str], out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of these parts, one after the other, each as soon as it is known; a picture goes to `out`. Raises
    SottovoceError where something is missing."""
    decoder = whisper_decoder()
    if "kinds" in parts:
        maker = PairMaker(load("validation", "speech"), load("validation", "background"))
        pairs = [pair for number in range(BLOCKS) for pair in pairs_of(maker, number)]
        yield "kinds", kinds(pairs, ResidueReader(), decoder)
    if "streaming" in parts:
        yield "streaming", streaming(utterances(None), decoder, plain_whisper())
    if "languages" in parts:
        from models.evaluate_languages import languages  # it hears as is heard here

        yield "languages", languages(load("validation", "background"), decoder, plain_whisper())
    if "floor" in parts:
        from models.evaluate_floor import floors  # likewise

        yield "floor", floors(load("validation", "background"), decoder)
    if "coverage" in parts:
        at_zero = [mixture for mixture in build("mixtures") if mixture.transcript and mixture.snr_db == 0.0]
        yield "coverage", coverage(at_zero, decoder)
    if "silence" in parts:
        clips = [clip for clip in load("validation", "background") if clip.class_name != "crowd"]  # people speak there
        yield "silence", silence(clips, decoder)
    if "tokens" in parts:
        from models.evaluate_tokens import from_tokens  # it takes its streams from here

        yield "tokens", from_tokens(utterances(None), decoder)
    if "adapter" in parts:
        from models.evaluate_adapter import adapted  # it takes its streams from here

        yield "adapter", adapted(utterances(), decoder, whisper_decoder(adapting=True))
    if "unseen" in parts:
        yield "unseen", unseen([item for item in build("mixtures") if item.noise_class not in KINDS], decoder, out)


def plain_whisper() -> Listen:
    """Whisper base as it comes, on 30 s windows, greedy."""
    from models.evaluate import whisper_listener  # it comes here for its subcommand

    return whisper_listener()


def utterances(most: int | None = UTTERANCES) -> list[Mixture]:
    """Mixtures of the public test whose words are known: so many from all over it, or all.

    Forty do for what differs much; live less offline they leave unknown by 5 points.
    """
    said = [mixture for mixture in build("mixtures") if mixture.transcript]
    chosen = np.linspace(0, len(said) - 1, min(most or len(said), len(said))).astype(int)
    return [said[number] for number in chosen]


def word_table(found: dict[str, Any], more: Sequence[str]) -> str:
    """Word errors of the parts `tokens` and `adapter`, and these figures beside them."""
    names = ("word_errors_percent", "interval", "words", *more)
    rows = {title: row for title, row in found.items() if isinstance(row, dict)}
    return table(["words from", *names], [[title, *(str(row[name]) for name in names)] for title, row in rows.items()])


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    if set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(PARTS)}")
    return chosen


def run(out: Path, parts: Sequence[str]) -> None:
    """Measure these parts, put each beside what `out` has already when it is there, and print all at the end. Raises
    SottovoceError, OSError."""
    path = out / "recognizer.json"
    out.mkdir(parents=True, exist_ok=True)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise SottovoceError(f"{path} cannot be read ({error}); remove it or name another folder") from error
    for part, figures in measure(parts, out):  # hours of work: what was measured is kept, whatever comes after it
        found[part] = figures
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (out / "recognizer.md").write_text(markdown(found), encoding="utf-8")
    print(markdown(found))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate recognizer", description="Measure the recogniser.")
    parser.add_argument("--out", type=Path, required=True, help="folder for recognizer.json and recognizer.md")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"only these: {','.join(PARTS)}")
    args = parser.parse_args(arguments)
    return status_of(lambda: run(args.out, args.parts), f"stopped; the parts that were done are in {args.out}")
