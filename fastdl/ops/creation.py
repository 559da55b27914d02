"""Making tensors: from data, by value, by range. Signatures are the array API's; the default float dtype is float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C
from .._C import Tensor
from ..device import cuda_index, place
from ..dtypes import DTypeLike, dtype as _dtype, float32
from ..errors import DTypeError, FastdlError, ShapeError, TypeError_, ValueError_
from ..op import op


@op()
def fill(x: Tensor, value: float, exact: bool = False, integer: int = 0, imag: float = 0.0) -> Tensor:
    """Sets all elements of x, in place, to value + imag * 1j, or to `integer` if exact."""


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    return t.requires_grad_() if requires_grad else t


_PLAIN = frozenset("?bBhHiIlLqQefdFD")  # type codes of the NumPy dtypes that tensors have too


def _from_array(a: np.ndarray, dtype: Any = None, copy: Any = None) -> Tensor:
    """A NumPy array as a tensor; shares memory unless copy or a dtype change forbids."""
    if a.dtype.char not in _PLAIN and a.dtype.name == "bfloat16":  # dtype.name is slow: looked at only when it can matter
        t = _C.empty(a.shape, "bfloat16")
        t.copy_(_C.from_buffer(a.astype(np.float32), 1))
    else:
        if a.dtype.byteorder == ">":
            a = a.astype(a.dtype.newbyteorder("="))
        if a.dtype.char not in _PLAIN:
            raise DTypeError(f"asarray: NumPy dtype {a.dtype} is not supported; need bool, integer, float or complex")
        if a.ndim > 8:
            raise ShapeError(f"asarray: shape {a.shape} has {a.ndim} dimensions; at most 8 are supported")
        flags = a.flags
        if not flags.aligned or (not flags.c_contiguous and any(s % a.itemsize for s in a.strides)):
            if copy is False:
                raise ValueError_("asarray: the array is not aligned, so its memory cannot be shared; allow a copy")
            a = a.copy()
        t = _C.from_buffer(a, -1 if copy is None else int(copy))
    if dtype is not None and t.dtype is not _dtype(dtype):
        if copy is False:
            raise ValueError_(f"asarray: {t.dtype} to {_dtype(dtype)} needs a copy")
        t = t.astype(dtype)
    return t


def _convert(obj: Any, dtype: Any = None, copy: Any = None) -> Tensor:
    if isinstance(obj, Tensor):
        if dtype is not None and obj.dtype is not _dtype(dtype):
            if copy is False:
                raise ValueError_(f"asarray: {obj.dtype} to {_dtype(dtype)} needs a copy")
            return obj.astype(dtype)
        return obj.clone() if copy else obj
    if isinstance(obj, (np.ndarray, np.generic)):
        return _from_array(np.asarray(obj), dtype, copy)
    if isinstance(obj, (bool, int, float, complex)):  # also subclasses, such as enum.IntEnum
        exact: Any = (
            obj
            if isinstance(obj, bool)
            else int(obj)
            if isinstance(obj, int)
            else float(obj)
            if isinstance(obj, float)
            else complex(obj)
        )
        t = _C.from_buffer(exact)
        return t if dtype is None or t.dtype is _dtype(dtype) else t.astype(dtype)
    if isinstance(obj, (list, tuple, range)):
        if copy is False:
            raise ValueError_("asarray: a sequence cannot share its memory; allow a copy")
        if _has_tensor(obj):
            from .shape import stack

            t = stack([_convert(o) for o in obj])
            return t if dtype is None else t.astype(dtype)
        try:
            a = np.array(obj)
        except ValueError as e:
            raise ValueError_(f"array: nested sequences must have equal lengths ({e})") from None
        if a.dtype.kind in "fc" and dtype is None and not _has_numpy(obj):
            dtype = float32 if a.dtype.kind == "f" else "complex64"
        if a.dtype == object or a.dtype.kind in "USVOmM":
            raise TypeError_(f"array: elements must be numbers; got NumPy dtype {a.dtype}")
        return _from_array(a, dtype, None)
    if isinstance(obj, (memoryview, bytearray)) or hasattr(obj, "__array_interface__") or hasattr(obj, "__array__"):
        return _from_array(np.asarray(obj), dtype, copy)
    if hasattr(obj, "__dlpack__"):
        return _convert(from_dlpack(obj), dtype, copy)
    raise TypeError_(f"asarray: {type(obj).__name__} is not array-like")


def _has_tensor(obj: Any) -> bool:
    return any(isinstance(o, Tensor) or (isinstance(o, (list, tuple)) and _has_tensor(o)) for o in obj)


def _has_numpy(obj: Any) -> bool:
    return any(isinstance(o, (np.ndarray, np.generic)) or (isinstance(o, (list, tuple)) and _has_numpy(o)) for o in obj)


_C.set_hook("asarray", _convert)


def asarray(obj: Any, /, *, dtype: DTypeLike | None = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor of array-like data, sharing memory where possible.

    Parameters
    ----------
    obj : tensor, NumPy array, number, (nested) sequence, or anything with ``__dlpack__``, ``__array__`` or the buffer protocol
    dtype : dtype, optional
        Default: the data's; Python floats become float32, ints int64.
    copy : bool, optional
        True: always copy; False: raise ValueError where a copy is needed.

    Raises
    ------
    TypeError
        If obj is not array-like, or holds no numbers.

    Examples
    --------
    >>> import fastdl as fd, numpy as np
    >>> a = np.zeros(3); t = fd.asarray(a); t[0] = 1; a
    array([1., 0., 0.])
    """
    t = _convert(obj, dtype, copy)
    return t if device is None and isinstance(obj, Tensor) else place(t, device)


