"""Optimisers with Keras's arguments and defaults: thin fronts of `fastdl.optim`, or of Keras's formula where that differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fastdl as fd
from fastdl import optim
from fastdl.errors import ValueError_

from .. import _updates
from .._registry import getter
from .._serial import Configurable
from . import schedules


class Optimizer(Configurable):
    """Base of optimisers.

    Parameters
    ----------
    learning_rate : float or schedule
    weight_decay : float, optional
        Weights shrink by learning_rate * weight_decay at each step, whatever the gradient.
    clipnorm, clipvalue, global_clipnorm : float, optional
        Limits of each gradient's norm, of its elements, and of the norm of all gradients together.
    name : str, optional

    Attributes
    ----------
    learning_rate : float
        May be set at any time.
    iterations : int
        Steps done.

    Examples
    --------
    >>> from fastdl import keras
    >>> optimizer = keras.optimizers.Adam(learning_rate=0.01)
    >>> optimizer.learning_rate = 0.001
    >>> float(optimizer.learning_rate)
    0.001
    """

    _decays = False  # whether the inner optimiser applies weight_decay itself

    def __init__(
        self, learning_rate: Any = 0.001, weight_decay: float | None = None, clipnorm: float | None = None, clipvalue: float | None = None,
        global_clipnorm: float | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        if sum(v is not None for v in (clipnorm, clipvalue, global_clipnorm)) > 1:
            raise ValueError_(f"{type(self).__name__}: only one of clipnorm, clipvalue and global_clipnorm can be set")
        self.weight_decay, self.clipnorm, self.clipvalue, self.global_clipnorm = weight_decay, clipnorm, clipvalue, global_clipnorm
        self.name = name or type(self).__name__.lower()
        self.iterations = 0
        self.inner: optim.Optimizer | None = None
        self._schedule: Any = None
        self._constrained: list[Any] = []
        self.learning_rate = learning_rate

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        """The optimiser of fastdl that does the steps."""
        raise NotImplementedError(f"{type(self).__name__} must define _make(parameters, lr)")

    @property
    def learning_rate(self) -> float:
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, schedules.LearningRateSchedule) or (callable(value) and not hasattr(value, "__float__")):
            self._schedule = value
            value = value(self.iterations)
        else:
            self._schedule = None
        self._set_rate(float(value))

    lr = learning_rate

    def _set_rate(self, value: float) -> None:
        self._rate = value
        if self.inner is not None and self.inner.param_groups[0]["lr"] != value:
            self.inner.param_groups[0]["lr"] = value

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state for these variables (those of a model's `trainable_weights`)."""
        self.parameters = [v.tensor for v in variables]
        self._constrained = [v for v in variables if v.constraint is not None]
        self.inner = self._make(self.parameters, self._rate) if self.parameters else None

    def before_step(self) -> None:
        """What Python decides about the next step; outside captured functions."""
        if self._schedule is not None:
            self._set_rate(float(self._schedule(self.iterations)))
        self.iterations += 1

    def zero_grad(self) -> None:
        if self.inner is not None:
            self.inner.zero_grad()

    def step(self) -> None:
        """Clip, update, constrain: all on tensors, so that it can be captured."""
        if self.inner is None:
            return
        with fd.no_grad():
            self._clip()
            if self.weight_decay and not self._decays:
                rate = self.inner.param_groups[0]._hypers[0].tensor[0]
                for p in self.parameters:
                    p *= 1.0 - (rate * self.weight_decay).astype(p.dtype)
            self.inner.step()
            for v in self._constrained:
                value = v.constraint(v.value)
                v.tensor.copy_(value if v.axes is None else fd.permute_dims(value, _inverse(v.axes)))

    def _clip(self) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.clipvalue is not None:
            for g in grads:
                g.copy_(fd.clip(g, -self.clipvalue, self.clipvalue))
        elif self.clipnorm is not None:
            for g in grads:
                g *= self.clipnorm / fd.maximum(fd.sqrt(fd.square(g).sum()), self.clipnorm)
        elif self.global_clipnorm is not None:
            optim.clip_grad_norm_(self.parameters, self.global_clipnorm)

    def apply_gradients(self, pairs: Any) -> None:
        """Update variables (of a model's `trainable_weights`) by the given gradients of Keras's shapes."""
        pairs = list(pairs)
        if self.inner is None:
            self.build([v for _, v in pairs])
        for g, v in pairs:
            g = fd.asarray(g).detach()
            v.tensor.grad = g if v.axes is None else fd.permute_dims(g, _inverse(v.axes)).contiguous()
        self.before_step()
        self.step()
        self.zero_grad()

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimiser; a rate that was set since is in it."""
        config = super().get_config()
        if self._schedule is None:
            config["learning_rate"] = self._rate
        return config

    def state(self) -> dict[str, Any]:
        """State arrays by name, for files."""
        if self.inner is None:
            return {}
        entries = self.inner.state_dict()["state"]
        return {f"{n}/{key}": value for n, entry in entries.items() for key, value in entry.items() if key != "step"}

    def load_state(self, arrays: dict[str, Any], iterations: int) -> None:
        """Take over what :meth:`state` gave, after `build`."""
        self.iterations = iterations
        if self.inner is None:
            return
        state: dict[int, dict[str, Any]] = {}
        for key, value in arrays.items():
            n, name = key.split("/", 1)
            state.setdefault(int(n), {"step": float(iterations)})[name] = value
        self.inner.load_state_dict({**self.inner.state_dict(), "state": state})


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


class SGD(Optimizer):
    """Gradient descent, with momentum or Nesterov's form of it."""

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **kwargs: Any) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError_(f"SGD: momentum must be in [0, 1]; got {momentum}")
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        if not self.momentum:
            return optim.SGD(parameters, lr)
        return _updates.MomentumSGD(parameters, {"lr": lr, "momentum": self.momentum, "nesterov": self.nesterov})


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015). Epsilon is that of the paper's last formula ("epsilon hat"), as in Keras."""

    _decays = True

    def __init__(
        self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, amsgrad: bool = False, **kwargs: Any
    ) -> None:
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        return optim.AdamW(parameters, lr, (self.beta_1, self.beta_2), self.epsilon, self.weight_decay or 0.0, self.amsgrad)

    def before_step(self) -> None:
        super().before_step()
        if self.inner is not None:  # PyTorch adds eps after the bias correction, Keras before
            self.inner.param_groups[0]["eps"] = self.epsilon / math.sqrt(1.0 - self.beta_2**self.iterations)


