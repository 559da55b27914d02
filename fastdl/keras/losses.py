"""Losses under Keras's names: functions give one number per sample (the last axis is reduced), classes reduce them to one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastdl as fd
from fastdl.errors import ShapeError, ValueError_

from ._registry import getter
from ._serial import Configurable, register
from ._tensor import as_tensor, floating

EPSILON = 1e-7


def same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Targets (N,) fit predictions (N, 1), and the other way round."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        return fd.expand_dims(y_true, -1), y_pred
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        return fd.squeeze(y_true, axis=-1), y_pred
    return y_true, y_pred


def _dense(name: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_pred = floating(as_tensor(y_pred))
    y_true, y_pred = same_rank(as_tensor(y_true), y_pred)
    if tuple(y_true.shape) != tuple(y_pred.shape):
        raise ShapeError(f"{name}: targets are {tuple(y_true.shape)} but predictions {tuple(y_pred.shape)}; need equal shapes")
    return y_true.astype(y_pred.dtype), y_pred


@register
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """mean((y_true - y_pred)^2)."""
    y_true, y_pred = _dense("mean_squared_error", y_true, y_pred)
    return fd.square(y_true - y_pred).mean(axis=-1)


@register
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """mean(|y_true - y_pred|)."""
    y_true, y_pred = _dense("mean_absolute_error", y_true, y_pred)
    return abs(y_true - y_pred).mean(axis=-1)


@register
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 mean(|y_true - y_pred| / |y_true|)."""
    y_true, y_pred = _dense("mean_absolute_percentage_error", y_true, y_pred)
    return 100.0 * (abs(y_true - y_pred) / fd.maximum(abs(y_true), EPSILON)).mean(axis=-1)


@register
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """mean((log(1 + y_true) - log(1 + y_pred))^2), numbers below zero counting as zero."""
    y_true, y_pred = _dense("mean_squared_logarithmic_error", y_true, y_pred)
    return fd.square(fd.log1p(fd.maximum(y_true, EPSILON)) - fd.log1p(fd.maximum(y_pred, EPSILON))).mean(axis=-1)


@register
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Squares of errors up to `delta`, and in proportion to the error beyond (Huber, 1964)."""
    y_true, y_pred = _dense("huber", y_true, y_pred)
    error = abs(y_true - y_pred)
    return fd.where(error <= delta, 0.5 * fd.square(error), delta * error - 0.5 * delta * delta).mean(axis=-1)


@register
def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """mean(log(cosh(y_pred - y_true)))."""
    y_true, y_pred = _dense("log_cosh", y_true, y_pred)
    error = y_pred - y_true
    return (error + fd.softplus(-2.0 * error) - 0.6931471805599453).mean(axis=-1)


def _signs(y_true: Any) -> Any:
    """0/1 labels as -1/1."""
    return fd.where(y_true == 0, -1.0, y_true)


@register
def hinge(y_true: Any, y_pred: Any) -> Any:
    """mean(max(1 - y_true y_pred, 0)); labels -1 and 1, or 0 and 1."""
    y_true, y_pred = _dense("hinge", y_true, y_pred)
    return fd.relu(1.0 - _signs(y_true) * y_pred).mean(axis=-1)


@register
def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """mean(max(1 - y_true y_pred, 0)^2)."""
    y_true, y_pred = _dense("squared_hinge", y_true, y_pred)
    return fd.square(fd.relu(1.0 - _signs(y_true) * y_pred)).mean(axis=-1)


@register
def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """max(largest wrong score - right score + 1, 0)."""
    y_true, y_pred = _dense("categorical_hinge", y_true, y_pred)
    return fd.relu(((1.0 - y_true) * y_pred).max(axis=-1) - (y_true * y_pred).sum(axis=-1) + 1.0)


@register
def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """sum(y_true log(y_true / y_pred))."""
    y_true, y_pred = _dense("kl_divergence", y_true, y_pred)
    y_true, y_pred = fd.clip(y_true, EPSILON, 1.0), fd.clip(y_pred, EPSILON, 1.0)
    return (y_true * fd.log(y_true / y_pred)).sum(axis=-1)


@register
def poisson(y_true: Any, y_pred: Any) -> Any:
    """mean(y_pred - y_true log(y_pred))."""
    y_true, y_pred = _dense("poisson", y_true, y_pred)
    return (y_pred - y_true * fd.log(y_pred + EPSILON)).mean(axis=-1)


@register
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Cosine of the angle; as a loss its negative is taken."""
    y_true, y_pred = _dense("cosine_similarity", y_true, y_pred)
    return (_unit(y_true, axis) * _unit(y_pred, axis)).sum(axis=axis)


