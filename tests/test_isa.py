"""The op table on every instruction set: the whole of test_ops.py in a process capped by FASTDL_ISA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastdl as fd

HERE = Path(__file__).resolve().parent
LOWER = [isa for isa in fd._C.compiled_isas() if isa in fd._C.supported_isas() and isa not in (fd._C.isa(), "amx")]


@pytest.mark.parametrize("isa", LOWER)
def test_op_table(isa):
    env = {**os.environ, "FASTDL_ISA": isa}
    seen = subprocess.run([sys.executable, "-c", "import fastdl as fd; print(fd._C.isa())"], env=env, capture_output=True, text=True, cwd=HERE)
    assert seen.stdout.strip() == isa, seen.stderr
    run = subprocess.run([sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(HERE / "test_ops.py")], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", run.stdout).group(1))
    assert passed >= 6000


def test_unknown_isa_is_refused_with_the_names():
    run = subprocess.run([sys.executable, "-c", "import fastdl"], env={**os.environ, "FASTDL_ISA": "mmx"}, capture_output=True, text=True, cwd=HERE)
    assert run.returncode != 0
    assert "mmx" in run.stderr and "avx2" in run.stderr


@pytest.mark.parametrize("isa", ["baseline", "avx512"])
def test_peaks_of_lower_instruction_sets(isa):
    """Tile registers belong to processes that ask for them; one that is capped below does not, and measures none."""
    code = "from fastdl import _C; print(_C.measure_peak('fp32', 1) > 0, _C.measure_peak('amx_bf16', 1))"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "FASTDL_ISA": isa}, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.split() == ["True", "0.0"], run.stderr
