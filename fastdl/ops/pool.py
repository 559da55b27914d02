"""Pooling over windows of (N, C, H, W) tensors; rules for padding and ceil_mode are PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op
from .creation import arange
from .index import take_along_axis

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Pair


def _pair(v: Any) -> tuple[int, int]:
    return (v, v) if isinstance(v, int) else tuple(v)


@op(
    vjp=lambda g, taps, x_shape, kernel_size, stride, padding, dilation, ceil_mode: max_pool2d_backward(
        g, taps, kernel_size, stride, padding, dilation, ceil_mode, True, x_shape[2:]
    ),
    returns="y, taps",
)
def max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window; the first one on ties, NaN if there is one."""


def _max_backward_vjp(g: Tensor, taps: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, size: Any) -> tuple:
    # linear in grad: the gradient gathers g where each window's maximum was
    (kh, kw), (ph, pw), (dh, dw) = _pair(kernel_size), _pair(padding), _pair(dilation)
    sh, sw = (kh, kw) if stride is None else _pair(stride)
    t = taps.astype("int64")
    rows = (arange(t.shape[2], device=t.device) * sh - ph)[:, None] + (t // kw) * dh
    cols = (arange(t.shape[3], device=t.device) * sw - pw) + (t % kw) * dw
    n, c = g.shape[:2]
    flat = (rows * g.shape[3] + cols).reshape((n, c, -1))
    return take_along_axis(g.reshape((n, c, -1)), flat, 2).reshape(taps.shape), None


@op(vjp=_max_backward_vjp)
def max_pool2d_backward(
    grad: Tensor,
    taps: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    size: Pair = 1,
) -> Tensor:
    """Gradient of max_pool2d's input from the tap number of each window's maximum."""


@op(
    vjp=lambda g, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad: avg_pool2d_backward(
        g, kernel_size, stride, padding, 1, ceil_mode, count_include_pad, x_shape[2:]
    )
)
def avg_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window (dilation must be 1)."""


@op(
    vjp=lambda g, kernel_size, stride, padding, ceil_mode, count_include_pad: avg_pool2d(
        g, kernel_size, stride, padding, 1, ceil_mode, count_include_pad
    )
)
def avg_pool2d_backward(
    grad: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    size: Pair = 1,
) -> Tensor:
    """Gradient of avg_pool2d's input of size (H, W)."""


@op(vjp=lambda g, x_shape: adaptive_avg_pool2d_backward(g, x_shape[2:]))
def adaptive_avg_pool2d(x: Tensor, output_size: Pair) -> Tensor:
    """Mean over windows that divide the input into output_size cells."""


@op(vjp=lambda g, grad_shape: adaptive_avg_pool2d(g, grad_shape[2:]))
def adaptive_avg_pool2d_backward(grad: Tensor, size: Pair) -> Tensor:
    """Gradient of adaptive_avg_pool2d's input of size (H, W)."""


@op(vjp=lambda g, indices, x_shape: adaptive_max_pool2d_backward(g, indices, x_shape[2:]), returns="y, indices")
def adaptive_max_pool2d(x: Tensor, output_size: Pair) -> Tensor:
    """Maximum over windows that divide the input into output_size cells."""


def _adaptive_max_backward_vjp(g: Tensor, indices: Tensor) -> tuple:
    n, c = g.shape[:2]
    return take_along_axis(g.reshape((n, c, -1)), indices.reshape((n, c, -1)), 2).reshape(indices.shape), None


@op(vjp=_adaptive_max_backward_vjp)
def adaptive_max_pool2d_backward(grad: Tensor, indices: Tensor, size: Pair) -> Tensor:
    """Gradient of adaptive_max_pool2d's input of size (H, W); indices are h * W + w."""
