"""Writes the table of float32 errors in docs/numerics.md: `python tools/make_ulp_table.py [--stride 61]`.

Every function of tests/test_accuracy.py is compared with its float64 version at each stride-th of the 2**32 bit patterns (an odd
stride meets all low bits, exponents, signs and NaNs). Stride 1 takes them all: some minutes per function.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from pages import write_table

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import test_accuracy as accuracy  # noqa: E402

from fastdl import _C  # noqa: E402

BLOCK = 1 << 20  # inputs at a time: the float64 intermediates stay in cache


def worst(name: str, stride: int) -> tuple[float, np.float32]:
    """Greatest error of the function in ulp, and where."""
    top, at = 0.0, np.float32(0)
    for start in range(0, 1 << 32, BLOCK * stride):
        x = accuracy.patterns(start, min(start + BLOCK * stride, 1 << 32), stride)
        error = accuracy.ulp_errors(name, x)
        i = int(error.argmax())
        if error[i] > top:
            top, at = float(error[i]), x[i]
    return top, at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=int, default=61, help="take every stride-th float (default: %(default)s)")
    stride = parser.parse_args().stride
    share = "all 2^32 floats" if stride == 1 else f"one in {stride} of the 2^32 floats"
    lines = [f"On {_C.isa()}, over {share}:", "", "| function | greatest error (ulp) | at |", "|---|---|---|"]
    for name in accuracy.FUNCTIONS:
        begin = time.perf_counter()
        top, at = worst(name, stride)
        note = f" (besides an absolute error of {accuracy.SLACK[name]:g})" if name in accuracy.SLACK else ""
        lines.append(f"| `{name}`{note} | {top:.2f} | {float(at):.9g} |")
        print(f"{name:12s} {top:6.2f} ulp at {float(at):.9g}   {time.perf_counter() - begin:.1f} s", flush=True)
    write_table("numerics.md", "ulp table: tools/make_ulp_table.py", lines)


if __name__ == "__main__":
    main()
