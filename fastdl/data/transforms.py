"""Augmentation on whole batches: NumPy arrays (N, ..., H, W) in, the same shape out (RandomCrop: the crop's)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._seed import RngLike, numpy_rng


class Transform:
    """A function of a batch that may draw random numbers from `rng`.

    Subclasses define `apply(x, rng)`. Called on its own, a transform draws from the `rng` it was made with; in a
    :class:`~fastdl.data.DataLoader`, from a generator that belongs to the batch, so that the result depends on no thread's timing.
    """

    def __init__(self, rng: RngLike = None) -> None:
        self._given = rng
        self._rng: np.random.Generator | None = None

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Any:
        if rng is None:
            if self._rng is None:
                self._rng = numpy_rng(self._given)
            rng = self._rng
        return self.apply(x, rng)

    def apply(self, x: Any, rng: np.random.Generator) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define apply(x, rng)")


def _images(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim < 3:
        raise ValueError(f"{name}: got shape {x.shape}; need a batch of images (N, ..., H, W)")
    return x


class RandomHorizontalFlip(Transform):
    """Mirror each image of the batch left to right with probability `p`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import RandomHorizontalFlip
    >>> RandomHorizontalFlip(p=1.0)(np.array([[[1, 2, 3]]]))
    array([[[3, 2, 1]]])
    """

    def __init__(self, p: float = 0.5, rng: RngLike = None) -> None:
        super().__init__(rng)
        if not 0 <= p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p must be in [0, 1]; got {p}")
        self.p = p

    def apply(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images(x, "RandomHorizontalFlip")
        out = x.copy()
        mirrored = np.flatnonzero(rng.random(len(x)) < self.p)
        out[mirrored] = x[mirrored, ..., ::-1]
        return out


class RandomShift(Transform):
    """Move each image by up to `pixels` in both directions; what comes in from outside is `fill`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import RandomShift
    >>> RandomShift(2, rng=0)(np.ones((4, 1, 8, 8), np.float32)).shape
    (4, 1, 8, 8)
    """

    def __init__(self, pixels: int = 2, fill: float = 0.0, rng: RngLike = None) -> None:
        super().__init__(rng)
        if pixels < 0:
            raise ValueError(f"RandomShift: pixels must be >= 0; got {pixels}")
        self.pixels = int(pixels)
        self.fill = fill

    def apply(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images(x, "RandomShift")
        return _crop(x, x.shape[-2], x.shape[-1], self.pixels, self.fill, rng)


class RandomCrop(Transform):
    """Cut a random window of `size` out of each image, after padding every side by `padding` pixels of `fill`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import RandomCrop
    >>> RandomCrop(24, rng=0)(np.zeros((4, 3, 28, 28))).shape
    (4, 3, 24, 24)
    """

    def __init__(self, size: int | tuple[int, int], padding: int = 0, fill: float = 0.0, rng: RngLike = None) -> None:
        super().__init__(rng)
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 1 or padding < 0:
            raise ValueError(f"RandomCrop: size must be >= 1 and padding >= 0; got size {size}, padding {padding}")
        self.padding = int(padding)
        self.fill = fill

    def apply(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images(x, "RandomCrop")
        h, w = self.size
        if h > x.shape[-2] + 2 * self.padding or w > x.shape[-1] + 2 * self.padding:
            raise ValueError(f"RandomCrop: images of {x.shape[-2:]} padded by {self.padding} are smaller than {self.size}")
        return _crop(x, h, w, self.padding, self.fill, rng)


def _crop(x: np.ndarray, h: int, w: int, padding: int, fill: float, rng: np.random.Generator) -> np.ndarray:
    """Windows of h x w at one random place per image of the padded batch: one gather, no loop over images."""
    if padding:
        sides = [(0, 0)] * (x.ndim - 2) + [(padding, padding)] * 2
        x = np.pad(x, sides, constant_values=fill)
    n = len(x)
    top = rng.integers(0, x.shape[-2] - h + 1, n)
    left = rng.integers(0, x.shape[-1] - w + 1, n)
    windows = np.lib.stride_tricks.sliding_window_view(x, (h, w), axis=(-2, -1))  # (N, ..., tops, lefts, h, w)
    windows = np.moveaxis(windows, (-4, -3), (1, 2))
    return windows[np.arange(n), top, left]


class Cutout(Transform):
    """Fill `holes` random squares of `size` pixels in each image with `fill` (DeVries and Taylor, 2017).

    Centres are anywhere in the image, so that squares at its edge are cut off.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Cutout
    >>> x = Cutout(4, rng=0)(np.ones((5, 1, 16, 16), np.float32))
    >>> bool((x == 0).any()), x.shape
    (True, (5, 1, 16, 16))
    """

    def __init__(self, size: int, holes: int = 1, fill: float = 0.0, rng: RngLike = None) -> None:
        super().__init__(rng)
        if size < 1 or holes < 1:
            raise ValueError(f"Cutout: size and holes must be >= 1; got {size} and {holes}")
        self.size, self.holes, self.fill = int(size), int(holes), fill

    def apply(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        x = _images(x, "Cutout")
        h, w = x.shape[-2:]
        covered = np.zeros((len(x), h, w), bool)
        for _ in range(self.holes):
            top = rng.integers(0, h, (len(x), 1)) - self.size // 2
            left = rng.integers(0, w, (len(x), 1)) - self.size // 2
            rows = (np.arange(h) >= top) & (np.arange(h) < top + self.size)
            columns = (np.arange(w) >= left) & (np.arange(w) < left + self.size)
            covered |= rows[:, :, None] & columns[:, None, :]
        return np.where(covered.reshape(len(x), *(1,) * (x.ndim - 3), h, w), np.asarray(self.fill, x.dtype), x)


class Mixup(Transform):
    """Blend each example of a batch (inputs, labels) with another one, labels alike (Zhang et al., 2018).

    The labels become probabilities (N, classes), which `cross_entropy` takes. In a DataLoader: `collate_fn=Mixup(10)`.

    Parameters
    ----------
    classes : int
    alpha : float
        The share of the first example is drawn from Beta(alpha, alpha), once per example.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Mixup
    >>> x, y = Mixup(3, rng=0)((np.ones((4, 2), np.float32), np.array([0, 1, 2, 0])))
    >>> x.shape, y.shape, y.sum(1).round(6).tolist()
    ((4, 2), (4, 3), [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(self, classes: int, alpha: float = 0.2, rng: RngLike = None) -> None:
        super().__init__(rng)
        if classes < 1 or not alpha > 0:
            raise ValueError(f"Mixup: need classes >= 1 and alpha > 0; got {classes} and {alpha}")
        self.classes, self.alpha = int(classes), float(alpha)

    def apply(self, x: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            raise ValueError("Mixup: got one array; need a batch (inputs, labels), so use it as a DataLoader's collate_fn")
        inputs, labels = np.asarray(x[0]), np.asarray(x[1])
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < self.classes):
            raise ValueError(f"Mixup: labels are {labels.dtype} {labels.shape}; need integers (N,) in 0 .. {self.classes - 1}")
        if inputs.dtype.kind != "f":
            inputs = inputs.astype(np.float32)
        one_hot = np.eye(self.classes, dtype=inputs.dtype)[labels]
        share = rng.beta(self.alpha, self.alpha, len(labels)).astype(inputs.dtype)
        other = rng.permutation(len(labels))
        return tuple(a * w + a[other] * (1 - w) for a in (inputs, one_hot) for w in [share.reshape(-1, *(1,) * (a.ndim - 1))])


class Normalize(Transform):
    """(x - mean) / std per channel: `mean` and `std` are numbers or have one entry per channel of (N, C, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Normalize
    >>> Normalize(0.5, 0.25)(np.array([[[[0.5, 1.0]]]], np.float32))
    array([[[[0., 2.]]]], dtype=float32)
    """

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.mean = np.asarray(mean, np.float32)
        self.std = np.asarray(std, np.float32)
        if not np.all(self.std > 0):
            raise ValueError(f"Normalize: std must be > 0; got {std}")

    def apply(self, x: Any, rng: np.random.Generator) -> np.ndarray:
        x = np.asarray(x)
        if x.dtype.kind != "f":
            x = x.astype(np.float32)
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        mean = self.mean.reshape(per_channel) if self.mean.ndim else self.mean
        std = self.std.reshape(per_channel) if self.std.ndim else self.std
        return (x - mean.astype(x.dtype)) / std.astype(x.dtype)


class Compose(Transform):
    """Transforms (or any functions of a batch) one after the other.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Compose, Normalize, RandomHorizontalFlip
    >>> augment = Compose([RandomHorizontalFlip(), Normalize(0.5, 0.5)], rng=0)
    >>> augment(np.zeros((2, 1, 4, 4), np.float32)).min()
    np.float32(-1.0)
    """

    def __init__(self, transforms: list[Callable[[Any], Any]], rng: RngLike = None) -> None:
        super().__init__(rng)
        self.transforms = list(transforms)

    def apply(self, x: Any, rng: np.random.Generator) -> Any:
        for transform in self.transforms:
            x = transform(x, rng=rng) if isinstance(transform, Transform) else transform(x)
        return x
