"""`sottovoce residue`: which noise is in a recording, how sure that is, and what the recogniser's tokens make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app import console
from app.commands_files import working
from engine.taps import mono_pieces
from engine.types import RESIDUE_STEP_S, Provider, Residue, Samples

PICTURE_S = 60.0  # of a longer recording, the distances are of its beginning
PLACES_SNR_DB = 5.0
PAUSE_S = 3  # before each, so that nothing of the one before is still looked at
HOLD_S = 1.5  # a longer pause between two events is told as one


@dataclass(frozen=True)
class NoiseRequest:
    """The options of `sottovoce residue`."""

    source: Path
    report: Path | None
    force: bool
    as_json: bool
    provider: str


@dataclass(frozen=True)
class Stretch:
    """One kind of noise from start_s to end_s; confidence: the mean."""

    start_s: float
    end_s: float
    noise_class: str
    confidence: float


def stretches(events: Sequence[Residue]) -> list[Stretch]:
    """Events of one kind in a row, joined; each event stands for the second before it."""
    found: list[tuple[Stretch, int]] = []
    for event in events:
        if found:
            last, count = found[-1]
            if last.noise_class == event.noise_class and event.time_s - last.end_s <= HOLD_S:
                mean = (last.confidence * count + event.confidence) / (count + 1)
                found[-1] = (dataclasses.replace(last, end_s=event.time_s, confidence=mean), count + 1)
                continue
        start_s = max(event.time_s - 1.0, found[-1][0].end_s if found else 0.0)
        found.append((Stretch(start_s, event.time_s, event.noise_class, event.confidence), 1))
    return [stretch for stretch, _ in found]


def residue(request: NoiseRequest) -> int:
    """Raises SottovoceError. After Ctrl-C what was found until then is told."""
    from engine.noise_files import residue_of
    from engine.soundfiles import SoundReader, check_target

    if request.report is not None:
        check_target(request.source, request.report, request.force)
    events: list[Residue] = []
    status = console.DONE
    with SoundReader(request.source) as reader:
        total_s = reader.duration_s
        try:
            with working(f"listen to {request.source.name}", None) as progress:
                for event in residue_of(mono_pieces(reader), lambda seconds: progress(seconds, total_s)):
                    events.append(event)
        except KeyboardInterrupt:
            status = console.INTERRUPTED
        if reader.warning and status == console.DONE:  # else the rest was not wanted
            console.warn(reader.warning)
    if events or status == console.DONE:
        _tell(request, events)
    if request.report is not None and status == console.DONE:
        _draw(request, events)
    return status


def _tell(request: NoiseRequest, events: Sequence[Residue]) -> None:
    found = stretches(events)
    if request.as_json:
        rows = [dataclasses.asdict(event) for event in events]
        console.print_json({"events": rows, "stretches": [dataclasses.asdict(stretch) for stretch in found]})
        return
    for stretch in found:
        start, end = console.clock(stretch.start_s), console.clock(stretch.end_s)
        print(f"[{start} to {end}] {stretch.noise_class}, {100 * stretch.confidence:.0f} % sure", flush=True)
    if not found:
        console.say(f"{request.source} is silent, or shorter than a second: there is no noise to tell")


def _draw(request: NoiseRequest, events: Sequence[Residue]) -> None:
    from app.noise_report import NoiseReport, draw_noise_report
    from engine.residue import ResidueReader
    from engine.vad import SAMPLE_RATE_HZ

    assert request.report is not None
    sound = _beginning(request.source)
    reader = ResidueReader()
    shown = tuple(event for event in events if event.time_s <= PICTURE_S)
    distances = _distances(sound, reader.codebook, request.provider) if shown else {}
    title = f"{request.source.name}: what the recogniser's tokens leave over"
    if len(shown) < len(events):
        title += f", the first {PICTURE_S:.0f} s"
    report = NoiseReport(title, SAMPLE_RATE_HZ, sound, shown, reader.kinds, reader.clouds, distances)
    draw_noise_report(report, request.report)
    console.say(f"wrote {request.report}")


def _beginning(source: Path) -> Samples:
    """The first PICTURE_S at the recogniser's rate, mono [N]."""
    from engine.soundfiles import SoundReader
    from engine.vad import SAMPLE_RATE_HZ

    most, parts = round(PICTURE_S * SAMPLE_RATE_HZ), list[Samples]()
    with SoundReader(source) as reader:
        for piece in mono_pieces(reader):
            parts.append(piece)
            if sum(map(len, parts)) >= most:
                break
    return np.concatenate(parts)[:most]


def _distances(sound: Samples, codebook: Samples, provider: str) -> dict[str, Samples]:
    """For each shipped place: how far the tokens of the recording in it are from its own, [tokens] each.

    L2 between the codes' vectors, after the paper's Fig. 3: nought where the token is the same in both.
    """
    from engine.artefacts import shared_models
    from engine.noise_files import placed, residue_of
    from engine.scenes import list_scenes
    from engine.vad import SAMPLE_RATE_HZ

    models = shared_models(Provider(provider))
    scenes = [scene for scene in list_scenes() if scene.codec_id == models.info.codec_id]
    pause = np.zeros(PAUSE_S * SAMPLE_RATE_HZ, np.float32)
    rest = pause[: -len(sound) % SAMPLE_RATE_HZ]  # up to a whole second, as it is listened to

    def spoken() -> Iterator[Samples]:
        """The recording, and it in every place, in a row: one recogniser hears them all."""
        yield from (pause, sound, rest)
        for scene in scenes:
            yield from (pause, placed(sound, scene.name, models, PLACES_SNR_DB), rest)

    one_s = PAUSE_S + (len(sound) + len(rest)) // SAMPLE_RATE_HZ
    with working("in other places", None) as progress:
        events = list(residue_of(spoken(), lambda seconds: progress(seconds, one_s * (1 + len(scenes)))))
    size, first = round(one_s / RESIDUE_STEP_S), round(PAUSE_S / RESIDUE_STEP_S)
    codes = np.full((1 + len(scenes)) * size, -1, np.int64)
    found = _codes(events)[: len(codes)]
    codes[: len(found)] = found
    own, *others = codes.reshape(-1, size)[:, first : first + round(len(sound) / SAMPLE_RATE_HZ / RESIDUE_STEP_S)]
    rows = {}
    for scene, other in zip(scenes, others, strict=True):
        rows[scene.title] = np.linalg.norm(codebook[own] - codebook[other], axis=1)
        rows[scene.title][(own < 0) | (other < 0)] = np.nan
    return rows


def _codes(events: Sequence[Residue]) -> np.ndarray:
    """Codes on one clock of 40 ms; -1 where nothing was heard."""
    last_s = max((event.time_s for event in events), default=0.0)
    codes = np.full(round(last_s / RESIDUE_STEP_S), -1, np.int64)
    for event in events:
        end = round(event.time_s / RESIDUE_STEP_S)
        begin = max(0, end - len(event.codes))
        codes[begin:end] = event.codes[len(event.codes) - (end - begin) :]
    return codes
