"""The sound devices as the window knows them: the last listing, and every name that was ever heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.devices import INPUT, OUTPUT, cable_in, hears
from engine.virtual_mic import offered

VIRTUAL_OUTPUT = "virtual:"  # no device's id: a microphone for other programs


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
    def virtual_mic(self) -> str | None:
        """What other programs call the microphone for calls; None where there can be none."""
        found = offered(self.listed)
        return found[1] if found is not None else None

    def hearing(self, output: str | None) -> set[str]:
        """Inputs, by id, that hear what is played to an output (None: the default): used together they would howl."""
        played = [d for d in self.listed if d.kind == OUTPUT and self._is_meant(d, output)]
        return {d.id for d in self.listed if d.kind == INPUT and any(hears(d, out) for out in played)}

    def reaches_calls(self, output: str | None) -> bool:
        """Whether other programs hear what is played to an output as their microphone."""
        played = (d.name for d in self.listed if d.kind == OUTPUT and self._is_meant(d, output))
        return output == VIRTUAL_OUTPUT or any(cable_in(name) is not None for name in played)

    def _is_meant(self, device: Any, output: str | None) -> bool:
        if output is None:
            return bool(device.default and not device.is_own)
        if output == VIRTUAL_OUTPUT:
            found = offered(self.listed)
            return found is not None and device.id == found[0]
        return bool(device.id == output)

    @property
    def has_microphone(self) -> bool:
        """Whether there is one; what an output plays is none."""
        return any(d.kind == "input" and not d.is_own and not d.is_monitor for d in self.listed)

    @property
    def default_input(self) -> str:
        """The system's own choice; empty where there is none, or where it is ours."""
        return next((d.id for d in self.listed if d.kind == "input" and d.default and not d.is_own), "")
