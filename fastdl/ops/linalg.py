"""Products of vectors and matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .. import _C
from ..errors import ShapeError, ValueError_
from ..op import op
from . import activation
from .creation import asarray
from .elementwise import _conj, tanh_backward
from .reduce import sum
from .shape import moveaxis

if TYPE_CHECKING:
    from .._C import Tensor

# Gradient of the activations that linear and conv2d can apply at the end, from their output (relu, sigmoid, tanh).
ACTIVATION_BACKWARD = {
    "relu": lambda g, y: activation.relu_backward(g, y),
    "sigmoid": lambda g, y: activation.sigmoid_backward(g, y),
    "tanh": lambda g, y: tanh_backward(g, y),
}


@op(vjp=(lambda g, x2: _matmul(g, _conj(x2).mT), lambda g, x1: _matmul(_conj(x1).mT, g)))
def matmul(x1: Tensor, x2: Tensor) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast."""


def _linear_vjp(g: Tensor, y: Any, x: Tensor, weight: Tensor, activation: str, needs: tuple) -> tuple:
    if activation != "none":
        g = ACTIVATION_BACKWARD[activation](g, y)
    dx = (_matmul(g, weight) if g.ndim > 1 else _matmul(g[None], weight)[0]) if needs[0] else None
    dw, db = linear_backward_weight(g, x) if needs[1] or needs[2] else (None, None)
    return dx, dw, db


@op(vjp=_linear_vjp, outputs_if="activation")
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["none", "relu", "sigmoid", "tanh"] = "none",
) -> Tensor:
    """activation(x @ weight.T + bias): x (..., in), weight (out, in), bias (out)."""
    y = x @ weight.mT
    if bias is not None:
        y = y + bias
    return y if activation == "none" else getattr(_module(), activation)(y)


def _module() -> Any:
    from . import activation as a, elementwise

    return type("Activations", (), {"relu": a.relu, "sigmoid": a.sigmoid, "tanh": elementwise.tanh})


def _linear_backward_weight_vjp(g0: Tensor, g1: Tensor, grad: Tensor, x: Tensor, needs: tuple) -> tuple:
    return _matmul(x, g0.mT) + g1 if needs[0] else None, _matmul(grad, g0) if needs[1] else None


