"""Kernels of the random stream: Philox4x32-10, counter = offset + element index / 4. The public front is fastdl.random."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..op import op

if TYPE_CHECKING:
    from .._C import Tensor


@op()
def random_bits(x: Tensor, seed: int, offset: int) -> Tensor:
    """Fills x (unsigned or signed 32/64-bit integers) with random bits, in place."""


@op()
def random_uniform(x: Tensor, seed: int, offset: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fills x with uniform numbers in [low, high), in place."""


@op()
def random_normal(x: Tensor, seed: int, offset: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fills x with normal numbers, in place."""


@op()
def random_integers(x: Tensor, seed: int, offset: int, low: int, high: int) -> Tensor:
    """Fills x with integers in [low, high), in place, without bias."""


@op(vjp=lambda g, p, seed, offset: dropout(g, p, seed, offset))
def dropout(x: Tensor, p: float, seed: int, offset: int) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0. Stores no mask: backward draws the same numbers again."""
