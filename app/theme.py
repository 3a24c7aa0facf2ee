"""Colours and type of the window, dark and light, following the system.

One accent colour. Voice is cool, background is warm, a place that was swapped in is violet; the same in every view.
Sizes of type are factors of the system's own font, so that text scales with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

LEAST_POINT_SIZE = 10.0
DIM_STEPS = 8  # a background token is dimmed in this many steps from kept to dropped
SWAPPED = DIM_STEPS + 1  # the treatment after the last step of dimming
TREATMENTS = SWAPPED + 1
CODE_COLOURS = 256
NO_CODE = CODE_COLOURS  # the colour after the last: a quantizer that was left out

Lut = NDArray[np.uint8]  # [N, 4], RGBA


class ThemeChoice(StrEnum):
    """Which colours to use."""

    SYSTEM = "system"
    DARK = "dark"
    LIGHT = "light"


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb. `faint`: what cannot be used now; `ramp`: the spectrogram from silent to loud."""

    dark: bool
    window: str
    panel: str
    raised: str
    line: str
    text: str
    muted: str
    faint: str
    accent: str
    on_accent: str
    warning: str
    warning_panel: str
    ramp: tuple[str, ...]


DARK = Theme(
    dark=True,
    window="#121517",
    panel="#191d20",
    raised="#242a2e",
    line="#2f363b",
    text="#e9ecee",
    muted="#9da7ae",
    faint="#6b757c",
    accent="#4fc3a8",
    on_accent="#06221b",
    warning="#e5b567",
    warning_panel="#2b2518",
    ramp=("#15191c", "#16262a", "#19424a", "#24776f", "#4fc3a8", "#c5efdc", "#ffffff"),
)
LIGHT = Theme(
    dark=False,
    window="#f3f5f5",
    panel="#ffffff",
    raised="#e8eced",
    line="#d5dbdd",
    text="#171c1f",
    muted="#566169",
    faint="#838d93",
    accent="#0a7763",
    on_accent="#ffffff",
    warning="#8a5a00",
    warning_panel="#fdf4df",
    ramp=("#fbfcfc", "#e3f0ed", "#b5dcd3", "#6dbcac", "#1f9480", "#0b5f55", "#06302f"),
)


def system_theme(choice: ThemeChoice = ThemeChoice.SYSTEM) -> Theme:
    """The theme asked for; for SYSTEM the desktop's, dark where the desktop has no opinion."""
    if choice is ThemeChoice.SYSTEM:
        return LIGHT if QGuiApplication.styleHints().colorScheme() is Qt.ColorScheme.Light else DARK
    return DARK if choice is ThemeChoice.DARK else LIGHT


def scaled_font(factor: float, bold: bool = False) -> QFont:
    """The application's font, larger by the factor; `bold` is a half-bold where the font has one."""
    font = QFont(QApplication.font())
    font.setPointSizeF(max(LEAST_POINT_SIZE, font.pointSizeF()) * factor)
    font.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
    return font


def apply_theme(app: QApplication, theme: Theme) -> None:
    """Give the whole application these colours."""
    app.setStyle("Fusion")
    palette = QPalette()
    roles = QPalette.ColorRole
    for role, colour in (
        (roles.Window, theme.window),
        (roles.Base, theme.panel),
        (roles.AlternateBase, theme.raised),
        (roles.Button, theme.raised),
        (roles.WindowText, theme.text),
        (roles.Text, theme.text),
        (roles.ButtonText, theme.text),
        (roles.PlaceholderText, theme.muted),
        (roles.ToolTipBase, theme.raised),
        (roles.ToolTipText, theme.text),
        (roles.Highlight, theme.accent),
        (roles.HighlightedText, theme.on_accent),
        (roles.Mid, theme.line),
        (roles.Dark, theme.line),
    ):
        palette.setColor(role, QColor(colour))
    for role in (roles.Text, roles.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(theme.faint))
    app.setPalette(palette)
    app.setStyleSheet(style_sheet(theme))


