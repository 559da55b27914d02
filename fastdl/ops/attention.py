"""Scaled dot-product attention. The gradient kernel is an op; where its own gradient is wanted, the formula is differentiated instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _C
from ..op import gradient_of_body, op
from .creation import ones
from .elementwise import equal, where
from .loss import softmax
from .reduce import max
from .shape import tril

if TYPE_CHECKING:
    from .._C import Tensor


def _attention_vjp(
    g: Tensor, y: Tensor, peak: Tensor, factor: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Any,
    causal: bool, scale: float, needs: tuple,
) -> tuple:  # fmt: skip
    if _C.grad_enabled() or needs[3]:  # the kernel's results have no gradient, and it makes none of a mask
        given = tuple(v for v in (query, key, value, mask) if v is not None)
        found = gradient_of_body(lambda q, k, v, m=None: _attention(q, k, v, m, causal, scale), (g,), given, (), needs[: len(given)])
        return (*found, None)[:4]
    return (*attention_backward(g, query, key, value, mask, y, peak, factor, causal, scale), None)


@op(vjp=_attention_vjp, returns="y, peak, factor")
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float = 1.0) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value for query (..., L, E), key (..., S, E), value (..., S, V), without the matrix of
    all scores (Dao et al., arXiv 2205.14135). causal: query l sees keys 0 to l. A query that sees none gives 0."""
    return _attention(query, key, value, mask, causal, scale)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Any, causal: bool, scale: float) -> Tensor:
    scores = (query * scale) @ key.mT
    return attention_weights(scores, mask, causal) @ value


def attention_weights(scores: Tensor, mask: Any, causal: bool) -> Tensor:
    """softmax(scores + mask) over the keys, 0 for queries that see none."""
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = where(tril(ones(scores.shape[-2:], dtype="bool", device=scores.device)), scores, -float("inf"))
    if scores.shape[-1] == 0:
        return scores
    blind = equal(max(scores.detach(), -1, True), -float("inf"))
    return where(blind, 0.0, softmax(where(blind, 0.0, scores), -1))


@op(returns="dq, dk, dv", visible=3)
def attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, y: Tensor, peak: Tensor, factor: Tensor,
    causal: bool = False, scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of attention's query, key and value; y, peak (the largest score) and factor (1 / sum of exp(score - peak)) are its results."""
