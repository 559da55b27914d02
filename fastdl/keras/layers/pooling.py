"""Pooling over (N, H, W, C) and (N, T, C)."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl.errors import ValueError_

from .._tensor import floating
from .base import Layer
from .convolution import channels_first, channels_last, check_format, pair, same_padding


class _Pooling(Layer):
    _rank = 2
    _largest = True

    def __init__(self, pool_size: Any = 2, strides: Any = None, padding: str = "valid", data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_format(type(self).__name__, data_format)
        if padding.lower() not in ("valid", "same"):
            raise ValueError_(f"{type(self).__name__}: padding must be 'valid' or 'same'; got {padding!r}")
        self.pool_size = pair(pool_size, self._rank)
        self.strides = self.pool_size if strides is None else pair(strides, self._rank)
        self.padding = padding.lower()

    def call(self, x: Any) -> Any:
        one = self._rank == 1
        y = channels_first(floating(x))
        y = fd.expand_dims(y, 2) if one else y
        size, strides = ((1, *self.pool_size), (1, *self.strides)) if one else (self.pool_size, self.strides)
        sides = same_padding(y.shape[2:], size, strides, (1, 1)) if self.padding == "same" else [(0, 0), (0, 0)]
        y = self._pool(y, size, strides, sides)
        return channels_last(fd.squeeze(y, axis=2) if one else y)

    def _pool(self, y: Any, size: Any, strides: Any, sides: Any) -> Any:
        padded = any(side != (0, 0) for side in sides)
        pads = [(0, 0), (0, 0), *sides]
        if self._largest:
            return fd.max_pool2d(fd.pad(y, pads, -float("inf")) if padded else y, size, strides)
        if not padded:
            return fd.avg_pool2d(y, size, strides)
        share = fd.avg_pool2d(fd.pad(fd.ones((1, 1, *y.shape[2:])), pads, 0.0), size, strides)  # of each window inside the image
        return fd.avg_pool2d(fd.pad(y, pads, 0.0), size, strides) / share


class MaxPooling2D(_Pooling):
    """Largest element of each window.

    Parameters
    ----------
    pool_size : int or pair of int
    strides : int or pair of int, optional
        Default: the pool size.
    padding : {"valid", "same"}

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> keras.layers.MaxPooling2D(2)(np.arange(16.0).reshape(1, 4, 4, 1)).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """


class AveragePooling2D(_Pooling):
    """Mean of each window; padding does not count."""

    _largest = False


class MaxPooling1D(_Pooling):
    """Largest element of each window of (N, T, C)."""

    _rank = 1


class AveragePooling1D(_Pooling):
    """Mean of each window of (N, T, C); padding does not count."""

    _rank = 1
    _largest = False


class _Global(Layer):
    def __init__(self, data_format: Any = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_format(type(self).__name__, data_format)
        self.keepdims = keepdims


class GlobalAveragePooling2D(_Global):
    """Mean over all pixels: (N, C)."""

    def call(self, x: Any) -> Any:
        return floating(x).mean(axis=tuple(range(1, x.ndim - 1)), keepdims=self.keepdims)


class GlobalMaxPooling2D(_Global):
    """Maximum over all pixels: (N, C)."""

    def call(self, x: Any) -> Any:
        return x.max(axis=tuple(range(1, x.ndim - 1)), keepdims=self.keepdims)


class GlobalAveragePooling1D(GlobalAveragePooling2D):
    """Mean over all steps: (N, C)."""


class GlobalMaxPooling1D(GlobalMaxPooling2D):
    """Maximum over all steps: (N, C)."""


MaxPool1D, MaxPool2D, AvgPool1D, AvgPool2D = MaxPooling1D, MaxPooling2D, AveragePooling1D, AveragePooling2D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
