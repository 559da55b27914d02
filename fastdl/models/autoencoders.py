"""Autoencoders: plain, stacked, convolutional and variational."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F


def _dense(sizes: Sequence[int], last: nn.Module | None) -> nn.Sequential:
    """Linear layers with relu between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([] if last is None else [last]))


def _check_sizes(name: str, sizes: Sequence[int], least: int = 2) -> list[int]:
    sizes = [int(n) for n in sizes]
    if len(sizes) < least or min(sizes) < 1:
        raise ValueError(f"{name}: need at least {least} sizes >= 1; got {sizes}")
    return sizes


class Autoencoder(nn.Module):
    """Dense layers down to a code and back up (Hinton and Salakhutdinov, 2006), for values in [0, 1].

    Trained on noisy inputs and clean targets it is a denoising autoencoder (Vincent et al., 2008).

    Parameters
    ----------
    sizes : sequence of int
        From the input to the code.

    Raises
    ------
    ValueError
        When there are fewer than two sizes.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.Autoencoder([784, 64, 8])
    >>> x = fd.zeros((2, 784))
    >>> net.encoder(x).shape, net(x).shape
    ((2, 8), (2, 784))
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = _check_sizes(type(self).__name__, sizes)
        self.sizes = sizes
        self.encoder = _dense(sizes, None)
        self.decoder = _dense(sizes[::-1], nn.Sigmoid())

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """The reconstruction (N, sizes[0]) of x (N, sizes[0])."""
        return self.decoder(self.encoder(x))


class StackedAutoencoder(Autoencoder):
    """An autoencoder whose layers are trained one by one, each to reconstruct what the one below says (Vincent et al., 2010).

    Parameters
    ----------
    sizes : sequence of int
        From the input to the code.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.manual_seed(0)
    Generator(seed=0, offset=0)
    >>> net = fd.models.StackedAutoencoder([6, 4, 2])
    >>> losses = net.pretrain(fd.random.uniform((64, 6)), epochs=3, rng=0)
    >>> len(losses), losses[0][-1] < losses[0][0]
    (2, True)
    """

    def pretrain(
        self, x: Any, epochs: int = 5, batch_size: int = 128, lr: float = 1e-3, noise: float = 0.0, rng: Any = None
    ) -> list[list[float]]:
        """Train layer by layer, from the input upwards.

        Parameters
        ----------
        x : array_like
            (N, sizes[0]), values in [0, 1].
        epochs, batch_size : int
            For each layer.
        lr : float
            Of Adam.
        noise : float
            Share of a layer's inputs that are set to zero while it learns to restore them.
        rng : optional
            Seed of the order; the noise comes from fastdl's global generator.

        Returns
        -------
        list of list of float
            For each layer the mean squared error of each epoch.
        """
        from fastdl.data import DataLoader

        below: Any = fd.asarray(x).detach().to(next(self.parameters()).device)
        if below.ndim != 2 or below.shape[1] != self.sizes[0]:
            raise fd.ShapeError(f"pretrain: got shape {tuple(below.shape)}; need (N, {self.sizes[0]})")
        if not 0 <= noise < 1:
            raise ValueError(f"pretrain: noise must be in [0, 1); got {noise}")
        count = len(self.sizes) - 1
        history = []
        for k in range(count):
            up = nn.Sequential(self.encoder[2 * k], *([nn.ReLU()] if k < count - 1 else []))
            down = nn.Sequential(self.decoder[2 * (count - 1 - k)], *([nn.Sigmoid()] if k == 0 else []))
            loader = DataLoader(below, batch_size, shuffle=True, rng=rng, device=below.device)
            history.append(_restore(up, down, loader, epochs, lr, noise))
            with fd.no_grad():
                below = fd.concat([up(below[n : n + 1024]) for n in range(0, below.shape[0], 1024)])
        return history


def _restore(up: nn.Module, down: nn.Module, loader: Any, epochs: int, lr: float, noise: float) -> list[float]:
    """Train down(up(x with some values set to 0)) to be x; the loss of each epoch."""
    optimizer = optim.Adam([*up.parameters(), *down.parameters()], lr=lr)

    @fd.compile
    def step(x: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        noisy = x * fd.random.bernoulli(1 - noise, x.shape, dtype=x.dtype, device=x.device) if noise else x
        loss = F.mse_loss(down(up(noisy)), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return [sum(step(x).item() * len(x) for (x,) in loader) / len(loader.dataset) for _ in range(epochs)]


class ConvAutoencoder(nn.Module):
    """Two strided convolutions to a code and two transposed ones back, for images whose sides are divisible by 4.

    Parameters
    ----------
    in_channels, width, code : int
        Channels of the image, of the middle and of the code (N, code, H / 4, W / 4).

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.ConvAutoencoder(code=2)
    >>> x = fd.zeros((3, 1, 28, 28))
    >>> net.encoder(x).shape, net(x).shape
    ((3, 2, 7, 7), (3, 1, 28, 28))
    """

    def __init__(self, in_channels: int = 1, width: int = 16, code: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, code, 4, stride=2, padding=1)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(code, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(width, in_channels, 4, stride=2, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        return self.decoder(self.encoder(x))


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling, 2014) with a normal code and Bernoulli pixels.

    Parameters
    ----------
    sizes : sequence of int
        From the input to the code.

    Raises
    ------
    ValueError
        When there are fewer than three sizes.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.VAE([784, 64, 8])
    >>> logits, mean, log_var = net(fd.zeros((2, 784)))
    >>> logits.shape, mean.shape, net.sample(5, rng=0).shape
    ((2, 784), (2, 8), (5, 784))
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = _check_sizes("VAE", sizes, 3)
        self.sizes = sizes
        self.encoder = _dense(sizes[:-1], nn.ReLU())
        self.mean = nn.Linear(sizes[-2], sizes[-1])
        self.log_var = nn.Linear(sizes[-2], sizes[-1])
        self.decoder = _dense(sizes[::-1], None)

    def forward(self, x: fd.Tensor) -> tuple[fd.Tensor, fd.Tensor, fd.Tensor]:
        """Logits of the reconstruction (N, sizes[0]); mean and log of the variance of the code (N, sizes[-1])."""
        hidden = self.encoder(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        noise = fd.random.normal(mean.shape, dtype=mean.dtype, device=mean.device)
        return self.decoder(mean + noise * fd.exp(0.5 * log_var)), mean, log_var

    def loss(self, x: fd.Tensor) -> fd.Tensor:
        """The negative evidence lower bound in nats per example: reconstruction plus divergence from the standard normal."""
        logits, mean, log_var = self(x)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * (1 + log_var - fd.square(mean) - fd.exp(log_var)).sum()
        return (reconstruction + divergence) / x.shape[0]

    def sample(self, n: int, rng: Any = None) -> fd.Tensor:
        """Means (n, sizes[0]) of `n` new examples."""
        like = self.mean.weight
        with fd.no_grad():
            code = fd.random.normal((n, self.sizes[-1]), dtype=like.dtype, rng=rng, device=like.device)
            return fd.sigmoid(self.decoder(code))
