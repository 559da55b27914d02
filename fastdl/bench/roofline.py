"""The machine's own limits, measured: floating-point rate by the extension's kernels, memory rate by copies and sums of large arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

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


def measure(threads: int, seconds: float) -> dict[str, Any]:
    """GFLOP/s of fused multiply-adds and GB/s of memory on `threads` threads; bytes count what is read and written.

    A peak that the machine or this build does not have is left out.
    """
    from fastdl import _C

    found: dict[str, Any] = {"threads": threads, "isa": _C.isa()}
    with ThreadPoolExecutor(threads) as pool:

        def together(work: Callable[[int], Any]) -> Callable[[], None]:
            return lambda: [None for _ in pool.map(work, range(threads))] and None

        for kind in ("fp32", "fp64", "amx_bf16"):
            flops = _C.measure_peak(kind, 1)
            if flops == 0:
                continue
            n = 1
            while best(0, lambda n=n: _C.measure_peak(kind, n)) < 0.005:  # type: ignore[misc]  # bound at once
                n *= 2
            found[f"{kind}_gflops"] = threads * n * flops / best(seconds / 4, together(lambda _, n=n, kind=kind: _C.measure_peak(kind, n))) / 1e9
        a, b, c = (np.ones(FLOATS, "f") for _ in range(3))
        parts = [slice(i * FLOATS // threads, (i + 1) * FLOATS // threads) for i in range(threads)]
        found["copy_gbs"] = 8 * FLOATS / best(seconds / 4, together(lambda i: np.copyto(a[parts[i]], b[parts[i]]))) / 1e9
        found["add_gbs"] = 12 * FLOATS / best(seconds / 4, together(lambda i: np.add(a[parts[i]], b[parts[i]], out=c[parts[i]]))) / 1e9
    return found
