"""LeNet-5, the first convolutional network that read post codes."""

from __future__ import annotations

import fastdl as fd
from fastdl import nn


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) for 28x28 or 32x32 images, in today's form: plain pooling and full connections.

    Parameters
    ----------
    num_classes : int
    in_channels : int
    activation : {"tanh", "relu"}
        The paper's is tanh; relu learns faster.

    Raises
    ------
    ValueError
        When the activation has another name.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.LeNet5()
    >>> net(fd.zeros((2, 1, 28, 28))).shape, sum(p.size for p in net.parameters())
    ((2, 10), 61706)
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, activation: str = "tanh") -> None:
        super().__init__()
        if activation not in ("tanh", "relu"):
            raise ValueError(f"LeNet5: activation must be 'tanh' or 'relu'; got {activation!r}")
        act = nn.Tanh if activation == "tanh" else nn.ReLU
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=2), act(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), act(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(5)  # does nothing for 28x28
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), act(), nn.Linear(120, 84), act(), nn.Linear(84, num_classes)
        )

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.avgpool(self.features(x)))
