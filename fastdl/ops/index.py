"""Indexing by integer and boolean tensors. Indices are checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _C
from .._C import Tensor as _Tensor
from ..errors import IndexError_, ShapeError, TypeError_, ValueError_
from ..op import op
from .creation import asarray, zeros
from .shape import _axis, broadcast_shapes, broadcast_to, clone, ravel

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Axis, DTypeLike


# ---- kernels ---------------------------------------------------------------------------------------------------------
@op(vjp=(lambda g, indices, x_shape, axis: take_backward(g, indices, axis % len(x_shape), x_shape[axis]), None))
def take(x: Tensor, indices: Tensor, axis: Axis = 0) -> Tensor:
    """Slices of x at `indices` along an axis (an embedding look-up for axis 0); negative indices count from the end."""


@op(vjp=(lambda g, indices, axis: take(g, indices, axis), None))
def take_backward(grad: Tensor, indices: Tensor, axis: int, size: int) -> Tensor:
    """Sum of grad's slices per index: gradient of take for an axis of `size`; repeated indices add in a fixed order."""


@op(vjp=(lambda g, indices, x_shape, axis: scatter_add(zeros(x_shape, dtype=g.dtype), indices, g, axis), None))
def take_along_axis(x: Tensor, indices: Tensor, axis: Axis = -1) -> Tensor:
    """Elements of x at `indices` (same rank) along an axis."""


@op(vjp=(lambda g: g, None, lambda g, indices, axis: take_along_axis(g, indices, axis)))
def scatter_add(x: Tensor, indices: Tensor, values: Tensor, axis: Axis = -1) -> Tensor:
    """A copy of x with `values` added at `indices` along an axis; repeated indices add up in a fixed order."""


@op()
def index_get(arrays: Sequence[Tensor]) -> Tensor:
    """x[i0, i1, ...] for integer tensors on the leading axes: arrays is (x, i0, i1, ...)."""


@op()
def index_put(arrays: Sequence[Tensor], accumulate: bool = False) -> Tensor:
    """x[i0, i1, ...] = values (or +=) in place: arrays is (x, values, i0, i1, ...)."""


@op()
def one_hot(x: Tensor, num_classes: int, dtype: DTypeLike | None = None) -> Tensor:
    """A last axis of size num_classes with 1 at the class number."""


def nonzero(x: Any) -> tuple[Tensor, ...]:
    """Indices of the non-zero elements, one int64 tensor per dimension.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.nonzero(fd.array([0, 3, 0, 4]))[0].tolist()
    [1, 3]
    """
    x = asarray(x)
    if x.ndim == 0:
        raise ValueError_("nonzero: a 0-d tensor has no axes")
    table = argwhere(x)
    return tuple(table[:, k] for k in range(x.ndim))


def argwhere(x: Any) -> Tensor:
    """Indices of the non-zero elements as rows, (count, ndim) int64."""
    from .reduce import sum

    x = asarray(x).detach()
    return _nonzero(x, sum(x != 0).astype("int64"))


def _define_nonzero() -> Any:
    def nonzero(x: Tensor, count: Tensor) -> Tensor:
        """Indices of the non-zero elements, (count, ndim) int64; count is their number."""

    return op()(nonzero)


_nonzero = _define_nonzero()


# ---- x[key] with tensors in the key ------------------------------------------------------------------------------------
def _is_basic(k: Any) -> bool:
    return k is None or k is Ellipsis or isinstance(k, slice)


def _normalise(x: Tensor, key: Any) -> tuple[tuple, list, list[int]]:
    """Splits a key into a basic part (slices, new axes) and index tensors with the axes (of the basic result) they apply to."""
    items = key if isinstance(key, tuple) else (key,)
    parts: list[Any] = []
    used = 0
    for k in items:
        if _is_basic(k):
            parts.append(k)
            used += isinstance(k, slice)
            continue
        if isinstance(k, (int, np.integer)) and not isinstance(k, (bool, np.bool_)):
            parts.append(np.int64(k))
            used += 1
            continue
        t = k.detach() if isinstance(k, _Tensor) else asarray(np.asarray(k, dtype=np.int64) if isinstance(k, (list, tuple)) and len(k) == 0 else k)
        if t.dtype.kind == "b":
            parts.append(("mask", t))
            used += t.ndim
        elif t.dtype.kind in "iu":
            parts.append(t.astype("int64", copy=False))
            used += 1
        else:
            raise IndexError_(f"index: tensors used as indices must be integer or bool, not {t.dtype}")
    if used > x.ndim:
        raise IndexError_(f"index: {used} indices for a tensor of {x.ndim} dimensions, shape {x.shape}")
    if sum(p is Ellipsis for p in parts) > 1:
        raise IndexError_("index: only one ... is allowed")
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)
    basic: list[Any] = []
    index: list[Tensor] = []
    places: list[int] = []
    axis = 0  # of x
    out = 0  # of the basic result
    for p in parts:
        if p is Ellipsis:
            rest = x.ndim - used
            basic.extend([slice(None)] * rest)
            axis += rest
            out += rest
        elif p is None:
            basic.append(None)
            out += 1
        elif isinstance(p, slice):
            basic.append(p)
            axis += 1
            out += 1
        elif isinstance(p, tuple):
            mask = p[1]
            if mask.shape != x.shape[axis : axis + mask.ndim]:
                raise IndexError_(f"index: a mask of shape {mask.shape} does not fit axes {axis}.. of shape {x.shape}")
            if mask.ndim == 0:  # a new axis of size 0 or 1
                basic.append(None)
                index.append(asarray(np.zeros(int(bool(mask)), np.int64)))
                places.append(out)
                out += 1
                continue
            for column in nonzero(mask):
                basic.append(slice(None))
                index.append(column)
                places.append(out)
                axis += 1
                out += 1
        else:
            basic.append(slice(None))
            index.append(asarray(np.asarray(p)) if isinstance(p, np.int64) else p)
            places.append(out)
            axis += 1
            out += 1
    return tuple(basic), index, places