def style_sheet(theme: Theme) -> str:
    """The style sheet of every widget; names are object names and the `tone` property."""
    t = theme
    return f"""
QWidget {{ color: {t.text}; }}
QMainWindow, QWidget#page {{ background: {t.window}; }}
QFrame#card {{ background: {t.panel}; border: 1px solid {t.line}; border-radius: 10px; }}
QWidget#column {{ background: {t.panel}; border-right: 1px solid {t.line}; }}
QScrollArea, QScrollArea > QWidget > QWidget#column {{ border: none; }}
QLabel {{ background: transparent; }}
QLabel[tone="muted"] {{ color: {t.muted}; }}
QLabel[tone="accent"] {{ color: {t.accent}; }}
QLabel[tone="warning"] {{ color: {t.warning}; }}
QToolTip {{ background: {t.raised}; color: {t.text}; border: 1px solid {t.line}; padding: 6px; }}
QComboBox {{ background: {t.raised}; border: 1px solid {t.line}; border-radius: 7px; padding: 6px 10px;
  combobox-popup: 0; }}
QComboBox:hover {{ border-color: {t.muted}; }}
QComboBox:focus {{ border-color: {t.accent}; }}
QComboBox:disabled {{ color: {t.faint}; }}
QuietComboBox::drop-down {{ border: none; width: 26px; }}
QComboBox QAbstractItemView {{ background: {t.raised}; border: 1px solid {t.line}; padding: 4px; outline: 0;
  selection-background-color: {t.accent}; selection-color: {t.on_accent}; }}
QComboBox QAbstractItemView::item {{ padding: 4px 6px; }}
QToolButton#quiet, QPushButton#quiet {{ background: transparent; border: 1px solid transparent; border-radius: 6px;
  padding: 3px 9px; color: {t.muted}; }}
QToolButton#quiet:hover, QPushButton#quiet:hover {{ background: {t.raised}; color: {t.text}; }}
QToolButton#quiet:checked {{ color: {t.accent}; }}
QToolButton#quiet:focus, QPushButton#quiet:focus {{ border-color: {t.accent}; }}
QToolButton#quiet[narrow="true"] {{ padding: 3px 1px; }}
QToolButton#quiet::menu-indicator {{ image: none; }}
QPushButton#newest {{ background: {t.raised}; color: {t.text}; border: 1px solid {t.line}; border-radius: 6px;
  padding: 2px 9px; }}
QPushButton#newest:hover, QPushButton#newest:focus {{ border-color: {t.accent}; }}
QFrame#message {{ background: {t.warning_panel}; border: 1px solid {t.warning}; border-radius: 8px; }}
QTextEdit {{ background: transparent; border: none; selection-background-color: {t.accent};
  selection-color: {t.on_accent}; placeholder-text-color: {t.muted}; }}
QTextEdit:focus {{ border: none; }}
QDialog#settings, QDialog#shortcuts {{ background: {t.window}; }}
QLineEdit, QDoubleSpinBox {{ background: {t.raised}; border: 1px solid {t.line}; border-radius: 7px;
  padding: 6px 10px; selection-background-color: {t.accent}; selection-color: {t.on_accent};
  placeholder-text-color: {t.muted}; }}
QLineEdit:focus, QDoubleSpinBox:focus {{ border-color: {t.accent}; }}
QDoubleSpinBox::up-button, QDoubleSpinBox::down-button {{ background: transparent; border: none; width: 24px; }}
QCheckBox {{ spacing: 8px; padding: 5px 2px; }}
QCheckBox::indicator {{ width: 15px; height: 15px; border: 1px solid {t.muted}; border-radius: 4px;
  background: {t.raised}; }}
QCheckBox::indicator:checked {{ background: {t.accent}; border-color: {t.accent}; }}
QCheckBox::indicator:disabled {{ border-color: {t.line}; }}
QCheckBox::indicator:focus {{ border: 2px solid {t.text}; }}
QCheckBox:disabled, QLineEdit:disabled, QToolButton#quiet:disabled, QPushButton#quiet:disabled {{ color: {t.faint}; }}
QMenu {{ background: {t.raised}; border: 1px solid {t.line}; padding: 4px; }}
QMenu::item {{ padding: 6px 22px; border-radius: 4px; }}
QMenu::item:selected {{ background: {t.accent}; color: {t.on_accent}; }}
QScrollBar:vertical {{ background: transparent; width: 9px; margin: 0; }}
QScrollBar::handle:vertical {{ background: {t.line}; border-radius: 4px; min-height: 28px; }}
QScrollBar::handle:vertical:hover {{ background: {t.muted}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QSplitter::handle {{ background: transparent; }}
QDialog#models {{ background: {t.window}; }}
QProgressBar {{ background: {t.raised}; border: none; border-radius: 3px; max-height: 6px; }}
QProgressBar::chunk {{ background: {t.accent}; border-radius: 3px; }}
"""


