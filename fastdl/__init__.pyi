"""The public names of fastdl.

Written by tools/make_stubs.py; do not edit."""

# ruff: noqa
# mypy: disable-error-code="override, misc"

import builtins
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from . import autograd as autograd
from . import bench as bench
from . import cli as cli
from . import config as config
from . import cuda as cuda
from . import data as data
from . import dtypes as dtypes
from . import errors as errors
from . import graph as graph
from . import io as io
from . import keras as keras
from . import memory as memory
from . import models as models
from . import nn as nn
from . import op as op
from . import ops as ops
from . import optim as optim
from . import profiler as profiler
from . import random as random
from . import sklearn as sklearn
from . import typing as typing
from . import visual as visual
from ._C import Tensor as Tensor
from .autograd import checkpoint as checkpoint
from .autograd import custom_vjp as custom_vjp
from .autograd import detect_anomaly as detect_anomaly
from .autograd import enable_grad as enable_grad
from .autograd import grad as grad
from .autograd import gradients as gradients
from .autograd import hessian as hessian
from .autograd import is_grad_enabled as is_grad_enabled
from .autograd import jacobian as jacobian
from .autograd import jvp as jvp
from .autograd import no_grad as no_grad
from .autograd import set_grad_enabled as set_grad_enabled
from .autograd import value_and_grad as value_and_grad
from .autograd import vjp as vjp
from .config import config_text as config_text
from .config import get_matmul_precision as get_matmul_precision
from .config import set_conv_winograd as set_conv_winograd
from .config import set_matmul_precision as set_matmul_precision
from .config import show_config as show_config
from .device import device as device
from .device import get_default_device as get_default_device
from .device import set_default_device as set_default_device
from .dtypes import dtype as dtype
from .dtypes import finfo as finfo
from .dtypes import iinfo as iinfo
from .errors import CaptureError as CaptureError
from .errors import DTypeError as DTypeError
from .errors import DeviceError as DeviceError
from .errors import FastdlDeprecationWarning as FastdlDeprecationWarning
from .errors import FastdlError as FastdlError
from .errors import FastdlWarning as FastdlWarning
from .errors import FormatError as FormatError
from .errors import GradError as GradError
from .errors import IndexError_ as IndexError
from .errors import OutOfMemoryError as OutOfMemoryError
from .errors import ShapeError as ShapeError
from .graph import compile as compile
from .io.checkpoint import load_checkpoint as load_checkpoint
from .io.checkpoint import save_checkpoint as save_checkpoint
from .io.tensors import load as load
from .io.tensors import save as save
from .nn.summaries import summary as summary
from .ops.creation import arange as arange
from .ops.creation import array as array
from .ops.creation import asarray as asarray
from .ops.creation import can_cast as can_cast
from .ops.creation import empty as empty
from .ops.creation import empty_like as empty_like
from .ops.creation import eye as eye
from .ops.creation import from_dlpack as from_dlpack
from .ops.creation import from_numpy as from_numpy
from .ops.creation import full as full
from .ops.creation import full_like as full_like
from .ops.creation import linspace as linspace
from .ops.creation import meshgrid as meshgrid
from .ops.creation import ones as ones
from .ops.creation import ones_like as ones_like
from .ops.creation import result_type as result_type
from .ops.creation import zeros as zeros
from .ops.creation import zeros_like as zeros_like
from .ops.index import argwhere as argwhere
from .ops.index import compress as compress
from .ops.index import gather as gather
from .ops.index import getitem_advanced as getitem_advanced
from .ops.index import masked_fill as masked_fill
from .ops.index import masked_select as masked_select
from .ops.index import nonzero as nonzero
from .ops.index import setitem_advanced as setitem_advanced
from .ops.linalg import dot as dot
from .ops.linalg import einsum as einsum
from .ops.linalg import inner as inner
from .ops.linalg import matmul_any as matmul_any
from .ops.linalg import outer as outer
from .ops.linalg import tensordot as tensordot
from .ops.linalg import vecdot as vecdot
from .ops.reduce import average as average
from .ops.reduce import count_nonzero as count_nonzero
from .ops.reduce import cumulative_prod as cumulative_prod
from .ops.reduce import cumulative_sum as cumulative_sum
from .ops.reduce import diff as diff
from .ops.reduce import logsumexp as logsumexp
from .ops.reduce import norm as norm
from .ops.reduce import ptp as ptp
from .ops.shape import array_split as array_split
from .ops.shape import astype as astype
from .ops.shape import atleast_1d as atleast_1d
from .ops.shape import atleast_2d as atleast_2d
from .ops.shape import broadcast_arrays as broadcast_arrays
from .ops.shape import broadcast_shapes as broadcast_shapes
from .ops.shape import broadcast_to as broadcast_to
from .ops.shape import chunk as chunk
from .ops.shape import clone as clone
from .ops.shape import concatenate as concatenate
from .ops.shape import contiguous as contiguous
from .ops.shape import diagonal as diagonal
from .ops.shape import expand_dims as expand_dims
from .ops.shape import flatten as flatten
from .ops.shape import imag as imag
from .ops.shape import matrix_transpose as matrix_transpose
from .ops.shape import moveaxis as moveaxis
from .ops.shape import permute_dims as permute_dims
from .ops.shape import ravel as ravel
from .ops.shape import real as real
from .ops.shape import repeat as repeat
from .ops.shape import reshape as reshape
from .ops.shape import roll as roll
from .ops.shape import split as split
from .ops.shape import squeeze as squeeze
from .ops.shape import stack as stack
from .ops.shape import swapaxes as swapaxes
from .ops.shape import tile as tile
from .ops.shape import trace as trace
from .ops.shape import transpose as transpose
from .ops.shape import unstack as unstack
from .random import Generator as Generator
from .random import manual_seed as manual_seed
from .tensor import clamp as clamp
from .dtypes import DType
from .typing import Axes, Axis, DTypeLike, Pads, Pair, Shape, TensorLike

