"""Metrics: what a batch adds is a few sums, made as tensors inside the captured step; `result` divides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import ValueError_

from . import initializers, losses
from ._registry import getter
from ._serial import Configurable, register
from ._tensor import as_tensor, floating


class Metric(Configurable):
    """Base of metrics.

    Either define `sums(y_true, y_pred, sample_weight)`, which returns a tuple of tensors to be added up, and `value(*sums)`; or, as in Keras,
    `update_state`, `result` and weights from `add_weight`: then it runs outside the captured step.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> from fastdl import keras
    >>> m = keras.metrics.SparseCategoricalAccuracy()
    >>> m.update_state([1, 0], [[0.2, 0.8], [0.3, 0.7]])
    >>> float(m.result())
    0.5
    """

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        self.name = name or type(self).__name__
        self._totals: tuple[Any, ...] | None = None
        self._weights: list[Any] = []

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        raise NotImplementedError(f"{type(self).__name__} must define sums() and value(), or update_state() and result()")

    def value(self, *totals: Any) -> Any:
        """The metric from the sums, as NumPy numbers."""
        raise NotImplementedError(f"{type(self).__name__} must define sums() and value(), or update_state() and result()")

    @property
    def outside(self) -> bool:
        """Whether `update_state` is the user's own, and so runs outside captured steps."""
        return type(self).update_state not in (Metric.update_state, Mean.update_state)

    def add(self, sums: tuple[Any, ...]) -> None:
        """Add what :meth:`sums` returned."""
        self._totals = sums if self._totals is None else tuple(a + b for a, b in zip(self._totals, sums, strict=True))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account."""
        with fd.no_grad():
            self.add(self.sums(_tensor(y_true), _tensor(y_pred), None if sample_weight is None else _tensor(sample_weight)))

    def result(self) -> Any:
        """The metric over all batches since :meth:`reset_state`; 0 before the first."""
        return 0.0 if self._totals is None else self.value(*[np.float64(t.cpu().numpy()) for t in self._totals])

    def reset_state(self) -> None:
        """Forget all batches."""
        self._totals = None
        for weight, start in self._weights:
            weight.assign(start)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def add_weight(self, shape: Any = (), initializer: Any = "zeros", name: str | None = None, dtype: Any = None) -> State:
        """A number (or array) that `update_state` may change with `assign` and `assign_add`."""
        start = initializers.get(initializer)(tuple(shape))
        self._weights.append((State(start), start.numpy().copy()))
        return self._weights[-1][0]


class State:
    """A weight of a metric of the user's."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def assign(self, value: Any) -> None:
        self.value = fd.asarray(value).detach()

    def assign_add(self, value: Any) -> None:
        self.value = self.value + fd.asarray(value).detach()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.value.numpy(), dtype)

    def __float__(self) -> float:
        return float(self.value)

    def __add__(self, other: Any) -> Any:
        return self.value + getattr(other, "value", other)

    def __sub__(self, other: Any) -> Any:
        return self.value - getattr(other, "value", other)

    def __mul__(self, other: Any) -> Any:
        return self.value * getattr(other, "value", other)

    def __truediv__(self, other: Any) -> Any:
        return self.value / getattr(other, "value", other)


def _tensor(value: Any) -> Any:
    return as_tensor(value if isinstance(value, fd.Tensor) else np.asarray(value))


def _weighted_sums(values: Any, sample_weight: Any) -> tuple[Any, Any]:
    values = floating(values)
    if sample_weight is None:
        return values.sum(), fd.full((), float(values.size))
    return losses.weigh(values, sample_weight).sum(), losses.weigh(fd.ones_like(values), sample_weight).sum()


def _ratio(a: Any, b: Any) -> Any:
    return np.where(b == 0, 0.0, a / np.where(b == 0, 1.0, b))[()]


class Mean(Metric):
    """Weighted mean of numbers."""

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(name)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take numbers into account."""
        with fd.no_grad():
            self.add(_weighted_sums(_tensor(values), None if sample_weight is None else _tensor(sample_weight)))

    def value(self, *totals: Any) -> Any:
        return _ratio(*totals)


class Sum(Mean):
    """Weighted sum of numbers."""

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(name)

    def value(self, *totals: Any) -> Any:
        return totals[0]


class MeanMetricWrapper(Metric):
    """Mean of a function (y_true, y_pred) -> one number per sample."""

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **settings: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", "metric"))
        self.fn, self.settings = fn, settings

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        return _weighted_sums(self.fn(y_true, y_pred, **self.settings), sample_weight)

    def value(self, *totals: Any) -> Any:
        return _ratio(*totals)


# ---- accuracy ----------------------------------------------------------------------------------------------------------------------


@register
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether labels are equal."""
    y_true, y_pred = losses.same_rank(y_true, y_pred)
    return floating(y_true == y_pred)


