"""Writes the table of errors of convolution algorithms in docs/numerics.md: `python tools/make_conv_table.py`.

Outputs and both gradients are compared with those of float64: relative Frobenius error, normal data. Every instruction set runs in a
process of its own; the algorithms are forced where there is a choice. PyTorch, where it is installed, stands beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import fastdl as fd  # noqa: E402

# batch, channels, size, filters, kernel, padding, groups
SHAPES = {
    "64x28x28 -> 64, 3x3": (4, 64, 28, 64, 3, 1, 1), "256x14x14 -> 256, 3x3": (4, 256, 14, 256, 3, 1, 1), "256x14x14 -> 64, 1x1": (8, 256, 14, 64, 1, 0, 1),
}  # fmt: skip
# These take an algorithm of their own.
OTHERS = {
    "3x32x32 -> 64, 3x3": (8, 3, 32, 64, 3, 1, 1), "32x28x28 -> 32 in 4 groups, 3x3": (8, 32, 28, 32, 3, 1, 4),
    "128x14x14, depthwise 3x3": (8, 128, 14, 128, 3, 1, 128),
}  # fmt: skip
# algorithm: instruction set (None: any), Winograd's algorithm allowed, precision
ALGORITHMS: dict[str, tuple[str | None, bool, str]] = {
    "multiply-adds": ("avx512", False, "highest"),
    "Winograd": ("avx512", True, "highest"),
    "tiles": ("amx", False, "highest"),
    "tiles, `high`": ("amx", False, "high"),
    "tiles, `medium`": ("amx", False, "medium"),
}


def data(shape: tuple[int, ...]) -> list[np.ndarray]:
    n, c, size, o, k, p, groups = shape
    rng = np.random.default_rng(c)
    out = size + 2 * p - k + 1
    return [rng.standard_normal(s).astype("f4") for s in ((n, c, size, size), (o, c // groups, k, k), (n, o, out, out))]


def results(shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    """y, dx, dw."""
    _, _, size, _, k, p, groups = shape
    x, w, g = (fd.array(a.astype(dtype)) for a in data(shape))
    dw = fd.conv2d_backward_weight(g, x, 1, p, 1, groups, (k, k))[0]
    return [np.asarray(a) for a in (fd.conv2d(x, w, None, 1, p, 1, groups), fd.conv2d_backward_input(g, w, 1, p, 1, groups, (size, size)), dw)]


def pytorch(shape: tuple[int, ...]) -> list[np.ndarray]:
    import torch

    x, w, g = (torch.from_numpy(a) for a in data(shape))
    y = torch.nn.functional.conv2d(x.requires_grad_(), w.requires_grad_(), None, 1, shape[5], 1, shape[6])
    y.backward(g)
    return [a.detach().numpy() for a in (y, x.grad, w.grad)]


def errors(found: list[np.ndarray], exact: list[np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(a - e) / np.linalg.norm(e)) for a, e in zip(found, exact)]


def measure(algorithm: str) -> dict[str, list[float]] | None:
    """Errors of y, dx and dw for each shape; None where this machine has not the instruction set."""
    isa, winograd, precision = ALGORITHMS.get(algorithm, (None, True, "highest"))
    if isa and fd._C.isa() != isa:
        return None
    fd.set_conv_winograd(winograd)
    fd.set_matmul_precision(precision)
    return {name: errors(pytorch(s) if algorithm == "PyTorch" else results(s, "f4"), results(s, "f8")) for name, s in SHAPES.items()}


def main() -> None:
    rows: dict[str, Any] = {}
    for algorithm in (*ALGORITHMS, "PyTorch"):
        isa = ALGORITHMS.get(algorithm, (None,))[0]
        environment = {**os.environ, **({"FASTDL_ISA": isa} if isa else {}), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, __file__, algorithm], capture_output=True, text=True, env=environment)
        rows[algorithm] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        if not rows[algorithm]:
            print(f"{algorithm}: not on this machine {done.stderr[-300:]}")
    rows = {name: found for name, found in rows.items() if found}
    lines = [f"| layer | result | {' | '.join(rows)} |", "|---|---|" + "---|" * len(rows)]
    for shape in SHAPES:
        for i, result in enumerate(("y", "dx", "dw")):
            lines.append(f"| {shape} | {result} | {' | '.join(f'{found[shape][i]:.1e}' for found in rows.values())} |")
    lines += ["", "| layer | result | algorithm | error | PyTorch |", "|---|---|---|---|---|"]
    for name, shape in OTHERS.items():
        n, c, size, o, k, p, groups = shape
        exact = results(shape, "f8")
        plans, ours = fd._C.conv_plans(n, c, size, size, o, k, 1, p, 1, groups), errors(results(shape, "f4"), exact)
        theirs = [f"{e:.1e}" for e in errors(pytorch(shape), exact)] if "PyTorch" in rows else ["-"] * 3
        for result, plan, error, other in zip(("y", "dx", "dw"), plans, ours, theirs):
            lines.append(f"| {name} | {result} | {plan} | {error:.1e} | {other} |")
    write_table("numerics.md", "conv table: tools/make_conv_table.py", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
