"""Views and copies: everything that moves elements without computing on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from .. import _C
from ..errors import IndexError_, ShapeError, ValueError_
from ..op import op
from .creation import asarray, zeros

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Axes, Axis, DTypeLike, Pads

# Rules of the views made in C++ (csrc/python/views.cpp).
_C.set_hook("permute", lambda g, inverse: _C.permute(g, inverse))
_C.set_hook("reshape", lambda g, shape: _C.reshape(g, shape))
_C.set_hook("broadcast_to", lambda g: g)  # the engine sums over broadcast axes


def _getitem_vjp(g: Tensor, shape: tuple, key: Any) -> Tensor:
    z = zeros(shape, dtype=g.dtype, device=g.device)
    z[key] = g
    return z


def _winners(shape: tuple, key: Any, gv: Tensor) -> Tensor:
    """Where an index repeats, only the value written last has a gradient."""
    if (
        not any(getattr(getattr(k, "dtype", None), "kind", "") in ("i", "u") for k in (key if isinstance(key, tuple) else (key,)))
        or gv.size == 0
    ):
        return gv
    from .creation import arange

    writer = zeros(shape, dtype="int64", device=gv.device)
    number = arange(gv.size, device=gv.device).reshape(gv.shape)
    writer[key] = number
    return gv * (writer[key] == number).astype(gv.dtype)


def _setitem_vjp(g: Tensor, key: Any, value_shape: tuple) -> tuple:
    from .reduce import sum

    gx = g.clone()
    gx[key] = 0
    gv = _winners(g.shape, key, g[key])
    extra = len(value_shape) - gv.ndim  # leading ones of the value were dropped in the assignment
    if extra > 0:
        gv = gv.reshape((1,) * extra + gv.shape)
    lead = tuple(range(gv.ndim - len(value_shape)))
    gv = sum(gv, axis=lead) if lead else gv
    ones = tuple(k for k, s in enumerate(value_shape) if s == 1 and gv.shape[k] != 1)
    return gx, sum(gv, axis=ones, keepdims=True) if ones else gv


_C.set_hook("real", lambda g: g)
_C.set_hook("imag", lambda g: g * 1j)
_C.set_hook("getitem", _getitem_vjp)
_C.set_hook("setitem", _setitem_vjp)


def _axis(axis: Any, ndim: int, what: str) -> int:
    a = axis.__index__()
    if not -ndim <= a < ndim:
        raise IndexError_(f"{what}: axis {a} is out of range for {ndim} dimensions")
    return a % ndim


def _axes(axis: Any, ndim: int, what: str) -> tuple[int, ...]:
    axes = tuple(_axis(a, ndim, what) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError_(f"{what}: an axis is given twice in {axis}")
    return axes


# ---- kernels ---------------------------------------------------------------------------------------------------------
@op(vjp=lambda g: g)
def copy(x: Tensor, dtype: DTypeLike | None = None, layout: Literal["like", "contiguous", "channels_last"] = "like") -> Tensor:
    """A dense copy, cast to dtype and in the memory order asked for."""


def _concat_vjp(g: Tensor, arrays_shape: tuple, axis: int) -> tuple:
    axis = axis % g.ndim
    parts, start = [], 0
    for shape in arrays_shape:
        parts.append(g[(slice(None),) * axis + (slice(start, start + shape[axis]),)])
        start += shape[axis]
    return tuple(parts)


@op(vjp=_concat_vjp)
def concat(arrays: Sequence[Tensor], axis: Axis = 0) -> Tensor:
    """Tensors joined along an existing axis."""


def _pad_vjp(g: Tensor, x_shape: tuple, pads: Any) -> Tensor:
    key = tuple(slice(max(b, 0), max(b, 0) + n + min(b, 0) + min(a, 0)) for (b, a), n in zip(pads, x_shape))
    return g[key] if all(b >= 0 and a >= 0 for b, a in pads) else pad(g, [(-b, -a) for b, a in pads])


@op(vjp=_pad_vjp)
def pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """x with `value` around it; pads is ((before, after), ...) per dimension."""


@op(vjp=lambda g, axis: flip(g, axis))
def flip(x: Tensor, axis: Axes = None) -> Tensor:
    """Elements in reverse order along the axes (default: all)."""


@op(vjp=lambda g, k: tril(g, k))
def tril(x: Tensor, k: int = 0) -> Tensor:
    """Lower triangle of the last two axes; zeros above diagonal k."""


@op(vjp=lambda g, k: triu(g, k))
def triu(x: Tensor, k: int = 0) -> Tensor:
    """Upper triangle of the last two axes; zeros below diagonal k."""


# ---- views -----------------------------------------------------------------------------------------------------------
def astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Tensor:
    """x cast to dtype, as NumPy's astype; `copy=False` returns x itself if it has that dtype already."""
    from ..dtypes import dtype as make

    x = asarray(x)
    if not copy and x.dtype == make(dtype):
        return x
    return _copy(x, make(dtype))