# Colours of pictures --------------------------------------------------------------------------------------------------


def ramp_lut(colours: tuple[str, ...]) -> Lut:
    """256 colours [256, 4] from the first to the last, evenly."""
    stops = np.array([_rgb(c) for c in colours], dtype=np.float64)
    at = np.linspace(0, len(colours) - 1, 256)
    channels = [np.interp(at, np.arange(len(colours)), stops[:, i]) for i in range(3)]
    return _rgba(np.stack(channels, axis=1))


def code_lut(theme: Theme, hue_from: float, hue_to: float) -> Lut:
    """Colours of codes [TREATMENTS * (CODE_COLOURS + 1), 4]: kept, dimmed step by step to dropped, swapped.

    Index: treatment * (CODE_COLOURS + 1) + colour of the code. Hues in degrees (OKLCH).
    """
    low, high = (0.30, 0.86) if theme.dark else (0.90, 0.42)
    lightness = np.linspace(low, high, CODE_COLOURS)
    kept = _oklch(lightness, 0.115, np.linspace(hue_from, hue_to, CODE_COLOURS))
    swapped = _oklch(lightness, 0.13, np.linspace(290.0, 330.0, CODE_COLOURS))
    panel = np.array(_rgb(theme.panel), dtype=np.float64)
    grey = kept.mean(axis=1, keepdims=True)
    tables = []
    for step in range(DIM_STEPS + 1):
        amount = step / DIM_STEPS
        faded = kept + (grey - kept) * 0.85 * amount
        tables.append(faded + (panel - faded) * 0.72 * amount)
    tables.append(swapped)
    return _rgba(np.concatenate([np.concatenate([table, panel[None]]) for table in tables]))


def voice_lut(theme: Theme) -> Lut:
    """Colours of the voice's codes."""
    return code_lut(theme, 235.0, 140.0)


def background_lut(theme: Theme) -> Lut:
    """Colours of the background's codes."""
    return code_lut(theme, 25.0, 95.0)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _rgba(rgb: NDArray[np.float64]) -> Lut:
    """[N, 3] of 0..255 to [N, 4] bytes, opaque."""
    return np.concatenate([np.clip(np.rint(rgb), 0, 255), np.full((len(rgb), 1), 255.0)], axis=1).astype(np.uint8)


def _oklch(lightness: NDArray[np.float64], chroma: float, hue_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLCH to sRGB [N, 3] of 0..255 (Ottosson's matrices); out of gamut is clipped."""
    chromas = chroma * np.clip(4.0 * (1.0 - lightness), 0.25, 1.0)  # less near white, where sRGB holds less
    a, b = chromas * np.cos(np.radians(hue_deg)), chromas * np.sin(np.radians(hue_deg))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=1,
    ).clip(0.0, 1.0)
    return 255.0 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
