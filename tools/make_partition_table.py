"""Writes the table of shares in docs/benchmarks.md: `python tools/make_partition_table.py`.

Work is counted, not timed, as tests/test_partition.py does it: what the busiest of N threads gets / the mean, in the largest part of an op.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import write_table

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import test_partition as shares  # noqa: E402

import fastdl as fd  # noqa: E402

COLUMNS = (2, 4, 8, 16, 24, 32, 48, 56, 64)


def busiest(run: Callable[[], Any], threads: int) -> float:
    """The busiest thread's work / the mean, of the largest call in run()."""
    _, work = max(shares.record(run, threads), key=lambda call: sum(call[1]))
    return shares.heaviest(work, threads) * threads / sum(work)


def cases() -> dict[str, Callable[[], Any]]:
    """What is measured: products, convolutions with their gradients, kernels that wait for memory."""
    found: dict[str, Callable[[], Any]] = {}
    for m, k, n in [(128, 1024, 1024), (1024, 192, 768), (64, 5408, 128), (1, 4096, 4096), (1024, 1024, 1024)]:
        a, b = shares.normal(m, k), shares.normal(k, n)
        found[f"{m}x{k} @ {k}x{n}"] = lambda a=a, b=b: a @ b
    for batch, channels, size, filters, kernel in [(64, 1, 28, 32, 3), (16, 64, 56, 64, 3), (16, 256, 14, 256, 3), (16, 512, 4, 512, 3)]:
        x, w = shares.normal(batch, channels, size, size), shares.normal(filters, channels, kernel, kernel)
        name = f"conv {batch}x{channels}x{size}x{size}, {filters} of {kernel}x{kernel}"
        found[f"{name}: y"] = lambda x=x, w=w: fd.conv2d(x, w, padding=1)
        if channels >= 32:
            found[f"{name}: dx"] = lambda x=x, w=w: shares.backward(lambda x: fd.conv2d(x, w, padding=1), x)
        found[f"{name}: dw"] = lambda x=x, w=w: shares.backward(lambda w: fd.conv2d(x, w, padding=1), w)
    for name in ("add", "sum", "sum columns", "argmax", "transpose"):
        run, *inputs = shares.FAMILIES[name](1 << 20)
        found[f"{name}, 1 M"] = lambda run=run, inputs=inputs: run(*inputs)
    return found


def main() -> None:
    lines = [f"On {fd._C.isa()}:", "", f"| work | {' | '.join(map(str, COLUMNS))} | worst of 1 to 64 |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for name, run in cases().items():
        found = {threads: busiest(run, threads) for threads in range(1, 65)}
        worst = max(found, key=lambda threads: found[threads])
        lines.append(f"| {name} | {' | '.join(f'{found[t]:.2f}' for t in COLUMNS)} | {found[worst]:.2f} ({worst} threads) |")
        print(lines[-1], flush=True)
    write_table("benchmarks.md", "partition table: tools/make_partition_table.py", lines)


if __name__ == "__main__":
    main()
