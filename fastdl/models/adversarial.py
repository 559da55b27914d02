"""Inputs changed a little to mislead a classifier, and a defence: training on them."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F


def _slope(model: nn.Module, x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    """The gradient of the loss with respect to the input; parameters gather none."""
    with fd.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = fd.gradients(F.cross_entropy(model(x), y), [x])
    assert gradient is not None
    return gradient


def fgsm(model: nn.Module, x: fd.Tensor, y: fd.Tensor, epsilon: float, low: float = 0.0, high: float = 1.0) -> fd.Tensor:
    """Fast gradient sign method (Goodfellow et al., 2015): every value of x moves by `epsilon` in the direction that hurts.

    Parameters
    ----------
    model : Module
        Scores (N, classes). Its mode stays as it is: call `eval()` before, to attack the network as it is used.
    x, y : Tensor
        Inputs and their classes (N,).
    epsilon : float
    low, high : float
        Bounds of valid inputs.

    Returns
    -------
    Tensor
        Of the shape of x.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> x = fd.full((1, 2), 0.5)
    >>> abs(fd.models.fgsm(nn.Linear(2, 3), x, fd.array([1]), 0.1) - x).max().item() <= 0.1 + 1e-6
    True
    """
    if epsilon < 0:
        raise ValueError(f"fgsm: need epsilon >= 0; got {epsilon}")
    return fd.clip(x.detach() + epsilon * fd.sign(_slope(model, x, y)), low, high)


def pgd(
    model: nn.Module,
    x: fd.Tensor,
    y: fd.Tensor,
    epsilon: float,
    steps: int = 10,
    step_size: float | None = None,
    low: float = 0.0,
    high: float = 1.0,
    random_start: bool = True,
    rng: Any = None,
) -> fd.Tensor:
    """Projected gradient descent (Madry et al., 2018): small steps of :func:`fgsm` that never leave the box of radius `epsilon`.

    Parameters
    ----------
    model, x, y, epsilon, low, high
        As for :func:`fgsm`.
    steps : int
    step_size : float, optional
        Default: 2.5 epsilon / steps.
    random_start : bool
        Begin anywhere in the box.
    rng : optional

    Returns
    -------
    Tensor
        Of the shape of x.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> x = fd.full((1, 2), 0.5)
    >>> abs(fd.models.pgd(nn.Linear(2, 3), x, fd.array([1]), 0.1, steps=3) - x).max().item() <= 0.1 + 1e-6
    True
    """
    if epsilon < 0 or steps < 1:
        raise ValueError(f"pgd: need epsilon >= 0 and steps >= 1; got {epsilon} and {steps}")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    start = x.detach()
    least, most = fd.clip(start - epsilon, low, high), fd.clip(start + epsilon, low, high)
    now = start
    if random_start:
        now = start + fd.random.uniform(start.shape, -epsilon, epsilon, dtype=start.dtype, rng=rng, device=start.device)
        now = fd.minimum(fd.maximum(now, least), most)
    for _ in range(steps):
        now = fd.minimum(fd.maximum(now + size * fd.sign(_slope(model, now, y)), least), most)
    return now.detach()
