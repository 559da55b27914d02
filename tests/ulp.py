"""Errors of float32 functions in units of the last place, beside the same functions in float64.

`tests/test_accuracy.py` asserts BOUNDS, `tools/make_ulp_table.py` writes what is found into docs/numerics.md.
"""

from __future__ import annotations

import numpy as np

import fastdl as fd

# The greatest error that a function may have, in ulp, over all floats and on every instruction set. 0.5: correctly rounded.
BOUNDS = {
    name: bound
    for bound, names in {
        0.5: "sqrt reciprocal square relu relu6 hardtanh",
        1.0: "leaky_relu",
        4.0: "rsqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh erf "
        "erfc sigmoid log_sigmoid silu gelu gelu_tanh mish softplus softsign elu celu selu hardsigmoid hardswish",
    }.items()
    for name in names.split()
}
# An absolute error that is allowed as well, where a function decays like exp(-|x|) and nobody can tell: the products of a subnormal
# number, the argument of an exponential rounded once more.
SLACK = {"silu": 1e-42, "mish": 1e-42, "gelu": 1e-9, "gelu_tanh": 1e-8}


def ulp_error(got: np.ndarray, want: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """Error of float32 `got` against float64 `want` in units of the last place of a float32; NaN and infinity must agree."""
    with np.errstate(all="ignore"):
        got64 = got.astype(np.float64)
        rounded = want.astype(np.float32)
        unit = np.exp2(np.maximum(np.frexp(want)[1], -125) - 24.0)
        error = np.maximum(np.abs(got64 - want) - slack, 0.0) / unit
    error = np.where(np.isinf(rounded) | np.isinf(got), np.where(rounded == got, 0.0, np.inf), error)
    # the largest float may round up to infinity and back
    edge = (np.abs(want) > 3.4028233e38) & (np.abs(want) < 3.402824e38) & (np.abs(got64) > 3.40282e38) & (got64 * want > 0)
    error = np.where(edge & np.isinf(error), 1.0, error)
    return np.where(np.isnan(want) | np.isnan(got), np.where(np.isnan(want) & np.isnan(got), 0.0, np.inf), error)


PIECE = 1 << 15  # numbers at a time, whose float64 scratch stays in the second-level cache
EXPONENT, LEAST, SCALE = np.int64(0x7FF << 52), np.int64((1023 - 126) << 52), np.int64(((2 * 1023 + 23) << 52) - (1 << 64))
_scratch = np.empty((2, PIECE))


def worst(got: np.ndarray, want: np.ndarray, slack: float = 0.0) -> tuple[float, int]:
    """The greatest of ulp_error(got, want, slack), and where it is: the same figures at a tenth of the time."""
    top, at = -1.0, 0
    with np.errstate(all="ignore"):
        for start in range(0, len(got), PIECE):
            g, w = got[start : start + PIECE], want[start : start + PIECE]
            error, unit = _scratch[:, : len(w)]
            np.subtract(g, w, out=error)
            np.abs(error, out=error)
            if slack:
                np.maximum(np.subtract(error, slack, out=error), 0.0, out=error)
            bits = unit.view(np.int64)  # 1 / unit of the last place, from the exponent of want
            np.bitwise_and(w.view(np.int64), EXPONENT, out=bits)
            np.subtract(SCALE, np.maximum(bits, LEAST, out=bits), out=bits)
            error *= unit
            if not np.isfinite(error.max()):
                error = ulp_error(g, w, slack)
            i = int(error.argmax())
            if error[i] > top:
                top, at = float(error[i]), start + i
    return top, at


def patterns(start: int, stop: int, step: int = 1) -> np.ndarray:
    """The floats whose bits are start, start + step ... up to stop."""
    return np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def reference(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64, of float32 numbers."""
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return getattr(fd, name)(fd.from_numpy(x.astype(np.float64))).numpy()


def worst_of(name: str, x: np.ndarray, want: np.ndarray | None = None) -> tuple[float, float]:
    """Greatest error of the function among the float32 numbers x beyond SLACK, in ulp, and the number that has it."""
    got = getattr(fd, name)(fd.from_numpy(x)).numpy()
    assert got.dtype == np.float32
    error, at = worst(got, reference(name, x) if want is None else want, SLACK.get(name, 0.0))
    return error, float(x[at])
