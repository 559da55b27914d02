"""scikit-learn estimators: `Classifier` and `Regressor`, an MLP by default, any module or architecture by argument.

They clone, pickle and search like scikit-learn's own, so pipelines, grid searches, ensembles and calibration take them as they are.
Needs scikit-learn (`pip install 'fastdl-engine[sklearn]'`).
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError(f"fastdl.sklearn needs scikit-learn >= 1.6: pip install 'fastdl-engine[sklearn]' ({error})") from error

__all__ = ["Classifier", "Regressor", "mlp"]

_ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
_PREDICT_ROWS = 4096  # rows that go through the module at a time in predictions
_seeding = threading.RLock()


def mlp(
    n_features: int, n_outputs: int, hidden_layer_sizes: Any = (100,), activation: str = "relu", dropout: float = 0.0
) -> nn.Sequential:
    """A multi-layer perceptron: the estimators' default architecture.

    Parameters
    ----------
    n_features, n_outputs : int
        Sizes of the input (N, n_features) and of the output (N, n_outputs).
    hidden_layer_sizes : int or sequence of int
    activation : {"identity", "logistic", "tanh", "relu", "gelu", "silu"}
    dropout : float
        Share of each hidden layer's outputs that training drops.

    Examples
    --------
    >>> from fastdl.sklearn import mlp
    >>> mlp(4, 3, (8,))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    sizes = [hidden_layer_sizes] if isinstance(hidden_layer_sizes, (int, np.integer)) else list(hidden_layer_sizes)
    if any(not isinstance(size, (int, np.integer)) or size < 1 for size in sizes):
        raise fd.errors.ValueError_(f"mlp: hidden_layer_sizes is {hidden_layer_sizes!r}; need integers >= 1")
    if activation not in _ACTIVATIONS:
        raise fd.errors.ValueError_(f"mlp: activation is {activation!r}; need one of {', '.join(_ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(n_features, int(size)), _ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        n_features = int(size)
    return nn.Sequential(*layers, nn.Linear(n_features, n_outputs))


@contextlib.contextmanager
def _seeded(state: tuple[int, int]) -> Iterator[Callable[[], tuple[int, int]]]:
    """fastdl's default generator continues from `state` inside; outside it is what it was. One thread at a time."""
    generator = fd.random.default_generator
    with _seeding:
        before = generator.get_state()
        generator.set_state(state)
        try:
            yield generator.get_state
        finally:
            generator.set_state(before)


def _training_step(
    module: nn.Module, loss: Callable[..., Any], optimizer: optim.Optimizer, max_grad_norm: float | None
) -> Callable[[Any, Any, Any], Any]:
    """The step of every fit: a function of tensors x (N, features), y and w (N) that returns the mean weighted loss as a tensor.

    It reads no value in Python, so it can be captured; this is the one place where that happens.
    """
    parameters = list(module.parameters())

    def step(x: Any, y: Any, w: Any) -> Any:
        optimizer.zero_grad()
        mean = (loss(module(x), y) * w).mean()
        mean.backward()
        if max_grad_norm is not None:
            optim.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()  # gradients that nobody sees afterwards take no memory between steps, see docs/capture.md
        return mean.detach()

    return fd.compile(step, strict=False)


class _Estimator(BaseEstimator):
    """What Classifier and Regressor share: data, the loop, early stopping, state."""

    # Set by fit, beside the public attributes:
    #   _optimizer         its state goes on in warm starts and partial_fit
    #   _stream            (seed, offset) of the generator of weights and dropout
    #   _shuffler          the NumPy generator of the order of the rows
    module_: nn.Module
    loss_curve_: list[float]

    # ---- what subclasses define ----------------------------------------------------------------------------------------

    def _check_targets(self, y: Any, first: bool, classes: Any) -> np.ndarray:
        """The targets as the loss takes them; sets what describes them (classes_, n_outputs_)."""
        raise NotImplementedError

    def _loss(self) -> Callable[[Any, Any], Any]:
        """A function (outputs, targets) -> losses (N)."""
        raise NotImplementedError

    def _validation_score(self, outputs: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        raise NotImplementedError

    # ---- checks --------------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        name = type(self).__name__
        for key, least, strict in (
            ("learning_rate_init", 0, True), ("alpha", 0, False), ("dropout", 0, False), ("max_iter", 1, False),
            ("n_iter_no_change", 1, False), ("tol", 0, False), ("max_grad_norm", 0, True), ("validation_fraction", 0, True),
        ):  # fmt: skip
            value = getattr(self, key)
            if value is None and key in ("tol", "max_grad_norm"):
                continue
            good = isinstance(value, (int, float, np.number)) and (value > least if strict else value >= least)
            if not good or (key in ("dropout", "validation_fraction") and not value < 1):
                below = " and < 1" if key in ("dropout", "validation_fraction") else ""
                raise fd.errors.ValueError_(f"{name}: {key} is {value!r}; need a number {'>' if strict else '>='} {least}{below}")
        if self.batch_size != "auto" and not (isinstance(self.batch_size, (int, np.integer)) and self.batch_size >= 1):
            raise fd.errors.ValueError_(f"{name}: batch_size is {self.batch_size!r}; need 'auto' or an integer >= 1")
        if self.dtype not in (None, "float32", "float64"):
            raise fd.errors.ValueError_(f"{name}: dtype is {self.dtype!r}; need None, 'float32' or 'float64'")

    def _validate(self, X: Any, reset: bool, **with_y: Any) -> Any:
        kinds = [np.float64, np.float32] if self.dtype is None else np.dtype(self.dtype)
        return validate_data(self, X, **with_y, reset=reset, dtype=kinds, accept_sparse="csr")

    # ---- fitting -------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (n_samples, n_features), dense or sparse, and y.

        Parameters
        ----------
        X : array_like or sparse matrix
        y : array_like
            Classes (n_samples,), for `Classifier` also 0/1 of several labels (n_samples, n_labels); numbers (n_samples,) or
            (n_samples, n_outputs) for `Regressor`.
        sample_weight : array_like, optional
            (n_samples,). A weight of 2 counts like the row twice, 0 like no row.

        Returns
        -------
        self
        """
        return self._train(X, y, sample_weight, fresh=not (self.warm_start and hasattr(self, "module_")), epochs=None)

    def _train(self, X: Any, y: Any, sample_weight: Any, fresh: bool, epochs: int | None, classes: Any = None) -> Any:
        self._check_settings()
        X, y = self._validate(X, fresh, y=y, multi_output=True, y_numeric=isinstance(self, Regressor))
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if not (np.all(weights >= 0) and weights.sum() > 0):
            raise fd.errors.ValueError_(f"{type(self).__name__}: sample_weight must be >= 0 and not all zero")
        if not weights.all():  # the same as removing the rows, also for the classes
            X, y, weights = X[weights > 0], np.asarray(y)[weights > 0], weights[weights > 0]
        y = self._check_targets(y, fresh, classes)
        weights = self._class_weighted(y, weights)
        weights = weights / weights.mean()
        if fresh:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            self._stream, self._shuffler = (seed, 0), np.random.default_rng(seed)
            self.n_iter_, self.t_, self.loss_curve_, self.best_loss_ = 0, 0, [], math.inf
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.best_validation_score_: float | None = None
        with _seeded(self._stream) as state:
            if fresh:
                self.module_ = self._build(X.dtype.name, self.module)
                self._optimizer = self._make_optimizer()
            self._run(X, y.astype(X.dtype) if y.dtype.kind == "f" else y, weights.astype(X.dtype), epochs)
            self._stream = state()
        return self

    def _class_weighted(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights

    def _build(self, dtype: str, source: Any) -> nn.Module:
        sizes = self.n_features_in_, self.n_outputs_
        if source is None:
            module: Any = mlp(*sizes, self.hidden_layer_sizes, self.activation, self.dropout)
        elif isinstance(source, nn.Module):
            module = copy.deepcopy(source)
        elif callable(source):
            module = source(*sizes)
        else:
            module = None
        if not isinstance(module, nn.Module):
            raise fd.errors.TypeError_(
                f"{type(self).__name__}: module is {source!r}; need None, an nn.Module, or a function (n_features, n_outputs) -> nn.Module"
            )
        module = module.to(fd.dtype(dtype), device=self.device).eval()
        with fd.no_grad():
            got = tuple(module(fd.zeros((2, sizes[0]), dtype=dtype, device=self.device)).shape)
        if got != (2, sizes[1]):
            raise fd.ShapeError(f"{type(self).__name__}: module gives {got} for inputs {(2, sizes[0])}; need {(2, sizes[1])}")
        return module

    def _make_optimizer(self) -> optim.Optimizer:
        trained = [p for p in self.module_.parameters() if p.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": float(self.alpha)}, {"params": vectors, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        settings = {"lr": float(self.learning_rate_init), **(self.optimizer_params or {})}
        if callable(self.optimizer):
            return self.optimizer(groups, **settings)
        known = {n.lower(): c for n, c in vars(optim).items() if isinstance(c, type) and issubclass(c, optim.Optimizer)}
        known.pop("optimizer")
        if str(self.optimizer).lower() not in known:
            raise fd.errors.ValueError_(f"{type(self).__name__}: optimizer is {self.optimizer!r}; need one of {', '.join(known)}, or a class")
        return known[str(self.optimizer).lower()](groups, **settings)

    def _run(self, X: Any, y: np.ndarray, w: np.ndarray, epochs: int | None) -> None:
        """`epochs` epochs (partial_fit), or up to max_iter with the stop rules (fit)."""
        watch = epochs is None and self.early_stopping
        held: tuple[Any, ...] = ()
        if watch:
            X, held_x, y, held_y, w, held_w = self._split(X, y, w)
            held = held_x, held_y, held_w
        n = X.shape[0]
        batch = min(n, 200 if self.batch_size == "auto" else int(self.batch_size))
        step = _training_step(self.module_, self._loss(), self._optimizer, self.max_grad_norm)
        whole = self._tensors(X, y, w) if batch == n else None  # one batch: its order does not matter
        best: dict[str, Any] | None = None
        score, stale = -math.inf, 0
        self.module_.train()
        for epoch in range(self.max_iter if epochs is None else epochs):
            order = self._shuffler.permutation(n) if self.shuffle and batch < n else np.arange(n)
            total: Any = 0.0
            for start in range(0, n, batch):
                rows = order[start : start + batch]
                total = step(*(whole or self._tensors(X[rows], y[rows], w[rows]))) * len(rows) + total
            self.t_ += n
            self.n_iter_ += 1
            loss = float(total) / n
            self.loss_curve_.append(loss)
            if not math.isfinite(loss):
                raise fd.errors.ValueError_(f"{type(self).__name__}: the loss is {loss} in epoch {epoch + 1}; lower learning_rate_init or scale X and y")
            self.best_loss_ = min(self.best_loss_, loss)
            if watch:
                new = self._validation_score(self._outputs(held[0]), held[1], held[2])
                self.module_.train()
                self.validation_scores_ = [*(self.validation_scores_ or []), new]
            else:
                new = -loss
            if self.verbose:
                print(f"epoch {self.n_iter_}  loss {loss:.6f}" + (f"  validation score {new:.6f}" if watch else ""), flush=True)
            stale = 0 if new > score + (self.tol or 0.0) else stale + 1
            if new > score:
                score = new
                if watch:
                    best = {name: value.clone() for name, value in self.module_.state_dict().items()}
            if epochs is None and self.tol is not None and stale >= self.n_iter_no_change:
                break
        else:
            if epochs is None and self.tol is not None:
                warnings.warn(f"{type(self).__name__}: max_iter = {self.max_iter} reached before convergence", ConvergenceWarning, stacklevel=4)
        if best is not None:
            self.module_.load_state_dict(best)
            self.best_validation_score_ = score
        self.module_.eval()

    def _split(self, X: Any, y: np.ndarray, w: np.ndarray) -> list[Any]:
        labels = y if y.dtype.kind == "i" and np.bincount(y).min(initial=2, where=np.bincount(y) > 0) > 1 else None
        held = max(1, round(self.validation_fraction * X.shape[0]))
        if labels is not None and held < len(np.unique(labels)):
            labels = None
        if X.shape[0] < 2:
            raise fd.errors.ValueError_(f"{type(self).__name__}: early_stopping needs rows to hold out; got n_samples = 1")
        return train_test_split(X, y, w, test_size=held, stratify=labels, random_state=int(self._shuffler.integers(2**31)))

    def _tensors(self, *arrays: Any) -> tuple[Any, ...]:
        dense = [np.ascontiguousarray(a.toarray() if hasattr(a, "toarray") else a) for a in arrays]
        return tuple(fd.asarray(a, device=self.device) for a in dense)

    # ---- predicting ----------------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> np.ndarray:
        """What the module says about checked rows, (n_samples, n_outputs)."""
        self.module_.eval()
        dtype = next((str(t.dtype) for t in self.module_.state_dict().values() if t.dtype.kind == "f"), X.dtype.name)
        with fd.no_grad():
            parts = [self.module_(*self._tensors(X[k : k + _PREDICT_ROWS].astype(dtype))) for k in range(0, X.shape[0], _PREDICT_ROWS)]
            return np.concatenate([part.cpu().numpy() for part in parts])

    def _predict_outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "module_")
        return self._outputs(self._validate(X, reset=False))

    # ---- state ---------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: weights and the optimiser's state as plain arrays; the module is built anew from the settings."""
        state = dict(super().__getstate__())
        if "module_" in state:
            module, optimizer = state.pop("module_"), state.pop("_optimizer").state_dict()
            state["_saved"] = {
                "module": {name: value.cpu().numpy() for name, value in module.state_dict().items()},
                "optimizer": {"param_groups": optimizer["param_groups"], "state": {k: _plain(v) for k, v in optimizer["state"].items()}},
                "source": None if not isinstance(self.module, nn.Module) else module,
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved", None) if "_saved" in state else None
        super().__setstate__(state)
        if saved is not None:
            dtype = next((v.dtype.name for v in saved["module"].values() if v.dtype.kind == "f"), "float32")
            with _seeded((0, 0)):
                self.module_ = self._build(dtype, self.module if saved["source"] is None else saved["source"])
            self.module_.load_state_dict(saved["module"])
            self._optimizer = self._make_optimizer()
            self._optimizer.load_state_dict(saved["optimizer"])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value.cpu().numpy() if isinstance(value, fd.Tensor) else value for name, value in entry.items()}


_PARAMETERS = """
    Parameters
    ----------
    module : callable or nn.Module, optional
        `module(n_features, n_outputs)` returns the network (a class will do); an nn.Module is copied, weights included.
        Default: :func:`mlp` of `hidden_layer_sizes`, `activation` and `dropout`.
    hidden_layer_sizes, activation, dropout
        The default network's.
    loss : str or callable
        {loss}, or a function (outputs, targets) of tensors that returns one loss per row.
    optimizer : str or callable
        "adam", "adamw", "sgd", "rmsprop" ... (any optimiser of `fastdl.optim`), or its class.
    optimizer_params : dict, optional
        Further arguments of the optimiser, such as {{"momentum": 0.9}}.
    learning_rate_init : float
    alpha : float
        L2 penalty: the optimiser's weight_decay for all parameters but vectors (biases, norms).
    batch_size : int or "auto"
        "auto" is min(200, n_samples).
    max_iter : int
        Epochs at most.
    shuffle : bool
        A new order of the rows in every epoch.
    tol, n_iter_no_change
        Training stops when loss (or validation score) has not improved by `tol` for so many epochs; tol=None never stops.
    early_stopping : bool
        Hold out `validation_fraction` of the rows, stop by their score, keep the best weights.
    validation_fraction : float
    {extra}max_grad_norm : float, optional
        Clip the joint norm of all gradients.
    warm_start : bool
        `fit` goes on from the weights that are there.
    random_state : int, RandomState or None
        Initial weights, order, dropout and the held-out rows; an int gives the same estimator every time.
    dtype : {{None, "float32", "float64"}}
        What to compute in; None: the dtype of X (float32 data is the fastest).
    device : str, optional
    verbose : bool

    Attributes
    ----------
    module_ : nn.Module
    n_iter_ : int
        Epochs since the weights were initialised.
    loss_curve_ : list of float
        The mean loss of each of them; `best_loss_` is the smallest.
    validation_scores_, best_validation_score_
        With early stopping.
    n_outputs_, n_features_in_, feature_names_in_, t_
        As in scikit-learn's MLPs; t_ counts rows seen.
"""


class Classifier(ClassifierMixin, _Estimator):
    __doc__ = f"""A neural network classifier for scikit-learn; several labels per row (an indicator matrix y) as well.
{_PARAMETERS.format(loss='"log_loss"', extra='''class_weight : dict, "balanced" or None
        Multiplies the weights of the rows of each class.
    label_smoothing : float
        Part of each target's probability that is spread evenly over all classes.
    ''')}    classes_ : ndarray

    Examples
    --------
    >>> from fastdl.sklearn import Classifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), Classifier(learning_rate_init=0.01, random_state=0)).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    def __init__(
        self, module: Any = None, *, hidden_layer_sizes: Any = (100,), activation: str = "relu", dropout: float = 0.0,
        loss: Any = "log_loss", optimizer: Any = "adam", optimizer_params: Any = None, learning_rate_init: float = 1e-3,
        alpha: float = 1e-4, batch_size: Any = "auto", max_iter: int = 200, shuffle: bool = True, tol: float | None = 1e-4,
        n_iter_no_change: int = 10, early_stopping: bool = False, validation_fraction: float = 0.1, class_weight: Any = None,
        label_smoothing: float = 0.0, max_grad_norm: float | None = None, warm_start: bool = False, random_state: Any = None,
        dtype: str | None = None, device: Any = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        settings = dict(locals())
        del settings["self"]
        self.__dict__.update(settings)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Classifier:
        """One epoch over the given rows, from where the last call stopped; the first call needs all `classes`."""
        fresh = not hasattr(self, "module_")
        if fresh and classes is None:
            raise fd.errors.ValueError_("Classifier.partial_fit: the first call needs classes")
        if self.class_weight == "balanced":
            raise fd.errors.ValueError_("Classifier.partial_fit: class_weight 'balanced' needs all rows; give a dict")
        return self._train(X, y, sample_weight, fresh, epochs=1, classes=classes)

    def _check_targets(self, y: Any, first: bool, classes: Any) -> np.ndarray:
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
            found, several = np.arange(y.shape[1]), True
        elif kind in ("binary", "multiclass"):
            y, several = column_or_1d(y, warn=True), False
            found = np.unique(y)
        else:
            raise fd.errors.ValueError_(f"Classifier: y is {kind}; need classes (n_samples,) or 0/1 of labels (n_samples, n_labels)")
        if first:
            self.classes_, self._several_labels = found if classes is None else np.unique(classes), several
            self.n_outputs_ = len(self.classes_)
        unknown = np.setdiff1d(found, self.classes_)
        if len(unknown) or several != self._several_labels:
            raise fd.errors.ValueError_(f"Classifier: y has classes {unknown.tolist()} beside those of the first fit, {self.classes_.tolist()}")
        return y.astype(np.float64) if several else np.searchsorted(self.classes_, y)

    def _class_weighted(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return weights
        if self._several_labels:
            raise fd.errors.ValueError_("Classifier: class_weight is for one label per row")
        k = len(self.classes_)
        if self.class_weight == "balanced":
            counts = np.bincount(y, weights, minlength=k)
            factors = np.divide(weights.sum(), (counts > 0).sum() * counts, out=np.zeros(k), where=counts > 0)
        elif isinstance(self.class_weight, dict):
            unknown = [label for label in self.class_weight if label not in set(self.classes_.tolist())]
            if unknown:
                raise fd.errors.ValueError_(f"Classifier: class_weight has {unknown}; the classes are {self.classes_.tolist()}")
            factors = np.array([self.class_weight.get(label, 1.0) for label in self.classes_.tolist()])
        else:
            raise fd.errors.ValueError_(f"Classifier: class_weight is {self.class_weight!r}; need None, 'balanced' or a dict")
        weights = weights * factors[y]
        if not weights.sum() > 0:
            raise fd.errors.ValueError_("Classifier: class_weight and sample_weight leave no row")
        return weights

    def _loss(self) -> Callable[[Any, Any], Any]:
        if callable(self.loss):
            return self.loss
        if self.loss != "log_loss":
            raise fd.errors.ValueError_(f"Classifier: loss is {self.loss!r}; need 'log_loss' or a function")
        smoothing = self.label_smoothing
        if self._several_labels:
            return lambda z, y: F.binary_cross_entropy_with_logits(z, y * (1 - smoothing) + smoothing / 2, reduction="none").mean(axis=1)
        return lambda z, y: F.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)

    def _validation_score(self, outputs: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        return accuracy_score(y, outputs > 0 if self._several_labels else outputs.argmax(1), sample_weight=w)

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (n_samples, n_classes); for two classes their difference (n_samples,), positive for `classes_[1]`."""
        outputs = self._predict_outputs(X)
        return outputs[:, 1] - outputs[:, 0] if self.n_outputs_ == 2 and not self._several_labels else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, or 0/1 for each label."""
        outputs = self._predict_outputs(X)
        return (outputs > 0).astype(np.int64) if self._several_labels else self.classes_[outputs.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n_samples, n_classes); rows sum to one unless a row may have several labels."""
        outputs = fd.asarray(self._predict_outputs(X))
        return (fd.sigmoid(outputs) if self._several_labels else fd.softmax(outputs, 1)).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the probabilities, exact also where those are tiny."""
        outputs = fd.asarray(self._predict_outputs(X))
        return (fd.log_sigmoid(outputs) if self._several_labels else fd.log_softmax(outputs, 1)).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


_REGRESSION_LOSSES: dict[str, Callable[..., Any]] = {"squared_error": F.mse_loss, "absolute_error": F.l1_loss, "huber": F.huber_loss}


class Regressor(RegressorMixin, _Estimator):
    __doc__ = f"""A neural network regressor for scikit-learn, of one or several outputs.
{_PARAMETERS.format(loss='"squared_error", "absolute_error" or "huber"', extra="")}
    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.sklearn import Regressor
    >>> X = np.random.default_rng(0).uniform(-2, 2, (400, 1)).astype(np.float32)
    >>> model = Regressor(hidden_layer_sizes=(64,), learning_rate_init=1e-2, random_state=0).fit(X, np.sin(2 * X[:, 0]))
    >>> bool(model.score(X, np.sin(2 * X[:, 0])) > 0.95)
    True
    """

    def __init__(
        self, module: Any = None, *, hidden_layer_sizes: Any = (100,), activation: str = "relu", dropout: float = 0.0,
        loss: Any = "squared_error", optimizer: Any = "adam", optimizer_params: Any = None, learning_rate_init: float = 1e-3,
        alpha: float = 1e-4, batch_size: Any = "auto", max_iter: int = 200, shuffle: bool = True, tol: float | None = 1e-4,
        n_iter_no_change: int = 10, early_stopping: bool = False, validation_fraction: float = 0.1, max_grad_norm: float | None = None,
        warm_start: bool = False, random_state: Any = None, dtype: str | None = None, device: Any = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        settings = dict(locals())
        del settings["self"]
        self.__dict__.update(settings)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Regressor:
        """One epoch over the given rows, from where the last call stopped."""
        return self._train(X, y, sample_weight, fresh=not hasattr(self, "module_"), epochs=1)

    def _check_targets(self, y: Any, first: bool, classes: Any) -> np.ndarray:
        y = np.asarray(y, np.float64)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if first:
            self.n_outputs_, self._flat = outputs, y.ndim == 1
        if outputs != self.n_outputs_:
            raise fd.errors.ValueError_(f"Regressor: y has {outputs} outputs; the first fit had {self.n_outputs_}")
        return y.reshape(len(y), outputs)

    def _loss(self) -> Callable[[Any, Any], Any]:
        if callable(self.loss):
            return self.loss
        if self.loss not in _REGRESSION_LOSSES:
            raise fd.errors.ValueError_(f"Regressor: loss is {self.loss!r}; need one of {', '.join(_REGRESSION_LOSSES)}, or a function")
        function = _REGRESSION_LOSSES[self.loss]
        return lambda z, y: function(z, y, reduction="none").mean(axis=1)

    def _validation_score(self, outputs: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        return r2_score(y, outputs, sample_weight=w) if len(y) > 1 else -float(np.square(y - outputs).mean())

    def predict(self, X: Any) -> np.ndarray:
        """Predicted numbers, (n_samples,) or (n_samples, n_outputs) as the y of the first fit."""
        outputs = self._predict_outputs(X)
        return outputs[:, 0] if self._flat else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
