"""The column at the window's left: switch, mute, devices, levels, background, and the noise around."""

from __future__ import annotations

from collections import Counter

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app.boxes import DeviceBox
from app.controls import BackgroundControl, LevelMeter, PowerSwitch, quiet_button, section_label
from app.known_devices import VIRTUAL_OUTPUT, KnownDevices
from app.noise_view import NoiseView
from app.theme import Theme, scaled_font
from engine.ports import NO_OUTPUT
from engine.types import Background

DEMO_INPUT = "demo:"  # no device's id: the shipped recording
COLUMN_WIDTH = 300
DEFAULT_NAME = "System default"


class ControlColumn(QScrollArea):
    """Every control of the sound; scrolls where the window is too low for it."""

    def __init__(self, background: Background, captions: bool = False) -> None:
        super().__init__()
        self.power = PowerSwitch()
        self.mute = quiet_button("Mute", "", shortcut="mute", checkable=True)
        self.level = quiet_button("Level", "", shortcut="level", checkable=True)
        self.resync = quiet_button("Resync", "", shortcut="resync")
        self.input, self.output = DeviceBox("Microphone"), DeviceBox("Output")
        self.level_in, self.level_out = LevelMeter("In"), LevelMeter("Out")
        self.background = BackgroundControl(background, hears_places=True)
        self.noise = NoiseView(captions)
        self.noise.hide()  # until it is known that there is anything to see
        column = QWidget()
        column.setObjectName("column")
        self._fill(QVBoxLayout(column))
        self.setWidget(column)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedWidth(max(COLUMN_WIDTH, round(self.fontMetrics().averageCharWidth() * 38)))
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)

    def _fill(self, box: QVBoxLayout) -> None:
        box.setContentsMargins(18, 16, 18, 14)
        box.setSpacing(7)
        title = QLabel("Sottovoce")
        title.setFont(scaled_font(1.5, bold=True))
        head = self.head = QHBoxLayout()
        head.addWidget(title)
        head.addStretch(1)
        box.addLayout(head)
        box.addSpacing(4)
        box.addWidget(self.power)
        beside = QHBoxLayout()
        for button in (self.mute, self.level, self.resync):
            button.setProperty("narrow", True)
            beside.addWidget(button)
        beside.addStretch(1)
        box.addLayout(beside)
        box.addSpacing(4)
        for text, device in (("Microphone", self.input), ("Output", self.output)):
            label = section_label(text)
            label.setBuddy(device)
            box.addWidget(label)
            box.addWidget(device)
            box.addSpacing(5)
        box.addSpacing(4)
        box.addWidget(section_label("Levels"))
        box.addWidget(self.level_in)
        box.addWidget(self.level_out)
        box.addSpacing(8)
        box.addWidget(self.background)
        box.addSpacing(4)
        box.addWidget(self.noise, 1)
        box.addStretch(0)

    def set_theme(self, theme: Theme) -> None:
        for widget in (self.power, self.level_in, self.level_out, self.background, self.noise):
            widget.set_theme(theme)

    def show_devices(self, known: KnownDevices, input_id: str | None, output_id: str | None) -> None:
        """Offer what was listed, and what is no device, with these two chosen. An input that hears the output is not
        offered."""
        howling = known.hearing(output_id) - {input_id}
        devices = [d for d in known.listed if not d.is_own and not (d.kind == "input" and d.id in howling)]
        defaults = {d.kind: f"{d.name} (default)" for d in devices if d.default}
        inputs: list[tuple[str, object]] = [(defaults.get("input", DEFAULT_NAME), None)]
        outputs: list[tuple[str, object]] = [(defaults.get("output", DEFAULT_NAME), None)]
        if known.virtual_mic is not None:
            outputs.insert(0, (f"{known.virtual_mic} microphone, for calls", VIRTUAL_OUTPUT))
        named = Counter((d.kind, d.name) for d in devices)
        for d in devices:
            name = d.name if named[d.kind, d.name] == 1 else f"{d.name}, {d.id}"
            if d.kind == "input":
                inputs.append((f"{name} (what it plays)" if d.is_monitor else name, d.id))
            else:
                outputs.append((name, d.id))
        inputs.append(("Demo recording", DEMO_INPUT))
        outputs.append(("Nowhere, only pictures", NO_OUTPUT))
        self.input.show_choices(inputs, input_id)
        self.output.show_choices(outputs, output_id)
