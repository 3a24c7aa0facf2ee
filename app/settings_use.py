"""What the settings mean for `sottovoce live` and for the window, where no flag says otherwise. A flag always wins.

`live` takes over only what a person has chosen, in the window or by `sottovoce settings set`: without that it stays as
plain as ever. Nothing here ever starts a recording.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from app import console
from app.commands_live import LiveRequest
from app.settings import DETECT, Remembered, Settings
from app.settings_file import told
from app.settings_here import background_here, language_here
from engine.ports import NO_OUTPUT
from engine.types import LOUDSPEAKERS, Background, CaptionTap, EngineConfig, Provider, UsageError

NOBODY = "none"  # for --also: no second sound, whatever the settings say


DATE_FORM = "%Y-%m-%d %H-%M-%S"


@dataclass(frozen=True)
class LiveFlags:
    """The options of `sottovoce live`; None where the person gave none. recording: into the settings' folder."""

    input_id: str | None = None
    output_id: str | None = None
    virtual_mic: bool | None = None
    background: str | None = None
    level: bool | None = None
    captions: bool | None = None
    also: str | None = None
    language: str | None = None
    record: Path | None = None
    recording: bool = False
    seconds: float | None = None
    provider: str | None = None
    whisper: str | None = None
    tap: str = CaptionTap.ENHANCED
    adapter: bool = False

    def request(self, remembered: Remembered | None = None) -> LiveRequest:
        """Flags, then what was chosen in the settings (None: as their file has them), then what `live` always did.

        Raises UsageError, and DeviceError where a remembered device cannot be looked for.
        """
        if self.record is not None and self.recording:
            raise UsageError("--record names a folder and --recording takes the settings' one; give one of them")
        remembered = remembered or told()
        settings = remembered.settings
        microphone = self.input_id or _still_there("input", _chosen(settings, "input", ""))
        used = remembered.microphones.get(microphone)
        background = used.background if used else _chosen(settings, "background", "drop")
        level = used.level if used else _chosen(settings, "level", False)
        captions = _chosen(settings, "captions", False) if self.captions is None else self.captions
        output, virtual_mic = self._target(settings)
        return LiveRequest(
            input_id=microphone or None,
            output_id=output,
            virtual_mic=virtual_mic,
            background=background_here(background) if self.background is None else self.background,
            level=level if self.level is None else self.level,
            captions=captions,
            also=self._also(settings, captions),
            language=spoken(self.language or language_here(settings.caption_language)),
            record=planned_folder(recording_folder(settings)) if self.recording else self.record,
            seconds=self.seconds,
            provider=self.provider or settings.provider,
            whisper=self.whisper or settings.whisper,
            tap=self.tap,
            adapter=self.adapter,
        )

    def _target(self, settings: Settings) -> tuple[str | None, bool]:
        """Where the sound goes: a device, and whether it is a microphone for calls."""
        if self.output_id is not None or self.virtual_mic:
            return self.output_id, bool(self.virtual_mic)
        if self.virtual_mic is None and _chosen(settings, "virtual_microphone", False):
            return None, True
        return _still_there("output", _chosen(settings, "output", "")) or None, False

    def _also(self, settings: Settings, captions: bool) -> str | None:
        if self.also is not None:
            return None if self.also == NOBODY else self.also
        return LOUDSPEAKERS if captions and settings.caption_others else None


def _still_there(end: str, device: str) -> str:
    """A remembered device's id; empty, the default, where it has gone. Raises DeviceError."""
    if not device or device == NO_OUTPUT:
        return device
    from engine.devices import list_devices

    if any(found.id == device and found.kind == end for found in list_devices()):
        return device
    console.warn(f"the {end} {device} of the settings is not there; the default is used")
    return ""


def window_config(settings: Settings, provider: Provider | None, captions: bool | None = None) -> EngineConfig:
    """How the window starts its engine; a provider or captions that are given win."""
    return EngineConfig(
        provider=provider or Provider(settings.provider),
        captions=settings.captions if captions is None else captions,
        language=spoken(language_here(settings.caption_language)),
        background=Background.parse(settings.background),
        level=settings.level,
        also=LOUDSPEAKERS if settings.caption_others else None,
        residue=True,
        whisper=settings.whisper,
    )


def spoken(language: str) -> str | None:
    """The language as the engine takes it, however it was written: None where it is told from the sound."""
    word = language.strip().lower()
    return None if word == DETECT else word


def recording_folder(settings: Settings) -> Path:
    """Where recordings go when one is asked for."""
    if not settings.recording_folder:
        return default_folder()
    try:
        return (
            Path.home() / Path(settings.recording_folder).expanduser()
        )  # a file of settings lies nowhere in particular
    except RuntimeError:  # ~somebody who is not there
        return default_folder()


def planned_folder(base: Path) -> Path:
    """A new folder in `base` for a recording that begins now, named after the time; nothing is made yet."""
    first = folder = base / time.strftime(DATE_FORM)
    number = 1
    while _is_there(folder):
        number += 1
        folder = first.with_name(f"{first.name} ({number})")
    return folder


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # whoever makes the folder will be told why it cannot be
        return False


def default_folder() -> Path:
    """Sottovoce among the person's music, or where there is no such folder, the documents."""
    places = (platformdirs.user_music_path(), platformdirs.user_documents_path())
    return next((place for place in places if place.is_dir()), places[0]) / "Sottovoce"


def _chosen(settings: Settings, name: str, default: Any) -> Any:
    """The setting where a person chose it."""
    return getattr(settings, name) if name in settings.model_fields_set else default
