"""The sound devices as the window knows them: the last listing, and every name that was ever heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class KnownDevices:
    """listed: DeviceInfo of all that were there when the engine looked last, our own among them."""

    def __init__(self) -> None:
        self.listed: list[Any] = []
        self._names: dict[str, str] = {}

    def take(self, devices: Sequence[Any]) -> None:
        """A new listing."""
        self.listed = list(devices)
        self._names |= {d.id: d.name for d in devices}

    def ids(self, end: str) -> list[str]:
        """What may be chosen as "input" or "output", by id."""
        return [d.id for d in self.listed if d.kind == end and not d.is_own]

    def name(self, device: str) -> str:
        """What a person calls a device, be it gone or not; its id where it was never there."""
        return self._names.get(device, device)

    @property
    def has_microphone(self) -> bool:
        """Whether there is one; what an output plays is none."""
        return any(d.kind == "input" and not d.is_own and not d.is_monitor for d in self.listed)

    @property
    def default_input(self) -> str:
        """The system's own choice; empty where there is none, or where it is ours."""
        return next((d.id for d in self.listed if d.kind == "input" and d.default and not d.is_own), "")
