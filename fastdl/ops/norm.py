"""Normalisation. The gradient kernels are ops whose bodies give their own gradients, so second order works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _C
from ..op import op
from .elementwise import rsqrt
from .reduce import mean, sum, var

if TYPE_CHECKING:
    from .._C import Tensor


def _expand(v: Tensor, ndim: int) -> Tensor:
    """(C) as (1, C, 1, ...)."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def _layer_norm_vjp(g: Tensor, mean_: Tensor, rstd: Tensor, x: Tensor, weight: Any, ndims: int, eps: float, needs: tuple) -> tuple:
    if _C.grad_enabled():  # the statistics depend on x: differentiate the formula
        from ..op import gradient_of_body

        given = tuple(v for v in (x, weight) if v is not None)
        wants = tuple(n for n, v in zip(needs, (x, weight)) if v is not None)
        grads = list(gradient_of_body(lambda x, w=None: _layer_norm(x, w, None, ndims, eps), (g,), given, (), wants))
        db = sum(g, axis=tuple(range(g.ndim - ndims))) if needs[2] else None
        return grads[0], grads[1] if weight is not None else None, db
    dx, dw, db = layer_norm_backward(g, x, mean_, rstd, weight, ndims)
    return dx, dw, db


@op(vjp=_layer_norm_vjp, returns="y, mean_, rstd")
def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, ndims: int = 1, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `ndims` axes (Ba et al., arXiv 1607.06450)."""
    return _layer_norm(x, weight, bias, ndims, eps)


def _layer_norm(x: Tensor, weight: Any, bias: Any, ndims: int, eps: float) -> Tensor:
    axes = tuple(range(x.ndim - ndims, x.ndim))
    m = mean(x, axes, True)
    y = (x - m) * rsqrt(var(x, axes, 0.0, True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@op(returns="dx, dw, db", visible=3)
def layer_norm_backward(grad: Tensor, x: Tensor, mean_: Tensor, rstd: Tensor, weight: Tensor | None = None, ndims: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of layer_norm's x, weight and bias."""


def _batch_norm_vjp(
    g: Tensor, mean_: Tensor, rstd: Tensor, x: Tensor, weight: Any,
    training: bool, eps: float, needs: tuple,
) -> tuple:  # fmt: skip
    if _C.grad_enabled():
        from ..op import gradient_of_body

        def body(x: Tensor, w: Any = None) -> Tensor:
            z = (x - _expand(mean_, x.ndim)) * _expand(rstd, x.ndim) if not training else _normalise(x, eps)
            return z if w is None else z * _expand(w, x.ndim)

        given = tuple(v for v in (x, weight) if v is not None)
        wants = tuple(n for n, v in zip(needs, (x, weight)) if v is not None)
        grads = gradient_of_body(body, (g,), given, (), wants)
        db = sum(g, axis=(0, *range(2, g.ndim))) if needs[2] else None
        return grads[0], grads[1] if weight is not None else None, db, None, None
    return (*batch_norm_backward(g, x, mean_, rstd, weight, training), None, None)


def _normalise(x: Tensor, eps: float) -> Tensor:
    axes = (0, *range(2, x.ndim))
    return (x - mean(x, axes, True)) * rsqrt(var(x, axes, 0.0, True) + eps)


@op(vjp=_batch_norm_vjp, returns="y, mean_, rstd")
def batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each channel of x (N, C, ...) by batch statistics (training; running ones are updated in place) or by the running
    statistics (Ioffe & Szegedy, arXiv 1502.03167)."""


@op(returns="dx, dw, db", visible=3)
def batch_norm_backward(
    grad: Tensor, x: Tensor, mean_: Tensor, rstd: Tensor, weight: Tensor | None = None, training: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of batch_norm's x, weight and bias."""
