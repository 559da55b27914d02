"""Dense, Embedding, activations, dropout and changes of shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import fastdl as fd
from fastdl.errors import ShapeError, TypeError_, ValueError_
from fastdl.nn import functional as F

from .. import activations
from .._tensor import KerasTensor, floating
from .base import Layer, unique_name


def Input(shape: Any = None, batch_size: int | None = None, dtype: Any = None, name: str | None = None, batch_shape: Any = None) -> KerasTensor:
    """An input of the functional API.

    Parameters
    ----------
    shape : tuple of int or None
        Without the batch.
    batch_size : int, optional
    dtype : str, optional
        float32 unless given.
    name : str, optional
    batch_shape : tuple, optional
        The whole shape, instead of `shape` and `batch_size`.

    Examples
    --------
    >>> from fastdl import keras
    >>> keras.Input((28, 28, 1), name="image").shape
    (None, 28, 28, 1)
    """
    if (shape is None) == (batch_shape is None):
        raise ValueError_("Input: need either shape or batch_shape")
    whole = (batch_size, *((shape,) if isinstance(shape, int) else shape)) if batch_shape is None else tuple(batch_shape)
    return KerasTensor(whole, str(dtype or "float32"), None, name or unique_name("InputLayer"))


class InputLayer(Layer):
    """What stands for the input in `Sequential` models."""

    def __init__(self, shape: Any = None, batch_size: int | None = None, dtype: Any = None, input_shape: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_shape = (batch_size, *(shape if shape is not None else input_shape))
        self.dtype = str(dtype or "float32")

    def call(self, x: Any) -> Any:
        return x


class Dense(Layer):
    """activation(x @ kernel + bias) along the last axis; kernel (in, units).

    Parameters
    ----------
    units : int
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint : optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> layer = keras.layers.Dense(4, activation="relu")
    >>> layer(np.ones((2, 3))).shape, layer.kernel.shape
    ((2, 4), (3, 4))
    """

    def __init__(
        self, units: int, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros", kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
        kernel_constraint: Any = None, bias_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if not isinstance(units, int) or units < 1:
            raise ValueError_(f"Dense: units must be a positive integer; got {units!r}")
        self.units, self.use_bias = units, use_bias
        self.activation = activations.get(activation)
        self._kernel = dict(initializer=kernel_initializer, regularizer=kernel_regularizer, constraint=kernel_constraint)
        self._bias = dict(initializer=bias_initializer, regularizer=bias_regularizer, constraint=bias_constraint)

    def build(self, input_shape: Any) -> None:
        self.w = self.add_weight((input_shape[-1], self.units), name="kernel", axes=(1, 0), **self._kernel)
        self.b = self.add_weight((self.units,), name="bias", **self._bias) if self.use_bias else None

    def call(self, x: Any) -> Any:
        return self.activation(fd.linear(floating(x), self.w, self.b))


class Embedding(Layer):
    """Rows of a table (input_dim, output_dim) by integer."""

    def __init__(
        self, input_dim: int, output_dim: int, embeddings_initializer: Any = "uniform", embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None, mask_zero: bool = False, weights: Any = None, input_length: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if input_length is not None and "input_shape" not in kwargs:
            kwargs["input_shape"] = (input_length,)
        super().__init__(**kwargs)
        if mask_zero:
            raise ValueError_("Embedding: mask_zero is not supported; pad on the left (pad_sequences' default) and leave it out")
        self.input_dim, self.output_dim, self._table = input_dim, output_dim, weights
        self._settings = dict(initializer=embeddings_initializer, regularizer=embeddings_regularizer, constraint=embeddings_constraint)

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight((self.input_dim, self.output_dim), name="embeddings", **self._settings)
        if self._table is not None:
            self.set_weights(self._table if isinstance(self._table, (list, tuple)) else [self._table])

    def call(self, x: Any) -> Any:
        return F.embedding(x.astype(fd.int64), self.table)


class Flatten(Layer):
    """(N, ...) as (N, product), in the order of the array (channels last)."""

    def call(self, x: Any) -> Any:
        return x.reshape((x.shape[0], math.prod(x.shape[1:])))


class Reshape(Layer):
    """(N, ...) as (N, *target_shape); one entry may be -1."""

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def call(self, x: Any) -> Any:
        return x.reshape((x.shape[0], *self.target_shape))


class Permute(Layer):
    """Change the order of the axes; `dims` counts from 1, without the batch."""

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError_(f"Permute: dims must be a permutation of 1 .. {len(self.dims)}; got {self.dims}")

    def call(self, x: Any) -> Any:
        return fd.permute_dims(x, (0, *self.dims))


class RepeatVector(Layer):
    """(N, D) as (N, n, D)."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n

    def call(self, x: Any) -> Any:
        return fd.stack([x] * self.n, axis=1)


