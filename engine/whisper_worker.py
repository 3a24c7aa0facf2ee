"""The recogniser's process: openai-whisper on one thread, asked by engine.recognizer through pipes.

Standard input brings frames (kind, length, payload), standard output takes one JSON object a line.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from whisper.tokenizer import LANGUAGES

from engine.adapter import Adapter
from engine.artefacts import ORT_ERRORS
from engine.listener import Listener, Update
from engine.memory import Tidying
from engine.outbox import AUDIO, FINISH, GAP, RAW, TOKENS, Inbox, codes_in
from engine.residue import ResidueReader, ResidueWatch, has_residue
from engine.token_words import TokenFrames, open_frames, open_listener
from engine.types import ArtefactError, SottovoceError
from engine.vad import SAMPLE_RATE_HZ, SileroVad
from engine.whisper_blocks import BLOCK, merged
from engine.whisper_decoder import WhisperDecoder, load_model

LOOK_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, RuntimeError, ValueError)


def _tell(stream: BinaryIO, **message: Any) -> None:
    stream.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
    stream.flush()


def _tell_update(stream: BinaryIO, update: Update) -> None:
    final = [(w.text, w.start_s, w.end_s, w.probability) for w in update.final]
    tentative = [(w.text, w.start_s, w.end_s, w.probability) for w in update.tentative]
    places = {"heard_to": update.heard_to, "final_to": update.final_to}
    languages = {"language": update.language, "guessed": update.guessed}
    _tell(stream, kind="words", final=final, tentative=tentative, **places, **languages)


def _tell_residue(stream: BinaryIO, watch: ResidueWatch, decoder: WhisperDecoder, last: bool = False) -> bool:
    """What noise there is, where it is time to look; False when that cannot be told any more. Captions go on."""
    if (sound := watch.take(last)) is None:
        return True
    try:
        residue = watch.look(decoder.frames(sound))
    except LOOK_ERRORS as error:
        _tell(stream, kind="note", text=f"which noise there is cannot be told any more ({type(error).__name__})")
        return False
    _tell(stream, kind="residue", **asdict(residue))
    return True


def _watch_for(stream: BinaryIO, name: str, wanted: bool) -> ResidueWatch | None:
    """Who watches the residue, where it is wanted and was trained on this size of Whisper. Captions go on without."""
    if not wanted or not has_residue():
        return None
    try:
        reader = ResidueReader()
    except ArtefactError as error:
        _tell(stream, kind="note", text=f"which noise there is cannot be told: {error}")
        return None
    return ResidueWatch(reader) if reader.recogniser == name else None


def _serve(
    listener: Listener,
    mailbox: Inbox,
    out: BinaryIO,
    watch: ResidueWatch | None,
    decoder: WhisperDecoder,
    tokens: TokenFrames | None,
) -> None:
    """Feed, look, tell, until told to finish (then everything is told) or until the other side is gone."""
    idle, tidying, untidy = True, Tidying(), True
    while True:
        for kind, payload in mailbox.take(wait=idle):
            if kind == AUDIO:
                listener.feed(np.frombuffer(payload, dtype="<f4"))
                untidy = True
            elif kind == TOKENS:
                if tokens is not None:
                    tokens.feed(*codes_in(payload))
            elif kind == RAW:
                if watch is not None:
                    watch.feed(np.frombuffer(payload[8:], dtype="<f4"), struct.unpack("<Q", payload[:8])[0])
                    watch = watch if _tell_residue(out, watch, decoder) else None
            elif kind == GAP:
                listener.gap(struct.unpack("<Q", payload)[0])
            elif kind == FINISH:
                listener.finish()
                if watch is not None:
                    _tell_residue(out, watch, decoder, last=True)
                while (update := listener.advance()) is not None:
                    _tell_update(out, update)
                _tell(out, kind="finished", heard_to=listener.fed_to)
                return
            else:
                return
        update = listener.advance()
        idle = update is None
        if update is not None:
            _tell_update(out, update)
        else:
            untidy = untidy and not tidying.look()  # in a long silence there is nothing to give back: it takes 90 ms
            _tell(out, kind="heard", heard_to=listener.fed_to, final_to=listener.final_to)


def main() -> int:
    """Run as `python -m engine.whisper_worker SETTINGS`, settings as JSON; see engine.recognizer."""
    settings = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not reach the pipe
    torch.set_num_threads(settings["threads"])
    try:
        language = settings["language"]
        if language is not None and language not in LANGUAGES:
            raise ArtefactError(f"Whisper knows no language {language!r}; write a code such as en, cs or ru")
        model = load_model(Path(settings["path"]), settings["format"], settings["name"])
        tokens = open_frames(settings["codec_id"], settings["name"])
        window, own = (tokens.window, merged(model.encoder, tokens.bridge.own)) if tokens is not None else (None, None)
        adapter = Adapter(model.encoder, settings["name"]) if settings["adapter"] else None
        block_size = BLOCK if settings["live"] else None
        decoder = WhisperDecoder(model, window=window, block_size=block_size, own=own, adapter=adapter)
        listener = open_listener(decoder, SileroVad(), tokens, language, settings["live"], settings["start"])
        watch = _watch_for(out, settings["name"], settings["residue"])
        decoder.transcribe(np.zeros(SAMPLE_RATE_HZ, np.float32), [], language, 3)  # the first pass is slow
    except SottovoceError as error:
        _tell(out, kind="problem", text=str(error))
        return 1
    _tell(out, kind="ready")
    _serve(listener, Inbox(sys.stdin.buffer), out, watch, decoder, tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
