"""The compiled core.

Written by tools/make_stubs.py; do not edit."""

# ruff: noqa
# mypy: disable-error-code="override, misc"

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from .device import device
from .dtypes import DType, DTypeLike
from .typing import Axes, Axis, Pads, Pair, Shape, TensorLike

_bool: TypeAlias = bool
_float: TypeAlias = float
_int: TypeAlias = int

class Tensor:
    """An array of numbers with a dtype, strides, and a gradient."""
    @property
    def T(self) -> Tensor:
        """view with the dimensions reversed"""
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface by which CuPy, Numba and PyTorch take CUDA memory without copying."""
    @property
    def _version(self) -> _int:
        """int: number of in-place writes to its memory"""
    @property
    def data(self) -> Tensor: ...
    @property
    def device(self) -> device:
        """where the memory is"""
    @property
    def dtype(self) -> DType:
        """element type"""
    @property
    def grad_fn(self) -> str | None:
        """name of the op that made it, or None"""
    @property
    def imag(self) -> Tensor:
        """Imaginary part: a view of complex memory; zeros for real tensors."""
    @property
    def is_leaf(self) -> _bool:
        """bool: not the result of a recorded op"""
    @property
    def itemsize(self) -> _int:
        """int: bytes of one element"""
    @property
    def mT(self) -> Tensor:
        """view with the last two dimensions swapped"""
    @property
    def nbytes(self) -> _int:
        """int: bytes of all elements"""
    @property
    def ndim(self) -> _int:
        """int: number of dimensions"""
    @property
    def real(self) -> Tensor:
        """Real part: a view of complex memory; real tensors are returned as they are."""
    @property
    def shape(self) -> tuple[_int, ...]:
        """tuple of int: size of each dimension"""
    @property
    def size(self) -> _int:
        """int: number of elements"""
    @property
    def strides(self) -> tuple[_int, ...]:
        """tuple of int: bytes to step in each dimension"""
    @property
    def grad(self) -> Tensor | None:
        """gradient gathered by backward(), or None"""
    @grad.setter
    def grad(self, value: Tensor | None, /) -> None: ...
    @property
    def requires_grad(self) -> _bool:
        """bool: whether ops on it are recorded for backward"""
    @requires_grad.setter
    def requires_grad(self, value: _bool, /) -> None: ...
    def __abs__(self) -> Tensor: ...
    def __add__(self, other: TensorLike, /) -> Tensor: ...
    def __and__(self, other: TensorLike, /) -> Tensor: ...
    def __array__(self, dtype: Any = None, copy: _bool | None = None) -> np.ndarray: ...
    def __array_function__(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any: ...
    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any: ...
    __array_priority__: _int
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any: ...
    def __bool__(self) -> _bool: ...
    def __buffer__(self, flags: _int, /) -> memoryview: ...
    @classmethod
    def __class_getitem__(cls, item: Any) -> Any: ...
    def __complex__(self) -> complex: ...
    def __contains__(self, value: Any, /) -> _bool: ...
    def __deepcopy__(self, memo: dict) -> Tensor: ...
    def __divmod__(self, other: TensorLike, /) -> tuple[Tensor, Tensor]: ...
    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: _bool | None = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[_int, _int]: ...
    def __eq__(self, other: Any, /) -> Tensor: ...
    def __float__(self) -> _float: ...
    def __floordiv__(self, other: TensorLike, /) -> Tensor: ...
    def __format__(self, spec: str) -> str: ...
    def __ge__(self, other: Any, /) -> Tensor: ...
    def __getitem__(self, key: Any, /) -> Tensor: ...
    def __gt__(self, other: Any, /) -> Tensor: ...
    def __hash__(self) -> _int: ...
    def __iadd__(self, other: TensorLike, /) -> Self: ...
    def __iand__(self, other: TensorLike, /) -> Self: ...
    def __ifloordiv__(self, other: TensorLike, /) -> Self: ...
    def __ilshift__(self, other: TensorLike, /) -> Self: ...
    def __imod__(self, other: TensorLike, /) -> Self: ...
    def __imul__(self, other: TensorLike, /) -> Self: ...
    def __index__(self) -> _int: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __int__(self) -> _int: ...
    def __invert__(self) -> Tensor: ...
    def __ior__(self, other: TensorLike, /) -> Self: ...
    def __ipow__(self, other: TensorLike, /) -> Self: ...
    def __irshift__(self, other: TensorLike, /) -> Self: ...
    def __isub__(self, other: TensorLike, /) -> Self: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def __itruediv__(self, other: TensorLike, /) -> Self: ...
    def __ixor__(self, other: TensorLike, /) -> Self: ...
    def __le__(self, other: Any, /) -> Tensor: ...
    def __len__(self) -> _int: ...
    def __lshift__(self, other: TensorLike, /) -> Tensor: ...
    def __lt__(self, other: Any, /) -> Tensor: ...
    def __matmul__(self, other: TensorLike, /) -> Tensor: ...
    def __mod__(self, other: TensorLike, /) -> Tensor: ...
    def __mul__(self, other: TensorLike, /) -> Tensor: ...
    def __ne__(self, other: Any, /) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __or__(self, other: TensorLike, /) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __pow__(self, other: TensorLike, /) -> Tensor: ...
    def __radd__(self, other: TensorLike, /) -> Tensor: ...
    def __rand__(self, other: TensorLike, /) -> Tensor: ...
    def __rdivmod__(self, other: TensorLike, /) -> tuple[Tensor, Tensor]: ...
    def __reduce_ex__(self, protocol: _int) -> Any: ...
    def __rfloordiv__(self, other: TensorLike, /) -> Tensor: ...
    def __rlshift__(self, other: TensorLike, /) -> Tensor: ...
    def __rmatmul__(self, other: TensorLike, /) -> Tensor: ...
    def __rmod__(self, other: TensorLike, /) -> Tensor: ...
    def __rmul__(self, other: TensorLike, /) -> Tensor: ...
    def __ror__(self, other: TensorLike, /) -> Tensor: ...
    def __rpow__(self, other: TensorLike, /) -> Tensor: ...
    def __rrshift__(self, other: TensorLike, /) -> Tensor: ...
    def __rshift__(self, other: TensorLike, /) -> Tensor: ...
    def __rsub__(self, other: TensorLike, /) -> Tensor: ...
    def __rtruediv__(self, other: TensorLike, /) -> Tensor: ...
    def __rxor__(self, other: TensorLike, /) -> Tensor: ...
    def __setitem__(self, key: Any, value: TensorLike, /) -> None: ...
    def __sub__(self, other: TensorLike, /) -> Tensor: ...
    def __truediv__(self, other: TensorLike, /) -> Tensor: ...
    def __xor__(self, other: TensorLike, /) -> Tensor: ...
    def abs(self) -> Tensor:
        """Absolute value; of complex numbers the magnitude, a real tensor."""
    def absolute(self) -> Tensor:
        """Absolute value; of complex numbers the magnitude, a real tensor."""
    def add(self, x2: TensorLike) -> Tensor:
        """x1 + x2; for bool, or."""
    def add_(self, other: Any) -> Tensor: ...
    def all(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Whether all elements are non-zero."""
    def amax(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Largest element; NaN if there is one."""
    def amin(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Smallest element; NaN if there is one."""
    def any(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Whether any element is non-zero."""
    def arccos(self) -> Tensor:
        """Inverse cosine, radians."""
    def arcsin(self) -> Tensor:
        """Inverse sine, radians."""
    def arctan(self) -> Tensor:
        """Inverse tangent, radians."""
    def argmax(self, axis: Axis | None = None, keepdims: _bool = False) -> Tensor:
        """Index (int64) of the first largest element; a NaN counts as largest. axis None: of the flattened tensor."""
    def argmin(self, axis: Axis | None = None, keepdims: _bool = False) -> Tensor:
        """Index (int64) of the first smallest element; a NaN counts as smallest."""
    def astype(self, dtype: Any, /, *, copy: _bool = True) -> Tensor:
        """x cast to dtype, as NumPy's astype; `copy=False` returns x itself if it has that dtype already."""
    def backward(self, grad: Any = None, retain_graph: _bool = False, create_graph: _bool = False) -> None:
        """Adds the gradient of this tensor to ``.grad`` of all leaves that require it."""
    def bfloat16(self) -> Tensor: ...
    def bool(self) -> Tensor: ...
    def broadcast_to(self, /, shape: Any) -> Tensor:
        """A view of x repeated to `shape` without copying."""
    def ceil(self) -> Tensor:
        """Smallest integer not below x."""
    def chunk(self, chunks: _int, dim: _int = 0) -> list[Tensor]:
        """At most `chunks` views of equal size, the last may be smaller (PyTorch's chunk)."""
    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Values limited to [min, max]; None: no limit on that side."""
    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Values limited to [min, max]; None: no limit on that side."""
    def clone(self) -> Tensor:
        """A copy with its own memory; gradients flow through."""
    def conj(self) -> Tensor:
        """Complex conjugate."""
    def conjugate(self) -> Tensor:
        """Complex conjugate."""
    def contiguous(self) -> Tensor:
        """x itself if its memory is row-major, else a row-major copy."""
    def copy(self) -> Tensor:
        """A copy with its own memory; gradients flow through."""
    def copy_(self, source: Any) -> Tensor:
        """Overwrites the elements with source (broadcast, cast). Not recorded: GradError if this tensor's gradient would change."""
    def cos(self) -> Tensor:
        """Cosine; x in radians."""
    def cosh(self) -> Tensor:
        """Hyperbolic cosine."""
    def cpu(self) -> Tensor:
        """The tensor in CPU memory; itself if it is there."""
    def cuda(self, device: Any = None) -> Tensor:
        """The tensor on a CUDA device (default: the first); DeviceError, with what is missing, if there is none."""
    def cumprod(self, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
        """Running product along an axis."""
    def cumsum(self, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
        """Running sum along an axis."""
    def data_ptr(self) -> _int:
        """Address of the first element."""
    def detach(self) -> Tensor:
        """The same memory without its gradient history."""
    def diagonal(self, offset: _int = 0, axis1: _int = -2, axis2: _int = -1) -> Tensor:
        """View of a diagonal of two axes, as the last axis of the result."""
    def dim(self) -> _int: ...
    def div(self, x2: TensorLike) -> Tensor:
        """x1 / x2 (true division: integers become floats)."""
    def div_(self, other: Any) -> Tensor: ...
    def dot(self, x2: Any) -> Tensor:
        """NumPy's dot: inner product of vectors, matrix product of matrices, last axis with second to last."""
    def double(self) -> Tensor: ...
    def eq(self, x2: TensorLike) -> Tensor:
        """x1 == x2."""
    def erf(self) -> Tensor:
        """Error function."""
    def erfc(self) -> Tensor:
        """1 - erf(x), accurate for large x."""
    def exp(self) -> Tensor:
        """e to the x."""
    def exp2(self) -> Tensor:
        """2 to the x."""
    def expand(self, *sizes: Any) -> Tensor:
        """PyTorch's expand: broadcast, with -1 for sizes that stay."""
    def expand_dims(self, /, axis: Any = 0) -> Tensor:
        """A new dimension of size 1 at `axis`."""
    def expm1(self) -> Tensor:
        """exp(x) - 1, accurate near 0."""
    def fill_(self, value: Any) -> Tensor:
        """Sets all elements to one value."""
    def flatten(self, start_dim: _int = 0, end_dim: _int = -1) -> Tensor:
        """Dimensions start_dim to end_dim merged into one (PyTorch's flatten)."""
    def flip(self, axis: Axes = None) -> Tensor:
        """Elements in reverse order along the axes (default: all)."""
    def float(self) -> Tensor: ...
    def floor(self) -> Tensor:
        """Largest integer not above x."""
    def gather(self, dim: _int, index: Any) -> Tensor:
        """PyTorch's gather: take_along_axis with another argument order; index may be smaller than x in other axes."""
    def gelu(self) -> Tensor:
        """x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, arXiv 1606.08415)."""
    def half(self) -> Tensor: ...
    def index_add(self, dim: _int, idx: Any, source: Any) -> Tensor:
        """A copy with source's slices added at idx along dim."""
    def int(self) -> Tensor: ...
    def is_contiguous(self) -> _bool:
        """Whether memory is row-major without gaps."""
    def isfinite(self) -> Tensor:
        """Whether x is neither infinite nor NaN."""
    def isinf(self) -> Tensor:
        """Whether x is infinite."""
    def isnan(self) -> Tensor:
        """Whether x is NaN."""
    def item(self, *index: _int) -> Any:
        """The only element (or the one at the given index) as a Python number."""
    def lerp(self, x2: TensorLike, w: TensorLike) -> Tensor:
        """x1 + w * (x2 - x1)."""
    def log(self) -> Tensor:
        """Natural logarithm."""
    def log10(self) -> Tensor:
        """Logarithm to base 10."""
    def log1p(self) -> Tensor:
        """log(1 + x), accurate near 0."""
    def log2(self) -> Tensor:
        """Logarithm to base 2."""
    def log_softmax(self, axis: Axis = -1) -> Tensor:
        """log(softmax(x)) without overflow."""
    def logical_not(self) -> Tensor:
        """x == 0."""
    def logsumexp(self, axis: Any = None, keepdims: _bool = False) -> Tensor:
        """log(sum(exp(x))) without overflow."""
    def long(self) -> Tensor: ...
    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """x with `value` where the mask is true."""
    def masked_select(self, mask: Any) -> Tensor:
        """Elements where the mask is true, in one dimension."""
    def matmul(self, x2: Any) -> Tensor:
        """NumPy's matmul: vectors are promoted to matrices and the extra axis is dropped again."""
    def max(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Largest element; NaN if there is one."""
    def maximum(self, x2: TensorLike) -> Tensor:
        """The larger of both; NaN if either is NaN."""
    def mean(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Arithmetic mean over axes; NaN for an empty reduction."""
    def min(self, axis: Axes = None, keepdims: _bool = False) -> Tensor:
        """Smallest element; NaN if there is one."""
    def minimum(self, x2: TensorLike) -> Tensor:
        """The smaller of both; NaN if either is NaN."""
    def moveaxis(self, source: Any, destination: Any, /) -> Tensor:
        """Dimensions moved to new places, the others keep their order."""
    def mul(self, x2: TensorLike) -> Tensor:
        """x1 * x2; for bool, and."""
    def mul_(self, other: Any) -> Tensor: ...
    def neg(self) -> Tensor:
        """-x."""
    def nonzero(self) -> tuple[Tensor, ...]:
        """Indices of the non-zero elements, one int64 tensor per dimension."""
    def norm(self, ord: _float = 2, axis: Any = None, keepdims: _bool = False) -> Tensor:
        """Vector norm over axes: ord 1, 2, inf, -inf, 0 or any p."""
    def numel(self) -> _int: ...
    def numpy(self) -> np.ndarray:
        """The tensor's memory as a NumPy array (zero copy)."""
    def outer(self, x2: Any) -> Tensor:
        """Products of all pairs of two vectors."""
    def permute(self, *axes: Any) -> Tensor:
        """A view with the dimensions in another order."""
    def pow(self, x2: TensorLike) -> Tensor:
        """x1 ** x2."""
    def prod(self, axis: Any = None, dtype: Any = None, keepdims: _bool = False) -> Tensor:
        """Product over axes, with NumPy's argument order."""
    def ptp(self, axis: Any = None, keepdims: _bool = False) -> Tensor:
        """max - min."""
    def ravel(self) -> Tensor:
        """All elements in one dimension; a view where memory allows."""
    def reciprocal(self) -> Tensor:
        """1 / x."""
    def relu(self) -> Tensor:
        """max(x, 0); NaN stays NaN."""
    def repeat(self, repeats: Any, /, *, axis: _int | None = None) -> Tensor:
        """Each element repeated (a number, or one count per element of the axis)."""
    def requires_grad_(self, requires_grad: _bool = True) -> Self:
        """Sets requires_grad (default True) and returns self."""
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order with another shape; a view where memory allows, else a copy."""
    def roll(self, /, shift: Any, axis: Any = None) -> Tensor:
        """Elements shifted along axes, wrapping round."""
    def round(self, decimals: _int = 0) -> Tensor:
        """Rounded to `decimals` places, halves to even."""
    def rsqrt(self) -> Tensor:
        """1 / sqrt(x)."""
    def scatter_add(self, indices: TensorLike, values: TensorLike, axis: Axis = -1) -> Tensor:
        """A copy of x with `values` added at `indices` along an axis; repeated indices add up in a fixed order."""
    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
    def sign(self) -> Tensor:
        """-1, 0 or 1; NaN stays NaN; complex: x / abs(x)."""
    def silu(self) -> Tensor:
        """x * sigmoid(x) (also known as swish)."""
    def sin(self) -> Tensor:
        """Sine; x in radians."""
    def sinh(self) -> Tensor:
        """Hyperbolic sine."""
    def softmax(self, axis: Axis = -1) -> Tensor:
        """exp(x) / sum(exp(x)) along an axis."""
    def softplus(self, beta: _float = 1.0, threshold: _float = 20.0) -> Tensor:
        """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    def split(self, indices_or_sections: Any, axis: _int = 0) -> list[Tensor]:
        """Views: equal parts (int), or cut at the given indices."""
    def sqrt(self) -> Tensor:
        """Square root."""
    def square(self) -> Tensor:
        """x * x."""
    def squeeze(self, /, axis: Any = None) -> Tensor:
        """Dimensions of size 1 removed (array API: name them; NumPy: default all)."""
    def std(self, axis: Any = None, ddof: _float = 0.0, keepdims: _bool = False, correction: _float | None = None) -> Tensor:
        """Standard deviation over axes."""
    def sub(self, x2: TensorLike) -> Tensor:
        """x1 - x2."""
    def sub_(self, other: Any) -> Tensor: ...
    def sum(self, axis: Any = None, dtype: Any = None, keepdims: _bool = False, **kwargs: Any) -> Tensor:
        """Sum over axes, with NumPy's argument order."""
    def swapaxes(self, axis1: _int, axis2: _int, /) -> Tensor:
        """Two dimensions swapped."""
    def take(self, indices: TensorLike, axis: Axis = 0) -> Tensor:
        """Slices of x at `indices` along an axis (an embedding look-up for axis 0); negative indices count from the end."""
    def tan(self) -> Tensor:
        """Tangent; x in radians."""
    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
    def tile(self, repetitions: Any, /) -> Tensor:
        """x repeated as a whole along each axis."""
    def to(self, *args: Any, dtype: Any = None, device: Any = None, copy: _bool = False) -> Tensor:
        """The tensor with another dtype or on another device; itself if nothing changes."""
    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """Array API name of ``to(device=...)``."""
    def tolist(self) -> Any:
        """The elements as (nested) Python lists of numbers."""
    def trace(self, offset: _int = 0) -> Tensor:
        """Sum of a diagonal of the last two axes."""
    def transpose(self, *axes: Any) -> Tensor:
        """NumPy's transpose; with two ints of a tensor of more than two dimensions, PyTorch's (swaps them)."""
    def tril(self, k: _int = 0) -> Tensor:
        """Lower triangle of the last two axes; zeros above diagonal k."""
    def triu(self, k: _int = 0) -> Tensor:
        """Upper triangle of the last two axes; zeros below diagonal k."""
    def trunc(self) -> Tensor:
        """The integer part."""
    def unsqueeze(self, /, axis: Any = 0) -> Tensor:
        """A new dimension of size 1 at `axis`."""
    def var(self, axis: Any = None, ddof: _float = 0.0, keepdims: _bool = False, correction: _float | None = None) -> Tensor:
        """Variance over axes, with NumPy's argument order."""
    def view(self, *shape: Any) -> Tensor:
        """Alias of reshape."""
    def zero_(self) -> Tensor:
        """Sets all elements to 0."""

class Op:
    """An op: a stanza and, if it has one, its row of the op table."""
    __name__: str
    __wrapped__: Callable[..., Any]
    has_kernel: bool
    differentiable: bool
    def __init__(self, *args: Any) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any: ...

def as_strided(arg0: Any, arg1: Any, arg2: Any, arg3: int, arg4: str, arg5: tuple) -> Tensor: ...
def as_subclass(arg0: Any, arg1: Any) -> Any: ...
def backward(roots: tuple, grads: tuple, targets: Any, retain: bool, create: bool, stop: bool = False) -> Any: ...
def broadcast_to(arg0: Any, arg1: Any) -> Tensor: ...
def compiled_isas() -> list[str]: ...
def compiler() -> str: ...
def complex_part(arg0: Any, arg1: int) -> Any: ...
def copy_(arg0: Any, arg1: Any) -> None: ...
def cuda_device_count() -> int:
    """Number of CUDA devices that can be used; 0 if there is no library, driver or GPU."""
def cuda_fallbacks() -> dict:
    """Calls on a device that ran on the host, because the op has no CUDA row for their dtype: {op: calls}."""
def cuda_missing() -> str: ...
def cuda_ready_for(arg0: Any, arg1: int) -> None: ...
def cuda_require(arg0: int) -> None:
    """DeviceError, with what is missing, unless cuda:index can be used."""
def cuda_stream(arg0: int) -> int:
    """Address of the current stream of the calling thread."""
def cuda_synchronize(arg0: int) -> None: ...
def cuda_table() -> list:
    """(op, dtypes with a CUDA row) for every op."""
def element_strides(arg0: Any) -> tuple: ...
def empty(shape: Any, dtype: Any, cuda: int = -1) -> Tensor: ...
def empty_cache() -> None: ...
def fail_after(arg0: int) -> None:
    """Tests: the n-th allocation from now on fails."""
def float_of(arg0: Any) -> Any: ...
def from_buffer(obj: Any, copy: int = -1) -> Tensor: ...
def from_dlpack(arg0: Any) -> Tensor: ...
def grad_enabled() -> bool: ...
def graph_clock() -> int: ...
def graph_leaves(roots: tuple, since: int = 0) -> Any: ...
def isa() -> str: ...
def memory_stats() -> dict: ...
def num_threads() -> int: ...
def op_table() -> list:
    """Rows of the op table: (name, family, nin, nout, dtypes, dtypes with a CPU kernel)."""
def overlap(arg0: Any, arg1: Any) -> bool: ...
def permute(arg0: Any, arg1: Any) -> Tensor: ...
def promote_types(arg0: Any, arg1: Any) -> Any: ...
def rebase(arg0: Any, arg1: Any, arg2: int) -> None: ...
def record(outputs: tuple, inputs: tuple, rule: Any, name: str, saved: tuple = ()) -> Any: ...
def reset_peak_memory() -> None: ...
def reshape(arg0: Any, arg1: Any) -> Tensor: ...
def set_anomaly(arg0: bool) -> bool: ...
def set_conv_winograd(arg0: bool) -> bool: ...
def set_data(arg0: Any, arg1: Any) -> None: ...
def set_dtypes(arg0: Any) -> None: ...
def set_errors(arg0: Any) -> None: ...
def set_grad_enabled(arg0: bool) -> bool: ...
def set_grad_slot(arg0: Any, arg1: Any) -> None: ...
def set_guard(arg0: bool) -> int:
    """Tests: guard zones around new buffers on or off; returns how many were found damaged since they were turned on."""
def set_hook(arg0: str, arg1: Any) -> None: ...
def set_memory_limit(arg0: int) -> None: ...
def set_num_threads(arg0: int) -> None: ...
def supported_isas() -> list[str]: ...
def to_device(arg0: Any, arg1: str, arg2: int) -> Any:
    """A copy on another device (an alias if it is there already), without its gradient history."""
def to_dlpack(arg0: Any, arg1: bool) -> Any: ...
