"""The machine's own limits, measured: floating-point rate by the extension's kernels, memory rate by copies and sums of large arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from fastdl import _C

FLOATS = 1 << 24  # 64 MiB an array: beyond the caches of one core's share


def best(seconds: float, work: Callable[[], Any]) -> float:
    """The shortest time of a call within a budget."""
    until, least = time.perf_counter() + seconds, float("inf")
    while True:
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        least = min(least, now - start)
        if now > until:
            return least


def flops(kind: str, seconds: float, threads: int, together: Callable) -> float:
    """Operations per second of all threads; 0 where the unit is missing."""
    each = _C.measure_peak(kind, 1)
    if not each:
        return 0.0
    rounds = 1
    while best(0, partial(_C.measure_peak, kind, rounds)) < 0.002:  # pays for waking the threads; short enough to fit between two interruptions
        rounds *= 2
    return threads * rounds * each / best(seconds, together(lambda _: _C.measure_peak(kind, rounds)))


def measure(threads: int, seconds: float) -> dict[str, Any]:
    """GFLOP/s of fused multiply-adds and GB/s of memory on `threads` threads; bytes count what is read and written.

    A peak that the machine or this build does not have is left out.
    """
    found: dict[str, Any] = {"threads": threads, "isa": _C.isa()}
    with ThreadPoolExecutor(threads) as pool:

        def together(work: Callable[[int], Any]) -> Callable[[], list]:
            return lambda: list(pool.map(work, range(threads)))

        for kind in ("fp32", "fp64", "amx_bf16"):
            rate = flops(kind, seconds / 4, threads, together)
            if rate:
                found[f"{kind}_gflops"] = rate / 1e9
        a, b, c = (np.ones(FLOATS, "f") for _ in range(3))
        parts = [slice(i * FLOATS // threads, (i + 1) * FLOATS // threads) for i in range(threads)]
        found["copy_gbs"] = 8 * FLOATS / best(seconds / 4, together(lambda i: np.copyto(a[parts[i]], b[parts[i]]))) / 1e9
        found["add_gbs"] = 12 * FLOATS / best(seconds / 4, together(lambda i: np.add(a[parts[i]], b[parts[i]], out=c[parts[i]]))) / 1e9
    return found


# Of arithmetic in a dtype; other dtypes are bound by memory only.
PEAKS = {"float32": "fp32_gflops", "float64": "fp64_gflops", "bfloat16": "amx_bf16_gflops"}


def limit(flops: float, moved: float, peaks: dict[str, Any], dtype: str = "float32") -> float:
    """The least seconds at the measured peaks for so many operations and bytes: arithmetic or memory, whichever takes longer."""
    peak = peaks.get(PEAKS.get(dtype, ""), 0)
    memory = max(peaks.get("copy_gbs", 0), peaks.get("add_gbs", 0))
    return max(flops / peak / 1e9 if peak else 0.0, moved / memory / 1e9 if memory else 0.0)
