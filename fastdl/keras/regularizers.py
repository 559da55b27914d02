"""Penalties on weights, added to the loss."""

from __future__ import annotations

from typing import Any

import fastdl as fd

from ._registry import getter
from ._serial import Configurable


class Regularizer(Configurable):
    """Base: `regularizer(weight)` returns a 0-d tensor. Weights have Keras's shapes here."""

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(x)")


class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x^2).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import keras
    >>> round(keras.regularizers.L1L2(l1=0.1, l2=0.01)(fd.array([1.0, -2.0])).item(), 4)
    0.35
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = float(l1 or 0.0), float(l2 or 0.0)

    def __call__(self, x: Any) -> Any:
        total: Any = 0.0
        if self.l1:
            total = total + self.l1 * abs(x).sum()
        if self.l2:
            total = total + self.l2 * fd.square(x).sum()
        return total


class L1(L1L2):
    """l1 * sum(|x|)."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """l2 * sum(x^2)."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


def l1(l1: float = 0.01) -> L1:
    """:class:`L1` under Keras's old name."""
    return L1(l1)


def l2(l2: float = 0.01) -> L2:
    """:class:`L2` under Keras's old name."""
    return L2(l2)


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """:class:`L1L2` under Keras's old name."""
    return L1L2(l1, l2)


get = getter("regularizer", {"L1": L1, "L2": L2, "L1L2": L1L2})
