"""The float32 functions err by at most 4 ulp, over all 2**32 inputs.

The reference is the same function in float64, which calls the C library; that in turn is compared with Python's math module. The
quick test strides through the bit patterns of float32 (all exponents, both signs, NaNs), the slow one takes them all.
"""

import math

import numpy as np
import pytest

import fastdl as fd

LIMIT = 4.0  # ulp
FUNCTIONS = (
    "sqrt rsqrt cbrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh "
    "arccosh arctanh erf erfc sigmoid log_sigmoid silu gelu gelu_tanh mish softplus softsign elu selu hardsigmoid hardswish"
).split()
# An absolute error that is allowed as well, where a function decays like exp(-|x|) and nobody can tell: the products of a subnormal
# number, the argument of an exponential rounded once more.
SLACK = {"silu": 1e-42, "mish": 1e-42, "gelu": 1e-9, "gelu_tanh": 1e-8}

STRIDE = 9973
LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
SPECIAL = [0, 1, 0.5, 2, 3, 6, 20, 88.72284, 87.33655, 103.97208, 1e10, 32768.1, np.inf, np.nan, LEAST, 1e-45, MOST]
SPECIAL = np.array([s * value for value in SPECIAL for s in (1.0, -1.0)], np.float32)


def ulp_error(got: np.ndarray, want: np.ndarray, slack: float) -> np.ndarray:
    """Error of float32 `got` against float64 `want` in units of the last place of a float32; NaN and infinity must agree."""
    with np.errstate(all="ignore"):
        got64 = got.astype(np.float64)
        rounded = want.astype(np.float32)
        unit = np.exp2(np.maximum(np.frexp(want)[1], -125) - 24.0)
        error = np.maximum(np.abs(got64 - want) - slack, 0.0) / unit
    error = np.where(np.isinf(rounded) | np.isinf(got), np.where(rounded == got, 0.0, np.inf), error)
    # the largest float may round up to infinity and back
    edge = (np.abs(want) > 3.4028233e38) & (np.abs(want) < 3.402824e38) & (np.abs(got64) > 3.40282e38) & (got64 * want > 0)
    error = np.where(edge, 1.0, error)
    return np.where(np.isnan(want) | np.isnan(got), np.where(np.isnan(want) & np.isnan(got), 0.0, np.inf), error)


def ulp_errors(name: str, x: np.ndarray) -> np.ndarray:
    """Error of the function at each of the float32 numbers x, in ulp, beyond SLACK; tools/make_ulp_table.py asks it, too."""
    function = getattr(fd, name)
    got = function(fd.from_numpy(x)).numpy()
    with np.errstate(invalid="ignore"):  # signalling NaNs
        x64 = x.astype(np.float64)
    want = function(fd.from_numpy(x64)).numpy()
    assert got.dtype == np.float32
    return ulp_error(got, want, SLACK.get(name, 0.0))


def check(name: str, x: np.ndarray) -> None:
    error = ulp_errors(name, x)
    worst = int(error.argmax())
    at = x[worst : worst + 1]
    got = getattr(fd, name)(fd.from_numpy(at)).item()
    assert error[worst] <= LIMIT, f"{name}({float(at[0])!r}) = {got!r}: off by {error[worst]:.2f} ulp"


def patterns(start: int, stop: int, step: int) -> np.ndarray:
    return np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_most_4_ulp(name):
    check(name, SPECIAL)
    check(name, patterns(0, 1 << 32, STRIDE))
    check(name, np.linspace(-20, 20, 100_001, dtype=np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_most_4_ulp_over_all_inputs(name):
    block = 1 << 22
    for start in range(0, 1 << 32, block):
        check(name, patterns(start, start + block, 1))


@pytest.mark.parametrize("name", "sin tan arcsin arctan sinh tanh arcsinh arctanh erf expm1 log1p cbrt gelu silu".split())
def test_odd_functions_keep_the_sign_of_zero(name):
    y = getattr(fd, name)(fd.array([0.0, -0.0], dtype=fd.float32)).numpy()
    assert np.signbit(y).tolist() == [False, True]
    assert (y == 0).all()


MATH = {name: getattr(math, name) for name in "exp expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh erf erfc".split()} | {
    "arctan": math.atan,
    "arcsinh": math.asinh,
    "exp2": lambda t: 2.0**t,
    "sigmoid": lambda t: 1 / (1 + math.exp(-t)),
    "log_sigmoid": lambda t: -math.log1p(math.exp(-t)),
    "softplus": lambda t: math.log1p(math.exp(t)),
    "silu": lambda t: t / (1 + math.exp(-t)),
    "gelu": lambda t: t * 0.5 * math.erfc(-t * math.sqrt(0.5)),
    "gelu_tanh": lambda t: 0.5 * t * (1 + math.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3))),
    "mish": lambda t: t * math.tanh(math.log1p(math.exp(t))),
}


@pytest.mark.parametrize("name", MATH)
def test_float64_agrees_with_the_math_module(name):
    x = np.linspace(0.01, 5.0, 997)
    if name not in {"log", "log2", "log10", "log1p", "sqrt"}:
        x = np.concatenate([-x[:700], x])
    got = getattr(fd, name)(fd.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, [MATH[name](t) for t in x.tolist()], rtol=2e-14, atol=1e-15)


def test_two_argument_functions():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 10, 50_000).astype(np.float32)
    y = rng.normal(0, 10, 50_000).astype(np.float32)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    a, b = fd.from_numpy(x), fd.from_numpy(y)
    for got, want in (
        (fd.arctan2(a, b), np.arctan2(x64, y64)),
        (fd.hypot(a, b), np.hypot(x64, y64)),
        (fd.power(fd.abs(a), b), np.abs(x64) ** y64),
    ):
        assert ulp_error(got.numpy(), want, 0.0).max() <= 4
    want = np.logaddexp(x64, y64)
    assert (np.abs(fd.logaddexp(a, b).numpy() - want) <= 3e-7 * np.maximum(np.abs(want), 1)).all()


def test_power_follows_c_at_its_corners():
    values = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, np.inf, -np.inf, np.nan], np.float32)
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    got = fd.power(fd.from_numpy(x.copy()), fd.from_numpy(y.copy())).numpy()
    np.testing.assert_array_equal(got, want)
    finite = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]))