def array(
    obj: Any, dtype: DTypeLike | None = None, *, copy: bool = True, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """A new tensor of array-like data (a copy unless ``copy=False`` allows sharing).

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.array([[1.0, 2.0], [3.0, 4.0]])
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """
    t = _convert(obj, dtype, True if copy else None)
    if t is obj or t.requires_grad:
        t = t.detach()
    if device is not None or not isinstance(obj, Tensor):
        t = place(t, device)
    return _finish(t, requires_grad)


tensor = array


def from_numpy(a: np.ndarray) -> Tensor:
    """The array's own memory as a tensor; read-only arrays are copied.

    Raises
    ------
    TypeError
        If `a` is not a NumPy array of numbers.
    """
    if not isinstance(a, np.ndarray):
        raise TypeError_(f"from_numpy: need a NumPy array, not {type(a).__name__}")
    return _from_array(a)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """Another library's array through DLPack, sharing its memory.

    Raises
    ------
    DeviceError
        If the memory is on a device that this build or machine cannot use.
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError_(f"from_dlpack: {type(x).__name__} has no __dlpack__")
    options = {}
    kind, index = x.__dlpack_device__() if hasattr(x, "__dlpack_device__") else (1, 0)
    if kind == 2 and index < _C.cuda_device_count():  # the producer's work comes before what our stream gets next
        options["stream"] = _C.cuda_stream(index)
    try:
        capsule = x.__dlpack__(max_version=(1, 0), **options)
    except TypeError:
        capsule = x.__dlpack__(**options)
    t = _C.from_dlpack(capsule)
    home = t
    if device is not None:
        t = place(t, device)
    if copy is False and t is not home:
        raise ValueError_(f"from_dlpack: memory on {home.device} cannot be shared with {t.device}; allow a copy")
    return t.clone() if copy and t is home else t


def empty(shape: Any, *, dtype: DTypeLike | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with undefined contents."""
    return _finish(_C.empty(shape, dtype if dtype is not None else float32, cuda_index(device)), requires_grad)


def full(shape: Any, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value; its dtype follows the value unless given."""
    if dtype is None:
        dtype = _convert(fill_value).dtype
    t = _C.empty(shape, dtype, cuda_index(device))
    if type(fill_value) is int and t.dtype.kind == "f":
        fill(t, float(fill_value))
    else:
        _C.copy_(t, fill_value)
    return _finish(t, requires_grad)


def zeros(shape: Any, *, dtype: DTypeLike | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros (float32 by default).

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.zeros((2, 3)).shape
    (2, 3)
    """
    return full(shape, 0, dtype=dtype if dtype is not None else float32, device=device, requires_grad=requires_grad)


def ones(shape: Any, *, dtype: DTypeLike | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones (float32 by default)."""
    return full(shape, 1, dtype=dtype if dtype is not None else float32, device=device, requires_grad=requires_grad)


def empty_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor like x with undefined contents."""
    x = asarray(x)
    return empty(x.shape, dtype=dtype if dtype is not None else x.dtype, device=device if device is not None else x.device)


def full_like(x: Any, /, fill_value: Any, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor like x filled with one value."""
    x = asarray(x)
    return full(x.shape, fill_value, dtype=dtype if dtype is not None else x.dtype, device=device if device is not None else x.device)


def zeros_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of zeros like x."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Any, /, *, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """A tensor of ones like x."""
    return full_like(x, 1, dtype=dtype, device=device)


def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, dtype: DTypeLike | None = None, device: Any = None
) -> Tensor:
    """start, start + step, ... below stop; int64 if all arguments are ints, else float32.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.arange(3).tolist(), fd.arange(0, 1, 0.25).tolist()
    ([0, 1, 2], [0.0, 0.25, 0.5, 0.75])
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError_("arange: step must not be 0")
    if dtype is None:
        dtype = "int64" if all(isinstance(v, (int, np.integer)) for v in (start, stop, step)) else float32
    cuda_index(device)  # a device that is not there is an error before any work
    try:
        count = (stop - start) / step
        if count > 2**20:  # the limit on memory counts for NumPy's array as well
            _C.empty(int(count), dtype)
        return place(_from_array(np.arange(start, stop, step), None).astype(dtype), device)
    except FastdlError:
        raise
    except (ValueError, MemoryError) as e:
        raise ValueError_(f"arange: {e}") from None


def linspace(
    start: float, stop: float, /, num: int, *, dtype: DTypeLike | None = None, device: Any = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced numbers from start to stop."""
    cuda_index(device)
    if num < 0:
        raise ValueError_(f"linspace: num is {num}; need at least 0")
    if num > 2**20:  # the limit on memory counts for NumPy's array as well
        _C.empty(num, "float64")
    a = np.linspace(start, stop, num, endpoint=endpoint)
    return place(_from_array(a).astype(dtype if dtype is not None else float32 if a.dtype.kind == "f" else "complex64"), device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DTypeLike | None = None, device: Any = None) -> Tensor:
    """Ones on diagonal k, zeros elsewhere."""
    t = zeros((n_rows, n_rows if n_cols is None else n_cols), dtype=dtype, device=device)
    rows, cols = t.shape
    n = max(0, min(rows, cols - k) if k >= 0 else min(rows + k, cols))
    if n:
        offset = k if k >= 0 else -k * cols
        _C.copy_(_C.as_strided(t, (n,), (cols + 1,), offset, "as_strided", ()), 1)
    return t


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate tensors from coordinate vectors."""
    from .shape import broadcast_to

    xs = [asarray(a) for a in arrays]
    if indexing not in ("xy", "ij"):
        raise ValueError_(f"meshgrid: indexing is {indexing!r}; need 'xy' or 'ij'")
    if any(x.ndim > 1 for x in xs):
        raise ValueError_("meshgrid: arrays must be vectors")
    n = len(xs)
    order = list(range(n))
    if indexing == "xy" and n > 1:
        order[:2] = [1, 0]
    shape = [0] * n
    for k, x in enumerate(xs):
        shape[order[k]] = x.size
    return tuple(
        broadcast_to(x.reshape([x.size if d == order[k] else 1 for d in range(n)]), shape).clone() for k, x in enumerate(xs)
    )


def result_type(*operands: Any) -> Any:
    """The dtype that NumPy 2's promotion gives for tensors, dtypes and numbers."""
    from ..dtypes import ALL, DType

    arrays = [
        o if isinstance(o, (DType, np.dtype, type, str)) else o.dtype
        for o in operands
        if not isinstance(o, (bool, int, float, complex))
    ]
    scalars = [o for o in operands if isinstance(o, (bool, int, float, complex))]
    if not arrays and not scalars:
        raise ValueError_("result_type: need at least one operand")
    out = None
    for a in arrays:
        out = _dtype(a) if out is None else _C.promote_types(out, a)
    for s in scalars:
        if out is None:
            out = _convert(s).dtype
        else:
            out = (zeros((), dtype=out) + s).dtype if not isinstance(s, bool) else out
    assert out in ALL
    return out


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion allows the cast without losing the kind or range of numbers."""
    a = _dtype(getattr(from_, "dtype", from_))
    return _C.promote_types(a, _dtype(to)) == _dtype(to)


promote_types = _C.promote_types

__all__ = [
    "arange", "array", "asarray", "can_cast", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "linspace",
    "meshgrid", "ones", "ones_like", "promote_types", "result_type", "tensor", "zeros", "zeros_like",
]  # fmt: skip
