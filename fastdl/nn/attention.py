"""Attention and Transformer layers (Vaswani et al., 2017)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import fastdl as fd

from . import functional as F, init
from ._attention import attend, forbid
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm
from .parameter import Parameter


class MultiheadAttention(Module):
    """Attention in `num_heads` parallel heads over (L, N, E), (N, L, E) with batch_first, or (L, E).

    Parameters
    ----------
    embed_dim, num_heads : int
        `embed_dim` must be divisible by `num_heads`.
    dropout : float
        On the attention weights, in training.
    bias, batch_first : bool
    device, dtype : optional

    Attributes
    ----------
    in_proj_weight : Parameter
        (3 * embed_dim, embed_dim): queries, keys, values.
    in_proj_bias : Parameter or None
    out_proj : Linear

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> x = fd.ones((2, 5, 8))
    >>> output, weights = nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x)
    >>> output.shape, weights.shape
    ((2, 5, 8), (2, 5, 5))
    """

    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.head_dim = embed_dim // num_heads
        self.in_proj_weight = Parameter(fd.empty((3 * embed_dim, embed_dim), dtype=dtype, device=device))
        self.register_parameter("in_proj_bias", Parameter(fd.zeros((3 * embed_dim,), dtype=dtype, device=device)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.xavier_uniform_(self.in_proj_weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def _heads(self, x: fd.Tensor, part: int) -> fd.Tensor:
        """Queries (0), keys (1) or values (2) of x (N, L, E) as (N, heads, L, head_dim)."""
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        y = fd.linear(x, self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows])
        return fd.permute_dims(fd.reshape(y, (*x.shape[:2], self.num_heads, self.head_dim)), (0, 2, 1, 3))

    def _self_heads(self, x: fd.Tensor) -> tuple[fd.Tensor, ...]:
        """Queries, keys and values of one x (N, L, E), as one product, each (N, heads, L, head_dim)."""
        y = fd.reshape(fd.linear(x, self.in_proj_weight, self.in_proj_bias), (*x.shape[:2], 3, self.num_heads, self.head_dim))
        return tuple(fd.swapaxes(y[:, :, part], 1, 2) for part in range(3))

    def forward(
        self,
        query: fd.Tensor,
        key: fd.Tensor,
        value: fd.Tensor,
        key_padding_mask: fd.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: fd.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[fd.Tensor, fd.Tensor | None]:
        """Attention of `query` over `key` and `value`.

        Parameters
        ----------
        query, key, value : Tensor
            (L, N, E) and twice (S, N, E), and so on.
        key_padding_mask : Tensor, optional
            (N, S): True (or minus infinity) where a key is to be ignored.
        need_weights, average_attn_weights : bool
            Whether to return the weights (N, L, S), or (N, heads, L, S) when not averaged.
        attn_mask : Tensor, optional
            (L, S) or (N * heads, L, S): True where attention is forbidden, or numbers to add to the scores.
        is_causal : bool
            Forbid attention to later positions.
        """
        tensors = (query, key, value)
        if any(t.ndim != query.ndim or t.shape[-1] != self.embed_dim for t in tensors) or query.ndim not in (2, 3):
            got = ", ".join(str(tuple(t.shape)) for t in tensors)
            raise fd.ShapeError(f"multihead_attention: got {got}; need three of (L, N, {self.embed_dim}) or (L, {self.embed_dim})")
        batched, own = query.ndim == 3, query is key and key is value
        if not batched:
            query, key, value = (fd.expand_dims(t, 0) for t in tensors)
            key_padding_mask = None if key_padding_mask is None else fd.expand_dims(key_padding_mask, 0)
        elif not self.batch_first:
            query, key, value = (fd.swapaxes(t, 0, 1) for t in tensors)
        q, k, v = self._self_heads(query) if own else (self._heads(t, part) for part, t in enumerate((query, key, value)))
        n, length, source = query.shape[0], query.shape[1], key.shape[1]
        causal = is_causal and attn_mask is None
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = fd.reshape(attn_mask, (n, self.num_heads, length, source))
        if key_padding_mask is not None:
            key_padding_mask = fd.reshape(key_padding_mask, (n, 1, 1, source))
        mask = _joined(attn_mask, key_padding_mask, q.dtype)
        scale, dropout = 1 / math.sqrt(self.head_dim), self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = fd.matmul(q * scale, fd.swapaxes(k, -1, -2))
            if causal:
                scores = fd.where(fd.tril(fd.ones((length, source), dtype="bool", device=scores.device)), scores, -math.inf)
            weights = fd.softmax(scores if mask is None else scores + mask, -1)
            mixed = fd.matmul(F.dropout(weights, dropout) if dropout else weights, v)
        else:
            mixed = attend(q, k, v, mask, dropout, causal, scale)
        mixed = fd.reshape(fd.permute_dims(mixed, (0, 2, 1, 3)), (n, length, self.embed_dim))
        output = self.out_proj(mixed)
        shown = None
        if weights is not None:
            shown = weights.mean(axis=1) if average_attn_weights else weights
        if not batched:
            return output[0], None if shown is None else shown[0]
        return output if self.batch_first else fd.swapaxes(output, 0, 1), shown

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _joined(one: fd.Tensor | None, other: fd.Tensor | None, dtype: Any) -> fd.Tensor | None:
    """Both masks as numbers to add to scores of `dtype`."""
    masks = [forbid(m, dtype) if str(m.dtype) == "bool" else m for m in (one, other) if m is not None]
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] + masks[1]


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward network, each with a residual connection and layer norm.

    Parameters
    ----------
    d_model, nhead, dim_feedforward : int
    dropout : float
    activation : {"relu", "gelu"} or callable
    layer_norm_eps : float
    batch_first, norm_first, bias : bool
        `norm_first` normalises before each part, not after.
    device, dtype : optional

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(fd.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[fd.Tensor], fd.Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise ValueError(f"TransformerEncoderLayer: activation must be 'relu', 'gelu' or callable; got {activation!r}")
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first, device, dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = getattr(fd, activation) if isinstance(activation, str) else activation

    def _attend(self, x: fd.Tensor, mask: Any, padding: Any, causal: bool) -> fd.Tensor:
        return self.dropout1(self.self_attn(x, x, x, padding, False, mask, is_causal=causal)[0])

    def _feed(self, x: fd.Tensor) -> fd.Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(self, src: fd.Tensor, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> fd.Tensor:
        x = src
        if self.norm_first:
            x = x + self._attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._feed(x))


class TransformerEncoder(Module):
    """`num_layers` copies of `encoder_layer`, one after the other, and an optional last norm."""

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, src: fd.Tensor, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> fd.Tensor:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
