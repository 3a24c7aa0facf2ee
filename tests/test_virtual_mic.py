"""The virtual microphone: over a real PulseAudio it comes, goes, and outlives no run; elsewhere it is a cable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import virtual_mic
from engine.devices import INPUT, cable_in, choose_input, choose_output, list_devices
from engine.endpoints import Endpoints
from engine.pulse import PrivateServer
from engine.types import DeviceError, EngineConfig, UsageError
from engine.virtual_mic import MIC_NAME, MIC_SINK, CableMic, PulseMic, remove_leftovers
from tests.pulse import pulse_server

__all__ = ["pulse_server"]
DEAD, INIT = 2**22 + 1, 1  # beyond the highest process number of Linux; a process that always lives
OURS = {MIC_NAME, MIC_SINK, f"{MIC_SINK}.monitor"}


def own() -> set[str]:
    return {d.id for d in list_devices() if d.is_own}


def load_as(server: PrivateServer, pid: int, more: str = "") -> int:
    properties = f"sottovoce.pid={pid} {more}".strip()
    return server.load("module-null-sink", f'sink_name={MIC_SINK} sink_properties="{properties}"')


def test_it_comes_and_goes_and_is_never_our_input(pulse_server: PrivateServer) -> None:
    with PulseMic():
        assert own() == OURS
        mine = {d.id: d for d in list_devices() if d.is_own}
        assert not mine[MIC_NAME].is_monitor  # programs that hide monitors show it
        assert mine[MIC_NAME].name == "Sottovoce"
        assert choose_output(MIC_SINK).id == MIC_SINK
        assert choose_input(None, MIC_SINK).id == "speaker.monitor"
        for name in (MIC_NAME, f"{MIC_SINK}.monitor"):
            with pytest.raises(UsageError, match="own microphone"):
                choose_input(name)
    assert own() == set()


def test_even_as_the_systems_default_it_is_not_chosen(pulse_server: PrivateServer) -> None:
    with PulseMic():
        subprocess.run(["pactl", "set-default-source", MIC_NAME], check=True)
        subprocess.run(["pactl", "set-default-sink", MIC_SINK], check=True)
        assert next(d for d in list_devices() if d.id == MIC_NAME).default
        assert choose_input(None).id == "speaker.monitor"
        assert choose_output(None).id == "speaker"


def test_a_dead_runs_microphone_is_replaced_and_a_living_ones_is_not(pulse_server: PrivateServer) -> None:
    number = load_as(pulse_server, DEAD)
    with PulseMic():
        assert own() == OURS
    pulse_server.unload(number)
    load_as(pulse_server, INIT)
    with pytest.raises(DeviceError, match="another Sottovoce"):
        PulseMic().create()


def test_another_process_with_the_dead_ones_number_is_no_run_of_ours(pulse_server: PrivateServer) -> None:
    began = psutil.Process(INIT).create_time() - 3600.0
    load_as(pulse_server, INIT, f"sottovoce.began={began:.0f}")
    with PulseMic():
        assert own() == OURS
    began += 3600.0
    load_as(pulse_server, INIT, f"sottovoce.began={began:.0f}")
    with pytest.raises(DeviceError, match="process 1"):
        PulseMic().create()


def test_what_a_killed_run_left_is_gone_at_the_next_start(pulse_server: PrivateServer) -> None:
    code = (
        "import os, signal; from engine.virtual_mic import PulseMic; PulseMic().create();"
        " os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode < 0
    assert own() == OURS
    ends = Endpoints(EngineConfig(output="speaker", input="speaker.monitor"), None, None, lambda event: None)
    with pytest.raises(UsageError, match="howl"):
        ends.prepare()  # a start without a virtual microphone, even one that fails
    assert own() == set()


def test_leftovers_of_a_living_run_stay(pulse_server: PrivateServer) -> None:
    load_as(pulse_server, INIT)
    remove_leftovers()
    assert MIC_SINK in own()


def test_without_a_server_there_is_nothing_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SERVER", "unix:/nonexistent/pulse")
    remove_leftovers()
    PulseMic().remove()
    with pytest.raises(DeviceError, match="pulseaudio --start"):
        PulseMic().create()


def test_a_server_that_came_back_gets_the_microphone_again() -> None:
    mic = PulseMic()
    for _ in range(2):
        with PrivateServer(["module-null-sink sink_name=speaker"]):
            mic.create()
            assert own() == OURS
    mic.remove()


# Elsewhere ------------------------------------------------------------------------------------------------------------


class FakePortAudio:
    """The parts of sounddevice that list devices: name, channels in and out, and which of the host APIs has it."""

    def __init__(self, *devices: tuple[str, int, int] | tuple[str, int, int, int], apis: Sequence[str] = ("Core",)):
        self._apis = apis
        self._devices = [
            {
                "name": name, "index": index, "hostapi": api[0] if api else 0, "default_samplerate": 48000.0,
                "max_input_channels": inputs, "max_output_channels": outputs,
            }
            for index, (name, inputs, outputs, *api) in enumerate(devices)
        ]  # fmt: skip

    def query_devices(self) -> list[dict[str, Any]]:
        return self._devices

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": name, "default_input_device": 0, "default_output_device": 1} for name in self._apis]

    def _terminate(self) -> None: ...
    def _initialize(self) -> None: ...


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A system without Pulse."""
    monkeypatch.setattr("engine.devices.on_pulse", lambda: False)
    monkeypatch.setattr("engine.pulse.list_if_available", lambda: None)
    return monkeypatch


