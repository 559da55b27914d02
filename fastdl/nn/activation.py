"""Activations as modules. `inplace` is accepted for PyTorch's sake; it makes no difference."""

from __future__ import annotations

from typing import Any

import fastdl as fd

from . import functional as F, init
from .module import Module
from .parameter import Parameter


class _Plain(Module):
    """An activation without settings."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_Plain):
    """max(x, 0).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.ReLU()(fd.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.relu(input)


class ReLU6(_Plain):
    """min(max(x, 0), 6)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.relu6(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.tanh(input)


class LogSigmoid(Module):
    """log(sigmoid(x)), without underflow."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.log_sigmoid(input)


class SiLU(_Plain):
    """x * sigmoid(x), also called swish."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.silu(input)


class Mish(_Plain):
    """x * tanh(softplus(x))."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.mish(input)


class SELU(_Plain):
    """Self-normalising ELU (Klambauer et al., 2017)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.selu(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.softsign(input)


class Hardsigmoid(_Plain):
    """min(max(x + 3, 0), 6) / 6."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.hardsigmoid(input)


class Hardswish(_Plain):
    """x * hardsigmoid(x)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.hardswish(input)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.tanhshrink(input)


class GELU(Module):
    """x * Phi(x): exactly, or by the tanh formula (`approximate="tanh"`)."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh'; got {approximate!r}")
        self.approximate = approximate

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class CELU(Module):
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.celu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """x cut to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val must be below max_val; got {min_val} and {max_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class _Shrink(Module):
    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(_Shrink):
    """x moved by lambd towards zero; zero inside [-lambd, lambd]."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.softshrink(input, self.lambd)


class Hardshrink(_Shrink):
    """x outside [-lambd, lambd], zero inside."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.hardshrink(input, self.lambd)


class Threshold(Module):
    """x where x > threshold, else `value`."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"


class PReLU(Module):
    """Leaky relu with a learnt slope: one, or one per channel (axis 1)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(fd.empty((num_parameters,), dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.constant_(self.weight, self.init)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """Leaky relu whose slope is random in [lower, upper] in training, and their mean otherwise."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False, rng: Any = None) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace
        self.rng = rng

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, rng=self.rng)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"


class _AlongDim(Module):
    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class GLU(_AlongDim):
    """The first half along `dim`, gated by the sigmoid of the second."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.glu(input, self.dim)


class Softmax(_AlongDim):
    """exp(x) / sum(exp(x)) along `dim` (default: the last)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """log(softmax(x)) along `dim` (default: the last)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return fd.log_softmax(input, self.dim)


class Softmin(_AlongDim):
    """softmax(-x) along `dim` (default: the last)."""

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.softmin(input, self.dim)
