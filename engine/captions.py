"""What becomes of recognised words: which are final, which are nonsense, and how they are written down. Pure text.

Words never lose their times: seconds on the one clock of the samples fed since the start.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from engine.types import OTHERS, SPEECH, SottovoceError, UsageError, Word

FORMATS = ("srt", "vtt", "txt", "json")
LINE_CHARS, LINES, CUE_S = 42, 2, 6.0
GAP_S = 1.5  # a pause this long ends a caption
MIN_CUE_S = 0.5  # shorter captions are held this long where the next leaves room
SENTENCE_ENDS = ".?!。？！…"
SPEAKERS = {SPEECH: "You", OTHERS: "Others"}  # how who spoke is written down
OPENING = frozenset("\"'“‘¿¡([{-–—„«")

SPACELESS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3000, 0x30FF), (0x3400, 0x9FFF), (0xFF00, 0xFFEF))

# The most of Whisper's tokens a second. A calm voice takes 3 of English, 6 to 8 of Russian and Czech, 8 to 12 of those
# in the second line, and 14 or more where single letters are two or three tokens.
TOKENS_PER_S, OF_OTHERS = {"en": 7.0}, 12.0
TOKENS_PER_S |= dict.fromkeys(["el", "fa", "he", "ja", "ps", "sd", "ur", "yi"], 20.0)
TOKENS_PER_S |= dict.fromkeys(["am", "as", "bn", "bo", "gu", "hi", "hy", "ka", "km", "kn", "lo"], 40.0)
TOKENS_PER_S |= dict.fromkeys(["ml", "mr", "my", "ne", "pa", "sa", "si", "ta", "te", "th"], 40.0)
MAX_COMPRESSION = 2.4  # openai-whisper's own limit: text that packs better than this repeats itself
NO_SPEECH_LIMIT = 0.6
LOGPROB_LIMIT = -1.0
VOICED_S = 1.5  # with so much voice there is somebody, whatever the recogniser thinks: loud noise makes it doubt that
DOUBTED = 0.2  # a segment without one word likelier than this was noise: 3 of 3 words in 18 minutes without speech
NGRAM_LONGEST = 12
ECHO_WORDS = 3
SQUEEZED_S = 0.15
HASTY_S = 0.05
# What Whisper says when nobody speaks, most of it learnt from subtitles. Dropped only where nothing else was said
# and the voice was short or doubtful, because people do say these.
INVENTED = frozenset(
    {
        "thank you",
        "thanks for watching",
        "thank you for watching",
        "thank you very much",
        "please subscribe",
        "subtitles by the amara org community",
        "you",
        "bye",
        "untertitel der amara org community",
        "untertitel im auftrag des zdf für funk 2017",
        "sous titres réalisés par la communauté damara org",
        "subtítulos realizados por la comunidad de amara org",
        "sottotitoli creati dalla comunità amara org",
        "продолжение следует",
        "субтитры сделал dimatorzok",
        "titulky vytvořil johnyx",
    }
)


@dataclass(frozen=True)
class Heard(Word):
    """A word of a hypothesis, with the recogniser's tokens that spell it."""

    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spoken(Word):
    """A word with who spoke it: SPEECH for the microphone, OTHERS for the second sound."""

    source: str = SPEECH


W = TypeVar("W", bound=Word)


