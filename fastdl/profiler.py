"""Where the time goes: every kernel launch with its time, bytes and FLOPs.

Launches of eager calls and of captured programs are both seen; while a profile runs, fused groups of a program run launch by launch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from . import _C
from .errors import ValueError_
from .io.atomic import write_atomically


class Launch(NamedTuple):
    """One run of a kernel."""

    op: str
    dtype: str
    start: float  # seconds since the profile began
    seconds: float
    bytes: int  # that it must move at least
    flops: int
    shape: tuple[int, ...]  # of its first result, at most four dimensions
    thread: int


class Profile:
    """What :func:`profile` collected.

    Attributes
    ----------
    launches : list of Launch
        In the order in which they ended; at most a million.
    seconds : float
        From beginning to end of the `with` block.
    """

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.seconds = 0.0

    def table(self, sort: str = "seconds", limit: int = 30) -> str:
        """Text table with one row per op and dtype.

        Parameters
        ----------
        sort : {"seconds", "count", "bytes", "flops"}
        limit : int
            Most rows.
        """
        if sort not in ("seconds", "count", "bytes", "flops"):
            raise ValueError_(f"table: sort is {sort!r}; need seconds, count, bytes or flops")
        rows: dict[tuple[str, str], list[float]] = {}
        for x in self.launches:
            row = rows.setdefault((x.op, x.dtype), [0, 0.0, 0, 0])
            row[0] += 1
            row[1] += x.seconds
            row[2] += x.bytes
            row[3] += x.flops
        total = sum(x.seconds for x in self.launches)
        column = {"count": 0, "seconds": 1, "bytes": 2, "flops": 3}[sort]
        lines = [f"{'op':<28} {'dtype':<9} {'count':>7} {'ms':>10} {'share':>6} {'us each':>9} {'GB/s':>7} {'GFLOP/s':>8}"]
        for (op, dtype), (count, seconds, moved, flops) in sorted(rows.items(), key=lambda item: -item[1][column])[:limit]:
            rate = 1e-9 / seconds if seconds > 0 else 0.0
            lines.append(
                f"{op:<28} {dtype:<9} {count:>7.0f} {seconds * 1e3:>10.3f} {seconds / total if total else 0:>6.1%} {seconds / count * 1e6:>9.2f} "
                f"{moved * rate:>7.1f} {flops * rate:>8.1f}"
            )
        share = f"{total / self.seconds:.0%}" if self.seconds > 0 else "-"
        lines.append(f"{len(self.launches)} launches, {total * 1e3:.3f} ms in kernels of {self.seconds * 1e3:.3f} ms ({share})")
        return "\n".join(lines)

    def chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a file for chrome://tracing or ui.perfetto.dev."""
        events = [
            {
                "name": x.op,
                "cat": x.dtype,
                "ph": "X",
                "ts": x.start * 1e6,
                "dur": x.seconds * 1e6,
                "pid": os.getpid(),
                "tid": x.thread,
                "args": {"shape": list(x.shape), "dtype": x.dtype, "bytes": x.bytes, "flops": x.flops},
            }
            for x in self.launches
        ]
        write_atomically(path, [json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()])

    def __repr__(self) -> str:
        return f"<profile of {len(self.launches)} launches>"


@contextmanager
def profile() -> Iterator[Profile]:
    """Collect every kernel launch of all threads inside the `with` block. Profiles do not nest.

    Examples
    --------
    >>> import fastdl as fd
    >>> with fd.profiler.profile() as p:
    ...     _ = (fd.ones((64, 64)) @ fd.ones((64, 64))).sum()
    >>> [x.op for x in p.launches][-2:], p.launches[-2].flops
    (['matmul', 'sum'], 524288)
    """
    result = Profile()
    _C.start_profile()
    start = time.perf_counter()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - start
        result.launches = [Launch(*row) for row in _C.stop_profile()]
