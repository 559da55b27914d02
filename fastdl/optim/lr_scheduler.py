"""Learning-rate schedules: PyTorch's names, arguments and values.

Every schedule but ReduceLROnPlateau is a formula of the number of steps and the initial rates, so nothing drifts and resuming
needs no more than that number.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """Base class: define `factor(step)`, which multiplies the initial rates, or override `rates(step)`.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        Steps already taken, minus one: -1 starts anew.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: got {type(optimizer).__name__}; need an Optimizer")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"{type(self).__name__}: param_groups need 'initial_lr' to resume at last_epoch {last_epoch}")
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def factor(self, step: int) -> float:
        """What multiplies the initial rates after `step` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(step) or rates(step)")

    def rates(self, step: int) -> list[float]:
        """The rate of every group after `step` steps."""
        factor = self.factor(step)
        return [base * factor for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Take one step (after `optimizer.step()`), or go to step `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._apply()

    def _apply(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates(self.last_epoch), strict=True):
            group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """The current rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The position of the schedule, as JSON-able values."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the position of :meth:`state_dict`, and set the rates that belong to it."""
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"{type(self).__name__}: got {len(state_dict['base_lrs'])} rates, need {len(self.base_lrs)}")
        self.base_lrs = [float(rate) for rate in state_dict["base_lrs"]]
        self.last_epoch = int(state_dict["last_epoch"])
        self._apply()


