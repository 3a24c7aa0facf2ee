"""What the window remembers of devices that come and go."""

from __future__ import annotations

import pytest

from app.known_devices import VIRTUAL_OUTPUT, KnownDevices
from engine.devices import INPUT, OUTPUT, DeviceInfo

DESK = DeviceInfo("desk", "Desk microphone", INPUT, default=True)
OURS = DeviceInfo("sottovoce", "Sottovoce", INPUT, default=False, is_own=True)
PLAYED = DeviceInfo("speakers.monitor", "What the speakers play", INPUT, default=False, is_monitor=True)
SPEAKERS = DeviceInfo("speakers", "Speakers", OUTPUT, default=True)


def test_what_may_be_chosen_is_what_is_there_and_not_ours() -> None:
    known = KnownDevices()
    known.take([DESK, OURS, PLAYED, SPEAKERS])
    assert known.ids(INPUT) == ["desk", "speakers.monitor"]
    assert known.ids(OUTPUT) == ["speakers"]


def test_a_device_that_has_gone_keeps_its_name() -> None:
    known = KnownDevices()
    known.take([DESK, SPEAKERS])
    known.take([SPEAKERS])
    assert known.name("desk") == "Desk microphone"
    assert known.name("never there") == "never there"
    assert known.ids(INPUT) == []


def test_what_an_output_plays_is_no_microphone() -> None:
    known = KnownDevices()
    known.take([PLAYED, OURS, SPEAKERS])
    assert not known.has_microphone
    known.take([PLAYED, DESK])
    assert known.has_microphone


def test_the_default_is_the_systems_unless_it_is_ours() -> None:
    known = KnownDevices()
    assert known.default_input == ""
    known.take([DESK, PLAYED])
    assert known.default_input == "desk"
    known.take([DeviceInfo("sottovoce", "Sottovoce", INPUT, default=True, is_own=True)])
    assert known.default_input == ""


# Where a virtual cable stands for a microphone of ours ----------------------------------------------------------------

CABLE, OTHER_END = (DeviceInfo("hole", "BlackHole 2ch", kind, default=False) for kind in (OUTPUT, INPUT))


def test_on_linux_there_is_always_a_microphone_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: True)
    assert KnownDevices().virtual_mic == "Sottovoce"
    assert KnownDevices().reaches_calls(VIRTUAL_OUTPUT)


def test_elsewhere_it_is_the_cable_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.virtual_mic.makes_its_own", lambda: False)
    known = KnownDevices()
    known.take([DESK, SPEAKERS])
    assert known.virtual_mic is None
    assert known.hearing(VIRTUAL_OUTPUT) == set()
    known.take([DESK, OTHER_END, SPEAKERS, CABLE])
    assert known.virtual_mic == "BlackHole 2ch"
    assert known.hearing(VIRTUAL_OUTPUT) == known.hearing("hole") == {"hole"}
    assert known.hearing("speakers") == known.hearing(None) == set()
    assert known.reaches_calls("hole")
    assert not known.reaches_calls("speakers") and not known.reaches_calls(None)


def test_a_monitor_hears_its_output_and_no_other() -> None:
    known = KnownDevices()
    played = DeviceInfo("speakers.monitor", "What the speakers play", INPUT, False, True, monitor_of="speakers")
    known.take([DESK, played, SPEAKERS, DeviceInfo("headset", "Headset", OUTPUT, default=False)])
    assert known.hearing("speakers") == known.hearing(None) == {"speakers.monitor"}
    assert known.hearing("headset") == set()
