"""Completes `fd.Tensor` (a C type, csrc/python/tensor.cpp) with methods that are ops, printing, and the protocols of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _C, autograd, ops
from ._C import Tensor
from .device import device as _device, place
from .errors import DeviceError, GradError, TypeError_, ValueError_
from .ops import creation, elementwise, index, linalg, reduce, shape


# ---- printing --------------------------------------------------------------------------------------------------------
def _array_of(t: Tensor) -> np.ndarray:
    """The tensor's values for printing and NumPy functions that only read; bfloat16 as float32."""
    t = t.detach().cpu()
    return np.asarray(t.astype("float32") if t.dtype.name == "bfloat16" else t)


def _repr(t: Tensor) -> str:
    text = np.array2string(_array_of(t), separator=", ", prefix="array(")
    extra = "" if t.dtype.name in ("bool", "int64") else f", dtype={t.dtype}"
    if t.device.type != "cpu":
        extra += f", device={str(t.device)!r}"
    if t.size == 0 and t.shape != (0,):
        extra = f", shape={t.shape}" + extra
    if t.grad_fn is not None:
        extra += f", grad_fn={t.grad_fn}"
    elif t.requires_grad:
        extra += ", requires_grad=True"
    return f"array({text}{extra})"


_C.set_hook("repr", _repr)
_C.set_hook("divmod", lambda a, b: (elementwise.floor_divide(a, b), elementwise.remainder(a, b)))


# ---- conversion ------------------------------------------------------------------------------------------------------
def _need_cpu(t: Tensor, what: str) -> None:
    if t.device.type != "cpu":
        raise DeviceError(f"{what}: this tensor is on {t.device}, where NumPy cannot read; use cpu()")


def numpy(self: Tensor) -> np.ndarray:
    """The tensor's memory as a NumPy array (zero copy).

    Raises
    ------
    GradError
        If the tensor requires grad: use ``detach()`` first.
    DeviceError
        If the tensor is not in CPU memory: use ``cpu()`` first.
    DTypeError
        For bfloat16, unless the package ml_dtypes is installed (then a copy).
    """
    if self.requires_grad:
        raise GradError("numpy: this tensor requires grad, and NumPy would lose it; use detach().numpy()")
    _need_cpu(self, "numpy")
    if self.dtype.name == "bfloat16":
        return np.asarray(self.astype("float32")).astype(self.dtype.numpy)
    return np.asarray(memoryview(self)) if self.ndim == 0 or _C.recording() else np.asarray(self)  # NumPy would hide a CaptureError and ask again


def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    if self.requires_grad:
        raise GradError("this tensor requires grad, and NumPy would lose it; use detach(), or a fastdl function, which keeps it")
    _need_cpu(self, "__array__")
    if copy is False and (self.dtype.name == "bfloat16" or (dtype is not None and self.dtype != dtype)):
        raise ValueError_(f"__array__: {self.dtype} as NumPy dtype {dtype} needs a copy")
    a = _array_of(self) if self.dtype.name == "bfloat16" and dtype is not None else numpy(self)
    if dtype is not None and a.dtype != dtype:
        return a.astype(dtype)
    return a.copy() if copy and self.dtype.name != "bfloat16" else a


def __dlpack__(
    self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
) -> Any:
    if self.requires_grad:
        raise GradError("__dlpack__: this tensor requires grad; use detach()")
    home = __dlpack_device__(self)
    if home[0] == 1 and stream is not None:
        raise DeviceError("__dlpack__: CPU tensors have no stream")
    if dl_device is not None and tuple(dl_device) != home:
        if tuple(dl_device) != (1, 0) or copy is False:
            raise DeviceError(f"__dlpack__: device {tuple(dl_device)} asked; this tensor is on {self.device}, {home}")
        self, copy = self.cpu(), False
    t = self.clone() if copy else self
    if t.device.type == "cuda":
        _C.cuda_ready_for(t, 1 if stream is None else stream)  # None: the legacy default stream, says the array API
    return _C.to_dlpack(t, max_version is not None and max_version[0] >= 1)


