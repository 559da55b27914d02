"""AlexNet and the VGG family, with torchvision's parameter names."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl import nn


class AlexNet(nn.Module):
    """AlexNet in its one-column form (Krizhevsky, 2014), for images of 63x63 and more.

    Parameters
    ----------
    num_classes : int
    dropout : float
        Before the two hidden dense layers.
    hidden : int
        Their width; 4096 in the paper.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.AlexNet(num_classes=10, hidden=64)
    >>> net(fd.zeros((1, 3, 64, 64))).shape
    (1, 10)
    >>> list(net.state_dict())[:2]
    ['features.0.weight', 'features.0.bias']
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5, hidden: int = 4096) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 36, hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes) of images (N, 3, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(fd.reshape(x, (x.shape[0], -1)))


_LAYERS: dict[int, str] = {  # widths of the 3x3 convolutions, M: halve the image
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


class VGG(nn.Module):
    """A VGG network (Simonyan and Zisserman, 2015) for images of 32x32 and more.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        Layers with weights: configurations A, B, D and E of the paper.
    num_classes : int
    batch_norm : bool
        Batch normalisation after every convolution (not in the paper; it trains without pre-training).
    dropout : float
    in_channels : int
    hidden : int
        Width of the two hidden dense layers; 4096 in the paper.

    Raises
    ------
    ValueError
        When there is no configuration of that depth.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.VGG(11, num_classes=10, hidden=64)
    >>> net(fd.zeros((1, 3, 32, 32))).shape
    (1, 10)
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 1000,
        batch_norm: bool = False,
        dropout: float = 0.5,
        in_channels: int = 3,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise ValueError(f"VGG: depth must be one of {', '.join(map(str, _LAYERS))}; got {depth}")
        layers: list[nn.Module] = []
        channels = in_channels
        for entry in _LAYERS[depth].split():
            if entry == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, int(entry), 3, padding=1))
            channels = int(entry)
            layers += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(fd.reshape(x, (x.shape[0], -1)))


def alexnet(**settings: Any) -> AlexNet:
    """:class:`AlexNet`."""
    return AlexNet(**settings)


def vgg11(**settings: Any) -> VGG:
    """:class:`VGG` of 11 layers."""
    return VGG(11, **settings)


def vgg13(**settings: Any) -> VGG:
    """:class:`VGG` of 13 layers."""
    return VGG(13, **settings)


def vgg16(**settings: Any) -> VGG:
    """:class:`VGG` of 16 layers."""
    return VGG(16, **settings)


def vgg19(**settings: Any) -> VGG:
    """:class:`VGG` of 19 layers."""
    return VGG(19, **settings)
