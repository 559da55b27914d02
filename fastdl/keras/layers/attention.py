"""Multi-head attention (Vaswani et al., 2017), with Keras's weights."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd
from fastdl.errors import ValueError_
from fastdl.nn import functional as F

from .base import Layer


class MultiHeadAttention(Layer):
    """Attention of `query` (N, T, D) over `key` and `value` (N, S, ...) in `num_heads` heads of width `key_dim`.

    Parameters
    ----------
    num_heads, key_dim : int
    value_dim : int, optional
        Default: `key_dim`.
    dropout : float
        On the attention weights.
    use_bias : bool
    output_shape : int, optional
        Width of the output; default: that of the query.
    kernel_initializer, bias_initializer : optional

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    >>> x = np.ones((3, 5, 8))
    >>> layer(x, x).shape, layer.get_weights()[0].shape
    ((3, 5, 8), (8, 2, 4))
    """

    def __init__(
        self, num_heads: int, key_dim: int, value_dim: int | None = None, dropout: float = 0.0, use_bias: bool = True,
        output_shape: int | None = None, kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        if num_heads < 1 or key_dim < 1:
            raise ValueError_(f"MultiHeadAttention: need num_heads and key_dim >= 1; got {num_heads} and {key_dim}")
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim or key_dim
        self.dropout, self.use_bias, self.width = dropout, use_bias, output_shape
        self._initializers = kernel_initializer, bias_initializer

    def _build(self, args: tuple[Any, ...]) -> None:
        query, value = args[0], args[1]
        key = args[2] if len(args) > 2 and args[2] is not None else value
        kernel, bias = self._initializers
        h = self.num_heads
        for part, x, width in (("query", query, self.key_dim), ("key", key, self.key_dim), ("value", value, self.value_dim)):
            self.add_weight((x.shape[-1], h, width), kernel, name=f"{part}_kernel")
            if self.use_bias:
                self.add_weight((h, width), bias, name=f"{part}_bias")
        out = self.width or query.shape[-1]
        self.add_weight((h, self.value_dim, out), kernel, name="output_kernel")
        if self.use_bias:
            self.add_weight((out,), bias, name="output_bias")
        self.built = True

    def _heads(self, x: Any, part: str) -> Any:
        """(N, T, D) as (N, heads, T, width)."""
        w = getattr(self, f"{part}_kernel")
        y = x @ w.reshape((w.shape[0], -1))
        if self.use_bias:
            y = y + getattr(self, f"{part}_bias").reshape((-1,))
        return fd.permute_dims(y.reshape((*x.shape[:2], self.num_heads, -1)), (0, 2, 1, 3))

    def __call__(self, query: Any, value: Any = None, key: Any = None, **kwargs: Any) -> Any:
        value = query if value is None else value
        return super().__call__(query, value, *(() if key is None else (key,)), **kwargs)

    def call(
        self, query: Any, value: Any, key: Any = None, attention_mask: Any = None, return_attention_scores: bool = False, use_causal_mask: bool = False
    ) -> Any:
        q, k, v = self._heads(query, "query"), self._heads(value if key is None else key, "key"), self._heads(value, "value")
        scores = (q * (1.0 / math.sqrt(self.key_dim))) @ k.mT
        if attention_mask is not None:
            mask = attention_mask.astype(fd.bool_)
            while mask.ndim < 4:
                mask = fd.expand_dims(mask, -3 if mask.ndim > 2 else -2)
            scores = fd.where(mask, scores, -1e9)
        if use_causal_mask:
            scores = fd.where(fd.tril(fd.ones(tuple(scores.shape[-2:]))) > 0, scores, -1e9)
        weights = fd.softmax(scores, -1)
        y = F.dropout(weights, self.dropout, self.training) @ v
        y = fd.permute_dims(y, (0, 2, 1, 3)).reshape((*query.shape[:2], -1))
        w = self.output_kernel
        y = y @ w.reshape((-1, w.shape[-1]))
        y = y + self.output_bias if self.use_bias else y
        return (y, weights) if return_attention_scores else y
