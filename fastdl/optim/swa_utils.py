"""Averages of weights over training: stochastic weight averaging and exponential moving averages, under PyTorch's names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import fastdl as fd
from fastdl import nn


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], Any]:
    """For `AveragedModel(avg_fn=...)`: average = decay * average + (1 - decay) * new."""
    if not 0 <= decay <= 1:
        raise fd.errors.ValueError_(f"get_ema_avg_fn: decay is {decay}; need 0 to 1")

    def average(averaged: Any, new: Any, count: Any) -> Any:
        return decay * averaged + (1 - decay) * new

    return average


def get_swa_avg_fn() -> Callable[[Any, Any, Any], Any]:
    """For `AveragedModel(avg_fn=...)`: the plain mean of all models so far (its default)."""

    def average(averaged: Any, new: Any, count: Any) -> Any:
        return averaged + (new - averaged) / (count + 1)

    return average


class AveragedModel(nn.Module):
    """A copy of a model whose weights are the average of those that `update_parameters` has seen.

    Parameters
    ----------
    model : Module
        Copied; the copy is `self.module`.
    device : optional
        Where the copy lives.
    avg_fn : callable, optional
        (averaged, new, count of models so far) -> averaged. Default: :func:`get_swa_avg_fn`.
    use_buffers : bool
        Average floating-point buffers, too (batch norm's statistics); otherwise buffers follow the model.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> from fastdl.optim.swa_utils import AveragedModel, get_ema_avg_fn
    >>> model = nn.Linear(1, 1, bias=False)
    >>> ema = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9))
    >>> for value in (1.0, 2.0):
    ...     _ = nn.init.constant_(model.weight, value)
    ...     ema.update_parameters(model)
    >>> round(ema.module.weight.item(), 4)
    1.1
    """

    n_averaged: fd.Tensor

    def __init__(self, model: nn.Module, device: Any = None, avg_fn: Callable[..., Any] | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module.to(device=device)
        self.register_buffer("n_averaged", fd.zeros((), dtype=fd.int64))
        self.avg_fn = avg_fn or get_swa_avg_fn()
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's weights into the average; the first call copies them."""
        count = int(self.n_averaged.item())
        with fd.no_grad():
            pairs = [*zip(self.module.parameters(), model.parameters(), strict=True)]
            buffers = [*zip(self.module.buffers(), model.buffers(), strict=True)]
            for ours, theirs in pairs + buffers:
                new = theirs.detach().to(ours.device)
                averages = isinstance(theirs, nn.Parameter) or (self.use_buffers and ours.dtype.kind == "f")
                ours.copy_(self.avg_fn(ours.detach(), new, count) if averages and count else new)
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: nn.Module, device: Any = None) -> None:
    """Compute the running statistics of all batch norm layers anew, by one pass over `loader` (of inputs, or tuples that begin so)."""
    layers = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if not layers:
        return
    training, momenta = model.training, [layer.momentum for layer in layers]
    model.train()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
        with fd.no_grad():
            for batch in loader:
                x = batch[0] if isinstance(batch, (tuple, list)) else batch
                model(x if device is None else x.to(device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(training)