class AdamW(Adam):
    """Adam with weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(
        self, learning_rate: Any = 0.001, weight_decay: float = 0.004, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7,
        amsgrad: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs)


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012)."""

    def __init__(
        self, learning_rate: Any = 0.001, rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7, centered: bool = False, **kwargs: Any
    ) -> None:
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        settings = {"lr": lr, "rho": self.rho, "momentum": self.momentum, "eps": self.epsilon, "centered": self.centered}
        return _updates.RMSprop(parameters, settings)


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011)."""

    def __init__(self, learning_rate: Any = 0.001, initial_accumulator_value: float = 0.1, epsilon: float = 1e-7, **kwargs: Any) -> None:
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        return _updates.Adagrad(parameters, {"lr": lr, "eps": self.epsilon, "initial": self.initial_accumulator_value})


class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012)."""

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **kwargs: Any) -> None:
        self.rho, self.epsilon = rho, epsilon
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        return optim.Adadelta(parameters, lr, self.rho, self.epsilon)


class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016)."""

    _decays = True

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, **kwargs: Any) -> None:
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        # Keras's momentum is beta (1 - 0.96 ** t / 2); PyTorch's default slows t down
        return optim.NAdam(parameters, lr, (self.beta_1, self.beta_2), self.epsilon, self.weight_decay or 0.0, 1.0, True)


class Lion(Optimizer):
    """Lion (Chen et al., 2023)."""

    _decays = True

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **kwargs: Any) -> None:
        self.beta_1, self.beta_2 = beta_1, beta_2
        super().__init__(learning_rate, **kwargs)

    def _make(self, parameters: list[Any], lr: float) -> optim.Optimizer:
        return optim.Lion(parameters, lr, (self.beta_1, self.beta_2), self.weight_decay or 0.0)


get = getter("optimizer", {c.__name__: c for c in (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Nadam, Lion)})

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Lion", "Nadam", "Optimizer", "RMSprop", "get", "schedules"]
