"""What the window remembers of devices that come and go."""

from __future__ import annotations

from app.known_devices import KnownDevices
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
