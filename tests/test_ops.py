"""Every op of the table: dtype x layout x size against the float64 reference, guard zones, wrong inputs."""

from __future__ import annotations

import numpy as np
import pytest
import samples_layers  # noqa: F401  (adds its rows)
from common import as_layout, check_close, raw, rng_for, synchronize, values
from samples import FLOATS, INTS, LAYOUTS, SAMPLES, SIZES, Sample, cast, eps

import fastdl as fd

INPLACE = {"fill", "index_put", "random_bits", "random_uniform", "random_normal", "random_integers", "sgd_step", "adam_step", "rmsprop_step"}


def layouts_of(s: Sample) -> tuple:
    if s.name in INPLACE and s.name not in ("fill", "index_put"):
        return ("contiguous",)
    return LAYOUTS[: 5 if s.name in (*INPLACE, "nonzero", "batch_norm") else 6]  # no broadcast memory where it is written or counted


def cases() -> list:
    rows = []
    for s in SAMPLES.values():
        for d in s.dtypes:
            if s.elementwise:
                rows += [(s.name, d, layout, (33, 17)) for layout in layouts_of(s)]
                rows += [(s.name, d, "scalar", ()), (s.name, d, "empty", (0, 3))]
                rows += [(s.name, d, "contiguous", n) for n in (SIZES if d in ("float32", "float64") else SIZES[1::3])]
            else:
                rows += [(s.name, d, "contiguous", size) for size in s.sizes]
                if d in ("float32", "int32", "int64", "uint8"):
                    rows += [(s.name, d, layout, size) for layout in layouts_of(s)[1:] for size in s.sizes[1:6]]
    return rows


CASES = cases()


def case_id(c: tuple) -> str:
    return "-".join(str(x).replace(" ", "") for x in c)


def to_args(args: tuple, dtype: str, layout: str) -> list:
    def one(a: object, depth: int = 0) -> object:
        if isinstance(a, list) and any(isinstance(x, np.ndarray) for x in a):
            return [one(x) for x in a]
        if not isinstance(a, np.ndarray):
            return a
        if a.dtype == np.float64 or (a.dtype.kind in "iu" and dtype in INTS and a.dtype == np.int64 and own_dtype):
            return as_layout(a.astype(np.float64), dtype, layout)
        return as_layout(a, dtype, layout if layout != "broadcast" else "contiguous")

    own_dtype = only_integers(args)
    return [one(a) for a in args]


def only_integers(args: tuple) -> bool:
    """Ops on integers take the dtype under test; index arguments beside float ones keep theirs."""
    flat = [x for a in args for x in (a if isinstance(a, list) else [a]) if isinstance(x, np.ndarray)]
    return all(a.dtype.kind in "iu" for a in flat)


def rounded(args: tuple, dtype: str, layout: str) -> list:
    """What the op sees, in float64: cast to dtype, and the first row everywhere for broadcast memory."""
    own_dtype = only_integers(args)

    def one(a: object) -> object:
        if isinstance(a, list) and any(isinstance(x, np.ndarray) for x in a):
            return [one(x) for x in a]
        if not isinstance(a, np.ndarray):
            return a
        own = own_dtype and a.dtype == np.int64
        if a.dtype == np.float64 and dtype not in ("float64",):
            a = cast(a, dtype) if dtype in FLOATS else a.astype(dtype).astype(np.float64)
        if layout == "broadcast" and a.ndim and a.shape[0] and (a.dtype.kind == "f" or own):
            a = np.broadcast_to(a[:1], a.shape).copy()
        return a

    return [one(a) for a in args]


