"""Restricted Boltzmann machines and deep belief networks: learning without labels, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastdl as fd
from fastdl import nn, optim


class RBM(nn.Module):
    """Restricted Boltzmann machine with binary units, trained by contrastive divergence (Hinton, 2002; 2012).

    Its energy is E(v, h) = -v . visible_bias - h . hidden_bias - h . W v; values of v in [0, 1] stand for probabilities.

    Parameters
    ----------
    visible, hidden : int
        Numbers of units.

    Attributes
    ----------
    weight : Parameter
        (hidden, visible), normal of deviation 0.01.
    visible_bias, hidden_bias : Parameter
        Zeros.

    Raises
    ------
    ValueError
        When a size is below 1.

    Examples
    --------
    >>> import fastdl as fd
    >>> rbm = fd.models.RBM(6, 3)
    >>> v = fd.ones((4, 6))
    >>> rbm(v).shape, rbm.contrastive_divergence(v, k=2).shape
    ((4, 3), ())
    """

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        if visible < 1 or hidden < 1:
            raise ValueError(f"RBM: need visible and hidden >= 1; got {visible} and {hidden}")
        self.weight = nn.Parameter(nn.init.normal_(fd.empty((hidden, visible)), 0.0, 0.01))
        self.visible_bias = nn.Parameter(fd.zeros(visible))
        self.hidden_bias = nn.Parameter(fd.zeros(hidden))

    def forward(self, v: fd.Tensor) -> fd.Tensor:
        """Probabilities (N, hidden) of the hidden units, given v (N, visible)."""
        return fd.linear(v, self.weight, self.hidden_bias, "sigmoid")

    def backwards(self, h: fd.Tensor) -> fd.Tensor:
        """Probabilities (N, visible) of the visible units, given h (N, hidden)."""
        return fd.sigmoid(fd.matmul(h, self.weight) + self.visible_bias)

    def free_energy(self, v: fd.Tensor) -> fd.Tensor:
        """-log of the sum over h of exp(-E(v, h)), (N,) for v (N, visible): low where the model finds v likely."""
        return -fd.matmul(v, self.visible_bias) - fd.softplus(fd.linear(v, self.weight, self.hidden_bias)).sum(axis=1)

    def gibbs(self, v: fd.Tensor, k: int = 1) -> fd.Tensor:
        """Probabilities of the visible units after `k` rounds of sampling hidden from visible units and back, (N, visible)."""
        if k < 1:
            raise ValueError(f"RBM.gibbs: need k >= 1; got {k}")
        with fd.no_grad():
            v = v.detach()
            for n in range(k):
                p = self.backwards(_sample(self(v)))
                v = p if n == k - 1 else _sample(p)
        return v

    def contrastive_divergence(self, v: fd.Tensor, k: int = 1) -> fd.Tensor:
        """A number whose gradient is that of CD-k: free energy of the data v (N, visible) minus that of the model's dreams."""
        dream = self.gibbs(v, k)
        return (self.free_energy(v) - self.free_energy(dream)).mean()


def _sample(p: fd.Tensor) -> fd.Tensor:
    return (fd.random.uniform(p.shape, dtype=p.dtype, device=p.device) < p).astype(p.dtype)


class DBN(nn.Module):
    """Deep belief network (Hinton, Osindero and Teh, 2006): a stack of RBMs, each learning from the one below.

    Parameters
    ----------
    sizes : sequence of int
        From the visible units to the top.

    Raises
    ------
    ValueError
        When there are fewer than two sizes.

    Examples
    --------
    >>> import fastdl as fd
    >>> dbn = fd.models.DBN([64, 32, 16])
    >>> dbn(fd.zeros((2, 64))).shape
    (2, 16)
    >>> dbn.classifier(10)(fd.zeros((2, 64))).shape
    (2, 10)
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [int(n) for n in sizes]
        if len(self.sizes) < 2:
            raise ValueError(f"DBN: need at least two sizes; got {self.sizes}")
        self.rbms = nn.ModuleList([RBM(a, b) for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True)])

    def forward(self, v: fd.Tensor) -> fd.Tensor:
        """Probabilities of the units at the top, (N, sizes[-1])."""
        for rbm in self.rbms:
            v = rbm(v)
        return v

    def pretrain(
        self, x: Any, epochs: int = 5, batch_size: int = 64, lr: float = 0.05, momentum: float = 0.5, k: int = 1, rng: Any = None
    ) -> list[list[float]]:
        """Train the RBMs one by one, from the bottom.

        Parameters
        ----------
        x : array_like
            (N, sizes[0]), values in [0, 1].
        epochs, batch_size : int
            For each RBM.
        lr, momentum : float
            Of stochastic gradient descent.
        k : int
            Rounds of sampling per step (CD-k).
        rng : optional
            Seed of the order; samples come from fastdl's global generator.

        Returns
        -------
        list of list of float
            For each RBM the mean squared error of one-round reconstructions of each epoch.
        """
        from fastdl.data import DataLoader

        below: Any = fd.asarray(x).detach().to(next(self.parameters()).device)
        if below.ndim != 2 or below.shape[1] != self.sizes[0]:
            raise fd.ShapeError(f"pretrain: got shape {tuple(below.shape)}; need (N, {self.sizes[0]})")
        history = []
        for rbm in self.rbms:
            loader = DataLoader(below, batch_size, shuffle=True, rng=rng, device=below.device)
            history.append(_train(rbm, loader, epochs, optim.SGD(rbm.parameters(), lr=lr, momentum=momentum), k))
            with fd.no_grad():
                below = fd.concat([rbm(below[n : n + 1024]) for n in range(0, below.shape[0], 1024)])
        return history

    def classifier(self, num_classes: int) -> nn.Sequential:
        """A feed-forward network that begins with copies of these weights and ends with a fresh layer of `num_classes` scores."""
        layers: list[nn.Module] = []
        rbm: Any
        for rbm in self.rbms:
            linear = nn.Linear(rbm.weight.shape[1], rbm.weight.shape[0])
            linear.load_state_dict({"weight": rbm.weight, "bias": rbm.hidden_bias})
            layers += [linear, nn.Sigmoid()]
        return nn.Sequential(*layers, nn.Linear(self.sizes[-1], num_classes))


def _train(rbm: Any, loader: Any, epochs: int, optimizer: Any, k: int) -> list[float]:
    """The reconstruction error of each epoch."""

    @fd.compile
    def step(v: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        rbm.contrastive_divergence(v, k).backward()
        with fd.no_grad():
            error = fd.square(rbm.backwards(rbm(v)) - v).mean()
        optimizer.step()
        optimizer.zero_grad()
        return error

    return [sum(step(v).item() * len(v) for (v,) in loader) / len(loader.dataset) for _ in range(epochs)]
