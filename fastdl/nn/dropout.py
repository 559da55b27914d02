"""Dropout of elements and of channels. No mask is stored: backward draws the same numbers again."""

from __future__ import annotations

from typing import Any

import fastdl as fd

from . import functional as F
from .module import Module


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False, rng: Any = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1]; got {p}")
        self.p = p
        self.inplace = inplace
        self.rng = rng

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zero each element with probability `p` and scale the others by 1 / (1 - p) (Srivastava et al., 2014).

    Parameters
    ----------
    p : float
    inplace : bool
        Accepted for PyTorch's sake; no difference.
    rng : fastdl.Generator, optional
        Default: fastdl's global generator.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Dropout(0.5).eval()(fd.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        if not self.training:
            return input
        return F.dropout(input, self.p, True, rng=self.rng)


class Dropout1d(_Dropout):
    """In training, zero whole channels of (N, C, L) or (C, L) with probability `p` and scale the others by 1 / (1 - p)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.dropout1d(input, self.p, self.training, rng=self.rng)


class Dropout2d(_Dropout):
    """In training, zero whole channels of (N, C, ...) with probability `p` and scale the others by 1 / (1 - p)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.dropout2d(input, self.p, self.training, rng=self.rng)


class Dropout3d(_Dropout):
    """In training, zero whole channels of (N, C, D, H, W) or (C, D, H, W) with probability `p` and scale the others."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.dropout3d(input, self.p, self.training, rng=self.rng)


class AlphaDropout(_Dropout):
    """Dropout that keeps the mean 0 and variance 1 of networks of selu units (Klambauer et al., 2017).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> x = fd.random.normal(100_000, rng=0)
    >>> y = nn.AlphaDropout(0.3, rng=1)(x)
    >>> bool(abs(y.mean()) < 0.02), bool(abs(y.std() - 1) < 0.02)
    (True, True)
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.alpha_dropout(input, self.p, self.training, rng=self.rng)


class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels of (N, C, ...)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training, rng=self.rng)
