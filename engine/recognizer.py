"""The parent's side of the recogniser: sound goes in without waiting, captions come out in order, none lost.

Whisper runs in a process of its own (engine.whisper_worker), because its decoding loop would make the sound crackle.
What it has not made final is kept here, so that a process that died is started again where it was: once.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.outbox import Outbox
from engine.priority import hurry, stand_back
from engine.sizes import ENGLISH_ONLY
from engine.types import (
    NO_CAPTIONS,
    SPEECH,
    ArtefactError,
    Caption,
    Codes,
    Problem,
    Residue,
    Samples,
    SottovoceError,
    UsageError,
    Word,
)
from engine.vad import SAMPLE_RATE_HZ, model_path
from engine.weights import DEFAULT_NAME, Weights, require_weights

WORKER = (sys.executable, "-m", "engine.whisper_worker")
# torch and oneDNN keep compiled code for the last 1024 shapes, 0.1 MB each, and no two looks are equally long.
KERNELS = {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}  # enough for one look
# No two looks are equally long, so that freed blocks fit none of the next: large ones go straight back to the system.
# Costs a tenth of the process's time, and the heap does not grow over hours (glibc; others do not read this).
HEAP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "524288"}
MAX_LAG_S = 30.0  # sound further back than this is not waited for: it is left out, and told
FILE_LEAD_S = 60.0  # how far a file may run ahead of the recogniser
RESTARTS = 1
DRAIN_TIMEOUT_S = 120.0
POLL_S = 0.02
JOIN_S = 2.0
# In a complaint: may be words that were said, and it goes into the log. An apostrophe within a word is none.
QUOTED = re.compile(r"""(?<!\w)[bBrRuUfF]{0,2}'(?:\\.|[^\\])*?(?:'(?!\w)|$)|"(?:\\.|[^"\\])*"?""")
BEHIND = "captions cannot keep up with this machine and leave some speech out; close other programs"


Told = Caption | Residue | Problem


