"""Embedding."""

from __future__ import annotations

from typing import Any

import fastdl as fd

from . import functional as F, init
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """A table of vectors looked up by integer.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
    padding_idx : int, optional
        This row starts as zeros and gets no gradient.
    device, dtype : optional

    Attributes
    ----------
    weight : Parameter
        (num_embeddings, embedding_dim), standard normal.

    Raises
    ------
    IndexError
        When an index is out of range.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Embedding(10, 4)(fd.array([[1, 2, 3], [4, 5, 9]])).shape
    (2, 3, 4)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: padding_idx {padding_idx} is out of range for {num_embeddings} rows")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx % num_embeddings if padding_idx is not None else None
        self.weight = Parameter(fd.empty((num_embeddings, embedding_dim), dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with fd.no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(cls, embeddings: fd.Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """A layer around the given table (num_embeddings, embedding_dim), which is not trained unless `freeze=False`."""
        if embeddings.ndim != 2:
            raise fd.ShapeError(f"Embedding.from_pretrained: got shape {tuple(embeddings.shape)}; need 2 dimensions")
        count, width = embeddings.shape
        layer = cls(count, width, padding_idx=padding_idx)
        layer.weight = Parameter(embeddings, requires_grad=not freeze)
        return layer

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"
