"""Which port a sound device gets: the sound server's own where one answers, else PortAudio's."""

from __future__ import annotations

from engine import libpulse
from engine.device_port import HELD_MIN, DevicePort
from engine.devices import INPUT, DeviceInfo, on_pulse
from engine.portaudio_port import PortAudioPort
from engine.pulse_port import PulseInput, PulseOutput


def port_for(device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> DevicePort:
    """A port for the device, not opened yet."""
    kind: type[DevicePort] = PortAudioPort
    if libpulse.usable() and on_pulse():
        kind = PulseInput if device.kind == INPUT else PulseOutput
    return kind(device, sample_rate_hz, block_ms, held)