@register
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Share of labels 0/1 on the right side of `threshold`."""
    y_true, y_pred = losses.same_rank(y_true, y_pred)
    right = floating(floating(y_true) == floating(y_pred > threshold))
    return right.mean(axis=-1) if right.ndim > 1 else right


@register
def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest prediction is where the one-hot target is."""
    return floating(y_true.argmax(axis=-1) == y_pred.argmax(axis=-1))


def _labels(y_true: Any, y_pred: Any) -> Any:
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = fd.squeeze(y_true, axis=-1)
    return y_true.astype(fd.int64)


@register
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest prediction is at the integer target."""
    return floating(_labels(y_true, y_pred) == y_pred.argmax(axis=-1))


@register
def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """Whether fewer than k predictions are larger than the target's."""
    chosen = fd.take_along_axis(y_pred, fd.expand_dims(_labels(y_true, y_pred), -1), -1)
    return floating((y_pred > chosen).sum(axis=-1) < k)


@register
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """:func:`sparse_top_k_categorical_accuracy` of one-hot targets."""
    return sparse_top_k_categorical_accuracy(y_true.argmax(axis=-1), y_pred, k)


def _mean_of(cls: str, function: Callable[..., Any], name: str | None = None, **defaults: Any) -> Any:
    """A metric class: the mean of `function`, whose settings are arguments with these defaults."""
    label = name or function.__name__

    def __init__(self: Any, *args: Any, name: str = label, dtype: Any = None, **settings: Any) -> None:
        chosen = {**defaults, **dict(zip(defaults, args)), **settings}
        if unknown := set(chosen) - set(defaults):
            raise TypeError(f"{cls}: unknown arguments {sorted(unknown)}")
        MeanMetricWrapper.__init__(self, function, name, **chosen)
        self._arguments = {**chosen, "name": name}

    return type(cls, (MeanMetricWrapper,), {"__init__": __init__, "__doc__": f"Mean of :func:`{function.__name__}`.", "__module__": __name__})


Accuracy = _mean_of("Accuracy", accuracy)
BinaryAccuracy = _mean_of("BinaryAccuracy", binary_accuracy, threshold=0.5)
CategoricalAccuracy = _mean_of("CategoricalAccuracy", categorical_accuracy)
SparseCategoricalAccuracy = _mean_of("SparseCategoricalAccuracy", sparse_categorical_accuracy)
TopKCategoricalAccuracy = _mean_of("TopKCategoricalAccuracy", top_k_categorical_accuracy, k=5)
SparseTopKCategoricalAccuracy = _mean_of("SparseTopKCategoricalAccuracy", sparse_top_k_categorical_accuracy, k=5)
MeanSquaredError = _mean_of("MeanSquaredError", losses.mean_squared_error)
MeanAbsoluteError = _mean_of("MeanAbsoluteError", losses.mean_absolute_error)
MeanAbsolutePercentageError = _mean_of("MeanAbsolutePercentageError", losses.mean_absolute_percentage_error)
MeanSquaredLogarithmicError = _mean_of("MeanSquaredLogarithmicError", losses.mean_squared_logarithmic_error)
CosineSimilarity = _mean_of("CosineSimilarity", losses.cosine_similarity, axis=-1)
KLDivergence = _mean_of("KLDivergence", losses.kl_divergence)
BinaryCrossentropy = _mean_of("BinaryCrossentropy", losses.binary_crossentropy, from_logits=False, label_smoothing=0.0)
CategoricalCrossentropy = _mean_of("CategoricalCrossentropy", losses.categorical_crossentropy, from_logits=False, label_smoothing=0.0)
SparseCategoricalCrossentropy = _mean_of("SparseCategoricalCrossentropy", losses.sparse_categorical_crossentropy, from_logits=False)


class RootMeanSquaredError(Metric):
    """Root of the mean squared error."""

    def __init__(self, name: str = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name)

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        return _weighted_sums(losses.mean_squared_error(y_true, y_pred), sample_weight)

    def value(self, *totals: Any) -> Any:
        return np.sqrt(_ratio(*totals))


# ---- counts of right and wrong positives -------------------------------------------------------------------------------------------


class _Confusion(Metric):
    """True and false positives and negatives at thresholds: what Precision, Recall and AUC are made of."""

    def __init__(self, thresholds: Any, top_k: int | None, class_id: int | None, name: str | None) -> None:
        super().__init__(name)
        self.thresholds = np.atleast_1d(np.asarray(thresholds, np.float32))
        self.top_k, self.class_id = top_k, class_id

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        y_true, p = losses.same_rank(y_true, floating(y_pred))
        t = floating(y_true)
        if self.top_k is not None:
            rank = (fd.expand_dims(p, -2) > fd.expand_dims(p, -1)).sum(axis=-1)
            p = fd.where(rank < self.top_k, p, -1.0)
        if self.class_id is not None:
            t, p = t[..., self.class_id], p[..., self.class_id]
        w = losses.weigh(fd.ones_like(p), sample_weight).reshape((1, -1))
        t, p = t.reshape((1, -1)), p.reshape((1, -1))
        above = floating(p > fd.asarray(self.thresholds.reshape(-1, 1)))
        positive, negative = w * t, w * (1.0 - t)
        tp, fp = (above * positive).sum(axis=1), (above * negative).sum(axis=1)
        return tp, fp, negative.sum() - fp, positive.sum() - tp

    def _one(self, values: Any) -> Any:
        return values[0] if len(values) == 1 else values


