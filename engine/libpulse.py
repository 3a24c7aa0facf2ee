"""One stream of samples to or from a Pulse server (PulseAudio, or PipeWire's), through libpulse's own thread in C.

No function of ours is ever called back, so that nothing that Python does can hold the sound up, and so that a call into
the library may keep the interpreter: whoever holds the library's lock never waits for it. One channel, float32.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Self

import numpy as np

from engine.priority import unnamed_threads
from engine.types import DeviceError, Samples

LIBRARY, CLIENT = "libpulse.so.0", b"Sottovoce"
FRAME = 4  # bytes
START_S, POLL_S = 10.0, 0.002  # wireless devices take their time
AS_IS = 0xFFFFFFFF  # the server chooses
NO_AUTOSPAWN = 0x0001
DONT_MOVE, EARLY_REQUESTS = 0x0200, 0x4000  # the latter: the device's own delay becomes what is moved at once
CONTEXT_READY, CONTEXT_FAILED = 4, 5
STREAM_READY = 2
FLOAT32 = 5 if sys.byteorder == "little" else 6
_starting = threading.Lock()  # whose thread is whose is seen by what there was before


class _SampleSpec(ctypes.Structure):
    _fields_ = (("format", c_int), ("rate", c_uint32), ("channels", ctypes.c_uint8))


class _BufferAttr(ctypes.Structure):
    """In bytes."""

    _fields_ = tuple((name, c_uint32) for name in ("maxlength", "tlength", "prebuf", "minreq", "fragsize"))


class _TimingInfo(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long), ("microseconds", ctypes.c_long), ("synchronized", c_int), ("sink_us", c_uint64),
        ("source_us", c_uint64), ("transport_us", c_uint64), ("playing", c_int), ("write_corrupt", c_int),
        ("write_index", c_int64), ("read_corrupt", c_int), ("read_index", c_int64), ("configured_sink_us", c_uint64),
        ("configured_source_us", c_uint64), ("since_underrun", c_int64),
    )  # fmt: skip


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "threaded_mainloop_new": (c_void_p, ()),
    "threaded_mainloop_get_api": (c_void_p, (c_void_p,)),
    "threaded_mainloop_start": (c_int, (c_void_p,)),
    "threaded_mainloop_stop": (None, (c_void_p,)),
    "threaded_mainloop_free": (None, (c_void_p,)),
    "threaded_mainloop_lock": (None, (c_void_p,)),
    "threaded_mainloop_unlock": (None, (c_void_p,)),
    "context_new": (c_void_p, (c_void_p, c_char_p)),
    "context_connect": (c_int, (c_void_p, c_char_p, c_int, c_void_p)),
    "context_get_state": (c_int, (c_void_p,)),
    "context_errno": (c_int, (c_void_p,)),
    "context_disconnect": (None, (c_void_p,)),
    "context_unref": (None, (c_void_p,)),
    "strerror": (c_char_p, (c_int,)),
    "stream_new": (c_void_p, (c_void_p, c_char_p, POINTER(_SampleSpec), c_void_p)),
    "stream_connect_record": (c_int, (c_void_p, c_char_p, POINTER(_BufferAttr), c_int)),
    "stream_connect_playback": (c_int, (c_void_p, c_char_p, POINTER(_BufferAttr), c_int, c_void_p, c_void_p)),
    "stream_get_state": (c_int, (c_void_p,)),
    "stream_disconnect": (c_int, (c_void_p,)),
    "stream_unref": (None, (c_void_p,)),
    "stream_readable_size": (c_size_t, (c_void_p,)),
    "stream_peek": (c_int, (c_void_p, POINTER(c_void_p), POINTER(c_size_t))),
    "stream_drop": (c_int, (c_void_p,)),
    "stream_writable_size": (c_size_t, (c_void_p,)),
    "stream_write": (c_int, (c_void_p, c_void_p, c_size_t, c_void_p, c_int64, c_int)),
    "stream_get_underflow_index": (c_int64, (c_void_p,)),
    "stream_get_buffer_attr": (POINTER(_BufferAttr), (c_void_p,)),
    "stream_set_buffer_attr": (c_void_p, (c_void_p, POINTER(_BufferAttr), c_void_p, c_void_p)),
    "stream_update_timing_info": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "stream_get_timing_info": (POINTER(_TimingInfo), (c_void_p,)),
    "operation_unref": (None, (c_void_p,)),
}


@functools.cache
def _library() -> Any:
    """The library's functions by name; None where it is missing or too old. They keep the interpreter while they run.

    Given back for each call, it would let other Python threads in first, a millisecond at a time.
    """
    try:
        library = ctypes.PyDLL(LIBRARY)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, f"pa_{name}")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library


def usable() -> bool:
    """Whether the library is there with all that is needed."""
    return _library() is not None


class PulseStream:
    """A stream that runs from the first; all sizes in frames. What is asked of it is asked while it is held: `with`.

    recording: from a source, else to a sink. at_once: how much the device is to move at a time; room: how much an
    output may hold. Raises DeviceError with the server's reason. thread: the number of the library's own thread. Once
    it is closed it holds nothing.
    """

    def __init__(self, device: str, sample_rate_hz: int, recording: bool, at_once: int, room: int) -> None:
        library = _library()
        assert library is not None
        self._pa, self._rate_hz, self._recording = library, sample_rate_hz, recording
        self._room = room
        self._mutex = threading.Lock()  # between our threads; the library's own is between them and its thread
        self._loop = self._context = self._stream = None
        self._data, self._size = c_void_p(), c_size_t()
        self._found = ctypes.byref(self._data), ctypes.byref(self._size)
        self.thread: int | None = None
        with ExitStack() as undo:
            undo.callback(self.close)
            self._connect()
            self._open(device, at_once)
            undo.pop_all()

    def _connect(self) -> None:
        pa = self._pa
        loop = self._loop = pa.pa_threaded_mainloop_new()
        self._context = pa.pa_context_new(pa.pa_threaded_mainloop_get_api(loop), CLIENT)
        with _starting:
            before = unnamed_threads()
            pa.pa_threaded_mainloop_start(loop)
            self.thread = next(iter(unnamed_threads() - before), None)
        with self:
            pa.pa_context_connect(self._context, None, NO_AUTOSPAWN, None)
        self._wait(lambda: pa.pa_context_get_state(self._context), CONTEXT_READY)

    def _attr(self, at_once: int) -> _BufferAttr:
        # an output begins with whatever it is given, and begins anew with that when it ran dry
        return _BufferAttr(AS_IS, self._room * FRAME, FRAME, at_once * FRAME, at_once * FRAME)

    def _open(self, device: str, at_once: int) -> None:
        pa = self._pa
        spec = _SampleSpec(FLOAT32, self._rate_hz, 1)
        with self:
            attr = self._attr(at_once)
            stream = self._stream = pa.pa_stream_new(self._context, CLIENT, ctypes.byref(spec), None)
            to, flags = device.encode(), DONT_MOVE | EARLY_REQUESTS
            if self._recording:
                refused = pa.pa_stream_connect_record(stream, to, ctypes.byref(attr), flags)
            else:
                refused = pa.pa_stream_connect_playback(stream, to, ctypes.byref(attr), flags, None, None)
            if refused:  # before the server was asked
                raise DeviceError(self._reason())
        self._wait(lambda: pa.pa_stream_get_state(stream), STREAM_READY)

    def _wait(self, state: Callable[[], int], ready: int) -> None:
        """Until it is there; raises DeviceError when the server refuses it, or says nothing."""
        until_s = time.monotonic() + START_S
        while True:
            with self:
                now, reason = state(), self._reason()
            if now == ready:
                return
            if now > ready:  # failed or ended
                raise DeviceError(reason)
            if time.monotonic() > until_s:
                raise DeviceError("the sound server does not answer")
            time.sleep(POLL_S)

    def _reason(self) -> str:
        """What went wrong last."""
        error = self._pa.pa_context_errno(self._context)
        return str(self._pa.pa_strerror(error).decode(errors="replace"))

    def close(self) -> None:
        """At once; what was not played is lost. May be called twice."""
        pa = self._pa
        with self:
            stream, context, loop = self._stream, self._context, self._loop
            if stream is not None:
                pa.pa_stream_disconnect(stream)
                pa.pa_stream_unref(stream)
            if context is not None:
                pa.pa_context_disconnect(context)
                pa.pa_context_unref(context)
            self._stream = self._context = None
        with self._mutex:
            self._loop = None
        if loop is not None:
            pa.pa_threaded_mainloop_stop(loop)
            pa.pa_threaded_mainloop_free(loop)

    def __enter__(self) -> Self:
        self._mutex.acquire()
        if self._loop is not None:
            self._pa.pa_threaded_mainloop_lock(self._loop)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._loop is not None:
            self._pa.pa_threaded_mainloop_unlock(self._loop)
        self._mutex.release()

    # While it is held -------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """False once the server, or the device, has gone."""
        return self._stream is not None and self._pa.pa_stream_get_state(self._stream) == STREAM_READY

    @property
    def readable(self) -> int:
        return self._pa.pa_stream_readable_size(self._stream) // FRAME if self.alive else 0

    @property
    def writable(self) -> int:
        return self._pa.pa_stream_writable_size(self._stream) // FRAME if self.alive else 0

    @property
    def underflow(self) -> int:
        """After how many frames it last ran dry; negative when it never did."""
        return int(self._pa.pa_stream_get_underflow_index(self._stream)) // FRAME if self.alive else -1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """What the server made of them: room and at_once of an output, at_once of an input."""
        found = self._pa.pa_stream_get_buffer_attr(self._stream) if self.alive else None
        if not found:
            return self._room, 0, 0
        attr = found.contents
        return attr.tlength // FRAME, attr.minreq // FRAME, attr.fragsize // FRAME

    def read(self, take: Callable[[Samples], object], skip: int = 0) -> int:
        """Give what has come to `take`, a piece [n] at a time, without the oldest `skip` frames; how many holes it had.

        A piece is the library's own memory, there for the call alone. A hole is silence.
        """
        holes = 0
        while piece := self._peek():
            sound, is_hole = piece
            take(sound[skip:])
            skip = max(0, skip - len(sound))
            holes += is_hole
            self._pa.pa_stream_drop(self._stream)
        return holes

    def _peek(self) -> tuple[Samples, bool] | None:
        """What comes next [n], and whether it is a hole; None where there is no more."""
        if not self.alive or self._pa.pa_stream_peek(self._stream, *self._found):
            return None
        count = self._size.value // FRAME
        if not count:
            return None
        if self._data.value is None:
            return np.zeros(count, dtype=np.float32), True
        memory = (ctypes.c_float * count).from_address(self._data.value)
        return np.frombuffer(memoryview(memory), dtype=np.float32), False

    def skip_silence(self) -> tuple[int, bool]:
        """Leave out what has come as long as it is digital silence: how much that was, and whether sound follows."""
        waiting = self._pa.pa_stream_readable_size(self._stream) if self.alive else 0
        skipped = 0
        while skipped < waiting and not self._pa.pa_stream_peek(self._stream, *self._found):
            size, memory = self._size.value, self._data.value
            if memory is not None and ctypes.string_at(memory, size) != bytes(size):
                break
            self._pa.pa_stream_drop(self._stream)
            skipped += size
        return skipped // FRAME, skipped < waiting

    def write(self, x: Samples) -> None:
        """Add x [n], which must not be more than `writable`."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        self._pa.pa_stream_write(self._stream, x.ctypes.data, x.nbytes, None, 0, 0)

    def move_at_once(self, frames: int) -> None:
        """Let the device move so many at a time from now on, while it runs; nothing is lost."""
        if self.alive:
            attr = self._attr(frames)
            self._forget(self._pa.pa_stream_set_buffer_attr(self._stream, ctypes.byref(attr), None, None))

    @property
    def latency_s(self) -> float | None:
        """What the device held back when this was last asked; None before the first answer, which takes a moment."""
        if not self.alive:
            return None
        found = self._pa.pa_stream_get_timing_info(self._stream)
        self._forget(self._pa.pa_stream_update_timing_info(self._stream, None, None))
        if not found:
            return None
        timing = found.contents
        return 1e-6 * float(timing.source_us if self._recording else timing.sink_us)

    def _forget(self, operation: int | None) -> None:
        """Of an operation that is under way nothing more is wanted."""
        if operation:
            self._pa.pa_operation_unref(operation)