def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    index = self.device.index
    return (1, 0) if index is None else (2, index)


def _cuda_array_interface(self: Tensor) -> dict[str, Any]:
    """Version 3 of the interface by which CuPy, Numba and PyTorch take CUDA memory without copying."""
    index = self.device.index
    if index is None:
        raise AttributeError("__cuda_array_interface__: this tensor is on the CPU")
    if self.requires_grad:
        raise GradError("__cuda_array_interface__: this tensor requires grad; use detach()")
    if self.dtype.name == "bfloat16":
        raise AttributeError("__cuda_array_interface__: bfloat16 has no type string; use DLPack")
    _C.cuda_record_stream(self, 1)  # the consumer's work is on the legacy default stream, or on one that synchronises with it
    return {
        "shape": self.shape,
        "typestr": np.dtype(self.dtype.name).str,
        "data": (self.data_ptr(), False),
        "strides": None if self.is_contiguous() else self.strides,
        "version": 3,
        "stream": _C.cuda_stream(index),
    }


# ---- in place --------------------------------------------------------------------------------------------------------
def copy_(self: Tensor, source: Any) -> Tensor:
    """Overwrites the elements with source (broadcast, cast). Not recorded: GradError if this tensor's gradient would change."""
    _C.copy_(self, source)
    return self


def fill_(self: Tensor, value: Any) -> Tensor:
    """Sets all elements to one value."""
    _C.copy_(self, value)
    return self


def zero_(self: Tensor) -> Tensor:
    """Sets all elements to 0."""
    _C.copy_(self, 0)
    return self


def _in_place(operator: str) -> Any:
    def method(self: Tensor, other: Any) -> Tensor:
        result = getattr(self, operator)(other)
        if result is NotImplemented:
            raise TypeError_(f"{operator.strip('_')[1:]}_: {type(other).__name__} is neither a tensor, an array nor a number")
        return result

    return method


