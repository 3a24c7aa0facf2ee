"""Every setting, in one table: name, kind, range or choices, default, and a sentence for a person.

From it come the checks, the file (app/settings_file.py), the dialog (app/settings_dialog.py), `sottovoce settings`, and
what `sottovoce gui` and `live` do where no flag says otherwise (app/settings_use.py). Beside the table stand what is
remembered for each microphone, presets (named sets of background, level and captions), and the shortcuts that a person
changed (app/shortcuts.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from engine.sizes import canonical
from engine.types import DEFAULT_WHISPER, Background, UsageError

FROZEN = ConfigDict(frozen=True, allow_inf_nan=False)
DETECT = "auto"  # the language is told from what is heard
SCALE_MIN, SCALE_MAX = 0.7, 3.0
MOST_NAME_CHARS = 40
YES_NO = "on or off"


def _as_text(value: object) -> object:
    """A gain in a file may be a bare number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value


def _background(text: str) -> str:
    return str(Background.parse(text))


def _language(text: str) -> str:
    word = text.strip().lower()
    if word != DETECT and not re.fullmatch("[a-z]{2,3}", word):
        raise ValueError("no language")
    return word


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


def _size(name: object) -> object:
    """A size may be called by its other name."""
    return canonical(name) if isinstance(name, str) else name


