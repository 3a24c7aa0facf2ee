"""Programs of the same person that read the captions while they come; each holds one connection to the control socket.

What is sent are lines of JSON, one an event, after the answer to `follow`:

    {"event": "state", "captions": true}      whether captions are written; first of all, and whenever that changes
    {"event": "recap"}                        what comes next was said before: forget what you have
    {"event": "caption", "source": "speech", "final": [WORD, ...], "tentative": [WORD, ...], "lag_s": 1.2}

WORD is {"text": " quiet", "start_s": 1.2, "end_s": 1.5}. Final words are ordered, none is lost, and they never change;
tentative ones replace the whole former tail of their source ("speech" or "others"). A newcomer gets a recap first.

A line goes straight into the connection's own buffer in the kernel, which is bounded: nobody waits for a reader, and
who has let that buffer fill up is dropped. All is called by the engine's owner, on one thread.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from engine.types import Caption, Word

MOST_FOLLOWERS = 8
BUFFER_BYTES = 262_144  # some minutes of captions
RECAP_WORDS = 60


class Followers:
    """Who follows. `dropped` counts those that did not read."""

    def __init__(self) -> None:
        self.dropped = 0
        self._peers: list[socket.socket] = []
        self._captions = False
        self._said: deque[tuple[str, Word]] = deque(maxlen=RECAP_WORDS)
        self._tails: dict[str, tuple[Word, ...]] = {}

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def full(self) -> bool:
        return len(self._peers) >= MOST_FOLLOWERS

    def add(self, peer: socket.socket, greeting: bytes) -> None:
        """Take a connection over: the greeting goes out, then what was said last."""
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._peers.append(peer)
        self._send([peer], greeting + b"".join(map(event_line, [self._state(), *self._recap()])))

    def tell_captions(self, on: bool) -> None:
        """Say whether captions are written; nothing is sent when that is known already."""
        if on == self._captions:
            return
        self._captions = on
        self._tails.clear()
        self._send(self._peers, event_line(self._state()))

    def publish(self, caption: Caption) -> None:
        """Send a caption to all, and keep the last words for who comes later."""
        self._said.extend((caption.source, word) for word in caption.final)
        self._tails[caption.source] = caption.tentative
        self._send(
            self._peers, event_line(caption_event(caption.source, caption.final, caption.tentative, caption.lag_s))
        )

    def drop_tails(self) -> None:
        """What is tentative now will not become final."""
        for source in [source for source, tail in self._tails.items() if tail]:
            self._tails[source] = ()
            self._send(self._peers, event_line(caption_event(source, (), (), 0.0)))

    def look_after(self) -> None:
        """Let go who has hung up; who says anything more after `follow` goes too."""
        for peer in list(self._peers):
            try:
                peer.recv(1)
            except BlockingIOError:
                continue
            except OSError:
                pass
            self._let_go(peer)

    def close(self) -> None:
        """Hang up on all; may be called twice."""
        for peer in list(self._peers):
            self._let_go(peer)

    def _state(self) -> dict[str, Any]:
        return {"event": "state", "captions": self._captions}

    def _recap(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = [{"event": "recap"}] if self._said else []
        for source, said in itertools.groupby(self._said, key=lambda one: one[0]):
            events.append(caption_event(source, [word for _, word in said], (), 0.0))
        return events + [caption_event(source, (), tail, 0.0) for source, tail in self._tails.items() if tail]

    def _send(self, peers: Iterable[socket.socket], line: bytes) -> None:
        for peer in list(peers):
            try:
                sent = peer.send(line)
            except BlockingIOError:
                sent = 0
            except OSError:  # hung up
                self._let_go(peer)
                continue
            if sent < len(line):
                self.dropped += 1
                self._let_go(peer)

    def _let_go(self, peer: socket.socket) -> None:
        self._peers.remove(peer)
        peer.close()


def caption_event(source: str, final: Iterable[Word], tentative: Iterable[Word], lag_s: float) -> dict[str, Any]:
    """What followers get for a caption."""
    words = {"final": list(map(_word, final)), "tentative": list(map(_word, tentative))}
    return {"event": "caption", "source": source, **words, "lag_s": round(lag_s, 2)}


def _word(word: Word) -> dict[str, Any]:
    return {"text": word.text, "start_s": round(word.start_s, 3), "end_s": round(word.end_s, 3)}


def event_line(event: dict[str, Any]) -> bytes:
    """An event as it is sent."""
    return json.dumps(event).encode() + b"\n"
