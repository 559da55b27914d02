"""DCGAN: a generator and a discriminator of convolutions."""

from __future__ import annotations

import fastdl as fd
from fastdl import nn


def _halvings(name: str, size: int) -> tuple[int, int]:
    """Side of the smallest map (4 to 7) and how often it is doubled to reach `size`."""
    small, count = size, 0
    while small > 7 and small % 2 == 0:
        small, count = small // 2, count + 1
    if not 4 <= small <= 7 or count < 1:
        raise ValueError(f"{name}: size must be 4, 5, 6 or 7 times a power of two, at least 8; got {size}")
    return small, count


class DCGenerator(nn.Module):
    """The generator of DCGAN (Radford et al., 2016): noise (N, latent) becomes images (N, channels, size, size) in [-1, 1].

    Parameters
    ----------
    latent, channels : int
    width : int
        Channels of the largest hidden map; doubled at every smaller one.
    size : int
        28, 32, 64 ...: 4, 5, 6 or 7 times a power of two.

    Raises
    ------
    ValueError
        When the size is another.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.DCGenerator(10, width=4, size=28)(fd.zeros((2, 10))).shape
    (2, 1, 28, 28)
    """

    def __init__(self, latent: int = 100, channels: int = 1, width: int = 64, size: int = 28) -> None:
        super().__init__()
        small, count = _halvings("DCGenerator", size)
        self.latent = latent
        now = width * 2 ** (count - 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, now, small, bias=False), nn.BatchNorm2d(now), nn.ReLU()]
        for _ in range(count - 1):
            layers += [nn.ConvTranspose2d(now, now // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(now // 2), nn.ReLU()]
            now //= 2
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(now, channels, 4, 2, 1, bias=False), nn.Tanh())
        _start(self)

    def forward(self, z: fd.Tensor) -> fd.Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise fd.ShapeError(f"dcgenerator: got shape {tuple(z.shape)}; need (N, {self.latent})")
        return self.main(fd.reshape(z, (*z.shape, 1, 1)))


class DCDiscriminator(nn.Module):
    """The discriminator of DCGAN: images (N, channels, size, size) become logits (N,), above 0 for what looks real.

    Parameters
    ----------
    channels : int
    width : int
        Channels of the first map; doubled at every smaller one.
    size : int
        As the generator's.
    dropout : float
        After every hidden layer (not in the paper; it keeps the discriminator from winning on small data).

    Raises
    ------
    ValueError
        When the size is none of the generator's.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.DCDiscriminator(width=4, size=28)(fd.zeros((2, 1, 28, 28))).shape
    (2,)
    """

    def __init__(self, channels: int = 1, width: int = 64, size: int = 28, dropout: float = 0.0) -> None:
        super().__init__()
        small, count = _halvings("DCDiscriminator", size)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for k in range(count - 1):
            now = width * 2**k
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [nn.Conv2d(now, 2 * now, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * now), nn.LeakyReLU(0.2)]
        layers += [nn.Dropout(dropout)] if dropout else []
        self.main = nn.Sequential(*layers, nn.Conv2d(width * 2 ** (count - 1), 1, small, bias=False))
        _start(self)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        return fd.reshape(self.main(x), (x.shape[0],))


def _start(model: nn.Module) -> None:
    """The paper's initial values: normal weights of deviation 0.02."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d) and module.weight is not None:
            nn.init.normal_(module.weight, 1.0, 0.02)
