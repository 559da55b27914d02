"""Plots with matplotlib. Every function returns a Figure, which notebooks show and `savefig` writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"fastdl.visual: plots need matplotlib: pip install 'fastdl-engine[plot]' ({error})") from error
    figure = pyplot.figure(figsize=(width, height), layout="constrained")
    if pyplot.get_backend().lower() in ("agg", "pdf", "svg", "ps"):
        pyplot.close(figure)  # nobody will: without a window, pyplot would keep every figure alive
    return figure


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, fd.Tensor) else np.asarray(values)


def _numbers(history: Any) -> dict[str, list[float]]:
    if hasattr(history, "loss_curve_"):  # an estimator of scikit-learn's kind
        found: dict[str, Any] = {"loss": history.loss_curve_, "val_score": getattr(history, "validation_scores_", None)}
    else:
        found = getattr(history, "history", history)  # Keras's History holds a dict of that name
        if not isinstance(found, Mapping):
            found = {name: [row[name] for row in found] for name in (found[0] if len(found) else {})}
    numbers = {}
    for name, values in found.items():
        if values is not None and len(values) and np.ndim(values) == 1 and np.asarray(values).dtype.kind in "fiu":
            numbers[name] = [float(v) for v in values]
    if not numbers:
        raise fd.errors.ValueError_("plot_history: there are no numbers; need lists by name, one value per epoch")
    return numbers


def plot_history(history: Any, *, log: bool = False) -> Any:
    """Curves of a training run, one panel per quantity, with "val_loss" in the panel of "loss".

    Parameters
    ----------
    history : mapping of str to list of float, list of dict, object with such a `history`, or fitted estimator
    log : bool
        Logarithmic axis for losses.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from fastdl.visual import plot_history
    >>> figure = plot_history({"loss": [1.0, 0.5], "val_loss": [1.1, 0.7], "accuracy": [0.6, 0.8]})
    >>> [axis.get_title() for axis in figure.axes]
    ['loss', 'accuracy']
    """
    numbers = _numbers(history)
    panels: dict[str, list[str]] = {}
    for name in numbers:
        panels.setdefault(name.removeprefix("val_"), []).append(name)
    figure = _figure(4.8 * len(panels), 3.4)
    for k, (title, names) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), k + 1)
        for name in sorted(names, key=lambda n: n.startswith("val_")):
            held_out = name.startswith("val_")
            epochs = range(1, len(numbers[name]) + 1)
            style, label = ("C1--", "validation") if held_out else ("C0-", "training")
            axis.plot(epochs, numbers[name], style, marker="." if len(epochs) < 40 else "", label=label)
        axis.set(title=title, xlabel="epoch", yscale="log" if log and "loss" in title else "linear")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return figure


def plot_confusion_matrix(targets: Any, predictions: Any, names: Sequence[str] | None = None, *, normalize: bool = False) -> Any:
    """How often each class was taken for each other.

    Parameters
    ----------
    targets, predictions : array_like of int
        (N,) class numbers; predictions may also be scores (N, classes).
    names : sequence of str, optional
    normalize : bool
        Show shares of each true class instead of counts.

    Returns
    -------
    matplotlib.figure.Figure
    """
    targets, predictions = _array(targets), _array(predictions)
    predictions = predictions.argmax(1) if predictions.ndim == 2 else predictions
    if targets.ndim != 1 or targets.shape != predictions.shape or not len(targets):
        raise fd.ShapeError(f"plot_confusion_matrix: targets {targets.shape} and predictions {predictions.shape}; need (N,), N > 0")
    k = max(int(max(targets.max(), predictions.max())) + 1, len(names or ()))
    matrix = np.bincount(targets.astype(int) * k + predictions.astype(int), minlength=k * k).reshape(k, k)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = max(3.2, 0.55 * k + 1.6)
    figure = _figure(size + 0.6, size)
    axis = figure.add_subplot()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = list(names) if names is not None else [str(c) for c in range(k)]
    axis.set_xticks(range(k), labels, rotation=45 if max(map(len, labels)) > 3 else 0, ha="right" if max(map(len, labels)) > 3 else "center")
    axis.set_yticks(range(k), labels)
    axis.set(xlabel="predicted", ylabel="true", title=f"accuracy {np.trace(matrix) / len(targets):.1%}")
    for i, j in np.argwhere(matrix > 0):
        text = f"{shares[i, j]:.2f}" if normalize else str(matrix[i, j])
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if shares[i, j] > 0.55 else "black")
    return figure


def _pictures(images: Any, name: str) -> np.ndarray:
    """(N, H, W) or (N, H, W, 3) from (N, H, W) or (N, C, H, W), each at its own scale into [0, 1] unless it is there."""
    x = _array(images).astype(np.float64)
    if x.ndim == 4:
        if x.shape[1] not in (1, 3):
            raise fd.ShapeError(f"{name}: got {x.shape}; images need 1 or 3 channels, (N, C, H, W)")
        x = x[:, 0] if x.shape[1] == 1 else np.moveaxis(x, 1, -1)
    elif x.ndim != 3:
        raise fd.ShapeError(f"{name}: got {x.shape}; need images (N, H, W) or (N, C, H, W)")
    if x.size and (x.min() < 0 or x.max() > 1):
        axes = tuple(range(1, x.ndim))
        low, high = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
        x = (x - low) / np.maximum(high - low, 1e-12)
    return x


def _grid(pictures: Any, titles: Sequence[str] | None, columns: int | None, size: float, name: str, draw: Any) -> Any:
    n = len(pictures)
    if n == 0:
        raise fd.errors.ValueError_(f"{name}: there are no images")
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    figure = _figure(size * columns, (size + (0.25 if titles is not None else 0)) * rows)
    for k in range(n):
        axis = figure.add_subplot(rows, columns, k + 1)
        draw(axis, k)
        axis.set_axis_off()
        if titles is not None:
            axis.set_title(str(titles[k]), fontsize=8)
    return figure


def plot_images(images: Any, titles: Sequence[str] | None = None, *, columns: int | None = None) -> Any:
    """A grid of images, (N, H, W) or (N, C, H, W) with 1 or 3 channels; values outside [0, 1] are rescaled.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pictures = _pictures(images, "plot_images")
    return _grid(pictures, titles, columns, 1.1, "plot_images", lambda axis, k: axis.imshow(pictures[k], cmap="gray", vmin=0, vmax=1))


