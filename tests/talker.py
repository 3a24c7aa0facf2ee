"""Stands for a running app: owns the control socket, remembers what it was asked, says what a test lets it say."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from engine.control import Answer, ControlServer, Request
from engine.types import SPEECH, Caption, UsageError, Word


class Talker:
    """A run from `with` to its end. Each word takes 0.4 s of the run's own clock.

    carry_out: does what is asked; without it all is noted in `asked`, and done but for a scene that there is not.
    """

    def __init__(self, captions: bool = True, carry_out: Callable[[Request], Answer] | None = None) -> None:
        self.server, self.asked = ControlServer(), list[Request]()
        self._carry_out = carry_out or self._note
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
            self.server.pump(self._carry_out)

    def _note(self, request: Request) -> Answer:
        self.asked.append(request)
        if request.value == "nowhere":
            raise UsageError("there is no scene 'nowhere'; choose one of: rain")
        return Answer(True, "done", {"state": "running"} if request.do == "status" else {})

    def __enter__(self) -> Talker:
        self.server.open()
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._halt.set()
        self._thread.join()
        self.server.close()
