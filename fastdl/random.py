"""Random numbers from counter-based streams (Philox4x32-10, Salmon et al. 2011): the same numbers for every thread count and device.

Every function takes ``rng=``: None (the default generator), an int seed, a `Generator`, or a NumPy Generator or SeedSequence.
"""

from __future__ import annotations

import os
from typing import Any

from . import _C
from ._C import Tensor
from .device import cuda_index
from .dtypes import DTypeLike, dtype as _dtype, float32
from .errors import DTypeError, ShapeError, TypeError_, ValueError_
from .ops import random as _kernels

_capture: Any = None  # what records this thread's draws, see fastdl.graph


def _observe(capture: Any) -> Any:
    """Draws are told to `capture` from now on; returns what was set before."""
    global _capture
    before, _capture = _capture, capture
    return before


class Generator:
    """A stream of random numbers: a 64-bit seed and an offset that every draw advances.

    Examples
    --------
    >>> import fastdl as fd
    >>> a, b = fd.Generator(1), fd.Generator(1)
    >>> bool((fd.random.uniform(4, rng=a) == fd.random.uniform(4, rng=b)).all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is None and _capture is not None and _C.recording():
            _capture.refuse("Generator: a captured function would get the same fresh seed at every call; make the Generator outside")
        self.manual_seed(int.from_bytes(os.urandom(8), "little") if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed` (0 to 2**64 - 1) from its beginning."""
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise TypeError_(f"manual_seed: need an int, not {type(seed).__name__}")
        seed = seed.__index__()
        if not 0 <= seed < 2**64:
            raise ValueError_(f"manual_seed: {seed} is not in 0 .. 2**64 - 1")
        self.seed, self.offset = seed, 0
        if _capture is not None and _C.recording():  # not of another thread
            _capture.note_seed(self)
        return self

    def get_state(self) -> tuple[int, int]:
        """(seed, offset)."""
        return self.seed, self.offset

    def set_state(self, state: tuple[int, int]) -> None:
        """Continues from a state of get_state()."""
        self.seed, self.offset = int(state[0]), int(state[1])
        if _capture is not None and _C.recording():
            _capture.note_seed(self)

    def take(self, n: int) -> tuple[int, int]:
        """Seed and offset for n elements; the stream moves on."""
        start = self.offset
        if _capture is not None and _C.recording():
            _capture.note_draw(self, self.seed, start)
        self.offset = (start + (n + 3) // 4) % 2**63
        return self.seed, start

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, offset={self.offset})"


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator."""
    return default_generator.manual_seed(seed)


def as_generator(rng: Any = None) -> Generator:
    """The generator that an ``rng=`` argument means."""
    if rng is None:
        return default_generator
    if isinstance(rng, Generator):
        return rng
    if hasattr(rng, "__index__"):
        return Generator(rng)
    if _capture is not None and _C.recording() and (hasattr(rng, "integers") or hasattr(rng, "generate_state")):
        _capture.refuse("rng: a NumPy generator inside a captured function would be drawn from only once; use a fastdl Generator")
    if hasattr(rng, "integers"):  # numpy.random.Generator
        return Generator(int(rng.integers(0, 2**63)))
    if hasattr(rng, "generate_state"):  # numpy.random.SeedSequence
        return Generator(int(rng.generate_state(1, "uint64")[0]))
    raise TypeError_(f"rng: need None, an int, a Generator or a NumPy generator, not {type(rng).__name__}")


def _draw(kernel: Any, shape: Any, dtype: Any, rng: Any, words: int, *params: Any, device: Any = None) -> Tensor:
    t = _C.empty(shape, dtype, cuda_index(device))
    kernel(t, *as_generator(rng).take(t.size * words), *params)
    return t


def _float_dtype(dtype: Any, what: str) -> Any:
    d = _dtype(float32 if dtype is None else dtype)
    if d.kind != "f":
        raise DTypeError(f"{what}: dtype {d}; need a float dtype")
    return d


def _words(d: Any) -> int:
    return 2 if d.itemsize == 8 else 1


def uniform(shape: Any = (), low: float = 0.0, high: float = 1.0, *, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """Uniform numbers in [low, high)."""
    d = _float_dtype(dtype, "uniform")
    return _draw(_kernels.random_uniform, shape, d, rng, _words(d), low, high, device=device)


def normal(shape: Any = (), mean: float = 0.0, std: float = 1.0, *, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """Normal numbers."""
    if not std >= 0:
        raise ValueError_(f"normal: std is {std}; need at least 0")
    d = _float_dtype(dtype, "normal")
    return _draw(_kernels.random_normal, shape, d, rng, _words(d), mean, std, device=device)


def integers(low: int, high: int | None = None, shape: Any = (), *, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """Integers in [low, high), or [0, low) if high is None."""
    if high is None:
        low, high = 0, low
    if not low < high:
        raise ValueError_(f"integers: empty range [{low}, {high})")
    return _draw(_kernels.random_integers, shape, _dtype("int64" if dtype is None else dtype), rng, 4, low, high, device=device)


def bernoulli(p: float = 0.5, shape: Any = (), *, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """1 with probability p, else 0."""
    if not 0 <= p <= 1:
        raise ValueError_(f"bernoulli: p is {p}; need 0 to 1")
    return (uniform(shape, rng=rng, device=device) < p).astype("float32" if dtype is None else dtype)


def permutation(n: int, *, rng: Any = None) -> Tensor:
    """The integers 0 .. n-1 in random order (int64), by sorting 64-bit keys."""
    import numpy as np

    if n < 0:
        raise ValueError_(f"permutation: n is {n}; need at least 0")
    if _capture is not None and _C.recording():
        _capture.refuse(
            "permutation: it sorts in Python, so a captured function would shuffle the same way at every call; make the permutation "
            "outside and pass it as an argument"
        )
    keys = _draw(_kernels.random_bits, n, "uint64", rng, 2, device="cpu")
    return _C.from_buffer(np.argsort(np.asarray(keys), kind="stable"))


def shuffle(x: Tensor, *, rng: Any = None) -> None:
    """Puts x's first axis in random order, in place."""
    if x.ndim == 0:
        raise ShapeError("shuffle: a 0-d tensor has no axis")
    x.copy_(x.detach()[permutation(x.shape[0], rng=rng)])


def choice(n: int, size: Any = (), replace: bool = True, *, rng: Any = None) -> Tensor:
    """Numbers from 0 .. n-1, with or without repetition."""
    import math

    if replace:
        return integers(0, n, size, rng=rng)
    count = size if isinstance(size, int) else math.prod(size)
    if count > n:
        raise ValueError_(f"choice: {count} different numbers out of {n}")
    return permutation(n, rng=rng)[:count].reshape(size)


def rand(*shape: int, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return uniform(shape[0] if len(shape) == 1 else shape, dtype=dtype, rng=rng, device=device)


def randn(*shape: int, dtype: DTypeLike | None = None, rng: Any = None, device: Any = None) -> Tensor:
    """Standard normal numbers."""
    return normal(shape[0] if len(shape) == 1 else shape, dtype=dtype, rng=rng, device=device)


def dropout(x: Tensor, p: float = 0.5, *, rng: Any = None) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0, drawn from rng."""
    return _kernels.dropout(x, p, *as_generator(rng).take(x.size))
