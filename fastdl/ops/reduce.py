"""Reductions and scans over any axes. Results do not depend on the thread count: partial sums are combined in a fixed order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import ValueError_
from ..op import op
from .creation import arange, asarray
from .elementwise import abs, equal, exp, log, sqrt, where
from .shape import _axes, broadcast_to, flip, moveaxis, ravel

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Axes, Axis, DTypeLike


def _kept(g: Tensor, x_shape: tuple, axis: Any, keepdims: bool) -> Tensor:
    """g with the reduced axes back as size 1."""
    if keepdims or g.ndim == len(x_shape):
        return g
    if axis is None:
        return g.reshape((1,) * len(x_shape))
    axes = _axes(axis, len(x_shape), "reduction")
    return g.reshape(tuple(1 if d in axes else s for d, s in enumerate(x_shape)))


def _count(x_shape: tuple, axis: Any) -> int:
    if axis is None:
        return math.prod(x_shape)
    return math.prod(x_shape[a] for a in _axes(axis, len(x_shape), "reduction")) if x_shape else 1


@op(vjp=lambda g, x_shape, axis, keepdims: broadcast_to(_kept(g, x_shape, axis, keepdims), x_shape))
def sum(x: Tensor, axis: Axes = None, keepdims: bool = False, dtype: DTypeLike | None = None) -> Tensor:
    """Sum over axes (None: all). Integers and bool add up in 64 bits."""


@op(vjp=lambda g, x_shape, axis, keepdims: broadcast_to(_kept(g, x_shape, axis, keepdims) * (1.0 / (_count(x_shape, axis) or 1)), x_shape))
def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over axes; NaN for an empty reduction."""


def _others(x: Tensor) -> Tensor:
    """y[..., i, j] = x[..., j], with 1 where i == j: products along j then leave x_i out."""
    n = x.shape[-1]
    i = arange(n, device=x.device)
    return where(equal(i[:, None], i[None, :]), 1.0, x[..., None, :])