def _plan(x: Tensor, key: Any) -> tuple[Tensor, list[Tensor], tuple[int, ...], int, list[int]]:
    """The view with indexed axes first, the broadcast index tensors, their shape, where their axes belong, and the permutation."""
    basic, index, places = _normalise(x, key)
    v = x[basic]
    try:
        shape = broadcast_shapes(*(i.shape for i in index))
    except ShapeError:
        raise IndexError_(f"index: index tensors of shapes {', '.join(str(i.shape) for i in index)} do not broadcast") from None
    order = places + [d for d in range(v.ndim) if d not in places]
    together = places == list(range(places[0], places[0] + len(places)))
    return v, [broadcast_to(i, shape) for i in index], shape, places[0] if together else 0, order


def getitem_advanced(x: Tensor, key: Any) -> Tensor:
    """x[key] where the key holds tensors, arrays, lists or masks: a copy, as in NumPy."""
    v, index, shape, at, order = _plan(x.detach(), key)
    y = index_get([_C.permute(v, order), *index])
    if at:
        n = len(shape)
        y = _C.permute(y, [*range(n, n + at), *range(n), *range(n + at, y.ndim)])
        y = y if y.is_contiguous() else clone(y)
    return _C.record((y,), (x,), _getitem_rule, "index", (x.shape, key))[0]


def _getitem_rule(g: Tensor, shape: tuple, key: Any) -> tuple:
    """Adds g into zeros at the key; repeated indices add up."""
    z = zeros(shape, dtype=g.dtype)
    setitem_advanced(z, key, g.detach(), True)
    return _C.record((z,), (g,), lambda gg: (gg[key],), "index_backward")


def setitem_advanced(x: Tensor, key: Any, value: Any, accumulate: bool = False) -> None:
    """x[key] = value (or += with accumulate) in place."""
    v, index, shape, at, order = _plan(x.detach(), key)
    w = _C.permute(v, order)
    value = asarray(value).detach()
    rest = w.shape[len(index) :]
    n = len(shape)
    natural = (*rest[:at], *shape, *rest[at:])
    while value.ndim > len(natural) and value.shape[0] == 1:
        value = value[0]
    if value.dtype != x.dtype:
        if value.dtype.kind == "c" and x.dtype.kind != "c":
            raise TypeError_(f"index: complex values cannot be stored in a {x.dtype} tensor")
        value = value.astype(x.dtype)
    value = broadcast_to(value, natural)
    if at:
        value = _C.permute(value, [*range(at, at + n), *range(at), *range(at + n, value.ndim)])
    index_put([w, value, *index], accumulate)


_C.set_hook("getitem_advanced", getitem_advanced)
_C.set_hook("setitem_advanced", setitem_advanced)


# ---- compositions ----------------------------------------------------------------------------------------------------
def gather(x: Any, dim: int, index: Any) -> Tensor:
    """PyTorch's gather: take_along_axis with another argument order; index may be smaller than x in other axes."""
    x, index = asarray(x), asarray(index)
    a = _axis(dim, x.ndim, "gather")
    key = tuple(slice(None) if d == a else slice(0, index.shape[d]) for d in range(x.ndim))
    return take_along_axis(x[key], index, a)


def masked_select(x: Any, mask: Any) -> Tensor:
    """Elements where the mask is true, in one dimension."""
    return asarray(x)[asarray(mask)]


def masked_fill(x: Any, mask: Any, value: Any) -> Tensor:
    """x with `value` where the mask is true."""
    from .elementwise import where

    return where(mask, value, x)


def compress(condition: Any, x: Any, axis: int | None = None) -> Tensor:
    """Slices along an axis where the condition is true."""
    x = asarray(x)
    if axis is None:
        x, axis = ravel(x), 0
    return take(x, nonzero(asarray(condition).astype("bool"))[0], axis)
