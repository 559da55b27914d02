"""Conv1d and Conv2d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fastdl as fd

from . import functional as F, init
from .module import Module
from .parameter import Parameter

_Size = int | Sequence[int]
_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What Conv1d and Conv2d share: settings, parameters and their initial values."""

    bias: Parameter | None
    padding: str | tuple[int, ...]

    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size,
        padding: _Size | str,
        dilation: _Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: channels {in_channels} and {out_channels} must be divisible by groups {groups} >= 1")
        if padding_mode not in _MODES:
            raise ValueError(f"{name}: padding_mode must be one of {', '.join(_MODES)}; got {padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _tuple(kernel_size, rank, f"{name}: kernel_size", 1)
        self.stride = _tuple(stride, rank, f"{name}: stride", 1)
        self.dilation = _tuple(dilation, rank, f"{name}: dilation", 1)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{name}: padding must be numbers, 'same' or 'valid'; got {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{name}: padding='same' needs stride 1; got {self.stride}")
            self.padding = padding
        else:
            self.padding = _tuple(padding, rank, f"{name}: padding", 0)
        self.groups = groups
        self.padding_mode = padding_mode
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(fd.empty(shape, dtype=dtype, device=device))
        if bias:
            self.bias = Parameter(fd.empty((out_channels,), dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = init.fans(self.weight)[0]
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def _padded(self, x: fd.Tensor) -> fd.Tensor:
        """The input with the padding that is not zeros."""
        if isinstance(self.padding, str):
            total = [d * (k - 1) if self.padding == "same" else 0 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(p, p) for p in self.padding]
        return F.pad(x, [p for side in reversed(sides) for p in side], mode=self.padding_mode)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * len(self.kernel_size):
            text += f", padding={self.padding}"
        if self.dilation != (1,) * len(self.kernel_size):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv2d(_Conv):
    """Convolution over images.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or pair of int
        `padding` may also be "valid" (none) or "same" (the output has the input's size; stride 1 only).
    groups : int
        Channels are split into this many groups, convolved separately.
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    device, dtype : optional

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, kernel height, kernel width), uniform in +-1 / sqrt(fan_in).
    bias : Parameter or None
        (out_channels,), uniform in the same bounds.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Conv2d(3, 8, 3, padding="same")(fd.ones((2, 3, 10, 12))).shape
    (2, 8, 10, 12)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            2, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        if self.padding_mode != "zeros":
            return F.conv2d(self._padded(input), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _forward_activated(self, input: fd.Tensor, activation: Any) -> fd.Tensor:
        if self.padding_mode == "zeros" and not isinstance(self.padding, str) and input.ndim == 4:
            return fd.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, activation)
        return getattr(fd, activation)(self.forward(input))


class Conv1d(_Conv):
    """Convolution over sequences (N, C, L) or (C, L): the arguments of :class:`Conv2d` in one dimension.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Conv1d(4, 6, 3, stride=2)(fd.ones((2, 4, 11))).shape
    (2, 6, 5)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            1, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        if self.padding_mode != "zeros":
            return F.conv1d(self._padded(input), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return F.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _tuple(value: Any, rank: int, name: str, least: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != rank or any(v < least for v in values):
        raise ValueError(f"{name} must be one or {rank} integers >= {least}; got {value!r}")
    return values