def _prod_vjp(g: Tensor, y: Tensor, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    g, y = _kept(g, x.shape, axis, keepdims), _kept(y, x.shape, axis, keepdims)
    if not bool(any(equal(x, 0))):
        return g * y / x
    axes = tuple(range(x.ndim)) if axis is None else _axes(axis, x.ndim, "prod")
    last = tuple(range(x.ndim - len(axes), x.ndim))
    moved = moveaxis(x, axes, last)
    flat = moved.reshape((*moved.shape[: x.ndim - len(axes)], -1))
    return g * moveaxis(prod(_others(flat), axis=-1).reshape(moved.shape), last, axes)


@op(vjp=_prod_vjp)
def prod(x: Tensor, axis: Axes = None, keepdims: bool = False, dtype: DTypeLike | None = None) -> Tensor:
    """Product over axes."""


def _extremum_vjp(g: Tensor, y: Tensor, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """Ties share the gradient equally, as in PyTorch's amax."""
    y = _kept(y, x.shape, axis, keepdims)
    chosen = equal(x, y.detach()).astype(g.dtype)
    return _kept(g, x.shape, axis, keepdims) * (chosen / sum(chosen, axis=axis, keepdims=True))


@op(vjp=_extremum_vjp)
def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element; NaN if there is one."""


@op(vjp=_extremum_vjp)
def min(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element; NaN if there is one."""


@op()
def any(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is non-zero."""


@op()
def all(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are non-zero."""


def _var_vjp(g: Tensor, x: Tensor, axis: Any, correction: float, keepdims: bool) -> Tensor:
    n = _count(x.shape, axis) - correction
    return _kept(g, x.shape, axis, keepdims) * ((x - mean(x, axis, True)) * (2.0 / n if n > 0 else math.nan))


@op(vjp=_var_vjp)
def var(x: Tensor, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variance over axes: squared distances from the mean, divided by count - correction (numerically stable)."""


@op()
def argmax(x: Tensor, axis: Axis | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first largest element; a NaN counts as largest. axis None: of the flattened tensor."""


@op()
def argmin(x: Tensor, axis: Axis | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first smallest element; a NaN counts as smallest."""


@op(vjp=lambda g, axis: flip(cumsum(flip(g, axis), axis), axis))
def cumsum(x: Tensor, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
    """Running sum along an axis."""


def _cumprod_vjp(g: Tensor, y: Tensor, x: Tensor, axis: int) -> Tensor:
    # d y_j / d x_i is the product of x_k, k <= j, k != i, for i <= j: exact also where elements are zero. O(n^2) memory.
    a = axis % g.ndim if g.ndim else 0
    gx, xs = moveaxis(g, a, -1), moveaxis(x, a, -1)
    n = xs.shape[-1]
    i = arange(n, device=x.device)
    partial = cumprod(_others(xs), -1)
    masked = where(i[:, None] <= i[None, :], partial, 0.0)
    return moveaxis(sum(masked * gx[..., None, :], axis=-1), -1, a)


@op(vjp=_cumprod_vjp)
def cumprod(x: Tensor, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
    """Running product along an axis."""


# ---- compositions ----------------------------------------------------------------------------------------------------
def std(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False, ddof: float | None = None) -> Tensor:
    """Standard deviation: sqrt(var)."""
    return sqrt(var(x, axis, correction if ddof is None else ddof, keepdims))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow."""
    x = asarray(x)
    m = max(x, axis, True).detach()
    m = where(abs(m) == math.inf, 0.0, m)
    s = log(sum(exp(x - m), axis, True)) + m
    return s if keepdims else sum(s, axis)


def norm(x: Any, ord: float = 2, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Vector norm over axes: ord 1, 2, inf, -inf, 0 or any p."""
    x = asarray(x)
    if ord == 2:
        return sqrt(sum(abs(x) * abs(x) if x.dtype.kind == "c" else x * x, axis, keepdims))
    if ord == math.inf:
        return max(abs(x), axis, keepdims)
    if ord == -math.inf:
        return min(abs(x), axis, keepdims)
    if ord == 0:
        return sum((x != 0).astype("float32"), axis, keepdims)
    if ord == 1:
        return sum(abs(x), axis, keepdims)
    return sum(abs(x) ** ord, axis, keepdims) ** (1.0 / ord)


def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Number of non-zero elements (int64)."""
    return sum(asarray(x) != 0, axis, keepdims)


def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """max - min."""
    return max(x, axis, keepdims) - min(x, axis, keepdims)


def average(x: Any, axis: Any = None, weights: Any = None) -> Tensor:
    """Weighted mean."""
    x = asarray(x)
    if weights is None:
        return mean(x, axis)
    w = asarray(weights)
    if w.ndim == 1 and x.ndim > 1:
        if axis is None:
            raise ValueError_("average: 1-d weights need an axis")
        w = w.reshape([w.size if d == axis % x.ndim else 1 for d in range(x.ndim)])
    return sum(x * w, axis) / sum(broadcast_to(w, x.shape), axis)


def diff(x: Any, n: int = 1, axis: int = -1) -> Tensor:
    """n-th difference along an axis."""
    x = asarray(x)
    a = _axes(axis, x.ndim, "diff")[0]
    if n < 0:
        raise ValueError_(f"diff: n is {n}; need at least 0")
    pre = (slice(None),) * a
    for _ in range(n if n < x.shape[a] else x.shape[a]):  # after as many there is nothing left
        x = x[(*pre, slice(1, None))] - x[(*pre, slice(None, -1))]
    return x


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """Array API name of cumsum."""
    return _cumulative(cumsum, x, axis, dtype, include_initial, 0)


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """Array API name of cumprod."""
    return _cumulative(cumprod, x, axis, dtype, include_initial, 1)


def _cumulative(f: Any, x: Any, axis: int | None, dtype: Any, include_initial: bool, unit: int) -> Tensor:
    from .creation import full
    from .shape import concat

    x = asarray(x)
    if axis is None:
        if x.ndim > 1:
            raise ValueError_("cumulative ops need an axis for more than one dimension")
        axis, x = 0, ravel(x)
    y = f(x, axis, dtype)
    if include_initial:
        a = _axes(axis, x.ndim, "cumulative")[0]
        y = concat([full((*x.shape[:a], 1, *x.shape[a + 1 :]), unit, dtype=y.dtype, device=y.device), y], a)
    return y


