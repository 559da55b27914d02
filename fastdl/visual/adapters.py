"""A model as a plain function of arrays, which is what SHAP, LIME and other explainers ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn

from .explain import _evaluation


def predict_function(
    model: nn.Module, *, probabilities: bool = True, shape: tuple[int, ...] | None = None, channels_last: bool = False, batch_size: int = 256
) -> Callable[[Any], np.ndarray]:
    """A function from an array (N, ...) to probabilities (N, classes), both NumPy's.

    Parameters
    ----------
    model : Module
        Returns logits (N, classes), or numbers (N, outputs) with probabilities=False.
    probabilities : bool
        Apply softmax.
    shape : tuple of int, optional
        Of one example as the model takes it: flat rows (N, features) are given that shape.
    channels_last : bool
        The function takes images (N, H, W, C), the model (N, C, H, W). Where the model's `shape` has one channel, colours are
        averaged, because LIME makes colour images of grey ones.
    batch_size : int

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn, visual
    >>> f = visual.predict_function(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), shape=(1, 4, 4))
    >>> f(np.zeros((5, 16))).shape
    (5, 3)
    """

    def predict(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if channels_last:
            x = np.moveaxis(x, -1, 1)
            if shape is not None and shape[0] == 1 and x.shape[1] != 1:
                x = x.mean(axis=1, keepdims=True)
        if shape is not None:
            x = x.reshape(len(x), *shape)
        first = next(model.parameters(), None)
        x = np.ascontiguousarray(x, dtype=np.float32 if first is None else first.dtype.name)
        parts = []
        with _evaluation(model), fd.no_grad():
            for k in range(0, len(x), batch_size):
                y = model(fd.asarray(x[k : k + batch_size], device=None if first is None else first.device))
                parts.append((fd.softmax(y, 1) if probabilities else y).cpu().numpy())
        return np.concatenate(parts)

    return predict


def explain_with_shap(model: nn.Module, x: Any, background: Any, *, nsamples: Any = "auto", **settings: Any) -> Any:
    """SHAP values of rows x by Kernel SHAP (needs the package shap).

    Parameters
    ----------
    model : Module
    x : array_like
        (N, features), or images, which are flattened.
    background : array_like
        Some tens of rows like x; what "feature missing" means.
    nsamples : int or "auto"
    **settings
        For :func:`predict_function`.

    Returns
    -------
    ndarray or list of ndarray
        What `shap.KernelExplainer.shap_values` returns.
    """
    shap = _package("shap")
    x, background = np.asarray(x), np.asarray(background)
    function = predict_function(model, shape=x.shape[1:], **settings)
    return shap.KernelExplainer(function, background.reshape(len(background), -1)).shap_values(x.reshape(len(x), -1), nsamples=nsamples)


def explain_with_lime(model: nn.Module, image: Any, *, num_samples: int = 1000, top_labels: int = 1, rng: int = 0, **settings: Any) -> Any:
    """LIME's explanation of one image (C, H, W) with 1 or 3 channels (needs the package lime).

    Returns
    -------
    lime.lime_image.ImageExplanation
        `get_image_and_mask(label)` has the regions that count.
    """
    lime_image = _package("lime.lime_image")
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise fd.ShapeError(f"explain_with_lime: image {image.shape}; need (1, H, W) or (3, H, W)")
    function = predict_function(model, shape=image.shape, channels_last=True)
    colour = np.moveaxis(np.broadcast_to(image, (3, *image.shape[1:])), 0, -1).astype(np.float64)
    explainer = lime_image.LimeImageExplainer(random_state=rng)
    return explainer.explain_instance(colour, function, top_labels=top_labels, num_samples=num_samples, **settings)


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"fastdl.visual: this needs the package {name.split('.')[0]}: pip install {name.split('.')[0]} ({error})") from error
