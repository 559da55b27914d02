"""Elementwise ops: arithmetic, comparisons, mathematical functions. Broadcasting and dtypes follow NumPy 2; complex gradients are those of
PyTorch (the conjugate of the holomorphic derivative)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..op import op

if TYPE_CHECKING:
    from .._C import Tensor

# ---- helpers of the rules --------------------------------------------------------------------------------------------


def _conj(x: Any) -> Any:
    """conj(x) for complex tensors and numbers; anything else as it is."""
    if type(x) is float or type(x) is int:
        return x
    d = getattr(x, "dtype", None)
    return x.conjugate() if d is None else conj(x) if d.kind == "c" else x


def _zero(g: Tensor) -> Tensor:
    from .creation import zeros_like

    return zeros_like(g)


# ---- arithmetic ------------------------------------------------------------------------------------------------------
@op(vjp=(lambda g: g, lambda g: g))
def add(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 + x2; for bool, or."""


@op(vjp=(lambda g: g, lambda g: -g))
def subtract(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 - x2."""


@op(vjp=(lambda g, x2: g * _conj(x2), lambda g, x1: g * _conj(x1)))
def multiply(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 * x2; for bool, and."""


@op(vjp=(lambda g, x2: g / _conj(x2), lambda g, y, x2: -(g * _conj(y / x2))))
def divide(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 / x2 (true division: integers become floats)."""


@op(vjp=(lambda g: _zero(g), lambda g: _zero(g)))
def floor_divide(x1: Tensor, x2: Tensor) -> Tensor:
    """Largest integer not above x1 / x2. Integer division by zero gives 0."""


@op(vjp=(lambda g: g, lambda g, x1, x2: -(g * floor(x1 / x2))))
def remainder(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 - x2 * floor(x1 / x2); the sign of x2."""


@op(vjp=(lambda g: g, lambda g, x1, x2: -(g * trunc(x1 / x2))))
def fmod(x1: Tensor, x2: Tensor) -> Tensor:
    """C's fmod: the sign of x1."""


def _power_base(g: Tensor, x1: Any, x2: Any) -> Tensor:
    if type(x2) in (int, float):
        return g * 0.0 if x2 == 0 else g if x2 == 1 else g * (_conj(x1) * 2.0) if x2 == 2 else g * (x2 * _conj(x1 ** (x2 - 1)))
    return g * where(x2 == 0, 0.0, _conj(x2 * x1 ** (x2 - 1)))


def _power_exponent(g: Tensor, y: Tensor, x1: Any, x2: Any) -> Tensor:
    from .creation import asarray

    x1, x2 = asarray(x1), asarray(x2)
    zero = (x1 == 0) & ((x2.real if x2.dtype.kind == "c" else x2) >= 0)
    return g * where(zero, 0.0, _conj(y * log(where(zero, 1.0, x1))))


@op(vjp=(_power_base, _power_exponent))
def power(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 ** x2."""


@op(vjp=lambda g: -g)
def negative(x: Tensor) -> Tensor:
    """-x."""


@op(vjp=lambda g: g)
def positive(x: Tensor) -> Tensor:
    """+x (a copy)."""


@op(vjp=lambda g, x: g * sign(x))
def abs(x: Tensor) -> Tensor:
    """Absolute value; of complex numbers the magnitude, a real tensor."""


@op(vjp=lambda g: _zero(g))
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; NaN stays NaN; complex: x / abs(x)."""


@op(vjp=lambda g, x: g * (_conj(x) * 2.0))
def square(x: Tensor) -> Tensor:
    """x * x."""
    return x * x


@op(vjp=lambda g: conj(g))
def conj(x: Tensor) -> Tensor:
    """Complex conjugate."""


@op(vjp=lambda g, y: g * _conj(0.5 / y))
def sqrt(x: Tensor) -> Tensor:
    """Square root."""


@op(vjp=lambda g, y: g * (-0.5 * y * y * y))
def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x)."""
    return 1.0 / sqrt(x)


@op(vjp=lambda g, y: g / (3.0 * y * y))
def cbrt(x: Tensor) -> Tensor:
    """Cube root."""


@op(vjp=lambda g, y: -(g * _conj(y * y)))
def reciprocal(x: Tensor) -> Tensor:
    """1 / x."""
    return 1.0 / x


# ---- exponentials and logarithms -----------------------------------------------------------------------------------
@op(vjp=lambda g, y: g * _conj(y))
def exp(x: Tensor) -> Tensor:
    """e to the x."""


@op(vjp=lambda g, y: g * (y * math.log(2.0)))
def exp2(x: Tensor) -> Tensor:
    """2 to the x."""


@op(vjp=lambda g, y: g * (y + 1.0))
def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, accurate near 0."""


@op(vjp=lambda g, x: g / _conj(x))
def log(x: Tensor) -> Tensor:
    """Natural logarithm."""


@op(vjp=lambda g, x: g / (x * math.log(2.0)))
def log2(x: Tensor) -> Tensor:
    """Logarithm to base 2."""


@op(vjp=lambda g, x: g / (x * math.log(10.0)))
def log10(x: Tensor) -> Tensor:
    """Logarithm to base 10."""


@op(vjp=lambda g, x: g / (x + 1.0))
def log1p(x: Tensor) -> Tensor:
    """log(1 + x), accurate near 0."""


def _logaddexp_share(g: Tensor, y: Tensor, x: Any) -> Tensor:
    return g * where(y == -math.inf, 0.5, exp(x - y))


@op(vjp=(lambda g, y, x1: _logaddexp_share(g, y, x1), lambda g, y, x2: _logaddexp_share(g, y, x2)))
def logaddexp(x1: Tensor, x2: Tensor) -> Tensor:
    """log(exp(x1) + exp(x2)) without overflow."""


# ---- trigonometry ----------------------------------------------------------------------------------------------------
@op(vjp=lambda g, x: g * cos(x))
def sin(x: Tensor) -> Tensor:
    """Sine; x in radians."""


@op(vjp=lambda g, x: -(g * sin(x)))
def cos(x: Tensor) -> Tensor:
    """Cosine; x in radians."""


@op(vjp=lambda g, y: g * (y * y + 1.0))
def tan(x: Tensor) -> Tensor:
    """Tangent; x in radians."""


@op(vjp=lambda g, x: g * rsqrt(1.0 - x * x))
def arcsin(x: Tensor) -> Tensor:
    """Inverse sine, radians."""


@op(vjp=lambda g, x: -(g * rsqrt(1.0 - x * x)))
def arccos(x: Tensor) -> Tensor:
    """Inverse cosine, radians."""


@op(vjp=lambda g, x: g / (x * x + 1.0))
def arctan(x: Tensor) -> Tensor:
    """Inverse tangent, radians."""


@op(vjp=(lambda g, x1, x2: g * (x2 / (x1 * x1 + x2 * x2)), lambda g, x1, x2: -(g * (x1 / (x1 * x1 + x2 * x2)))))
def arctan2(x1: Tensor, x2: Tensor) -> Tensor:
    """Angle of the point (x2, x1), radians in [-pi, pi]."""


@op(vjp=lambda g, x: g * cosh(x))
def sinh(x: Tensor) -> Tensor:
    """Hyperbolic sine."""


@op(vjp=lambda g, x: g * sinh(x))
def cosh(x: Tensor) -> Tensor:
    """Hyperbolic cosine."""


@op(vjp=lambda g, y: tanh_backward(g, y))
def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""


@op(vjp="body")
def tanh_backward(grad: Tensor, result: Tensor) -> Tensor:
    """Gradient of tanh from its output."""
    return grad * (1.0 - result * result)


@op(vjp=lambda g, x: g * rsqrt(x * x + 1.0))
def arcsinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine."""


@op(vjp=lambda g, x: g / (sqrt(x - 1.0) * sqrt(x + 1.0)))
def arccosh(x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine."""


@op(vjp=lambda g, x: g / (1.0 - x * x))
def arctanh(x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent."""


@op(vjp=(lambda g, y, x1: g * (x1 / y), lambda g, y, x2: g * (x2 / y)))
def hypot(x1: Tensor, x2: Tensor) -> Tensor:
    """sqrt(x1**2 + x2**2) without overflow."""


@op(vjp=(lambda g, y, x1: g * (sign(y) * sign(x1)), lambda g: _zero(g)))
def copysign(x1: Tensor, x2: Tensor) -> Tensor:
    """abs(x1) with the sign of x2."""


@op(vjp=lambda g, x: g * (exp(-(x * x)) * (2.0 / math.sqrt(math.pi))))
def erf(x: Tensor) -> Tensor:
    """Error function."""


@op(vjp=lambda g, x: g * (exp(-(x * x)) * (-2.0 / math.sqrt(math.pi))))
def erfc(x: Tensor) -> Tensor:
    """1 - erf(x), accurate for large x."""


# ---- rounding --------------------------------------------------------------------------------------------------------
@op(vjp=lambda g: _zero(g))
def floor(x: Tensor) -> Tensor:
    """Largest integer not above x."""


@op(vjp=lambda g: _zero(g))
def ceil(x: Tensor) -> Tensor:
    """Smallest integer not below x."""


@op(vjp=lambda g: _zero(g))
def trunc(x: Tensor) -> Tensor:
    """The integer part."""


@op(vjp=lambda g: _zero(g))
def round(x: Tensor) -> Tensor:
    """Nearest integer, halves to even."""


# ---- extrema, selection ----------------------------------------------------------------------------------------------
def _winner(g: Tensor, mine: Any, other: Any, greater: bool) -> Tensor:
    """The gradient goes to the operand that was chosen, half each on ties (as PyTorch)."""
    won = mine > other if greater else mine < other
    return where(logical_or(won, not_equal(mine, mine)), g, where(equal(mine, other), g * 0.5, 0.0))


@op(vjp=(lambda g, x1, x2: _winner(g, x1, x2, True), lambda g, x1, x2: _winner(g, x2, x1, True)))
def maximum(x1: Tensor, x2: Tensor) -> Tensor:
    """The larger of both; NaN if either is NaN."""


@op(vjp=(lambda g, x1, x2: _winner(g, x1, x2, False), lambda g, x1, x2: _winner(g, x2, x1, False)))
def minimum(x1: Tensor, x2: Tensor) -> Tensor:
    """The smaller of both; NaN if either is NaN."""


def _first_wins(x1: Any, x2: Any, greater: bool) -> Tensor:
    won = greater_equal(x1, x2) if greater else less_equal(x1, x2)
    return logical_or(won, not_equal(x2, x2))


@op(vjp=(lambda g, x1, x2: where(_first_wins(x1, x2, True), g, 0.0), lambda g, x1, x2: where(_first_wins(x1, x2, True), 0.0, g)))
def fmax(x1: Tensor, x2: Tensor) -> Tensor:
    """The larger of both; a NaN is ignored if the other is a number."""


@op(vjp=(lambda g, x1, x2: where(_first_wins(x1, x2, False), g, 0.0), lambda g, x1, x2: where(_first_wins(x1, x2, False), 0.0, g)))
def fmin(x1: Tensor, x2: Tensor) -> Tensor:
    """The smaller of both; a NaN is ignored if the other is a number."""


@op(vjp=(None, lambda g, condition: where(condition, g, 0.0), lambda g, condition: where(condition, 0.0, g)))
def where(condition: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """x1 where the condition is true, else x2."""


@op(
    vjp=(
        lambda g, x, lo, hi: where(logical_and(greater_equal(x, lo), less_equal(x, hi)), g, 0.0),
        lambda g, x, lo, hi: where(logical_and(less(x, lo), less_equal(lo, hi)), g, 0.0),
        lambda g, x, lo, hi: where(logical_or(greater(x, hi), greater(lo, hi)), g, 0.0),
    )
)
def clip(x: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """min(max(x, lo), hi); NaN in x stays."""


@op(vjp=(lambda g: g, lambda g, x3, value: g * (x3 * value), lambda g, x2, value: g * (x2 * value)))
def addcmul(x1: Tensor, x2: Tensor, x3: Tensor, value: float = 1.0) -> Tensor:
    """x1 + value * x2 * x3."""
    return x1 + x2 * x3 * value


@op(vjp=(lambda g, w: g * (1.0 - w), lambda g, w: g * w, lambda g, x1, x2: g * (x2 - x1)))
def lerp(x1: Tensor, x2: Tensor, w: Tensor) -> Tensor:
    """x1 + w * (x2 - x1)."""
    return x1 + w * (x2 - x1)


# ---- tests, comparisons, bits: no gradients ------------------------------------------------------------------------
@op()
def isnan(x: Tensor) -> Tensor:
    """Whether x is NaN."""


@op()
def isinf(x: Tensor) -> Tensor:
    """Whether x is infinite."""


@op()
def isfinite(x: Tensor) -> Tensor:
    """Whether x is neither infinite nor NaN."""


@op()
def signbit(x: Tensor) -> Tensor:
    """Whether the sign bit is set (also of -0.0 and NaN)."""


@op()
def logical_not(x: Tensor) -> Tensor:
    """x == 0."""


@op()
def equal(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 == x2."""


@op()
def not_equal(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 != x2."""


@op()
def less(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 < x2."""


@op()
def less_equal(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 <= x2."""


@op()
def greater(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 > x2."""


@op()
def greater_equal(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 >= x2."""


@op()
def logical_and(x1: Tensor, x2: Tensor) -> Tensor:
    """Whether both are non-zero."""


@op()
def logical_or(x1: Tensor, x2: Tensor) -> Tensor:
    """Whether either is non-zero."""


@op()
def logical_xor(x1: Tensor, x2: Tensor) -> Tensor:
    """Whether exactly one is non-zero."""


@op()
def bitwise_and(x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in both; integers and bool."""


@op()
def bitwise_or(x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in either; integers and bool."""


@op()
def bitwise_xor(x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in exactly one; integers and bool."""


@op()
def bitwise_not(x: Tensor) -> Tensor:
    """All bits flipped; bool: not."""


@op()
def left_shift(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 << x2."""


@op()
def right_shift(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 >> x2, arithmetic."""


# ---- without a kernel: the body is the op ----------------------------------------------------------------------------
@op()
def isclose(x1: Tensor, x2: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """abs(x1 - x2) <= atol + rtol * abs(x2), elementwise; infinities must be equal."""
    from .creation import asarray

    x1, x2 = asarray(x1), asarray(x2)
    close = (x1 == x2) | (isfinite(x1) & isfinite(x2) & (abs(x1 - x2) <= atol + rtol * abs(x2)))
    return close | (isnan(x1) & isnan(x2)) if equal_nan else close


@op()
def deg2rad(x: Tensor) -> Tensor:
    """x * pi / 180."""
    return multiply(x, math.pi / 180.0)


@op()
def rad2deg(x: Tensor) -> Tensor:
    """x * 180 / pi."""
    return multiply(x, 180.0 / math.pi)


@op()
def nan_to_num(x: Tensor, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """NaN and infinities replaced by numbers (default: 0 and the dtype's limits)."""
    from ..dtypes import finfo
    from .creation import asarray

    x = asarray(x)
    if x.dtype.kind != "f":
        return positive(x)
    limits = finfo(x.dtype)
    x = where(isnan(x), nan, x)
    x = where(x == math.inf, limits.max if posinf is None else posinf, x)
    return where(x == -math.inf, limits.min if neginf is None else neginf, x)


@op()
def sinc(x: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
    zero = equal(x, 0)
    y = where(zero, 1.0, multiply(x, math.pi))
    return where(zero, 1.0, sin(y) / y)
