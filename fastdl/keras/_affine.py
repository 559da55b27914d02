"""Affine transforms of batches of images by bilinear or nearest sampling, on tensors: used by augmentation layers and ImageDataGenerator."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl.errors import ValueError_

FILL_MODES = ("constant", "nearest", "reflect", "wrap")


def check_fill(name: str, fill_mode: str, interpolation: str) -> None:
    if fill_mode not in FILL_MODES:
        raise ValueError_(f"{name}: fill_mode must be one of {', '.join(FILL_MODES)}; got {fill_mode!r}")
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError_(f"{name}: interpolation must be 'bilinear' or 'nearest'; got {interpolation!r}")


def compose(n: int, angle: Any = None, shift: Any = None, shear: Any = None, zoom: Any = None) -> Any:
    """Matrices (N, 2, 3) that map (row, column) of the output, from the centre, to the input: rotation, then shift, shear and zoom.

    `angle` and `shear` (radians) and the pairs `shift` (rows, columns) and `zoom` are tensors (N,).
    """
    zero, one = fd.zeros((n,)), fd.ones((n,))
    m = [[one, zero, zero], [zero, one, zero]]
    if angle is not None:
        cos, sin = fd.cos(angle), fd.sin(angle)
        m = _product(m, [[cos, -sin, zero], [sin, cos, zero]])
    if shift is not None:
        m = _product(m, [[one, zero, shift[0]], [zero, one, shift[1]]])
    if shear is not None:
        m = _product(m, [[one, -fd.sin(shear), zero], [zero, fd.cos(shear), zero]])
    if zoom is not None:
        m = _product(m, [[zoom[0], zero, zero], [zero, zoom[1], zero]])
    return fd.stack([fd.stack(row, axis=1) for row in m], axis=1)


def _product(a: Any, b: Any) -> Any:
    rows = [[sum(a[i][k] * b[k][j] for k in range(2)) for j in range(3)] for i in range(2)]
    return [[row[0], row[1], row[2] + a[i][2]] for i, row in enumerate(rows)]


def _inside(index: Any, size: int, mode: str) -> Any:
    """Whole numbers (as floats) brought into 0 .. size - 1."""
    if mode == "reflect":  # edges are repeated: d c b a | a b c d | d c b a
        period = index - fd.floor(index / (2 * size)) * (2 * size)
        index = fd.where(period < size, period, 2 * size - 1 - period)
    elif mode == "wrap":
        index = index - fd.floor(index / size) * size
    return fd.clip(index, 0, size - 1)


def affine_images(images: Any, matrices: Any, fill_mode: str = "reflect", fill_value: float = 0.0, interpolation: str = "bilinear") -> Any:
    """Sample images (N, H, W, C), float, at the places that `matrices` (N, 2, 3) give around each image's centre.

    Returns
    -------
    Tensor
        (N, H, W, C).
    """
    n, height, width, channels = images.shape
    rows = (fd.arange(height, dtype=fd.float32) - (height - 1) / 2).reshape((1, height, 1))
    columns = (fd.arange(width, dtype=fd.float32) - (width - 1) / 2).reshape((1, 1, width))

    def place(k: int, size: int) -> Any:
        a = matrices[:, k].reshape((n, 3, 1, 1))
        return a[:, 0] * rows + a[:, 1] * columns + a[:, 2] + (size - 1) / 2

    y, x = place(0, height), place(1, width)
    flat = images.reshape((n * height * width, channels))
    start = (fd.arange(n) * (height * width)).reshape((n, 1, 1))

    def at(r: Any, c: Any) -> Any:
        index = start + (_inside(r, height, fill_mode) * width + _inside(c, width, fill_mode)).astype(fd.int64)
        values = fd.take(flat, index.reshape((-1,)), axis=0).reshape((n, height, width, channels))
        if fill_mode != "constant":
            return values
        known = (r >= 0) & (r <= height - 1) & (c >= 0) & (c <= width - 1)
        return fd.where(fd.expand_dims(known, -1), values, fill_value)

    if interpolation == "nearest":
        return at(fd.floor(y + 0.5), fd.floor(x + 0.5))
    top, left = fd.floor(y), fd.floor(x)
    v, h = fd.expand_dims(y - top, -1), fd.expand_dims(x - left, -1)
    upper = at(top, left) * (1.0 - h) + at(top, left + 1.0) * h
    lower = at(top + 1.0, left) * (1.0 - h) + at(top + 1.0, left + 1.0) * h
    return upper * (1.0 - v) + lower * v
