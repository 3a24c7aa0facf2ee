"""Stands for a running app that writes captions: owns the control socket, and says what a test lets it say."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from engine.control import Answer, ControlServer
from engine.types import SPEECH, Caption, Word


class Talker:
    """A run from `with` to its end. Each word takes 0.4 s of the run's own clock."""

    def __init__(self, captions: bool = True) -> None:
        self.server = ControlServer()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="talker")
        self._words = 0
        self.captions(captions)

    def captions(self, on: bool) -> None:
        self._jobs.put(lambda: self.server.tell_captions(on))

    def say(self, text: str, tail: str = "", source: str = SPEECH) -> None:
        final = tuple(self._word(text) for text in text.split())
        tentative = tuple(Word(text, 0.4 * self._words, 0.4 * self._words + 0.3) for text in tail.split())
        self._jobs.put(lambda: self.server.publish(Caption(0.4 * self._words, final, tentative, 1.0, source=source)))

    def _word(self, text: str) -> Word:
        self._words += 1
        return Word(text, 0.4 * self._words - 0.4, 0.4 * self._words - 0.1)

    def _run(self) -> None:
        while not self._halt.wait(0.005):
            while not self._jobs.empty():
                self._jobs.get()()
            self.server.pump(lambda request: Answer(True, "done"))

    def __enter__(self) -> Talker:
        self.server.open()
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._halt.set()
        self._thread.join()
        self.server.close()
