"""SGD, Adam, AdamW and RMSprop: PyTorch's arguments, defaults and formulas, bit for bit up to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastdl.ops.optim import adam_step, rmsprop_step, sgd_step

from .optimizer import Optimizer, check_at_least


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's form of it (Sutskever et al., 2013).

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
    momentum, dampening : float
        buffer = momentum * buffer + (1 - dampening) * grad; the first step takes the gradient itself.
    weight_decay : float
        Adds weight_decay * parameter to the gradient.
    nesterov : bool
        Needs momentum > 0 and no dampening.
    maximize : bool
        Go up the gradient.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([1.0]))
    >>> optimizer = optim.SGD([w], lr=0.1)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     (w * w).sum().backward()
    ...     optimizer.step()
    >>> round(w.item(), 4)
    0.512
    """

    _kernel = staticmethod(sgd_step)  # an op set on a class would bind like a method
    _state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        check_at_least("SGD", group, 0.0, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening 0")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        keys = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
        return [float(group[key]) for key in keys]

    def _used_state(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return (group["momentum"] != 0,)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015).

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
    betas : pair of float
        Decay of the averages of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        Adds weight_decay * parameter to the gradient.
    amsgrad : bool
        Divide by the largest average of squares so far (Reddi et al., 2018).
    maximize : bool
        Go up the gradient.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([1.0]))
    >>> optimizer = optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    _kernel = staticmethod(adam_step)  # an op set on a class would bind like a method
    _state_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        name = type(self).__name__
        check_at_least(name, group, 0.0, "lr", "eps", "weight_decay")
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"{name}: betas must be in [0, 1); got {group['betas']}")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        beta1, beta2 = group["betas"]
        numbers = (group["lr"], beta1, beta2, group["eps"], group["weight_decay"], self._decoupled, group["maximize"])
        return [float(number) for number in numbers]

    def _used_state(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return True, True, bool(group["amsgrad"])


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): parameters shrink by lr * weight_decay at each step.

    The arguments are :class:`Adam`'s; `weight_decay` is 0.01 unless given.
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012; centred: Graves, 2013).

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
    alpha : float
        Decay of the average of squared gradients.
    eps : float
        Added to the denominator.
    weight_decay : float
        Adds weight_decay * parameter to the gradient.
    momentum : float
    centered : bool
        Divide by the estimated standard deviation, not the root mean square.
    maximize : bool
        Go up the gradient.
    """

    _kernel = staticmethod(rmsprop_step)  # an op set on a class would bind like a method
    _state_names = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        check_at_least("RMSprop", group, 0.0, "lr", "alpha", "eps", "weight_decay", "momentum")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        keys = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
        return [float(group[key]) for key in keys]

    def _used_state(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return True, group["momentum"] > 0, bool(group["centered"])
