"""Which parts of an input decide: saliency, integrated gradients, Grad-CAM, occlusion.

All take a model that returns scores (N, classes), a batch x (N, ...) and `target`, the class to explain: None (each row's likeliest),
a number, or one number per row. The model runs in evaluation mode; its own mode, weights and gradients stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn


@contextlib.contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.__dict__["training"] = mode


def _inputs(x: Any, name: str) -> Any:
    x = fd.asarray(x).detach()
    if x.ndim < 2 or x.dtype.kind != "f":
        raise fd.ShapeError(f"{name}: x is {x.dtype} {tuple(x.shape)}; need a batch (N, ...) of floats")
    return x


def _targets(model: nn.Module, x: Any, target: Any, name: str) -> np.ndarray:
    with fd.no_grad():
        scores = model(x)
    if scores.ndim != 2:
        raise fd.ShapeError(f"{name}: the model gives {tuple(scores.shape)}; need scores (N, classes)")
    if target is None:
        return scores.cpu().numpy().argmax(1)
    chosen = np.broadcast_to(np.asarray(target.cpu() if isinstance(target, fd.Tensor) else target), (len(x),)).astype(np.int64)
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < scores.shape[1]:
        raise fd.errors.ValueError_(f"{name}: target must be in 0 .. {scores.shape[1] - 1}; got {target}")
    return chosen


def _chosen(scores: Any, target: np.ndarray) -> Any:
    """scores[n, target[n]], (N,)."""
    return (scores * fd.one_hot(fd.asarray(target, device=scores.device), scores.shape[1], scores.dtype)).sum(axis=1)


def _gradient(model: nn.Module, x: Any, target: np.ndarray) -> Any:
    x = x.clone().requires_grad_()
    (gradient,) = fd.gradients(_chosen(model(x), target).sum(), x)
    return gradient


def saliency(model: nn.Module, x: Any, target: Any = None) -> np.ndarray:
    """|d score / d x|, in the shape of x: where a small change moves the score most (Simonyan et al., 2014).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, visual
    >>> net = nn.Linear(3, 2, bias=False)
    >>> _ = net.weight.detach().copy_(fd.array([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> visual.saliency(net, fd.ones((1, 3)), target=0).tolist()
    [[1.0, 2.0, 0.0]]
    """
    x = _inputs(x, "saliency")
    with _evaluation(model):
        return abs(_gradient(model, x, _targets(model, x, target, "saliency"))).cpu().numpy()


def integrated_gradients(model: nn.Module, x: Any, target: Any = None, *, baseline: Any = None, steps: int = 32) -> np.ndarray:
    """(x - baseline) times the mean gradient on the way from baseline to x (Sundararajan et al., 2017).

    Complete: over each row they sum to score(x) - score(baseline), up to the error of the quadrature.

    Parameters
    ----------
    model : Module
    x : array_like
        (N, ...)
    target : optional
    baseline : array_like, optional
        Broadcasts against x; default zero.
    steps : int
        Points of the Gauss-Legendre quadrature.

    Returns
    -------
    ndarray
        In the shape of x.
    """
    x = _inputs(x, "integrated_gradients")
    if steps < 1:
        raise fd.errors.ValueError_(f"integrated_gradients: steps is {steps}; need >= 1")
    start = fd.zeros_like(x) if baseline is None else fd.broadcast_to(fd.asarray(baseline).astype(x.dtype), x.shape)
    points, weights = np.polynomial.legendre.leggauss(steps)
    with _evaluation(model):
        chosen = _targets(model, x, target, "integrated_gradients")
        total: Any = 0.0
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            total = _gradient(model, start + (x - start) * float(point), chosen) * float(weight) + total
        return ((x - start) * total).cpu().numpy()


def grad_cam(model: nn.Module, x: Any, layer: str, target: Any = None) -> np.ndarray:
    """Where a convolution layer saw what speaks for the class (Selvaraju et al., 2017).

    Parameters
    ----------
    model : Module
    x : array_like
        (N, C, H, W)
    layer : str
        Dotted name of a module that gives (N, K, h, w): the last convolution, or the activation after it.
    target : optional

    Returns
    -------
    ndarray
        (N, H, W), interpolated to the size of the image, each with a maximum of 1 (or all 0).
    """
    x = _inputs(x, "grad_cam")
    features = nn.utils.FeatureExtractor(model, [layer])
    scores: list[Any] = []
    with _evaluation(model):
        chosen = _targets(model, x, target, "grad_cam")
        handle = model.register_forward_hook(lambda module, args, output: scores.append(output))
        try:
            maps = features(x.clone().requires_grad_())[layer]
        finally:
            handle.remove()
        if maps.ndim != 4:
            raise fd.ShapeError(f"grad_cam: {layer} gives {tuple(maps.shape)}; need (N, K, h, w)")
        gradient: Any = fd.gradients(_chosen(scores[0], chosen).sum(), maps)[0]
        weights = gradient.mean(axis=(2, 3), keepdims=True)
        heat = fd.relu((weights * maps.detach()).sum(axis=1)).cpu().numpy()
    heat = _resize(heat, x.shape[-2:])
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True, initial=0), 1e-12)


def _resize(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation of the last two axes, pixel centres aligned."""
    for axis, new in zip((1, 2), size, strict=True):
        old = maps.shape[axis]
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape((-1, 1) if axis == 1 else (-1,)).astype(maps.dtype)
        maps = maps.take(low, axis) * (1 - share) + maps.take(np.minimum(low + 1, old - 1), axis) * share
    return maps


def occlusion(model: nn.Module, x: Any, target: Any = None, *, size: int = 4, stride: int = 2, fill: float = 0.0) -> np.ndarray:
    """How much the score drops when a square of the image is covered, averaged over the squares that cover a pixel (Zeiler and Fergus, 2014).

    Parameters
    ----------
    model : Module
    x : array_like
        (N, C, H, W)
    target : optional
    size, stride : int
        Side of the square, and how far it moves.
    fill : float
        What covers.

    Returns
    -------
    ndarray
        (N, H, W); positive where the pixels speak for the class.
    """
    x = _inputs(x, "occlusion")
    if x.ndim != 4 or not 1 <= stride <= size <= min(x.shape[-2:]):
        raise fd.errors.ValueError_(f"occlusion: x {tuple(x.shape)}, size {size}, stride {stride}; need (N, C, H, W), 1 <= stride <= size <= H and W")
    n, (h, w) = len(x), x.shape[-2:]
    drops, counts = np.zeros((n, h, w)), np.zeros((h, w))
    with _evaluation(model), fd.no_grad():
        chosen = _targets(model, x, target, "occlusion")
        whole = _chosen(model(x), chosen).cpu().numpy()
        for top in _places(h, size, stride):
            for left in _places(w, size, stride):
                covered = x.clone()
                covered[:, :, top : top + size, left : left + size] = fill
                window = (slice(top, top + size), slice(left, left + size))
                drops[(slice(None), *window)] += (whole - _chosen(model(covered), chosen).cpu().numpy())[:, None, None]
                counts[window] += 1
    return drops / counts


def _places(length: int, size: int, stride: int) -> list[int]:
    """Where windows start; the last one ends at the edge, so that every pixel is covered."""
    return sorted({*range(0, length - size + 1, stride), length - size})
