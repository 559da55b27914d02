"""Rectangles: overlaps, matching anchors with objects, thinning out detections, and how good they are.

Boxes are rows (left, top, right, bottom). Everything here is NumPy: it runs before and after the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_SCALES = np.array([0.1, 0.1, 0.2, 0.2])  # bring offsets to unit size (Liu et al., 2016)


def box_iou(boxes1: Any, boxes2: Any) -> np.ndarray:
    """Intersection over union of all pairs of boxes (N, 4) and (M, 4), as (N, M).

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.box_iou([[0, 0, 2, 2]], [[1, 0, 3, 2], [5, 5, 6, 6]]).round(3).tolist()
    [[0.333, 0.0]]
    """
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (boxes1, boxes2))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-12)


def nms(boxes: Any, scores: Any, iou_threshold: float) -> np.ndarray:
    """Indices of the boxes (N, 4) that remain, best score first, when a box that overlaps a better one too much is dropped.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.nms([[0, 0, 2, 2], [0, 0, 2, 2.2], [4, 4, 5, 5]], [0.5, 0.9, 0.3], 0.5).tolist()
    [1, 2]
    """
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][box_iou(boxes[left[:1]], boxes[left[1:]])[0] <= iou_threshold]
    return np.array(kept, np.int64)


def _middle(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)


def encode_boxes(boxes: Any, anchors: Any) -> np.ndarray:
    """How each box (N, 4) differs from its anchor (N, 4): shifts in anchor sizes and logarithms of the ratios of the sizes."""
    (c, s), (anchor_c, anchor_s) = (_middle(np.asarray(b, np.float64)) for b in (boxes, anchors))
    return np.concatenate([(c - anchor_c) / anchor_s, np.log(s / anchor_s)], 1) / _SCALES


def decode_boxes(offsets: Any, anchors: Any) -> np.ndarray:
    """The inverse of :func:`encode_boxes`.

    Examples
    --------
    >>> import fastdl as fd
    >>> box, anchor = [[1.0, 2.0, 4.0, 4.0]], [[0.0, 0.0, 3.0, 3.0]]
    >>> fd.models.decode_boxes(fd.models.encode_boxes(box, anchor), anchor).round(6).tolist()
    [[1.0, 2.0, 4.0, 4.0]]
    """
    offsets = np.asarray(offsets, np.float64) * _SCALES
    anchor_c, anchor_s = _middle(np.asarray(anchors, np.float64))
    c, s = anchor_c + offsets[:, :2] * anchor_s, anchor_s * np.exp(np.clip(offsets[:, 2:], -8, 8))
    return np.concatenate([c - s / 2, c + s / 2], 1)


def match_boxes(anchors: Any, boxes: Any, labels: Any, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """What each anchor (A, 4) is to say of an image with boxes (N, 4) of classes labels (N,), numbered from 0.

    An anchor answers for the box it overlaps most, if by more than `threshold`; every box has at least its best anchor.

    Returns
    -------
    classes : numpy.ndarray
        (A,), 0 for background, label + 1 else.
    offsets : numpy.ndarray
        (A, 4), zeros for background.
    """
    anchors, boxes, labels = np.asarray(anchors), np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64)
    classes, offsets = np.zeros(len(anchors), np.int64), np.zeros((len(anchors), 4), np.float32)
    if not len(boxes):
        return classes, offsets
    overlap = box_iou(anchors, boxes)
    owner, best = overlap.argmax(1), overlap.max(1)
    first = overlap.argmax(0)
    owner[first], best[first] = np.arange(len(boxes)), 2.0
    found = best > threshold
    classes[found] = labels[owner[found]] + 1
    offsets[found] = encode_boxes(boxes[owner[found]], anchors[found])
    return classes, offsets


def mean_average_precision(
    detections: Sequence[tuple[Any, Any, Any]], truths: Sequence[tuple[Any, Any]], num_classes: int, iou_threshold: float = 0.5
) -> float:
    """Area under precision over recall, averaged over the classes that occur (Everingham et al., 2010; all points).

    Parameters
    ----------
    detections : sequence of (boxes (N, 4), labels (N,), scores (N,))
        One entry per image.
    truths : sequence of (boxes (M, 4), labels (M,))
        One entry per image.
    num_classes : int
    iou_threshold : float
        A detection is right when it overlaps a box of its class, which no better one has claimed, at least so much.

    Examples
    --------
    >>> import fastdl as fd
    >>> truth = [([[0, 0, 2, 2], [4, 4, 6, 6]], [0, 0])]
    >>> fd.models.mean_average_precision([([[0, 0, 2, 2]], [0], [0.9])], truth, 1)
    0.5
    """
    if len(detections) != len(truths):
        raise ValueError(f"mean_average_precision: got {len(detections)} detections for {len(truths)} images")
    found = []
    for c in range(num_classes):
        wanted = [np.asarray(boxes, np.float64).reshape(-1, 4)[np.asarray(labels, int) == c] for boxes, labels in truths]
        total = sum(map(len, wanted))
        if not total:
            continue
        ranked = sorted(
            ((-float(s), n, b) for n, (boxes, labels, scores) in enumerate(detections) for b, k, s in zip(boxes, labels, scores, strict=True) if k == c),
            key=lambda entry: entry[:2],
        )
        claimed = [np.zeros(len(w), bool) for w in wanted]
        right = np.zeros(len(ranked))
        for k, (_, n, box) in enumerate(ranked):
            overlap = np.where(claimed[n], -1.0, box_iou([box], wanted[n])[0])
            if len(overlap) and overlap.max() >= iou_threshold:
                claimed[n][overlap.argmax()], right[k] = True, 1
        hits = np.cumsum(right)
        precision = hits / np.arange(1, len(ranked) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]  # the best that can be had at this recall or more
        found.append(float((best * right).sum() / total))
    return sum(found) / len(found) if found else 0.0
