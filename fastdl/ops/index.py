"""Indexing by integer and boolean tensors. Indices are checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _C
from .._C import Tensor as _Tensor
from ..errors import DTypeError, IndexError_, ShapeError, ValueError_
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


@op(vjp=(lambda g, indices, x_shape, axis: scatter_add(zeros(x_shape, dtype=g.dtype, device=g.device), indices, g, axis), None))
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


def _index_tensor(k: Any, own: bool = False) -> Tensor:
    if isinstance(k, _Tensor):
        return clone(k.detach()) if own else k.detach()
    try:
        a = np.asarray(k)
    except ValueError as e:
        raise IndexError_(f"index: a list used as an index must be rectangular ({e})") from None
    if a.dtype.kind not in "biufc" and not (a.size == 0 and isinstance(k, (list, tuple))):
        raise IndexError_(f"index: {type(k).__name__} is no index; need ints, slices, None, ..., integer or boolean arrays")
    a = a.astype(np.int64) if a.size == 0 and isinstance(k, (list, tuple)) else a
    return asarray(a, copy=True if own else None, device="cpu")  # dispatch moves it to the indexed tensor


def _normalise(x: Tensor, key: Any) -> tuple[tuple, list, list[int], bool]:
    """Splits a key into a basic part (slices, new axes) and index tensors with the axes (of the basic result) they apply to.

    Last: whether the indices stand side by side in the key (NumPy: even an empty ... between them separates).
    """
    items = key if isinstance(key, tuple) else (key,)
    parts: list[Any] = []
    used = 0
    for k in items:
        if _is_basic(k):
            parts.append(k)
            used += isinstance(k, slice)
            continue
        if isinstance(k, (int, np.integer)) and not isinstance(k, (bool, np.bool_)):
            if not -(2**63) <= k < 2**63:
                raise IndexError_(f"index: {k} is out of range for an axis")
            parts.append(np.int64(k))
            used += 1
            continue
        t = _index_tensor(k)
        if t.dtype.kind == "b":
            parts.append(("mask", t))
            used += t.ndim
        elif t.dtype.kind in "iu":
            parts.append(t.astype("int64", copy=False))
            used += 1
        else:
            raise IndexError_(f"index: tensors used as indices must be integer or bool, not {t.dtype}; use astype('int64')")
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
                index.append(asarray(np.zeros(int(bool(mask)), np.int64), device="cpu"))
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
            if isinstance(p, np.int64) and not -x.shape[axis] <= p < x.shape[axis]:
                raise IndexError_(f"index: {p} is out of range for axis {axis} of size {x.shape[axis]}")
            basic.append(slice(None))
            index.append(asarray(np.asarray(p), device="cpu") if isinstance(p, np.int64) else p)
            places.append(out)
            axis += 1
            out += 1
    at = [k for k, p in enumerate(parts) if not _is_basic(p)]
    return tuple(basic), index, places, at[-1] - at[0] == len(at) - 1


class _Plan:
    """A key as a basic part and int64 tensors of one shape for the axes in front, in memory that nobody else writes to."""

    def __init__(self, x: Tensor, key: Any) -> None:
        self.basic, index, places, together = _normalise(x, key)
        try:
            self.shape = broadcast_shapes(*(i.shape for i in index))
        except ShapeError:
            raise IndexError_(f"index: index tensors of shapes {', '.join(str(i.shape) for i in index)} do not broadcast") from None
        self.index = [broadcast_to(i, self.shape) for i in index]
        self.places = places
        self.at = places[0] if together else 0  # where the axes of the index tensors belong in the result

    def window(self, x: Tensor) -> Tensor:
        """The view of x with the indexed axes first."""
        v = x[self.basic]
        w = _C.permute(v, self.places + [d for d in range(v.ndim) if d not in self.places])
        if w.size == 0:  # no kernel will look at the indices
            for i, n in zip(self.index, w.shape):
                if i.size and not bool(((i >= -n) & (i < n)).all()):
                    raise IndexError_(f"index: an index is out of range for an axis of size {n}")
        return w

    def read(self, x: Tensor) -> Tensor:
        y = index_get([self.window(x), *self.index])
        n, at = len(self.shape), self.at
        if not at:
            return y
        y = _C.permute(y, [*range(n, n + at), *range(n), *range(n + at, y.ndim)])
        return y if y.is_contiguous() else clone(y)

    def write(self, x: Tensor, value: Tensor, accumulate: bool) -> None:
        w = self.window(x)
        n, at = len(self.shape), self.at
        rest = w.shape[len(self.index) :]
        natural = (*rest[:at], *self.shape, *rest[at:])
        while value.ndim > len(natural) and value.shape[0] == 1:
            value = value[0]
        if value.dtype != x.dtype:
            if value.dtype.kind == "c" and x.dtype.kind != "c":
                raise DTypeError(f"index: complex values cannot be stored in a {x.dtype} tensor; take their real part first")
            value = value.astype(x.dtype)
        value = broadcast_to(value, natural)
        if _C.overlap(w, value):
            value = clone(value)
        if at:
            value = _C.permute(value, [*range(at, at + n), *range(at), *range(at + n, value.ndim)])
        index_put([w, value, *(clone(i) if _C.overlap(w, i) else i for i in self.index)], accumulate)


def _read_rule(g: Tensor, shape: tuple, plan: _Plan, *_: Tensor) -> Tensor:
    """Adds g into zeros at the key; repeated indices add up."""
    z = zeros(shape, dtype=g.dtype, device=g.device)
    plan.write(z, g.detach(), True)
    return _C.record((z,), (g,), lambda gg: (_read(gg, plan),), "index_backward")[0]


def _read(x: Tensor, plan: _Plan) -> Tensor:
    y = plan.read(x.detach())
    return _C.record((y,), (x,), _read_rule, "index", (x.shape, plan, *plan.index))[0]


def getitem_advanced(x: Tensor, key: Any) -> Tensor:
    """x[key] where the key holds tensors, arrays, lists or masks: a copy, as in NumPy."""
    return _read(x, _Plan(x, _owned(key) if x.requires_grad and _C.grad_enabled() else key))


def _owned(key: Any) -> Any:
    """The key with its arrays and lists as tensors of their own: what backward uses must not change meanwhile."""
    if isinstance(key, tuple):
        return tuple(k if _is_basic(k) or isinstance(k, int) else _index_tensor(k, True) for k in key)
    return _index_tensor(key, True)


def setitem_advanced(x: Tensor, key: Any, value: Any, accumulate: bool = False, keep: bool = False) -> Any:
    """x[key] = value (or += with accumulate) in place. Gives the key back, with `keep` in memory of its own."""
    key = _owned(key) if keep else key
    value = value if isinstance(value, _Tensor) else asarray(value, device=x.device)
    _Plan(x, key).write(x.detach(), value.detach(), accumulate)
    return key


_C.set_hook("getitem_advanced", getitem_advanced)
_C.set_hook("setitem_advanced", setitem_advanced)
_C.set_hook("np_integer", np.integer)
_C.set_hook("np_ndarray", np.ndarray)
_C.set_hook("np_generic", np.generic)


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
