"""Scaled dot-product attention as a function, under PyTorch's name and arguments."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd
from fastdl import Tensor
from fastdl.errors import ValueError_
from fastdl.ops.attention import attention_weights

from ._dropout import dropout

_NAME = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value (Vaswani et al., 2017).

    One kernel computes it block by block and never holds the matrix of scores, forward or backward (Dao et al., arXiv 2205.14135); keys
    that `is_causal` hides from a whole block of queries are not even read. Views such as the heads of one projection are read where they
    lie, and the result and the gradients lie in the same way. With dropout, or with a mask that needs a gradient, the formula is computed
    operation by operation.

    Parameters
    ----------
    query, key, value : Tensor
        (..., L, E), (..., S, E) and (..., S, V); leading dimensions broadcast. 16-bit floats are computed in float32.
    attn_mask : Tensor, optional
        Broadcasts to (..., L, S). Bool: True where a query may see a key. Float: added to the scores.
    dropout_p : float
        Probability of dropping a weight. Pass 0 when not training: the function does not know.
    is_causal : bool
        Query l sees keys 0 to l, also where L and S differ.
    scale : float, optional
        1 / sqrt(E) by default.
    enable_gqa : bool
        Each of the heads of key and value, on axis -3, serves a group of neighbouring heads of the query.

    Returns
    -------
    Tensor
        (..., L, V). A query that sees no key gives 0.

    Raises
    ------
    ShapeError
        When shapes do not fit.
    DTypeError
        When dtypes differ, or the mask is neither bool nor float.
    ValueError
        When `attn_mask` and `is_causal` are given together, or `dropout_p` is not in [0, 1].

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> q = fd.ones((2, 4, 5, 8))
    >>> F.scaled_dot_product_attention(q, q, q, is_causal=True).shape
    (2, 4, 5, 8)
    """
    shapes = f"query is {tuple(query.shape)}, key is {tuple(key.shape)}, value is {tuple(value.shape)}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise fd.ShapeError(f"{_NAME}: {shapes}; need at least 2 dimensions each")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise fd.ShapeError(f"{_NAME}: {shapes}; need (..., L, E), (..., S, E) and (..., S, V)")
    if query.dtype != key.dtype or query.dtype != value.dtype or query.dtype.kind not in "fV":
        raise fd.DTypeError(f"{_NAME}: query is {query.dtype}, key is {key.dtype}, value is {value.dtype}; need one float dtype")
    if not 0 <= dropout_p <= 1:
        raise ValueError_(f"{_NAME}: dropout_p is {dropout_p}; need 0 to 1")
    if attn_mask is not None and is_causal:
        raise ValueError_(f"{_NAME}: got attn_mask and is_causal=True; need one of them")
    if attn_mask is not None and str(attn_mask.dtype) not in ("bool", "float32", str(query.dtype)):
        raise fd.DTypeError(f"{_NAME}: attn_mask is {attn_mask.dtype}; need bool, float32 or {query.dtype}")
    if enable_gqa:
        key, value = (_repeat_heads(query, t, shapes) for t in (key, value))
    lead = _leading(query, key, value, shapes)
    query, key, value = (t if t.shape[:-2] == lead else fd.broadcast_to(t, (*lead, *t.shape[-2:])) for t in (query, key, value))
    if attn_mask is not None:
        _check_mask(attn_mask, (*lead, query.shape[-2], key.shape[-2]))
        if str(attn_mask.dtype) == "bool":
            attn_mask = forbid(~attn_mask, query.dtype)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    return attend(query, key, value, attn_mask, dropout_p, is_causal, scale)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, causal: bool, scale: float) -> Tensor:
    """What is left once shapes fit and the mask is None or float: by the kernel, or operation by operation."""
    dtype = query.dtype
    if dtype.itemsize == 2:
        query, key, value = (t.astype("float32") for t in (query, key, value))
    if mask is not None and mask.dtype != query.dtype:
        mask = mask.astype(query.dtype)
    if dropout_p or (mask is not None and mask.requires_grad):
        y = dropout(attention_weights((query * scale) @ key.mT, mask, causal), dropout_p) @ value
    else:
        y = fd.attention(query, key, value, mask, causal, scale)
    return y if y.dtype == dtype else y.astype(dtype)


def forbid(mask: Tensor, dtype: Any) -> Tensor:
    """A bool mask, True where a query must not see a key, as numbers to add to scores of `dtype`."""
    return fd.where(mask, fd.full((), -math.inf, dtype=dtype, device=mask.device), 0.0)


def _repeat_heads(query: Tensor, t: Tensor, shapes: str) -> Tensor:
    """The heads of t, on axis -3, each as often as the query has heads for it."""
    if min(query.ndim, t.ndim) < 3 or t.shape[-3] == 0 or query.shape[-3] % t.shape[-3]:
        raise fd.ShapeError(f"{_NAME}: {shapes}; with enable_gqa the heads of key and value (axis -3) must divide those of the query")
    groups = query.shape[-3] // t.shape[-3]
    if groups == 1:
        return t
    wide = fd.broadcast_to(fd.expand_dims(t, -3), (*t.shape[:-2], groups, *t.shape[-2:]))
    return fd.reshape(wide, (*t.shape[:-3], query.shape[-3], *t.shape[-2:]))


def _leading(query: Tensor, key: Tensor, value: Tensor, shapes: str) -> tuple[int, ...]:
    lead = tuple(query.shape[:-2])
    if lead == tuple(key.shape[:-2]) == tuple(value.shape[:-2]):
        return lead
    try:
        return tuple(fd.broadcast_shapes(*(tuple(t.shape[:-2]) for t in (query, key, value))))
    except ValueError:
        raise fd.ShapeError(f"{_NAME}: {shapes}; leading dimensions must be equal or 1") from None


def _check_mask(mask: Tensor, scores: tuple[int, ...]) -> None:
    if mask.ndim > len(scores) or any(m not in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1])):
        raise fd.ShapeError(f"{_NAME}: attn_mask is {tuple(mask.shape)}; need a shape that broadcasts to {scores}")
