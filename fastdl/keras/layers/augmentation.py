"""Random changes of images (N, H, W, C) or (H, W, C), in training only; every image draws its own."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd
from fastdl.errors import ShapeError, ValueError_

from .._affine import affine_images, check_fill, compose
from .._tensor import floating
from .base import Layer


def _range(name: str, factor: Any) -> tuple[float, float]:
    low, high = (-abs(factor), abs(factor)) if isinstance(factor, (int, float)) else tuple(factor)
    if low > high:
        raise ValueError_(f"{name}: a factor must be a number or (low, high); got {factor!r}")
    return float(low), float(high)


class _Random(Layer):
    """Draws one matrix per image, that maps places of the output to places of the input, around the centre."""

    def __init__(
        self, fill_mode: str = "reflect", interpolation: str = "bilinear", seed: int | None = None, fill_value: float = 0.0, **kwargs: Any
    ) -> None:
        kwargs.pop("data_format", None)
        super().__init__(**kwargs)
        check_fill(type(self).__name__, fill_mode, interpolation)
        self.fill_mode, self.interpolation, self.fill_value = fill_mode, interpolation, fill_value
        self.rng = None if seed is None else fd.Generator(seed)

    def _draw(self, n: int, bounds: tuple[float, float]) -> Any:
        return fd.random.uniform((n,), *bounds, rng=self.rng)

    def _matrices(self, n: int, height: int, width: int) -> Any:
        """(N, 2, 3): where each pixel of n images comes from."""
        raise NotImplementedError(f"{type(self).__name__} must define _matrices(n, height, width)")

    def call(self, x: Any) -> Any:
        if not self.training:
            return x
        if x.ndim not in (3, 4):
            raise ShapeError(f"{type(self).__name__}: got shape {tuple(x.shape)}; need (N, H, W, C) or (H, W, C)")
        batch = floating(x if x.ndim == 4 else fd.expand_dims(x, 0))
        matrices = self._matrices(*batch.shape[:3])
        y = affine_images(batch, matrices, self.fill_mode, self.fill_value, self.interpolation)
        return y if x.ndim == 4 else y[0]


class RandomTranslation(_Random):
    """Move by fractions of height and width: numbers, or (low, high); positive is down and right.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> layer = keras.layers.RandomTranslation((0.5, 0.5), 0.0, fill_mode="constant")
    >>> layer(np.ones((1, 4, 1, 1)), training=True).ravel().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    def __init__(self, height_factor: Any, width_factor: Any, fill_mode: str = "reflect", interpolation: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(fill_mode, interpolation, **kwargs)
        self.factors = _range("RandomTranslation", height_factor), _range("RandomTranslation", width_factor)

    def _matrices(self, n: int, height: int, width: int) -> Any:
        down, right = (self._draw(n, bounds) * size for bounds, size in zip(self.factors, (height, width), strict=True))
        return compose(n, shift=(-down, -right))


class RandomRotation(_Random):
    """Turn by a fraction of a full circle, counter-clockwise: a number, or (low, high)."""

    def __init__(self, factor: Any, fill_mode: str = "reflect", interpolation: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(fill_mode, interpolation, **kwargs)
        self.factor = _range("RandomRotation", factor)

    def _matrices(self, n: int, height: int, width: int) -> Any:
        return compose(n, angle=self._draw(n, self.factor) * (-2 * math.pi))


class RandomZoom(_Random):
    """Change the visible height by a fraction, positive to see more (zoom out); the width by its own fraction or the same."""

    def __init__(
        self, height_factor: Any, width_factor: Any = None, fill_mode: str = "reflect", interpolation: str = "bilinear", **kwargs: Any
    ) -> None:
        super().__init__(fill_mode, interpolation, **kwargs)
        self.height_factor = _range("RandomZoom", height_factor)
        self.width_factor = None if width_factor is None else _range("RandomZoom", width_factor)

    def _matrices(self, n: int, height: int, width: int) -> Any:
        vertical = 1.0 + self._draw(n, self.height_factor)
        horizontal = vertical if self.width_factor is None else 1.0 + self._draw(n, self.width_factor)
        return compose(n, zoom=(vertical, horizontal))


class RandomFlip(Layer):
    """Mirror each image with probability 1/2: "horizontal", "vertical" or "horizontal_and_vertical"."""

    def __init__(self, mode: str = "horizontal_and_vertical", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("horizontal", "vertical", "horizontal_and_vertical"):
            raise ValueError_(f"RandomFlip: mode must be 'horizontal', 'vertical' or 'horizontal_and_vertical'; got {mode!r}")
        self.mode, self.rng = mode, None if seed is None else fd.Generator(seed)

    def call(self, x: Any) -> Any:
        if not self.training:
            return x
        for word, axis in (("vertical", -3), ("horizontal", -2)):
            if word in self.mode:
                shape = (x.shape[0], 1, 1, 1) if x.ndim == 4 else (1, 1, 1)
                x = fd.where(fd.random.uniform(shape, rng=self.rng) < 0.5, fd.flip(x, axis=axis), x)
        return x
