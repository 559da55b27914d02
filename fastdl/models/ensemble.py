"""Several classifiers that answer together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import fastdl as fd
from fastdl import nn


class Ensemble(nn.Module):
    """The mean of the members' probabilities (Lakshminarayanan et al., 2017), as its logarithm.

    Parameters
    ----------
    members : sequence of Module
        Each gives scores (N, classes).

    Raises
    ------
    ValueError
        When there are none.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> net = fd.models.Ensemble([nn.Linear(4, 3) for _ in range(5)])
    >>> abs(fd.exp(net(fd.ones((2, 4)))).sum(axis=1) - 1).max().item() < 1e-6
    True
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("Ensemble: need at least one member")
        self.members = nn.ModuleList(list(members))

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Log-probabilities (N, classes): an argument for `nll_loss`, and (as they are normalised) for `cross_entropy`."""
        each = fd.stack([fd.log_softmax(member(x), -1) for member in self.members])
        return fd.logsumexp(each, axis=0) - math.log(len(self.members))
