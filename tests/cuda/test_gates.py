"""The static checks of the CUDA kernels find what they are made for: kernels with seeded faults must fail them, a good one must pass."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools/check_cuda.py"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="not in a source checkout")

if TOOL.exists():
    spec = importlib.util.spec_from_file_location("check_cuda", TOOL)
    gate = importlib.util.module_from_spec(spec)
    sys.modules["check_cuda"] = gate  # dataclasses look their module up
    spec.loader.exec_module(gate)

KERNELS = r"""
#include <cuda_runtime.h>
__global__ void __launch_bounds__(256) wide_kernel(const float4* a, float4* b) {
  b[blockIdx.x * 256 + threadIdx.x] = a[blockIdx.x * 256 + threadIdx.x];
}
__global__ void __launch_bounds__(256) scalar_kernel(const float* a, float* b) {
  b[blockIdx.x * 256 + threadIdx.x] = a[blockIdx.x * 256 + threadIdx.x];
}
// 96 values live at once, in 32 registers
__global__ void __launch_bounds__(1024, 2) spilling_kernel(const float* a, float* b) {
  float v[96];
#pragma unroll
  for (int i = 0; i < 96; i++) v[i] = a[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; i++) b[i * 1024 + threadIdx.x] = v[i] * v[95 - i];
}
__global__ void __launch_bounds__(256) stack_kernel(const int* a, int* b) {
  int v[64];
  for (int i = 0; i < 64; i++) v[i] = a[i];
  for (int i = 0; i < 64; i++) v[a[i] & 63] += i;
  b[threadIdx.x] = v[a[threadIdx.x] & 63];
}
"""

LOG = """
ptxas info    : Compiling entry function 'good_kernel' for 'sm_80'
ptxas info    : Function properties for good_kernel
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 409 bytes cmem[0]
ptxas info    : Compiling entry function 'bad_kernel' for 'sm_90a'
ptxas info    : Function properties for bad_kernel
    16 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 409 bytes cmem[0]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...
"""


def test_logs(tmp_path, capsys):
    (tmp_path / "x.cu.o.log").write_text(LOG)
    kernels, warnings = gate.read_logs([tmp_path / "x.cu.o.log"])
    assert [(k.symbol, k.arch, k.registers, k.stack, k.spills, k.shared) for k in kernels] == [
        ("good_kernel", "80", 40, 0, 0, 1024),
        ("bad_kernel", "90a", 255, 16, 52, 0),
    ]
    assert len(warnings) == 1 and "Potential Performance Loss" in warnings[0]
    budget = tmp_path / "budget.toml"
    budget.write_text('[[kernel]]\nmatch = "good_kernel|bad_kernel"\n')
    assert gate.main([str(tmp_path), "--budget", str(budget)]) == 1
    out = capsys.readouterr().out
    assert "bad_kernel (sm_90a) uses local memory: 16 bytes of stack, 52 bytes spilled" in out
    assert "good_kernel (sm_80)" not in out
    budget.write_text('[[kernel]]\nmatch = "good"\n')  # half a name is none
    gate.main([str(tmp_path), "--budget", str(budget)])
    assert "good_kernel (sm_80) has no row" in capsys.readouterr().out


def test_occupancy():
    """Values of cuda_occupancy.h."""
    blocks = gate.blocks_per_multiprocessor
    assert blocks("90a", 384, 168, 200 * 1024) == 1
    assert blocks("90", 256, 128, 64 * 1024) == 2
    assert blocks("80", 256, 32, 0) == 8
    assert blocks("80", 256, 33, 0) == 6
    assert blocks("80", 128, 255, 0) == 2
    assert blocks("80", 256, 64, 48 * 1024) == 3
    assert blocks("86", 1024, 64, 0) == 1


def test_has():
    opcodes = {"LDG.E.128.CONSTANT": 2, "STG.E": 1, "HMMA.16816.F32.BF16": 4}
    assert gate.has(opcodes, "LDG.128") and gate.has(opcodes, "STG") and gate.has(opcodes, "HGMMA|HMMA")
    assert not gate.has(opcodes, "STG.128") and not gate.has(opcodes, "LDGSTS")


def test_seeded_faults(tmp_path):
    nvcc = shutil.which("nvcc")
    cuobjdump = gate.find_tool("cuobjdump")
    if not (nvcc and cuobjdump and gate.find_tool("nvdisasm") and shutil.which("c++filt")):
        pytest.skip("needs nvcc, cuobjdump and nvdisasm")
    (tmp_path / "k.cu").write_text(KERNELS)
    subprocess.run([nvcc, "-O3", "-arch=sm_80", "-c", "k.cu", "-o", "k.o"], cwd=tmp_path, check=True)
    kernels = list(gate.read_library(tmp_path / "k.o", cuobjdump))
    names = gate.short_names([k.symbol for k in kernels])
    row = gate.Row(".*", blocks=2, expect=["LDG.128", "STG.128"])
    found = {}
    for k in kernels:
        k.name = names[k.symbol]
        found[k.name] = "; ".join(gate.judge(k, [row]))
    assert {k.name: k.threads for k in kernels}["wide_kernel"] == 256
    assert found["wide_kernel"] == ""
    assert found["scalar_kernel"] == "has no LDG.128 instruction; has no STG.128 instruction"
    assert "bytes spilled" in found["spilling_kernel"] or "LDL" in found["spilling_kernel"]
    assert "bytes of stack" in found["stack_kernel"]
    wide = next(k for k in kernels if k.name == "wide_kernel")
    assert gate.judge(wide, [gate.Row("wide_kernel", shared=100 * 1024, blocks=2)]) == [
        f"runs 1 blocks per multiprocessor, the design counts on 2: 256 threads with {wide.registers} registers, 102400 bytes of shared memory"
    ]
    assert gate.judge(wide, [gate.Row("wide_kernel", archs=["90a"])]) == ["has no row in kernel_budget.toml"]


def without_templates(pattern: str) -> str:
    """copy_units<Bytes16>|reduce_(rows|columns)<.*, 1> -> copy_units|reduce_(rows|columns)"""
    kept, depth, inside = "", 0, -1  # parentheses; where they were at a "<", -1: not in a template
    for c in pattern:
        if inside >= 0 and (c == "|" or c == ")") and depth == inside:
            inside = -1
        depth += (c == "(") - (c == ")")
        if c == "<" and inside < 0:
            inside = depth
        if inside < 0:
            kept += c
    return kept


def test_without_templates():
    assert without_templates("copy_units<Bytes16>|x") == "copy_units|x"
    assert without_templates("e<(A|B), double, .*|reduce_(rows|columns)<V.*") == "e|reduce_(rows|columns)"
    assert without_templates("(a<b>|c<(d|e)>)_f") == "(a|c)_f"


@pytest.mark.parametrize("row", gate.read_budget(gate.BUDGET) if TOOL.exists() else [], ids=lambda r: r.match)
def test_budget_rows(row):
    """A row that matches no kernel of the sources is out of date."""
    words = set()
    for path in gate.BUDGET.parent.rglob("*"):
        if path.suffix in (".cu", ".cuh", ".h"):
            words.update(re.findall(r"\w+", path.read_text()))
    pattern = without_templates(row.match)
    for alternative in pattern.split("|") if "(" not in pattern else [pattern]:
        assert any(re.fullmatch(alternative, word) for word in words), f"{alternative} is in no source of {gate.BUDGET.parent}"
