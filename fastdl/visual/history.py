"""History: the numbers of a training run, one list per name."""

from __future__ import annotations

from typing import Any


class History(dict[str, list[float]]):
    """A dict of lists that grows by one value per epoch, and can be plotted.

    Examples
    --------
    >>> from fastdl.visual import History
    >>> history = History()
    >>> for epoch in range(3):
    ...     history.append(loss=1 / (epoch + 1), val_loss=1.5 / (epoch + 1))
    >>> history["loss"]
    [1.0, 0.5, 0.3333333333333333]
    """

    def append(self, **values: Any) -> None:
        """Add the numbers of one epoch; "val_x" is drawn beside "x"."""
        for name, value in values.items():
            self.setdefault(name, []).append(float(value))

    def plot(self, **settings: Any) -> Any:
        """Draw it: :func:`~fastdl.visual.plot_history`."""
        from .plots import plot_history

        return plot_history(self, **settings)
