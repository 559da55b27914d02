"""Toy problems: points in the plane with labels, from a seed."""

from __future__ import annotations

import numpy as np

from ._seed import RngLike, numpy_rng

Points = tuple[np.ndarray, np.ndarray]


def _finish(x: np.ndarray, y: np.ndarray, noise: float, rng: np.random.Generator, shuffle: bool = True) -> Points:
    if noise < 0:
        raise ValueError(f"noise must be >= 0; got {noise}")
    x = x + noise * rng.standard_normal(x.shape)
    order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
    return x[order].astype(np.float32), y[order].astype(np.int64)


def _check_count(n: int, least: int = 1) -> None:
    if n < least:
        raise ValueError(f"the number of points must be >= {least}; got {n}")


def make_xor(n: int = 4, noise: float = 0.0, rng: RngLike = None) -> Points:
    """The exclusive-or: the four corners of the unit square, in turn, with Gaussian noise.

    Parameters
    ----------
    n : int
        Number of points.
    noise : float
        Standard deviation of the noise.
    rng : int, numpy.random.Generator or fastdl.Generator, optional

    Returns
    -------
    x : numpy.ndarray
        float32 (n, 2).
    y : numpy.ndarray
        int64 (n,): 1 where exactly one coordinate of the corner is 1.

    Examples
    --------
    >>> from fastdl.data import make_xor
    >>> x, y = make_xor()
    >>> x.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    _check_count(n)
    corner = np.arange(n) % 4
    x = np.stack([corner // 2, corner % 2], axis=1).astype(np.float64)
    return _finish(x, (x[:, 0] != x[:, 1]), noise, numpy_rng(0 if rng is None and not noise else rng), shuffle=False)


def make_moons(n: int = 100, noise: float = 0.1, rng: RngLike = None) -> Points:
    """Two interleaved half circles.

    Parameters and results as :func:`make_xor`, labels 0 and 1.

    Examples
    --------
    >>> from fastdl.data import make_moons
    >>> x, y = make_moons(200, rng=0)
    >>> x.shape, int(y.sum())
    ((200, 2), 100)
    """
    _check_count(n, 2)
    outer = np.linspace(0, np.pi, n - n // 2)
    inner = np.linspace(0, np.pi, n // 2)
    x = np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([1 - np.cos(inner), 0.5 - np.sin(inner)], 1)])
    return _finish(x, np.repeat([0, 1], [len(outer), len(inner)]), noise, numpy_rng(rng))


def make_circles(n: int = 100, noise: float = 0.05, factor: float = 0.5, rng: RngLike = None) -> Points:
    """A circle of radius 1 (label 0) around one of radius `factor` (label 1).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import make_circles
    >>> x, y = make_circles(50, noise=0, rng=0)
    >>> bool(np.allclose(np.hypot(*x[y == 1].T), 0.5))
    True
    """
    _check_count(n, 2)
    if not 0 <= factor < 1:
        raise ValueError(f"make_circles: factor must be in [0, 1); got {factor}")
    sizes = [n - n // 2, n // 2]
    angles = [np.linspace(0, 2 * np.pi, k, endpoint=False) for k in sizes]
    x = np.concatenate([r * np.stack([np.cos(a), np.sin(a)], 1) for r, a in zip((1.0, factor), angles, strict=True)])
    return _finish(x, np.repeat([0, 1], sizes), noise, numpy_rng(rng))


def make_spirals(n: int = 300, classes: int = 3, turns: float = 0.75, noise: float = 0.02, rng: RngLike = None) -> Points:
    """Spiral arms from the centre to radius 1, one per class.

    Examples
    --------
    >>> from fastdl.data import make_spirals
    >>> x, y = make_spirals(90, rng=0)
    >>> x.shape, sorted(set(y.tolist()))
    ((90, 2), [0, 1, 2])
    """
    if classes < 1:
        raise ValueError(f"make_spirals: classes must be >= 1; got {classes}")
    _check_count(n, classes)
    sizes = [n // classes + (k < n % classes) for k in range(classes)]
    arms = []
    for k, size in enumerate(sizes):
        radius = np.linspace(0.05, 1, size)
        angle = 2 * np.pi * (turns * radius + k / classes)
        arms.append(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    return _finish(np.concatenate(arms), np.repeat(np.arange(classes), sizes), noise, numpy_rng(rng))


def make_blobs(
    n: int = 100, classes: int = 3, features: int = 2, std: float = 1.0, box: float = 10.0, rng: RngLike = None
) -> Points:
    """Gaussian clouds around random centres, one per class.

    Parameters
    ----------
    n, classes, features : int
        Numbers of points, clouds and coordinates.
    std : float
        Standard deviation of each cloud.
    box : float
        Centres are uniform in [-box, box] in every coordinate.
    rng : int, numpy.random.Generator or fastdl.Generator, optional

    Returns
    -------
    x : numpy.ndarray
        float32 (n, features).
    y : numpy.ndarray
        int64 (n,), 0 to classes - 1.

    Examples
    --------
    >>> from fastdl.data import make_blobs
    >>> x, y = make_blobs(30, classes=2, features=5, rng=0)
    >>> x.shape, int(y.max())
    ((30, 5), 1)
    """
    _check_count(n)
    if classes < 1 or features < 1 or box < 0:
        raise ValueError(f"make_blobs: need classes >= 1, features >= 1, box >= 0; got {classes}, {features}, {box}")
    generator = numpy_rng(rng)
    centres = generator.uniform(-box, box, (classes, features))
    y = np.arange(n) % classes
    return _finish(centres[y], y, std, generator)
