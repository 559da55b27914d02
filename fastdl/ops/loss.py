"""Softmax and cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _C
from ..op import op
from .elementwise import exp, logical_and, where
from .index import one_hot
from .reduce import logsumexp, mean, sum

if TYPE_CHECKING:
    from .._C import Tensor
    from ..typing import Axis


@op(vjp=lambda g, y, axis: softmax_backward(g, y, axis))
def softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return exp(x - logsumexp(x, axis, True))


@op(vjp=lambda g, y, axis: log_softmax_backward(g, y, axis))
def log_softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """log(softmax(x)) without overflow."""
    return x - logsumexp(x, axis, True)


@op(vjp="body")
def softmax_backward(grad: Tensor, out: Tensor, axis: Axis = -1) -> Tensor:
    """Gradient of softmax from its output."""
    return out * (grad - sum(grad * out, axis, True))


@op(vjp="body")
def log_softmax_backward(grad: Tensor, out: Tensor, axis: Axis = -1) -> Tensor:
    """Gradient of log_softmax from its output."""
    return grad - exp(out) * sum(grad, axis, True)


def _cross_entropy_vjp(g: Tensor, lse: Tensor, logits: Tensor, target: Tensor, label_smoothing: float, ignore_index: int) -> Any:
    if _C.grad_enabled():
        from ..op import gradient_of_body

        return (*gradient_of_body(_cross_entropy, (g,), (logits,), (target, label_smoothing, ignore_index), (True,)), None)
    return cross_entropy_backward(g, logits, target, lse, label_smoothing, ignore_index), None


def _cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float, ignore_index: int) -> Tensor:
    kept = target != ignore_index
    logp = log_softmax(logits, -1)
    chosen = one_hot(where(kept, target, 0), logits.shape[1], logits.dtype)
    loss = -sum(chosen * logp, axis=-1) * (1.0 - label_smoothing) - mean(logp, axis=-1) * label_smoothing
    return where(logical_and(kept, True), loss, 0.0)


@op(vjp=_cross_entropy_vjp, returns="loss, lse")
def cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
    """-log softmax(logits)[target] per row: logits (N, C), target (N) int64 -> (N). Rows with target == ignore_index give 0."""
    return _cross_entropy(logits, target, label_smoothing, ignore_index)


@op()
def cross_entropy_backward(grad: Tensor, logits: Tensor, target: Tensor, lse: Tensor, label_smoothing: float = 0.0, ignore_index: int = -100) -> Tensor:
    """Gradient of cross_entropy's logits; lse is the log-sum-exp of each row."""
