"""Residual networks, with torchvision's parameter names."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl import nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them; `downsample` fits the shortcut where sizes change.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.models.resnet import BasicBlock
    >>> BasicBlock(4, 4)(fd.ones((1, 4, 6, 6))).shape
    (1, 4, 6, 6)
    """

    expansion = 1
    downsample: nn.Module | None

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.register_module("downsample", downsample)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        y = self.bn2(self.conv2(fd.relu(self.bn1(self.conv1(x)))))
        return fd.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride sits in the 3x3 (version 1.5), as in torchvision."""

    expansion = 4
    downsample: nn.Module | None

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, planes * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.register_module("downsample", downsample)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        y = fd.relu(self.bn1(self.conv1(x)))
        y = fd.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return fd.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A residual network (He et al., 2016) of four stages.

    Parameters
    ----------
    block : type
        :class:`BasicBlock` or :class:`Bottleneck`.
    layers : sequence of int
        Blocks per stage.
    num_classes : int
    in_channels : int
    width : int
        Channels of the first stage; 64 in the paper.
    small_images : bool
        Begin with a 3x3 convolution of stride 1 and no pooling: the usual form for 28x28 and 32x32 images.
    zero_init_residual : bool
        Every block begins as the identity.

    Raises
    ------
    ValueError
        When there are not four stages of at least one block.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.resnet18(num_classes=10, in_channels=1, width=8, small_images=True)
    >>> net(fd.zeros((2, 1, 28, 28))).shape
    (2, 10)
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        small_images: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"ResNet: layers must be four numbers >= 1; got {layers}")
        self.small_images = small_images
        self.conv1 = _conv(in_channels, width, 3) if small_images else _conv(in_channels, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for stage, blocks in enumerate(layers):
            planes = width * 2**stage
            parts: list[nn.Module] = []
            for k in range(blocks):
                stride = 2 if stage and not k else 1
                fit = None
                if stride != 1 or channels != planes * block.expansion:
                    fit = nn.Sequential(_conv(channels, planes * block.expansion, 1, stride), nn.BatchNorm2d(planes * block.expansion))
                parts.append(block(channels, planes, stride, fit))
                channels = planes * block.expansion
            self.register_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                if last.weight is not None:
                    nn.init.zeros_(last.weight)

    def features(self, x: fd.Tensor) -> fd.Tensor:
        """What the last layer sees, (N, channels): images (N, in_channels, H, W) after all stages and the mean over pixels."""
        x = self.maxpool(fd.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        x = self.avgpool(x)
        return fd.reshape(x, x.shape[:2])

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.fc(self.features(x))


def resnet18(**settings: Any) -> ResNet:
    """:class:`ResNet` of 18 layers: basic blocks, two per stage."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **settings)


def resnet34(**settings: Any) -> ResNet:
    """:class:`ResNet` of 34 layers: basic blocks, 3, 4, 6 and 3."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **settings)


def resnet50(**settings: Any) -> ResNet:
    """:class:`ResNet` of 50 layers: bottlenecks, 3, 4, 6 and 3."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **settings)


def resnet101(**settings: Any) -> ResNet:
    """:class:`ResNet` of 101 layers: bottlenecks, 3, 4, 23 and 3."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **settings)