__version__: str
bfloat16: DType
bool_: DType
complex128: DType
complex64: DType
e: float
float16: DType
float32: DType
float64: DType
inf: float
int16: DType
int32: DType
int64: DType
int8: DType
nan: float
newaxis: None
pi: float
uint16: DType
uint32: DType
uint64: DType
uint8: DType
bool: DType

def abs(x: TensorLike) -> Tensor:
    """Absolute value; of complex numbers the magnitude, a real tensor."""
def adam_step(param: TensorLike, grad: TensorLike, m: TensorLike, v: TensorLike, vmax: TensorLike | None, hyper: TensorLike) -> Tensor:
    """hyper: lr, beta1, beta2, eps, weight_decay, decoupled, maximize, step (Kingma & Ba 1412.6980; Loshchilov & Hutter 1711.05101)."""
def adaptive_avg_pool2d(x: TensorLike, output_size: Pair) -> Tensor:
    """Mean over windows that divide the input into output_size cells."""
def adaptive_avg_pool2d_backward(grad: TensorLike, size: Pair) -> Tensor:
    """Gradient of adaptive_avg_pool2d's input of size (H, W)."""
def adaptive_max_pool2d(x: TensorLike, output_size: Pair) -> Tensor:
    """Maximum over windows that divide the input into output_size cells."""
def adaptive_max_pool2d_backward(grad: TensorLike, indices: TensorLike, size: Pair) -> Tensor:
    """Gradient of adaptive_max_pool2d's input of size (H, W); indices are h * W + w."""
