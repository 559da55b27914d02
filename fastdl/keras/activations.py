"""Activation functions by Keras's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastdl as fd
from fastdl.errors import TypeError_, ValueError_

from ._serial import register

relu_op, softmax_op = fd.relu, fd.softmax


@register
def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """max(x, 0); with a slope below `threshold`, and cut at `max_value`."""
    if threshold:
        y = fd.where(x >= threshold, x, negative_slope * (x - threshold))
    else:
        y = fd.leaky_relu(x, negative_slope) if negative_slope else relu_op(x)
    return y if max_value is None else fd.minimum(y, max_value)


@register
def linear(x: Any) -> Any:
    """x."""
    return x


@register
def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along `axis`."""
    return softmax_op(x, axis)


@register
def log_softmax(x: Any, axis: int = -1) -> Any:
    """log(softmax(x))."""
    return fd.log_softmax(x, axis)


@register
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return fd.sigmoid(x)


@register
def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6."""
    return fd.hardsigmoid(x)


@register
def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return fd.tanh(x)


@register
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x, or alpha (exp(x) - 1) below zero."""
    return fd.elu(x, alpha)


@register
def selu(x: Any) -> Any:
    """The elu that keeps mean 0 and variance 1."""
    return fd.selu(x)


@register
def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the normal distribution function."""
    return fd.nn.functional.gelu(x, "tanh" if approximate else "none")


@register
def silu(x: Any) -> Any:
    """x sigmoid(x)."""
    return fd.silu(x)


@register
def mish(x: Any) -> Any:
    """x tanh(softplus(x))."""
    return fd.mish(x)


@register
def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return fd.softplus(x)


@register
def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    return fd.softsign(x)


@register
def exponential(x: Any) -> Any:
    """exp(x)."""
    return fd.exp(x)


@register
def relu6(x: Any) -> Any:
    """min(relu(x), 6)."""
    return fd.relu6(x)


@register
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x, or negative_slope * x below zero."""
    return fd.leaky_relu(x, negative_slope)


swish = silu
_NAMES: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        relu, linear, softmax, log_softmax, sigmoid, hard_sigmoid, tanh, elu, selu, gelu, silu, mish, softplus, softsign, exponential, relu6,
        leaky_relu,
    )
} | {"swish": silu}  # fmt: skip


def get(identifier: Any) -> Callable[..., Any]:
    """The function of a name; functions and layers stay, None is `linear`.

    Raises
    ------
    ValueError
        When no activation has that name.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import keras
    >>> keras.activations.get("relu")(fd.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        if identifier not in _NAMES:
            raise ValueError_(f"activation {identifier!r} is unknown; there are {', '.join(sorted(_NAMES))}")
        return _NAMES[identifier]
    if callable(identifier):
        return identifier
    raise TypeError_(f"activation: need a name or a function, not {type(identifier).__name__}")