def clamp(self: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values limited to [min, max]; None: no limit on that side."""
    if min is None and max is None:
        return elementwise.positive(self)
    if max is None:
        return elementwise.maximum(self, min)
    if min is None:
        return elementwise.minimum(self, max)
    return elementwise.clip(self, min, max)


def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False) -> Tensor:
    """The tensor with another dtype or on another device; itself if nothing changes."""
    for a in args:
        if isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
        elif (isinstance(a, str) and a.partition(":")[0] in ("cpu", "cuda")) or isinstance(a, _device):
            device = a
        elif isinstance(a, int) and not isinstance(a, bool):
            device = f"cuda:{a}"
        else:
            dtype = a
    result = self if device is None else place(self, device)
    if dtype is not None and result.dtype != dtype:
        result = shape.astype(result, dtype)
    return self.clone() if copy and result is self else result


def cpu(self: Tensor) -> Tensor:
    """The tensor in CPU memory; itself if it is there."""
    return self if self.device.index is None else place(self, "cpu")


def cuda(self: Tensor, device: Any = None) -> Tensor:
    """The tensor on a CUDA device (default: the first); DeviceError, with what is missing, if there is none."""
    return to(self, device="cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)


def to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """Array API name of ``to(device=...)``."""
    return to(self, device=device)


def _number(cast: str) -> Any:
    def method(self: Tensor) -> Tensor:
        return to(self, cast)

    return method


def __reduce_ex__(self: Tensor, protocol: int) -> Any:
    data = _array_of(self)
    return _rebuild, (
        type(self),
        np.ascontiguousarray(data).reshape(self.shape),
        self.dtype.name,
        self.requires_grad and self.is_leaf,
    )


def _rebuild(cls: type, data: np.ndarray, dtype: str, requires_grad: bool) -> Tensor:
    t = creation.array(data, dtype)
    t = t if cls is Tensor else _C.as_subclass(t, cls)
    return t.requires_grad_() if requires_grad else t


def __deepcopy__(self: Tensor, memo: dict) -> Tensor:
    if not self.is_leaf:
        raise GradError("deepcopy: only leaves can be copied with their requires_grad; use detach().clone()")
    t = self.detach().clone()
    t = t if type(self) is Tensor else _C.as_subclass(t, type(self))
    if self.requires_grad:
        t.requires_grad_()
    memo[id(self)] = t
    if self.grad is not None:
        t.grad = self.grad.detach().clone()
    if hasattr(self, "__dict__"):
        import copy

        t.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return t


def __format__(self: Tensor, spec: str) -> str:
    return format(self.item(), spec) if self.ndim == 0 and spec else str(self) if not spec else format(_array_of(self), spec)


def __complex__(self: Tensor) -> complex:
    return complex(self.item())


def _sum(self: Tensor, axis: Any = None, dtype: Any = None, keepdims: bool = False, **kwargs: Any) -> Tensor:
    """Sum over axes, with NumPy's argument order."""
    return reduce.sum(self, axis, keepdims, dtype, **kwargs)


def _prod(self: Tensor, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Product over axes, with NumPy's argument order."""
    return reduce.prod(self, axis, keepdims, dtype)


def _var(self: Tensor, axis: Any = None, ddof: float = 0.0, keepdims: bool = False, correction: float | None = None) -> Tensor:
    """Variance over axes, with NumPy's argument order."""
    return reduce.var(self, axis, ddof if correction is None else correction, keepdims)


def _std(self: Tensor, axis: Any = None, ddof: float = 0.0, keepdims: bool = False, correction: float | None = None) -> Tensor:
    """Standard deviation over axes."""
    return elementwise.sqrt(_var(self, axis, ddof, keepdims, correction))


def _round(self: Tensor, decimals: int = 0) -> Tensor:
    """Rounded to `decimals` places, halves to even."""
    if decimals == 0:
        return elementwise.round(self)
    s = 10.0**decimals
    return elementwise.round(self * s) / s


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """NumPy's transpose; with two ints of a tensor of more than two dimensions, PyTorch's (swaps them)."""
    if len(axes) == 2 and self.ndim != 2 and all(isinstance(a, int) for a in axes):
        return shape.swapaxes(self, *axes)
    return shape.transpose(self, *axes) if axes else shape.transpose(self)


def _permute(self: Tensor, *axes: Any) -> Tensor:
    """A view with the dimensions in another order."""
    return _C.permute(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes)


def _expand(self: Tensor, *sizes: Any) -> Tensor:
    """PyTorch's expand: broadcast, with -1 for sizes that stay."""
    s = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    lead = len(s) - self.ndim
    return _C.broadcast_to(self, [self.shape[k - lead] if v == -1 and k >= lead else v for k, v in enumerate(s)])


def _size_hint(self: Tensor) -> int:
    return self.size


def _index_add(self: Tensor, dim: int, idx: Any, source: Any) -> Tensor:
    """A copy with source's slices added at idx along dim."""
    return self + index.take_backward(source, idx, dim % self.ndim, self.shape[dim])


_METHODS: dict[str, Any] = {
    # attached under their own names: ops
    **{
        name: getattr(elementwise, name)
        for name in (
            "abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan arcsin arccos arctan sinh cosh tanh erf erfc "
            "floor ceil trunc sign conj isnan isinf isfinite maximum minimum lerp logical_not"
        ).split()
    },
    **{name: getattr(ops.activation, name) for name in "relu sigmoid silu gelu softplus".split()},
    **{name: getattr(reduce, name) for name in "mean max min any all argmax argmin cumsum cumprod logsumexp norm ptp".split()},
    **{name: getattr(ops.loss, name) for name in "softmax log_softmax".split()},
    **{
        name: getattr(shape, name)
        for name in "astype clone contiguous squeeze unsqueeze expand_dims ravel flatten swapaxes moveaxis broadcast_to repeat tile roll "
        "diagonal trace tril triu flip split chunk".split()
    },
    **{name: getattr(index, name) for name in "take gather masked_select masked_fill nonzero scatter_add".split()},
    **{name: getattr(linalg, name) for name in "dot outer".split()},
    "absolute": elementwise.abs,
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "div": elementwise.divide,
    "pow": elementwise.power,
    "neg": elementwise.negative,
    "eq": elementwise.equal,
    "matmul": linalg.matmul_any,
    "amax": reduce.max,
    "amin": reduce.min,
    "index_add": _index_add,
    "copy": shape.clone,
    "clamp": clamp,
    "clip": clamp,
    "sum": _sum,
    "prod": _prod,
    "var": _var,
    "std": _std,
    "round": _round,
    "transpose": _transpose,
    "permute": _permute,
    "expand": _expand,
    "numel": _size_hint,
    "dim": lambda self: self.ndim,
    "conjugate": elementwise.conj,
    "backward": autograd.backward,
    "numpy": numpy,
    "to": to,
    "to_device": to_device,
    "cpu": cpu,
    "cuda": cuda,
    "float": _number("float32"),
    "double": _number("float64"),
    "half": _number("float16"),
    "bfloat16": _number("bfloat16"),
    "int": _number("int32"),
    "long": _number("int64"),
    "bool": _number("bool"),
    "copy_": copy_,
    "fill_": fill_,
    "zero_": zero_,
    "add_": _in_place("__iadd__"),
    "sub_": _in_place("__isub__"),
    "mul_": _in_place("__imul__"),
    "div_": _in_place("__itruediv__"),
    "__array__": __array__,
    "__dlpack__": __dlpack__,
    "__dlpack_device__": __dlpack_device__,
    "__cuda_array_interface__": property(_cuda_array_interface),
    "__reduce_ex__": __reduce_ex__,
    "__deepcopy__": __deepcopy__,
    "__format__": __format__,
    "__complex__": __complex__,
    "__array_priority__": 1000,
    "__class_getitem__": classmethod(lambda cls, item: cls),
    "real": property(shape.real),
    "imag": property(shape.imag),
    "data": property(lambda self: self.detach()),
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)


# ---- NumPy's functions on tensors --------------------------------------------------------------------------------------
_UFUNCS = {
    "absolute": "abs", "true_divide": "divide", "invert": "bitwise_not", "rint": "round", "conjugate": "conj", "mod": "remainder",
    "fabs": "abs", "matmul": "matmul",
}  # fmt: skip


_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any"}
_NO_OPTIONS = {
    "where": True,
    "initial": None,
    "dtype": None,
    "keepdims": False,
    "casting": "same_kind",
    "order": "K",
    "subok": True,
}


def __array_ufunc__(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """`np.exp(t)`, `np.ones(3) * t`: runs fastdl's op of the same name, so gradients are kept."""
    import fastdl

    out = kwargs.pop("out", None)
    name = _UFUNCS.get(ufunc.__name__, ufunc.__name__)
    options = {k: v for k, v in kwargs.items() if not (k in _NO_OPTIONS and (v is _NO_OPTIONS[k] or v is np._NoValue))}
    if method == "reduce" and ufunc.__name__ in _REDUCTIONS:
        name, options["axis"] = (
            _REDUCTIONS[ufunc.__name__],
            options.get("axis", 0),
        )  # ufunc.reduce works on the first axis by default
        unknown = set(options) - ({"axis", "keepdims", "dtype"} if name in ("sum", "prod") else {"axis", "keepdims"})
    elif method == "accumulate" and ufunc.__name__ in ("add", "multiply"):
        name, options["axis"] = "cumsum" if ufunc.__name__ == "add" else "cumprod", options.get("axis", 0)
        unknown = set(options) - {"axis", "dtype"}
    else:
        unknown = set(options) if method == "__call__" else {method}
    fn = getattr(fastdl, name, None)
    if fn is None or unknown or ufunc.nout != 1:
        detail = "" if method == "__call__" else f".{method}"
        detail += f" with {', '.join(sorted(unknown - {method}))}" if unknown - {method} else ""
        raise TypeError_(f"numpy.{ufunc.__name__}{detail} has no fastdl op; use detach().numpy() to leave the graph")
    result = fn(*inputs, **options)
    if out is None or out[0] is None:
        return result
    (target,) = out
    if isinstance(target, Tensor):
        if target.requires_grad and _C.grad_enabled():
            raise GradError(f"numpy.{ufunc.__name__}: out= cannot be recorded; drop out= or use no_grad()")
        _C.copy_(target, result)
    else:
        np.copyto(target, result.numpy(), casting="same_kind")
    return target


# Functions whose defaults or argument order differ from fastdl's function of the same name.


def _numpy_scan(fn: Any) -> Any:
    def scan(a: Any, axis: Any = None, dtype: Any = None) -> Tensor:
        return fn(shape.ravel(a), 0, dtype) if axis is None else fn(a, axis, dtype)

    return scan


def _numpy_take(a: Any, indices: Any, axis: Any = None) -> Tensor:
    a = creation.asarray(a)
    i = creation.asarray(indices)
    return index.take(shape.ravel(a), i, 0) if axis is None else index.take(a, i, axis)


def _numpy_diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    return shape.diagonal(a, offset, axis1, axis2)


def _numpy_trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Tensor:
    return reduce.sum(shape.diagonal(a, offset, axis1, axis2), -1, False, dtype)


def _numpy_pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Tensor:
    if mode != "constant":
        raise TypeError_(f"numpy.pad with mode={mode!r} has no fastdl function; use detach().numpy() to leave the graph")
    x = creation.asarray(array)
    pairs = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    if any(side < 0 for pair in pairs for side in pair):
        raise ValueError_("pad: widths must be at least 0")
    return shape.pad(x, tuple(map(tuple, pairs)), constant_values)


def _numpy_moment(fn: Any) -> Any:
    def moment(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: float | None = None) -> Tensor:
        return fn(a, axis, ddof if correction is None else correction, keepdims)

    return moment


_NUMPY_FUNCTIONS = {
    "cumsum": _numpy_scan(reduce.cumsum),
    "cumprod": _numpy_scan(reduce.cumprod),
    "take": _numpy_take,
    "diagonal": _numpy_diagonal,
    "trace": _numpy_trace,
    "pad": _numpy_pad,
    "var": _numpy_moment(_var),
    "std": _numpy_moment(_std),
    "permute_dims": shape.transpose,
    "shape": lambda a: a.shape,
    "ndim": lambda a: a.ndim,
    "size": lambda a, axis=None: a.size if axis is None else a.shape[axis],
    "array_repr": lambda arr, *a, **k: repr(arr),
    "array_str": lambda arr, *a, **k: str(arr),
    "may_share_memory": lambda a, b, max_work=None: _shared(a, b),
    "shares_memory": lambda a, b, max_work=None: _shared(a, b),
}


def _shared(a: Any, b: Any) -> bool:
    return bool(_C.overlap(creation.asarray(a), creation.asarray(b)))


def __array_function__(self: Tensor, func: Any, types: Any, args: tuple, kwargs: dict) -> Any:
    """`np.mean(t)`, `np.concatenate([t, u])`: runs fastdl's function of the same name, so gradients are kept."""
    import fastdl

    home = func.__module__.partition("numpy")[2].strip(".")
    space = getattr(fastdl, home, None) if home in ("linalg", "fft") else None if home.startswith("_") else fastdl
    fn = _NUMPY_FUNCTIONS.get(func.__name__) if space is fastdl else None
    fn = fn or (getattr(space, func.__name__, None) if space is not None else None)
    if not callable(fn):
        where = f"{home}." if home else ""
        raise TypeError_(f"numpy.{where}{func.__name__} has no fastdl function; use detach().numpy() to leave the graph")
    kwargs = {k: v for k, v in kwargs.items() if v is not np._NoValue and not (k == "out" and v is None)}
    return fn(*args, **kwargs)


def __array_namespace__(self: Tensor, /, *, api_version: str | None = None) -> Any:
    import fastdl

    return fastdl


for _method in (__array_ufunc__, __array_function__, __array_namespace__):
    setattr(Tensor, _method.__name__, _method)
