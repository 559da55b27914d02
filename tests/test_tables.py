"""All lists of ops agree: csrc/ops.def, the kernels, the stanzas, the samples, the public names."""

from __future__ import annotations

import re
from pathlib import Path

import samples_layers  # noqa: F401
from samples import SAMPLES

import fastdl as fd
from fastdl.op import STANZAS

ROWS = {row[0]: row for row in fd._C.op_table()}
ROOT = Path(__file__).resolve().parent.parent


def test_table_of_the_extension_is_ops_def():
    text = (ROOT / "csrc/ops.def").read_text()
    text = re.sub(r"//.*", "", text.split("#ifndef FD_COMPARE")[1].split("#endif", 1)[1])
    names = re.findall(r"^FD_(?:OP|UNARY|TEST|BINARY|COMPARE)\((\w+),", text, re.M)
    assert names == list(ROWS)
    assert len(set(names)) == len(names) >= 120


def test_every_row_has_a_stanza_and_every_kernel_stanza_a_row():
    with_kernel = {n for n, o in STANZAS.items() if o.has_kernel}
    assert with_kernel == set(ROWS)


def test_every_row_has_a_sample():
    assert set(SAMPLES) == set(ROWS)


def test_every_row_has_kernels_for_its_dtypes():
    for name, _family, _nin, _nout, dtypes, kernels in ROWS.values():
        missing = set(dtypes) - set(kernels)
        if "float32" in kernels and {"float16", "bfloat16"} <= set(SAMPLES[name].dtypes):
            missing -= {"float16", "bfloat16"}  # computed by the float32 kernel; test_ops.py runs them
        assert not missing, f"{name}: ops.def lists {sorted(missing)}, no kernel serves them"


def test_every_stanza_is_public_and_documented():
    for name, o in STANZAS.items():
        assert o.__doc__, f"{name} has no docstring"
        assert callable(getattr(fd, name, None) or getattr(fd.ops.optim, name, None)), f"fd.{name} is missing"


def test_differentiable_rows_have_float64_kernels():
    for name, o in STANZAS.items():
        if o.has_kernel and o.differentiable:
            assert "float64" in ROWS[name][5], f"{name} cannot be gradient-checked: no float64 kernel"
