"""Keras's formulas where they are not PyTorch's: SGD with momentum, RMSprop and Adagrad, composed from ops."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl.optim.composed import Composed, settings_of
from fastdl.optim.optimizer import ParamGroup


def _sgd(param: Any, grad: Any, velocity: Any, hyper: Any) -> None:
    lr, momentum, nesterov = settings_of(hyper, param, 3)
    velocity *= momentum
    velocity -= lr * grad
    param += velocity + nesterov * (momentum * velocity - lr * grad - velocity)


class MomentumSGD(Composed):
    """v = momentum v - lr g; parameters move by v, or (nesterov) by momentum v - lr g. A new rate does not touch the old velocity."""

    _kernel = staticmethod(_sgd)
    _state_names = ("momentum",)
    _settings = ("lr", "momentum", "nesterov")


def _rmsprop(param: Any, grad: Any, average: Any, mean: Any, velocity: Any, hyper: Any) -> None:
    lr, rho, momentum, eps = settings_of(hyper, param, 4)
    rest = (1.0 - hyper[1]).astype(param.dtype)
    average *= rho
    average += rest * grad * grad
    spread = average + eps
    if mean is not None:
        mean *= rho
        mean += rest * grad
        spread = spread - mean * mean
    move = lr * grad / fd.sqrt(spread)
    if velocity is None:
        param -= move
    else:
        velocity *= momentum
        velocity += move
        param -= velocity


class RMSprop(Composed):
    """v = rho v + (1 - rho) g^2; parameters move by lr g / sqrt(v + eps), through a velocity where there is momentum."""

    _kernel = staticmethod(_rmsprop)
    _state_names = ("velocity", "average_gradient", "momentum")
    _settings = ("lr", "rho", "momentum", "eps")

    def _used_state(self, group: Any) -> tuple[bool, ...]:
        return True, bool(group["centered"]), group["momentum"] > 0


def _adagrad(param: Any, grad: Any, total: Any, hyper: Any) -> None:
    lr, eps = settings_of(hyper, param, 2)
    total += grad * grad
    param -= lr * grad / fd.sqrt(total + eps)


class Adagrad(Composed):
    """s = s + g^2; parameters move by lr g / sqrt(s + eps)."""

    _kernel = staticmethod(_adagrad)
    _state_names = ("accumulator",)
    _settings = ("lr", "eps")

    def _new_arrays(self, group: ParamGroup, param: Any) -> tuple[Any, ...]:
        arrays = super()._new_arrays(group, param)
        arrays[0].fill_(float(group["initial"]))
        return arrays
