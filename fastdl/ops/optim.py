"""One-pass optimiser steps over flat tensors, in place. `hyper` is a 1-d float64 tensor read when the kernel runs (see csrc/ops.def)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..op import op

if TYPE_CHECKING:
    from .._C import Tensor


@op(returns="param_out, momentum_out")
def sgd_step(param: Tensor, grad: Tensor, momentum_buffer: Tensor | None, hyper: Tensor) -> Tensor:
    """hyper: lr, momentum, dampening, weight_decay, nesterov, maximize, step."""


@op(returns="param_out, m_out, v_out, vmax_out")
def adam_step(param: Tensor, grad: Tensor, m: Tensor, v: Tensor, vmax: Tensor | None, hyper: Tensor) -> Tensor:
    """hyper: lr, beta1, beta2, eps, weight_decay, decoupled, maximize, step (Kingma & Ba 1412.6980; Loshchilov & Hutter 1711.05101)."""


@op(returns="param_out, square_out, momentum_out, mean_out")
def rmsprop_step(param: Tensor, grad: Tensor, square_avg: Tensor, momentum_buffer: Tensor | None, grad_avg: Tensor | None, hyper: Tensor) -> Tensor:
    """hyper: lr, alpha, eps, weight_decay, momentum, maximize, step (Tieleman & Hinton 2012)."""
