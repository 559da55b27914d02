"""The float32 functions keep the bounds of ulp.BOUNDS, 4 ulp at most, over all 2**32 inputs.

The reference is the same function in float64, which calls the C library; that in turn is compared with Python's math module and with
sums of forty and more decimal digits. The quick test strides through the bit patterns of float32 (all exponents, both signs, NaNs), the
slow one takes them all (minutes per function).
"""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import ulp

import fastdl as fd
from fastdl import _C

STRIDE = 9973
LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
SPECIAL = [0, 1, 0.5, 2, 3, 6, 20, 88.72284, 87.33655, 103.97208, 1e10, 32768.1, np.inf, np.nan, LEAST, 1e-45, MOST]
SPECIAL = np.array([s * value for value in SPECIAL for s in (1.0, -1.0)], np.float32)


def check(name: str, x: np.ndarray) -> None:
    error, at = ulp.worst_of(name, x)
    got = getattr(fd, name)(fd.array(at, dtype=fd.float32)).item()
    assert error <= ulp.BOUNDS[name], f"{name}({at!r}) = {got!r}: off by {error:.2f} ulp"


@pytest.mark.parametrize("name", ulp.BOUNDS)
def test_bounds(name):
    check(name, SPECIAL)
    check(name, ulp.patterns(0, 1 << 32, STRIDE))
    check(name, np.linspace(-20, 20, 100_001, dtype=np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ulp.BOUNDS)
def test_bounds_over_all_inputs(name):
    block = 1 << 18
    for start in range(0, 1 << 32, block):
        check(name, ulp.patterns(start, start + block))


def test_no_function_is_left_out():
    """Of the rows of the table with one input and one output, all but those that are exact by nature."""
    exact = set("negative positive abs sign conj floor ceil trunc round bitwise_not".split())
    assert {name for name, family, *_ in _C.op_table() if family == "unary"} - exact == set(ulp.BOUNDS)


def test_the_sweep_measures_what_ulp_error_says():
    rng = np.random.default_rng(0)
    want = np.concatenate([rng.normal(0, 1, 5000) * 10.0 ** rng.integers(-44, 38, 5000), [0.0, -0.0, 1e-46, 2.0, 4.0 - 1e-16]])
    got = (want * (1 + rng.normal(0, 1e-7, len(want)))).astype(np.float32)
    for slack in (0.0, 1e-20):
        assert ulp.worst(got, want, slack)[0] == ulp.ulp_error(got, want, slack).max() > 1
    for value, other in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.inf, -np.inf)):
        at = rng.integers(len(want))
        broken, reference = got.copy(), want.copy()
        broken[at], reference[at] = value, other
        assert ulp.worst(broken, reference) == (np.inf, at)
        broken[at] = reference[at] = value
        assert np.isfinite(ulp.worst(broken, reference)[0])


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


MATH |= {
    "rsqrt": lambda t: 1 / math.sqrt(t), "cbrt": math.cbrt, "reciprocal": lambda t: 1 / t, "square": lambda t: t * t, "arcsin": math.asin,
    "arccos": math.acos, "arccosh": math.acosh, "arctanh": math.atanh, "relu": lambda t: max(t, 0.0), "relu6": lambda t: min(max(t, 0.0), 6.0),
    "hardtanh": lambda t: min(max(t, -1.0), 1.0), "leaky_relu": lambda t: t if t > 0 else 0.01 * t, "softsign": lambda t: t / (1 + abs(t)),
    "elu": lambda t: t if t > 0 else math.expm1(t), "celu": lambda t: t if t > 0 else math.expm1(t),
    "selu": lambda t: 1.0507009873554804934 * (t if t > 0 else 1.6732632423543772848 * math.expm1(t)),
    "hardsigmoid": lambda t: min(max(t + 3, 0.0), 6.0) / 6, "hardswish": lambda t: t * min(max(t + 3, 0.0), 6.0) / 6,
}  # fmt: skip


@pytest.mark.parametrize("name", ulp.BOUNDS)
def test_float64_agrees_with_the_math_module(name):
    x = np.linspace(0.01, 5.0, 997)
    if name in {"arcsin", "arccos", "arctanh"}:
        x = np.linspace(-0.999, 0.999, 997)
    elif name == "arccosh":
        x += 1
    elif name not in {"log", "log2", "log10", "log1p", "sqrt", "rsqrt"}:
        x = np.concatenate([-x[:700], x])
    got = getattr(fd, name)(fd.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, [MATH[name](t) for t in x.tolist()], rtol=2e-14, atol=1e-15)


def decimal_erf(t: Decimal) -> Decimal:
    """Taylor's series; terms grow up to exp(t^2), which the digits must allow for."""
    term = total = t
    n = 0
    while abs(term) > Decimal(10) ** -150:
        n += 1
        term *= -t * t / n
        total += term / (2 * n + 1)
    return total * 2 / Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798").sqrt()


def decimal_tanh(t: Decimal) -> Decimal:
    return 1 - 2 / ((2 * t).exp() + 1)


DECIMAL = {
    "exp": Decimal.exp, "expm1": lambda t: t.exp() - 1, "tanh": decimal_tanh, "sinh": lambda t: (t.exp() - (-t).exp()) / 2,
    "erf": decimal_erf, "erfc": lambda t: 1 - decimal_erf(t), "sigmoid": lambda t: 1 / (1 + (-t).exp()), "silu": lambda t: t / (1 + (-t).exp()),
    "log_sigmoid": lambda t: -(1 + (-t).exp()).ln(), "softplus": lambda t: (1 + t.exp()).ln(), "elu": lambda t: t if t > 0 else t.exp() - 1,
    "gelu": lambda t: t * (1 + decimal_erf(t * Decimal("0.5").sqrt())) / 2, "mish": lambda t: t * decimal_tanh((1 + t.exp()).ln()),
}  # fmt: skip


@pytest.mark.parametrize("name", DECIMAL)
def test_float64_agrees_with_many_digits(name):
    """Where one value is the small difference of large ones, libraries of floats agree with each other too easily."""
    x = np.array([1e-30, 1e-9, 3e-5, 0.01, 0.3, 0.7, 1.0, 1.9, 3.1, 4.7, 6.3, 8.2, 9.9])
    x = np.concatenate([-x, x])
    with localcontext() as context:
        context.prec = 160
        want = [float(DECIMAL[name](Decimal(t))) for t in x.tolist()]
    np.testing.assert_allclose(getattr(fd, name)(fd.from_numpy(x)).numpy(), want, rtol=3e-14)


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
        assert ulp.ulp_error(got.numpy(), want).max() <= 4
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
