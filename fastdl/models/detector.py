"""A single-shot detector: one pass of one network says what is where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F

from .boxes import decode_boxes, match_boxes, nms


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, then half the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class SSD(nn.Module):
    """Single-shot detector (Liu et al., 2016) on two maps, of an eighth and a sixteenth of the image's size.

    Every place of a map has anchors of given sizes; for each the network says the class, 0 for background, and how the object's
    box differs from the anchor. The focal loss (Lin et al., 2017) keeps the many background anchors from drowning the rest.

    Parameters
    ----------
    num_classes : int
        Without background.
    image_size : int
        Side of the square images; divisible by 16.
    in_channels, width : int
    sizes : pair of sequences of float
        Sides of the square anchors of the fine and the coarse map, as shares of the image's.

    Raises
    ------
    ValueError
        When the size is not divisible by 16.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.SSD(10, image_size=32, width=4)
    >>> classes, offsets = net(fd.zeros((2, 1, 32, 32)))
    >>> classes.shape, offsets.shape, net.anchors.shape
    ((2, 40, 11), (2, 40, 4), (40, 4))
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 64,
        in_channels: int = 1,
        width: int = 16,
        sizes: tuple[Sequence[float], Sequence[float]] = ((0.25, 0.35), (0.45, 0.6)),
    ) -> None:
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise ValueError(f"SSD: image_size must be a multiple of 16; got {image_size}")
        self.num_classes, self.image_size = num_classes, image_size
        self.backbone = nn.Sequential(_stage(in_channels, width), _stage(width, 2 * width), _stage(2 * width, 4 * width))
        self.deeper = _stage(4 * width, 4 * width)
        heads = [nn.Conv2d(4 * width, len(s) * (num_classes + 5), 3, padding=1) for s in sizes]
        self.heads = nn.ModuleList(heads)
        for head, own in zip(heads, sizes, strict=True):
            bias = np.zeros((len(own), num_classes + 5), np.float32)
            bias[:, 0] = math.log(99 * num_classes)  # at first everything is background by 99 to 1
            nn.init.normal_(head.weight, 0.0, 0.01)
            head.load_state_dict({"weight": head.weight, "bias": bias.reshape(-1)})
        # From float64, so that the anchors are the same everywhere.
        self.anchors = np.concatenate([_grid(image_size // step, own) for step, own in zip((8, 16), sizes, strict=True)]) * image_size

    def forward(self, x: fd.Tensor) -> tuple[fd.Tensor, fd.Tensor]:
        """Scores (N, anchors, num_classes + 1) and offsets (N, anchors, 4) for images (N, in_channels, image_size, image_size)."""
        if x.ndim != 4 or tuple(x.shape[2:]) != (self.image_size,) * 2:
            raise fd.ShapeError(f"ssd: got shape {tuple(x.shape)}; need (N, C, {self.image_size}, {self.image_size})")
        fine = self.backbone(x)
        maps = []
        for head, features in zip(self.heads, (fine, self.deeper(fine)), strict=True):
            y = fd.permute_dims(head(features), (0, 2, 3, 1))
            maps.append(fd.reshape(y, (x.shape[0], -1, self.num_classes + 5)))
        y = fd.concat(maps, axis=1)
        return y[:, :, : self.num_classes + 1], y[:, :, self.num_classes + 1 :]

    def targets(self, boxes: Sequence[Any], labels: Sequence[Any], threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """What the anchors are to say: classes (N, anchors) and offsets (N, anchors, 4), by :func:`match_boxes` for each image."""
        pairs = [match_boxes(self.anchors, b, c, threshold) for b, c in zip(boxes, labels, strict=True)]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])

    def loss(self, x: fd.Tensor, classes: fd.Tensor, offsets: fd.Tensor, gamma: float = 2.0) -> fd.Tensor:
        """Focal loss of the classes plus smooth L1 of the offsets, per object; targets as :meth:`targets` gives them."""
        scores, found = self(x)
        cross = F.cross_entropy(fd.reshape(scores, (-1, scores.shape[-1])), fd.reshape(classes, (-1,)), reduction="none")
        focal = (1 - fd.exp(-cross)) ** gamma * cross
        objects = (classes > 0).astype(scores.dtype)
        place = F.smooth_l1_loss(found, offsets, reduction="none").sum(axis=2) * objects
        return (focal.sum() + place.sum()) / fd.maximum(objects.sum(), 1.0)

    def detect(
        self, x: fd.Tensor, score_threshold: float = 0.3, iou_threshold: float = 0.3
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each image its boxes (M, 4) in pixels, labels (M,) from 0, and scores (M,), best first; call `eval()` before."""
        with fd.no_grad():
            scores, offsets = self(x)
            chances, offsets = fd.softmax(scores, -1).cpu().numpy(), offsets.cpu().numpy()
        results = []
        for chance, offset in zip(chances, offsets, strict=True):
            label, score = chance[:, 1:].argmax(1), chance[:, 1:].max(1)
            seen = np.flatnonzero(score > score_threshold)
            boxes = np.clip(decode_boxes(offset[seen], self.anchors[seen]), 0, self.image_size)
            kept = nms(boxes, score[seen], iou_threshold)
            results.append((boxes[kept], label[seen][kept], score[seen][kept]))
        return results


def _grid(cells: int, sizes: Sequence[float]) -> np.ndarray:
    """Anchors (cells * cells * len(sizes), 4) in the unit square, in the order of the heads' outputs."""
    centres = (np.arange(cells) + 0.5) / cells
    y, x, s = np.meshgrid(centres, centres, np.asarray(sizes), indexing="ij")
    return np.stack([x - s / 2, y - s / 2, x + s / 2, y + s / 2], -1).reshape(-1, 4)