def _unit(x: Any, axis: int) -> Any:
    return x / fd.sqrt(fd.maximum(fd.square(x).sum(axis=axis, keepdims=True), 1e-12))


@register
def binary_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1) -> Any:
    """-mean(t log(p) + (1 - t) log(1 - p)), of probabilities or of logits.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> keras.losses.binary_crossentropy(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])).numpy().round(4).tolist()
    [0.693...]
    """
    t, p = _dense("binary_crossentropy", y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return (fd.relu(p) - p * t + fd.softplus(-abs(p))).mean(axis=axis)
    p = fd.clip(p, EPSILON, 1.0 - EPSILON)
    return -(t * fd.log(p) + (1.0 - t) * fd.log(1.0 - p)).mean(axis=axis)


def _log_probabilities(y_pred: Any, from_logits: bool, axis: int) -> Any:
    if from_logits:
        return fd.log_softmax(y_pred, axis)
    return fd.log(fd.clip(y_pred / y_pred.sum(axis=axis, keepdims=True), EPSILON, 1.0 - EPSILON))


@register
def categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1) -> Any:
    """-sum(t log(p)) over the classes, of one-hot targets and probabilities (scaled to sum 1) or logits."""
    t, p = _dense("categorical_crossentropy", y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + label_smoothing / p.shape[axis]
    return -(t * _log_probabilities(p, from_logits, axis)).sum(axis=axis)


@register
def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1) -> Any:
    """-log(p[t]) of integer targets and probabilities or logits; the target `ignore_class` counts nothing."""
    y_true, p = as_tensor(y_true), floating(as_tensor(y_pred))
    if axis not in (-1, p.ndim - 1):
        p = fd.moveaxis(p, axis, -1)
    if y_true.ndim == p.ndim and y_true.shape[-1] == 1:
        y_true = fd.squeeze(y_true, axis=-1)
    if tuple(y_true.shape) != tuple(p.shape[:-1]):
        raise ShapeError(
            f"sparse_categorical_crossentropy: targets are {tuple(y_true.shape)} but predictions {tuple(p.shape)}; need integers of shape "
            f"{tuple(p.shape[:-1])} (one-hot targets go with categorical_crossentropy)"
        )
    t = y_true.astype(fd.int64)
    kept = None if ignore_class is None else t != ignore_class
    t = t if kept is None else fd.where(kept, t, 0)
    if from_logits:
        rows = p.reshape((-1, p.shape[-1])) if p.ndim > 1 else p.reshape((1, -1))
        loss = fd.cross_entropy(rows, t.reshape((-1,))).reshape(tuple(t.shape))
    else:
        chosen = fd.take_along_axis(p, fd.expand_dims(t, -1), -1)
        loss = -fd.log(fd.clip(fd.squeeze(chosen, axis=-1), EPSILON, 1.0 - EPSILON))
    return loss if kept is None else fd.where(kept, loss, 0.0)


class Loss(Configurable):
    """Base: define `call(y_true, y_pred)`, which gives one number per sample.

    Parameters
    ----------
    name : str, optional
    reduction : {"sum_over_batch_size", "sum", "mean", "none", None}
        "mean" divides by the sum of the sample weights.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None) -> None:
        if reduction not in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None):
            raise ValueError_(f"{type(self).__name__}: reduction must be 'sum_over_batch_size', 'sum', 'mean' or 'none'; got {reduction!r}")
        self.name, self.reduction = name or type(self).__name__, reduction

    def call(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define call(y_true, y_pred)")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return reduce_values(self.call(as_tensor(y_true), as_tensor(y_pred)), as_tensor(sample_weight), self.reduction)


def weigh(values: Any, weight: Any) -> Any:
    """values (N, ...) times weight (N,), (N, 1) or of the values' shape."""
    if weight is None:
        return values
    if not isinstance(weight, fd.Tensor):
        return values * weight
    weight = weight.astype(values.dtype)
    if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1:
        weight = fd.squeeze(weight, axis=-1)
    return values * weight.reshape((*weight.shape, *(1,) * (values.ndim - weight.ndim)))


def reduce_values(values: Any, weight: Any, reduction: str | None) -> Any:
    weighted = weigh(values, weight)
    if reduction == "sum_over_batch_size":
        return weighted.mean()
    if reduction == "sum":
        return weighted.sum()
    if reduction in ("mean", "mean_with_sample_weight"):
        return weighted.mean() if weight is None else weighted.sum() / weigh(fd.ones_like(values), weight).sum()
    return weighted


