"""The ring: nothing lost, nothing twice, whatever the sizes; and the delay and queue beside it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ring import DelayLine, Fifo, Ring


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 40),
    channels=st.integers(1, 3),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60),
)
def test_ring_behaves_like_a_list(capacity: int, channels: int, moves: list[tuple[bool, int]]) -> None:
    ring, model, counter = Ring(capacity, channels), [], 0
    overruns = underruns = 0
    for is_write, n in moves:
        if is_write:
            x = np.repeat(np.arange(counter, counter + n, dtype=np.float32)[:, None], channels, axis=1)
            counter += n
            taken = ring.write(x)
            assert taken == min(n, capacity - len(model))
            model += x[:taken, 0].tolist()
            overruns += n - taken
        else:
            got = ring.read(n)
            there = model[:n]
            del model[:n]
            underruns += n - len(there)
            assert got.shape == (n, channels)
            assert got[:, -1].tolist() == there + [0.0] * (n - len(there))
        assert (ring.fill, ring.space) == (len(model), capacity - len(model))
    assert (ring.overruns, ring.underruns) == (overruns, underruns)


def test_one_writer_and_one_reader_lose_nothing() -> None:
    ring, total = Ring(257), 20_000
    got: list[np.ndarray] = []

    def write() -> None:
        at = 0
        while at < total:
            at += ring.write(np.arange(at, min(at + 64, ring.space + at, total), dtype=np.float32))

    writer = threading.Thread(target=write)
    writer.start()
    while sum(map(len, got)) < total:
        got.append(ring.read(ring.fill))
    writer.join()
    assert np.array_equal(np.concatenate(got)[:, 0], np.arange(total, dtype=np.float32))
    assert ring.overruns == ring.underruns == 0


def test_clear_forgets_what_waits() -> None:
    ring = Ring(8)
    ring.write(np.ones(5, np.float32))
    assert ring.clear() == 5
    assert ring.fill == 0


def test_ring_needs_room() -> None:
    with pytest.raises(ValueError, match="room"):
        Ring(0)


@pytest.mark.parametrize("delay", [0, 1, 7, 100])
@pytest.mark.parametrize("channels", [None, 2])
def test_delay_line_is_exact_for_any_chunks(delay: int, channels: int | None, rng: np.random.Generator) -> None:
    x = rng.standard_normal((200,) if channels is None else (200, channels)).astype(np.float32)
    line = DelayLine(delay, channels)
    y = np.concatenate([line.process(part) for part in np.split(x, [3, 3, 50, 51, 190])])
    assert np.array_equal(y[delay:], x[: len(x) - delay])
    assert not y[:delay].any()


def test_fifo_keeps_order_and_owns_its_samples() -> None:
    fifo, x = Fifo(), np.arange(5, dtype=np.float32)
    fifo.push(x)
    x[:] = -1.0
    fifo.push(np.arange(5, 8, dtype=np.float32))
    assert fifo.pop(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(fifo) == 2
    assert fifo.pop().tolist() == [6, 7]
