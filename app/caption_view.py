"""The caption panel: a heading, a switch, the words, and what may be done with them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QVBoxLayout

from app.caption_history import History, Kept
from app.caption_overlay import CaptionOverlay, desktop_note
from app.caption_save import CaptionSaver
from app.caption_search import SearchBar
from app.caption_text import WAITING, CaptionText, Page
from app.controls import quiet_button
from app.shortcut_keys import bind, bind_action, keys_of
from app.shortcuts import SHORTCUTS
from app.theme import Theme, scaled_font
from engine.types import Caption

UNDO_S = 30.0
NOTE_S = 8.0
LEAST_LINES = 1.5
LOST = "The oldest captions went to make room for the newest; save them more often to keep all."


class Note(QLabel):
    """A few words in the room that is left; what has none is cut in the middle, and seen by who points at it."""

    def __init__(self) -> None:
        super().__init__()
        self._words = ""
        self.setProperty("tone", "muted")
        self.setFont(scaled_font(0.9))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def say(self, words: str, whole: str) -> None:
        """Show the words. whole: more of it."""
        self._words = words
        self.setToolTip(whole)
        self.setAccessibleName(whole)
        self._cut()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        self.setText(self.fontMetrics().elidedText(self._words, Qt.TextElideMode.ElideMiddle, self.width()))


class CaptionView(QFrame):
    """Captions with a heading, a switch, and what may be done with them."""

    wanted = Signal(bool)  # captions were switched on or off
    others_wanted = Signal(bool)  # whether to caption what the loudspeakers play, too
    told = Signal(str)  # a sentence for the person

    def __init__(self, on: bool, others: bool) -> None:
        super().__init__()
        self.setObjectName("card")
        self.history = History()
        self.text = CaptionText()
        self.search = SearchBar(self.text)
        self.note = Note()
        self.saver = CaptionSaver(self)
        self._overlay: CaptionOverlay | None = None
        self._aside: Page | None = None  # what the last clear took
        self._since: list[tuple[Caption, float]] = []  # what came after it
        self._undo_ends = _once(self, UNDO_S, self._forget_cleared)
        self._note_ends = _once(self, NOTE_S, lambda: self._say(""))
        self._make_buttons(on, others)
        self._arrange()
        self._make_shortcuts()
        self.saver.saved.connect(self._tell_saved)
        self.saver.failed.connect(self._tell_failed)

    # What it looks like -----------------------------------------------------------------------------------------------

    def _make_buttons(self, on: bool, others: bool) -> None:
        self.switch = quiet_button("On" if on else "Off", "", "Captions on or off", "captions", checkable=True)
        self.switch.setChecked(on)
        self.switch.toggled.connect(self._switched)
        tip = "Caption what your loudspeakers play, too: the other people in a call"
        self.others = quiet_button("Others", tip, "Captions of others", checkable=True)
        self.others.setChecked(others)
        self.others.setEnabled(on)
        self.others.toggled.connect(self.others_wanted)
        self.overlay_button = quiet_button(
            "Overlay",
            "Captions in a small window over all others ({}). Right-click it for its size and colours.",
            "Captions over other windows",
            "overlay",
            checkable=True,
        )
        self.overlay_button.toggled.connect(self._show_overlay)
        self.seek = quiet_button("Find", "", "Find in captions", "find")
        self.seek.clicked.connect(self.search.open_search)
        self.save = quiet_button("Save", "", "Save captions", "save_captions")
        self.save.clicked.connect(self.ask_where_to_save)
        self.copy = quiet_button("Copy", "", "Copy all captions", "copy_captions")
        self.copy.clicked.connect(self.copy_all)
        self.empty = quiet_button("Clear", "Empty this panel; you can undo that for 30 seconds", "Clear captions")
        self.empty.clicked.connect(self.clear)
        self.undo = quiet_button("Undo", "", "Undo clearing", "undo_clear")
        self.undo.clicked.connect(self.undo_clear)
        self.undo.hide()
        self.more = self._more_button()

    def _more_button(self) -> QToolButton:
        button = quiet_button("⋯", "How the captions are shown", "How captions are shown")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        self.times = menu.addAction("Times")
        self.times.setCheckable(True)
        self.times.toggled.connect(self.text.show_times)
        menu.addSeparator()
        for name, steps in (("larger_text", 1), ("smaller_text", -1), ("usual_text", None)):
            action = menu.addAction(SHORTCUTS[name].label)
            bind_action(action, name)
            action.triggered.connect(lambda _=False, steps=steps: self.text.zoom(steps))
            self.addAction(action)  # so that its keys work while the menu is closed
        button.setMenu(menu)
        return button

    def _arrange(self) -> None:
        title = QLabel("Captions")
        title.setFont(scaled_font(0.95, bold=True))
        head = QHBoxLayout()
        head.setSpacing(1)
        head.addWidget(title)
        head.addSpacing(8)
        head.addWidget(self.note, 1)
        buttons = (self.switch, self.others, self.overlay_button, self.seek, self.save, self.copy, self.empty)
        for widget in (*buttons, self.undo, self.more):
            widget.setProperty("narrow", True)
            head.addWidget(widget)
        box = QVBoxLayout(self)
        box.setContentsMargins(16, 8, 10, 10)
        box.setSpacing(2)
        box.addLayout(head)
        box.addWidget(self.search)
        box.addWidget(self.text, 1)
        self.text.setMinimumHeight(round(LEAST_LINES * self.text.fontMetrics().height()))

    def _make_shortcuts(self) -> None:
        search = self.search
        bind(self, "find_next", search.go, "The next match (Enter, {})", search.forth)
        bind(self, "find_previous", lambda: search.go(back=True), "The match before (Shift+Enter, {})", search.back)
        closing = QShortcut(QKeySequence(Qt.Key.Key_Escape), self, self.search.close_search)
        closing.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)

    def set_theme(self, theme: Theme) -> None:
        self.text.set_theme(theme)
        self.search.set_theme(theme)

    # Words ------------------------------------------------------------------------------------------------------------

    def show_caption(self, caption: Caption) -> None:
        """Keep what is final and show it."""
        at_s, lost = time.time(), self.history.lost
        caption = self.history.add(caption, at_s)
        if self._aside is not None:
            self._since.append((caption, at_s))
        self.text.show_caption(caption, at_s)
        if self.history.lost > lost:
            self.told.emit(LOST)

    def end_run(self) -> None:
        """The engine that spoke so far says no more: its tentative words go."""
        self.history.end_run()
        self._since = [(dataclasses.replace(caption, tentative=()), at_s) for caption, at_s in self._since]
        self.text.drop_tails()

    def clear(self) -> None:
        """Empty the panel and what would be saved. For UNDO_S, or until the next time, that can be undone."""
        if not len(self.history):
            return
        self._forget_cleared()
        self.history.clear()
        self._aside = self.text.put_aside()
        self.undo.show()
        self._undo_ends.start()

    def undo_clear(self) -> None:
        """Bring back what was cleared, with what came since after it."""
        if self._aside is None:
            return
        page, since = self._aside, self._since
        self._aside, self._since = None, []
        self.history.undo_clear()
        self.text.bring_back(page)
        for caption, at_s in since:
            self.text.show_caption(caption, at_s)
        self._forget_cleared()

    def _forget_cleared(self) -> None:
        if self._aside is not None:
            self._aside.document.deleteLater()
        self._aside, self._since = None, []
        self.history.forget_cleared()
        self._undo_ends.stop()
        self.undo.hide()

    def copy_all(self) -> None:
        """Put the final text on the clipboard, without what may still change."""
        QGuiApplication.clipboard().setText(self.text.final_text.strip())
        self._say(
            f"Copied the newest {self.text.most_paragraphs} paragraphs; Save holds all" if self.text.gone else "Copied"
        )

    # Files ------------------------------------------------------------------------------------------------------------

    def ask_where_to_save(self) -> None:
        """Show the file dialog; with nothing to save, say so."""
        if not len(self.history):
            self._say("Nothing to save yet")
            return
        self.saver.ask(self._to_save)

    def _to_save(self) -> tuple[Kept, str | None]:
        self._say("Saving …")
        return self.history.snapshot(), self.history.language

    def _tell_saved(self, path: str) -> None:
        self._say(f"Saved {path.replace(chr(92), '/').rsplit('/', 1)[-1]}", path)

    def _tell_failed(self, text: str) -> None:
        self._say("")
        self.told.emit(text)

    def _say(self, text: str, whole: str = "") -> None:
        """A few words beside the heading, for some seconds. whole: more of it, for who points at it."""
        self.note.say(text, whole or text)
        if text:
            self._note_ends.start()

    # The overlay ------------------------------------------------------------------------------------------------------

    @property
    def overlay(self) -> CaptionOverlay | None:
        """The window over the others, where it was ever asked for."""
        return self._overlay

    def close_overlay(self) -> None:
        """Take the overlay away; opened again it is where it was."""
        self.overlay_button.setChecked(False)

    def _show_overlay(self, on: bool) -> None:
        if self._overlay is None:
            if not on:
                return
            self._overlay = CaptionOverlay(self.text)
            keys_of(self).join(self._overlay)
            self._overlay.closed.connect(self.close_overlay)
            self.destroyed.connect(self._overlay.deleteLater)
        if not on:
            self._overlay.hide()
            return
        self._overlay.open_overlay(self.screen())
        if note := desktop_note(QGuiApplication.platformName()):
            self.told.emit(note)

    # The switch -------------------------------------------------------------------------------------------------------

    def show_unavailable(self, why: str) -> None:
        """Switch off, without telling anybody: what captions need is missing. why: a sentence in place of the words."""
        self.switch.blockSignals(True)
        self.switch.setChecked(False)
        self.switch.blockSignals(False)
        self._label_switch(False)
        self.text.setPlaceholderText(why)

    def _label_switch(self, on: bool) -> None:
        self.switch.setText("On" if on else "Off")
        self.others.setEnabled(on)
        self.text.setPlaceholderText(WAITING if on else "Captions are off.")

    def _switched(self, on: bool) -> None:
        self._label_switch(on)
        self.wanted.emit(on)


def _once(parent: CaptionView, seconds: float, then: Callable[[], None]) -> QTimer:
    """A timer that calls once, so long after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(round(1000 * seconds))
    timer.timeout.connect(then)
    return timer
