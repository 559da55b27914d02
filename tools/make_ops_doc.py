"""Writes docs/ops.md, the list of all ops, from the op table and the stanzas: `python tools/make_ops_doc.py [--check]`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import fastdl as fd
from fastdl import dtypes
from fastdl.op import ROWS, STANZAS, has_body

PATH = Path(__file__).parents[1] / "docs" / "ops.md"
HEAD = """# Ops

Written by `tools/make_ops_doc.py` from `csrc/ops.def` and `fastdl/ops`; do not edit. Every op is a function `fd.<name>`.

- **dtypes**: what a kernel may compute in; other inputs are promoted to one of them. float = float16, bfloat16, float32, float64 (16-bit
  floats are computed in float32); integer = the eight integer types; complex = complex64, complex128.
- **kernel**: the dtypes that have a CPU kernel (yes: all of them); "composed": the op is written with other ops.
- **gradient**: "yes" has a rule of its own, "by its parts" is differentiated through the ops it is written with, "none" has no gradient
  (its result is not a smooth function of the inputs, or it is itself an update).
"""
GROUPS = {
    "float": ("float16", "bfloat16", "float32", "float64"),
    "integer": ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    "complex": ("complex64", "complex128"),
    "bool": ("bool",),
}


def short(names: list[str]) -> str:
    """`float, integer` for the dtypes of these groups; single names where a group is not complete."""
    words = []
    for group, members in GROUPS.items():
        if set(members) <= set(names):
            words.append(group)
        else:
            words += [n for n in members if n in names]
    return ", ".join(words)


def gradient(name: str) -> str:
    op = STANZAS[name]
    if op.differentiable:
        return "yes"
    if name in ROWS or not has_body(op.__wrapped__):
        return "none"
    tensors = [p for p in inspect.signature(op.__wrapped__).parameters.values() if p.annotation == "Tensor"]
    return "by its parts" if op(*(fd.ones(2, requires_grad=True) for _ in tensors)).requires_grad else "none"


def text() -> str:
    """The whole page."""
    assert {d.name for d in dtypes.ALL} == {n for members in GROUPS.values() for n in members}
    families: dict[str, list[str]] = {}
    for name, op in STANZAS.items():
        families.setdefault(op.__module__.rpartition(".")[2], []).append(name)
    kernels = sum(name in ROWS for name in STANZAS)
    parts = [HEAD, f"{len(STANZAS)} ops, {kernels} of them with kernels."]
    for family in sorted(families):
        parts.append(f"\n## {family}\n\n| op | arguments | dtypes | kernel | gradient |\n|---|---|---|---|---|")
        for name in sorted(families[family]):
            arguments = ", ".join(inspect.signature(STANZAS[name].__wrapped__).parameters)
            if name in ROWS:
                _, _, _, _, may, have = ROWS[name]
                kernel = "yes" if set(have) >= set(may) else short(have) or "none"
                parts.append(f"| `{name}` | {arguments} | {short(may)} | {kernel} | {gradient(name)} |")
            else:
                parts.append(f"| `{name}` | {arguments} | | composed | {gradient(name)} |")
    return "\n".join(parts) + "\n"


def main() -> int:
    new = text()
    if PATH.exists() and PATH.read_text() == new:
        return 0
    if "--check" in sys.argv:
        print("docs/ops.md is stale; run python tools/make_ops_doc.py")
        return 1
    PATH.write_text(new)
    print(f"wrote {PATH} ({fd.__version__})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
