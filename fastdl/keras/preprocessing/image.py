"""ImageDataGenerator: batches of images changed at random by affine transforms, flips and brightness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import ShapeError, ValueError_

from .._affine import affine_images, check_fill, compose
from ..utils import PyDataset

_EPSILON = 1e-6


class ImageDataGenerator:
    """Changes images (N, H, W, C) at random, each in its own way, and makes batches of them.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization : bool
        Subtract the mean, divide by the deviation, of the channels of the data given to :meth:`fit`.
    samplewise_center, samplewise_std_normalization : bool
        The same by each image's own numbers.
    rotation_range, shear_range : float
        Largest angle in degrees.
    width_shift_range, height_shift_range : float
        Largest shift, as a share of the size (below 1) or in pixels.
    zoom_range : float or (low, high)
        A number stands for (1 - zoom, 1 + zoom); height and width are drawn separately.
    brightness_range : (low, high), optional
        Factors; images stay in the range they had.
    channel_shift_range : float
        Largest number added to each channel; images stay in the range they had.
    fill_mode : {"nearest", "reflect", "wrap", "constant"}
    cval : float
        For "constant".
    horizontal_flip, vertical_flip : bool
        With probability 1/2.
    rescale : float, optional
        Factor, after the changes.
    preprocessing_function : callable, optional
        Applied to each changed image, before `rescale`.
    validation_split : float
        Share of the images, the first, that `flow(subset="validation")` gives.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> generator = keras.preprocessing.image.ImageDataGenerator(rotation_range=20, horizontal_flip=True, rescale=1 / 255)
    >>> batches = generator.flow(np.ones((10, 8, 8, 3)) * 255, np.arange(10), batch_size=4, seed=0)
    >>> x, y = next(batches)
    >>> x.shape, y.shape, len(batches), float(x.max().round(4))
    ((4, 8, 8, 3), (4,), 3, 1.0)
    """

    def __init__(
        self, featurewise_center: bool = False, samplewise_center: bool = False, featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False, rotation_range: float = 0, width_shift_range: float = 0.0,
        height_shift_range: float = 0.0, brightness_range: Any = None, shear_range: float = 0.0, zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0, fill_mode: str = "nearest", cval: float = 0.0, horizontal_flip: bool = False,
        vertical_flip: bool = False, rescale: float | None = None, preprocessing_function: Callable[[np.ndarray], np.ndarray] | None = None,
        validation_split: float = 0.0,
    ) -> None:  # fmt: skip
        check_fill("ImageDataGenerator", fill_mode, "bilinear")
        if not 0 <= validation_split < 1:
            raise ValueError_(f"ImageDataGenerator: validation_split must be in [0, 1); got {validation_split}")
        self.featurewise = featurewise_center, featurewise_std_normalization
        self.samplewise = samplewise_center, samplewise_std_normalization
        self.rotation_range, self.shear_range = rotation_range, shear_range
        self.shifts = height_shift_range, width_shift_range
        self.zoom = (1 - zoom_range, 1 + zoom_range) if isinstance(zoom_range, (int, float)) else tuple(zoom_range)
        if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1] or self.zoom[0] <= 0:
            raise ValueError_(f"ImageDataGenerator: zoom_range must be a number below 1 or (low, high) above 0; got {zoom_range!r}")
        self.brightness_range, self.channel_shift_range = brightness_range, channel_shift_range
        self.fill_mode, self.cval, self.flips = fill_mode, cval, (vertical_flip, horizontal_flip)
        self.rescale, self.preprocessing_function, self.validation_split = rescale, preprocessing_function, validation_split
        self.mean: Any = None
        self.std: Any = None

    def fit(self, x: Any) -> None:
        """Learn mean and deviation of the channels, for `featurewise_center` and `featurewise_std_normalization`."""
        x = _images(x)
        self.mean = x.mean(axis=(0, 1, 2), keepdims=True)[0]
        self.std = x.std(axis=(0, 1, 2), keepdims=True)[0]

    def _transformed(self, x: np.ndarray, rng: Any) -> np.ndarray:
        """Every image of (N, H, W, C) changed."""
        n, height, width, channels = x.shape
        settings: dict[str, Any] = {}

        def draw(low: float, high: float) -> Any:
            return fd.asarray(rng.uniform(low, high, n).astype(np.float32))

        if self.rotation_range:
            a = np.deg2rad(self.rotation_range)
            settings["angle"] = draw(-a, a)
        if any(self.shifts):
            settings["shift"] = [draw(-s, s) * (size if s < 1 else 1) for s, size in zip(self.shifts, (height, width), strict=True)]
        if self.shear_range:
            a = np.deg2rad(self.shear_range)
            settings["shear"] = draw(-a, a)
        if self.zoom != (1, 1):
            settings["zoom"] = [draw(*self.zoom), draw(*self.zoom)]
        if settings:
            x = affine_images(fd.asarray(x), compose(n, **settings), self.fill_mode, self.cval).numpy()
        for flip, axis in zip(self.flips, (1, 2), strict=True):
            if flip:
                x = np.where(rng.random((n, 1, 1, 1)) < 0.5, np.flip(x, axis), x)
        low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
        if self.channel_shift_range:
            x = np.clip(x + rng.uniform(-self.channel_shift_range, self.channel_shift_range, (n, 1, 1, channels)), low, high)
        if self.brightness_range is not None:
            x = np.clip(x * rng.uniform(*self.brightness_range, (n, 1, 1, 1)), low, high)
        return np.ascontiguousarray(x, np.float32)

    def random_transform(self, x: Any, seed: int | None = None) -> np.ndarray:
        """One image (H, W, C) changed at random."""
        x = np.asarray(x, np.float32)
        if x.ndim != 3:
            raise ShapeError(f"random_transform: got shape {x.shape}; need (H, W, C)")
        return self._transformed(x[None], np.random.default_rng(seed))[0]

    def standardize(self, x: Any) -> np.ndarray:
        """Function, factor, centre and deviation, as set, of images (..., H, W, C)."""
        x = np.asarray(x, np.float32)
        if self.preprocessing_function is not None:
            images = [self.preprocessing_function(i) for i in x.reshape(-1, *x.shape[-3:])]
            x = np.asarray(images, np.float32).reshape(*x.shape[:-3], *np.shape(images[0]))
        if self.rescale:
            x = x * np.float32(self.rescale)
        axes = (-3, -2, -1)
        if self.samplewise[0]:
            x = x - x.mean(axis=axes, keepdims=True)
        if self.samplewise[1]:
            x = x / (x.std(axis=axes, keepdims=True) + _EPSILON)
        if any(self.featurewise) and self.mean is None:
            raise ValueError_("ImageDataGenerator: featurewise numbers are not known; call fit() on the training images first")
        if self.featurewise[0]:
            x = x - self.mean
        if self.featurewise[1]:
            x = x / (self.std + _EPSILON)
        return np.ascontiguousarray(x, np.float32)

    def flow(
        self, x: Any, y: Any = None, batch_size: int = 32, shuffle: bool = True, sample_weight: Any = None, seed: int | None = None,
        subset: str | None = None,
    ) -> Flow:  # fmt: skip
        """Batches (x, y) or (x, y, sample_weight), or x alone, without end: for `fit`, or a loop that breaks.

        Parameters
        ----------
        x : array (N, H, W, C)
        y, sample_weight : array, optional
        batch_size : int
        shuffle : bool
        seed : int, optional
            Default: drawn from NumPy's global generator.
        subset : {"training", "validation"}, optional
            One side of `validation_split`.
        """
        x = _images(x)
        arrays = [x, *[np.asarray(a) for a in (y, sample_weight) if a is not None]]
        if any(len(a) != len(x) for a in arrays):
            raise ShapeError(f"flow: got {', '.join(str(len(a)) for a in arrays)} rows; need equal numbers")
        if subset is not None:
            if subset not in ("training", "validation") or not self.validation_split:
                raise ValueError_(f"flow: subset must be 'training' or 'validation', and validation_split set; got {subset!r}")
            cut = int(len(x) * self.validation_split)
            arrays = [a[:cut] if subset == "validation" else a[cut:] for a in arrays]
        return Flow(self, arrays, batch_size, shuffle, seed)


def _images(x: Any) -> np.ndarray:
    x = np.asarray(x, np.float32)
    if x.ndim != 4:
        raise ShapeError(f"ImageDataGenerator: got shape {x.shape}; need (N, H, W, C)")
    return x


class Flow(PyDataset):
    """What :meth:`ImageDataGenerator.flow` returns: an iterator without end, whose length is that of an epoch."""

    def __init__(self, generator: ImageDataGenerator, arrays: list[np.ndarray], batch_size: int, shuffle: bool, seed: int | None) -> None:
        super().__init__()
        self.generator, self.arrays, self.batch_size, self.shuffle = generator, arrays, batch_size, shuffle
        self.n = len(arrays[0])
        self._rng = np.random.default_rng(np.random.randint(2**31) if seed is None else seed)  # noqa: NPY002  (what users seed)
        self._order = np.arange(self.n)
        self._next = 0

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.generator.standardize(self.generator._transformed(self.arrays[0][rows], self._rng))
        return (x, *[a[rows] for a in self.arrays[1:]]) if len(self.arrays) > 1 else x

    def __iter__(self) -> Flow:
        return self

    def __next__(self) -> Any:
        if self._next == 0 and self.shuffle:
            self._order = self._rng.permutation(self.n)
        batch = self[self._next]
        self._next = (self._next + 1) % len(self)
        return batch

    def reset(self) -> None:
        """Begin an epoch anew."""
        self._next = 0
