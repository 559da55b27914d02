"""EarlyStopping: stop when a watched number no longer improves, and keep the best weights."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd


class EarlyStopping:
    """Tells when training should stop, and keeps a copy of the best weights.

    Parameters
    ----------
    patience : int
        Steps without improvement after which :meth:`step` returns True.
    min_delta : float
        A change must be larger than this to count.
    mode : {"min", "max"}
        Whether smaller (losses) or larger (accuracies) is better.

    Attributes
    ----------
    best : float
    best_step : int
        Number of the best call of :meth:`step`, from 0.

    Examples
    --------
    >>> from fastdl import nn, optim
    >>> model, stopper = nn.Linear(2, 1), optim.EarlyStopping(patience=2)
    >>> for loss in [1.0, 0.5, 0.7, 0.6, 0.1]:
    ...     if stopper.step(loss, model):
    ...         break
    >>> stopper.best, loss
    (0.5, 0.6)
    >>> stopper.restore(model)
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0, mode: str = "min") -> None:
        if mode not in ("min", "max") or patience < 1 or not min_delta >= 0:
            raise fd.errors.ValueError_(
                f"EarlyStopping: need mode 'min' or 'max', patience >= 1, min_delta >= 0; got {mode!r}, {patience}, {min_delta}"
            )
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.best = math.inf if mode == "min" else -math.inf
        self.best_step, self.steps = -1, 0
        self._weights: dict[str, Any] | None = None

    def step(self, value: Any, model: Any = None) -> bool:
        """Take the next value (and, if it is the best, the model's weights); True: stop. NaN never improves."""
        value = float(value)
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_step = value, self.steps
            if model is not None:
                self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.steps += 1
        return self.steps - 1 - self.best_step >= self.patience

    def restore(self, model: Any) -> None:
        """Put the best weights back into the model.

        Raises
        ------
        ValueError
            When :meth:`step` never got a model.
        """
        if self._weights is None:
            raise fd.errors.ValueError_("EarlyStopping.restore: no weights were kept; give the model to step()")
        model.load_state_dict(self._weights)
