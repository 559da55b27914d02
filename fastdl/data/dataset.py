"""Datasets. A dataset is read a batch at a time: `dataset[index_array]` returns arrays whose first axis is the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastdl as fd

from ._seed import RngLike, numpy_rng


class Dataset:
    """Base class: define `__len__` and `__getitem__(indices)`.

    `indices` is a 1-d int64 NumPy array (or one int, or a slice, where the data can take it); the result is an array, a tuple or a
    dict of arrays with the examples along the first axis. Reading whole batches is what makes loading cheap: no Python per example.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Dataset
    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 100
    ...     def __getitem__(self, indices):
    ...         return indices, np.square(indices)
    >>> Squares()[np.array([2, 3])]
    (array([2, 3]), array([4, 9]))
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index array)")


class TensorDataset(Dataset):
    """Arrays (NumPy arrays or tensors) that share their first axis.

    Parameters
    ----------
    *arrays : array_like
        One or more arrays with equal `shape[0]`. Tensors on the CPU share memory with the dataset.

    Raises
    ------
    ValueError
        When no array is given, one is 0-d, or the lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import TensorDataset
    >>> data = TensorDataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    >>> len(data)
    3
    >>> data[np.array([2, 0])]
    (array([[4., 5.],
           [0., 1.]]), array([0, 0]))
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ValueError("TensorDataset: got no arrays; need at least one")
        self.arrays = tuple(_as_indexable(a) for a in arrays)
        lengths = [a.shape[0] if a.ndim else None for a in self.arrays]
        if None in lengths or len(set(lengths)) != 1:
            shapes = ", ".join(str(tuple(a.shape)) for a in self.arrays)
            raise ValueError(f"TensorDataset: arrays must have the same length of axis 0; got shapes {shapes}")
        self._length = int(lengths[0])  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple([a[index] for a in self.arrays])


def _as_indexable(array: Any) -> Any:
    """NumPy view of host data (cheapest to index); tensors that NumPy cannot hold stay tensors."""
    if isinstance(array, fd.Tensor):
        try:
            return array.detach().numpy()
        except (TypeError, RuntimeError):  # bfloat16, or not on the CPU
            return array.detach()
    return np.asarray(array)


class Subset(Dataset):
    """The examples of `dataset` at `indices`, in that order.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import Subset, TensorDataset
    >>> Subset(TensorDataset(np.arange(10)), [8, 3])[np.array([0, 1])]
    (array([8, 3]),)
    """

    def __init__(self, dataset: Dataset, indices: Any) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices)
        if self.indices.size == 0:
            self.indices = self.indices.astype(np.int64)
        if self.indices.ndim != 1 or self.indices.dtype.kind not in "iu":
            raise ValueError(
                f"Subset: indices must be a 1-d array of integers; got shape {self.indices.shape}, dtype {self.indices.dtype}"
            )
        n = len(dataset)
        if self.indices.size and not (-n <= int(self.indices.min()) and int(self.indices.max()) < n):
            raise IndexError(f"Subset: indices reach from {self.indices.min()} to {self.indices.max()}; the dataset has length {n}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]]


class ConcatDataset(Dataset):
    """Datasets one after the other. All must return the same structure of arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import ConcatDataset, TensorDataset
    >>> both = ConcatDataset([TensorDataset(np.arange(3)), TensorDataset(np.arange(10, 12))])
    >>> both[np.array([4, 0, 3])]
    (array([11,  0, 10]),)
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: got no datasets; need at least one")
        self._ends = np.cumsum([len(d) for d in self.datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        n = len(self)
        flat = np.arange(n)[index] if isinstance(index, slice) else np.asarray(index)
        if flat.size and not (-n <= int(flat.min()) and int(flat.max()) < n):
            raise IndexError(f"ConcatDataset: index out of range for length {n}")
        flat = np.where(flat < 0, flat + n, flat)
        which = np.searchsorted(self._ends, flat, side="right")
        if flat.ndim == 0:
            return self.datasets[int(which)][int(flat - (self._ends[which - 1] if which else 0))]
        parts, places = [], []
        for k in np.unique(which) if flat.size else [0]:
            place = np.flatnonzero(which == k)
            parts.append(self.datasets[k][flat[place] - (self._ends[k - 1] if k else 0)])
            places.append(place)
        back = np.argsort(np.concatenate(places), kind="stable")
        return _map_arrays(lambda *arrays: np.concatenate(arrays)[back], *parts)


class MapDataset(Dataset):
    """A function of one index as a dataset: for data that can only be read one example at a time (files, a torch-style dataset).

    Parameters
    ----------
    function : callable
        `function(i)` returns an example: an array, or a tuple or dict of arrays. Examples are stacked into batches.
    length : int
        Number of examples.

    Examples
    --------
    >>> from fastdl.data import MapDataset
    >>> MapDataset(lambda i: (i, i * i), 10)[[1, 2, 3]]
    (array([1, 2, 3]), array([1, 4, 9]))
    """

    def __init__(self, function: Callable[[int], Any], length: int) -> None:
        self.function = function
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        flat = np.arange(self.length)[index]
        if flat.ndim == 0:
            return self.function(int(flat))
        return _map_arrays(lambda *arrays: np.stack(arrays), *[self.function(int(i)) for i in flat])


def _map_arrays(function: Callable[..., Any], first: Any, *rest: Any) -> Any:
    """Apply `function` to matching arrays inside equal structures (array, tuple, list or dict of them)."""
    if isinstance(first, dict):
        return {key: _map_arrays(function, first[key], *[r[key] for r in rest]) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple([_map_arrays(function, *column) for column in zip(first, *rest, strict=True)])
    return function(first, *rest)


def random_split(dataset: Dataset, lengths: Sequence[int | float], rng: RngLike = None) -> list[Subset]:
    """Split at random into non-overlapping subsets.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int or of float
        Sizes that sum to `len(dataset)`, or fractions that sum to 1 (what rounding leaves goes to the first parts, one each).
    rng : int, numpy.random.Generator or fastdl.Generator, optional
        Source of randomness.

    Returns
    -------
    list of Subset

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import TensorDataset, random_split
    >>> train, valid = random_split(TensorDataset(np.arange(10)), [0.8, 0.2], rng=0)
    >>> len(train), len(valid)
    (8, 2)
    """
    n = len(dataset)
    if all(isinstance(x, float) for x in lengths) and lengths:
        if not abs(sum(lengths) - 1) < 1e-6 or min(lengths) < 0:
            raise ValueError(f"random_split: fractions must be >= 0 and sum to 1; got {list(lengths)}")
        sizes = [int(n * x) for x in lengths]
        for k in range(n - sum(sizes)):
            sizes[k % len(sizes)] += 1
    else:
        sizes = [int(x) for x in lengths]
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise ValueError(f"random_split: lengths {list(lengths)} must be >= 0 and sum to the dataset's length {n}")
    order = numpy_rng(rng).permutation(n)
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