class LossFunctionWrapper(Loss):
    """A function (y_true, y_pred) -> one number per sample, as a loss."""

    def __init__(self, fn: Callable[..., Any], reduction: str | None = "sum_over_batch_size", name: str | None = None, **settings: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", "loss"), reduction)
        self.fn, self.settings = fn, settings

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self.settings)


def _wrapper(name: str, function: Callable[..., Any], **defaults: Any) -> Any:
    """The class of a loss function without arguments of its own."""

    def __init__(self: Any, reduction: str | None = "sum_over_batch_size", name: str = function.__name__, dtype: Any = None) -> None:
        LossFunctionWrapper.__init__(self, function, reduction, name)

    return type(name, (LossFunctionWrapper,), {"__init__": __init__, "__doc__": function.__doc__, "__module__": __name__})


MeanSquaredError = _wrapper("MeanSquaredError", mean_squared_error)
MeanAbsoluteError = _wrapper("MeanAbsoluteError", mean_absolute_error)
MeanAbsolutePercentageError = _wrapper("MeanAbsolutePercentageError", mean_absolute_percentage_error)
MeanSquaredLogarithmicError = _wrapper("MeanSquaredLogarithmicError", mean_squared_logarithmic_error)
LogCosh = _wrapper("LogCosh", log_cosh)
Hinge = _wrapper("Hinge", hinge)
SquaredHinge = _wrapper("SquaredHinge", squared_hinge)
CategoricalHinge = _wrapper("CategoricalHinge", categorical_hinge)
KLDivergence = _wrapper("KLDivergence", kl_divergence)
Poisson = _wrapper("Poisson", poisson)


class Huber(LossFunctionWrapper):
    """:func:`huber`."""

    def __init__(self, delta: float = 1.0, reduction: str | None = "sum_over_batch_size", name: str = "huber_loss", dtype: Any = None) -> None:
        super().__init__(huber, reduction, name, delta=delta)


class CosineSimilarity(LossFunctionWrapper):
    """-cos of the angle between targets and predictions."""

    def __init__(self, axis: int = -1, reduction: str | None = "sum_over_batch_size", name: str = "cosine_similarity", dtype: Any = None) -> None:
        super().__init__(lambda t, p: -cosine_similarity(t, p, axis), reduction, name)


class BinaryCrossentropy(LossFunctionWrapper):
    """:func:`binary_crossentropy`."""

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1, reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy", dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(binary_crossentropy, reduction, name, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)


class CategoricalCrossentropy(LossFunctionWrapper):
    """:func:`categorical_crossentropy`."""

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1, reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy", dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(categorical_crossentropy, reduction, name, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """:func:`sparse_categorical_crossentropy`."""

    def __init__(
        self, from_logits: bool = False, ignore_class: int | None = None, reduction: str | None = "sum_over_batch_size", axis: int = -1,
        name: str = "sparse_categorical_crossentropy", dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(sparse_categorical_crossentropy, reduction, name, from_logits=from_logits, ignore_class=ignore_class, axis=axis)


FUNCTIONS: dict[str, Any] = {
    f.__name__: f
    for f in (
        mean_squared_error, mean_absolute_error, mean_absolute_percentage_error, mean_squared_logarithmic_error, huber, log_cosh, hinge,
        squared_hinge, categorical_hinge, kl_divergence, poisson, binary_crossentropy, categorical_crossentropy,
        sparse_categorical_crossentropy,
    )
} | {
    "mse": mean_squared_error, "mae": mean_absolute_error, "mape": mean_absolute_percentage_error, "msle": mean_squared_logarithmic_error,
    "logcosh": log_cosh, "kld": kl_divergence, "bce": binary_crossentropy,
}  # fmt: skip
_CLASSES: dict[str, Any] = {
    c.__name__: c
    for c in (
        MeanSquaredError, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredLogarithmicError, LogCosh, Hinge, SquaredHinge,
        CategoricalHinge, KLDivergence, Poisson, Huber, CosineSimilarity, BinaryCrossentropy, CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
    )
}  # fmt: skip
_get = getter("loss", {**FUNCTIONS, **_CLASSES, "cosine_similarity": CosineSimilarity})


def get(identifier: Any) -> Any:
    """The loss object of a name, an object or a function (y_true, y_pred)."""
    loss = _get(identifier)
    return loss if loss is None or isinstance(loss, Loss) else LossFunctionWrapper(loss)


MSE, MAE = mean_squared_error, mean_absolute_error
mse, mae, mape, msle = mean_squared_error, mean_absolute_error, mean_absolute_percentage_error, mean_squared_logarithmic_error