def clone(x: Any) -> Tensor:
    """A copy with its own memory; gradients flow through."""
    return _copy(asarray(x))


def contiguous(x: Any) -> Tensor:
    """x itself if its memory is row-major, else a row-major copy."""
    x = asarray(x)
    return x if x.is_contiguous() else _copy(x, None, "contiguous")


def reshape(x: Any, /, shape: Any, *, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order with another shape; a view where memory allows.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.reshape(fd.arange(6), (2, -1)).shape
    (2, 3)
    """
    x = asarray(x)
    r = _C.reshape(clone(x) if copy else x, shape)
    if copy is False and r.size and r.data_ptr() != x.data_ptr():
        raise ValueError_(f"reshape: {x.shape} to {shape} needs a copy for these strides")
    return r


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """A view of x repeated to `shape` without copying."""
    return _C.broadcast_to(asarray(x), shape)


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that operands of these shapes broadcast to."""
    shapes = tuple((s,) if isinstance(s, int) else tuple(s) for s in shapes)
    n = max((len(s) for s in shapes), default=0)
    out = []
    for d in range(-n, 0):
        sizes = {s[d] for s in shapes if -d <= len(s)} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"broadcast: shapes {', '.join(map(str, shapes))} do not fit each other")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """All tensors broadcast to their common shape."""
    xs = [asarray(a) for a in arrays]
    shape = broadcast_shapes(*(x.shape for x in xs))
    return tuple(x if x.shape == shape else _C.broadcast_to(x, shape) for x in xs)


def permute_dims(x: Any, /, axes: Any) -> Tensor:
    """A view with the dimensions in the order of `axes`."""
    return _C.permute(asarray(x), axes)