def positive_for(dtype: str, args: tuple) -> tuple:
    """Unsigned dtypes get non-negative inputs."""
    if not dtype.startswith("u"):
        return args

    def one(a: object) -> object:
        if isinstance(a, list):
            return [one(x) for x in a]
        return np.abs(a) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a

    return tuple(one(a) for a in args)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_forward(case: tuple) -> None:
    name, dtype, layout, size = case
    s = SAMPLES[name]
    args = positive_for(dtype, s.make(rng_for(name, dtype, size), size))
    given = to_args(args, dtype, layout)
    seen = rounded(args, dtype, layout)
    if dtype in INTS:
        seen = [[integer(x, dtype) for x in a] if isinstance(a, list) else integer(a, dtype) for a in seen]
    if name in ("sgd_step", "adam_step", "rmsprop_step"):
        given[-1] = fd.array(args[-1])
        seen[-1] = args[-1]
    fd._C.set_guard(True)
    try:
        got = getattr(raw, name)(*given)
        out = given[0][0] if name == "index_put" else given[0] if name in INPLACE else got
        with np.errstate(all="ignore"):
            want = s.ref(*seen)
        if want is None:
            in_range(name, values(out))
            return
        outs, wants = (out, want) if isinstance(want, tuple) else ((out,), (want,))
        with np.errstate(all="ignore"):
            scale = s.scale(*seen) if s.scale else None
        scales = scale if isinstance(want, tuple) and isinstance(scale, tuple) else (scale,) * len(wants)
        for o, w, sc in zip(outs, wants, scales):
            e = eps(o.dtype.name) if o.dtype.kind == "f" else 1.0
            check_close(values(o), w, s.tol, max(e, eps(dtype) if dtype in FLOATS else 0), sc, case_id(case), 6e-8 if dtype == "float16" else 1e-37)
            assert not isinstance(o, fd.Tensor) or o.shape == np.shape(w)
        del got, out, outs, o
    finally:
        broken = fd._C.set_guard(False)
    assert broken == 0, f"{case_id(case)}: memory outside a tensor was written"


def integer(a: object, dtype: str) -> object:
    return a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a


def in_range(name: str, v: np.ndarray) -> None:
    assert np.isfinite(v).all()
    if name == "random_integers":
        assert v.size == 0 or (v.min() >= -3 and v.max() < 9)
    elif v.size >= 1000:
        assert abs(v.mean()) < 5 / np.sqrt(v.size) and abs(v.std() - 1) < 5 / np.sqrt(v.size)


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if s.elementwise])
def test_out_argument_stays_inside(name: str) -> None:
    """out= on a strided window of a larger tensor leaves everything around it untouched."""
    s = SAMPLES[name]
    dtype = s.dtypes[0]
    args = to_args(positive_for(dtype, s.make(rng_for(name), (5, 7))), dtype, "contiguous")
    want = getattr(raw, name)(*args)
    frame = fd.full((9, 20), 77, dtype=want.dtype)
    window = frame[2:7, 3:17:2]
    assert getattr(raw, name)(*args, out=window) is window
    np.testing.assert_array_equal(values(window), values(want))
    inside = np.zeros((9, 20), bool)
    inside[2:7, 3:17:2] = True
    assert (values(frame)[~inside] == values(fd.full((), 77, dtype=want.dtype))).all()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_wrong_inputs(name: str) -> None:
    """Three wrong calls give the named exception, also a FastdlError, and its text names the op."""
    errors = SAMPLES[name].errors
    assert len(errors) >= 3, f"{name}: needs three wrong inputs"
    for call, kind in errors:
        with pytest.raises(Exception) as info:
            call(raw)
            synchronize()
        e = info.value
        assert isinstance(e, fd.FastdlError), f"{name}: {e!r} is not a FastdlError"
        builtin = {"ShapeError": fd.ShapeError, "TypeError": TypeError, "ValueError": ValueError, "IndexError": IndexError, "error": Exception}[kind]
        assert isinstance(e, builtin), f"{name}: {e!r} is not a {kind}"
        assert len(str(e)) > 10


def test_enough_cases() -> None:
    assert len(SAMPLES) >= 120
    assert len(CASES) >= 6000
