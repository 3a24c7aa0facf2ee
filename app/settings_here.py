"""What of the settings there is here: the table knows what a value may look like, this what the engine has.

A place may be missing from another version, a language from another Whisper; neither may keep the sound from starting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app import console
from app.settings import DETECT
from engine.types import ArtefactError, Background, UsageError


def meant(name: str, value: Any) -> Any:
    """A checked value as a command line means it. Raises UsageError for a place or a language that there is not.

    A folder is named from where the person stands; it is kept so that it is the same from everywhere.
    """
    if name == "background" and not _has_place(value):
        raise UsageError(f"there is no place {Background.parse(value).scene!r}; choose one of: {', '.join(_places())}")
    if name == "caption_language" and not _is_known(value):
        raise UsageError(f"Whisper knows no language {value!r}; write a code such as en, cs or ru, or auto")
    if name == "recording_folder" and value and not value.startswith("~"):
        return str(Path(value).absolute())
    return value


def background_here(background: str) -> str:
    """The same, or drop where its place is not here, which is told on standard error."""
    if _has_place(background):
        return background
    console.warn(f"the place of {background} in the settings is not here; the background is dropped")
    return "drop"


def language_here(language: str) -> str:
    """The same, or to be told from the sound where Whisper does not know it, which is told on standard error."""
    if _is_known(language):
        return language
    console.warn(f"Whisper knows no language {language} as in the settings; it is told from the sound")
    return DETECT


def _places() -> list[str]:
    from engine.scenes import list_scenes

    return [scene.name for scene in list_scenes()]


def _has_place(background: str) -> bool:
    scene = Background.parse(background).scene
    return scene is None or scene in _places()


def _is_known(language: str) -> bool:
    """Where it cannot be asked, captions will say why there are none."""
    from engine.recognizer import known_languages

    try:
        return language in (DETECT, "en") or language in known_languages()
    except ArtefactError:
        return True
