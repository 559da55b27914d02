"""Initial values of weights, in Keras's formulas: fans of a kernel are counted from its last two axes (in, out)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastdl as fd

from ._registry import getter
from ._serial import Configurable


class Initializer(Configurable):
    """Base: `initializer(shape)` returns a float32 tensor."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(shape, dtype=None)")

    def _rng(self) -> Any:
        seed = getattr(self, "seed", None)
        return None if seed is None else int(seed)


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return fd.zeros(tuple(shape), dtype=dtype)


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return fd.ones(tuple(shape), dtype=dtype)


class Constant(Initializer):
    """All `value`, or an array of the weight's shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return fd.asarray(np.broadcast_to(np.asarray(self.value, np.float32), tuple(shape)).copy())


class Identity(Initializer):
    """The unit matrix times `gain`."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        rows, columns = shape
        return fd.eye(rows, columns) * self.gain


class RandomNormal(Initializer):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return fd.random.normal(tuple(shape), self.mean, self.stddev, rng=self._rng())


class TruncatedNormal(RandomNormal):
    """Normal numbers, none further than two standard deviations from the mean."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        t = fd.empty(tuple(shape))
        return fd.nn.init.trunc_normal_(
            t, self.mean, self.stddev, self.mean - 2 * self.stddev, self.mean + 2 * self.stddev, rng=self._rng()
        )


class RandomUniform(Initializer):
    """Numbers in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return fd.random.uniform(tuple(shape), self.minval, self.maxval, rng=self._rng())


def compute_fans(shape: Any) -> tuple[float, float]:
    """(fan in, fan out) of a weight of Keras's layout (..., in, out)."""
    if len(shape) < 2:
        n = float(shape[0]) if shape else 1.0
        return n, n
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


class VarianceScaling(Initializer):
    """Numbers whose variance is scale / fan (Glorot and Bengio, 2010; He et al., 2015).

    Parameters
    ----------
    scale : float
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
    seed : int, optional
    """

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal", seed: int | None = None
    ) -> None:
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        fan_in, fan_out = compute_fans(tuple(shape))
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return RandomUniform(-limit, limit, self.seed)(shape)
        if self.distribution == "untruncated_normal":
            return RandomNormal(0.0, math.sqrt(variance), self.seed)(shape)
        return TruncatedNormal(0.0, math.sqrt(variance) / 0.87962566103423978, self.seed)(shape)  # of N(0, 1) cut at +-2


def _scaling(name: str, scale: float, mode: str, distribution: str, source: str) -> Any:
    def __init__(self: Any, seed: int | None = None) -> None:
        VarianceScaling.__init__(self, scale, mode, distribution, seed)

    text = f"{distribution.replace('_', ' ').capitalize()} numbers of variance {scale:g} / {mode} ({source})."
    return type(name, (VarianceScaling,), {"__init__": __init__, "__doc__": text, "__module__": __name__})


GlorotUniform = _scaling("GlorotUniform", 1.0, "fan_avg", "uniform", "Glorot and Bengio, 2010")
GlorotNormal = _scaling("GlorotNormal", 1.0, "fan_avg", "truncated_normal", "Glorot and Bengio, 2010")
HeUniform = _scaling("HeUniform", 2.0, "fan_in", "uniform", "He et al., 2015")
HeNormal = _scaling("HeNormal", 2.0, "fan_in", "truncated_normal", "He et al., 2015")
LecunUniform = _scaling("LecunUniform", 1.0, "fan_in", "uniform", "LeCun et al., 1998")
LecunNormal = _scaling("LecunNormal", 1.0, "fan_in", "truncated_normal", "LeCun et al., 1998")


class Orthogonal(Initializer):
    """An orthogonal matrix, or part of one (Saxe et al., 2014)."""

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain, self.seed = gain, seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        return fd.nn.init.orthogonal_(fd.empty((rows, columns)), self.gain, rng=self._rng()).reshape(tuple(shape))


_NAMES = {
    c.__name__: c
    for c in (
        Zeros, Ones, Constant, Identity, RandomNormal, TruncatedNormal, RandomUniform, VarianceScaling, GlorotUniform, GlorotNormal, HeUniform,
        HeNormal, LecunUniform, LecunNormal, Orthogonal,
    )
}  # fmt: skip
get = getter("initializer", {**_NAMES, "normal": RandomNormal, "uniform": RandomUniform, "identity": Identity})

zeros, ones, glorot_uniform, he_normal, orthogonal = Zeros, Ones, GlorotUniform, HeNormal, Orthogonal
