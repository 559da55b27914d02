"""U-Net: a class for every pixel."""

from __future__ import annotations

import fastdl as fd
from fastdl import nn


def _twice(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015): a contracting path, an expanding one, and bridges between them at every size.

    The convolutions are padded, so that the output has the input's size (the paper's lose a border).

    Parameters
    ----------
    in_channels, num_classes : int
    width : int
        Channels at full size, doubled with every halving; 64 in the paper.
    depth : int
        Number of halvings; 4 in the paper.
    batch_norm : bool
        Batch normalisation after every 3x3 convolution (not in the paper).

    Raises
    ------
    ValueError
        When width or depth is below 1.
    ShapeError
        When called with sizes that cannot be halved `depth` times.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.UNet(1, 2, width=4, depth=2)(fd.zeros((1, 1, 16, 24))).shape
    (1, 2, 16, 24)
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 2, width: int = 64, depth: int = 4, batch_norm: bool = True
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"UNet: width and depth must be >= 1; got {width} and {depth}")
        widths = [width * 2**k for k in range(depth + 1)]
        self.depth = depth
        self.down = nn.ModuleList([_twice(a, b, batch_norm) for a, b in zip([in_channels, *widths], widths, strict=False)])
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])])
        self.join = nn.ModuleList([_twice(2 * w, w, batch_norm) for w in reversed(widths[:-1])])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes, H, W) of images (N, in_channels, H, W)."""
        if x.ndim != 4 or x.shape[2] % 2**self.depth or x.shape[3] % 2**self.depth:
            raise fd.ShapeError(f"unet: got shape {tuple(x.shape)}; need (N, C, H, W) with H and W divisible by {2**self.depth}")
        bridges = []
        for k, block in enumerate(self.down):
            x = block(self.pool(x) if k else x)
            bridges.append(x)
        for up, join, bridge in zip(self.up, self.join, bridges[-2::-1], strict=True):
            x = join(fd.concat([bridge, up(x)], axis=1))
        return self.head(x)
