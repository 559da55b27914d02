"""The caching allocator: statistics, limits, giving memory back."""

from __future__ import annotations

from . import _C
from .errors import ValueError_


def stats() -> dict[str, int]:
    """Bytes ``in_use``, their ``peak``, idle bytes ``cached``, the ``limit`` (0: none), number of ``allocations`` and cache ``hits``.

    Examples
    --------
    >>> import fastdl as fd
    >>> before = fd.memory.stats()["in_use"]; t = fd.zeros(1024)
    >>> fd.memory.stats()["in_use"] - before >= 4096
    True
    """
    return _C.memory_stats()


def reset_peak() -> None:
    """Starts measuring the peak anew."""
    _C.reset_peak_memory()


def empty_cache() -> None:
    """Gives idle blocks back to the operating system."""
    _C.empty_cache()


def set_limit(limit: int) -> None:
    """Largest number of bytes that tensors and the cache may take together; 0: no limit. Beyond it: OutOfMemoryError."""
    if limit < 0:
        raise ValueError_(f"set_limit: {limit}; need at least 0")
    _C.set_memory_limit(limit)
