"""Captions as lines: what was said stays as it is, lines end where a reader expects it, and nonsense is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.caption_lines import KEPT_LINES, MOST_CHARS, CaptionLines, parse_event
from engine.captions import join_words
from engine.followers import caption_event, event_line
from engine.types import OTHERS, SPEECH, SottovoceError, Word


def words(text: str, at_s: float = 0.0) -> list[Word]:
    return [Word(part, at_s + 0.3 * k, at_s + 0.3 * k + 0.25) for k, part in enumerate(text.split())]


def test_a_line_grows_and_its_tail_changes() -> None:
    lines = CaptionLines()
    assert lines.add(SPEECH, (), words("Keep quite")) == {
        "type": "captions",
        "reset": False,
        "lines": [],
        "tentative": {"speech": "Keep quite"},
    }
    first = lines.add(SPEECH, words("Keep quiet"), words("pleas", 0.6))
    assert first["lines"] == [{"id": 0, "source": "speech", "text": "Keep quiet"}]
    second = lines.add(SPEECH, words("please.", 0.6), ())
    assert second["lines"] == [{"id": 0, "source": "speech", "text": "Keep quiet please."}]
    assert second["tentative"] == {"speech": ""}


@pytest.mark.parametrize(
    ("source", "at_s"), [(SPEECH, 9.0), (SPEECH, -30.0), (OTHERS, 0.6)], ids=["pause", "another run", "another voice"]
)
def test_a_line_ends(source: str, at_s: float) -> None:
    lines = CaptionLines()
    lines.add(SPEECH, words("One two"), ())
    assert lines.add(source, words("three", at_s), ())["lines"] == [{"id": 1, "source": source, "text": "three"}]


def test_a_late_reader_gets_the_last_lines() -> None:
    lines = CaptionLines()
    for number in range(KEPT_LINES + 5):
        lines.add(SPEECH, words(f"line {number}", 10.0 * number), words("tail"))
    told = lines.everything()
    assert told["reset"] is True
    assert [line["id"] for line in told["lines"]] == list(range(5, KEPT_LINES + 5))
    assert told["tentative"] == {"speech": "tail"}
    assert lines.forget()["lines"] == []
    assert lines.add(SPEECH, words("on"), ())["lines"][0]["id"] == KEPT_LINES + 5


saying = st.tuples(
    st.sampled_from([SPEECH, OTHERS]),
    st.lists(st.sampled_from(["and", "so", "we go.", "on?", "x" * 30]), max_size=30),
    st.integers(0, 40).map(lambda tenths: tenths / 10.0),
)


@given(st.lists(saying, max_size=12))
def test_a_page_that_follows_has_what_was_said(said: list[tuple[str, list[str], float]]) -> None:
    lines, page, at_s = CaptionLines(), dict[int, dict[str, Any]](), 0.0
    spoken: list[Word] = []
    for source, texts, pause_s in said:
        at_s += pause_s
        final = [Word(text, at_s + 0.3 * k, at_s + 0.3 * k + 0.2) for k, text in enumerate(texts)]
        at_s += 0.3 * len(texts)
        spoken += final
        for line in lines.add(source, final, ())["lines"]:
            assert line["text"].startswith(page.get(line["id"], {"text": ""})["text"])  # it only grows
            assert len(line["text"]) < MOST_CHARS + 40
            page[line["id"]] = line
        assert list(page.values())[-KEPT_LINES:] == lines.everything()["lines"]
    assert list(page) == list(range(len(page)))
    assert " ".join(line["text"] for line in page.values()) == join_words(spoken)


def test_events_survive_the_way() -> None:
    final, tail = tuple(words("Keep quiet")), tuple(words("please", 0.6))
    told = parse_event(event_line(caption_event(OTHERS, final, tail, 1.0)))
    assert (told.event, told.source) == ("caption", OTHERS)
    assert [word.text for word in told.final + told.tentative] == ["Keep", "quiet", "please"]
    assert told.final[1].end_s == pytest.approx(0.55)


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"event": "caption"},
        {"event": "other"},
        {"event": "caption", "final": 1, "tentative": []},
        {"event": "caption", "final": [{"text": 3, "start_s": 0, "end_s": 0}], "tentative": []},
        {"event": "caption", "final": [{"text": "x", "start_s": float("nan"), "end_s": 0}], "tentative": []},
        {"event": "caption", "source": 4, "final": [], "tentative": []},
    ],
)
def test_what_is_no_event_is_refused_in_one_line(event: Any) -> None:
    with pytest.raises(SottovoceError, match="another version") as refusal:
        parse_event(json.dumps(event).encode())
    assert "\n" not in str(refusal.value)
