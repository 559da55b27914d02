"""Initialisers: fill a tensor in place, return it. Names, formulas and defaults are PyTorch's; `rng=` chooses the generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastdl as fd

RngLike = Any


def _random(kind: str, tensor: fd.Tensor, a: float, b: float, rng: RngLike) -> fd.Tensor:
    """Fill with fd.random.uniform(a, b) or normal(a, b), drawn in the tensor's own dtype."""
    with fd.no_grad():
        tensor.copy_(getattr(fd.random, kind)(tensor.shape, a, b, dtype=tensor.dtype, rng=rng))
    return tensor


def uniform_(tensor: fd.Tensor, a: float = 0.0, b: float = 1.0, rng: RngLike = None) -> fd.Tensor:
    """Uniform in [a, b).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> w = nn.init.uniform_(fd.empty((3, 5)), -1, 1)
    >>> bool((abs(w) <= 1).all())
    True
    """
    return _random("uniform", tensor, a, b, rng)


def normal_(tensor: fd.Tensor, mean: float = 0.0, std: float = 1.0, rng: RngLike = None) -> fd.Tensor:
    """Normal with the given mean and standard deviation."""
    return _random("normal", tensor, mean, std, rng)


def trunc_normal_(
    tensor: fd.Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, rng: RngLike = None
) -> fd.Tensor:
    """Normal, cut off outside [a, b]: the inverse distribution function of uniform numbers."""
    low = math.erf((a - mean) / std / math.sqrt(2))
    high = math.erf((b - mean) / std / math.sqrt(2))
    with fd.no_grad():
        u = np.asarray(fd.random.uniform(tensor.shape, low, high, dtype=fd.float64, rng=rng, device="cpu"))
        values = mean + std * math.sqrt(2) * _erfinv(u)
        tensor.copy_(fd.asarray(np.clip(values, a, b)))
    return tensor


def _erfinv(y: np.ndarray) -> np.ndarray:
    """Inverse error function: a start within 2e-3 (Winitzki 2008), then three Newton steps; float64-exact in [-0.9999, 0.9999]."""
    y = np.clip(y, -1 + 1e-15, 1 - 1e-15)
    a = 0.147
    log = np.log1p(-y * y)
    t = 2 / (np.pi * a) + log / 2
    x = np.sign(y) * np.sqrt(np.sqrt(t * t - log / a) - t)
    for _ in range(3):
        error = np.asarray(fd.erf(fd.asarray(x, device="cpu"))) - y
        x = x - error * (math.sqrt(math.pi) / 2) * np.exp(x * x)
    return x


def constant_(tensor: fd.Tensor, val: float) -> fd.Tensor:
    """Every element `val`."""
    with fd.no_grad():
        tensor.fill_(val)
    return tensor


def ones_(tensor: fd.Tensor) -> fd.Tensor:
    return constant_(tensor, 1.0)


def zeros_(tensor: fd.Tensor) -> fd.Tensor:
    return constant_(tensor, 0.0)


def eye_(tensor: fd.Tensor) -> fd.Tensor:
    """The identity, for a matrix of any shape."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: got shape {tuple(tensor.shape)}; need 2 dimensions")
    return _copy(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: fd.Tensor, groups: int = 1) -> fd.Tensor:
    """A convolution weight (O, C, ...) that keeps as many input channels as it can."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"dirac_: got shape {tuple(tensor.shape)}; need 3, 4 or 5 dimensions")
    out, channels, *kernel = tensor.shape
    if groups < 1 or out % groups:
        raise ValueError(f"dirac_: {out} output channels cannot be divided into {groups} groups")
    values = np.zeros(tuple(tensor.shape))
    centre = tuple(k // 2 for k in kernel)
    for group in range(groups):
        for k in range(min(out // groups, channels)):
            values[(group * (out // groups) + k, k, *centre)] = 1
    return _copy(tensor, values)


def _copy(tensor: fd.Tensor, values: np.ndarray) -> fd.Tensor:
    with fd.no_grad():
        tensor.copy_(fd.asarray(values))
    return tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a non-linearity.

    Examples
    --------
    >>> from fastdl import nn
    >>> nn.init.calculate_gain("relu")
    1.4142135623730951
    """
    if nonlinearity in ("linear", "identity", "sigmoid", "conv1d", "conv2d", "conv3d"):
        return 1.0
    if nonlinearity == "tanh":
        return 5 / 3
    if nonlinearity == "relu":
        return math.sqrt(2)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3 / 4
    raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}")


def fans(tensor: fd.Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...)."""
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out need at least 2 dimensions; got shape {tuple(tensor.shape)}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def xavier_uniform_(tensor: fd.Tensor, gain: float = 1.0, rng: RngLike = None) -> fd.Tensor:
    """Glorot and Bengio (2010): uniform in +-gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6 / max(1, sum(fans(tensor))))
    return uniform_(tensor, -bound, bound, rng)


def xavier_normal_(tensor: fd.Tensor, gain: float = 1.0, rng: RngLike = None) -> fd.Tensor:
    """Glorot and Bengio (2010): normal with standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(1, sum(fans(tensor)))), rng)


def _kaiming_std(tensor: fd.Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: got {mode!r}; need 'fan_in' or 'fan_out'")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(
    tensor: fd.Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", rng: RngLike = None
) -> fd.Tensor:
    """He et al. (2015): uniform in +-gain * sqrt(3 / fan); `a` is the slope of leaky_relu."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, rng)


def kaiming_normal_(
    tensor: fd.Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", rng: RngLike = None
) -> fd.Tensor:
    """He et al. (2015): normal with standard deviation gain / sqrt(fan)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), rng)


def orthogonal_(tensor: fd.Tensor, gain: float = 1.0, rng: RngLike = None) -> fd.Tensor:
    """Saxe et al. (2014): rows (or columns, if there are fewer) orthonormal, times `gain`; dims after the first are flattened."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: got shape {tuple(tensor.shape)}; need at least 2 dimensions")
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    if not rows * columns:
        return tensor
    flat = np.asarray(fd.random.normal((rows, columns), dtype=fd.float64, rng=rng, device="cpu"))
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.sign(np.diag(r))  # makes the distribution uniform
    return _copy(tensor, gain * (q.T if rows < columns else q).reshape(tuple(tensor.shape)))


def sparse_(tensor: fd.Tensor, sparsity: float, std: float = 0.01, rng: RngLike = None) -> fd.Tensor:
    """Martens (2010): normal, with a fraction `sparsity` of every column set to zero."""
    if tensor.ndim != 2:
        raise ValueError(f"sparse_: got shape {tuple(tensor.shape)}; need 2 dimensions")
    rows, columns = tensor.shape
    generator = fd.random.as_generator(rng)
    values = np.array(fd.random.normal((rows, columns), 0.0, std, dtype=fd.float64, rng=generator, device="cpu"))
    order = np.argsort(np.asarray(fd.random.uniform((rows, columns), dtype=fd.float64, rng=generator, device="cpu")), axis=0)
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return _copy(tensor, values)
