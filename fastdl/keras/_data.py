"""Where batches come from: arrays, generators, loaders and sequences, all as (x, y, weights) of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import ShapeError, TypeError_, ValueError_

from ._tensor import map_tree


def _array(value: Any) -> Any:
    """An array of numbers that batches can be cut from; float64 is narrowed once for all."""
    if value is None:
        return None
    if isinstance(value, fd.Tensor):
        value = value.detach().cpu().numpy()
    a = np.asarray(value)
    if a.dtype.kind not in "fiub":
        raise TypeError_(f"keras: an input has dtype {a.dtype}; need numbers")
    if a.dtype.kind == "f" and a.dtype != np.float32:
        a = a.astype(np.float32)
    return np.ascontiguousarray(a) if a.ndim else a


def is_arrays(x: Any) -> bool:
    """Whether x is an array, or a list, tuple or dict of arrays."""
    if isinstance(x, dict):
        return all(map(is_arrays, x.values()))
    if isinstance(x, (list, tuple)):
        return len(x) > 0
    return isinstance(x, (np.ndarray, fd.Tensor)) or hasattr(x, "__array__")


def as_arrays(x: Any) -> Any:
    """Arrays in the containers they came in; a list of numbers (or of lists of them) is one array."""
    if isinstance(x, dict):
        return {k: as_arrays(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)) and x and all(hasattr(v, "__array__") and np.ndim(v) > 0 for v in x):
        return [_array(v) for v in x]
    return _array(x)


def flat(tree: Any) -> list[Any]:
    """The arrays in nested containers."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        return [a for v in tree for a in flat(v)]
    return [tree]


def class_weights(y: Any, class_weight: dict[int, float]) -> np.ndarray:
    """One weight per sample from the weight of its class; y holds classes or is one-hot."""
    y = np.asarray(y)
    labels = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y), -1)[:, 0]
    known, inverse = np.unique(labels.astype(np.int64), return_inverse=True)
    return np.array([class_weight.get(int(k), 1.0) for k in known], np.float32)[inverse]


class Arrays:
    """Batches of arrays, cut by rows."""

    def __init__(self, x: Any, y: Any = None, weights: Any = None, batch_size: int | None = None, class_weight: Any = None) -> None:
        x, y, weights = as_arrays(x), as_arrays(y), as_arrays(weights)
        if class_weight is not None:
            given = class_weights(y, class_weight)
            weights = given if weights is None else weights * given
        self.data = (x, y, weights)
        sizes = {len(a) if a.ndim else 0 for a in flat(self.data)}
        if len(sizes) != 1 or 0 in sizes:
            shapes = ", ".join(str(a.shape) for a in flat(self.data))
            raise ShapeError(f"keras: all arrays need the same number of rows, at least one; got {shapes}")
        self.rows = sizes.pop()
        self.batch_size = 32 if batch_size is None else int(batch_size)
        if self.batch_size < 1:
            raise ValueError_(f"keras: batch_size must be at least 1; got {batch_size}")

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def split(self, fraction: float) -> tuple[Arrays, Arrays]:
        """All but the last `fraction` of the rows, and those."""
        if not 0 < fraction < 1:
            raise ValueError_(f"keras: validation_split must be between 0 and 1; got {fraction}")
        cut = int(self.rows * (1.0 - fraction))
        if not 0 < cut < self.rows:
            raise ValueError_(f"keras: validation_split {fraction} leaves no rows on one side of {self.rows}")
        parts = [map_tree(lambda a, s=s: None if a is None else a[s], self.data) for s in (slice(None, cut), slice(cut, None))]  # type: ignore[misc]
        first, last = (Arrays(x, y, w, self.batch_size) for x, y, w in parts)
        return first, last

    def epoch(self, shuffle: bool) -> Iterator[tuple[Any, Any, Any]]:
        order = np.random.permutation(self.rows) if shuffle else None  # noqa: NPY002  (what set_random_seed and np.random.seed seed)
        for start in range(0, self.rows, self.batch_size):
            stop = min(start + self.batch_size, self.rows)
            rows = slice(start, stop) if order is None else order[start:stop]
            yield map_tree(lambda a, rows=rows: None if a is None else fd.from_numpy(a[rows]), self.data)  # type: ignore[misc]


class Batches:
    """Batches that come ready: from a generator, a `fastdl.data.DataLoader`, a `keras.utils.Sequence`, or any iterable."""

    def __init__(self, source: Any, steps: int | None = None, class_weight: Any = None) -> None:
        self.source, self.class_weight = source, class_weight
        self.indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "__iter__")
        if steps is None and hasattr(source, "__len__"):
            steps = len(source)
        self.steps = steps
        self._running: Any = iter(source) if hasattr(source, "__next__") else None
        self._kept: list[Any] = []

    def epoch(self, shuffle: bool) -> Iterator[tuple[Any, Any, Any]]:
        if self.indexed:
            order = np.random.permutation(len(self.source)) if shuffle else range(len(self.source))  # noqa: NPY002  (as above)
            batches: Any = (self.source[int(k)] for k in order)
        else:
            batches = self._running if self._running is not None else iter(self.source)
        for batch in itertools.islice(batches, self.steps):
            yield self._unpack(batch)
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def _unpack(self, batch: Any) -> tuple[Any, Any, Any]:
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if len(parts) > 3:
            raise ValueError_(f"keras: a batch must be x, (x, y) or (x, y, sample_weight); got {len(parts)} parts")
        x, y, w = (*parts, None, None)[:3]
        if self.class_weight is not None:
            w = class_weights(y.numpy() if isinstance(y, fd.Tensor) else y, self.class_weight)
        return map_tree(_as_tensors, x), map_tree(_as_tensors, y), map_tree(_as_tensors, w)


def _as_tensors(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, fd.Tensor):
        return value.astype(fd.float32) if value.dtype == fd.float64 else value
    return fd.from_numpy(_array(value))


def batch_size_of(x: Any) -> int:
    return int(flat(x)[0].shape[0])


def source(
    x: Any, y: Any, weights: Any, batch_size: int | None, steps: int | None, class_weight: Any = None
) -> Arrays | Batches:
    """The fitting source for what a user gave to `fit`, `evaluate` or `predict`."""
    if is_arrays(x):
        return Arrays(x, y, weights, batch_size, class_weight)
    if hasattr(x, "__iter__") or hasattr(x, "__next__") or hasattr(x, "__getitem__"):
        if y is not None or weights is not None:
            raise ValueError_("keras: y and sample_weight come with the batches when x is a generator, loader or sequence")
        return Batches(x, steps, class_weight)
    raise TypeError_(f"keras: x is {type(x).__name__}; need arrays, a generator, a loader or a sequence")
