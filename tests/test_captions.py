"""The text rules of captions: what is final stays, nonsense goes, and every file format can be read again."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.captions import (
    CUE_S,
    FORMATS,
    LINE_CHARS,
    LINES,
    Agreement,
    Heard,
    Transcript,
    compression_ratio,
    format_captions,
    group,
    join_words,
    loop_start,
    merge_pieces,
    normalised,
    sounds_invented,
    token_cap,
    without_echo,
    without_loops,
    without_second_round,
    without_squeezed,
    write_captions,
)
from engine.types import SottovoceError, UsageError, Word


def said(text: str, start_s: float = 0.0, word_s: float = 0.4) -> list[Word]:
    """Words of a sentence, one after another."""
    return [Word(w, start_s + i * word_s, start_s + (i + 1) * word_s) for i, w in enumerate(text.split())]


def texts(words: object) -> list[str]:
    return [w.text for w in words]  # type: ignore[attr-defined]


vocabulary = st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Well,", "no", "yes", "extraordinarily"])
sentences = st.lists(vocabulary, max_size=60)
timed = st.lists(
    st.tuples(vocabulary, st.floats(0.0, 1.0, allow_subnormal=False), st.floats(0.0, 8.0, allow_subnormal=False)),
    max_size=80,
)


def clocked(parts: list[tuple[str, float, float]]) -> list[Word]:
    """(text, length, pause before) -> words in order of time."""
    words, at = [], 0.0
    for text, length_s, pause_s in parts:
        words.append(Word(text, at + pause_s, at + pause_s + length_s))
        at = words[-1].end_s
    return words


# Agreement ------------------------------------------------------------------------------------------------------------


def test_a_word_is_final_when_two_answers_agree() -> None:
    agreement: Agreement[Word] = Agreement()
    final, tail = agreement.update(said("and so my"), 9.0)
    assert (final, texts(tail)) == ([], ["and", "so", "my"])
    final, tail = agreement.update(said("And so, by fellow"), 9.0)
    assert (texts(final), texts(tail)) == (["And", "so,"], ["by", "fellow"])
    final, tail = agreement.update(said("by fellow Americans"), 9.0)
    assert (texts(final), texts(tail)) == (["by", "fellow"], ["Americans"])
    assert texts(agreement.finish(said("Americans ask"))) == ["Americans", "ask"]


def test_a_word_at_the_edge_of_the_sound_stays_tentative() -> None:
    agreement: Agreement[Word] = Agreement()
    agreement.update(said("one two three"), 1.0)
    final, tail = agreement.update(said("one two three"), 1.0)
    assert (texts(final), texts(tail)) == (["one", "two"], ["three"])


def test_a_word_waits_for_the_mark_that_may_follow_it() -> None:
    agreement: Agreement[Word] = Agreement()
    agreement.update(said("Good morning"), 9.0)
    final, _ = agreement.update(said("Good morning"), 9.0)
    assert texts(final) == ["Good"]
    final, _ = agreement.update(said("morning. This"), 9.0)
    assert texts(final) == ["morning."]


def test_what_attention_puts_far_enough_back_is_final_by_one_answer() -> None:
    agreement = Agreement[Word](sure_s=0.5)
    words = said("one two three four five")
    final, tail = agreement.update(words, words[1].end_s + 0.5)
    assert (texts(final), texts(tail)) == (["one", "two"], ["three", "four", "five"])
    final, tail = agreement.update(tail, words[3].end_s)
    assert (texts(final), texts(tail)) == (["three", "four"], ["five"])


def test_without_agreement_the_horizon_alone_decides() -> None:
    final, tail = Agreement[Word](sure_s=0.0).update(said("one two three"), 0.9)
    assert (texts(final), texts(tail)) == (["one", "two"], ["three"])


@given(st.lists(sentences, min_size=1, max_size=12))
def test_final_words_are_what_answers_agreed_on(answers: list[list[str]]) -> None:
    """Whatever the answers are: each final word was said by two answers in a row, none comes twice, none is lost."""
    agreement: Agreement[Word] = Agreement()
    before: list[str] = []
    for answer in answers:
        final, tail = agreement.update(said(" ".join(answer)), 1e9)
        spoken = [normalised(w) for w in answer]
        assert texts([*final, *tail]) == answer
        assert [normalised(w.text) for w in final] == spoken[: len(final)] == before[: len(final)]
        if len(final) < min(len(spoken) - 1, len(before)):
            assert spoken[len(final)] != before[len(final)]
        before = spoken[len(final) :]
    assert texts(agreement.finish(said("the end"))) == ["the", "end"]


@given(timed)
def test_a_transcript_never_runs_backwards(parts: list[tuple[str, float, float]]) -> None:
    transcript = Transcript()
    words = clocked(parts)
    for index, word in enumerate(words):
        transcript.add([Word(word.text, word.start_s - 0.3 * (index % 3), word.end_s)], words[index + 1 :][:2])
    starts = [w.start_s for w in transcript.final]
    assert starts == sorted(starts)
    assert all(w.end_s >= w.start_s for w in transcript.final)
    assert texts(transcript.final) == texts(words)


# Guards ---------------------------------------------------------------------------------------------------------------


def test_loops_are_cut_after_their_first_round() -> None:
    assert texts(without_loops(said("it is " + "you know " * 9))) == ["it", "is", "you", "know"]
    assert texts(without_loops(said("well " + "no " * 12))) == ["well", "no"]
    chorus = "to be ill disposed unless to be rather cold "
    assert texts(without_loops(said(chorus * 3))) == chorus.split()


@pytest.mark.parametrize("text", ["no no no no", "very very good", "I said I said I said so", "bye bye, bye bye"])
def test_people_may_repeat_themselves(text: str) -> None:
    assert texts(without_loops(said(text))) == text.split()


@given(sentences)
def test_cutting_loops_gives_a_beginning_without_any(words: list[str]) -> None:
    kept = texts(without_loops(said(" ".join(words))))
    assert kept == words[: len(kept)]
    assert loop_start([normalised(w) for w in kept]) is None


@given(st.lists(vocabulary, min_size=1, max_size=12), st.integers(5, 9), sentences)
def test_every_loop_is_found(turn: list[str], rounds: int, before: list[str]) -> None:
    assert loop_start(before + turn * rounds) is not None


def test_a_sentence_said_again_at_once_is_an_echo() -> None:
    held = said("he was not ill disposed")
    assert texts(without_echo(held, said("he was not ill disposed he said"))) == ["he", "said"]
    assert texts(without_echo(held, said("ill disposed towards us"))) == ["ill", "disposed", "towards", "us"]
    assert without_echo([], said("he was")) == said("he was")


def test_words_that_nobody_could_say_in_their_time_are_made_up() -> None:
    words = [*said("young man"), *said("he was not an", 0.8, 0.02)]
    assert texts(without_squeezed(words)) == ["young", "man"]
    assert without_squeezed(said("I do not", 0.0, 0.1)) == said("I do not", 0.0, 0.1)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Good morning Good morning", "Good morning"),
        ("good day. Good morning. Good morning", "good day. Good morning."),
        ("a smoke a smoke a", "a smoke"),
        ("and so bye Bye.", "and so bye"),
        ("Good morning Good evening", "Good morning Good evening"),
        ("no no I mean it", "no no I mean it"),
    ],
)
def test_what_is_said_twice_without_the_time_for_it_was_said_once(text: str, kept: str) -> None:
    words = said(text)
    spoken = replace(words[-1], start_s=words[-1].end_s - 0.3)
    hasty = replace(words[-1], start_s=words[-1].end_s - 0.02)
    assert texts(without_second_round([*words[:-1], spoken])) == text.split()
    assert texts(without_second_round([*words[:-1], hasty])) == kept.split()


def test_text_in_silence_is_dropped_and_speech_is_not() -> None:
    assert sounds_invented(said("Thank you."), no_speech=0.5, logprob=-0.4, speech_s=1.0)
    assert sounds_invented(said("Sous-titres réalisés par la communauté d'Amara.org"), 0.5, -0.4, speech_s=1.0)
    assert sounds_invented(said("Anything at all"), no_speech=0.9, logprob=-1.3, speech_s=1.0)
    assert not sounds_invented(said("Telephone number"), no_speech=0.9, logprob=-1.3, speech_s=2.0)
    assert sounds_invented(said("la la la " * 40), no_speech=0.0, logprob=-0.1, speech_s=9.0)
    assert sounds_invented([Word("I'm", 0.0, 0.3, 0.07)], no_speech=0.2, logprob=-0.9, speech_s=0.4)
    assert not sounds_invented(said("Thank you."), no_speech=0.02, logprob=-0.2, speech_s=1.0)
    assert not sounds_invented(said("Thank you for the fish."), no_speech=0.5, logprob=-0.8, speech_s=1.0)


def test_the_cap_leaves_room_for_fast_speech_and_stops_runaways() -> None:
    assert token_cap(0.0, "en") == 8
    assert token_cap(4.0, "hi") > 89  # "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"
    assert token_cap(4.0, "fa") > 47
    assert 60 < token_cap(10.0, "en") < token_cap(10.0, None) < 224


def test_compression_tells_loops_from_text() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("We had a long talk about the price of fish and chips.") < 1.5
    assert compression_ratio("yes yes " * 50) > 2.4


# Words ----------------------------------------------------------------------------------------------------------------


def pieces(*parts: str) -> list[Heard]:
    return [Heard(p, float(i), i + 1.0, 0.9 - 0.1 * i, (i,)) for i, p in enumerate(parts)]


def test_pieces_without_a_space_belong_to_the_word_before() -> None:
    words = merge_pieces(pieces(" cold", "-hearted", ",", ' "', "Yes", '."'))
    assert texts(words) == ["cold-hearted,", '"Yes."']
    assert [w.tokens for w in words] == [(0, 1, 2), (3, 4, 5)]
    assert (words[0].start_s, words[0].end_s) == (0.0, 2.0)
    assert (words[1].start_s, words[1].end_s) == (4.0, 5.0)


def test_a_mark_that_belongs_to_a_final_word_is_not_shown_but_kept_as_token() -> None:
    (word,) = merge_pieces(pieces(",", " ask"))
    assert (word.text, word.tokens) == ("ask", (0, 1))
    assert merge_pieces(pieces(".")) == []


def test_writing_without_spaces_is_joined_without() -> None:
    assert texts(merge_pieces(pieces("你", "好", "。"))) == ["你", "好。"]
    assert join_words(said("你 好。 OK 吗")) == "你好。 OK 吗"


@given(st.lists(st.sampled_from([" a", " b", "c", ",", ".", ' "', " (", "-", "'s", " "]), max_size=30))
def test_merging_keeps_every_token_once_and_in_order(parts: list[str]) -> None:
    words = merge_pieces(pieces(*parts))
    tokens = [t for w in words for t in w.tokens]
    assert tokens == list(range(len(tokens)))
    assert all(normalised(w.text) and w.text == w.text.strip() for w in words)
    assert len(tokens) == len(parts) or not any(normalised(p) for p in parts[len(tokens) :]) or not words


# Files ----------------------------------------------------------------------------------------------------------------


@given(timed)
def test_captions_can_be_read(parts: list[tuple[str, float, float]]) -> None:
    """At most two lines of 42, at most 6 s (or one long word), in order, none overlapping, no word lost."""
    words = clocked(parts)
    cues = group(words)
    assert " ".join(" ".join(cue.lines) for cue in cues).split() == [w.text for w in words]
    for cue in cues:
        assert len(cue.lines) <= LINES
        assert all(len(line) <= LINE_CHARS for line in cue.lines)
        assert 0.0 <= cue.end_s - cue.start_s <= CUE_S
    for first, second in itertools.pairwise(cues):
        assert first.end_s <= second.start_s + 1e-9


def test_a_pause_begins_a_new_caption() -> None:
    cues = group([*said("Good morning."), *said("What is it?", 4.0)])
    assert [cue.lines for cue in cues] == [("Good morning.",), ("What is it?",)]


@pytest.mark.parametrize("format", ["srt", "vtt"])
@given(parts=timed)
def test_subtitles_read_back(format: str, parts: list[tuple[str, float, float]]) -> None:
    words = clocked(parts)
    read = pysubs2.SSAFile.from_string(format_captions(words, format), format_=format) if words else []
    assert " ".join(event.plaintext for event in read).split() == [w.text for w in words]
    assert [round(c.start_s * 1000) for c in group(words)] == [event.start for event in read]


@given(timed)
def test_json_holds_words_with_their_times(parts: list[tuple[str, float, float]]) -> None:
    words = clocked(parts)
    read = json.loads(format_captions(words, "json", "en"))
    assert read["language"] == "en"
    assert read["text"] == join_words(words)
    assert [w["text"] for w in read["words"]] == [w.text for w in words]
    assert all(abs(r["start_s"] - w.start_s) < 1e-3 for r, w in zip(read["words"], words, strict=True))


def test_plain_text_is_one_line_per_caption() -> None:
    words = [*said("Good morning."), *said("What is it?", 4.0)]
    assert format_captions(words, "txt") == "Good morning.\nWhat is it?\n"


@pytest.mark.parametrize("format", FORMATS)
def test_silence_gives_a_valid_empty_file(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{format}"
    write_captions([], path)
    text = path.read_text(encoding="utf-8")
    assert (
        text.startswith("WEBVTT")
        if format == "vtt"
        else json.loads(text)["words"] == []
        if format == "json"
        else not text.strip()
    )


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="srt, vtt, txt, json"):
        write_captions(said("hello"), tmp_path / "out.doc")
    with pytest.raises(SottovoceError, match="cannot be written"):
        write_captions(said("hello"), tmp_path / "missing" / "out.srt")
    assert list(tmp_path.iterdir()) == []
    write_captions(said("hello"), tmp_path / "out.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