def plot_filters(layer: Any, *, columns: int | None = None, limit: int = 64) -> Any:
    """The filters of a Conv2d, or a Linear layer over flat square images, as images.

    Filters of 3 input channels are shown in colour, others by their first channel; red is positive, blue negative, white zero.

    Parameters
    ----------
    layer : Module or Tensor
        With a `weight` (O, C, H, W), or (O, side * side).
    """
    w = _array(getattr(layer, "weight", layer))[:limit]
    if w.ndim == 2 and math.isqrt(w.shape[1]) ** 2 == w.shape[1]:
        w = w.reshape(len(w), 1, math.isqrt(w.shape[1]), -1)
    if w.ndim != 4:
        raise fd.ShapeError(f"plot_filters: weight {w.shape}; need (O, C, H, W), or (O, side * side)")
    if w.shape[1] == 3:
        return plot_images(w / (2 * np.abs(w).max() + 1e-12) + 0.5, columns=columns)
    bound = np.abs(w).max() + 1e-12
    return _grid(w, None, columns, 0.9, "plot_filters", lambda axis, k: axis.imshow(w[k, 0], cmap="RdBu_r", vmin=-bound, vmax=bound))


def plot_feature_maps(model: nn.Module, x: Any, layer: str, *, columns: int | None = None, limit: int = 64) -> Any:
    """What each channel of `layer` (a dotted name) says about one image x, (C, H, W) or (1, C, H, W)."""
    x = fd.asarray(x)
    x = x if x.ndim == 4 else x[None]
    with fd.no_grad():
        maps = _array(nn.utils.FeatureExtractor(model, [layer])(x)[layer])[0][:limit]
    if maps.ndim != 3:
        raise fd.ShapeError(f"plot_feature_maps: {layer} gives {maps.shape} for one image; need (C, H, W)")
    return _grid(maps, None, columns, 0.9, "plot_feature_maps", lambda axis, k: axis.imshow(maps[k], cmap="viridis"))


def plot_heatmaps(images: Any, maps: Any, titles: Sequence[str] | None = None, *, columns: int | None = None) -> Any:
    """Attributions over their images, both shown faintly: saliency, integrated gradients, Grad-CAM, occlusion.

    Parameters
    ----------
    images : array_like
        (N, C, H, W) or (N, H, W).
    maps : array_like
        (N, H, W), or (N, C, H, W), summed over channels. Red speaks for the class, blue against it.
    """
    heat = _array(maps).astype(np.float64)
    heat = heat.sum(1) if heat.ndim == 4 else heat
    pictures = _pictures(images, "plot_heatmaps")
    if heat.shape != pictures.shape[:3]:
        raise fd.ShapeError(f"plot_heatmaps: maps {heat.shape} do not fit images {pictures.shape}")

    def draw(axis: Any, k: int) -> None:
        bound = np.percentile(np.abs(heat[k]), 99.5) + 1e-12
        axis.imshow(pictures[k], cmap="gray_r", vmin=0, vmax=1)
        axis.imshow(heat[k], cmap="RdBu_r", vmin=-bound, vmax=bound, alpha=0.75 * np.clip(np.abs(heat[k]) / bound, 0, 1) ** 0.7)

    return _grid(pictures, titles, columns, 1.5, "plot_heatmaps", draw)
