"""Linear, Bilinear, Identity, Flatten, Unflatten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fastdl as fd

from . import functional as F, init
from .module import Module
from .parameter import Parameter


class Identity(Module):
    """Returns its input; any arguments are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """y = x @ weight.T + bias.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    device, dtype : optional
        Where and in which dtype the parameters live.

    Attributes
    ----------
    weight : Parameter
        (out_features, in_features), uniform in +-1 / sqrt(in_features).
    bias : Parameter or None
        (out_features,), uniform in the same bounds.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.Linear(3, 2)(fd.ones((5, 3))).shape
    (5, 2)
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(fd.empty((out_features, in_features), dtype=dtype, device=device))
        if bias:
            self.bias = Parameter(fd.empty((out_features,), dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.linear(input, self.weight, self.bias)

    def _forward_activated(self, input: fd.Tensor, activation: Any) -> fd.Tensor:
        return fd.linear(input, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_o = x1 W_o x2 + b_o: weight (out_features, in1_features, in2_features), bias (out_features,)."""

    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(fd.empty((out_features, in1_features, in2_features), dtype=dtype, device=device))
        if bias:
            self.bias = Parameter(fd.empty((out_features,), dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(max(1, self.in1_features))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: fd.Tensor, input2: fd.Tensor) -> fd.Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Flatten(Module):
    """Join the dimensions start_dim to end_dim (both included) into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        shape = input.shape
        rank = len(shape)
        start, end = self.start_dim, self.end_dim
        first = start if start >= 0 else start + rank
        last = end if end >= 0 else end + rank
        if not 0 <= first <= last < max(rank, 1):
            raise fd.ShapeError(f"flatten: dims {start} to {end} do not fit shape {tuple(shape)}")
        return fd.reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split dimension `dim` into the sizes `unflattened_size` (one may be -1)."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        shape = tuple(input.shape)
        if not -len(shape) <= self.dim < len(shape):
            raise fd.ShapeError(f"unflatten: dim {self.dim} does not fit shape {shape}")
        axis = self.dim % len(shape)
        sizes = list(self.unflattened_size)
        if sizes.count(-1) == 1:
            known = -math.prod(sizes)
            sizes[sizes.index(-1)] = shape[axis] // known if known else 0
        if math.prod(sizes) != shape[axis] or min(sizes, default=0) < 0:
            raise fd.ShapeError(
                f"unflatten: sizes {self.unflattened_size} do not multiply to {shape[axis]} (dim {self.dim} of {shape})"
            )
        return fd.reshape(input, (*shape[:axis], *sizes, *shape[axis + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
