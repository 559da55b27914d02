"""SimCLR: learning features from pairs of views, without labels."""

from __future__ import annotations

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F


class SimCLR(nn.Module):
    """An encoder and a small head on top, trained so that two views of an image agree (Chen et al., 2020).

    Parameters
    ----------
    encoder : Module
        Images to features (N, features); what is kept after training.
    features, projection : int
        Widths of the encoder's output and of the head's.
    temperature : float

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> net = fd.models.SimCLR(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), 16, 8)
    >>> x = fd.random.uniform((4, 1, 8, 8), rng=0)
    >>> net(x).shape, net.loss(x, 0.9 * x).shape
    ((4, 8), ())
    """

    def __init__(self, encoder: nn.Module, features: int, projection: int = 64, temperature: float = 0.5) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projection))
        self.temperature = temperature

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Projections (N, projection) of images."""
        return self.head(self.encoder(x))

    def loss(self, first: fd.Tensor, second: fd.Tensor) -> fd.Tensor:
        """:func:`nt_xent_loss` of two views of the same images, (N, ...) each."""
        z = self(fd.concat([first, second]))
        return nt_xent_loss(z[: first.shape[0]], z[first.shape[0] :], self.temperature)


def nt_xent_loss(first: fd.Tensor, second: fd.Tensor, temperature: float = 0.5) -> fd.Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al., 2020): find each row's partner among all 2 N - 1 others.

    Parameters
    ----------
    first, second : Tensor
        (N, D); row k of one belongs to row k of the other.
    temperature : float

    Returns
    -------
    Tensor
        The mean over all 2 N rows.

    Raises
    ------
    ShapeError
        When the shapes differ or are not two-dimensional.
    ValueError
        When temperature is not above 0.

    Examples
    --------
    >>> import fastdl as fd
    >>> z = fd.eye(4)
    >>> fd.models.nt_xent_loss(z, z, 0.1).item() < fd.models.nt_xent_loss(z, fd.flip(z, axis=0), 0.1).item()
    True
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise fd.ShapeError(f"nt_xent_loss: got {tuple(first.shape)} and {tuple(second.shape)}; need twice (N, D)")
    if not temperature > 0:
        raise ValueError(f"nt_xent_loss: need temperature > 0; got {temperature}")
    n = first.shape[0]
    z = F.normalize(fd.concat([first, second]))
    scores = fd.matmul(z, z.T) / temperature
    scores = fd.where(fd.eye(2 * n, dtype=scores.dtype, device=scores.device) > 0, -1e9, scores)  # not with oneself
    partner = fd.roll(fd.arange(2 * n, device=scores.device), n)
    return F.cross_entropy(scores, partner)
