"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import fastdl as fd


def _gradients(parameters: Any) -> list[Any]:
    if isinstance(parameters, fd.Tensor):
        parameters = [parameters]
    return [p.grad for p in parameters if p.grad is not None]


def clip_grad_norm_(
    parameters: fd.Tensor | Iterable[fd.Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> fd.Tensor:
    """Scale all gradients by one factor so that their joint norm is at most `max_norm`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are skipped.
    max_norm : float
    norm_type : float
        The p of the p-norm; `inf` for the largest absolute value.
    error_if_nonfinite : bool
        Raise when the norm is NaN or infinite.

    Returns
    -------
    Tensor
        0-d: the norm before clipping.

    Raises
    ------
    RuntimeError
        When the norm is not finite and `error_if_nonfinite` is set.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([3.0, 4.0]))
    >>> (w * w).sum().backward()
    >>> optim.clip_grad_norm_([w], 1.0).item()
    10.0
    >>> [round(g, 4) for g in w.grad.tolist()]
    [0.6, 0.8]
    """
    grads = _gradients(parameters)
    if not grads:
        return fd.zeros(())
    with fd.no_grad():
        if norm_type == math.inf:
            total = fd.stack([abs(g).max() for g in grads]).max()
        elif norm_type == 2:
            total = fd.sqrt(fd.stack([fd.square(g).sum() for g in grads]).sum())
        else:
            total = fd.stack([(abs(g) ** norm_type).sum() for g in grads]).sum() ** (1 / norm_type)
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {total.item()}")
        factor = fd.minimum(max_norm / (total + 1e-6), 1.0)
        for g in grads:
            g *= factor
    return total


def clip_grad_value_(parameters: fd.Tensor | Iterable[fd.Tensor], clip_value: float) -> None:
    """Cut every element of every gradient to [-clip_value, clip_value].

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([3.0, -0.1]))
    >>> (w * w).sum().backward()
    >>> optim.clip_grad_value_([w], 1.0)
    >>> [round(g, 4) for g in w.grad.tolist()]
    [1.0, -0.2]
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be >= 0; got {clip_value}")
    with fd.no_grad():
        for g in _gradients(parameters):
            g.copy_(fd.clip(g, -clip_value, clip_value))