class Precision(_Confusion):
    """Share of the positive predictions that are right."""

    def __init__(
        self, thresholds: Any = None, top_k: int | None = None, class_id: int | None = None, name: str = "precision", dtype: Any = None
    ) -> None:
        super().__init__((-0.5 if top_k else 0.5) if thresholds is None else thresholds, top_k, class_id, name)

    def value(self, *totals: Any) -> Any:
        tp, fp, _, _ = totals
        return self._one(np.atleast_1d(_ratio(tp, tp + fp)))


class Recall(_Confusion):
    """Share of the positive targets that are found."""

    def __init__(
        self, thresholds: Any = None, top_k: int | None = None, class_id: int | None = None, name: str = "recall", dtype: Any = None
    ) -> None:
        super().__init__((-0.5 if top_k else 0.5) if thresholds is None else thresholds, top_k, class_id, name)

    def value(self, *totals: Any) -> Any:
        tp, _, _, fn = totals
        return self._one(np.atleast_1d(_ratio(tp, tp + fn)))


class AUC(_Confusion):
    """Area under the ROC curve, or under that of precision over recall ("PR"), from counts at evenly spaced thresholds.

    PR areas are interpolated after Davis and Goadrich (2006), as in Keras.
    """

    def __init__(self, num_thresholds: int = 200, curve: str = "ROC", from_logits: bool = False, name: str = "auc", dtype: Any = None) -> None:
        if num_thresholds < 2 or curve.upper() not in ("ROC", "PR"):
            raise ValueError_(f"AUC: need num_thresholds >= 2 and curve 'ROC' or 'PR'; got {num_thresholds} and {curve!r}")
        inner = np.arange(1, num_thresholds - 1) / (num_thresholds - 1)
        super().__init__([-losses.EPSILON, *inner, 1.0 + losses.EPSILON], None, None, name)
        self.curve, self.from_logits = curve.upper(), from_logits

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        return super().sums(y_true, fd.sigmoid(y_pred) if self.from_logits else y_pred, sample_weight)

    def value(self, *totals: Any) -> Any:
        tp, fp, tn, fn = totals
        if self.curve == "ROC":
            x, y = _ratio(fp, fp + tn), _ratio(tp, tp + fn)
            return float(((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2).sum())
        d_tp = tp[:-1] - tp[1:]
        p = tp + fp
        slope = _ratio(d_tp, np.maximum(p[:-1] - p[1:], 0))
        intercept = tp[1:] - slope * p[1:]
        both = (p[:-1] > 0) & (p[1:] > 0)
        ratio = np.where(both, _ratio(p[:-1], np.maximum(p[1:], 0)), 1.0)
        part = _ratio(slope * (d_tp + intercept * np.log(np.where(both, ratio, 1.0))), np.maximum(tp[1:] + fn[1:], 0))
        return float(part.sum())


_CLASSES: dict[str, Any] = {
    c.__name__: c
    for c in (
        Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy,
        MeanSquaredError, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredLogarithmicError, CosineSimilarity, KLDivergence,
        BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy, RootMeanSquaredError, Precision, Recall, AUC, Mean, Sum,
    )
}  # fmt: skip
_FUNCTIONS = [binary_accuracy, categorical_accuracy, sparse_categorical_accuracy, top_k_categorical_accuracy, sparse_top_k_categorical_accuracy]
_get = getter("metric", {**losses.FUNCTIONS, **{f.__name__: f for f in _FUNCTIONS}, **_CLASSES, "rmse": RootMeanSquaredError})


def get(identifier: Any) -> Any:
    """The metric object of a name, an object or a function (y_true, y_pred)."""
    metric = _get(identifier)
    if metric is None or isinstance(metric, Metric):
        return metric
    return MeanMetricWrapper(metric, identifier if isinstance(identifier, str) else None)


def resolve_accuracy(kind: str, y_true: Any, y_pred: Any) -> Callable[..., Any]:
    """Which accuracy or cross-entropy the word means for these targets and predictions: by their shapes, as in Keras."""
    binary = y_pred.shape[-1] == 1 or y_pred.ndim == 1
    sparse = y_true.ndim < y_pred.ndim or (y_true.shape[-1] == 1 and y_pred.shape[-1] > 1)
    functions = {
        "accuracy": (binary_accuracy, sparse_categorical_accuracy, categorical_accuracy),
        "crossentropy": (losses.binary_crossentropy, losses.sparse_categorical_crossentropy, losses.categorical_crossentropy),
    }[kind]
    return functions[0] if binary else functions[1] if sparse else functions[2]
