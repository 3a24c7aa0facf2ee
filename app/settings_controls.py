"""One control for each kind of setting: what the table says becomes a widget with a name, reached by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QLocale, QSignalBlocker
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QWidget

from app.boxes import DeviceBox, QuietComboBox
from app.controls import BackgroundControl, quiet_button
from app.painted import NumberBox, TickBox
from app.record_bar import short
from app.settings import DETECT, Row
from app.settings_use import default_folder
from engine.types import Background, SottovoceError

NUMBER_STEP = 0.1
NUMBER_INDENT_PX = 9  # as in the other fields
CHOICE_TEXT = {
    "system": "As the desktop",
    "auto": "The fastest that works",
    "cpu": "CPU",
    "cuda": "GPU (CUDA)",
    "tensorrt": "GPU (TensorRT)",
}
Choices = list[tuple[str, object]]


@dataclass(frozen=True)
class Control:
    """A widget in a row, what of it takes the focus, and how it is told a value.

    says_itself: it holds its own label and sentence.
    """

    widget: QWidget
    focus: QWidget
    show: Callable[[Any], None]
    says_itself: bool = False


@dataclass(frozen=True)
class Offers:
    """What may be chosen where the table cannot know it: devices ("input", "output") and places."""

    devices: Callable[[str], Choices]
    places: Callable[[], list[Any]]


def make_control(row: Row, pick: Callable[[Any], None], offers: Offers) -> Control:
    """The control of a setting; `pick` is called with what a person chooses."""
    makers: dict[str, Callable[[], Control]] = {
        "bool": lambda: _switch(pick),
        "number": lambda: _number(row, pick),
        "choice": lambda: _box([(CHOICE_TEXT.get(c, c.capitalize()), c) for c in row.choices], pick),
        "language": lambda: _box(_languages(), pick),
        "background": lambda: _background(pick, offers),
        "input": lambda: _device(row.kind, pick, offers),
        "output": lambda: _device(row.kind, pick, offers),
        "folder": lambda: _folder(row, pick),
    }
    control = makers[row.kind]()
    if not control.says_itself:
        control.focus.setAccessibleName(row.label)
        control.focus.setAccessibleDescription(row.sentence)
    return control


def _switch(pick: Callable[[Any], None]) -> Control:
    box = TickBox()
    box.toggled.connect(lambda on: box.setText("On" if on else "Off"))
    box.clicked.connect(lambda on: pick(on))  # the state comes to what takes an argument only
    box.setText("Off")
    return Control(box, box, box.setChecked)


def _number(row: Row, pick: Callable[[Any], None]) -> Control:
    box = NumberBox()
    assert row.minimum is not None and row.maximum is not None
    box.setRange(row.minimum, row.maximum)
    box.setSingleStep(NUMBER_STEP)
    box.setSuffix(" ×")
    box.setKeyboardTracking(False)
    box.lineEdit().setTextMargins(NUMBER_INDENT_PX, 0, 0, 0)
    box.valueChanged.connect(lambda value: pick(round(value, 2)))

    def show(value: float) -> None:
        if round(box.value(), 2) != round(value, 2):
            with QSignalBlocker(box):
                box.setValue(value)

    return Control(box, box, show)


def _box(choices: Choices, pick: Callable[[Any], None]) -> Control:
    box = QuietComboBox()
    for text, data in choices:
        box.addItem(text, data)
    box.activated.connect(lambda _: pick(box.currentData()))

    def show(value: str) -> None:
        if box.findData(value) < 0:
            box.addItem(value, value)
        box.setCurrentIndex(box.findData(value))

    return Control(box, box, show)


def _languages() -> Choices:
    """What the recogniser knows, by name; one that cannot be named stands by its code."""
    from engine.recognizer import known_languages

    try:
        codes = known_languages()
    except SottovoceError:
        codes = frozenset(("en",))
    names = {code: QLocale.languageToString(QLocale.codeToLanguage(code)) for code in codes}
    unnamed = QLocale.languageToString(QLocale.Language.AnyLanguage)
    named = sorted((code if name in ("", unnamed, "C") else name, code) for code, name in names.items())
    return [("Told from the sound", DETECT), *named]


def _background(pick: Callable[[Any], None], offers: Offers) -> Control:
    control = BackgroundControl(Background())
    control.changed.connect(lambda background: pick(str(background)))

    def show(value: str) -> None:
        control.set_places(offers.places())
        if str(control.background()) != value:
            control.show_background(Background.parse(value))

    return Control(control, control.slider, show, says_itself=True)


def _device(end: str, pick: Callable[[Any], None], offers: Offers) -> Control:
    box = DeviceBox(end)
    box.chosen.connect(pick)
    return Control(box, box, lambda value: box.show_choices(offers.devices(end), value))


def _folder(row: Row, pick: Callable[[Any], None]) -> Control:
    line = QLineEdit()
    line.setPlaceholderText(short(default_folder()))
    last = ""

    def show(folder: str) -> None:
        """What is being typed stays, unless another folder was chosen meanwhile."""
        nonlocal last
        if folder != last or not line.isModified():
            line.setText(folder)
        last = folder

    def finish() -> None:
        line.setModified(False)
        pick(line.text())

    line.editingFinished.connect(finish)
    browse = quiet_button("Choose …", "Look for a folder", f"Choose a folder: {row.label}")
    whole = QWidget()
    beside = QHBoxLayout(whole)
    beside.setContentsMargins(0, 0, 0, 0)
    beside.addWidget(line, 1)
    beside.addWidget(browse)

    def look() -> None:
        dialog = QFileDialog(whole.window(), row.label, line.text())
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly)
        dialog.fileSelected.connect(pick)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    browse.clicked.connect(look)
    return Control(whole, line, show)