def add(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 + x2; for bool, or."""
def addcmul(x1: TensorLike, x2: TensorLike, x3: TensorLike, value: float = 1.0) -> Tensor:
    """x1 + value * x2 * x3."""
def all(x: TensorLike, axis: Axes = None, keepdims: builtins.bool = False) -> Tensor:
    """Whether all elements are non-zero."""
def any(x: TensorLike, axis: Axes = None, keepdims: builtins.bool = False) -> Tensor:
    """Whether any element is non-zero."""
def arccos(x: TensorLike) -> Tensor:
    """Inverse cosine, radians."""
def arccosh(x: TensorLike) -> Tensor:
    """Inverse hyperbolic cosine."""
def arcsin(x: TensorLike) -> Tensor:
    """Inverse sine, radians."""
def arcsinh(x: TensorLike) -> Tensor:
    """Inverse hyperbolic sine."""
def arctan(x: TensorLike) -> Tensor:
    """Inverse tangent, radians."""
def arctan2(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Angle of the point (x2, x1), radians in [-pi, pi]."""
def arctanh(x: TensorLike) -> Tensor:
    """Inverse hyperbolic tangent."""
def argmax(x: TensorLike, axis: Axis | None = None, keepdims: builtins.bool = False) -> Tensor:
    """Index (int64) of the first largest element; a NaN counts as largest. axis None: of the flattened tensor."""
def argmin(x: TensorLike, axis: Axis | None = None, keepdims: builtins.bool = False) -> Tensor:
    """Index (int64) of the first smallest element; a NaN counts as smallest."""
def attention(query: TensorLike, key: TensorLike, value: TensorLike, mask: TensorLike | None = None, causal: builtins.bool = False, scale: float = 1.0) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value for query (..., L, E), key (..., S, E), value (..., S, V), without the matrix of"""
def attention_backward(grad: TensorLike, query: TensorLike, key: TensorLike, value: TensorLike, mask: TensorLike | None, y: TensorLike, peak: TensorLike, factor: TensorLike, causal: builtins.bool = False, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention's query, key and value; y, peak (the largest score) and factor (1 / sum of exp(score - peak)) are its results."""
def avg_pool2d(x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, ceil_mode: builtins.bool = False, count_include_pad: builtins.bool = True) -> Tensor:
    """Mean of each window (dilation must be 1)."""
def avg_pool2d_backward(grad: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, ceil_mode: builtins.bool = False, count_include_pad: builtins.bool = True, size: Pair = 1) -> Tensor:
    """Gradient of avg_pool2d's input of size (H, W)."""
def batch_norm(x: TensorLike, weight: TensorLike | None = None, bias: TensorLike | None = None, running_mean: TensorLike | None = None, running_var: TensorLike | None = None, training: builtins.bool = False, momentum: float = 0.1, eps: float = 1e-05) -> Tensor:
    """Normalises each channel of x (N, C, ...) by batch statistics (training; running ones are updated in place) or by the running"""
def batch_norm_backward(grad: TensorLike, x: TensorLike, mean_: TensorLike, rstd: TensorLike, weight: TensorLike | None = None, training: builtins.bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of batch_norm's x, weight and bias."""
def bitwise_and(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Bits set in both; integers and bool."""
def bitwise_not(x: TensorLike) -> Tensor:
    """All bits flipped; bool: not."""
def bitwise_or(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Bits set in either; integers and bool."""
def bitwise_xor(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Bits set in exactly one; integers and bool."""
def cbrt(x: TensorLike) -> Tensor:
    """Cube root."""
def ceil(x: TensorLike) -> Tensor:
    """Smallest integer not below x."""
def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
def celu_backward(grad: TensorLike, x: TensorLike, alpha: float = 1.0) -> Tensor:
    """Gradient of celu."""
def clip(self: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values limited to [min, max]; None: no limit on that side."""
def concat(arrays: Sequence[TensorLike], axis: Axis = 0) -> Tensor:
    """Tensors joined along an existing axis."""
def conj(x: TensorLike) -> Tensor:
    """Complex conjugate."""
def conv2d(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1, activation: Literal['none', 'relu', 'sigmoid', 'tanh'] = 'none') -> Tensor:
    """Cross-correlation: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O) -> (N, O, OH, OW), OH = (H + 2p - d(KH-1) - 1)//s + 1."""
def conv2d_backward_input(grad: TensorLike, weight: TensorLike, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1, size: Pair = 1) -> Tensor:
    """Gradient of conv2d's input (size H, W), i.e. transposed convolution of grad."""
def conv2d_backward_weight(grad: TensorLike, x: TensorLike, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1, size: Pair = 1) -> tuple[Tensor, Tensor]:
    """Gradients of conv2d's weight (kernel size given) and bias."""
def copy(x: Any) -> Tensor:
    """A copy with its own memory; gradients flow through."""
def copysign(x1: TensorLike, x2: TensorLike) -> Tensor:
    """abs(x1) with the sign of x2."""
def cos(x: TensorLike) -> Tensor:
    """Cosine; x in radians."""
def cosh(x: TensorLike) -> Tensor:
    """Hyperbolic cosine."""
def cross_entropy(logits: TensorLike, target: TensorLike, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
    """-log softmax(logits)[target] per row: logits (N, C), target (N) int64 -> (N). Rows with target == ignore_index give 0."""
def cross_entropy_backward(grad: TensorLike, logits: TensorLike, target: TensorLike, lse: TensorLike, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
    """Gradient of cross_entropy's logits; lse is the log-sum-exp of each row."""
def cumprod(x: TensorLike, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
    """Running product along an axis."""
def cumsum(x: TensorLike, axis: Axis = 0, dtype: DTypeLike | None = None) -> Tensor:
    """Running sum along an axis."""
def deg2rad(x: TensorLike) -> Tensor:
    """x * pi / 180."""
def divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 / x2 (true division: integers become floats)."""
def dropout(x: TensorLike, p: float, seed: int, offset: int) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0. Stores no mask: backward draws the same numbers again."""
def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x if x > 0, else alpha * (exp(x) - 1)."""
def elu_backward(grad: TensorLike, x: TensorLike, alpha: float = 1.0) -> Tensor:
    """Gradient of elu."""
def equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 == x2."""
def erf(x: TensorLike) -> Tensor:
    """Error function."""
def erfc(x: TensorLike) -> Tensor:
    """1 - erf(x), accurate for large x."""
def exp(x: TensorLike) -> Tensor:
    """e to the x."""
def exp2(x: TensorLike) -> Tensor:
    """2 to the x."""
def expm1(x: TensorLike) -> Tensor:
    """exp(x) - 1, accurate near 0."""
def fill(x: TensorLike, value: float, exact: builtins.bool = False, integer: int = 0, imag: float = 0.0) -> Tensor:
    """Sets all elements of x, in place, to value + imag * 1j, or to `integer` if exact."""
def flip(x: TensorLike, axis: Axes = None) -> Tensor:
    """Elements in reverse order along the axes (default: all)."""
def floor(x: TensorLike) -> Tensor:
    """Largest integer not above x."""
def floor_divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Largest integer not above x1 / x2. Integer division by zero gives 0."""
def fmax(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of both; a NaN is ignored if the other is a number."""
def fmin(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of both; a NaN is ignored if the other is a number."""
def fmod(x1: TensorLike, x2: TensorLike) -> Tensor:
    """C's fmod: the sign of x1."""
def gelu(x: TensorLike) -> Tensor:
    """x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, arXiv 1606.08415)."""
def gelu_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of gelu."""
def gelu_tanh(x: TensorLike) -> Tensor:
    """gelu by its tanh approximation."""
def gelu_tanh_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of gelu_tanh."""
def get_num_threads() -> int:
    """How many threads work on one op: FASTDL_NUM_THREADS, else OMP_NUM_THREADS, else what affinity and cgroup allow."""
def greater(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 > x2."""
def greater_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 >= x2."""
def gru_cell(x: TensorLike, r: TensorLike, h: TensorLike) -> tuple[Tensor, Tensor]:
    """The next state of a GRU, and its gates: what follows the products of a step."""
def gru_cell_backward(grad: TensorLike, gates: TensorLike, h: TensorLike) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gru_cell's x, r and h (without what reaches h through r)."""
def hardsigmoid(x: TensorLike) -> Tensor:
    """clip(x / 6 + 1 / 2, 0, 1)."""
def hardsigmoid_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """grad / 6 where -3 < x < 3, else 0."""
def hardswish(x: TensorLike) -> Tensor:
    """x * hardsigmoid(x) (Howard et al., arXiv 1905.02244)."""
def hardswish_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of hardswish."""
def hardtanh(x: TensorLike, lo: float = -1.0, hi: float = 1.0) -> Tensor:
    """x clipped to [lo, hi]."""
def hardtanh_backward(grad: TensorLike, x: TensorLike, lo: float = -1.0, hi: float = 1.0) -> Tensor:
    """grad where lo < x < hi, else 0."""
def hypot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """sqrt(x1**2 + x2**2) without overflow."""
def index_get(arrays: Sequence[TensorLike]) -> Tensor:
    """x[i0, i1, ...] for integer tensors on the leading axes: arrays is (x, i0, i1, ...)."""
def index_put(arrays: Sequence[TensorLike], accumulate: builtins.bool = False) -> Tensor:
    """x[i0, i1, ...] = values (or +=) in place: arrays is (x, values, i0, i1, ...)."""
def isclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: builtins.bool = False) -> Tensor:
    """abs(x1 - x2) <= atol + rtol * abs(x2), elementwise; infinities must be equal."""
def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether a dtype is of a kind ("bool", "integral", "real floating", "numeric", ...), the array API's isdtype."""
def isfinite(x: TensorLike) -> Tensor:
    """Whether x is neither infinite nor NaN."""
def isinf(x: TensorLike) -> Tensor:
    """Whether x is infinite."""
def isnan(x: TensorLike) -> Tensor:
    """Whether x is NaN."""
def layer_norm(x: TensorLike, weight: TensorLike | None = None, bias: TensorLike | None = None, ndims: int = 1, eps: float = 1e-05) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `ndims` axes (Ba et al., arXiv 1607.06450)."""
def layer_norm_backward(grad: TensorLike, x: TensorLike, mean_: TensorLike, rstd: TensorLike, weight: TensorLike | None = None, ndims: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of layer_norm's x, weight and bias."""
def leaky_relu(x: TensorLike, slope: float = 0.01) -> Tensor:
    """x if x > 0, else slope * x."""
def leaky_relu_backward(grad: TensorLike, x: TensorLike, slope: float = 0.01) -> Tensor:
    """Gradient of leaky_relu."""
def left_shift(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 << x2."""
def lerp(x1: TensorLike, x2: TensorLike, w: TensorLike) -> Tensor:
    """x1 + w * (x2 - x1)."""
def less(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 < x2."""
def less_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 <= x2."""
def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, activation: Literal['none', 'relu', 'sigmoid', 'tanh'] = 'none') -> Tensor:
    """activation(x @ weight.T + bias): x (..., in), weight (out, in), bias (out)."""
def linear_backward_weight(grad: TensorLike, x: TensorLike) -> tuple[Tensor, Tensor]:
    """Gradients of linear's weight and bias from grad (..., out) and x (..., in): (out, in) and (out)."""
def log(x: TensorLike) -> Tensor:
    """Natural logarithm."""
def log10(x: TensorLike) -> Tensor:
    """Logarithm to base 10."""
def log1p(x: TensorLike) -> Tensor:
    """log(1 + x), accurate near 0."""
def log2(x: TensorLike) -> Tensor:
    """Logarithm to base 2."""
def log_sigmoid(x: TensorLike) -> Tensor:
    """log(sigmoid(x)) without overflow."""
def log_sigmoid_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """grad * sigmoid(-x)."""
def log_softmax(x: TensorLike, axis: Axis = -1) -> Tensor:
    """log(softmax(x)) without overflow."""
def log_softmax_backward(grad: TensorLike, out: TensorLike, axis: Axis = -1) -> Tensor:
    """Gradient of log_softmax from its output."""
def logaddexp(x1: TensorLike, x2: TensorLike) -> Tensor:
    """log(exp(x1) + exp(x2)) without overflow."""
def logical_and(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Whether both are non-zero."""
def logical_not(x: TensorLike) -> Tensor:
    """x == 0."""
def logical_or(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Whether either is non-zero."""
def logical_xor(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Whether exactly one is non-zero."""
def lstm_cell(x: TensorLike, r: TensorLike, c: TensorLike) -> tuple[Tensor, Tensor, Tensor]:
    """The next states h and c of an LSTM, and its gates: what follows the products of a step."""
def lstm_cell_backward(grad_h: TensorLike | None, grad_c: TensorLike | None, gates: TensorLike, c: TensorLike, c_next: TensorLike) -> tuple[Tensor, Tensor]:
    """Gradients of lstm_cell's x (and r, which is the same) and c from those of the next states (None: 0)."""
def matmul(x1: Any, x2: Any) -> Tensor:
    """NumPy's matmul: vectors are promoted to matrices and the extra axis is dropped again."""
def max(x: TensorLike, axis: Axes = None, keepdims: builtins.bool = False) -> Tensor:
    """Largest element; NaN if there is one."""
def max_pool2d(x: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, ceil_mode: builtins.bool = False) -> Tensor:
    """Largest element of each window; the first one on ties, NaN if there is one."""
def max_pool2d_backward(grad: TensorLike, taps: TensorLike, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1, ceil_mode: builtins.bool = False, count_include_pad: builtins.bool = True, size: Pair = 1) -> Tensor:
    """Gradient of max_pool2d's input from the tap number of each window's maximum."""
def maximum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of both; NaN if either is NaN."""
def mean(x: TensorLike, axis: Axes = None, keepdims: builtins.bool = False) -> Tensor:
    """Arithmetic mean over axes; NaN for an empty reduction."""
def min(x: TensorLike, axis: Axes = None, keepdims: builtins.bool = False) -> Tensor:
    """Smallest element; NaN if there is one."""
def minimum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of both; NaN if either is NaN."""
def mish(x: TensorLike) -> Tensor:
    """x * tanh(softplus(x)) (Misra, arXiv 1908.08681)."""
def mish_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of mish."""
def multiply(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 * x2; for bool, and."""
def nan_to_num(x: TensorLike, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """NaN and infinities replaced by numbers (default: 0 and the dtype's limits)."""
def negative(x: TensorLike) -> Tensor:
    """-x."""
def not_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 != x2."""
def one_hot(x: TensorLike, num_classes: int, dtype: DTypeLike | None = None) -> Tensor:
    """A last axis of size num_classes with 1 at the class number."""
def pad(x: TensorLike, pads: Pads, value: float = 0.0) -> Tensor:
    """x with `value` around it; pads is ((before, after), ...) per dimension."""
def positive(x: TensorLike) -> Tensor:
    """+x (a copy)."""
def power(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 ** x2."""
def prod(self: TensorLike, axis: Any = None, dtype: Any = None, keepdims: builtins.bool = False) -> Tensor:
    """Product over axes, with NumPy's argument order."""
def rad2deg(x: TensorLike) -> Tensor:
    """x * 180 / pi."""
def random_bits(x: TensorLike, seed: int, offset: int) -> Tensor:
    """Fills x (unsigned or signed 32/64-bit integers) with random bits, in place."""
def random_integers(x: TensorLike, seed: int, offset: int, low: int, high: int) -> Tensor:
    """Fills x with integers in [low, high), in place, without bias."""
def random_normal(x: TensorLike, seed: int, offset: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fills x with normal numbers, in place."""
def random_uniform(x: TensorLike, seed: int, offset: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fills x with uniform numbers in [low, high), in place."""
def reciprocal(x: TensorLike) -> Tensor:
    """1 / x."""
def relu(x: TensorLike) -> Tensor:
    """max(x, 0); NaN stays NaN."""
def relu6(x: TensorLike) -> Tensor:
    """min(max(x, 0), 6)."""
def relu6_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """grad where 0 < x < 6, else 0."""
def relu_backward(grad: TensorLike, result: TensorLike) -> Tensor:
    """grad where the output is positive, else 0."""
def remainder(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 - x2 * floor(x1 / x2); the sign of x2."""
def right_shift(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 >> x2, arithmetic."""
def rmsprop_step(param: TensorLike, grad: TensorLike, square_avg: TensorLike, momentum_buffer: TensorLike | None, grad_avg: TensorLike | None, hyper: TensorLike) -> Tensor:
    """hyper: lr, alpha, eps, weight_decay, momentum, maximize, step (Tieleman & Hinton 2012)."""
def round(self: TensorLike, decimals: int = 0) -> Tensor:
    """Rounded to `decimals` places, halves to even."""
def rsqrt(x: TensorLike) -> Tensor:
    """1 / sqrt(x)."""
def scatter_add(x: TensorLike, indices: TensorLike, values: TensorLike, axis: Axis = -1) -> Tensor:
    """A copy of x with `values` added at `indices` along an axis; repeated indices add up in a fixed order."""
def selu(x: TensorLike) -> Tensor:
    """Scaled elu (Klambauer et al., arXiv 1706.02515)."""
def selu_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of selu."""
def set_num_threads(n: int) -> None:
    """How many threads work on one op (1 to 1024). Results do not depend on it."""
def sgd_step(param: TensorLike, grad: TensorLike, momentum_buffer: TensorLike | None, hyper: TensorLike) -> Tensor:
    """hyper: lr, momentum, dampening, weight_decay, nesterov, maximize, step."""
def sigmoid(x: TensorLike) -> Tensor:
    """1 / (1 + exp(-x))."""
def sigmoid_backward(grad: TensorLike, result: TensorLike) -> Tensor:
    """Gradient of sigmoid from its output."""
def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1; NaN stays NaN; complex: x / abs(x)."""
def signbit(x: TensorLike) -> Tensor:
    """Whether the sign bit is set (also of -0.0 and NaN)."""
def silu(x: TensorLike) -> Tensor:
    """x * sigmoid(x) (also known as swish)."""
def silu_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of silu."""
def sin(x: TensorLike) -> Tensor:
    """Sine; x in radians."""
def sinc(x: TensorLike) -> Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
def sinh(x: TensorLike) -> Tensor:
    """Hyperbolic sine."""
def softmax(x: TensorLike, axis: Axis = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
def softmax_backward(grad: TensorLike, out: TensorLike, axis: Axis = -1) -> Tensor:
    """Gradient of softmax from its output."""
def softplus(x: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
def softplus_backward(grad: TensorLike, x: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Gradient of softplus."""
def softsign(x: TensorLike) -> Tensor:
    """x / (1 + abs(x))."""
def softsign_backward(grad: TensorLike, x: TensorLike) -> Tensor:
    """Gradient of softsign."""
def sqrt(x: TensorLike) -> Tensor:
    """Square root."""
def square(x: TensorLike) -> Tensor:
    """x * x."""
def std(self: TensorLike, axis: Any = None, ddof: float = 0.0, keepdims: builtins.bool = False, correction: float | None = None) -> Tensor:
    """Standard deviation over axes."""
def subtract(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 - x2."""
def sum(self: TensorLike, axis: Any = None, dtype: Any = None, keepdims: builtins.bool = False, **kwargs: Any) -> Tensor:
    """Sum over axes, with NumPy's argument order."""
def take(x: TensorLike, indices: TensorLike, axis: Axis = 0) -> Tensor:
    """Slices of x at `indices` along an axis (an embedding look-up for axis 0); negative indices count from the end."""
def take_along_axis(x: TensorLike, indices: TensorLike, axis: Axis = -1) -> Tensor:
    """Elements of x at `indices` (same rank) along an axis."""
def take_backward(grad: TensorLike, indices: TensorLike, axis: int, size: int) -> Tensor:
    """Sum of grad's slices per index: gradient of take for an axis of `size`; repeated indices add in a fixed order."""
def tan(x: TensorLike) -> Tensor:
    """Tangent; x in radians."""
def tanh(x: TensorLike) -> Tensor:
    """Hyperbolic tangent."""
def tanh_backward(grad: TensorLike, result: TensorLike) -> Tensor:
    """Gradient of tanh from its output."""
def tensor(obj: Any, dtype: DTypeLike | None = None, *, copy: builtins.bool = True, requires_grad: builtins.bool = False, device: Any = None) -> Tensor:
    """A new tensor of array-like data (a copy unless ``copy=False`` allows sharing)."""
def tril(x: TensorLike, k: int = 0) -> Tensor:
    """Lower triangle of the last two axes; zeros above diagonal k."""
def triu(x: TensorLike, k: int = 0) -> Tensor:
    """Upper triangle of the last two axes; zeros below diagonal k."""
def trunc(x: TensorLike) -> Tensor:
    """The integer part."""
def unsqueeze(x: Any, /, axis: Any = 0) -> Tensor:
    """A new dimension of size 1 at `axis`."""
def var(self: TensorLike, axis: Any = None, ddof: float = 0.0, keepdims: builtins.bool = False, correction: float | None = None) -> Tensor:
    """Variance over axes, with NumPy's argument order."""
def where(condition: TensorLike, x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 where the condition is true, else x2."""

absolute = abs
acos = arccos
acosh = arccosh
amax = max
amin = min
asin = arcsin
asinh = arcsinh
atan = arctan
atan2 = arctan2
atanh = arctanh
bitwise_invert = bitwise_not
bitwise_left_shift = left_shift
bitwise_right_shift = right_shift
conjugate = conj
invert = bitwise_not
mod = remainder
pow = power
true_divide = divide
