"""Adagrad, Adadelta, NAdam and Lion: updates composed from ops, under PyTorch's names, arguments and formulas.

Settings are read from the `hyper` tensor inside the update, so captured steps see changes of them as those of the fused kernels do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import fastdl as fd

from .optimizer import Optimizer, ParamGroup, check_at_least


def settings_of(hyper: Any, param: Any, count: int) -> list[Any]:
    """The first `count` numbers of `hyper` as 0-d tensors of the parameter's dtype."""
    return [hyper[k].astype(param.dtype) for k in range(count)]


class Composed(Optimizer):
    """Base of optimisers whose settings are all numbers, in the order of `_settings`, and whose state arrays are all used."""

    _fused = False
    _settings: ClassVar[tuple[str, ...]] = ()

    def _check(self, group: Mapping[str, Any]) -> None:
        check_at_least(type(self).__name__, group, 0.0, "lr", *[k for k in ("eps", "weight_decay") if k in group])

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        return [float(group[key]) for key in self._settings]

    def _used_state(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return (True,) * len(self._state_names)


def _adagrad(param: Any, grad: Any, total: Any, hyper: Any) -> None:
    eps, decay, sign = settings_of(hyper[2:], param, 3)
    rate = (hyper[0] / (1.0 + (hyper[-1] - 1.0) * hyper[1])).astype(param.dtype)
    g = grad * sign + decay * param
    total += g * g
    param -= rate * g / (fd.sqrt(total) + eps)


class Adagrad(Composed):
    """Adagrad (Duchi, Hazan and Singer, 2011): steps shrink with the sum of squared gradients.

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
    lr_decay : float
        Step t uses lr / (1 + (t - 1) * lr_decay).
    weight_decay : float
        Adds weight_decay * parameter to the gradient.
    initial_accumulator_value : float
        Where the sums of squares start.
    eps : float
        Added to the denominator.
    maximize : bool
        Go up the gradient.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([1.0]))
    >>> optimizer = optim.Adagrad([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    _kernel = staticmethod(_adagrad)
    _state_names = ("sum",)
    _settings = ("lr", "lr_decay", "eps", "weight_decay", "sign")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        if not initial_accumulator_value >= 0:
            raise ValueError(f"Adagrad: initial_accumulator_value must be >= 0; got {initial_accumulator_value}")
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        check_at_least("Adagrad", group, 0.0, "lr", "lr_decay", "eps", "weight_decay")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        return _with_sign(self._settings, group)

    def _new_arrays(self, group: ParamGroup, param: Any) -> tuple[Any, ...]:
        arrays = super()._new_arrays(group, param)
        arrays[0].fill_(float(group["initial_accumulator_value"]))
        return arrays


def _with_sign(settings: tuple[str, ...], group: Mapping[str, Any]) -> list[float]:
    """The settings as numbers; "sign" is -1 where the group maximises."""
    return [(-1.0 if group["maximize"] else 1.0) if key == "sign" else float(group[key]) for key in settings]


def _adadelta(param: Any, grad: Any, square_avg: Any, acc_delta: Any, hyper: Any) -> None:
    lr, rho, eps, decay, sign = settings_of(hyper, param, 5)
    rest = (1.0 - hyper[1]).astype(param.dtype)
    g = grad * sign + decay * param
    square_avg *= rho
    square_avg += rest * g * g
    delta = fd.sqrt(acc_delta + eps) / fd.sqrt(square_avg + eps) * g
    acc_delta *= rho
    acc_delta += rest * delta * delta
    param -= lr * delta


class Adadelta(Composed):
    """Adadelta (Zeiler, 2012): steps in units of the root mean square of earlier steps.

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
        Scales every step.
    rho : float
        Decay of the averages of squared gradients and of squared steps.
    eps : float
        Added below both roots.
    weight_decay : float
        Adds weight_decay * parameter to the gradient.
    maximize : bool
        Go up the gradient.
    """

    _kernel = staticmethod(_adadelta)
    _state_names = ("square_avg", "acc_delta")
    _settings = ("lr", "rho", "eps", "weight_decay", "sign")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if not 0 <= group["rho"] <= 1:
            raise ValueError(f"Adadelta: rho must be in [0, 1]; got {group['rho']}")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        return _with_sign(self._settings, group)


def _nadam(param: Any, grad: Any, m: Any, v: Any, product: Any, hyper: Any) -> None:
    lr, beta1, beta2, momentum_decay, step = hyper[0], hyper[1], hyper[2], hyper[6], hyper[-1]
    eps, decay, sign = settings_of(hyper[3:], param, 3)
    decoupled = hyper[7].astype(param.dtype)
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1.0) * momentum_decay))
    product *= mu.astype(product.dtype)
    done = product.astype(fd.float64)
    g = grad * sign + decay * (1.0 - decoupled) * param
    param *= 1.0 - lr.astype(param.dtype) * decay * decoupled
    m += (g - m) * (1.0 - beta1).astype(param.dtype)
    v *= beta2.astype(param.dtype)
    v += (1.0 - beta2).astype(param.dtype) * g * g
    root = fd.sqrt(v / (1.0 - beta2**step).astype(param.dtype)) + eps
    of_gradient = (lr * (1.0 - mu) / (1.0 - done)).astype(param.dtype)
    of_average = (lr * mu_next / (1.0 - done * mu_next)).astype(param.dtype)
    param -= (of_gradient * g + of_average * m) / root


class NAdam(Composed):
    """NAdam (Dozat, 2016): Adam with Nesterov's momentum, whose decay warms up.

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
    momentum_decay : float
        Step t has momentum beta1 * (1 - 0.96 ** (t * momentum_decay) / 2).
    decoupled_weight_decay : bool
        Shrink parameters by lr * weight_decay instead, as :class:`~fastdl.optim.AdamW` does.
    maximize : bool
        Go up the gradient.
    """

    _kernel = staticmethod(_nadam)
    _state_names = ("exp_avg", "exp_avg_sq", "mu_product")
    _scalar_state = ("mu_product",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        check_at_least("NAdam", group, 0.0, "lr", "eps", "weight_decay", "momentum_decay")
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"NAdam: betas must be in [0, 1); got {group['betas']}")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        settings = ("eps", "weight_decay", "sign", "momentum_decay", "decoupled_weight_decay")
        return [float(group["lr"]), *map(float, group["betas"]), *_with_sign(settings, group)]

    def _new_arrays(self, group: ParamGroup, param: Any) -> tuple[Any, ...]:
        m, v, product = super()._new_arrays(group, param)
        product.fill_(1.0)
        return m, v, product


def _lion(param: Any, grad: Any, m: Any, hyper: Any) -> None:
    lr, beta1, beta2, decay = settings_of(hyper, param, 4)
    rest1, rest2 = (1.0 - hyper[1]).astype(param.dtype), (1.0 - hyper[2]).astype(param.dtype)
    param *= 1.0 - lr * decay
    param -= lr * fd.sign(beta1 * m + rest1 * grad)
    m *= beta2
    m += rest2 * grad


class Lion(Composed):
    """Lion (Chen et al., 2023): steps of equal size along the sign of an average of gradients. PyTorch has none; arguments follow AdamW's.

    Parameters
    ----------
    params : iterable of Parameter or of dict
    lr : float
    betas : pair of float
        Weight of the average in the step, and its decay.
    weight_decay : float
        Parameters shrink by lr * weight_decay at each step.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> w = nn.Parameter(fd.array([1.0, -3.0]))
    >>> optimizer = optim.Lion([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [0.75, -2.75]
    """

    _kernel = staticmethod(_lion)
    _state_names = ("exp_avg",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if not all(0 <= beta <= 1 for beta in group["betas"]):
            raise ValueError(f"Lion: betas must be in [0, 1]; got {group['betas']}")

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        return [float(group["lr"]), *map(float, group["betas"]), float(group["weight_decay"])]
