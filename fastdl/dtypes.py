"""dtypes: `fd.float32`, `fd.int64`, ... in the order of csrc/dtypes.def. They compare equal to NumPy's dtypes and names."""

from __future__ import annotations

from typing import Any, Union

import numpy as np

from . import _C
from .errors import DTypeError


class DType:
    """An element type.

    Attributes
    ----------
    name : str
        NumPy's name of it, e.g. ``"float32"``.
    itemsize : int
        Bytes per element.
    kind : str
        ``"b"`` bool, ``"u"`` unsigned, ``"i"`` signed, ``"f"`` float, ``"c"`` complex.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.float32, fd.float32 == "float32", fd.zeros(2).dtype.itemsize
    (fastdl.float32, True, 4)
    """

    __slots__ = ("itemsize", "kind", "name")

    def __init__(self, name: str, itemsize: int, kind: str) -> None:
        self.name, self.itemsize, self.kind = name, itemsize, kind

    def __repr__(self) -> str:
        return f"fastdl.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, DType) or other is None:
            return False
        if isinstance(other, str):
            return self.name == other
        try:
            return np.dtype(other).name == self.name  # type: ignore[call-overload]
        except Exception:
            return False

    def __reduce__(self) -> Any:
        return _by_name, (self.name,)

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype; bfloat16 needs the package ml_dtypes."""
        if self.name == "bfloat16":
            try:
                import ml_dtypes
            except ImportError:
                raise DTypeError("bfloat16 has no NumPy dtype without the package ml_dtypes; use astype('float32') first") from None
            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.name)

    @property
    def __array_dtype__(self) -> np.dtype:
        return self.numpy


bool_ = DType("bool", 1, "b")
uint8 = DType("uint8", 1, "u")
int8 = DType("int8", 1, "i")
uint16 = DType("uint16", 2, "u")
int16 = DType("int16", 2, "i")
uint32 = DType("uint32", 4, "u")
int32 = DType("int32", 4, "i")
uint64 = DType("uint64", 8, "u")
int64 = DType("int64", 8, "i")
float16 = DType("float16", 2, "f")
bfloat16 = DType("bfloat16", 2, "f")
float32 = DType("float32", 4, "f")
float64 = DType("float64", 8, "f")
complex64 = DType("complex64", 8, "c")
complex128 = DType("complex128", 16, "c")

ALL = (bool_, uint8, int8, uint16, int16, uint32, int32, uint64, int64, float16, bfloat16, float32, float64, complex64, complex128)
_NAMES = {d.name: k for k, d in enumerate(ALL)}
_PYTHON = {bool: 0, int: 8, float: 11, complex: 13}  # float means the default dtype, float32

DTypeLike = Union[DType, str, type, np.dtype]


def _by_name(name: str) -> DType:
    return ALL[_NAMES[name]]


def dtype_code(d: Any) -> int:
    """Row of dtypes.def for anything that names a dtype."""
    if isinstance(d, DType):
        return _NAMES[d.name]
    if isinstance(d, type) and d in _PYTHON:
        return _PYTHON[d]
    if isinstance(d, str) and d in _NAMES:
        return _NAMES[d]
    try:
        name = np.dtype(d).name
    except Exception:  # NumPy raises nearly anything here
        name = getattr(d, "__name__", None) or str(d)
    if name in _NAMES:
        return _NAMES[name]
    raise DTypeError(f"dtype {d!r} is not supported; need one of {', '.join(_NAMES)}")


def dtype(d: Any) -> DType:
    """The fastdl dtype for a name, NumPy dtype or Python type.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.dtype("float16"), fd.dtype(float)
    (fastdl.float16, fastdl.float32)
    """
    return ALL[dtype_code(d)]


class finfo:
    """Limits of a float dtype: ``bits eps max min smallest_normal dtype`` (the array API's finfo).

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.finfo(fd.float32).bits
    32
    """

    def __init__(self, d: Any) -> None:
        t = dtype(getattr(d, "dtype", d))
        if t.kind not in "fc":
            raise DTypeError(f"finfo: dtype {t} is not a float dtype")
        if t.name == "bfloat16":
            self.eps, self.max, self.smallest_normal = 2.0**-7, 3.3895313892515355e38, 2.0**-126
            self.bits, self.dtype = 16, t
        else:
            f = np.finfo(t.numpy)
            self.eps, self.max, self.smallest_normal = float(f.eps), float(f.max), float(f.smallest_normal)
            self.bits, self.dtype = f.bits, {"complex64": float32, "complex128": float64}.get(t.name, t)
        self.min = -self.max


class iinfo:
    """Limits of an integer dtype: ``bits max min dtype``."""

    def __init__(self, d: Any) -> None:
        t = dtype(getattr(d, "dtype", d))
        if t.kind not in "iu":
            raise DTypeError(f"iinfo: dtype {t} is not an integer dtype")
        i = np.iinfo(t.numpy)
        self.bits, self.max, self.min, self.dtype = i.bits, int(i.max), int(i.min), t


_C.set_dtypes(ALL)
_C.set_hook("dtype_code", dtype_code)