class Recognizer:
    """Words of a 16 kHz mono stream. start, feed and poll from any one thread; finish drains, stop does not.

    language: a code such as "en", or None to find it out. weights: what was loaded, with its hash and source.
    residue: tell, too, which noise there is in what `watch` is given. codec_id: of the tokens that are fed with the
    sound and from which the words are to come; the sound then only tells when somebody speaks. adapter: the words come
    through the quantiser inside Whisper (engine.adapter).
    """

    def __init__(
        self,
        language: str | None = "en",
        *,
        model: str = DEFAULT_NAME,
        live: bool = True,
        threads: int = 1,
        source: str = SPEECH,
        residue: bool = False,
        codec_id: str | None = None,
        adapter: bool = False,
    ) -> None:
        self.language, self.model, self.source = language, model, source
        self._codec_id, self._adapter = codec_id, adapter
        self.weights: Weights | None = None
        if language is not None and language not in known_languages():
            raise UsageError(f"Whisper knows no language {language!r}; write a code such as en, cs or ru")
        if adapter and model != DEFAULT_NAME:
            raise UsageError(f"the quantiser comes with Whisper {DEFAULT_NAME} alone; leave --adapter out")
        self.dropped = 0  # samples left out because the recogniser was too far behind
        self.failure: str | None = None
        self.spoken = language  # the language given, or else the one last heard, or as long as none is sure a guess
        self._live, self._threads, self._residue = live, threads, residue
        self._complaint = "it said nothing"  # the process's last words on standard error
        self._threads_running: list[threading.Thread] = []
        self._events: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._outbox = Outbox()
        self._heard = 0  # the recogniser has looked at everything before
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._state = "new"  # then running, finishing, finished, failed, stopped
        self._ready = threading.Event()
        self._done = threading.Event()
        self._told_behind = False

    # the person's side ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and return at once.

        Raises ArtefactError when Whisper or the voice detector is not here, or this Whisper does not know the language.
        """
        if self._state != "new":
            raise UsageError("this recogniser was started before; make a new one")
        if self.model.endswith(ENGLISH_ONLY) and self.language not in (None, "en"):
            other = self.model.removesuffix(ENGLISH_ONLY)
            raise ArtefactError(f"Whisper {self.model} knows English alone; use {other} for {self.language!r}")
        model_path()
        self.weights = require_weights(self.model)
        self._state = "running"
        self._launch(0)

    @property
    def lag_s(self) -> float:
        """From the newest sound fed back to what the recogniser has looked at."""
        return max(self._outbox.fed - self._heard, 0) / SAMPLE_RATE_HZ

    @property
    def heard_s(self) -> float:
        """Seconds of sound that the recogniser has looked at."""
        return self._heard / SAMPLE_RATE_HZ

    @property
    def ready(self) -> bool:
        """Whether Whisper is loaded. Sound fed before is not lost."""
        return self._ready.is_set()

    @property
    def running(self) -> bool:
        return self._state in ("running", "finishing")

    @property
    def pid(self) -> int | None:
        """The process that recognises; None before the start and after the end."""
        return self._process.pid if self._process is not None else None

    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Wait until Whisper is loaded or has failed; whether it is loaded."""
        self._ready.wait(timeout_s)
        return self.running and self.ready

    def feed(self, samples: Samples, codes: Codes | None = None) -> None:
        """The next samples [N], 16 kHz mono float32. Never waits; too far behind, some is left out and that is told.

        codes: the voice's tokens of the same hops, [K, hops] (see `codec_id`).
        """
        if self._state != "running" or not len(samples):
            return
        behind = self._live and self._outbox.fed - self._heard > MAX_LAG_S * SAMPLE_RATE_HZ
        if behind:
            self._outbox.leave_out(len(samples))
            self.dropped += len(samples)
        else:
            self._outbox.add(samples, codes)
        if behind and not self._told_behind:
            self._tell(BEHIND, "captions late")
        self._told_behind = behind or (self._told_behind and self.lag_s > MAX_LAG_S / 2)

    def leave_out(self, count: int) -> None:
        """Silence stands for the next `count` samples, which will not be captioned."""
        if self._state == "running" and count > 0:
            self._outbox.leave_out(count)

    def watch(self, samples: Samples) -> None:
        """The microphone's own samples [N], 16 kHz mono, up to where `feed` is; looked at for their noise."""
        late = self._live and self.lag_s > MAX_LAG_S / 2
        if self._state == "running" and self._residue and self.ready and not late:
            self._outbox.add_raw(samples)

    def poll(self) -> list[Told]:
        """What was recognised since the last call, in order."""
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def finish(self, timeout_s: float = DRAIN_TIMEOUT_S) -> list[Told]:
        """No more sound comes: wait until all of it is recognised, end the process, and give what is left to poll."""
        self.end()
        if not self.wait_done(timeout_s):
            self._tell(f"captions were not finished in {timeout_s:.0f} s; the last words are missing", "captions late")
        self.stop()
        return self.poll()

    def end(self) -> None:
        """No more sound comes; does not wait. `wait_done` tells when all is recognised."""
        if self._state == "running":
            self._state = "finishing"  # first: the process may be quick
            self._outbox.end()

    def wait_done(self, timeout_s: float) -> bool:
        """Whether everything was recognised, or will never be, within this time."""
        return self._state == "new" or self._done.wait(timeout_s)

    def stop(self) -> None:
        """End the process at once; what is not recognised yet is given up. Events stay to be polled."""
        if self._state not in ("failed", "finished"):
            self._state = "stopped"
        process, self._process = self._process, None
        self._ready.set()
        self._done.set()
        self._outbox.wake()
        if process is not None:
            process.kill()
            process.wait()
        for thread in self._threads_running:
            thread.join(JOIN_S)

    # the process's side -----------------------------------------------------------------------------------------------

    def _launch(self, start: int) -> None:
        """Start the process at this position of the clock, with a thread for each direction."""
        assert self.weights is not None
        settings = {
            "path": str(self.weights.path),
            "format": self.weights.format,
            "name": self.weights.name,
            "language": self.language,
            "live": self._live,
            "threads": self._threads,
            "start": start,
            "residue": self._residue,
            "codec_id": self._codec_id,
            "adapter": self._adapter,
        }
        threads = str(self._threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*WORKER, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment, **KERNELS, **HEAP},
            start_new_session=True,  # Ctrl-C is for us: the process ends when its pipe does
        )
        stand_back(process.pid)
        self._process = process
        for name, target in (("out", self._write), ("in", self._read), ("complaints", self._listen)):
            thread = threading.Thread(target=target, args=(process,), name=f"captions-{name}", daemon=True)
            self._threads_running.append(thread)
            thread.start()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        """Send frames until the process is gone. Its own thread: a pipe can be full."""
        assert process.stdin is not None
        hurry()  # its moments are short, and while it has the interpreter the sound waits for it
        with contextlib.suppress(OSError), process.stdin:
            # it fails when the process died: the reader decides
            self._outbox.send(process.stdin, lambda: process is self._process and process.poll() is None)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Take messages until the process ends, then see whether it should have."""
        assert process.stdout is not None
        hurry()
        with process.stdout:
            for line in process.stdout:
                if process is self._process and line.endswith(b"\n"):  # else it was killed amid what it said
                    self._take(json.loads(line))
        process.wait()
        if process is self._process and self.running:
            self._revive()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                said = QUOTED.sub("...", line.decode(errors="replace").strip())
                self._complaint = said[:120] or self._complaint

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "ready":
            self._ready.set()
        elif kind in ("heard", "words"):
            self._outbox.let_go(message["final_to"])
            if kind == "words":
                self._take_words(message)
            self._heard = max(self._heard, message["heard_to"])
        elif kind == "residue":
            self._events.put(_residue(message))
        elif kind == "note":
            self._tell(message["text"], "captions")
        elif kind == "finished":
            self._state = "finished"
            self._done.set()
        elif kind == "problem":
            self._fail(message["text"])

    def _take_words(self, message: dict[str, Any]) -> None:
        fed = self._outbox.fed
        self.spoken = message["language"] or self.spoken or message.get("guessed")
        self._events.put(
            Caption(
                time_s=fed / SAMPLE_RATE_HZ,
                final=tuple(Word(*word) for word in message["final"]),
                tentative=tuple(Word(*word) for word in message["tentative"]),
                lag_s=(fed - message["heard_to"]) / SAMPLE_RATE_HZ,
                language=message["language"],
                source=self.source,
            )
        )

    def _revive(self) -> None:
        """The process died: start another where words stopped being final, or give up the second time."""
        if self._restarts >= RESTARTS:
            self._fail(f"the recogniser stopped twice ({self._complaint}); captions are off, start them again")
            return
        self._restarts += 1
        self._tell("the recogniser stopped and was started again; captions are late for a moment", "captions restart")
        self._outbox.begin_again(self._launch)

    def _fail(self, text: str) -> None:
        self._state, self.failure = "failed", text
        self._tell(text, NO_CAPTIONS if self.source == SPEECH else "captions")
        self._ready.set()
        self._done.set()

    def _tell(self, text: str, state: str) -> None:
        self._events.put(Problem(self._outbox.fed / SAMPLE_RATE_HZ, text, state))


def _residue(message: dict[str, Any]) -> Residue:
    x, y = message["point"]
    energy_db, codes = tuple(message["energy_db"]), tuple(message["codes"])
    return Residue(message["time_s"], message["noise_class"], message["confidence"], energy_db, codes, (x, y))


@functools.cache
def known_languages() -> frozenset[str]:
    """The codes of Whisper's languages, read from openai-whisper's source: importing it would load torch."""
    spec = importlib.util.find_spec("whisper")
    if spec is None or spec.origin is None:
        raise ArtefactError("openai-whisper is not installed; run ./run, or pip install sottovoce again")
    tree = ast.parse(Path(spec.origin).with_name("tokenizer.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "LANGUAGES" for t in node.targets):
            return frozenset(ast.literal_eval(node.value))
    raise ArtefactError("this openai-whisper lists no languages; install the version that Sottovoce asks for")


Piece = tuple[Samples, Codes | None]


def recognise_file(
    sound: Samples | Iterable[Samples] | Iterable[tuple[Samples, Codes]],
    language: str | None = None,
    *,
    model: str = DEFAULT_NAME,
    threads: int = 1,
    codec_id: str | None = None,
    adapter: bool = False,
    progress: Callable[[float], None] | None = None,
    found: Callable[[str | None], None] | None = None,
    words: list[Word] | None = None,
) -> list[Word]:
    """Words of a whole recording, 16 kHz mono: an array or an iterator of pieces of any length, in constant memory.

    codec_id: the pieces are whole hops of sound with their tokens [K, hops], and the words come from the tokens.
    adapter: as of `Recognizer`.
    progress is called with the seconds recognised so far, found with the language at the end, however it ends. words: a
    list to gather into, for who wants what was recognised before an interrupt. Raises SottovoceError when the
    recogniser cannot be had or fails.
    """
    recognizer = Recognizer(language, model=model, live=False, threads=threads, codec_id=codec_id, adapter=adapter)
    words = [] if words is None else words
    recognizer.start()
    try:
        for piece, codes in _pieces(sound):
            recognizer.feed(piece, codes)
            _gather(recognizer, words, progress)
            while recognizer.lag_s > FILE_LEAD_S:
                time.sleep(POLL_S)
                _gather(recognizer, words, progress)
        recognizer.end()
        while not recognizer.wait_done(0.25):
            _gather(recognizer, words, progress)
        _gather(recognizer, words, progress)
    except KeyboardInterrupt:
        with contextlib.suppress(SottovoceError):
            _gather(recognizer, words, None)
        raise
    finally:
        recognizer.stop()
        if found:
            found(recognizer.spoken)
    return words


def _gather(recognizer: Recognizer, words: list[Word], progress: Callable[[float], None] | None) -> None:
    """Append what became final; raises SottovoceError when nothing more will come."""
    for event in recognizer.poll():
        if isinstance(event, Caption):
            words.extend(event.final)
    if progress:
        progress(recognizer.heard_s)
    if recognizer.failure:
        raise SottovoceError(recognizer.failure)


def _pieces(sound: Samples | Iterable[Samples] | Iterable[tuple[Samples, Codes]]) -> Iterator[Piece]:
    """Cut so that the queue never holds much more than it may; what comes with tokens is as long as that already."""
    size = 10 * SAMPLE_RATE_HZ
    for piece in [sound] if isinstance(sound, np.ndarray) else sound:
        if isinstance(piece, tuple):
            yield piece
            continue
        for at in range(0, len(piece), size):
            yield piece[at : at + size], None
