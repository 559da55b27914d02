"""CUDA devices, their streams, events and memory, by PyTorch's names.

>>> import fastdl as fd
>>> if fd.cuda.is_available():
...     t = fd.ones(3, device="cuda")
...     fd.cuda.synchronize()

Every function takes a device as index, name (``"cuda:1"``) or `fd.device`; None is the current one (`current_device`). Where no CUDA
device can be used, `is_available` is False, `device_count` 0, and everything else raises DeviceError with what is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from . import _C
from ._C import Tensor
from .device import get_default_device
from .errors import DeviceError, ValueError_


def is_available() -> bool:
    """Whether there is a CUDA device that can be used: this build has kernels for it, a driver and a GPU are there."""
    return _C.cuda_device_count() > 0


def device_count() -> int:
    """Number of CUDA devices that can be used."""
    return _C.cuda_device_count()


def current_device() -> int:
    """Index of the device that None means here: the default device (`fd.set_default_device`) if it is a CUDA device, else 0."""
    return get_default_device().index or 0


def _index(device: Any) -> int:
    if device is None:
        return current_device()
    if isinstance(device, int) and not isinstance(device, bool):
        return device
    from .device import device as to_device

    d = to_device(device)
    if d.index is None:
        raise DeviceError(f"cuda: {device!r} is no CUDA device")
    return d.index


def get_device_name(device: Any = None) -> str:
    """What the device calls itself, e.g. "NVIDIA H100 80GB HBM3"."""
    return _C.cuda_properties(_index(device))["name"]


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Its compute capability, e.g. (9, 0)."""
    p = _C.cuda_properties(_index(device))
    return p["major"], p["minor"]


def get_device_properties(device: Any = None) -> Any:
    """``name major minor multi_processor_count shared_memory_per_block_optin total_memory``, and ``emulated``: the CPU plays the GPU."""
    return SimpleNamespace(**_C.cuda_properties(_index(device)))


def synchronize(device: Any = None) -> None:
    """Waits until the device has done everything. Raises what kernels have reported since the last time, e.g. an index out of range."""
    _C.cuda_synchronize(_index(device))


# ---- streams and events -----------------------------------------------------------------------------------------------------------
_entered = threading.local()  # before: the streams that `with` blocks of this thread will go back to, innermost last


