"""Where the time goes: every kernel launch with its time, bytes and FLOPs.

Launches of eager calls and of captured programs are both seen; while a profile runs, fused groups of a program run launch by launch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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
    device: str = "cpu"  # "cuda": seconds are those of queuing it

    def least_seconds(self, peaks: dict[str, Any]) -> float:
        """What its FLOPs, or its bytes, take at the processor's peaks; 0 on another device."""
        from .bench.roofline import limit

        return limit(self.flops, self.bytes, peaks, self.dtype) if self.device == "cpu" else 0.0


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

    def table(self, sort: str = "seconds", limit: int = 30, peaks: dict[str, Any] | None = None) -> str:
        """Text table with one row per op and dtype.

        Parameters
        ----------
        sort : {"seconds", "count", "bytes", "flops"}
        limit : int
            Most rows.
        peaks : dict, optional
            What :func:`peaks` measured: adds a column with the share of them that the launches reach, which is the time that their
            FLOPs or bytes need at the peaks, divided by the time they took. Above 100 %: the data lay in a cache, or the algorithm
            needs fewer operations than are counted. "-": not known, as on a GPU, where the time is that of queuing.

        Raises
        ------
        ValueError
            `sort` is another word, or `peaks` holds no peak.
        """
        if sort not in ("seconds", "count", "bytes", "flops"):
            raise ValueError_(f"table: sort is {sort!r}; need seconds, count, bytes or flops")
        _check_peaks("table", peaks)
        rows: dict[tuple[str, str], list[float]] = {}
        for x in self.launches:
            row = rows.setdefault((x.op, x.dtype), [0, 0.0, 0, 0, 0.0])
            row[0] += 1
            row[1] += x.seconds
            row[2] += x.bytes
            row[3] += x.flops
            row[4] += x.least_seconds(peaks or {})
        total = sum(x.seconds for x in self.launches)
        column = {"count": 0, "seconds": 1, "bytes": 2, "flops": 3}[sort]
        lines = [f"{'op':<28} {'dtype':<9} {'count':>7} {'ms':>10} {'share':>6} {'us each':>9} {'GB/s':>7} {'GFLOP/s':>8}{' of peak' if peaks else ''}"]
        for (op, dtype), (count, seconds, moved, flops, least) in sorted(rows.items(), key=lambda item: -item[1][column])[:limit]:
            rate = 1e-9 / seconds if seconds > 0 else 0.0
            lines.append(
                f"{op:<28} {dtype:<9} {count:>7.0f} {seconds * 1e3:>10.3f} {seconds / total if total else 0:>6.1%} {seconds / count * 1e6:>9.2f} "
                f"{moved * rate:>7.1f} {flops * rate:>8.1f}" + (f" {least * 1e9 * rate:>7.1%}" if peaks and least else " " * 7 + "-" if peaks else "")
            )
        share = f"{total / self.seconds:.0%}" if self.seconds > 0 else "-"
        lines.append(f"{len(self.launches)} launches, {total * 1e3:.3f} ms in kernels of {self.seconds * 1e3:.3f} ms ({share})")
        return "\n".join(lines)

    def chrome_trace(self, path: str | os.PathLike[str], peaks: dict[str, Any] | None = None) -> None:
        """Write a file for chrome://tracing or ui.perfetto.dev; with `peaks`, each launch has its share of them (see `table`)."""
        _check_peaks("chrome_trace", peaks)
        events = [
            {
                "name": x.op,
                "cat": x.dtype,
                "ph": "X",
                "ts": x.start * 1e6,
                "dur": x.seconds * 1e6,
                "pid": os.getpid(),
                "tid": x.thread,
                "args": {
                    "shape": list(x.shape), "dtype": x.dtype, "bytes": x.bytes, "flops": x.flops,
                    **({"of_peak": x.least_seconds(peaks) / x.seconds} if peaks and x.seconds > 0 and x.device == "cpu" else {}),
                },
            }
            for x in self.launches
        ]
        write_atomically(path, [json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()])

    def __repr__(self) -> str:
        return f"<profile of {len(self.launches)} launches>"


def _check_peaks(what: str, peaks: dict[str, Any] | None) -> None:
    if peaks is not None and not any(str(k).endswith(("_gflops", "_gbs")) for k in peaks):
        raise ValueError_(f"{what}: peaks is {peaks!r}; need what fastdl.profiler.peaks() returns")


def peaks(seconds: float = 1.0, threads: int | None = None) -> dict[str, Any]:
    """Measure what this machine can do at best: GFLOP/s of fused multiply-adds, GB/s of memory.

    Parameters
    ----------
    seconds : float
        For all measurements together, about.
    threads : int, optional
        By default as many as the kernels use.

    Returns
    -------
    dict
        "fp32_gflops", "fp64_gflops", "copy_gbs", "add_gbs" and what else the processor has, for `Profile.table` and `Profile.chrome_trace`.

    Raises
    ------
    ValueError
        `seconds` is not above 0, or `threads` is below 1.

    Examples
    --------
    >>> import fastdl as fd
    >>> peaks = fd.profiler.peaks(seconds=0.05)
    >>> with fd.profiler.profile() as p:
    ...     _ = fd.ones((64, 64)) @ fd.ones((64, 64))
    >>> "of peak" in p.table(peaks=peaks)
    True
    """
    from . import get_num_threads
    from .bench.roofline import measure

    if not seconds > 0 or (threads is not None and threads < 1):
        raise ValueError_(f"peaks: seconds is {seconds!r}, threads is {threads!r}; need seconds above 0, and at least one thread")
    return measure(threads or get_num_threads(), seconds)


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
