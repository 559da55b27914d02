"""compile, fit, evaluate, predict. The step (forward, loss, backward, update, sums of the metrics) is captured by `fd.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import ValueError_

from . import callbacks as _callbacks, losses, metrics as _metrics, optimizers
from ._data import Arrays, Batches, batch_size_of, source
from ._serial import pack
from ._tensor import as_tensor, leaves, map_tree
from .layers.base import Layer
from .utils import Progbar


class _Output:
    """Loss and metrics of one output."""

    def __init__(self, name: str, loss: Any, weight: Any, metrics: list[Any], weighted: list[Any]) -> None:
        self.name, self.loss, self.weight = name, loss, weight
        self.metrics = [*[(m, False) for m in metrics], *[(m, True) for m in weighted]]
        self.tracker = _metrics.Mean(f"{name}_loss")


def _make_metrics(given: Any) -> list[Any]:
    made = []
    for item in given if isinstance(given, (list, tuple)) else [] if given is None else [given]:
        kind = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy", "ce": "crossentropy"}.get(item) if isinstance(item, str) else None
        made.append(_Named(item, kind) if kind else _metrics.get(item))
    return made


class _Named(_metrics.MeanMetricWrapper):
    """"accuracy": which one is known when the first batch comes."""

    def __init__(self, name: str, kind: str) -> None:
        _metrics.Metric.__init__(self, name)
        self.kind, self.fn, self.settings = kind, None, {}  # type: ignore[assignment]

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        return _metrics._weighted_sums(_metrics.resolve_accuracy(self.kind, y_true, y_pred)(y_true, y_pred), sample_weight)


class Trainer(Layer):
    """What models can do beyond layers; see :class:`fastdl.keras.Model`."""

    optimizer: Any = None
    stop_training = False
    output_names: list[str]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": {}}  # captured steps belong to this object: copies record their own

    # ---- compile -------------------------------------------------------------------------------------------------------------

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, metrics: Any = None, weighted_metrics: Any = None,
        run_eagerly: bool = False, steps_per_execution: int = 1, jit_compile: Any = "auto",
    ) -> None:  # fmt: skip
        """Choose optimiser, loss and metrics.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss or callable; a list or dict of them for several outputs
            A callable gets (y_true, y_pred) and returns one number per sample, or one for all.
        loss_weights : list or dict of float, optional
        metrics, weighted_metrics : list of str, Metric or callable; a list or dict of lists for several outputs
            Only the second take sample weights.
        run_eagerly : bool
            Do not capture the step; the numbers are the same.
        steps_per_execution, jit_compile
            Accepted for Keras's sake; no difference.
        """
        own = self.__dict__
        own["optimizer"] = optimizers.get(optimizer)
        own["_settings"] = dict(loss=loss, loss_weights=loss_weights, metrics=metrics, weighted_metrics=weighted_metrics)
        own["_outputs_plan"] = None
        own["_total"] = _metrics.Mean("loss")
        own["run_eagerly"] = run_eagerly
        own["_steps"] = {}
        own["_optimizer_built"] = False
        fd._C.structure_changed()

    def _check_compiled(self, what: str) -> None:
        if "_settings" not in self.__dict__:
            raise ValueError_(f"{self.name}.{what}: call compile() first")

    def _plan(self, count: int) -> list[_Output]:
        """Loss and metrics of each of `count` outputs."""
        if self.__dict__["_outputs_plan"] is None:
            names = list(getattr(self, "output_names", None) or [f"output_{k + 1}" for k in range(count)])

            def each(value: Any, what: str) -> list[Any]:
                if isinstance(value, dict):
                    if unknown := set(value) - set(names):
                        raise ValueError_(f"compile: {what} has {sorted(unknown)}; the outputs are {names}")
                    return [value.get(name) for name in names]
                if count > 1 and isinstance(value, (list, tuple)):
                    if len(value) != count:
                        raise ValueError_(f"compile: {what} has {len(value)} entries; the model has {count} outputs")
                    return list(value)
                return [value] * count

            s = self.__dict__["_settings"]
            loss = s["loss"][0] if count == 1 and isinstance(s["loss"], (list, tuple)) else s["loss"]
            columns = zip(names, *(each(s[k] if k != "loss" else loss, k) for k in ("loss", "loss_weights", "metrics", "weighted_metrics")), strict=False)
            own_losses = [(n, losses.get(a), b, _make_metrics(c), _make_metrics(d)) for n, a, b, c, d in columns]
            self.__dict__["_outputs_plan"] = [_Output(*row) for row in own_losses]
        return self.__dict__["_outputs_plan"]

    def _lists(self, y: Any, predicted: Any) -> tuple[list[Any], list[Any]]:
        """Targets and predictions as lists, one entry per output."""
        if isinstance(predicted, dict):
            p = [predicted[k] for k in self._names(predicted)]
        else:
            p = list(predicted) if isinstance(predicted, (list, tuple)) else [predicted]
        if isinstance(y, dict):
            t = [y.get(name) for name in (self._names(predicted) if isinstance(predicted, dict) else self.output_names)]
        else:
            t = list(y) if isinstance(y, (list, tuple)) else [y]
        if len(t) == 1 and t[0] is None:
            t = [None] * len(p)
        if len(t) != len(p):
            raise ValueError_(f"{self.name}: got {len(t)} targets; the model has {len(p)} outputs")
        return t, p

    def _names(self, predicted: dict[str, Any]) -> list[str]:
        self.__dict__.setdefault("output_names", list(predicted))
        return list(predicted)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        """The loss of a batch as a 0-d tensor, penalties included."""
        return self._losses(y, y_pred, sample_weight)[0]

    def _losses(self, y: Any, predicted: Any, weight: Any) -> tuple[Any, list[Any]]:
        targets, outputs = self._lists(y, predicted)
        plan = self._plan(len(outputs))
        weights = self._weights(weight, len(outputs))
        total: Any = None
        parts: list[Any] = []
        for output, t, p, w in zip(plan, targets, outputs, weights, strict=True):
            if output.loss is None or t is None:
                parts.append(None)
                continue
            value = output.loss(t, p, w)
            value = value.mean() if value.ndim else value
            parts.append(value)
            scaled = value if output.weight is None else value * float(output.weight)
            total = scaled if total is None else total + scaled
        for penalty in [*self.regularization_losses(), *self.take_losses()]:
            penalty = penalty.mean() if penalty.ndim else penalty
            total = penalty if total is None else total + penalty
        if total is None:
            raise ValueError_(f"{self.name}: there is no loss; give one to compile(), or use add_loss() in call()")
        return total, parts

    def _weights(self, weight: Any, count: int) -> list[Any]:
        if isinstance(weight, dict):
            return [weight.get(output.name) for output in self._plan(count)]
        return list(weight) if isinstance(weight, (list, tuple)) else [weight] * count

    def _sums(self, y: Any, predicted: Any, weight: Any) -> list[Any]:
        """What each metric adds for this batch."""
        targets, outputs = self._lists(y, predicted)
        plan, weights = self._plan(len(outputs)), self._weights(weight, len(outputs))
        return [
            () if metric.outside or t is None else metric.sums(t, p, w if weighted else None)
            for output, t, p, w in zip(plan, targets, outputs, weights, strict=True)
            for metric, weighted in output.metrics
        ]

    # ---- steps ---------------------------------------------------------------------------------------------------------------

    def _step(self, kind: str) -> Callable[..., Any]:
        """The captured function for training ("train"), testing ("test") or predicting ("predict")."""
        steps = self.__dict__.setdefault("_steps", {})
        if kind not in steps:
            function = {"train": self._train_step, "test": self._test_step, "predict": self._predict_step}[kind]()
            steps[kind] = function if self.__dict__.get("run_eagerly") else fd.compile(function, strict=False)
        return steps[kind]

    def _train_step(self) -> Callable[..., Any]:
        model, optimizer, keep = self, self.optimizer, self._has_outside_metrics

        def train_step(x: Any, y: Any, w: Any) -> Any:
            optimizer.zero_grad()
            predicted = model(x)
            loss, parts = model._losses(y, predicted, w)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()  # gradients that nobody sees afterwards take no memory between steps, see docs/capture.md
            with fd.no_grad():
                predicted = map_tree(lambda t: t.detach(), predicted)
                sums = model._sums(y, predicted, w)
            return loss.detach(), [p if p is None else p.detach() for p in parts], sums, predicted if keep() else None

        return train_step

    def _test_step(self) -> Callable[..., Any]:
        model, keep = self, self._has_outside_metrics

        def test_step(x: Any, y: Any, w: Any) -> Any:
            predicted = model(x)
            loss, parts = model._losses(y, predicted, w)
            return loss, parts, model._sums(y, predicted, w), predicted if keep() else None

        return test_step

    def _predict_step(self) -> Callable[..., Any]:
        model = self

        def predict_step(x: Any) -> Any:
            predicted = model(x)
            model.take_losses()  # of activity_regularizer and add_loss: not wanted here
            return predicted

        return predict_step

    def _has_outside_metrics(self) -> bool:
        return any(metric.outside for output in self.__dict__["_outputs_plan"] for metric, _ in output.metrics)

    def _run(self, kind: str, x: Any, y: Any, w: Any) -> None:
        """One training or test step, and its sums added to the metrics."""
        self._ready(x)
        if kind == "train":
            if not self.__dict__["_optimizer_built"]:
                if not self.trainable_weights:
                    raise ValueError_(f"{self.name}: no weight is trainable; set trainable = True where the model is to learn, then compile")
                self.optimizer.build(self.trainable_weights)
                if "_optimizer_state" in self.__dict__:
                    self.optimizer.load_state(*self.__dict__.pop("_optimizer_state"))
                self.__dict__["_optimizer_built"] = True
            self.optimizer.before_step()
            loss, parts, sums, predicted = self._step(kind)(x, y, w)
        else:
            with fd.no_grad():
                loss, parts, sums, predicted = self._step(kind)(x, y, w)
        n = float(batch_size_of(x))
        self.__dict__["_total"].add((loss * n, fd.full((), n)))
        pending = iter(sums)
        plan = self.__dict__["_outputs_plan"]
        for k, output in enumerate(plan):
            if len(plan) > 1 and parts[k] is not None:
                output.tracker.add((parts[k] * n, fd.full((), n)))
            for metric, weighted in output.metrics:
                added = next(pending)
                if metric.outside:
                    targets, outputs = self._lists(y, predicted)
                    metric.update_state(targets[k], outputs[k], self._weights(w, len(plan))[k] if weighted else None)
                elif added:
                    metric.add(added)

    def _ready(self, x: Any) -> None:
        """Weights are made in the first batch's shape, before anything is captured; a second model of the class would not record that."""
        if not self._weights_made():
            with fd.no_grad():
                mode = self.training
                self.train(False)
                self(x)
                self.take_losses()
                self.train(mode)
        if self.__dict__.get("_outputs_plan") is None and "_settings" in self.__dict__:
            with fd.no_grad():
                mode = self.training
                self.train(False)
                predicted = self(x)
                self.take_losses()
                self.train(mode)
            self._plan(len(predicted) if isinstance(predicted, (list, tuple, dict)) else 1)
            if isinstance(predicted, dict):
                self._names(predicted)

    def _weights_made(self) -> bool:
        return self.built and all(layer.built for layer in self._sublayers())

    # ---- metrics -------------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Any]:
        """The loss's mean and the metrics of all outputs."""
        plan = self.__dict__.get("_outputs_plan") or []
        return [self.__dict__["_total"], *[o.tracker for o in plan if len(plan) > 1 and o.loss is not None], *[m for o in plan for m, _ in o.metrics]]

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns."""
        return list(self._logs())

    def reset_metrics(self) -> None:
        """Forget all batches."""
        for metric in self.metrics:
            metric.reset_state()

    def _logs(self, prefix: str = "") -> dict[str, float]:
        """The metrics so far, by name: the loss first."""
        plan = self.__dict__.get("_outputs_plan") or []
        found = {"loss": _number(self.__dict__["_total"].result())}
        for output in plan:
            if len(plan) > 1 and output.loss is not None:
                found[output.tracker.name] = _number(output.tracker.result())
        for output in plan:
            for metric, _ in output.metrics:
                name = metric.name if len(plan) == 1 else f"{output.name}_{metric.name}"
                while name in found:
                    name += "_1"
                found[name] = _number(metric.result())
        return {prefix + key: value for key, value in found.items()}

    # ---- fit -----------------------------------------------------------------------------------------------------------------

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1, verbose: Any = "auto", callbacks: Any = None,
        validation_split: float = 0.0, validation_data: Any = None, shuffle: bool = True, class_weight: dict[int, float] | None = None,
        sample_weight: Any = None, initial_epoch: int = 0, steps_per_epoch: int | None = None, validation_steps: int | None = None,
        validation_batch_size: int | None = None, validation_freq: int = 1,
    ) -> _callbacks.History:  # fmt: skip
        """Train.

        Parameters
        ----------
        x, y : arrays, or lists or dicts of arrays
            x may also be a generator, a `fastdl.data.DataLoader` or a `keras.utils.Sequence` of (x, y) or (x, y, sample_weight).
        batch_size : int
            Default 32.
        epochs, initial_epoch : int
            Train from `initial_epoch` up to `epochs`.
        verbose : 0, 1, 2 or "auto"
            Nothing, a progress bar, or one line per epoch.
        callbacks : list of Callback, optional
        validation_split : float
            This part of the rows, the last, is held out.
        validation_data : tuple (x, y) or (x, y, sample_weight), or a generator, loader or sequence
        shuffle : bool
            New order of the rows in every epoch, by NumPy's global generator.
        class_weight : dict, optional
            Weight of each class in the loss.
        sample_weight : array, optional
            Weight of each row in the loss.
        steps_per_epoch, validation_steps : int, optional
            Batches of an epoch; needed for endless generators.
        validation_batch_size, validation_freq : int, optional

        Returns
        -------
        History
            `history.history["loss"]` and so on, one number per epoch.
        """
        self._check_compiled("fit")
        data = source(x, y, sample_weight, batch_size, steps_per_epoch, None if validation_split else class_weight)
        held: Arrays | Batches | None = None
        if validation_data is not None:
            held = self._validation(validation_data, validation_batch_size or batch_size, validation_steps)
        elif validation_split:
            if not isinstance(data, Arrays):
                raise ValueError_("fit: validation_split needs arrays; give validation_data")
            data, held = data.split(validation_split)
            held.batch_size = validation_batch_size or held.batch_size
            if class_weight is not None:
                data = Arrays(*data.data, data.batch_size, class_weight)
        steps = _count(data, steps_per_epoch)
        verbose = 1 if verbose == "auto" else int(verbose)
        history = _callbacks.History()
        listeners = _callbacks.CallbackList(
            [*(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []), history],
            self,
            {"epochs": epochs, "steps": steps, "verbose": verbose},
        )
        self.__dict__["history"] = history
        self.__dict__["stop_training"] = False
        batches = _Endless(data, shuffle) if steps_per_epoch is not None else None
        listeners.call("train_begin", {})
        for epoch in range(initial_epoch, epochs):
            listeners.call("epoch_begin", epoch, {})
            if verbose:
                print(f"Epoch {epoch + 1}/{epochs}")
            self.reset_metrics()
            bar = Progbar(steps, verbose)
            done = self._epoch(batches.take(steps_per_epoch) if batches else data.epoch(shuffle), listeners, bar)
            if steps is None:
                steps = bar.target = done
            logs = self._logs()
            if held is not None and (epoch + 1 - initial_epoch) % validation_freq == 0 and not self._broken(logs):
                logs = {**logs, **{f"val_{k}": v for k, v in self._test(held, validation_steps, listeners).items()}}
            logs = dict(sorted(logs.items()))
            bar.update(done, logs, finalize=True)
            listeners.call("epoch_end", epoch, logs)
            if self.stop_training:
                break
        self.train(False)
        listeners.call("train_end", {})
        return history

    def _broken(self, logs: dict[str, Any]) -> bool:
        return bool(self.stop_training and not np.isfinite(logs["loss"]))

    def _epoch(self, batches: Iterator[Any], listeners: _callbacks.CallbackList, bar: Progbar) -> int:
        begin, end = listeners.wants["train_batch_begin"], listeners.wants["train_batch_end"]
        self.train(True)
        k = -1
        for k, (x, y, w) in enumerate(batches):
            if begin:
                listeners.call("train_batch_begin", k, {})
            self._run("train", x, y, w)
            if end:
                listeners.call("train_batch_end", k, self._logs())
                if not self.training:  # a callback has called predict or evaluate
                    self.train(True)
            if self.stop_training:
                break
            if bar.due():
                bar.update(k + 1, self._logs())
        if k < 0:
            raise ValueError_(f"{self.name}.fit: there are no batches; a generator that has ended cannot start again (give steps_per_epoch, or a loader)")
        return k + 1

    def _validation(self, given: Any, batch_size: int | None, steps: int | None) -> Arrays | Batches:
        if isinstance(given, (tuple, list)):
            x, y, w = (*given, None)[:3]
            return source(x, y, w, batch_size, steps)
        return source(given, None, None, batch_size, steps)

    def _test(self, data: Arrays | Batches, steps: int | None, listeners: _callbacks.CallbackList | None = None) -> dict[str, float]:
        begin = listeners.wants["test_batch_begin"] if listeners else []
        end = listeners.wants["test_batch_end"] if listeners else []
        if listeners:
            listeners.call("test_begin", {})
        self.train(False)
        self.reset_metrics()
        for k, (x, y, w) in enumerate(data.epoch(False)):
            if steps is not None and k >= steps:
                break
            if begin:
                listeners.call("test_batch_begin", k, {})  # type: ignore[union-attr]
            self._run("test", x, y, w)
            if end:
                listeners.call("test_batch_end", k, self._logs())  # type: ignore[union-attr]
        logs = self._logs()
        if listeners:
            listeners.call("test_end", logs)
        return logs

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, verbose: Any = "auto", sample_weight: Any = None,
        steps: int | None = None, callbacks: Any = None, return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """Loss and metrics: a list in the order of `metrics_names` (one number where there is no metric), or a dict."""
        self._check_compiled("evaluate")
        data = source(x, y, sample_weight, batch_size, steps)
        count = _count(data, steps)
        listeners = _callbacks.CallbackList(callbacks or [], self, {"steps": count, "verbose": verbose})
        bar = Progbar(count, 1 if verbose == "auto" else int(verbose))
        logs = self._test(data, steps, listeners)
        bar.update(count or 1, dict(sorted(logs.items())), finalize=True)
        return logs if return_dict else _flat(logs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None, callbacks: Any = None) -> Any:
        """Outputs as NumPy arrays, in the model's containers."""
        data = source(x, None, None, batch_size, steps)
        count = _count(data, steps)
        listeners = _callbacks.CallbackList(callbacks or [], self, {"steps": count, "verbose": verbose})
        bar = Progbar(count, 1 if verbose == "auto" else int(verbose))
        listeners.call("predict_begin", {})
        self.train(False)
        pieces = []
        for k, (batch, _, _) in enumerate(data.epoch(False)):
            if steps is not None and k >= steps:
                break
            pieces.append(self._predict(batch))
        if not pieces:
            raise ValueError_(f"{self.name}.predict: there are no batches")
        columns = iter([np.concatenate(column) for column in zip(*[leaves(p, np.ndarray) for p in pieces], strict=True)])
        result = map_tree(lambda _: next(columns), pieces[0])
        bar.update(len(pieces), {}, finalize=True)
        listeners.call("predict_end", {})
        return result

    def _predict(self, x: Any) -> Any:
        self._ready(x)
        with fd.no_grad():
            return map_tree(lambda t: t.cpu().numpy(), self._step("predict")(x))

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs of one batch as NumPy arrays."""
        self.train(False)
        return self._predict(map_tree(lambda a: as_tensor(np.asarray(a)), x) if not isinstance(x, fd.Tensor) else x)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False) -> Any:
        """One training step; loss and metrics of this batch."""
        self._check_compiled("train_on_batch")
        return self._one("train", Arrays(x, y, sample_weight, 2**62, class_weight), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics of one batch."""
        self._check_compiled("test_on_batch")
        return self._one("test", Arrays(x, y, sample_weight, 2**62), return_dict)

    def _one(self, kind: str, data: Arrays, return_dict: bool) -> Any:
        self.reset_metrics()
        self.train(kind == "train")
        for x, y, w in data.epoch(False):
            self._run(kind, x, y, w)
        self.train(False)
        return self._logs() if return_dict else _flat(self._logs())

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, as JSON can hold it; empty where it cannot."""
        try:
            settings = {key: pack(value) for key, value in self.__dict__["_settings"].items()}
            return {"optimizer": pack(self.optimizer), **settings}
        except (KeyError, TypeError):
            return {}


class _Endless:
    """Batches for epochs of a fixed number of steps, over the end of the data and on from there."""

    def __init__(self, data: Arrays | Batches, shuffle: bool) -> None:
        self._data, self._shuffle = data, shuffle
        self._running: Iterator[Any] = data.epoch(shuffle)

    def take(self, steps: int | None) -> Iterator[Any]:
        for _ in range(steps or 0):
            batch = next(self._running, None)
            if batch is None:
                self._running = self._data.epoch(self._shuffle)
                batch = next(self._running, None)
                if batch is None:
                    return
            yield batch


def _count(data: Arrays | Batches, steps: int | None) -> int | None:
    if steps is not None:
        return steps
    return len(data) if isinstance(data, Arrays) else data.steps


def _flat(logs: dict[str, float]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _number(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value
