"""DataLoader: batches by index array, seeded shuffling, prefetching threads, exact resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastdl as fd

from ._seed import RngLike, seed_from
from .dataset import Dataset, TensorDataset, _map_arrays
from .transforms import Transform


class DataLoader:
    """Iterate over a dataset in batches of tensors.

    Each batch costs one `dataset[index_array]`: there is no Python per example. The order of epoch `e` depends only on the seed
    and `e`, so a loader can stop anywhere and resume exactly (:meth:`state_dict`), and threads change nothing but the speed.

    Parameters
    ----------
    dataset : Dataset, array or tuple of arrays
        Anything with `__len__` and batch-wise `__getitem__`; arrays are wrapped in a :class:`TensorDataset`.
    batch_size : int
    shuffle : bool
        A new random order every epoch.
    drop_last : bool
        Leave out the last batch when it is smaller.
    transform : callable, optional
        Applied to the inputs of each batch (the first array). Transforms of `fastdl.data` get a generator of that batch's own.
    collate_fn : callable, optional
        Applied to the whole batch (whatever the dataset returns), after `transform`; a transform of `fastdl.data` such as
        :class:`~fastdl.data.Mixup` gets a generator of that batch's own here, too.
    num_workers : int
        Threads that prepare batches ahead; 0 prepares each batch when it is asked for.
    prefetch_factor : int
        Batches each thread may be ahead.
    device : optional
        Where the batches go; default: the CPU, without a copy.
    rng : int, numpy.random.Generator or fastdl.Generator, optional
        Seed of order and transforms; default: drawn from fastdl's global generator.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.data import DataLoader
    >>> x, y = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4)
    >>> for xb, yb in DataLoader((x, y), batch_size=3):
    ...     print(xb.shape, yb.tolist())
    (3, 2) [0, 1, 2]
    (1, 2) [3]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        transform: Callable[[Any], Any] | None = None,
        collate_fn: Callable[[Any], Any] | None = None,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        device: Any = None,
        rng: RngLike = None,
    ) -> None:
        if isinstance(dataset, (np.ndarray, fd.Tensor)):
            dataset = TensorDataset(dataset)
        elif isinstance(dataset, (tuple, list)):
            dataset = TensorDataset(*dataset)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("prefetch_factor", prefetch_factor, 1),
        ):
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
                raise ValueError(f"DataLoader: {name} must be an integer >= {least}; got {value!r}")
        self.dataset: Dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.transform = transform
        self.collate_fn = collate_fn
        self.num_workers = int(num_workers)
        self.prefetch_factor = int(prefetch_factor)
        self.device = device
        self.seed = seed_from(rng)
        self.epoch = 0  # the epoch that the next iterator runs, or that the current one is in
        self._position = 0  # batches already handed out in it
        self._started = False  # an iterator has begun epoch `self.epoch`

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self._started:  # the last iterator was left in the middle of its epoch
            self.epoch, self._position = self.epoch + 1, 0
        self._started = True
        epoch, first = self.epoch, self._position
        order = self._order(epoch)
        numbers = iter(range(first, len(self)))
        batches = self._prefetched(order, epoch, numbers) if self.num_workers else self._direct(order, epoch, numbers)
        return self._deliver(batches, epoch, first)

    def _deliver(self, batches: Iterator[Any], epoch: int, position: int) -> Iterator[Any]:
        for batch in batches:
            position += 1
            if self.epoch == epoch:
                self._position = position
            yield _map_arrays(self._to_tensor, batch)
        if self.epoch == epoch:
            self.epoch, self._position, self._started = epoch + 1, 0, False

    def _direct(self, order: np.ndarray, epoch: int, numbers: Iterator[int]) -> Iterator[Any]:
        for number in numbers:
            yield self._prepare(order, epoch, number)

    def _prefetched(self, order: np.ndarray, epoch: int, numbers: Iterator[int]) -> Iterator[Any]:
        """Threads prepare the next batches; they come out in order, an exception at the place of its batch."""
        from concurrent.futures import Future, ThreadPoolExecutor

        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="fastdl-loader")
        ahead: deque[Future[Any]] = deque()
        try:
            while True:
                while len(ahead) < self.num_workers * self.prefetch_factor:
                    number = next(numbers, None)
                    if number is None:
                        break
                    ahead.append(pool.submit(self._prepare, order, epoch, number))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:  # also when the consumer drops the iterator
            pool.shutdown(wait=False, cancel_futures=True)

    def _order(self, epoch: int) -> np.ndarray:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(n)

    def _prepare(self, order: np.ndarray, epoch: int, number: int) -> Any:
        batch = self.dataset[order[number * self.batch_size : (number + 1) * self.batch_size]]
        if self.transform is not None:
            batch = self._transformed(batch, epoch, number)
        if isinstance(self.collate_fn, Transform):
            return self.collate_fn(batch, rng=np.random.Generator(np.random.PCG64([self.seed, epoch, number, 1])))
        return self.collate_fn(batch) if self.collate_fn is not None else batch

    def _transformed(self, batch: Any, epoch: int, number: int) -> Any:
        transform: Any = self.transform
        if isinstance(transform, Transform):
            rng = np.random.Generator(np.random.PCG64([self.seed, epoch, number]))

            def apply(x: Any) -> Any:
                return transform(x, rng=rng)
        else:
            apply = transform
        if isinstance(batch, (tuple, list)):
            return (apply(batch[0]), *batch[1:])
        if isinstance(batch, dict):
            first = next(iter(batch))
            return {**batch, first: apply(batch[first])}
        return apply(batch)

    def _to_tensor(self, array: Any) -> Any:
        if not isinstance(array, (np.ndarray, np.generic, fd.Tensor, int, float)):
            return array  # strings and other things that no tensor holds pass through
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
            return array
        tensor = fd.asarray(array)
        return tensor if self.device is None else tensor.to(self.device)

    def state_dict(self) -> dict[str, int]:
        """Seed, epoch and position: all that is needed to go on with the very next batch."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken: the next iterator starts with the batch after the last one handed out.

        Raises
        ------
        KeyError
            When an entry is missing.
        ValueError
            When an entry is not a non-negative integer or the position lies beyond the epoch's end.
        """
        values = {key: int(state[key]) for key in ("seed", "epoch", "position")}
        if min(values.values()) < 0 or values["position"] > len(self):
            raise ValueError(f"DataLoader: state {values} does not fit a loader with {len(self)} batches")
        self.seed, self.epoch, self._position = values["seed"], values["epoch"], values["position"]
        self._started = False