def transpose(x: Any, /, axes: Any = None, *more: int) -> Tensor:
    """A view with the dimensions in the order of `axes` (default: reversed), as numpy.transpose."""
    x = asarray(x)
    if more:
        axes = (axes, *more)
    return _C.permute(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two dimensions swapped."""
    return asarray(x).mT


def swapaxes(x: Any, axis1: int, axis2: int, /) -> Tensor:
    """Two dimensions swapped."""
    x = asarray(x)
    a, b = _axis(axis1, x.ndim, "swapaxes"), _axis(axis2, x.ndim, "swapaxes")
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return _C.permute(x, order)


def moveaxis(x: Any, source: Any, destination: Any, /) -> Tensor:
    """Dimensions moved to new places, the others keep their order."""
    x = asarray(x)
    src, dst = _axes(source, x.ndim, "moveaxis"), _axes(destination, x.ndim, "moveaxis")
    if len(src) != len(dst):
        raise ValueError_("moveaxis: source and destination must have the same number of axes")
    order = [d for d in range(x.ndim) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return _C.permute(x, order)


def squeeze(x: Any, /, axis: Any = None) -> Tensor:
    """Dimensions of size 1 removed (array API: name them; NumPy: default all)."""
    x = asarray(x)
    axes = tuple(d for d in range(x.ndim) if x.shape[d] == 1) if axis is None else _axes(axis, x.ndim, "squeeze")
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of shape {x.shape} has size {x.shape[a]}; need 1")
    return x[tuple(0 if d in axes else slice(None) for d in range(x.ndim))] if axes else x[...]


def expand_dims(x: Any, /, axis: Any = 0) -> Tensor:
    """A new dimension of size 1 at `axis`."""
    x = asarray(x)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    n = x.ndim + len(axes)
    places = _axes(tuple(axes), n, "expand_dims")
    return x[tuple(None if d in places else slice(None) for d in range(n))]


unsqueeze = expand_dims


def ravel(x: Any) -> Tensor:
    """All elements in one dimension; a view where memory allows."""
    return _C.reshape(asarray(x), -1)


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim merged into one (PyTorch's flatten)."""
    x = asarray(x)
    if x.ndim == 0:
        return _C.reshape(x, 1)
    a, b = _axis(start_dim, x.ndim, "flatten"), _axis(end_dim, x.ndim, "flatten")
    if a > b:
        raise ValueError_(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim}")
    n = 1
    for s in x.shape[a : b + 1]:
        n *= s
    return _C.reshape(x, (*x.shape[:a], n, *x.shape[b + 1 :]))


def stack(arrays: Any, /, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    xs = [asarray(a) for a in arrays]
    if not xs:
        raise ValueError_("stack: need at least one tensor")
    if any(x.shape != xs[0].shape for x in xs):
        raise ShapeError(f"stack: shapes differ: {', '.join(str(x.shape) for x in xs[:5])}")
    a = _axis(axis, xs[0].ndim + 1, "stack")
    return concat([expand_dims(x, a) for x in xs], a)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """Views of the slices along an axis."""
    x = asarray(x)
    a = _axis(axis, x.ndim, "unstack")
    return tuple(x[(slice(None),) * a + (k,)] for k in range(x.shape[a]))


def concatenate(arrays: Any, axis: int | None = 0) -> Tensor:
    """Tensors joined along an existing axis; axis None: flattened first."""
    xs = [asarray(a) for a in arrays]
    return concat([ravel(x) for x in xs], 0) if axis is None else concat(xs, axis)


MAX_PARTS = 1_000_000  # views that split makes at most


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Views: equal parts (int), or cut at the given indices."""
    x = asarray(x)
    a = _axis(axis, x.ndim, "split")
    n = x.shape[a]
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1 or n % indices_or_sections or indices_or_sections > MAX_PARTS:
            raise ValueError_(f"split: {n} elements do not divide into {indices_or_sections} equal parts; use array_split")
        step = n // indices_or_sections
        cuts = [step * k for k in range(1, indices_or_sections)]
    else:
        cuts = [int(c) for c in indices_or_sections]
    edges = [0, *cuts, n]
    return [x[(slice(None),) * a + (slice(lo, hi),)] for lo, hi in itertools.pairwise(edges)]


def array_split(x: Any, sections: int, axis: int = 0) -> list[Tensor]:
    """Like split, with parts that may differ by one in size."""
    x = asarray(x)
    n = x.shape[_axis(axis, x.ndim, "array_split")]
    if not 1 <= sections <= MAX_PARTS:
        raise ValueError_(f"array_split: {sections} parts; need 1 to {MAX_PARTS}")
    small, extra = divmod(n, sections)
    cuts, at = [], 0
    for k in range(sections - 1):
        at += small + (k < extra)
        cuts.append(at)
    return split(x, cuts, axis)


def chunk(x: Any, chunks: int, dim: int = 0) -> list[Tensor]:
    """At most `chunks` views of equal size, the last may be smaller (PyTorch's chunk)."""
    x = asarray(x)
    if chunks < 1:
        raise ValueError_(f"chunk: {chunks} chunks; need at least 1")
    n = x.shape[_axis(dim, x.ndim, "chunk")]
    size = max(1, -(-n // chunks))
    return split(x, list(range(size, n, size)), dim)


def roll(x: Any, /, shift: Any, axis: Any = None) -> Tensor:
    """Elements shifted along axes, wrapping round."""
    x = asarray(x)
    if axis is None:
        return roll(ravel(x), shift, 0).reshape(x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ValueError_("roll: one shift per axis")
    for s, a in zip(shifts, axes):
        a = _axis(a, x.ndim, "roll")
        if x.shape[a]:
            k = -s % x.shape[a]
            pre = (slice(None),) * a
            x = concat([x[(*pre, slice(k, None))], x[(*pre, slice(0, k))]], a)
    return x


def tile(x: Any, repetitions: Any, /) -> Tensor:
    """x repeated as a whole along each axis."""
    x = asarray(x)
    reps = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    if any(r < 0 for r in reps):
        raise ValueError_(f"tile: repetitions {reps}; need at least 0")
    n = max(x.ndim, len(reps))
    reps = (1,) * (n - len(reps)) + reps
    shape = (1,) * (n - x.ndim) + x.shape
    wide = x.reshape([s for d in shape for s in (1, d)])
    return broadcast_to(wide, [s for r, d in zip(reps, shape) for s in (r, d)]).reshape([r * d for r, d in zip(reps, shape)])


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated (a number, or one count per element of the axis)."""
    import numpy as np

    from .index import take

    x = asarray(x)
    if axis is None:
        x, axis = ravel(x), 0
    a = _axis(axis, x.ndim, "repeat")
    counts = np.asarray(repeats)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError_("repeat: repeats must be integers of at least 0")
    if counts.size not in (1, x.shape[a]):
        raise ShapeError(f"repeat: {counts.size} counts for an axis of size {x.shape[a]}")
    n = x.shape[a]
    each = counts.ravel().tolist() if counts.size > 1 else [int(counts.reshape(()))] * (n > 0)
    total = sum(each) if len(each) > 1 else each[0] * n if each else 0
    _C.empty(total, "int64")  # NumPy's repeat crashes where the size overflows
    return take(x, asarray(np.repeat(np.arange(n), each if len(each) > 1 else each[0] if each else 1)), a)


def diagonal(x: Any, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    """View of a diagonal of two axes, as the last axis of the result."""
    x = asarray(x)
    if x.ndim < 2:
        raise ShapeError(f"diagonal: shape {x.shape}; need at least 2 dimensions")
    a, b = _axis(axis1, x.ndim, "diagonal"), _axis(axis2, x.ndim, "diagonal")
    if a == b:
        raise ValueError_("diagonal: axis1 and axis2 are the same")
    s = _C.element_strides(x)
    n = max(0, min(x.shape[a], x.shape[b] - offset) if offset >= 0 else min(x.shape[a] + offset, x.shape[b]))
    start = (offset * s[b] if offset >= 0 else -offset * s[a]) if n else 0
    keep = [d for d in range(x.ndim) if d not in (a, b)]
    shape, strides = [*(x.shape[d] for d in keep), n], [*(s[d] for d in keep), s[a] + s[b]]
    return _C.as_strided(x, shape, strides, start, "diagonal", (x.shape, offset, a, b))


def _diagonal_vjp(g: Tensor, shape: tuple, offset: int, a: int, b: int) -> Tensor:
    import numpy as np

    order = [*(d for d in range(len(shape)) if d not in (a, b)), a, b]
    z = zeros([shape[d] for d in order], dtype=g.dtype, device=g.device)
    k = np.arange(g.shape[-1])
    z[..., k + max(0, -offset), k + max(0, offset)] = g
    return _C.permute(z, [order.index(d) for d in range(len(shape))])


_C.set_hook("diagonal", _diagonal_vjp)
_C.set_hook("as_strided", None)


def trace(x: Any, offset: int = 0) -> Tensor:
    """Sum of a diagonal of the last two axes."""
    from .reduce import sum

    return sum(diagonal(x, offset), axis=-1)


def atleast_1d(x: Any) -> Tensor:
    """x with at least one dimension."""
    x = asarray(x)
    return x.reshape(1) if x.ndim == 0 else x


def atleast_2d(x: Any) -> Tensor:
    """x with at least two dimensions."""
    x = atleast_1d(x)
    return x[None] if x.ndim == 1 else x


def real(x: Any) -> Tensor:
    """Real part: a view of complex memory; real tensors are returned as they are."""
    return _part(asarray(x), 0)


def imag(x: Any) -> Tensor:
    """Imaginary part: a view of complex memory; zeros for real tensors."""
    x = asarray(x)
    return _part(x, 1) if x.dtype.kind == "c" else zeros(x.shape, dtype=x.dtype, device=x.device)


def _part(x: Tensor, which: int) -> Tensor:
    return _C.complex_part(x, which) if x.dtype.kind == "c" else x


_copy = copy
