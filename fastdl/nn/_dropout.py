"""Dropout as functions, under PyTorch's names. No mask is stored: backward draws the same numbers again."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd
from fastdl import Tensor

_SATURATION = -1.7580993408473766  # what selu tends to: -scale * alpha (Klambauer et al., 2017)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, rng: Any = None) -> Tensor:
    """Zero each element with probability p and scale the rest by 1 / (1 - p); nothing when not training."""
    _check_probability(p)
    if not training or p == 0:
        return input
    return fd.dropout(input, p, *fd.random.as_generator(rng).take(input.size))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, rng: Any = None) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L)."""
    _check_rank("dropout1d", input, 2)
    return _channels(input, p, training, rng, lead=input.ndim - 1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, rng: Any = None) -> Tensor:
    """Dropout of whole channels of (N, C, ...)."""
    return _channels(input, p, training, rng, lead=2)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, rng: Any = None) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    _check_rank("dropout3d", input, 4)
    return _channels(input, p, training, rng, lead=input.ndim - 3)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, rng: Any = None) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 of selu networks: dropped elements take selu's limit, then all are rescaled."""
    return _alpha(input, p, training, rng, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, rng: Any = None) -> Tensor:
    """Alpha dropout of whole channels of (N, C, ...)."""
    if input.ndim < 2:
        raise fd.ShapeError(f"feature_alpha_dropout: got shape {tuple(input.shape)}; need (N, C, ...)")
    return _alpha(input, p, training, rng, (*input.shape[:2],) + (1,) * (input.ndim - 2))


def _channels(input: Tensor, p: float, training: bool, rng: Any, lead: int) -> Tensor:
    """One draw for each place of the first `lead` axes."""
    _check_probability(p)
    if not training or p == 0:
        return input
    mask = fd.ones((*input.shape[:lead],) + (1,) * (input.ndim - lead), dtype=input.dtype, device=input.device)
    return input * dropout(mask, p, rng=rng)


def _alpha(input: Tensor, p: float, training: bool, rng: Any, shape: tuple[int, ...]) -> Tensor:
    _check_probability(p)
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    kept = dropout(fd.ones(shape, dtype=input.dtype, device=input.device), p, rng=rng) > 0
    scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SATURATION**2))
    return fd.where(kept, input, fd.full_like(input, _SATURATION)) * scale - scale * p * _SATURATION


def _check_rank(name: str, input: Tensor, least: int) -> None:
    if input.ndim not in (least, least + 1):
        raise fd.ShapeError(f"{name}: got shape {tuple(input.shape)}; need {least} or {least + 1} dimensions")


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be in [0, 1]; got {p}")
