"""The decoder half of the Transformer (Vaswani et al., 2017); the encoder is in attention.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import fastdl as fd

from .attention import MultiheadAttention
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm


class TransformerDecoderLayer(Module):
    """Self-attention over the target, attention over the encoder's output, and a feed-forward network, with residuals and norms.

    Parameters
    ----------
    d_model, nhead, dim_feedforward : int
    dropout : float
    activation : {"relu", "gelu"} or callable
    layer_norm_eps : float
    batch_first, norm_first, bias : bool
        `norm_first` normalises before each part, not after.
    device, dtype : optional

    Raises
    ------
    ValueError
        When d_model is not divisible by nhead, or the activation has no such name.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> target, memory = fd.ones((2, 5, 8)), fd.ones((2, 7, 8))
    >>> nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)(target, memory, tgt_is_causal=True).shape
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
            raise ValueError(f"TransformerDecoderLayer: activation must be 'relu', 'gelu' or callable; got {activation!r}")
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first, device, dtype)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first, device, dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = getattr(fd, activation) if isinstance(activation, str) else activation

    def forward(
        self,
        tgt: fd.Tensor,
        memory: fd.Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> fd.Tensor:
        """Decode `tgt` (L, N, E), or (N, L, E) with batch_first, looking at `memory` (S, N, E); masks as in MultiheadAttention."""

        def look_back(x: fd.Tensor) -> fd.Tensor:
            return self.dropout1(self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal)[0])

        def look_across(x: fd.Tensor) -> fd.Tensor:
            attended = self.multihead_attn(x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal)
            return self.dropout2(attended[0])

        def feed(x: fd.Tensor) -> fd.Tensor:
            return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        x = tgt
        for part, norm in ((look_back, self.norm1), (look_across, self.norm2), (feed, self.norm3)):
            x = x + part(norm(x)) if self.norm_first else norm(x + part(x))
        return x


class TransformerDecoder(Module):
    """`num_layers` copies of `decoder_layer`, one after the other, and an optional last norm.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)
    >>> decoder(fd.ones((5, 1, 8)), fd.ones((3, 1, 8))).shape
    (5, 1, 8)
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: fd.Tensor,
        memory: fd.Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> fd.Tensor:
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal, memory_is_causal
            )
        return tgt if self.norm is None else self.norm(tgt)