def normalised(text: str) -> str:
    """Letters and digits alone, case folded: how two hypotheses are compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum())


class Agreement(Generic[W]):
    """AlignAtt (Papi 2023), and LocalAgreement-2 (Liu 2020) where the attention is not far enough back to be sure.

    A word is final at once when it ends `sure_s` before the horizon, by what the attention says, and otherwise when two
    hypotheses in a row begin with the same words up to it. Final words are never seen again: each hypothesis holds only
    what follows them.
    """

    def __init__(self, sure_s: float = math.inf) -> None:
        self.sure_s = sure_s
        self._before: list[str] = []

    def update(self, tail: Sequence[W], horizon_s: float) -> tuple[list[W], list[W]]:
        """One more hypothesis of what follows the final words -> (words now final, words that may change).

        Words that end after `horizon_s` stay tentative: the sound that would tell is not there yet. So does the last
        word: only the next one shows whether a comma or a full stop follows it.
        """
        said = [normalised(word.text) for word in tail]
        count = 0
        for word, text in zip(tail[:-1], said[:-1], strict=True):
            known = count < len(self._before) and self._before[count] == text
            sure = word.end_s <= horizon_s - self.sure_s
            if word.end_s > horizon_s or not (known or sure):
                break
            count += 1
        self._before = said[count:]
        return list(tail[:count]), list(tail[count:])

    def finish(self, tail: Sequence[W]) -> list[W]:
        """The last hypothesis before a pause: all of it is final."""
        self._before = []
        return list(tail)


class Transcript:
    """Final words in order and the tail that may change. Times never run backwards."""

    def __init__(self) -> None:
        self.final: list[Word] = []
        self.tentative: tuple[Word, ...] = ()

    def add(self, final: Iterable[Word], tentative: Iterable[Word] = ()) -> None:
        """Append final words, replace the tail."""
        for word in final:
            start = max(word.start_s, self.final[-1].start_s if self.final else 0.0)
            self.final.append(replace(word, start_s=start, end_s=max(word.end_s, start)))
        self.tentative = tuple(tentative)

    @property
    def text(self) -> str:
        return join_words([*self.final, *self.tentative])


def join_words(words: Iterable[Word]) -> str:
    """Words as running text, with spaces where the writing has them."""
    text = ""
    for word in words:
        part = word.text.strip()
        glued = not text or (part and _is_spaceless(text[-1]) and _is_spaceless(part[0]))
        text += part if glued or not part else " " + part
    return text


def _is_spaceless(letter: str) -> bool:
    """Chinese, Japanese, Thai, Lao, Burmese and Khmer letters, and the full-width punctuation beside them."""
    code = ord(letter)
    return any(first <= code <= last for first, last in SPACELESS)


def merge_pieces(pieces: Sequence[Heard]) -> list[Heard]:
    """Whisper's pieces -> words. What has no leading space goes on with the word before (commas, "-hearted").

    A piece without a letter never stands alone: at the very start it waits for the word after it, and is shown there
    only if it is an opening mark, because a closing one belongs to a word that is final already.
    """
    words: list[Heard] = []
    waiting: list[Heard] = []
    for piece in pieces:
        mark = not normalised(piece.text)
        opens = piece.text.strip() in OPENING
        if words and not waiting and not opens and (mark or _goes_on(words[-1].text, piece.text)):
            words[-1] = _joined([words[-1], piece])
        elif mark:
            waiting.append(piece)
        else:
            words.append(_joined([*waiting, piece]))
            waiting = []
    if waiting and words:
        words[-1] = _joined([words[-1], *waiting])
    return words


def _goes_on(before: str, text: str) -> bool:
    return not text.startswith(" ") and not (_is_spaceless(before[-1:] or " ") or _is_spaceless(text[:1] or " "))


def _joined(pieces: Sequence[Heard]) -> Heard:
    """One word of several pieces; the time is that of the pieces with letters."""
    lettered = [p for p in pieces if normalised(p.text)] or list(pieces)
    start = next(i for i, p in enumerate(pieces) if p is lettered[0])
    shown = [p.text.strip() for i, p in enumerate(pieces) if i >= start or p.text.strip() in OPENING]
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    probability = min(p.probability for p in lettered)
    return Heard("".join(shown), lettered[0].start_s, lettered[-1].end_s, probability, tokens)


# Guards ---------------------------------------------------------------------------------------------------------------


def compression_ratio(text: str) -> float:
    """Bytes over packed bytes; high for text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def token_cap(speech_s: float, language: str | None) -> int:
    """The most tokens that can have been spoken in this time."""
    return int(TOKENS_PER_S.get(language or "", OF_OTHERS) * speech_s) + 8


