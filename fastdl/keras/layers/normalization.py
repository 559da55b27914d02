"""Batch and layer normalisation."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd

from .._tensor import floating
from .base import Layer


class BatchNormalization(Layer):
    """Normalise each channel by the batch's mean and variance in training, by their moving averages otherwise (Ioffe and Szegedy, 2015).

    Moving averages take 1 - momentum of each batch; the variance is the biased one, as in Keras. A layer with `trainable = False` does not
    use the batch.

    Parameters
    ----------
    axis : int
        The channels.
    momentum, epsilon : float
    center, scale : bool
        Whether there are beta and gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer : optional
    beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint : optional
    """

    def __init__(
        self, axis: int = -1, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones", beta_regularizer: Any = None, gamma_regularizer: Any = None,
        beta_constraint: Any = None, gamma_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.axis, self.momentum, self.epsilon, self.center, self.scale = axis, momentum, epsilon, center, scale
        self._gamma = dict(initializer=gamma_initializer, regularizer=gamma_regularizer, constraint=gamma_constraint)
        self._beta = dict(initializer=beta_initializer, regularizer=beta_regularizer, constraint=beta_constraint)
        self._moving = moving_mean_initializer, moving_variance_initializer

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[self.axis],)
        self.g = self.add_weight(shape, name="gamma", **self._gamma) if self.scale else None
        self.b = self.add_weight(shape, name="beta", **self._beta) if self.center else None
        self.mean = self.add_weight(shape, self._moving[0], trainable=False, name="moving_mean")
        self.variance = self.add_weight(shape, self._moving[1], trainable=False, name="moving_variance")

    def call(self, x: Any) -> Any:
        x = floating(x)
        axis = self.axis % x.ndim
        order = (0, axis, *[k for k in range(1, x.ndim) if k != axis]) if axis else (axis, *range(1, x.ndim))
        y = fd.permute_dims(x, order)
        training = self.training and self.trainable
        if training:  # the op's own averages would take the unbiased variance
            normal = fd.batch_norm(y, self.g, self.b, None, None, True, 0.0, self.epsilon)
            with fd.no_grad():
                axes = (0, *range(2, y.ndim))
                plain = y.detach()
                self.mean += (plain.mean(axis=axes) - self.mean) * (1.0 - self.momentum)
                self.variance += (plain.var(axis=axes) - self.variance) * (1.0 - self.momentum)
        else:
            normal = fd.batch_norm(y, self.g, self.b, self.mean, self.variance, False, 0.0, self.epsilon)
        return fd.permute_dims(normal, tuple(order.index(k) for k in range(x.ndim)))


class LayerNormalization(Layer):
    """Normalise each example over `axis` (Ba et al., 2016); gamma and beta have the shape of those axes."""

    def __init__(
        self, axis: Any = -1, epsilon: float = 1e-3, center: bool = True, scale: bool = True, beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones", beta_regularizer: Any = None, gamma_regularizer: Any = None, beta_constraint: Any = None,
        gamma_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.axis = (axis,) if isinstance(axis, int) else tuple(axis)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self._gamma = dict(initializer=gamma_initializer, regularizer=gamma_regularizer, constraint=gamma_constraint)
        self._beta = dict(initializer=beta_initializer, regularizer=beta_regularizer, constraint=beta_constraint)

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape[a] for a in self.axis)
        self.g = self.add_weight(shape, name="gamma", **self._gamma) if self.scale else None
        self.b = self.add_weight(shape, name="beta", **self._beta) if self.center else None

    def call(self, x: Any) -> Any:
        x = floating(x)
        axes = [a % x.ndim for a in self.axis]
        others = [k for k in range(x.ndim) if k not in axes]
        order = (*others, *axes)
        moved = fd.permute_dims(x, order)
        y = moved.reshape((*[x.shape[k] for k in others], math.prod(x.shape[a] for a in axes)))
        g, b = (None if w is None else w.reshape((w.size,)) for w in (self.g, self.b))
        y = fd.layer_norm(y, g, b, 1, self.epsilon).reshape(tuple(moved.shape))
        return fd.permute_dims(y, tuple(order.index(k) for k in range(x.ndim)))
