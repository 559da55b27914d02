"""Pooling layers: maximum and average, fixed windows and adaptive, in two dimensions and one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastdl as fd

from . import functional as F
from .module import Module

_Size = int | Sequence[int]


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: _Size,
        stride: _Size | None = None,
        padding: _Size = 0,
        dilation: _Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        if return_indices:
            raise NotImplementedError(f"{type(self).__name__}: return_indices=True is not supported")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool2d(_MaxPool):
    """Maximum over windows of (N, C, H, W) or (C, H, W); a tie goes to the first.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or pair of int
        `stride` defaults to `kernel_size`; padded places never win.
    return_indices : bool
        Not supported.
    ceil_mode : bool
        Round the output size up, not down.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.MaxPool2d(2)(fd.reshape(fd.arange(16.0), (1, 1, 4, 4))).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class MaxPool1d(_MaxPool):
    """Maximum over windows of (N, C, L) or (C, L)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.max_pool1d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: _Size,
        stride: _Size | None = None,
        padding: _Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """Mean over windows of (N, C, H, W) or (C, H, W).

    Parameters
    ----------
    kernel_size, stride, padding : int or pair of int
        `stride` defaults to `kernel_size`.
    ceil_mode : bool
        Round the output size up, not down.
    count_include_pad : bool
        Whether padded zeros count in the divisor.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.AvgPool2d(2)(fd.reshape(fd.arange(16.0), (1, 1, 4, 4))).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool1d(_AvgPool):
    """Mean over windows of (N, C, L) or (C, L)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _Adaptive(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_Adaptive):
    """Mean over a grid of `output_size` windows (an int, or a pair in which None keeps the input's size).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.AdaptiveAvgPool2d(1)(fd.ones((2, 3, 7, 5))).shape
    (2, 3, 1, 1)
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveMaxPool2d(_Adaptive):
    """Maximum over a grid of `output_size` windows."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.adaptive_max_pool2d(input, self.output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """Mean over `output_size` windows of (N, C, L) or (C, L)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveMaxPool1d(_Adaptive):
    """Maximum over `output_size` windows of (N, C, L) or (C, L)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.adaptive_max_pool1d(input, self.output_size)