MAC = [("BlackHole 2ch", 2, 2), ("Speakers", 0, 2), ("Microphone", 1, 0)]
WINDOWS = [
    ("CABLE Output (VB-Audio Virtual Cable)", 2, 0),
    ("CABLE Input (VB-Audio Virtual Cable)", 0, 2),
    ("Mic", 1, 0),
]


@pytest.mark.parametrize(
    ("devices", "sink", "heard", "microphone"),
    [
        (MAC, "BlackHole 2ch, Core", "BlackHole 2ch", "Microphone, Core"),
        (WINDOWS, "CABLE Input (VB-Audio Virtual Cable), Core", "CABLE Output (VB-Audio Virtual Cable)", "Mic, Core"),
    ],
    ids=["mac", "windows"],
)
def test_a_cable_is_found_named_and_not_listened_to(
    elsewhere: pytest.MonkeyPatch, devices: list[tuple[str, int, int]], sink: str, heard: str, microphone: str
) -> None:
    elsewhere.setattr("engine.devices._sounddevice", lambda: FakePortAudio(*devices))
    mic = CableMic()
    mic.create()
    assert (mic.sink, mic.name) == (sink, heard)
    assert choose_input(None, mic.sink).id == microphone  # though the cable is the default input here
    other_end = next(d for d in list_devices() if d.kind == INPUT and d.name == heard)
    with pytest.raises(UsageError, match="howl"):
        choose_input(other_end.id, mic.sink)
    mic.remove()


def test_the_other_end_is_not_listened_to_in_whatever_way_windows_lists_it(elsewhere: pytest.MonkeyPatch) -> None:
    apis = ("MME", "Windows WASAPI")
    cut = [(name[:31], *channels) for name, *channels in WINDOWS]
    twice = [(*device, api) for api, devices in enumerate((cut, WINDOWS)) for device in devices]
    elsewhere.setattr("engine.devices._sounddevice", lambda: FakePortAudio(*twice, apis=apis))  # type: ignore[arg-type]
    mic = CableMic()
    mic.create()
    assert mic.sink == "CABLE Input (VB-Audio Virtual C, MME"
    assert choose_input(None, mic.sink).name == "Mic"
    ends = [d for d in list_devices() if d.kind == INPUT and d.name.startswith("CABLE")]
    assert [d.monitor_of for d in ends] == [mic.sink, "CABLE Input (VB-Audio Virtual Cable), Windows WASAPI"]
    for end in ends:
        with pytest.raises(UsageError, match="howl"):
            choose_input(end.id, mic.sink)
        assert choose_input(end.id, "Speakers, MME").id == end.id  # what goes elsewhere may be heard


@pytest.mark.parametrize(("system", "cable"), [("darwin", "BlackHole"), ("win32", "VB-CABLE")])
def test_without_a_cable_it_is_said_which_to_get(elsewhere: pytest.MonkeyPatch, system: str, cable: str) -> None:
    elsewhere.setattr("engine.devices._sounddevice", lambda: FakePortAudio(("Speakers", 0, 2), ("Microphone", 1, 0)))
    elsewhere.setattr(virtual_mic.sys, "platform", system)
    mic = virtual_mic.make_virtual_mic()
    assert isinstance(mic, CableMic)
    with pytest.raises(DeviceError, match=f"install {cable}"):
        mic.create()


def test_only_cables_are_cables() -> None:
    assert cable_in("Speakers") is None
    assert cable_in("CABLE Input") == "CABLE Output"
