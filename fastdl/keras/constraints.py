"""What weights must fulfil after every step."""

from __future__ import annotations

from typing import Any

import fastdl as fd

from ._registry import getter
from ._serial import Configurable

_EPSILON = 1e-7


class Constraint(Configurable):
    """Base: `constraint(weight)` returns the weight that is allowed. Weights have Keras's shapes here."""

    def __call__(self, w: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(w)")


def _norms(w: Any, axis: Any) -> Any:
    return fd.sqrt(fd.square(w).sum(axis=tuple(axis) if isinstance(axis, (list, tuple)) else axis, keepdims=True))


class MaxNorm(Constraint):
    """Norms along `axis` are at most `max_value`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import keras
    >>> [round(v, 4) for v in keras.constraints.MaxNorm(1.0)(fd.array([[3.0], [4.0]])).ravel().tolist()]
    [0.6, 0.8]
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value, self.axis = max_value, axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        return w * (fd.clip(norms, 0, self.max_value) / (_EPSILON + norms))


class NonNeg(Constraint):
    """No weight is negative."""

    def __call__(self, w: Any) -> Any:
        return fd.relu(w)


class UnitNorm(Constraint):
    """Norms along `axis` are 1."""

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        return w / (_EPSILON + _norms(w, self.axis))


max_norm, non_neg, unit_norm = MaxNorm, NonNeg, UnitNorm
get = getter("constraint", {"MaxNorm": MaxNorm, "NonNeg": NonNeg, "UnitNorm": UnitNorm})
