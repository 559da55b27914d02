"""Transformers over one text: a decoder that goes on (GPT) and an encoder that fills gaps (masked prediction)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn

from .text import sampler


class _Body(nn.Module):
    """Embeddings of tokens and positions, pre-norm layers, and scores by the token embedding itself (Press and Wolf, 2017)."""

    _causal = False

    def __init__(
        self, vocabulary: int, context: int = 128, width: int = 128, depth: int = 4, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if vocabulary < 1 or context < 1 or depth < 1:
            raise ValueError(f"{type(self).__name__}: need vocabulary, context and depth >= 1; got {vocabulary}, {context} and {depth}")
        self.context = context
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width))
        std = (0.3072 / width) ** 0.5  # GPT-2's 0.02 at its width of 768; smaller networks stand still with so small weights
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:  # projections onto the residual stream start smaller, as there are two per layer
                last = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(parameter, 0.0, std / (2 * depth) ** 0.5 if last else std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: fd.Tensor) -> fd.Tensor:
        """Scores (N, L, vocabulary) for tokens (N, L), L <= context."""
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context:
            raise fd.ShapeError(f"{type(self).__name__.lower()}: got shape {tuple(tokens.shape)}; need (N, L) with L in 1 .. {self.context}")
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        x = self.body(self.dropout(x), is_causal=self._causal)
        return fd.linear(x, self.tokens.weight)


class GPT(_Body):
    """Decoder-only Transformer (Radford et al., 2019): every place sees the places before it and says what follows.

    Parameters
    ----------
    vocabulary, context : int
        Number of tokens, and of places.
    width, depth, heads : int
    dropout : float

    Raises
    ------
    ValueError
        When width is not divisible by heads, or a size is below 1.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.GPT(30, context=16, width=8, depth=1, heads=2)
    >>> net(fd.zeros((2, 5), dtype="int64")).shape, net.generate([1, 2], 20, rng=0).shape
    ((2, 5, 30), (22,))
    """

    _causal = True

    def generate(self, prompt: Sequence[int], count: int, temperature: float = 1.0, rng: Any = None) -> np.ndarray:
        """The prompt and `count` further tokens, drawn one by one from what the last `context` tokens say."""
        draw = sampler(temperature, rng)
        tokens, device = [int(t) for t in prompt], self.tokens.weight.device
        was, _ = self.training, self.eval()
        with fd.no_grad():
            for _ in range(count):
                tokens.append(draw(self(fd.array([tokens[-self.context :]], device=device))[0, -1]))
        self.train(was)
        return np.array(tokens)


class MaskedTransformer(_Body):
    """Encoder-only Transformer (Devlin et al., 2019): every place sees all others and says what it was before it was hidden.

    Parameters
    ----------
    vocabulary, context : int
        Number of tokens, the mask among them, and of places.
    width, depth, heads : int
    dropout : float

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.MaskedTransformer(30, context=16, width=8, depth=1, heads=2)(fd.zeros((2, 5), dtype="int64")).shape
    (2, 5, 30)
    """


def mask_tokens(tokens: np.ndarray, mask: int, share: float = 0.15, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the tokens as BERT does (Devlin et al., 2019): 80 % become `mask`, 10 % a random token, 10 % stay.

    Parameters
    ----------
    tokens : numpy.ndarray
        Integers below `mask`, of any shape.
    mask : int
        The number of the mask; tokens are 0 to mask - 1.
    share : float
    rng : optional

    Returns
    -------
    inputs, targets : numpy.ndarray
        Targets are -100, which `cross_entropy` ignores, where nothing was hidden.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdl as fd
    >>> inputs, targets = fd.models.mask_tokens(np.arange(1000) % 7, 7, rng=0)
    >>> bool((inputs[targets == -100] == (np.arange(1000) % 7)[targets == -100]).all())
    True
    """
    from fastdl.data._seed import numpy_rng

    tokens = np.asarray(tokens)
    if not 0 < share <= 1:
        raise ValueError(f"mask_tokens: share must be in (0, 1]; got {share}")
    if tokens.size and (tokens.min() < 0 or tokens.max() >= mask):
        raise ValueError(f"mask_tokens: tokens must be in 0 .. {mask - 1}; got {tokens.min()} .. {tokens.max()}")
    generator = numpy_rng(rng)
    hidden = generator.random(tokens.shape) < share
    kind = generator.random(tokens.shape)
    inputs = np.where(hidden & (kind < 0.8), mask, tokens)
    inputs = np.where(hidden & (kind >= 0.8) & (kind < 0.9), generator.integers(0, mask, tokens.shape), inputs)
    return inputs, np.where(hidden, tokens, -100)
