"""One row per op: how to make inputs, what the result must be, where gradients are checked, what must be refused.

The rows drive test_ops.py over dtype x layout x size, test_gradients.py, test_isa.py (every instruction set) and test_tables.py. Inputs
are made in float64, rounded to the dtype under test, and the reference is computed in float64 from the rounded values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FLOATS = ("float32", "float64", "float16", "bfloat16")
F2 = FLOATS[:2]
INTS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 1000, 4097)  # straddle the vector widths and block sizes
LAYOUTS = ("contiguous", "transposed", "sliced", "reversed", "unaligned", "broadcast", "scalar", "empty")

erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


@dataclass
class Sample:
    """A row. make(rng, size) -> arguments: float64 or integer arrays (made into tensors) and plain parameters."""

    name: str
    make: Callable[[np.random.Generator, Any], tuple]
    ref: Callable[..., Any]
    sizes: tuple = SIZES
    dtypes: tuple = FLOATS
    elementwise: bool = False
    tol: float = 4.0  # in units of the dtype's eps, relative to the result's scale
    scale: Callable[..., Any] | None = None  # magnitude that the error is relative to (default: the result)
    grad: tuple = ()  # arguments whose gradient is checked
    second: bool = False  # and whose second derivative is
    kwargs: dict = field(default_factory=dict)
    errors: tuple = ()  # (function of fd -> call, exception name)
    grad_sizes: tuple = ()


SAMPLES: dict[str, Sample] = {}


def add(sample: Sample) -> None:
    assert sample.name not in SAMPLES, sample.name
    SAMPLES[sample.name] = sample


def cast(a: Any, dtype: str) -> Any:
    """a rounded to dtype, as float64 (bfloat16: round to nearest even of the top 16 bits)."""
    if not isinstance(a, np.ndarray) or a.dtype != np.float64:
        return a
    if dtype == "bfloat16":
        bits = a.astype(np.float32).view(np.uint32)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(np.float64)
    return a.astype(dtype).astype(np.float64)


def wrong(*calls: Any) -> tuple:
    return calls


def eps(dtype: str) -> float:
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)


# ---- elementwise -----------------------------------------------------------------------------------------------------
def between(lo: float, hi: float) -> Callable:
    return lambda rng, size: np.asarray(rng.uniform(lo, hi, size))


draw = between(-2, 2)


def whole(lo: int, hi: int) -> Callable:
    """Integers in [lo, hi)."""
    return lambda rng, size: np.asarray(rng.integers(lo, hi, size))



def unary(name: str, ref: Callable, lo: float = -4.0, hi: float = 4.0, *, grad: bool = True, second: bool = True, tol: float = 4.0, params: tuple = (), **kw: Any) -> None:
    draw = between(lo, hi)
    bad = (
        (lambda fd: getattr(fd, name)("text", *params), "TypeError"),
        (lambda fd: getattr(fd, name)(fd.ones(2), *params, nonsense=1), "TypeError"),
        (lambda fd: getattr(fd, name)(), "TypeError"),
    )
    add(
        Sample(
            name, lambda rng, size: (draw(rng, size), *params), ref, elementwise=True, grad=(0,) if grad else (), second=second and grad, tol=tol, errors=bad, **kw
        )
    )


def sigmoid(x: Any) -> Any:
    return np.where(x >= 0, 1.0, np.exp(-np.abs(x))) / (1.0 + np.exp(-np.abs(x)))


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    b = beta * x
    return np.where(b > threshold, x, (np.maximum(b, 0) + np.log1p(np.exp(-np.abs(b)))) / beta)


PLAIN = {"negative": np.negative, "positive": np.positive, "abs": np.abs, "square": np.square, "conj": np.conj}
for n, f in PLAIN.items():
    unary(n, f, dtypes=(*FLOATS, "int32", "int64", "int8"))
unary("sign", np.sign, second=False)
for n in ("exp", "exp2", "expm1", "sin", "cos", "tanh", "sinh", "cosh", "arctan", "arcsinh"):
    unary(n, getattr(np, n))
unary("tan", np.tan, -1.2, 1.2, tol=8)
unary("arcsin", np.arcsin, -0.9, 0.9)
unary("arccos", np.arccos, -0.9, 0.9)
unary("arccosh", np.arccosh, 1.2, 6.0, tol=8)
unary("arctanh", np.arctanh, -0.9, 0.9)
for n in ("log", "log2", "log10", "sqrt"):
    unary(n, getattr(np, n), 0.2, 9.0, scale=lambda x, n=n: np.abs(np.log(x)) + 0.1 if n.startswith("log") else np.sqrt(x))
unary("log1p", np.log1p, -0.7, 9.0)
unary("cbrt", np.cbrt, 0.2, 9.0)
unary("rsqrt", lambda x: 1 / np.sqrt(x), 0.2, 9.0)
unary("reciprocal", lambda x: 1 / x, 0.3, 9.0)
unary("erf", erf)
unary("erfc", erfc, -3.0, 3.0, tol=8)
for n in ("floor", "ceil", "trunc"):
    unary(n, getattr(np, n), grad=False)
unary("round", np.rint, grad=False)
add(Sample("bitwise_not", lambda rng, size: (whole(0, 100)(rng, size),), np.bitwise_not, dtypes=INTS, elementwise=True,
           errors=((lambda fd: fd.bitwise_not(fd.ones(2)), "TypeError"), (lambda fd: fd.bitwise_not("a"), "TypeError"), (lambda fd: fd.bitwise_not(), "TypeError"))))  # fmt: skip
unary("relu", lambda x: np.maximum(x, 0))
unary("relu6", lambda x: np.clip(x, 0, 6), -4.0, 9.0)
unary("sigmoid", sigmoid)
unary("log_sigmoid", lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))))
unary("silu", lambda x: x * sigmoid(x))
unary("gelu", lambda x: 0.5 * x * erfc(-x * math.sqrt(0.5)), tol=8)
unary("gelu_tanh", lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), scale=np.abs)
unary("mish", lambda x: x * np.tanh(softplus(x)))
unary("softplus", softplus)
unary("softsign", lambda x: x / (1 + np.abs(x)))
unary("elu", lambda x, a: np.where(x > 0, x, a * np.expm1(x)), params=(1.5,))
unary("celu", lambda x, a: np.where(x > 0, x, a * np.expm1(x / a)), params=(1.5,))
unary("selu", lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)))
unary("leaky_relu", lambda x, s: np.where(x > 0, x, s * x), params=(0.1,))
unary("hardtanh", lambda x, a, b: np.clip(x, a, b), params=(-1.5, 2.0))
unary("hardsigmoid", lambda x: np.clip(x / 6 + 0.5, 0, 1), scale=lambda x: 1.0 + 0 * x)
unary("hardswish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), scale=lambda x: 1.0 + np.abs(x))
for n, f in {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "signbit": np.signbit, "logical_not": np.logical_not}.items():
    unary(n, f, grad=False)


def binary(name: str, ref: Callable, a: Callable = between(-4, 4), b: Callable = between(-4, 4), *, grad: tuple = (0, 1), second: bool = True, tol: float = 4.0, params: tuple = (), **kw: Any) -> None:
    bad = (
        (lambda fd: getattr(fd, name)(fd.ones(2, dtype=kw.get("dtypes", FLOATS)[0]), fd.ones(3, dtype=kw.get("dtypes", FLOATS)[0])), "ShapeError"),
        (lambda fd: getattr(fd, name)(fd.ones(2), "text"), "TypeError"),
        (lambda fd: getattr(fd, name)(fd.ones(2)), "TypeError"),
    )
    add(Sample(name, lambda rng, size: (a(rng, size), b(rng, size), *params), ref, elementwise=True, grad=grad, second=second and bool(grad), tol=tol, errors=bad, **kw))


far = between(0.5, 4)
steps = lambda rng, size: np.asarray(np.round(rng.uniform(-2, 2, size)))  # noqa: E731
wide = (*FLOATS, "int32", "int64", "uint8")
binary("add", np.add, dtypes=wide)
binary("subtract", np.subtract, dtypes=wide)
binary("multiply", np.multiply, dtypes=wide)
binary("divide", np.divide, b=far)
binary("floor_divide", np.floor_divide, b=far, grad=(), dtypes=("float32", "float64", "int32", "int64"))
binary("remainder", np.remainder, b=far, grad=(0,), dtypes=("float32", "float64"), scale=lambda x, y: np.abs(x) + np.abs(y))
binary("fmod", np.fmod, b=far, grad=(0,), dtypes=("float32", "float64"), scale=lambda x, y: np.abs(x) + np.abs(y))
binary("power", np.power, a=far, b=between(-2, 3), tol=8)
binary("maximum", np.maximum, dtypes=wide)
binary("minimum", np.minimum, dtypes=wide)
binary("fmax", np.fmax)
binary("fmin", np.fmin)
binary("arctan2", np.arctan2)
binary("hypot", np.hypot, a=far)
binary("copysign", np.copysign, a=far, grad=(0,))
binary("logaddexp", np.logaddexp, scale=lambda x, y: np.maximum(np.abs(np.maximum(x, y)), 1))
for n in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    binary(n, getattr(np, n), a=whole(0, 100), b=whole(0, 100), grad=(), dtypes=INTS)
for n in ("left_shift", "right_shift"):
    binary(n, getattr(np, n), a=whole(0, 50), b=whole(0, 2), grad=(), dtypes=INTS)
for n in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor"):
    binary(n, getattr(np, n), a=steps, b=steps, grad=(), dtypes=(*FLOATS, "int32", "int8"))


def numeric_slope(f: Callable) -> Callable:
    """d f / d x by central differences in float64, times the incoming gradient: the reference of *_backward ops."""
    return lambda g, x, *p: g * (f(x + 1e-6, *p) - f(x - 1e-6, *p)) / 2e-6


for n in ("log_sigmoid", "silu", "gelu", "gelu_tanh", "mish", "softplus", "softsign", "selu", "relu6", "hardsigmoid", "hardswish", "elu", "celu", "leaky_relu", "hardtanh"):
    params = SAMPLES[n].make(np.random.default_rng(0), 1)[1:]
    binary(f"{n}_backward", numeric_slope(SAMPLES[n].ref), params=params, tol=8, scale=lambda g, x, *p: np.abs(g) * 8 + 1e-3, dtypes=("float32",))  # float64: the slope is only good to 1e-9; 16 bits: rounding hits kinks
binary("relu_backward", lambda g, y: np.where(y > 0, g, 0))
binary("sigmoid_backward", lambda g, y: g * y * (1 - y), b=between(0.05, 0.95))
binary("tanh_backward", lambda g, y: g * (1 - y * y), b=between(-0.9, 0.9))

mask = lambda rng, size: np.asarray(rng.integers(0, 2, size)).astype(bool)  # noqa: E731
three = (
    (lambda fd: fd.where(fd.ones(2) > 0, fd.ones(3), fd.ones(2)), "ShapeError"),
    (lambda fd: fd.where(fd.ones(2) > 0, "a", 1.0), "TypeError"),
    (lambda fd: fd.where(fd.ones(2) > 0, 1.0), "TypeError"),
)
add(Sample("where", lambda rng, size: (mask(rng, size), between(-1, 1)(rng, size), between(-1, 1)(rng, size)), np.where, elementwise=True, grad=(1, 2), second=True, dtypes=(*FLOATS, "int32", "uint8"), errors=three))  # fmt: skip
add(Sample("clip", lambda rng, size: (between(-4, 4)(rng, size), between(-2, -1)(rng, size), between(1, 2)(rng, size)), np.clip, elementwise=True, grad=(0, 1, 2), second=True,
           errors=((lambda fd: fd.clip(fd.ones(2), fd.ones(3), 2.0), "ShapeError"), (lambda fd: fd.clip("a", 0, 1), "TypeError"), (lambda fd: fd.clip(), "TypeError"))))  # fmt: skip
add(Sample("addcmul", lambda rng, size: (between(-4, 4)(rng, size), between(-2, 2)(rng, size), between(-2, 2)(rng, size), 0.5), lambda x, y, z, v: x + v * y * z, elementwise=True, grad=(0, 1, 2), second=True,
           scale=lambda x, y, z, v: np.abs(x) + np.abs(v * y * z),
           errors=((lambda fd: fd.addcmul(fd.ones(2), fd.ones(3), 2.0), "ShapeError"), (lambda fd: fd.addcmul("a", 0.0, 1.0), "TypeError"), (lambda fd: fd.addcmul(fd.ones(2), 1.0, 1.0, "x"), "TypeError"))))  # fmt: skip
add(Sample("lerp", lambda rng, size: (between(-4, 4)(rng, size), between(-2, 2)(rng, size), between(0, 1)(rng, size)), lambda x, y, w: x + w * (y - x), elementwise=True, grad=(0, 1, 2), second=True,
           scale=lambda x, y, w: np.abs(x) + np.abs(y),
           errors=((lambda fd: fd.lerp(fd.ones(2), fd.ones(3), 2.0), "ShapeError"), (lambda fd: fd.lerp("a", 0.0, 1.0), "TypeError"), (lambda fd: fd.lerp(fd.ones(2), 1.0), "TypeError"))))  # fmt: skip

# ---- copies: sizes are shapes ------------------------------------------------------------------------------------------
SHAPES = ((0,), (1,), (5,), (3, 4), (17, 33), (2, 3, 5), (64, 65), (2, 0, 3), (1, 1), (2, 3, 4, 5))
SMALL = ((5,), (3, 4), (2, 3, 5))
moved = (*FLOATS, "int32", "uint8", "int64", "int16")


def bad_axis(call: Callable) -> tuple:
    return (
        (lambda fd: call(fd, fd.ones((2, 3)), 5), "IndexError"),
        (lambda fd: call(fd, fd.ones((2, 3)), 1.5), "TypeError"),
        (lambda fd: call(fd, "text", 0), "TypeError"),
    )


draw = between(-2, 2)
add(Sample("copy", lambda rng, s: (draw(rng, s),), np.copy, SHAPES, moved, grad=(0,), second=True, grad_sizes=SMALL,
           errors=((lambda fd: fd.copy(fd.ones(2), "nonsense"), "TypeError"), (lambda fd: fd.copy(fd.ones(2), None, "diagonal"), "ValueError"), (lambda fd: fd.copy("a"), "TypeError"))))  # fmt: skip
add(Sample("fill", lambda rng, s: (np.zeros(s), 1.5), lambda x, v: np.full_like(x, v), SHAPES, FLOATS,
           errors=((lambda fd: fd.fill(fd.ones(2), "a"), "TypeError"), (lambda fd: fd.fill("a", 1.0), "TypeError"), (lambda fd: fd.fill(fd.ones(2)), "TypeError"))))  # fmt: skip
add(Sample("concat", lambda rng, s: ([draw(rng, s), draw(rng, s), draw(rng, s)], len(s) - 1), lambda xs, a: np.concatenate(xs, a), SHAPES, moved, grad=(0,), second=True, grad_sizes=SMALL,
           errors=((lambda fd: fd.concat([fd.ones(2), fd.ones((2, 2))]), "ShapeError"), (lambda fd: fd.concat([fd.ones(2)], 3), "IndexError"), (lambda fd: fd.concat(3), "TypeError"))))  # fmt: skip
add(Sample("pad", lambda rng, s: (draw(rng, s), [(1, 2)] * len(s), 0.5), lambda x, p, v: np.pad(x, p, constant_values=v), SHAPES, moved[:6], grad=(0,), second=True, grad_sizes=SMALL,
           errors=((lambda fd: fd.pad(fd.ones(2), [(1, 1), (1, 1)]), "ValueError"), (lambda fd: fd.pad(fd.ones(2), [(2**62, 2**62)]), "ShapeError"), (lambda fd: fd.pad(fd.ones(2), 3), "TypeError"))))  # fmt: skip
add(Sample("flip", lambda rng, s: (draw(rng, s), len(s) - 1), lambda x, a: np.flip(x, a), SHAPES, moved, grad=(0,), second=True, grad_sizes=SMALL, errors=bad_axis(lambda fd, x, a: fd.flip(x, a))))
for n in ("tril", "triu"):
    add(Sample(n, lambda rng, s: (draw(rng, s), 1), getattr(np, n), tuple(s for s in SHAPES if len(s) > 1), moved, grad=(0,), second=True, grad_sizes=SMALL[1:],
               errors=((lambda fd, n=n: getattr(fd, n)(fd.ones(2)), "ShapeError"), (lambda fd, n=n: getattr(fd, n)(fd.ones((2, 2)), 1.5), "TypeError"), (lambda fd, n=n: getattr(fd, n)("a"), "TypeError"))))  # fmt: skip

# ---- reductions: sizes are (shape, axis) -------------------------------------------------------------------------------
REDUCED = tuple((s, a) for s in ((1,), (7,), (1000,), (3, 4), (33, 65), (257, 3), (2, 3, 5), (4, 5, 6, 7)) for a in (None, 0, -1, (0, len(s) - 1) if len(s) > 1 else 0))
SMALL_REDUCED = (((5,), None), ((3, 4), 0), ((3, 4), -1), ((2, 3, 4), (0, 2)), ((2, 3, 4), None))


def magnitude(x: Any, axis: Any, *rest: Any) -> Any:
    return np.sum(np.abs(x), axis) if np.size(x) else 1.0


def reduction(name: str, ref: Callable, *, grad: bool, params: tuple = (), tol: float = 8.0, a: Callable = draw, dtypes: tuple = FLOATS, sizes: tuple = REDUCED, **kw: Any) -> None:
    add(Sample(name, lambda rng, s: (a(rng, s[0]), s[1], *params), ref, sizes, dtypes, grad=(0,) if grad else (), second=grad, grad_sizes=SMALL_REDUCED, tol=tol,
               errors=bad_axis(lambda fd, x, ax: getattr(fd, name)(x, ax)), **kw))  # fmt: skip


reduction("sum", lambda x, ax: np.sum(x, ax), grad=True, scale=magnitude, dtypes=(*FLOATS, "int32", "uint8"), sizes=(*REDUCED, ((0,), None), ((0, 3), 0)))
reduction("prod", lambda x, ax: np.prod(x, ax), grad=True, a=between(0.8, 1.2), dtypes=("float32", "float64", "int32"), tol=4000)
reduction("mean", lambda x, ax: np.mean(x, ax), grad=True, scale=lambda x, ax: np.mean(np.abs(x), ax))
reduction("max", lambda x, ax: np.max(x, ax), grad=True, dtypes=(*FLOATS, "int32", "uint8"))
reduction("min", lambda x, ax: np.min(x, ax), grad=True, dtypes=(*FLOATS, "int32", "uint8"))
reduction("any", lambda x, ax: np.any(x, ax), grad=False, a=lambda rng, s: rng.integers(0, 2, s).astype(np.float64), dtypes=(*FLOATS, "int32", "uint8"))
reduction("all", lambda x, ax: np.all(x, ax), grad=False, a=lambda rng, s: rng.integers(0, 2, s).astype(np.float64), dtypes=(*FLOATS, "int32", "uint8"))
reduction("var", lambda x, ax, c: np.var(x, ax, ddof=c), grad=True, params=(0.0,), tol=16, scale=lambda x, ax, c: np.mean(x * x, ax) + 0.1)
ONE_AXIS = tuple((s, a) for s, a in REDUCED if a is None or isinstance(a, int))
for n in ("argmax", "argmin"):
    reduction(n, getattr(np, n), grad=False, sizes=ONE_AXIS, dtypes=(*FLOATS, "int32", "uint8"))
SCANNED = tuple((s, a) for s, a in ONE_AXIS if a is not None)
SMALL_SCANNED = (((5,), 0), ((3, 4), 0), ((3, 4), -1))
add(Sample("cumsum", lambda rng, s: (draw(rng, s[0]), s[1]), lambda x, a: np.cumsum(x, a), SCANNED, (*FLOATS[:2], "int32"), grad=(0,), second=True, grad_sizes=SMALL_SCANNED, tol=64,
           scale=lambda x, a: np.cumsum(np.abs(x), a), errors=bad_axis(lambda fd, x, a: fd.cumsum(x, a))))  # fmt: skip
add(Sample("cumprod", lambda rng, s: (between(0.8, 1.2)(rng, s[0]), s[1]), lambda x, a: np.cumprod(x, a), SCANNED, (*FLOATS[:2], "int32"), grad=(0,), second=True, grad_sizes=SMALL_SCANNED, tol=4000,
           errors=bad_axis(lambda fd, x, a: fd.cumprod(x, a))))  # fmt: skip
