"""A shelf of made-up models for tests of the window: a download that goes as the test says, and every failure."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from app.model_shelf import Inventory, NetworkRow, Presence, Progress, SizeRow
from engine.sizes import SIZES
from engine.types import ArtefactError, Provider, Stopped

MB = 1_000_000
NETWORKS = (
    NetworkRow("encoder", "/assets/encoder.onnx", 13_725_014, "e56e71a5" * 8, "MIT", ("DeepFilterNet3 low-latency",)),
    NetworkRow("decoder", "/assets/decoder.onnx", 2_961_342, "a111be62" * 8, "MIT", ()),
    NetworkRow("refiner", "/assets/refiner.onnx", 2_457_502, "9fe65c0b" * 8, "MIT", ()),
    NetworkRow("residue", "/assets/residue.onnx", 2_660_389, "ed1d73fa" * 8, "MIT", ("Whisper base",)),
)


class FakeShelf:
    """Base is here, the other sizes can be had. `goes_to`: the MB at which a download waits for `more`, or for a halt.

    fail: what the next thing that is done raises.
    """

    def __init__(self) -> None:
        here = SizeRow(SIZES["base"], Presence.HERE, 145 * MB, "/cache/base.pt", "ed3a0b6b" * 8, "openai-whisper's")
        self.rows = {name: SizeRow(size, Presence.ABSENT) for name, size in SIZES.items()} | {"base": here}
        self.goes_to, self.more = 10_000, threading.Event()
        self.fail = ""
        self.looks = 0
        self.asked: list[tuple[str, str]] = []

    def look(self, provider: Provider) -> Inventory:
        self.looks += 1
        why = "cuda needs an NVIDIA GPU and its driver"
        return Inventory(NETWORKS, tuple(self.rows.values()), "codec0123456789abcdef", "cpu", why)

    def get(self, name: str, progress: Progress, halt: threading.Event) -> None:
        self._ask("get", name)
        row = self.rows[name]
        total, done = row.size.disk_mb * MB, row.done_bytes
        while done < total:
            while done >= self.goes_to * MB and not halt.is_set() and not self.more.wait(0.01):
                pass
            if halt.is_set():
                self.rows[name] = replace(row, presence=Presence.UNFINISHED, done_bytes=done)
                raise Stopped("stopped")
            done = min(done + MB, total)
            progress(f"downloading {name}.pt", done, total)
        self._put(name, f"/cache/{name}.pt", "openai-whisper's", True)

    def import_file(self, path: Path, halt: threading.Event) -> str:
        self._ask("import", str(path))
        self._put("small", "/cache/imported/small.safetensors", f"{path.name}, imported", False)
        return "small"

    def discard(self, name: str) -> None:
        self._ask("discard", name)
        self.rows[name] = SizeRow(SIZES[name], Presence.ABSENT)

    def remove(self, name: str) -> None:
        self._ask("remove", name)
        self.rows[name] = SizeRow(SIZES[name], Presence.ABSENT)

    def _put(self, name: str, path: str, source: str, verified: bool) -> None:
        size = SIZES[name]
        self.rows[name] = SizeRow(size, Presence.HERE, size.disk_mb * MB, path, "9ecf7799" * 8, source, verified)

    def _ask(self, what: str, name: str) -> None:
        self.asked.append((what, name))
        if self.fail:
            raise ArtefactError(self.fail)