class LambdaLR(LRScheduler):
    """lr = initial lr * lr_lambda(step); one function, or one per group.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> optimizer = optim.SGD([nn.Parameter(fd.zeros(1))], lr=0.5)
    >>> scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: got {len(self.lr_lambdas)} functions for {groups} parameter groups")
        super().__init__(optimizer, last_epoch)

    def rates(self, step: int) -> list[float]:
        return [base * function(step) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """Times `gamma` every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        _positive("StepLR", "step_size", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Times `gamma` at each of the `milestones`."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.gamma ** bisect.bisect_right(self.milestones, step)


class ConstantLR(LRScheduler):
    """Times `factor` for the first `total_iters` steps."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR: factor must be in [0, 1]; got {factor}")
        self.start, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.start if step < self.total_iters else 1.0


class LinearLR(LRScheduler):
    """From `start_factor` to `end_factor` in `total_iters` steps: the usual warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: factors must be in (0, 1] and [0, 1]; got {start_factor} and {end_factor}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        done = min(step, self.total_iters) / self.total_iters if self.total_iters > 0 else 1.0
        return self.start_factor + (self.end_factor - self.start_factor) * done


class ExponentialLR(LRScheduler):
    """Times `gamma` at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.gamma**step


class PolynomialLR(LRScheduler):
    """Times (1 - step / total_iters)^power; zero after `total_iters` steps."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        _positive("PolynomialLR", "total_iters", total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return (1 - min(step, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_max` steps (Loshchilov and Hutter, 2017), and back up after it."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        _positive("CosineAnnealingLR", "T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rates(self, step: int) -> list[float]:
        cosine = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * cosine for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that starts again after `T_0` steps, then `T_0 * T_mult`, and so on (Loshchilov and Hutter, 2017)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        _positive("CosineAnnealingWarmRestarts", "T_0", T_0)
        _positive("CosineAnnealingWarmRestarts", "T_mult", T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def rates(self, step: int) -> list[float]:
        period, inside = self.T_0, step
        if self.T_mult == 1:
            inside = step % period
        while inside >= period:
            inside -= period
            period *= self.T_mult
        cosine = (1 + math.cos(math.pi * inside / period)) / 2
        return [self.eta_min + (base - self.eta_min) * cosine for base in self.base_lrs]


class CosineWarmupLR(LRScheduler):
    """Linear warm-up from 0 in `warmup_steps` steps, then half a cosine down to `min_factor` at `total_steps`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> optimizer = optim.SGD([nn.Parameter(fd.zeros(1))], lr=1.0)
    >>> scheduler = optim.lr_scheduler.CosineWarmupLR(optimizer, warmup_steps=2, total_steps=4)
    >>> rates = []
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     rates.append(optimizer.param_groups[0]["lr"])
    ...     scheduler.step()
    >>> [round(rate, 3) for rate in rates]
    [0.5, 1.0, 0.75, 0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        min_factor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"CosineWarmupLR: need 0 <= warmup_steps < total_steps; got {warmup_steps} and {total_steps}")
        self.warmup_steps, self.total_steps, self.min_factor = warmup_steps, total_steps, min_factor
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = self.total_steps - self.warmup_steps
        done = min(step + 1 - self.warmup_steps, rest) / (rest + 1)
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * done)) / 2


class OneCycleLR(LRScheduler):
    """Up to `max_lr`, then down below the start, within `total_steps` (Smith and Topin, 2018).

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or sequence of float
        The peak, one for all groups or one each.
    total_steps, epochs, steps_per_epoch : int
        The length: the first, or the product of the others.
    pct_start : float
        Part of the cycle that goes up.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Move momentum (or the first beta) against the rate, between `base_momentum` and `max_momentum`.
    base_momentum, max_momentum : float
    div_factor : float
        The start is max_lr / div_factor.
    final_div_factor : float
        The end is start / final_div_factor.
    three_phase : bool
        Come down as long as going up, then down to the end.
    last_epoch : int

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> optimizer = optim.Adam([nn.Parameter(fd.zeros(1))])
    >>> scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    >>> round(optimizer.param_groups[0]["lr"], 6)
    0.004
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: need total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        _positive("OneCycleLR", "total_steps", total_steps)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be in [0, 1]; got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear'; got {anneal_strategy!r}")
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        up = float(pct_start * total_steps) - 1
        if three_phase:
            self._ends = [up, float(2 * pct_start * total_steps) - 2, total_steps - 1.0]
            self._marks = ["initial", "max", "initial", "min"]
        else:
            self._ends = [up, total_steps - 1.0]
            self._marks = ["initial", "max", "min"]
        groups = optimizer.param_groups
        peaks = [float(max_lr)] * len(groups) if isinstance(max_lr, (int, float)) else [float(rate) for rate in max_lr]
        if len(peaks) != len(groups):
            raise ValueError(f"OneCycleLR: got {len(peaks)} values of max_lr for {len(groups)} parameter groups")
        self._levels = [{"initial": peak / div_factor, "max": peak, "min": peak / div_factor / final_div_factor} for peak in peaks]
        self._momenta = {"initial": max_momentum, "max": base_momentum, "min": max_momentum}
        self.cycle_momentum = cycle_momentum
        if cycle_momentum and not all("momentum" in g or "betas" in g for g in groups):
            raise ValueError("OneCycleLR: the optimiser has neither momentum nor betas; pass cycle_momentum=False")
        super().__init__(optimizer, last_epoch)

    def _between(self, levels: Mapping[str, float], step: int) -> float:
        begin = 0.0
        for phase, end in enumerate(self._ends):
            if step <= end or phase == len(self._ends) - 1:
                done = (step - begin) / (end - begin) if end != begin else 1.0
                first, last = levels[self._marks[phase]], levels[self._marks[phase + 1]]
                if self.anneal_strategy == "linear":
                    return first + (last - first) * done
                return last + (first - last) / 2 * (1 + math.cos(math.pi * done))
            begin = end
        raise AssertionError("unreachable")

    def rates(self, step: int) -> list[float]:
        if step >= self.total_steps:
            raise ValueError(f"OneCycleLR: step {step + 1} is one too many; the cycle has total_steps {self.total_steps}")
        return [self._between(levels, step) for levels in self._levels]

    def _apply(self) -> None:
        super()._apply()
        if self.cycle_momentum:
            momentum = self._between(self._momenta, self.last_epoch)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


class SequentialLR(LRScheduler):
    """One schedule after another: `schedulers[k + 1]` begins, at its own step 0, at step `milestones[k]`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> from fastdl.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    >>> optimizer = optim.SGD([nn.Parameter(fd.zeros(1))], lr=1.0)
    >>> warmup, anneal = LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 8)
    >>> scheduler = SequentialLR(optimizer, [warmup, anneal], milestones=[2])
    >>> round(scheduler.get_last_lr()[0], 3)
    0.1
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ValueError(f"SequentialLR: {len(schedulers)} schedulers need one milestone less; got {len(milestones)}")
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("SequentialLR: all schedulers must belong to its optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def _apply(self) -> None:
        k = bisect.bisect_right(self.milestones, self.last_epoch)
        self.schedulers[k].step(self.last_epoch - (self.milestones[k - 1] if k else 0))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for scheduler, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            scheduler.load_state_dict(state)
        super().load_state_dict(state_dict)


class ReduceLROnPlateau:
    """Times `factor` when a value has not improved for more than `patience` calls of `step(value)`.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether smaller or larger is better.
    factor : float
    patience : int
    threshold : float
        An improvement counts when it is larger than this: relative to the best value ("rel") or absolute ("abs").
    threshold_mode : {"rel", "abs"}
    cooldown : int
        Calls after a reduction during which nothing is counted.
    min_lr : float or sequence of float
    eps : float
        Changes smaller than this are not made.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> optimizer = optim.SGD([nn.Parameter(fd.zeros(1))], lr=1.0)
    >>> scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1; got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: mode 'min' or 'max', threshold_mode 'rel' or 'abs'; got {mode!r}, {threshold_mode!r}"
            )
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        groups = len(optimizer.param_groups)
        self.min_lrs = [float(min_lr)] * groups if isinstance(min_lr, (int, float)) else [float(m) for m in min_lr]
        if len(self.min_lrs) != groups:
            raise ValueError(f"ReduceLROnPlateau: got {len(self.min_lrs)} values of min_lr for {groups} parameter groups")
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    def step(self, metrics: Any) -> None:
        """Report the newest value."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                reduced = max(group["lr"] * self.factor, least)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * value < sign * self.best * (1 - sign * self.threshold)
        return sign * value < sign * self.best - self.threshold

    def get_last_lr(self) -> list[float]:
        """The current rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The position of the schedule, as JSON-able values."""
        return {key: getattr(self, key) for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the position of :meth:`state_dict`; the rates are part of the optimiser's state."""
        for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(self, key, state_dict[key])


def _positive(name: str, setting: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {setting} must be an integer >= 1; got {value!r}")
