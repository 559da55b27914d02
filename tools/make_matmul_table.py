"""Writes the table of errors of matrix products in docs/numerics.md: `python tools/make_matmul_table.py`.

Products of square matrices are compared with those of float64: relative Frobenius error. Three kinds of data: even, uniform in
[-1, 1]; positive, uniform in [0, 1]; wide, normal times exp(uniform(-20, 20)), which is seventeen orders of magnitude. NumPy's and,
where it is installed, PyTorch's float32 products stand beside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import fastdl as fd  # noqa: E402

SIZES = (128, 512, 2048)


def draw(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A matrix of one of the three kinds."""
    if kind == "wide":
        return (rng.standard_normal((size, size)) * np.exp(rng.uniform(-20, 20, (size, size)))).astype("f4")
    return rng.uniform(-1 if kind == "even" else 0, 1, (size, size)).astype("f4")


def at_precision(precision: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    """The product of fastdl at that setting."""

    def multiply(a: np.ndarray, b: np.ndarray) -> Any:
        fd.set_matmul_precision(precision)
        try:
            return np.asarray(fd.array(a) @ fd.array(b))
        finally:
            fd.set_matmul_precision("highest")

    return multiply


def bfloat16(a: np.ndarray, b: np.ndarray) -> Any:
    """The product of the matrices rounded to bfloat16, as float64."""
    return np.asarray((fd.array(a).astype("bfloat16") @ fd.array(b).astype("bfloat16")).astype("float64"))


def engines() -> dict[str, Callable[[np.ndarray, np.ndarray], Any]]:
    """Name -> product, for the columns of the table."""
    found: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {p: at_precision(p) for p in ("highest", "high", "medium")}
    found |= {"bfloat16": bfloat16, "NumPy": np.matmul}
    try:
        import torch
    except ImportError:
        return found
    return found | {"PyTorch": lambda a, b: (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()}


def main() -> None:
    columns = engines()
    lines = [f"On {fd._C.isa()}:", "", f"| data | size | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for kind in ("even", "positive", "wide"):
        for size in SIZES:
            rng = np.random.default_rng(size)
            a, b = draw(kind, size, rng), draw(kind, size, rng)
            exact = a.astype("f8") @ b.astype("f8")
            errors = [np.linalg.norm(multiply(a, b) - exact) / np.linalg.norm(exact) for multiply in columns.values()]
            lines.append(f"| {kind} | {size} | {' | '.join(f'{e:.1e}' for e in errors)} |")
            print(lines[-1], flush=True)
    write_table("numerics.md", "matmul table: tools/make_matmul_table.py", lines)


if __name__ == "__main__":
    main()