def loop_start(items: Sequence[object]) -> int | None:
    """Where a loop begins to repeat: the index after its first round, or None.

    One item five times in a row, two or three items four times, longer runs three times. Speech repeats, but not so.
    """
    best: int | None = None
    for size in range(1, NGRAM_LONGEST + 1):
        rounds = 5 if size == 1 else 4 if size <= 3 else 3
        run = 0
        for index in range(size, len(items)):
            run = run + 1 if items[index] == items[index - size] else 0
            if run >= size * (rounds - 1):
                start = index - run + 1
                best = start if best is None else min(best, start)
                break
    return best


def without_loops(words: Sequence[W]) -> list[W]:
    """The words up to the first round of a loop; all of them when there is none."""
    start = loop_start([normalised(word.text) for word in words])
    return list(words if start is None else words[:start])


def without_second_round(words: Sequence[W]) -> list[W]:
    """The words without an end that only says once more what was said right before it, part of it in no time.

    A recogniser that hears a short phrase and then nothing likes to say it twice. Who does say it twice takes the time.
    """
    said = [normalised(word.text) for word in words]
    for size in range(1, len(said) // 2 + 1):
        start = len(said)
        while start > size and said[start - 1] == said[start - 1 - size]:
            start -= 1
        again = words[start:]
        if len(again) >= size and any(word.end_s - word.start_s < HASTY_S for word in again):
            return list(words[:start])
    return list(words)


def without_echo(said: Sequence[Word], words: Sequence[W]) -> list[W]:
    """The words without a beginning that says again what was said last: three words or more, the same in order.

    A recogniser that is made to begin with a whole sentence likes to say it once more.
    """
    before = [normalised(word.text) for word in said]
    after = [normalised(word.text) for word in words]
    for count in range(min(len(before), len(after)), ECHO_WORDS - 1, -1):
        if before[-count:] == after[:count]:
            return list(words[count:])
    return list(words)


def without_squeezed(words: Sequence[W]) -> list[W]:
    """The words up to the first three that share less time than anybody needs to say them: those were made up."""
    for index in range(len(words) - ECHO_WORDS + 1):
        if words[index + ECHO_WORDS - 1].end_s - words[index].start_s < SQUEEZED_S:
            return list(words[:index])
    return list(words)


def sounds_invented(words: Sequence[Word], no_speech: float, logprob: float, speech_s: float) -> bool:
    """Whether a whole segment's text is more likely Whisper's than the speaker's.

    no_speech: Whisper's probability that nobody speaks; logprob: mean over the tokens; speech_s: voice the VAD found.
    """
    text = join_words(words)
    if no_speech > NO_SPEECH_LIMIT and logprob < LOGPROB_LIMIT and speech_s < VOICED_S:
        return True
    if compression_ratio(text) > MAX_COMPRESSION or max((w.probability for w in words), default=1.0) < DOUBTED:
        return True
    plain = " ".join(filter(None, (normalised(part) for part in text.replace(".", " ").replace("-", " ").split())))
    doubtful = no_speech > 0.3 or logprob < -0.7 or speech_s < 0.35
    return plain in INVENTED and doubtful


# Writing down ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cue:
    """One caption on the screen: at most LINES lines of LINE_CHARS characters, CUE_S seconds."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def wrap(words: Sequence[Word]) -> tuple[str, ...]:
    """Fill lines word by word; a single word longer than a line stands alone on its own."""
    lines: list[str] = []
    for part in join_words(words).split():
        if lines and len(lines[-1]) + 1 + len(part) <= LINE_CHARS:
            lines[-1] += " " + part
        else:
            lines.append(part)
    return tuple(_unspaced(line) for line in lines) if lines else ()


def _unspaced(line: str) -> str:
    """Writing without spaces has one long word; it is cut for the eye at the line's width."""
    if len(line) <= LINE_CHARS or " " in line or line.isascii():
        return line
    return "\n".join(line[at : at + LINE_CHARS] for at in range(0, len(line), LINE_CHARS))


def group(words: Collection[Word]) -> list[Cue]:
    """Words -> captions that can be read: broken at pauses, after sentences, and where they would grow too long.

    Where others were captioned, too, each speaker has captions of their own that begin with who it is, by their start.
    """
    if not _others_spoke(words):
        return _grouped(words, ())
    cues = []
    for source, name in SPEAKERS.items():
        said = (word for word in words if _source(word) == source)
        cues += _grouped(said, (Word(f"{name}:", 0.0, 0.0),))
    return sorted(cues, key=lambda cue: cue.start_s)


def _source(word: Word) -> str:
    return word.source if isinstance(word, Spoken) else SPEECH


def _others_spoke(words: Iterable[Word]) -> bool:
    return any(_source(word) == OTHERS for word in words)


def _grouped(words: Iterable[Word], label: tuple[Word, ...]) -> list[Cue]:
    """One speaker's captions; each begins with the label."""
    cues: list[Cue] = []
    held: list[Word] = []
    for word in words:
        if held and _breaks(held, word, label):
            cues.append(_cue(held, word.start_s, label))
            held = []
        held.append(word)
    if held:
        cues.append(_cue(held, held[-1].end_s + CUE_S, label))
    return [cue for cue in cues if cue.lines]


def _breaks(held: Sequence[Word], word: Word, label: tuple[Word, ...]) -> bool:
    if word.start_s - held[-1].end_s > GAP_S or word.end_s - held[0].start_s > CUE_S:
        return True
    if len(wrap([*label, *held, word])) > LINES:
        return True
    ended = held[-1].text.rstrip()[-1:] in SENTENCE_ENDS
    return bool(ended and len(join_words(held)) > LINE_CHARS // 2)


def _cue(words: Sequence[Word], next_start_s: float, label: tuple[Word, ...]) -> Cue:
    start = words[0].start_s
    end = max(words[-1].end_s, min(start + MIN_CUE_S, next_start_s), start)
    return Cue(start, min(end, max(start + CUE_S, words[0].end_s)), wrap([*label, *words]))


def format_captions(words: Collection[Word], format: str, language: str | None = None) -> str:
    """Captions as the text of a file in one of FORMATS; raises UsageError for another."""
    if format not in FORMATS:
        raise UsageError(f"captions are written as {', '.join(FORMATS)}, not {format!r}; choose one with --format")
    if format == "json":
        return _json(words, language)
    cues = group(words)
    if format == "txt":
        return "".join(" ".join(cue.lines) + "\n" for cue in cues)
    import pysubs2  # late: a live run starts without

    subtitles = pysubs2.SSAFile()
    for cue in cues:
        event = pysubs2.SSAEvent(start=round(cue.start_s * 1000), end=round(cue.end_s * 1000))
        event.plaintext = "\n".join(cue.lines)
        subtitles.append(event)
    return str(subtitles.to_string(format))


def _json(words: Collection[Word], language: str | None) -> str:
    grouped = group(words)
    cues = [
        {"start_s": round(cue.start_s, 3), "end_s": round(cue.end_s, 3), "text": "\n".join(cue.lines)}
        for cue in grouped
    ]
    two = _others_spoke(words)
    listed = [
        {
            "text": word.text.strip(),
            "start_s": round(word.start_s, 3),
            "end_s": round(word.end_s, 3),
            "probability": round(word.probability, 3),
        }
        | ({"source": _source(word)} if two else {})
        for word in words
    ]
    text = "\n".join(" ".join(cue.lines) for cue in grouped) if two else join_words(words)
    whole = {"version": 1, "language": language, "text": text, "captions": cues, "words": listed}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def format_named(path: Path) -> str | None:
    """The format that a file's extension asks for; None where that is no caption format's."""
    suffix = path.suffix.lstrip(".").lower()
    return suffix if suffix in FORMATS else None


def write_captions(
    words: Collection[Word], path: str | Path, format: str | None = None, language: str | None = None
) -> None:
    """Write a caption file beside and rename it; the format is the extension's unless told. Raises SottovoceError."""
    target = Path(path)
    if target.exists() and not target.is_file():
        raise SottovoceError(f"{target} is no plain file; choose another name")
    text = format_captions(words, format or target.suffix.lstrip(".").lower(), language)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name + ".")
    except OSError as error:
        raise SottovoceError(f"{target} cannot be written ({error.strerror}); choose another folder") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except OSError as error:
        raise SottovoceError(f"{target} cannot be written ({error.strerror}); make room or choose another") from error
    finally:
        Path(name).unlink(missing_ok=True)
