"""Convolutions over (N, H, W, C) and (N, T, C). Kernels run on the same memory seen as NCHW; weights have Keras's shapes outside."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl.errors import ShapeError, ValueError_
from fastdl.nn import functional as F

from .. import activations
from .._tensor import floating
from .base import Layer


def pair(value: Any, rank: int) -> tuple[int, ...]:
    result = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(result) != rank or any(v < 1 for v in result):
        raise ValueError_(f"layer: sizes and strides must be {rank} positive integers; got {value!r}")
    return result


def channels_first(x: Any) -> Any:
    """(N, ..., C) seen as (N, C, ...): a view."""
    return fd.permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def channels_last(x: Any) -> Any:
    """(N, C, ...) seen as (N, ..., C): a view."""
    return fd.permute_dims(x, (0, *range(2, x.ndim), 1))


def same_padding(size: Any, kernel: Any, stride: Any, dilation: Any) -> list[tuple[int, int]]:
    """Zeros before and after each axis, so that the output has ceil(size / stride) places; the odd one is after."""
    sides = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        sides.append((total // 2, total - total // 2))
    return sides


def check_format(name: str, data_format: Any) -> None:
    if data_format not in (None, "channels_last"):
        raise ValueError_(f"{name}: data_format must be 'channels_last'; got {data_format!r}")


class _Conv(Layer):
    """Settings and the forward pass of the convolutions; kernel (*size, in / groups, filters)."""

    _rank = 2

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1,
        groups: int = 1, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros", kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
        kernel_constraint: Any = None, bias_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        name, rank = type(self).__name__, self._rank
        check_format(name, data_format)
        if padding.lower() not in ("valid", "same", *(("causal",) if rank == 1 else ())):
            raise ValueError_(f"{name}: padding must be 'valid' or 'same'; got {padding!r}")
        self.filters, self.groups, self.use_bias = filters, groups, use_bias
        self.kernel_size, self.strides = pair(kernel_size, rank), pair(strides, rank)
        self.dilation_rate, self.padding = pair(dilation_rate, rank), padding.lower()
        self.activation = activations.get(activation)
        self._kernel = dict(initializer=kernel_initializer, regularizer=kernel_regularizer, constraint=kernel_constraint)
        self._bias = dict(initializer=bias_initializer, regularizer=bias_regularizer, constraint=bias_constraint)

    def build(self, input_shape: Any) -> None:
        rank, channels = self._rank, input_shape[-1]
        if len(input_shape) != rank + 2:
            raise ShapeError(f"{type(self).__name__}: got shape {input_shape}; need {rank + 2} dimensions, channels last")
        if channels % self.groups or self.filters % self.groups:
            raise ValueError_(f"{type(self).__name__}: {channels} channels and {self.filters} filters must be divisible by {self.groups} groups")
        self.w = self._add_kernel("kernel", (*self.kernel_size, channels // self.groups, self.filters), self._kernel)
        self.b = self.add_weight((self.filters,), name="bias", **self._bias) if self.use_bias else None

    def _add_kernel(self, name: str, shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
        """A kernel (*size, in, out), held as (out, in, *size)."""
        rank = len(shape) - 2
        return self.add_weight(shape, name=name, axes=(*range(2, rank + 2), 1, 0), **settings)

    def _convolve(self, x: Any, w: Any, b: Any, strides: Any, groups: int) -> Any:
        """x and the result channels first; any padding of Keras's."""
        rank = self._rank
        sides = [(0, 0)] * rank
        if self.padding == "same":
            sides = same_padding(x.shape[2:], w.shape[2:], strides, self.dilation_rate)
        elif self.padding == "causal":
            sides = [(self.dilation_rate[0] * (w.shape[2] - 1), 0)]
        if any(a != b for a, b in sides):
            x = fd.pad(x, [(0, 0), (0, 0), *sides], 0.0)
            sides = [(0, 0)] * rank
        function = F.conv2d if rank == 2 else F.conv1d
        return function(x, w, b, strides, tuple(a for a, _ in sides), self.dilation_rate, groups)

    def call(self, x: Any) -> Any:
        y = self._convolve(channels_first(floating(x)), self.w, self.b, self.strides, self.groups)
        return channels_last(self.activation(y)) if self._pointwise() else self.activation(channels_last(y))

    def _pointwise(self) -> bool:
        """Whether the activation does not care which axis is which: then it can join the convolution."""
        return self.activation in (activations.relu, activations.tanh, activations.sigmoid, activations.linear)