class Stream:
    """A queue of work for one device. What is put into one stream runs in order; streams run side by side.

    A tensor belongs to the stream that was current when it was made. Before another stream uses it: ``s.wait_stream(...)``, and
    ``s.record(t)`` (PyTorch's ``t.record_stream(s)``), so that its memory is not given to somebody else too early.

    Parameters
    ----------
    device
        The current device by default.
    priority
        Lower goes first; 0 is the default, -1 or less more urgent.
    """

    __slots__ = ("_own", "cuda_stream", "device_index")

    def __init__(self, device: Any = None, priority: int = 0):
        self._own = False
        self.device_index = _index(device)
        self.cuda_stream = _C.cuda_create_stream(self.device_index, priority)
        self._own = True

    def __del__(self) -> None:
        if getattr(self, "_own", False):
            _C.cuda_destroy_stream(self.device_index, self.cuda_stream)

    def synchronize(self) -> None:
        """Waits until all that is in the stream is done."""
        _C.cuda_synchronize_stream(self.device_index, self.cuda_stream)

    def query(self) -> bool:
        """Whether all that is in the stream is done."""
        return _C.cuda_query_stream(self.device_index, self.cuda_stream)

    def wait_stream(self, other: Stream) -> None:
        """What comes next in this stream waits for what ``other`` has so far."""
        if other.device_index == self.device_index:
            _C.cuda_stream_wait(self.device_index, self.cuda_stream, other.cuda_stream)
        else:
            self.wait_event(other.record_event())

    def wait_event(self, event: Event) -> None:
        """What comes next in this stream waits for the event."""
        event.wait(self)

    def record_event(self, event: Event | None = None) -> Event:
        """Puts an event (a new one by default) into the stream."""
        event = event or Event()
        event.record(self)
        return event

    def record(self, t: Tensor) -> None:
        """This stream uses t: its memory is free for others only when the stream has come to where it is now when t goes."""
        _C.cuda_record_stream(t, self.cuda_stream)

    def __enter__(self) -> Stream:
        _entered.before = [*getattr(_entered, "before", ()), _C.cuda_stream(self.device_index)]
        _C.cuda_set_stream(self.device_index, self.cuda_stream)
        return self

    def __exit__(self, *_: object) -> None:
        _C.cuda_set_stream(self.device_index, _entered.before.pop())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return NotImplemented
        return (self.device_index, self.cuda_stream) == (other.device_index, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<fastdl.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream of another library, by its address: ``fd.cuda.ExternalStream(torch_stream.cuda_stream)``."""

    __slots__ = ()

    def __init__(self, stream: int, device: Any = None):
        self._own = False
        self.device_index = _index(device)
        self.cuda_stream = int(stream) or 1  # 0 is the legacy default stream, whose handle is 1


class Event:
    """A mark in a stream, to wait for or to measure time with.

    Parameters
    ----------
    enable_timing
        Whether `elapsed_time` can be asked for; costs a little.
    """

    __slots__ = ("cuda_event", "device_index", "enable_timing")

    def __init__(self, enable_timing: bool = False):
        self.enable_timing = enable_timing
        self.cuda_event = self.device_index = 0  # made at the first record, on the stream's device

    def __del__(self) -> None:
        if getattr(self, "cuda_event", 0):
            _C.cuda_destroy_event(self.device_index, self.cuda_event)

    def record(self, stream: Stream | None = None) -> None:
        """Puts the event into a stream (the current one by default)."""
        stream = stream or current_stream()
        if not self.cuda_event:
            self.device_index = stream.device_index
            self.cuda_event = _C.cuda_create_event(self.device_index, self.enable_timing)
        elif self.device_index != stream.device_index:
            raise ValueError_(f"Event.record: made on cuda:{self.device_index}, the stream is on cuda:{stream.device_index}")
        _C.cuda_record_event(self.device_index, self.cuda_event, stream.cuda_stream)

    def wait(self, stream: Stream | None = None) -> None:
        """What comes next in the stream (the current one by default) waits for the event."""
        if self.cuda_event:
            stream = stream or current_stream()
            _C.cuda_wait_event(stream.device_index, self.cuda_event, stream.cuda_stream)

    def query(self) -> bool:
        """Whether the event has been reached."""
        return not self.cuda_event or _C.cuda_query_event(self.device_index, self.cuda_event)

    def synchronize(self) -> None:
        """Waits until the event is reached."""
        if self.cuda_event:
            _C.cuda_synchronize_event(self.device_index, self.cuda_event)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to ``end``; both made with ``enable_timing``, recorded and reached."""
        if not (self.enable_timing and end.enable_timing and self.cuda_event and end.cuda_event):
            raise ValueError_("elapsed_time: both events need enable_timing=True and must have been recorded")
        return _C.cuda_elapsed(self.cuda_event, end.cuda_event)


def current_stream(device: Any = None) -> Stream:
    """The stream that this thread's work goes to."""
    index = _index(device)
    return ExternalStream(_C.cuda_stream(index), index)


def default_stream(device: Any = None) -> Stream:
    """The stream that work goes to at first: fastdl's own, which does not wait for the legacy default stream."""
    index = _index(device)
    return ExternalStream(_C.cuda_default_stream(index), index)


def set_stream(stream: Stream) -> None:
    """Makes a stream this thread's current one on its device."""
    _C.cuda_set_stream(stream.device_index, stream.cuda_stream)


@contextmanager
def stream(s: Stream | None) -> Iterator[None]:
    """``with fd.cuda.stream(s):`` work goes to s; None changes nothing."""
    if s is None:
        yield
    else:
        with s:
            yield


# ---- memory -------------------------------------------------------------------------------------------------------------------------
def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors hold on the device."""
    return _C.cuda_memory_stats(_index(device))["in_use"]


def max_memory_allocated(device: Any = None) -> int:
    """The most that `memory_allocated` was since the start or `reset_peak_memory_stats`."""
    return _C.cuda_memory_stats(_index(device))["peak"]


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the device: what tensors hold and what waits to be used again."""
    s = _C.cuda_memory_stats(_index(device))
    return s["in_use"] + s["cached"]


def memory_stats(device: Any = None) -> dict[str, int]:
    """The names of `fd.memory.stats`, for a device."""
    return _C.cuda_memory_stats(_index(device))


def reset_peak_memory_stats(device: Any = None) -> None:
    """Starts measuring the peak anew."""
    _C.cuda_reset_peak(_index(device))


def empty_cache(device: Any = None) -> None:
    """Gives memory that no tensor holds back to the device, for other processes; waits for the device."""
    if device is not None or is_available():
        _C.cuda_empty_cache(_index(device))


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of the device, over all processes."""
    return _C.cuda_memory_info(_index(device))


def set_memory_limit(limit: int, device: Any = None) -> None:
    """Largest number of bytes that may be reserved on the device; 0: no limit. Beyond it: OutOfMemoryError."""
    if limit < 0:
        raise ValueError_(f"set_memory_limit: {limit}; need at least 0")
    _C.cuda_set_limit(_index(device), limit)
