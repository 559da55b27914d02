"""Small helpers: one-hot labels, normalisation, seeds, the progress bar, `Sequence`."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import ValueError_

from ._serial import register_keras_serializable

__all__ = ["Progbar", "PyDataset", "Sequence", "normalize", "register_keras_serializable", "set_random_seed", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Integers as one-hot vectors (float64, as in Keras) along a new last axis; a last axis of size 1 is dropped first.

    Raises
    ------
    ValueError
        When a label is negative or not below `num_classes`.

    Examples
    --------
    >>> from fastdl import keras
    >>> keras.utils.to_categorical([0, 2], 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = np.asarray(x, np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    count = int(labels.max(initial=-1)) + 1 if num_classes is None else num_classes
    if labels.size and (labels.min() < 0 or labels.max() >= count):
        raise ValueError_(f"to_categorical: labels run from {labels.min()} to {labels.max()}; need 0 to {count - 1}")
    return np.eye(count)[labels] if labels.size else np.zeros((*labels.shape, count))


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """x divided by its norms along `axis`; zeros stay."""
    norms = np.atleast_1d(np.linalg.norm(x, order, axis, keepdims=True))
    return np.asarray(x) / np.where(norms == 0, 1, norms)


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and fastdl's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (programs draw from it, and fit shuffles with it)
    fd.manual_seed(seed)


class PyDataset:
    """Batches by number: define `__len__` and `__getitem__(k)`; `on_epoch_end` is called after every epoch."""

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def on_epoch_end(self) -> None: ...


Sequence = PyDataset


class Progbar:
    """The line that `fit` prints: steps, a bar, time, numbers.

    Parameters
    ----------
    target : int or None
        Number of steps, if known.
    verbose : int
        1: a bar, redrawn in a terminal and printed once elsewhere; 2: one line at the end.
    """

    def __init__(self, target: int | None, verbose: int = 1) -> None:
        self.target, self.verbose = target, verbose
        self._start = time.perf_counter()
        self._drawn = 0.0
        self._live = verbose == 1 and sys.stdout.isatty()

    def due(self) -> bool:
        """Whether it is time to draw again: ten times a second in a terminal."""
        return self._live and time.perf_counter() - self._drawn > 0.1

    def update(self, current: int, logs: dict[str, float] | None = None, finalize: bool = False) -> None:
        """Draw the state after `current` steps."""
        now = time.perf_counter()
        if not self.verbose or not (finalize or self._live):
            return
        self._drawn = now
        seconds = now - self._start
        numbers = "".join(f" - {key}: {_number(value)}" for key, value in (logs or {}).items())
        total = self.target if self.target is not None else current if finalize else None
        steps = f"{current}/{total or '?'}"
        if self.verbose == 1:
            filled = 20 * current // total if total else 0
            steps += " " + "━" * filled + " " * (20 - filled)
        line = f"{steps} {seconds:.0f}s {_duration(seconds / max(current, 1))}/step{numbers}"
        if self._live:
            sys.stdout.write("\r" + line + "\x1b[K" + ("\n" if finalize else ""))
        else:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _number(value: Any) -> str:
    if np.ndim(value):
        return np.array2string(np.asarray(value), precision=4)
    return f"{value:.4f}" if value == 0 or abs(value) > 1e-3 else f"{value:.4e}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds >= 1 else f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"