class Conv2D(_Conv):
    """Convolution of (N, H, W, C) with a kernel (KH, KW, C / groups, filters).

    Parameters
    ----------
    filters : int
    kernel_size, strides, dilation_rate : int or pair of int
    padding : {"valid", "same"}
    groups : int
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint : optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> layer = keras.layers.Conv2D(8, 3, padding="same", activation="relu")
    >>> layer(np.ones((2, 6, 6, 3))).shape, layer.kernel.shape
    ((2, 6, 6, 8), (3, 3, 3, 8))
    """


class Conv1D(_Conv):
    """Convolution of (N, T, C) with a kernel (K, C / groups, filters); padding may also be "causal"."""

    _rank = 1


class Conv2DTranspose(_Conv):
    """Transposed convolution, which makes images larger; kernel (KH, KW, filters, in). "same": `strides` times the size."""

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", output_padding: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, **kwargs)
        self.output_padding = None if output_padding is None else (output_padding,) * 2 if isinstance(output_padding, int) else tuple(output_padding)

    def build(self, input_shape: Any) -> None:
        shape = (*self.kernel_size, self.filters, input_shape[-1])
        self.w = self.add_weight(shape, name="kernel", axes=(2, 3, 1, 0), **self._kernel)  # held as (in, out, KH, KW)
        self.b = self.add_weight((self.filters,), name="bias", **self._bias) if self.use_bias else None

    def call(self, x: Any) -> Any:
        y = F.conv_transpose2d(channels_first(floating(x)), self.w, None, self.strides, 0, 0, 1, self.dilation_rate)
        cuts, pads = [], []
        for n, full, k, s, d, extra in zip(
            x.shape[1:3], y.shape[2:], self.kernel_size, self.strides, self.dilation_rate, self.output_padding or (None, None), strict=True
        ):
            reach = d * (k - 1) + 1
            if self.padding == "valid":
                before, wanted = 0, n * s + max(reach - s, 0) if extra is None else (n - 1) * s + reach + extra
            else:
                wanted = n * s if extra is None else (n - 1) * s + reach - 2 * (reach // 2) + extra
                before = max(reach - s, 0) // 2 if extra is None else reach // 2
            cuts.append(slice(before, min(before + wanted, full)))
            pads.append((0, max(before + wanted - full, 0)))
        y = y[(slice(None), slice(None), *cuts)]
        if any(after for _, after in pads):
            y = fd.pad(y, [(0, 0), (0, 0), *pads], 0.0)
        y = channels_last(y)
        return self.activation(y if self.b is None else y + self.b)


class DepthwiseConv2D(_Conv):
    """Each channel convolved by itself with `depth_multiplier` kernels; kernel (KH, KW, C, depth_multiplier)."""

    def __init__(
        self, kernel_size: Any, strides: Any = 1, padding: str = "valid", depth_multiplier: int = 1,
        depthwise_initializer: Any = "glorot_uniform", depthwise_regularizer: Any = None, depthwise_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(1, kernel_size, strides, padding, **kwargs)
        self.depth_multiplier = depth_multiplier
        self._kernel = dict(initializer=depthwise_initializer, regularizer=depthwise_regularizer, constraint=depthwise_constraint)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.w = self._add_depthwise(channels, self._kernel)
        self.b = self.add_weight((channels * self.depth_multiplier,), name="bias", **self._bias) if self.use_bias else None

    def _add_depthwise(self, channels: int, settings: dict[str, Any]) -> Any:
        """A kernel (KH, KW, C, multiplier), held as (C, multiplier, KH, KW)."""
        name = "kernel" if type(self) is DepthwiseConv2D else "depthwise_kernel"
        return self.add_weight((*self.kernel_size, channels, self.depth_multiplier), name=name, axes=(2, 3, 0, 1), **settings)

    def _depthwise(self, x: Any, w: Any, b: Any) -> Any:
        channels = w.shape[0]
        return self._convolve(x, w.reshape((channels * self.depth_multiplier, 1, *self.kernel_size)), b, self.strides, channels)

    def call(self, x: Any) -> Any:
        return self.activation(channels_last(self._depthwise(channels_first(floating(x)), self.w, self.b)))


class SeparableConv2D(DepthwiseConv2D):
    """A depthwise convolution and then one of 1x1 (Chollet, 2017)."""

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", depth_multiplier: int = 1,
        pointwise_initializer: Any = "glorot_uniform", pointwise_regularizer: Any = None, pointwise_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, strides, padding, depth_multiplier, **kwargs)
        self.filters = filters
        self._pointwise_settings = dict(initializer=pointwise_initializer, regularizer=pointwise_regularizer, constraint=pointwise_constraint)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.w = self._add_depthwise(channels, self._kernel)
        self.w2 = self._add_kernel("pointwise_kernel", (1, 1, channels * self.depth_multiplier, self.filters), self._pointwise_settings)
        self.b = self.add_weight((self.filters,), name="bias", **self._bias) if self.use_bias else None

    def call(self, x: Any) -> Any:
        y = self._depthwise(channels_first(floating(x)), self.w, None)
        return self.activation(channels_last(fd.conv2d(y, self.w2, self.b)))


class ZeroPadding2D(Layer):
    """Zeros around (N, H, W, C): a number, (vertical, horizontal), or ((top, bottom), (left, right))."""

    def __init__(self, padding: Any = 1, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_format("ZeroPadding2D", data_format)
        padding = (padding, padding) if isinstance(padding, int) else tuple(padding)
        self.padding = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)

    def call(self, x: Any) -> Any:
        return fd.pad(x, [(0, 0), *self.padding, (0, 0)], 0.0)


class ZeroPadding1D(Layer):
    """Zeros before and after (N, T, C)."""

    def __init__(self, padding: Any = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = (padding, padding) if isinstance(padding, int) else tuple(padding)

    def call(self, x: Any) -> Any:
        return fd.pad(x, [(0, 0), self.padding, (0, 0)], 0.0)


class Cropping2D(Layer):
    """Cut pixels off (N, H, W, C): a number, (vertical, horizontal), or ((top, bottom), (left, right))."""

    def __init__(self, cropping: Any = 0, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_format("Cropping2D", data_format)
        cropping = (cropping, cropping) if isinstance(cropping, int) else tuple(cropping)
        self.cropping = tuple((c, c) if isinstance(c, int) else tuple(c) for c in cropping)

    def call(self, x: Any) -> Any:
        (top, bottom), (left, right) = self.cropping
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


class UpSampling2D(Layer):
    """Each pixel `size` times in both directions, or a bilinear picture of that size."""

    def __init__(self, size: Any = 2, data_format: Any = None, interpolation: str = "nearest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_format("UpSampling2D", data_format)
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError_(f"UpSampling2D: interpolation must be 'nearest' or 'bilinear'; got {interpolation!r}")
        self.size, self.interpolation = pair(size, 2), interpolation

    def call(self, x: Any) -> Any:
        size = (x.shape[1] * self.size[0], x.shape[2] * self.size[1])
        return channels_last(F.interpolate(channels_first(floating(x)), size=size, mode=self.interpolation))