class Lambda(Layer):
    """Any function of tensors. To be saved it must be a registered function, not a lambda."""

    def __init__(self, function: Callable[..., Any], output_shape: Any = None, arguments: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError_(f"Lambda: need a function, not {type(function).__name__}")
        self.function, self.arguments = function, arguments or {}

    def call(self, x: Any) -> Any:
        return self.function(x, **self.arguments)


class Activation(Layer):
    """An activation as a layer."""

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, x: Any) -> Any:
        return self.activation(floating(x))


class ReLU(Layer):
    """max(x, 0), with a slope below `threshold`, cut at `max_value`."""

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = (negative_slope, max_value, threshold)

    def call(self, x: Any) -> Any:
        return activations.relu(floating(x), *self.settings)


class LeakyReLU(Layer):
    """x, or negative_slope * x below zero."""

    def __init__(self, negative_slope: float = 0.3, alpha: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = negative_slope if alpha is None else alpha

    def call(self, x: Any) -> Any:
        return fd.leaky_relu(floating(x), self.negative_slope)


class PReLU(Layer):
    """x, or alpha * x below zero, where alpha is learnt for each element except along `shared_axes`."""

    def __init__(self, alpha_initializer: Any = "zeros", shared_axes: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer, self.shared_axes = alpha_initializer, tuple(shared_axes or ())

    def build(self, input_shape: Any) -> None:
        shape = [1 if k in self.shared_axes else n for k, n in enumerate(input_shape)][1:]
        self.slope = self.add_weight(shape, initializer=self.alpha_initializer, name="alpha")

    def call(self, x: Any) -> Any:
        return fd.where(x > 0, x, self.slope * x)


class ELU(Layer):
    """x, or alpha (exp(x) - 1) below zero."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, x: Any) -> Any:
        return fd.elu(floating(x), self.alpha)


class Softmax(Layer):
    """exp(x) / sum(exp(x)) along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Any) -> Any:
        return fd.softmax(floating(x), self.axis)


class Dropout(Layer):
    """In training, zero elements with probability `rate`, scale the others by 1 / (1 - rate); axes of size 1 in `noise_shape` share a draw."""

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError_(f"Dropout: rate must be in [0, 1]; got {rate}")
        self.rate, self.noise_shape = rate, noise_shape
        self.rng = None if seed is None else fd.Generator(seed)

    def call(self, x: Any) -> Any:
        if not self.training or not self.rate:
            return x
        if self.noise_shape is None:
            return F.dropout(floating(x), self.rate, rng=self.rng)
        shape = [n if m is None else m for n, m in zip(x.shape, self.noise_shape, strict=True)]
        return x * F.dropout(fd.ones(shape), self.rate, rng=self.rng)


class SpatialDropout1D(Layer):
    """Dropout of whole channels of (N, T, C)."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.rng = rate, None if seed is None else fd.Generator(seed)

    def call(self, x: Any) -> Any:
        if not self.training or not self.rate:
            return x
        return x * F.dropout(fd.ones((x.shape[0],) + (1,) * (x.ndim - 2) + (x.shape[-1],)), self.rate, rng=self.rng)


class SpatialDropout2D(SpatialDropout1D):
    """Dropout of whole channels of (N, H, W, C)."""


class GaussianNoise(Layer):
    """In training, add normal noise."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev, self.rng = stddev, None if seed is None else fd.Generator(seed)

    def call(self, x: Any) -> Any:
        return x + fd.random.normal(tuple(x.shape), 0.0, self.stddev, rng=self.rng) if self.training else x


class GaussianDropout(Layer):
    """In training, multiply with normal noise of mean 1 and variance rate / (1 - rate)."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.rng = rate, None if seed is None else fd.Generator(seed)

    def call(self, x: Any) -> Any:
        if not self.training or not self.rate:
            return x
        return x * fd.random.normal(tuple(x.shape), 1.0, math.sqrt(self.rate / (1.0 - self.rate)), rng=self.rng)


class Rescaling(Layer):
    """x * scale + offset, in float32."""

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, x: Any) -> Any:
        scale, offset = (v if isinstance(v, (int, float)) else fd.asarray(v, dtype=fd.float32) for v in (self.scale, self.offset))
        return floating(x) * scale + offset


class Resizing(Layer):
    """Bilinear, or by the nearest pixel, to (height, width)."""

    def __init__(self, height: int, width: int, interpolation: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError_(f"Resizing: interpolation must be 'bilinear' or 'nearest'; got {interpolation!r}")
        self.size, self.interpolation = (height, width), interpolation

    def call(self, x: Any) -> Any:
        if x.ndim != 4:
            raise ShapeError(f"resizing: got shape {tuple(x.shape)}; need (N, H, W, C)")
        y = F.interpolate(fd.permute_dims(floating(x), (0, 3, 1, 2)), size=self.size, mode=self.interpolation)
        return fd.permute_dims(y, (0, 2, 3, 1))
