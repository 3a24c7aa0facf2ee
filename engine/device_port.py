"""What the ports that are sound devices have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from engine.devices import DeviceInfo
from engine.ports import Wake
from engine.ring import Ring

HELD_MIN, HELD_MAX = 3, 8  # blocks


class DevicePort(ABC):
    """A sound device, for engine.ports.Port. `pump` belongs to the thread that uses the ring, and no bell is rung.

    held: how many blocks the device is asked to keep in hand.
    """

    rings = tells_silence = False
    ended = False  # a microphone has no end

    def __init__(self, device: DeviceInfo, sample_rate_hz: int, block_ms: float, held: int = HELD_MIN) -> None:
        self.held = held
        self.info, self.device, self.sample_rate_hz = device, device.id, sample_rate_hz
        self.block = max(1, round(sample_rate_hz * block_ms / 1000.0))

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do and need not move: never, unless it says so."""
        return False

    @property
    @abstractmethod
    def xruns(self) -> int: ...

    @property
    @abstractmethod
    def blocks(self) -> int:
        """How many the device has moved."""

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether blocks move at the device's own pace."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """Frames between device and ring."""

    @property
    @abstractmethod
    def latency_ms(self) -> float: ...

    @property
    @abstractmethod
    def alive(self) -> bool: ...

    @abstractmethod
    def start(self, ring: Ring, wake: Wake) -> None:
        """Open and run; raises DeviceError when the device cannot be had."""

    @abstractmethod
    def stop(self) -> None:
        """What an output has not played is lost; what an input gave waits for another `pump`."""

    @abstractmethod
    def rest(self, resting: bool) -> None:
        """Nothing but silence is moved, until told otherwise."""

    def pass_silence(self) -> tuple[int, bool]:
        """Silence is moved as sound is, unless a port says otherwise."""
        return 0, True

    @abstractmethod
    def pump(self) -> None:
        """Move what can be moved between ring and device. To be called for each hop at the least."""