WhisperName = Literal[
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
    "large-v3-turbo", "large-v3", "large-v2", "large-v1",
]  # fmt: skip
WhisperSize = Annotated[WhisperName, BeforeValidator(_size)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
BackgroundText = Annotated[Text, BeforeValidator(_as_text), AfterValidator(_background)]
Language = Annotated[str, AfterValidator(_language)]


def _row(group: str, label: str, default: Any, sentence: str, kind: str = "", **limits: Any) -> Any:
    extra: dict[str, Any] = {"group": group, "kind": kind}
    return Field(default=default, title=label, description=sentence, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """The table. `model_fields_set` names what a person chose; the rest is as it came."""

    model_config = FROZEN | {"extra": "forbid"}

    input: Text = _row("Sound", "Microphone", "", "Which one is heard; empty is the system's default.", "input")
    virtual_microphone: bool = _row(
        "Sound",
        "Microphone for calls",
        True,
        "Offer the clean sound to other programs as a microphone, instead of playing it on a device.",
    )
    output: Text = _row(
        "Sound",
        "Output",
        "",
        "Where the clean sound goes when it is not a microphone for calls; empty is the system's default.",
        "output",
    )
    background: BackgroundText = _row(
        "Sound",
        "Background",
        "drop",
        "What becomes of the background: keep, drop, a gain in dB from -60 to 0, or swap:PLACE[@DB].",
        "background",
    )
    level: bool = _row("Sound", "Level control", False, "Bring the voice to a steady level.")
    captions: bool = _row("Captions", "Captions", True, "Write what is said.")
    caption_language: Language = _row(
        "Captions", "Language", "en", "What is spoken, as a two-letter code; auto tells it from the sound.", "language"
    )
    caption_others: bool = _row(
        "Captions", "Captions of others", False, "Caption what the loudspeakers play, too: the others in a call."
    )
    caption_scale: float = _row(
        "Captions", "Size of captions", 1.0, "How large captions are written.", ge=SCALE_MIN, le=SCALE_MAX
    )
    theme: Literal["system", "dark", "light"] = _row(
        "Window", "Colours", "system", "The window's colours; system follows the desktop."
    )
    welcome: bool = _row(
        "Window", "First words", True, "Say once, at the next start, how other programs get the clean sound."
    )
    start_minimised: bool = _row("Window", "Start minimised", False, "Open the window out of the way.")
    keep_in_tray: bool = _row(
        "Window", "Keep running when closed", False, "Closing the window leaves the sound running, behind a tray icon."
    )
    autostart: bool = _row("Window", "Start with the desktop", False, "Open Sottovoce when you log in.")
    recording_folder: Text = _row(
        "Recording and models",
        "Recordings",
        "",
        "Where recordings go when one is asked for; empty is Sottovoce among your music. This never starts one.",
        "folder",
    )
    whisper: WhisperSize = _row(
        "Recording and models", "Whisper", DEFAULT_WHISPER, "Which one writes captions; larger ones are under Models."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = _row(
        "Recording and models", "Models run on", "auto", "Where the networks run; auto takes the fastest that works."
    )


class Microphone(BaseModel):
    """What was last used with a microphone."""

    model_config = FROZEN
    background: BackgroundText
    level: bool


class Preset(BaseModel):
    """A named set: what becomes of the background, of the level, and whether there are captions."""

    model_config = FROZEN
    background: BackgroundText
    level: bool
    captions: bool


PRESETS = {
    "Call": Preset(background="drop", level=True, captions=False),
    "Stream": Preset(background="-18", level=True, captions=True),
    "Keep the room": Preset(background="keep", level=False, captions=False),
}


@dataclass(frozen=True)
class Remembered:
    """All that is kept: the settings, microphones by id, a person's own presets, and the shortcuts they changed."""

    settings: Settings = field(default_factory=Settings)
    microphones: Mapping[str, Microphone] = field(default_factory=dict)
    own_presets: Mapping[str, Preset] = field(default_factory=dict)
    shortcuts: Mapping[str, str] = field(default_factory=dict)

    @property
    def presets(self) -> dict[str, Preset]:
        """Ours, then the person's own."""
        return PRESETS | dict(self.own_presets)


@dataclass(frozen=True)
class Row:
    """A setting as a dialog or a list needs it. kind: bool, number, choice, text, or what a text stands for."""

    name: str
    label: str
    sentence: str
    group: str
    kind: str
    default: Any
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def allowed(self) -> str:
        """What it takes, in words."""
        if self.kind == "choice":
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        if self.kind == "number":
            return f"a number from {self.minimum:g} to {self.maximum:g}"
        words = {
            "bool": YES_NO,
            "background": "keep, drop, a gain in dB from -60 to 0, or swap:PLACE[@DB]",
            "language": "a two-letter code such as en, or auto",
        }
        return words.get(self.kind, "one line of at most 1000 characters")


def _row_of(name: str, info: FieldInfo) -> Row:
    extra = info.json_schema_extra
    assert isinstance(extra, dict) and info.title and info.description
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    plain = {bool: "bool", float: "number"}.get(info.annotation, "text") if isinstance(info.annotation, type) else ""
    kind = str(extra["kind"]) or ("choice" if choices else plain)
    least = next((limit.ge for limit in info.metadata if hasattr(limit, "ge")), None)
    most = next((limit.le for limit in info.metadata if hasattr(limit, "le")), None)
    group = str(extra["group"])
    return Row(name, info.title, info.description, group, kind, info.default, choices, least, most)


ROWS = {name: _row_of(name, info) for name, info in Settings.model_fields.items()}


def row(name: str) -> Row:
    """The setting of that name; raises UsageError for one that there is not."""
    key = name.strip().replace("-", "_")
    if key in ROWS:
        return ROWS[key]
    near = difflib.get_close_matches(key, ROWS, 1)
    hint = f"did you mean {near[0]}?" if near else "see: sottovoce settings list"
    raise UsageError(f"there is no setting {name!r}; {hint}")


def checked(name: str, value: object) -> Any:
    """The value as the setting holds it, from a file, a control or a command line; raises UsageError."""
    try:
        return getattr(Settings.model_validate({name: value}), name)
    except (ValidationError, UsageError):
        raise UsageError(f"{name} is {ROWS[name].allowed}; not {shown(value)!r}") from None


def shown(value: object) -> str:
    """A value as a command line takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with some of them set, each checked; raises UsageError."""
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings(**chosen | {name: checked(name, value) for name, value in values.items()})


def preset(remembered: Remembered, name: str) -> Preset:
    """The preset of that name, however it is cased; raises UsageError."""
    presets = remembered.presets
    found = preset_name(name, presets)
    if found is None:
        raise UsageError(f"there is no preset {name!r}; choose one of: {', '.join(presets)}")
    return presets[found]


def preset_name(name: str, presets: Collection[str]) -> str | None:
    """How the preset is written that a person calls so, however it is cased and spaced; None where there is none."""
    by_case = {" ".join(known.casefold().split()): known for known in presets}
    return name if name in presets else by_case.get(" ".join(name.casefold().split()))


def own_preset_name(name: str, own: Collection[str] = ()) -> str:
    """A name that a person's own preset may have, as written before where it is one of `own`; raises UsageError."""
    name = preset_name(name, own) or " ".join(name.split())
    if not name or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise UsageError(f"a preset's name has 1 to {MOST_NAME_CHARS} characters")
    if name.casefold() in (ours.casefold() for ours in PRESETS):
        raise UsageError(f"{name!r} comes with Sottovoce and stays as it is; choose another name")
    return name
