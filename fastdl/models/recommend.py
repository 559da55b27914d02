"""Recommenders: what a user would give to an item."""

from __future__ import annotations

from collections.abc import Sequence

import fastdl as fd
from fastdl import nn


class MatrixFactorization(nn.Module):
    """mean + user's bias + item's bias + user's vector . item's vector (Koren et al., 2009).

    Parameters
    ----------
    users, items, factors : int
    mean : float
        Of all known ratings.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.MatrixFactorization(10, 20, 4, mean=3.5)
    >>> net(fd.array([0, 9]), fd.array([3, 19])).shape
    (2,)
    """

    mean: fd.Tensor

    def __init__(self, users: int, items: int, factors: int = 16, mean: float = 0.0) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        self.register_buffer("mean", fd.array(float(mean)).astype("float32"))
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, 0.0, 0.1)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, user: fd.Tensor, item: fd.Tensor) -> fd.Tensor:
        """Ratings (N,) that users (N,) would give to items (N,)."""
        match = (self.user(user) * self.item(item)).sum(axis=-1)
        return self.mean + match + fd.squeeze(self.user_bias(user) + self.item_bias(item), axis=-1)


class NeuralRecommender(nn.Module):
    """Products of vectors and a dense network over other vectors, joined by one layer (NeuMF; He et al., 2017).

    Parameters
    ----------
    users, items, factors : int
    hidden : sequence of int
        Widths of the dense layers.
    mean : float
        Of all known ratings.
    dropout : float

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.NeuralRecommender(10, 20, 4, (8,))(fd.array([0, 9]), fd.array([3, 19])).shape
    (2,)
    """

    mean: fd.Tensor

    def __init__(
        self, users: int, items: int, factors: int = 16, hidden: Sequence[int] = (64, 32), mean: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.user_deep, self.item_deep = nn.Embedding(users, factors), nn.Embedding(items, factors)
        layers: list[nn.Module] = []
        for a, b in zip([2 * factors, *hidden], hidden, strict=False):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
        self.deep = nn.Sequential(*layers)
        self.head = nn.Linear(factors + (hidden[-1] if hidden else 2 * factors), 1)
        self.register_buffer("mean", fd.array(float(mean)).astype("float32"))
        for table in (self.user, self.item, self.user_deep, self.item_deep):
            nn.init.normal_(table.weight, 0.0, 0.1)

    def forward(self, user: fd.Tensor, item: fd.Tensor) -> fd.Tensor:
        """Ratings (N,) that users (N,) would give to items (N,)."""
        deep = self.deep(fd.concat([self.user_deep(user), self.item_deep(item)], axis=-1))
        joined = fd.concat([self.user(user) * self.item(item), deep], axis=-1)
        return self.mean + fd.squeeze(self.head(joined), axis=-1)
