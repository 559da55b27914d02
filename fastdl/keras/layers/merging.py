"""Layers of several inputs, and arithmetic of symbolic tensors."""

from __future__ import annotations

from functools import reduce
from typing import Any

import fastdl as fd
from fastdl.errors import ValueError_

from .base import Layer


class _Merge(Layer):
    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
            raise ValueError_(f"{type(self).__name__}: need a list of at least two inputs")
        return self._merge(list(inputs))

    def _merge(self, xs: list[Any]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define _merge")


class Add(_Merge):
    """Sum of the inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> keras.layers.Add()([np.ones((1, 2)), np.ones((1, 2))]).tolist()
    [[2.0, 2.0]]
    """

    def _merge(self, xs: list[Any]) -> Any:
        return reduce(lambda a, b: a + b, xs)


class Subtract(_Merge):
    """The first input less the second."""

    def _merge(self, xs: list[Any]) -> Any:
        if len(xs) != 2:
            raise ValueError_(f"Subtract: need two inputs; got {len(xs)}")
        return xs[0] - xs[1]


class Multiply(_Merge):
    """Product of the inputs, element by element."""

    def _merge(self, xs: list[Any]) -> Any:
        return reduce(lambda a, b: a * b, xs)


class Average(_Merge):
    """Mean of the inputs, element by element."""

    def _merge(self, xs: list[Any]) -> Any:
        return reduce(lambda a, b: a + b, xs) / len(xs)


class Maximum(_Merge):
    """Largest of the inputs, element by element."""

    def _merge(self, xs: list[Any]) -> Any:
        return reduce(fd.maximum, xs)


class Minimum(_Merge):
    """Smallest of the inputs, element by element."""

    def _merge(self, xs: list[Any]) -> Any:
        return reduce(fd.minimum, xs)


class Concatenate(_Merge):
    """The inputs one after the other along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def _merge(self, xs: list[Any]) -> Any:
        return fd.concat(xs, axis=self.axis)


class Dot(_Merge):
    """Sum of products along one axis of each of two inputs (`axes`), after scaling to length 1 with `normalize`."""

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes, self.normalize = (axes, axes) if isinstance(axes, int) else tuple(axes), normalize

    def _merge(self, xs: list[Any]) -> Any:
        a, b = (fd.moveaxis(x, axis, -1) for x, axis in zip(xs, self.axes, strict=True))
        if self.normalize:
            a, b = (fd.nn.functional.normalize(x, dim=-1) for x in (a, b))
        if a.ndim == b.ndim == 2:
            return (a * b).sum(axis=-1, keepdims=True)
        left, right = (x.reshape((x.shape[0], -1, x.shape[-1])) for x in (a, b))
        return (left @ right.mT).reshape((*a.shape[:-1], *b.shape[1:-1]))


class Arithmetic(Layer):
    """What `a + b` and the like of symbolic tensors make."""

    def __init__(self, op: str, constant: float | None = None, reflected: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if op not in ("add", "subtract", "multiply", "divide"):
            raise ValueError_(f"Arithmetic: op must be add, subtract, multiply or divide; got {op!r}")
        self.op, self.constant, self.reflected = op, constant, reflected

    def call(self, x: Any) -> Any:
        a, b = x if self.constant is None else (self.constant, x) if self.reflected else (x, self.constant)
        return getattr(fd, self.op)(a, b)


def _function(cls: type, name: str) -> Any:
    def merge(inputs: Any, **kwargs: Any) -> Any:
        return cls(**kwargs)(inputs)

    merge.__name__ = merge.__qualname__ = name
    merge.__doc__ = f":class:`{cls.__name__}` of a list of inputs."
    return merge


add, subtract, multiply = _function(Add, "add"), _function(Subtract, "subtract"), _function(Multiply, "multiply")
average, maximum, minimum = _function(Average, "average"), _function(Maximum, "maximum"), _function(Minimum, "minimum")


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """:class:`Concatenate` of a list of inputs."""
    return Concatenate(axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """:class:`Dot` of two inputs."""
    return Dot(axes, **kwargs)(inputs)
