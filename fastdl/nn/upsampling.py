"""Layers that make images and sequences larger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fastdl as fd

from . import functional as F, init
from .conv import _Size, _tuple
from .module import Module
from .parameter import Parameter


class _ConvTranspose(Module):
    """Settings and parameters of the transposed convolutions."""

    bias: Parameter | None
    _rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        output_padding: _Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: channels {in_channels} and {out_channels} must be divisible by groups {groups} >= 1")
        if padding_mode != "zeros":
            raise ValueError(f"{name}: padding_mode must be 'zeros'; got {padding_mode!r}")
        rank = self._rank
        self.in_channels, self.out_channels, self.groups, self.padding_mode = in_channels, out_channels, groups, padding_mode
        self.kernel_size = _tuple(kernel_size, rank, f"{name}: kernel_size", 1)
        self.stride = _tuple(stride, rank, f"{name}: stride", 1)
        self.padding = _tuple(padding, rank, f"{name}: padding", 0)
        self.output_padding = _tuple(output_padding, rank, f"{name}: output_padding", 0)
        self.dilation = _tuple(dilation, rank, f"{name}: dilation", 1)
        self.weight = Parameter(fd.empty((in_channels, out_channels // groups, *self.kernel_size), dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(fd.empty((out_channels,), dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = init.fans(self.weight)[0]
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, input: fd.Tensor, output_size: Sequence[int] | None = None) -> fd.Tensor:
        """The larger image; `output_size` (its last dimensions) takes the place of `output_padding`."""
        extra = self.output_padding if output_size is None else self._fitting(input, [int(n) for n in output_size])
        function = F.conv_transpose2d if self._rank == 2 else F.conv_transpose1d
        return function(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _fitting(self, input: fd.Tensor, wanted: list[int]) -> tuple[int, ...]:
        wanted, old = wanted[-self._rank :], input.shape[-self._rank :]
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(old, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        ]
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        if len(wanted) != len(least) or any(not a <= n <= b for a, n, b in zip(least, wanted, most, strict=True)):
            raise ValueError(f"{type(self).__name__}: output_size {wanted} must be between {least} and {most}")
        return tuple(n - a for n, a in zip(wanted, least, strict=True))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        rest = {"padding": 0, "output_padding": 0, "dilation": 1}
        text += "".join(f", {n}={getattr(self, n)}" for n, usual in rest.items() if getattr(self, n) != (usual,) * self._rank)
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + (", bias=False" if self.bias is None else "")


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over images, the way back of a :class:`Conv2d` with the same settings.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding : int or pair of int
        See :func:`functional.conv_transpose2d`.
    groups : int
    bias : bool
    dilation : int or pair of int
    padding_mode : {"zeros"}
    device, dtype : optional

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, kernel height, kernel width).
    bias : Parameter or None
        (out_channels,).

    Raises
    ------
    ValueError
        When channels are not divisible by groups, or sizes are out of range.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(fd.ones((2, 8, 7, 7))).shape
    (2, 3, 14, 14)
    """


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over sequences (N, C, L) or (C, L): the arguments of :class:`ConvTranspose2d`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.ConvTranspose1d(4, 2, 3, stride=2)(fd.ones((2, 4, 5))).shape
    (2, 2, 11)
    """

    _rank = 1


class Upsample(Module):
    """:func:`functional.interpolate` as a layer.

    Parameters
    ----------
    size, scale_factor : number or sequence, optional
        One of them.
    mode : str
    align_corners, recompute_scale_factor : bool, optional

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Upsample(scale_factor=2, mode="bilinear")(fd.ones((1, 3, 4, 5))).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self,
        size: _Size | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        target = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{target}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """:class:`Upsample` with mode "nearest"."""

    def __init__(self, size: _Size | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """:class:`Upsample` with mode "bilinear" and aligned corners."""

    def __init__(self, size: _Size | None = None, scale_factor: float | Sequence[float] | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """:func:`functional.pixel_shuffle` as a layer: (N, C r^2, H, W) -> (N, C, H r, W r)."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """:func:`functional.pixel_unshuffle` as a layer: (N, C, H r, W r) -> (N, C r^2, H, W)."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"
