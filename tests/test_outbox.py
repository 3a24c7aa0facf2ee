"""What goes to the recogniser's process: tokens before their sound, in the right place, and again after a death."""

from __future__ import annotations

import io

import numpy as np

from engine.outbox import AUDIO, FINISH, GAP, TOKENS, Inbox, Outbox, codes_in

HOP, ROWS = 320, 4


def sent(outbox: Outbox) -> list[tuple[bytes, bytes]]:
    """Everything up to the end, as the other side reads it."""
    pipe = io.BytesIO()
    outbox.end()
    outbox.send(pipe, lambda: bool(outbox._unsent))
    inbox = Inbox(io.BytesIO(pipe.getvalue()))
    frames = inbox.take(wait=True)
    while frames[-1][0] != b"":
        frames += inbox.take(wait=True)
    return frames[:-1]


def hop(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound and codes [K, 1] that say which hop they are."""
    return np.full(HOP, number, np.float32), np.full((ROWS, 1), number, np.int16)


def heard(frames: list[tuple[bytes, bytes]], start: int = 0) -> tuple[list[int], dict[int, int]]:
    """Which hops' sound came, in order; and where each hop's codes came, by their number. Codes come first."""
    at, sound, codes = start, list[int](), dict[int, int]()
    for kind, payload in frames:
        if kind == TOKENS:
            first, found = codes_in(payload)
            assert found.shape[1] == ROWS
            assert first * HOP >= at
            codes |= {first + place: int(row[0]) for place, row in enumerate(found)}
        elif kind == AUDIO:
            samples = np.frombuffer(payload, "<f4")
            at += len(samples)
            sound += samples[::HOP].astype(int).tolist()
        elif kind == GAP:
            at += int.from_bytes(payload, "little")
    return sound, codes


def test_tokens_come_before_their_sound_and_say_which_hops_they_are() -> None:
    outbox = Outbox()
    for number in range(23):
        outbox.add(*hop(number))
    frames = sent(outbox)
    assert [kind for kind, _ in frames[:4]] == [TOKENS, AUDIO, TOKENS, AUDIO]
    assert frames[-1][0] == FINISH
    sound, codes = heard(frames)
    assert sound == list(range(23))
    assert codes == {number: number for number in range(23)}


def test_hops_without_tokens_and_hops_left_out_leave_holes() -> None:
    outbox = Outbox()
    for number in range(12):
        samples, codes = hop(number)
        if number == 8:
            outbox.leave_out(HOP)
        else:
            outbox.add(samples, None if number in (3, 4) else codes)
    sound, codes_at = heard(sent(outbox))
    assert sound == [number for number in range(12) if number != 8]
    assert codes_at == {number: number for number in range(12) if number not in (3, 4, 8)}


def test_another_process_is_sent_tokens_of_what_was_not_final() -> None:
    outbox, starts = Outbox(), list[int]()
    for number in range(40):
        outbox.add(*hop(number))
    outbox.let_go(17 * HOP)
    outbox.begin_again(starts.append)
    sound, codes = heard(sent(outbox), starts[0])
    assert starts == [sound[0] * HOP]
    assert 10 < sound[0] <= 17
    assert sound == list(range(sound[0], 40))
    assert codes == {number: number for number in range(sound[0], 40)}


def test_sound_alone_goes_as_before() -> None:
    outbox = Outbox()
    outbox.add(np.ones(1000, np.float32))
    outbox.add(np.ones(1000, np.float32))
    assert [kind for kind, _ in sent(outbox)] == [AUDIO, FINISH]


def test_after_a_death_nothing_that_is_final_is_sent_again() -> None:
    outbox, began = Outbox(), list[int]()
    for second in range(4):
        outbox.add(np.full(16_000, second, np.float32))
    outbox.let_go(24_000)
    outbox.begin_again(began.append)
    frames = sent(outbox)
    assert began == [24_000]
    sound = np.concatenate([np.frombuffer(payload, "<f4") for kind, payload in frames if kind == AUDIO])
    np.testing.assert_array_equal(sound, np.repeat([1.0, 2.0, 3.0], [8_000, 16_000, 16_000]))
