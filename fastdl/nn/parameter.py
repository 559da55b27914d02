"""Parameters: tensors that a module registers and an optimiser updates."""

from __future__ import annotations

from typing import Any

import fastdl as fd
from fastdl import _C


class Parameter(fd.Tensor):
    """A tensor that :class:`~fastdl.nn.Module` finds by itself when it is set as an attribute.

    Parameters
    ----------
    data : array_like
        The initial values; a tensor's memory is shared, not copied.
    requires_grad : bool
        Whether gradients are recorded (default True).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> w = nn.Parameter(fd.zeros((2, 3)))
    >>> w.shape, w.requires_grad, w.is_leaf
    ((2, 3), True, True)
    """

    def __new__(cls, data: Any, requires_grad: bool = True) -> Parameter:
        parameter: Parameter = _C.as_subclass(fd.asarray(data).detach(), cls)
        parameter.requires_grad_(requires_grad)
        return parameter

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        pass

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copy = type(self)(self.detach().clone(), self.requires_grad)
        memo[id(self)] = copy
        return copy
