"""fastdl: a tensor engine with hand-written kernels, NumPy's names, and gradients.

>>> import fastdl as fd
>>> x = fd.array([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
array([2., 4., 6.], dtype=float32)
"""

from __future__ import annotations

import builtins as _builtins
import math as _math
from typing import Any

from . import _C, errors

__version__ = "0.1.0"
_C.set_errors(errors)

from . import dtypes  # noqa: E402  (errors and dtypes come first: the extension refers to them)
from . import tensor as _tensor  # noqa: E402
from ._C import Tensor  # noqa: E402
from .autograd import (  # noqa: E402
    checkpoint, custom_vjp, detect_anomaly, enable_grad, grad, gradients, hessian, is_grad_enabled, jacobian, jvp, no_grad,
    set_grad_enabled, value_and_grad, vjp,
)  # fmt: skip
from .device import device, get_default_device, set_default_device  # noqa: E402
from .dtypes import (  # noqa: E402
    bfloat16, bool_, complex64, complex128, dtype, finfo, float16, float32, float64, iinfo, int8, int16, int32, int64, uint8, uint16,
    uint32, uint64,
)  # fmt: skip
from .errors import (  # noqa: E402
    CaptureError, DeviceError, DTypeError, FastdlDeprecationWarning, FastdlError, FastdlWarning, FormatError, GradError,
    OutOfMemoryError, ShapeError,
)  # fmt: skip
from .graph import compile  # noqa: E402
from .op import STANZAS as _STANZAS  # noqa: E402
from .ops import creation as _creation, index as _index, linalg as _linalg, reduce as _reduce, shape as _shape  # noqa: E402
from .random import Generator, manual_seed  # noqa: E402

IndexError = errors.IndexError_
pi, e, inf, nan, newaxis = _math.pi, _math.e, _math.inf, _math.nan, None

# Every stanza is a public function of the same name; then the compositions, then NumPy's and the array API's further names.
globals().update(_STANZAS)
for _module in (_creation, _shape, _reduce, _linalg, _index):
    for _name, _value in vars(_module).items():
        if callable(_value) and getattr(_value, "__module__", None) == _module.__name__ and not _name.startswith("_") and _name not in _STANZAS:
            globals()[_name] = _value
globals().update(
    nonzero=_index.nonzero,
    matmul=_linalg.matmul_any,
    clip=_tensor.clamp,
    clamp=_tensor.clamp,
    sum=_tensor._sum,
    prod=_tensor._prod,
    var=_tensor._var,
    std=_tensor._std,
    round=_tensor._round,
    copy=_shape.clone,
)
for _alias, _name in {
    "absolute": "abs", "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan", "atan2": "arctan2",
    "atanh": "arctanh", "bitwise_invert": "bitwise_not", "invert": "bitwise_not", "bitwise_left_shift": "left_shift", "pow": "power",
    "bitwise_right_shift": "right_shift", "true_divide": "divide", "mod": "remainder", "amax": "max", "amin": "min", "conjugate": "conj",
}.items():  # fmt: skip
    globals()[_alias] = globals()[_name]
bool = bool_

_LAZY = {
    "cuda", "nn", "optim", "data", "io", "random", "memory", "testing", "sklearn", "keras", "cli", "onnx", "config", "typing", "profiler",
    "visual", "models",
}  # fmt: skip
_LAZY_NAMES = {
    "save": "io", "load": "io", "save_checkpoint": "io", "load_checkpoint": "io",
    "show_config": "config", "config_text": "config", "set_conv_winograd": "config", "set_matmul_precision": "config", "get_matmul_precision": "config",
    "summary": "nn.summaries",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        try:
            return importlib.import_module(f"fastdl.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"fastdl.{name}":
                raise
    elif name in _LAZY_NAMES:
        return getattr(importlib.import_module(f"fastdl.{_LAZY_NAMES[name]}"), name)
    raise AttributeError(f"module 'fastdl' has no attribute {name!r}")


def __dir__() -> list[str]:
    hidden = {"Any", "annotations"}
    return sorted(n for n in {*globals(), *_LAZY, *_LAZY_NAMES} - hidden if not n.startswith("_") or n.startswith("__"))


def set_num_threads(n: int) -> None:
    """How many threads work on one op (1 to 1024). Results do not depend on it."""
    _C.set_num_threads(n)


def get_num_threads() -> int:
    """How many threads work on one op: FASTDL_NUM_THREADS, else OMP_NUM_THREADS, else what affinity and cgroup allow."""
    return _C.num_threads()


def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether a dtype is of a kind ("bool", "integral", "real floating", "numeric", ...), the array API's isdtype."""
    d = dtypes.dtype(dtype)
    if isinstance(kind, tuple):
        return _builtins.any(isdtype(d, k) for k in kind)
    groups = {"bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu", "real floating": "f", "complex floating": "c", "numeric": "iufc"}
    if isinstance(kind, str):
        if kind not in groups:
            raise errors.ValueError_(f"isdtype: kind {kind!r} is unknown; need one of {', '.join(groups)}")
        return d.kind in groups[kind]
    return d == kind
