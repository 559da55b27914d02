"""Activations and their gradients. Definitions are PyTorch's; every backward is an op of its own, so second order comes from its body."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..op import op
from .elementwise import abs, clip, erf, exp, expm1, log1p, maximum, minimum, tanh, where

if TYPE_CHECKING:
    from .._C import Tensor

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@op(vjp=lambda g, y: relu_backward(g, y))
def relu(x: Tensor) -> Tensor:
    """max(x, 0); NaN stays NaN."""
    return maximum(x, 0)


@op(vjp="body")
def relu_backward(grad: Tensor, result: Tensor) -> Tensor:
    """grad where the output is positive, else 0."""
    return where(result > 0, grad, 0.0)


@op(vjp=lambda g, x: relu6_backward(g, x))
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return minimum(maximum(x, 0), 6)


@op(vjp="body")
def relu6_backward(grad: Tensor, x: Tensor) -> Tensor:
    """grad where 0 < x < 6, else 0."""
    return where((x > 0) & (x < 6), grad, 0.0)


@op(vjp=lambda g, y: sigmoid_backward(g, y))
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    e = exp(-abs(x))
    return where(x >= 0, 1.0, e) / (1.0 + e)


@op(vjp="body")
def sigmoid_backward(grad: Tensor, result: Tensor) -> Tensor:
    """Gradient of sigmoid from its output."""
    return grad * (result * (1.0 - result))


@op(vjp=lambda g, x: log_sigmoid_backward(g, x))
def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x)) without overflow."""
    return minimum(x, 0.0) - log1p(exp(-abs(x)))


@op(vjp="body")
def log_sigmoid_backward(grad: Tensor, x: Tensor) -> Tensor:
    """grad * sigmoid(-x)."""
    return grad * sigmoid(-x)


@op(vjp=lambda g, x: silu_backward(g, x))
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) (also known as swish)."""
    return x * sigmoid(x)


@op(vjp="body")
def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of silu."""
    s = sigmoid(x)
    return grad * (s * (1.0 + x * (1.0 - s)))


@op(vjp=lambda g, x: gelu_backward(g, x))
def gelu(x: Tensor) -> Tensor:
    """x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


@op(vjp="body")
def gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of gelu."""
    cdf = 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
    return grad * (cdf + x * exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi)))


_GELU_C, _GELU_A = math.sqrt(2.0 / math.pi), 0.044715


@op(vjp=lambda g, x: gelu_tanh_backward(g, x))
def gelu_tanh(x: Tensor) -> Tensor:
    """gelu by its tanh approximation."""
    return 0.5 * x * (1.0 + tanh(_GELU_C * (x + _GELU_A * x * x * x)))


@op(vjp="body")
def gelu_tanh_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of gelu_tanh."""
    t = tanh(_GELU_C * (x + _GELU_A * x * x * x))
    return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (_GELU_C * (1.0 + 3.0 * _GELU_A * x * x)))


@op(vjp=lambda g, x: mish_backward(g, x))
def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)) (Misra, arXiv 1908.08681)."""
    return x * tanh(softplus(x))


@op(vjp="body")
def mish_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of mish."""
    t = tanh(softplus(x))
    return grad * (t + x * sigmoid(x) * (1.0 - t * t))


@op(vjp=lambda g, x, beta, threshold: softplus_backward(g, x, beta, threshold))
def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    b = x * beta
    return where(b > threshold, x, (maximum(b, 0.0) + log1p(exp(-abs(b)))) * (1.0 / beta))


@op(vjp="body")
def softplus_backward(grad: Tensor, x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Gradient of softplus."""
    b = x * beta
    return where(b > threshold, grad, grad * sigmoid(b))


@op(vjp=lambda g, x: softsign_backward(g, x))
def softsign(x: Tensor) -> Tensor:
    """x / (1 + abs(x))."""
    return x / (1.0 + abs(x))


@op(vjp="body")
def softsign_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of softsign."""
    d = 1.0 + abs(x)
    return grad / (d * d)


@op(vjp=lambda g, x, alpha: elu_backward(g, x, alpha))
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x if x > 0, else alpha * (exp(x) - 1)."""
    return where(x > 0, x, alpha * expm1(minimum(x, 0.0)))


@op(vjp="body")
def elu_backward(grad: Tensor, x: Tensor, alpha: float = 1.0) -> Tensor:
    """Gradient of elu."""
    return where(x > 0, grad, grad * (alpha * exp(minimum(x, 0.0))))


@op(vjp=lambda g, x, alpha: celu_backward(g, x, alpha))
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
    return where(x > 0, x, alpha * expm1(minimum(x, 0.0) * (1.0 / alpha)))


@op(vjp="body")
def celu_backward(grad: Tensor, x: Tensor, alpha: float = 1.0) -> Tensor:
    """Gradient of celu."""
    return where(x > 0, grad, grad * exp(minimum(x, 0.0) * (1.0 / alpha)))


@op(vjp=lambda g, x: selu_backward(g, x))
def selu(x: Tensor) -> Tensor:
    """Scaled elu (Klambauer et al., arXiv 1706.02515)."""
    return _SELU_SCALE * where(x > 0, x, _SELU_ALPHA * expm1(minimum(x, 0.0)))


@op(vjp="body")
def selu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of selu."""
    return where(x > 0, grad * _SELU_SCALE, grad * (_SELU_SCALE * _SELU_ALPHA * exp(minimum(x, 0.0))))


@op(vjp=lambda g, x, slope: leaky_relu_backward(g, x, slope))
def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x if x > 0, else slope * x."""
    return where(x > 0, x, x * slope)


@op(vjp="body")
def leaky_relu_backward(grad: Tensor, x: Tensor, slope: float = 0.01) -> Tensor:
    """Gradient of leaky_relu."""
    return where(x > 0, grad, grad * slope)


@op(vjp=lambda g, x, lo, hi: hardtanh_backward(g, x, lo, hi))
def hardtanh(x: Tensor, lo: float = -1.0, hi: float = 1.0) -> Tensor:
    """x clipped to [lo, hi]."""
    return clip(x, lo, hi)


@op(vjp="body")
def hardtanh_backward(grad: Tensor, x: Tensor, lo: float = -1.0, hi: float = 1.0) -> Tensor:
    """grad where lo < x < hi, else 0."""
    return where((x > lo) & (x < hi), grad, 0.0)


@op(vjp=lambda g, x: hardsigmoid_backward(g, x))
def hardsigmoid(x: Tensor) -> Tensor:
    """clip(x / 6 + 1 / 2, 0, 1)."""
    return clip(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)


@op(vjp="body")
def hardsigmoid_backward(grad: Tensor, x: Tensor) -> Tensor:
    """grad / 6 where -3 < x < 3, else 0."""
    return where((x > -3) & (x < 3), grad * (1.0 / 6.0), 0.0)


@op(vjp=lambda g, x: hardswish_backward(g, x))
def hardswish(x: Tensor) -> Tensor:
    """x * hardsigmoid(x) (Howard et al., arXiv 1905.02244)."""
    return x * clip(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)


@op(vjp="body")
def hardswish_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of hardswish."""
    return where(x <= -3, 0.0, where(x < 3, grad * (x * (1.0 / 3.0) + 0.5), grad))
