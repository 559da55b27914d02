"""Convolution: logical NCHW shapes, NHWC memory inside. The gradients are ops of their own, with gradients of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..op import op
from .linalg import ACTIVATION_BACKWARD

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Pair


def _conv2d_vjp(
    g: Tensor, y: Any, x: Any, weight: Tensor, x_shape: tuple, weight_shape: tuple, stride: Any, padding: Any, dilation: Any,
    groups: int, activation: str, needs: tuple,
) -> tuple:  # fmt: skip
    if activation != "none":
        g = ACTIVATION_BACKWARD[activation](g, y)
    dw = db = None
    if needs[1] or needs[2]:  # first: in a captured step, x often ends here, before dx begins
        dw, db = conv2d_backward_weight(g, x, stride, padding, dilation, groups, weight_shape[2:])
    dx = conv2d_backward_input(g, weight, stride, padding, dilation, groups, x_shape[2:]) if needs[0] else None
    return dx, dw, db


@op(vjp=_conv2d_vjp, outputs_if="activation")
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: Literal["none", "relu", "sigmoid", "tanh"] = "none",
) -> Tensor:
    """Cross-correlation: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O) -> (N, O, OH, OW), OH = (H + 2p - d(KH-1) - 1)//s + 1."""


def _input_vjp(g: Tensor, grad: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, weight_shape: tuple, needs: tuple) -> tuple:
    dg = conv2d(g, weight, None, stride, padding, dilation, groups) if needs[0] else None
    dw = conv2d_backward_weight(grad, g, stride, padding, dilation, groups, weight_shape[2:])[0] if needs[1] else None
    return dg, dw


@op(vjp=_input_vjp)
def conv2d_backward_input(
    grad: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    size: Pair = 1,
) -> Tensor:
    """Gradient of conv2d's input (size H, W), i.e. transposed convolution of grad."""


def _weight_vjp(g0: Tensor, g1: Tensor, grad: Tensor, x: Tensor, x_shape: tuple, stride: Any, padding: Any, dilation: Any, groups: int, needs: tuple) -> tuple:
    dg = conv2d(x, g0, g1, stride, padding, dilation, groups) if needs[0] else None
    dx = conv2d_backward_input(grad, g0, stride, padding, dilation, groups, x_shape[2:]) if needs[1] else None
    return dg, dx


@op(vjp=_weight_vjp, returns="dw, db", visible=2)
def conv2d_backward_weight(
    grad: Tensor,
    x: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    size: Pair = 1,
) -> tuple[Tensor, Tensor]:
    """Gradients of conv2d's weight (kernel size given) and bias."""