@op(vjp=_linear_backward_weight_vjp, returns="dw, db", visible=2)
def linear_backward_weight(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of linear's weight and bias from grad (..., out) and x (..., in): (out, in) and (out)."""
    g2, x2 = grad.reshape((-1, grad.shape[-1])), x.reshape((-1, x.shape[-1]))
    return g2.mT @ x2, sum(g2, axis=0)


_matmul = matmul


def matmul_any(x1: Any, x2: Any) -> Tensor:
    """NumPy's matmul: vectors are promoted to matrices and the extra axis is dropped again."""
    a, b = asarray(x1), asarray(x2)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: shapes {a.shape} and {b.shape}; need at least 1 dimension, use * for numbers")
    va, vb = a.ndim == 1, b.ndim == 1
    y = _matmul(a[None, :] if va else a, b[:, None] if vb else b)
    if va and vb:
        return y[..., 0, 0]
    return y[..., 0, :] if va else y[..., 0] if vb else y


_C.set_hook("matmul", matmul_any)


def dot(x1: Any, x2: Any) -> Tensor:
    """NumPy's dot: inner product of vectors, matrix product of matrices, last axis with second to last."""
    a, b = asarray(x1), asarray(x2)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return matmul_any(a, b) if a.ndim <= 2 and b.ndim <= 2 else tensordot(a, b, axes=((-1,), (-2 if b.ndim > 1 else -1,)))


def vecdot(x1: Any, x2: Any, /, axis: int = -1) -> Tensor:
    """Sum of conj(x1) * x2 along an axis."""
    a, b = asarray(x1), asarray(x2)
    return sum(_conj(a) * b, axis=axis)


def inner(x1: Any, x2: Any) -> Tensor:
    """Sum over the last axes."""
    return tensordot(x1, x2, axes=((-1,), (-1,)))


def outer(x1: Any, x2: Any) -> Tensor:
    """Products of all pairs of two vectors."""
    return asarray(x1).reshape(-1)[:, None] * asarray(x2).reshape(-1)[None, :]


def tensordot(x1: Any, x2: Any, /, axes: Any = 2) -> Tensor:
    """Contraction over the given axes of both tensors."""
    a, b = asarray(x1), asarray(x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ValueError_(f"tensordot: {axes} axes; need 0 to {min(a.ndim, b.ndim)}")
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        left, right = ([k] if isinstance(k, int) else list(k) for k in axes)
        left, right = [k % a.ndim for k in left], [k % b.ndim for k in right]
    if len(left) != len(right) or any(a.shape[i] != b.shape[j] for i, j in zip(left, right)):
        raise ShapeError(f"tensordot: axes {left} of {a.shape} do not match axes {right} of {b.shape}")
    n = len(left)
    a2, b2 = moveaxis(a, left, list(range(a.ndim - n, a.ndim))), moveaxis(b, right, list(range(n)))
    free_a, free_b = a2.shape[: a.ndim - n], b2.shape[n:]
    k = 1
    for s in b2.shape[:n]:
        k *= s
    size_a, size_b = 1, 1
    for s in free_a:
        size_a *= s
    for s in free_b:
        size_b *= s
    return _matmul(a2.reshape((size_a, k)), b2.reshape((k, size_b))).reshape((*free_a, *free_b))


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Einstein summation over named axes, e.g. ``einsum("bij,bjk->bik", a, b)``; pairs are contracted left to right by matmul.

    Raises
    ------
    ValueError
        For subscripts that do not fit the operands, or ellipsis.
    """
    if "." in subscripts:
        raise ValueError_("einsum: ellipsis is not supported; name the axes")
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    xs = [asarray(o) for o in operands]
    if len(terms) != len(xs) or any(len(t) != x.ndim for t, x in zip(terms, xs)):
        raise ValueError_(f"einsum: subscripts {subscripts!r} do not fit operands of shapes {', '.join(str(x.shape) for x in xs)}")
    if not arrow:
        out = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    sizes: dict[str, int] = {}
    for t, x in zip(terms, xs):
        for c, s in zip(t, x.shape):
            if sizes.setdefault(c, s) != s:
                raise ShapeError(f"einsum: axis {c!r} has sizes {sizes[c]} and {s}")
    if any(c not in sizes for c in out) or len(set(out)) != len(out):
        raise ValueError_(f"einsum: output {out!r} names an axis that no operand has, or one twice")
    term, x = _single(terms[0], xs[0])
    for k in range(1, len(xs)):
        later = set(out).union(*terms[k + 1 :])
        term, x = _pair(term, x, *_single(terms[k], xs[k]), later)
    x = sum(x, axis=tuple(i for i, c in enumerate(term) if c not in out)) if set(term) - set(out) else x
    term = "".join(c for c in term if c in out)
    return _C.permute(x, [term.index(c) for c in out]) if term != out else x


def _single(term: str, x: Tensor) -> tuple[str, Tensor]:
    from .shape import diagonal

    while len(set(term)) < len(term):  # a repeated name is a diagonal
        c = next(c for c in term if term.count(c) > 1)
        i = term.index(c)
        j = term.index(c, i + 1)
        x = diagonal(x, 0, i, j)
        term = term[:i] + term[i + 1 : j] + term[j + 1 :] + c
    return term, x


def _pair(ta: str, a: Tensor, tb: str, b: Tensor, later: set) -> tuple[str, Tensor]:
    """Contracts two terms over the names that nobody needs later, as one batched matmul."""
    for t, o in ((ta, tb), (tb, ta)):
        gone = tuple(i for i, c in enumerate(t) if c not in o and c not in later)
        if gone:
            if t is ta:
                a, ta = sum(a, axis=gone), "".join(c for c in ta if c in tb or c in later)
            else:
                b, tb = sum(b, axis=gone), "".join(c for c in tb if c in ta or c in later)
    batch = "".join(c for c in ta if c in tb and c in later)
    inner_ = "".join(c for c in ta if c in tb and c not in later)
    free_a, free_b = "".join(c for c in ta if c not in tb), "".join(c for c in tb if c not in ta)
    sizes = {**dict(zip(ta, a.shape)), **dict(zip(tb, b.shape))}

    def size(names: str) -> int:
        n = 1
        for c in names:
            n *= sizes[c]
        return n

    a2 = _C.permute(a, [ta.index(c) for c in batch + free_a + inner_]).reshape((size(batch), size(free_a), size(inner_)))
    b2 = _C.permute(b, [tb.index(c) for c in batch + inner_ + free_b]).reshape((size(batch), size(inner_), size(free_b)))
    names = batch + free_a + free_b
    return names, _matmul(a2, b2).reshape([sizes[c] for c in names])
